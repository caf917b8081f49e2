//! Sizes and ages of directories.

use std::path::Path;
use std::time::{Duration, SystemTime};

use keelboat_staging::{LocalError, remove_tree};
use serde::Serialize;
use walkdir::WalkDir;

/// What lies in a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Usage {
    pub(super) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// All regular files below a path, or the file that it is; what vanishes meanwhile does not count.
pub(super) fn usage(path: &Path) -> Usage {
    let mut usage = Usage::default();
    for entry in WalkDir::new(path).into_iter().flatten() {
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            usage.add(Usage { files: 1, bytes: metadata.len() });
        }
    }
    usage
}

/// How long ago something below a path was written last; `None`: nothing is there.
pub(super) fn age(path: &Path) -> Option<Duration> {
    let entries = WalkDir::new(path).into_iter().flatten();
    let last = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()?;
    Some(SystemTime::now().duration_since(last).unwrap_or(Duration::ZERO))
}

/// Removes a file, or a directory with all below it, also what tasks made read-only.
pub(super) fn remove(path: &Path) -> Result<(), LocalError> {
    remove_tree(path)
}
