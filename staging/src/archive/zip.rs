//! Members of ZIP archives. Their CRCs are checked as they are read.

use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use super::listing::{Listed, Listing};
use super::target::Node;
use super::targets::Targets;
use super::{damaged, open};
use crate::protocol::TransferError;

/// Bytes of the target of a symbolic link.
const LINK_BYTES_MAX: u64 = 4096;

pub(super) fn read(archive: &Path, targets: &mut Targets<'_>) -> Result<(), TransferError> {
    let file = BufReader::new(open(archive)?);
    let mut zip = ZipArchive::new(file).map_err(|error| damaged(&error))?;
    for index in 0..zip.len() {
        let name = match zip.name_for_index(index) {
            Some(name) => name.map_err(|error| damaged(&error))?.into_owned(),
            None => continue,
        };
        let Some(aim) = targets.wanting(name.as_bytes()) else { continue };
        let mut entry = zip.by_index(index).map_err(|error| damaged(&error))?;
        let executable = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        if entry.is_dir() {
            aim.take(name.as_bytes(), Node::Directory);
        } else if entry.is_symlink() {
            let mut link = Vec::new();
            let read = (&mut entry).take(LINK_BYTES_MAX).read_to_end(&mut link);
            read.map_err(|error| damaged(&error))?;
            aim.take(name.as_bytes(), Node::Link(&link));
        } else {
            aim.take(name.as_bytes(), Node::File { executable, bytes: &mut entry });
        }
    }
    Ok(())
}

/// Names members.
pub(super) fn list(archive: &Path, listing: &mut Listing) -> Result<(), TransferError> {
    let file = BufReader::new(open(archive)?);
    let mut zip = ZipArchive::new(file).map_err(|error| damaged(&error))?;
    for index in 0..zip.len() {
        let name = match zip.name_for_index(index) {
            Some(name) => name.map_err(|error| damaged(&error))?.into_owned(),
            None => continue,
        };
        let entry = zip.by_index_raw(index).map_err(|error| damaged(&error))?;
        let listed = if entry.is_dir() {
            Listed::Directory
        } else if entry.is_symlink() {
            Listed::File(None)
        } else {
            Listed::File(Some(entry.size()))
        };
        listing.take(name.as_bytes(), listed)?;
    }
    Ok(())
}
