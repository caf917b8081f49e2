//! What crashed deliveries left at the other end: names beside of contents that nobody sends any
//! more.
//!
//! Whether anybody still does is told by the moment of the last change alone: what is sent grows.
//! That holds as far as the clocks on both sides agree to a day. A server that does not say when
//! something was changed keeps it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use keelboat_engine::{Digest, Kind};

use super::Way;
use crate::address::{address_digest, child_address, redact};
use crate::protocol::{Depth, Entry, ListRequest, TransferError};

/// What was not written to for so long is not under way: a stall ends it much sooner.
const IDLE_MIN: Duration = Duration::from_hours(24);

/// Directories that are remembered as looked through.
const SWEPT_MAX: usize = 10_000;

/// Hexadecimal digits in a name beside.
const DIGEST_CHARS: usize = 12;

/// The directories that were looked through. Once is enough: what this process leaves itself is
/// younger than what may be removed.
#[derive(Debug, Default)]
pub(crate) struct Swept(Mutex<BTreeSet<Digest>>);

impl Swept {
    fn is_first(&self, directory: &str) -> bool {
        let mut swept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.len() >= SWEPT_MAX {
            swept.clear();
        }
        swept.insert(address_digest(directory))
    }
}

/// Removes what was left beside an address, in all of its directory. What cannot be seen or removed
/// stays, and no delivery fails for it.
pub(super) async fn sweep(way: &Way<'_>) {
    let Some(directory) = above(&way.delivery.address) else { return };
    if !way.stager.swept.is_first(&directory) {
        return;
    }
    if let Err(error) = sweep_directory(way, &directory).await {
        let address = redact(&directory);
        tracing::debug!(address, %error, "what crashes may have left is not looked for");
    }
}

async fn sweep_directory(way: &Way<'_>, directory: &Arc<str>) -> Result<(), TransferError> {
    let now = SystemTime::now();
    for entry in list(way, directory, Depth::One).await? {
        if !is_beside(&entry.path) {
            continue;
        }
        let address: Arc<str> = child_address(directory, &entry.path).into();
        let last = last_change(way, &entry, &address).await?;
        let idle = last.and_then(|last| now.duration_since(last).ok());
        if idle.is_some_and(|idle| idle > IDLE_MIN) {
            tracing::debug!(address = redact(&address), "what a crash left is removed");
            way.protocol.remove(&address).await?;
        }
    }
    Ok(())
}

/// When it, or anything in it, was changed last; `None`: nobody knows of some of it.
async fn last_change(
    way: &Way<'_>,
    entry: &Entry,
    address: &Arc<str>,
) -> Result<Option<SystemTime>, TransferError> {
    let mut last = entry.modified;
    if entry.kind == Kind::Directory {
        for below in list(way, address, Depth::All).await? {
            last = last.zip(below.modified).map(|(one, other)| one.max(other));
        }
    }
    Ok(last)
}

async fn list(
    way: &Way<'_>,
    address: &Arc<str>,
    depth: Depth,
) -> Result<Vec<Entry>, TransferError> {
    way.protocol.list(&ListRequest { address: Arc::clone(address), depth }).await
}

/// The directory that an address is in.
fn above(address: &str) -> Option<Arc<str>> {
    let base = address.split_once('?').map_or(address, |(base, _)| base);
    let (directory, name) = base.trim_end_matches('/').rsplit_once('/')?;
    (!name.is_empty() && !directory.ends_with(":/")).then(|| format!("{directory}/").into())
}

/// Whether it is a name that [`beside`](super::beside) makes.
fn is_beside(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|name| name.rsplit_once(".keelboat-"));
    parts.is_some_and(|(name, digest)| {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        !name.is_empty() && digest.len() == DIGEST_CHARS && digest.bytes().all(is_hex)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_making_are_ours() {
        let short = Digest::of(b"x").short();
        assert!(is_beside(&format!(".a b.tsv.keelboat-{short}")));
        for other in [
            format!("a.keelboat-{short}"),
            format!("..keelboat-{short}"),
            format!(".a.keelboat-{short}0"),
            format!(".a.keelboat-{}", short.to_uppercase()),
            ".a.keelboat-12-3".to_owned(),
            ".keelboat".to_owned(),
        ] {
            assert!(!is_beside(&other), "{other}");
        }
    }

    #[test]
    fn directories_are_told_from_hosts() {
        assert_eq!(above("sftp://h/~/a/b").as_deref(), Some("sftp://h/~/a/"));
        assert_eq!(above("ftp://h/d/").as_deref(), Some("ftp://h/"));
        assert_eq!(above("ftp://h"), None);
        assert_eq!(above("ftp://h/"), None);
    }
}
