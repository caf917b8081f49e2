//! Writing files that are elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keelboat_engine::Content;

/// How files come to be at their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// They do not: the protocol only reads.
    Never,
    /// Whole: a file shows at its address with its last byte, in the place of an older one.
    Whole,
    /// Byte by byte: whoever writes uses another name first, and renames.
    Renamed,
}

/// One local file on its way out.
#[derive(Debug, Clone)]
pub struct PutRequest {
    /// The address. It may hold secrets.
    pub address: Arc<str>,
    /// Where the bytes are.
    pub source: PathBuf,
    /// What they are: a regular file of this length and digest.
    pub content: Content,
    /// Whether bytes that an earlier try left under this very address may be built on. They are
    /// proven afterwards, by reading them back.
    pub resume: bool,
    /// Counts the bytes that were handed to the network.
    pub sent: Sent,
}

/// A count that whoever waits can look at. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Sent(Arc<AtomicU64>);

impl Sent {
    /// So many more.
    pub fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is known of a file that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The server computed a checksum of what it keeps, and it is the right one: SHA-256, or the
    /// service's own of each part.
    Checked,
    /// Nobody has looked: it must be read back.
    Unchecked,
}
