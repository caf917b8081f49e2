//! What is known of files without reading them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use keelboat_engine::{Digest, FileStamp};

/// The port to whoever remembers digests by stamp.
pub trait DigestMemory: Sync {
    /// The digest of the file that has this stamp, if that can be relied on.
    fn recall(&self, stamp: &FileStamp) -> Option<Digest>;

    /// Bytes read at `hashed_at` under this stamp had this digest. A file whose times are not well
    /// before that may since have changed under the same stamp.
    fn remember(&self, stamp: &FileStamp, digest: Digest, hashed_at: SystemTime);

    /// A file that was put into its place by us, after its task had ended, has this digest.
    fn remember_own(&self, stamp: &FileStamp, digest: Digest);
}

/// Remembers nothing: every digest is computed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forgetful;

impl DigestMemory for Forgetful {
    fn recall(&self, _stamp: &FileStamp) -> Option<Digest> {
        None
    }

    fn remember(&self, _stamp: &FileStamp, _digest: Digest, _hashed_at: SystemTime) {}

    fn remember_own(&self, _stamp: &FileStamp, _digest: Digest) {}
}

/// The stamp in a file's metadata.
pub fn stamp_of(metadata: &Metadata) -> FileStamp {
    let nanoseconds =
        |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    FileStamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}
