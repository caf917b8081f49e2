//! What a file says, read again when the file has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::CredentialsError;

/// A look at a file holds for so long, for those who do not ask for one of now.
const LOOK_HOLDS: Duration = Duration::from_secs(1);

/// How old the last look at a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// A moment: thousands of transfers ask.
    OfLate,
    /// As it is now: what was known was refused.
    Now,
}

type Read<T> = fn(&Path) -> Result<T, CredentialsError>;

/// The last good reading of a file.
#[derive(Debug, Default)]
pub(super) struct Watched<T> {
    source: Option<Source<T>>,
    value: Arc<T>,
}

#[derive(Debug)]
struct Source<T> {
    path: PathBuf,
    read: Read<T>,
    stamp: Option<Stamp>,
    looked_at: Instant,
}

/// What changes with the file; `None` in its place: there is no file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl<T: Default> Watched<T> {
    /// A value that no file changes.
    pub(super) fn fixed(value: T) -> Self {
        Self { source: None, value: Arc::new(value) }
    }

    /// What this file says; a file that is not there says nothing.
    pub(super) fn new(path: PathBuf, read: Read<T>) -> Result<Self, CredentialsError> {
        let stamp = stamp(&path);
        let value = match stamp {
            Some(_) => Arc::new(read(&path)?),
            None => Arc::default(),
        };
        Ok(Self { source: Some(Source { path, read, stamp, looked_at: Instant::now() }), value })
    }

    /// The value, read again if the file is another one than it was. A file that makes no sense
    /// (it may be half written) changes nothing.
    pub(super) fn now(&mut self, look: Look) -> Arc<T> {
        if let Some(source) = &mut self.source
            && (look == Look::Now || source.looked_at.elapsed() >= LOOK_HOLDS)
        {
            source.looked_at = Instant::now();
            let now = stamp(&source.path);
            if now.is_some() && now != source.stamp {
                match (source.read)(&source.path) {
                    Ok(value) => self.value = Arc::new(value),
                    Err(error) => {
                        tracing::warn!(%error, hint = error.hint, "going on with what was");
                    }
                }
                source.stamp = now;
            }
        }
        Arc::clone(&self.value)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    let (inode, length, modified) = (found.ino(), found.len(), found.modified().ok());
    Some(Stamp { inode, length, modified, changed: (found.ctime(), found.ctime_nsec()) })
}
