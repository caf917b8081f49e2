//! What is in an archive: names and lengths, nothing is unpacked.

use std::collections::BTreeMap;
use std::path::Path;

use super::target::{escapes, is_below, normal, refused, show};
use super::{MEMBERS_MAX, tar, zip};
use crate::protocol::{Depth, Entry, TransferError, Validators};

/// What a member is, as far as a listing tells.
#[derive(Clone, Copy)]
pub(super) enum Listed {
    Directory,
    /// With its length, unless it is a link to another member.
    File(Option<u64>),
}

/// Takes what is to be listed, member by member.
pub(super) struct Listing {
    /// Normal; empty: all of the archive.
    directory: Vec<u8>,
    depth: Depth,
    is_there: bool,
    entries: BTreeMap<String, Entry>,
}

/// Lists what is below a directory of an archive; a file is listed by itself.
///
/// An archive with a name that leads out of it is refused, as it is when it is unpacked.
pub(crate) fn list(
    archive: &Path,
    format: &str,
    directory: &str,
    depth: Depth,
) -> Result<Vec<Entry>, TransferError> {
    let Some(directory) = normal(directory.as_bytes()) else {
        return Err(TransferError::Missing { found: "its path in the archive has `..`".into() });
    };
    let is_there = directory.is_empty();
    let mut listing = Listing { directory, depth, is_there, entries: BTreeMap::new() };
    match format {
        "zip" => zip::list(archive, &mut listing)?,
        _ => tar::list(archive, &mut listing)?,
    }
    listing.finish()
}

impl Listing {
    /// One more member. A later one takes the place of an earlier one.
    pub(super) fn take(&mut self, name: &[u8], listed: Listed) -> Result<(), TransferError> {
        let name = normal(name).ok_or_else(|| escapes(name))?;
        if name == self.directory {
            if let Listed::File(_) = listed {
                let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                self.add(&String::from_utf8_lossy(last), listed);
            }
            self.is_there = true;
            return Ok(());
        }
        if !is_below(&name, &self.directory) {
            return Ok(());
        }
        let below = name.get(self.directory.len()..).unwrap_or_default();
        let below = String::from_utf8_lossy(below.strip_prefix(b"/").unwrap_or(below)).into_owned();
        // An archive need not name the directories of its files.
        for (end, _) in below.match_indices('/') {
            self.add(below.get(..end).unwrap_or_default(), Listed::Directory);
            if self.depth == Depth::One {
                return Ok(());
            }
        }
        self.add(&below, listed);
        if self.entries.len() > MEMBERS_MAX {
            return Err(refused(format!("the archive holds more than {MEMBERS_MAX} members")));
        }
        Ok(())
    }

    fn add(&mut self, path: &str, listed: Listed) {
        let entry = match listed {
            Listed::File(length) => Entry::file(path, length, Validators::default()),
            Listed::Directory => Entry::directory(path),
        };
        self.entries.insert(path.to_owned(), entry);
    }

    fn finish(self) -> Result<Vec<Entry>, TransferError> {
        if self.entries.is_empty() && !self.is_there {
            let found = format!("the archive has no {:?}", show(&self.directory));
            return Err(TransferError::Missing { found });
        }
        Ok(self.entries.into_values().collect())
    }
}
