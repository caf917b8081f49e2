//! Members of tar archives, plain or compressed; how, their first bytes say.
//!
//! The whole archive is read, since a later member of one name takes the place of an earlier one,
//! and since only its end shows that a compressed stream is whole.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use tar::{Archive, EntryType};

use super::listing::{Listed, Listing};
use super::target::Node;
use super::targets::Targets;
use super::{damaged, local, open};
use crate::protocol::TransferError;

pub(super) fn read(archive: &Path, targets: &mut Targets<'_>) -> Result<(), TransferError> {
    let mut tar = Archive::new(decompressed(archive)?);
    for entry in tar.entries().map_err(|error| damaged(&error))? {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        let name = entry.path_bytes().into_owned();
        let Some(aim) = targets.wanting(&name) else {
            if targets.have_failed() {
                return Ok(());
            }
            continue;
        };
        let kind = entry.header().entry_type();
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
        match kind {
            EntryType::Directory => aim.take(&name, Node::Directory),
            EntryType::Symlink => aim.take(&name, Node::Link(&link)),
            EntryType::Link => aim.take(&name, Node::HardLink(&link)),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                aim.take(&name, Node::File { executable, bytes: &mut entry });
            }
            EntryType::XGlobalHeader => {}
            _ => aim.take(&name, Node::Special),
        }
        if targets.have_failed() {
            return Ok(());
        }
    }
    let mut rest = tar.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(|error| damaged(&error))?;
    Ok(())
}

/// Names members. The whole archive is read, as above.
pub(super) fn list(archive: &Path, listing: &mut Listing) -> Result<(), TransferError> {
    let mut tar = Archive::new(decompressed(archive)?);
    for entry in tar.entries().map_err(|error| damaged(&error))? {
        let entry = entry.map_err(|error| damaged(&error))?;
        let listed = match entry.header().entry_type() {
            EntryType::Directory => Listed::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                Listed::File(Some(entry.size()))
            }
            EntryType::Symlink | EntryType::Link => Listed::File(None),
            // Nothing that could be had.
            _ => continue,
        };
        listing.take(&entry.path_bytes(), listed)?;
    }
    let mut rest = tar.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(|error| damaged(&error))?;
    Ok(())
}

fn decompressed(archive: &Path) -> Result<Box<dyn Read>, TransferError> {
    let mut file = open(archive)?;
    let mut magic = Vec::new();
    let read = (&mut file).take(6).read_to_end(&mut magic);
    read.and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(|error| local("read", archive, error))?;
    let file = BufReader::with_capacity(1 << 18, file);
    Ok(match magic.as_slice() {
        [0x1F, 0x8B, ..] => Box::new(MultiGzDecoder::new(file)),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(file);
            Box::new(decoder.map_err(|error| damaged(&error))?)
        }
        [0xFD, b'7', b'z', b'X', b'Z', 0] => Box::new(XzDecoder::new_multi_decoder(file)),
        [b'B', b'Z', b'h', ..] => Box::new(MultiBzDecoder::new(file)),
        _ => Box::new(file),
    })
}
