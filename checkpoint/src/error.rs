//! Failed input and output: what was done to which path, why it failed, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

/// A failed operation on one path. Cheap to clone: many waiting requests may share one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct IoError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: Arc<io::Error>,
}

impl IoError {
    pub(crate) fn new(doing: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self { doing, path: path.as_ref().to_owned(), source: Arc::new(source) }
    }

    /// The path on which it failed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        let errno = Errno::from_raw(self.source.raw_os_error()?);
        Some(match errno {
            Errno::ENOSPC => "the disk is full: free some space, for example with `cache gc`",
            Errno::EDQUOT => "the disk quota is used up: free some space or ask for more",
            Errno::EROFS => "the file system is read-only: work in a directory that can be written",
            Errno::EACCES | Errno::EPERM => {
                "permission denied: check who owns the project directory and its .keelboat folder"
            }
            Errno::EMFILE | Errno::ENFILE => "too many open files: raise `ulimit -n`",
            Errno::EIO => "the disk reports an error: look at the kernel's log before going on",
            _ => return None,
        })
    }
}

/// Adds to an [`io::Result`] what was done, and to what.
pub(crate) trait IoContext<T> {
    /// `doing` completes the sentence "cannot … PATH".
    fn doing(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, IoError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, IoError> {
        self.map_err(|source| IoError::new(doing, path, source))
    }
}
