//! What is at the address already, and whether it may go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use keelboat_engine::{Content, Kind};

use super::tree::Member;
use super::{Delivery, Way, of_file};
use crate::address::{child_address, parse};
use crate::fetch::TransferEvent;
use crate::protocol::{
    Condition, Depth, Entry, ListRequest, OpenRequest, Opened, TransferError, Writing,
};
use crate::redact;

/// What may become of something else that is at the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Over {
    /// It stays, and the delivery is refused; a part of what is delivered may be there.
    #[default]
    Nothing,
    /// A file makes way for a file. A directory makes way as a whole where directories show at
    /// once; where files go one by one, what has another name stays.
    Same,
    /// A file makes way, and a directory makes way as a whole for a directory.
    All,
}

/// What is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Nothing,
    /// What is to be there.
    Same,
    /// Something else, in words.
    Other(String),
}

/// A directory has no place in which a file could be put.
pub(super) fn is_directory() -> TransferError {
    TransferError::Occupied {
        found: "a directory".into(),
        hint: "name the file in it, or put a `/` at the end of the address of `put`".into(),
    }
}

impl Delivery {
    /// Lets something else make way, or refuses to.
    pub(super) fn over(&self, found: &str) -> Result<(), TransferError> {
        if self.over == Over::Nothing {
            return Err(TransferError::Occupied {
                found: found.to_owned(),
                hint: "`--force` replaces it; another name at the address keeps both".into(),
            });
        }
        if let Some(progress) = self.progress.as_ref().filter(|_| self.over == Over::All) {
            let source = redact(&self.address);
            progress.on_event(&TransferEvent::Replacing { source: &source, found });
        }
        Ok(())
    }
}

/// What is at a path of this machine that is not what is to be there.
pub(super) fn stands(path: &Path) -> Option<String> {
    let found = path.symlink_metadata().ok()?;
    Some(if found.is_dir() {
        let entries = fs::read_dir(path).map_or(0, Iterator::count);
        format!("a directory of other content ({entries} entries)")
    } else if found.is_symlink() {
        "a symbolic link".to_owned()
    } else {
        format!("a file of other content ({} bytes)", found.len())
    })
}

/// What of a directory is there.
#[derive(Debug, Default)]
pub(super) struct TreeStanding {
    /// Files that are as they are to be.
    pub(super) same: BTreeSet<String>,
    /// Paths of other things, from the address on; of the address itself the empty one.
    pub(super) others: BTreeSet<String>,
    /// In words, when there are others.
    found: Option<String>,
}

impl TreeStanding {
    fn of_file(length: Option<u64>) -> Self {
        let bytes = length.map(|bytes| format!(" of {bytes} bytes")).unwrap_or_default();
        let others = [String::new()].into();
        Self { others, found: Some(format!("a file{bytes}")), ..Self::default() }
    }

    fn note_other(&mut self, path: &str, what: &str) {
        self.others.insert(path.to_owned());
        let count = self.others.len();
        let first = self.found.take().filter(|_| count > 1);
        let first =
            first.unwrap_or_else(|| format!("a directory of other content ({path:?} {what}"));
        self.found = Some(first);
    }

    /// What else than a part of what is sent is there, in words.
    pub(super) fn other(&self) -> Option<String> {
        let found = self.found.clone()?;
        Some(match (found.starts_with("a directory"), self.others.len()) {
            (false, _) => found,
            (true, 1) => format!("{found})"),
            (true, count) => format!("{found}, and {} more)", count - 1),
        })
    }
}

impl Way<'_> {
    /// What is at the place of a file. Only what has its length is read.
    pub(super) async fn standing(
        &self,
        address: &std::sync::Arc<str>,
    ) -> Result<Standing, TransferError> {
        let mut tries = self.tries(address);
        let condition = self.condition(address).await;
        loop {
            match self.look(address, condition.clone()).await {
                Ok((standing, said)) => {
                    if standing == Standing::Same {
                        self.remember(address, &said).await;
                    }
                    return Ok(standing);
                }
                // Whoever may write need not be allowed to read.
                Err(TransferError::Forbidden { .. } | TransferError::Refused { .. })
                    if self.delivery.over != Over::Nothing =>
                {
                    return Ok(Standing::Nothing);
                }
                Err(error @ (TransferError::Forbidden { .. } | TransferError::Refused { .. })) => {
                    if self.has_directory(address).await? {
                        return Err(is_directory());
                    }
                    return Ok(Standing::Other(format!("something that cannot be read ({error})")));
                }
                Err(error) => tries.wait(error).await?,
            }
        }
    }

    async fn has_directory(&self, address: &std::sync::Arc<str>) -> Result<bool, TransferError> {
        if self.protocol.writing() == Writing::Renamed {
            return Ok(self.kind(address).await? == Some(Kind::Directory));
        }
        let request = ListRequest { address: address.clone(), depth: Depth::One };
        Ok(self.protocol.list(&request).await.is_ok())
    }

    /// What of a directory, and what else, is in its place.
    pub(super) async fn tree_standing(
        &self,
        files: &[Member],
        writing: Writing,
    ) -> Result<TreeStanding, TransferError> {
        let address = &self.delivery.address;
        let request = ListRequest { address: address.clone(), depth: Depth::All };
        let mut tries = self.tries(address);
        let entries = loop {
            match self.protocol.list(&request).await {
                Ok(entries) => break entries,
                Err(error) if error.is_retryable() => tries.wait(error).await?,
                Err(error) => {
                    if let Some(file) = self.file_standing().await {
                        return Ok(file);
                    }
                    return match (error, writing) {
                        (TransferError::Missing { .. }, _) => Ok(TreeStanding::default()),
                        // Nobody lists it: what can be seen are files of the same names.
                        (_, Writing::Whole) => self.compare(files, None).await,
                        (error, _) => Err(error),
                    };
                }
            }
        };
        self.compare(files, Some(entries)).await
    }

    /// A file in the place of a directory. Over HTTP, what is sent for a directory looks like one.
    async fn file_standing(&self) -> Option<TreeStanding> {
        let address = &self.delivery.address;
        if matches!(&*crate::address::scheme_of(address), "http" | "https") {
            return None;
        }
        let request = OpenRequest {
            address: address.clone().into(),
            offset: 0,
            end: None,
            condition: Condition::Always,
            turn: crate::gate::Turn::default(),
        };
        match self.protocol.open(&request).await {
            Ok(Opened::Body { metadata, .. }) => Some(TreeStanding::of_file(metadata.length)),
            _ => None,
        }
    }

    /// Holds what is there against what is sent. Without a listing, only files of the same names are
    /// looked at.
    async fn compare(
        &self,
        files: &[Member],
        listed: Option<Vec<Entry>>,
    ) -> Result<TreeStanding, TransferError> {
        let mut standing = TreeStanding::default();
        let there: Option<BTreeMap<String, Entry>> = listed
            .map(|entries| entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect());
        for file in files {
            let entry = there.as_ref().map(|there| there.get(&file.below));
            let found = match entry {
                Some(None) => continue,
                Some(Some(entry)) if !may_be(entry, &file.content) => {
                    Standing::Other(String::new())
                }
                _ => {
                    let address = child_address(&self.delivery.address, &file.below);
                    let delivery = of_file(self.delivery, &file.path, file.content, address);
                    let way = Way { delivery: &delivery, ..*self };
                    way.standing(&delivery.address).await?
                }
            };
            match found {
                Standing::Nothing => {}
                Standing::Same => drop(standing.same.insert(file.below.clone())),
                Standing::Other(_) => standing.note_other(&file.below, "is another file"),
            }
        }
        let sent: BTreeSet<&str> = files.iter().map(|file| &*file.below).collect();
        for entry in there.into_iter().flat_map(BTreeMap::into_values) {
            if entry.kind == Kind::File && !sent.contains(&*entry.path) {
                standing.note_other(&entry.path, "is not in what is sent");
            }
        }
        Ok(standing)
    }
}

/// Whether what is listed can be this file.
fn may_be(entry: &Entry, content: &Content) -> bool {
    entry.kind == Kind::File && entry.length.is_none_or(|length| length == content.bytes)
}

/// The whole of a bucket, a server or a home is never replaced.
pub(super) fn is_whole_place(address: &str) -> bool {
    parse(address).is_some_and(|url| matches!(url.path().trim_matches('/'), "" | "~" | "." | "%7E"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_by_the_first_and_their_number() {
        let mut standing = TreeStanding::default();
        assert_eq!(standing.other(), None);
        standing.note_other("b", "is another file");
        let one = "a directory of other content (\"b\" is another file)";
        assert_eq!(standing.other().as_deref(), Some(one));
        standing.note_other("a", "is not in what is sent");
        let two = "a directory of other content (\"b\" is another file, and 1 more)";
        assert_eq!(standing.other().as_deref(), Some(two));
        let file = TreeStanding::of_file(Some(3));
        assert_eq!(file.other().as_deref(), Some("a file of 3 bytes"));
    }

    #[test]
    fn whole_places_are_known() {
        for whole in ["s3://bucket", "s3://bucket/", "sftp://u@h/~", "http://h:80/"] {
            assert!(is_whole_place(whole), "{whole}");
        }
        assert!(!is_whole_place("s3://bucket/a") && !is_whole_place("sftp://h/~/a"));
    }
}
