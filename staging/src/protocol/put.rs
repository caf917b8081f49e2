//! Writing files that are elsewhere.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use keelboat_engine::Content;
use tokio::time::Sleep;

use super::{TransferError, Validators};
use crate::gate::Pace;

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
    /// Counts the bytes that were handed to the network, and says how fast more may go there.
    pub sent: Sent,
}

/// What has gone out: a count that whoever waits can look at, and the pace at which more may go.
/// Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    count: Arc<Count>,
    pace: Option<Pace>,
}

#[derive(Debug, Default)]
struct Count {
    /// The first byte that is sent.
    offset: AtomicU64,
    bytes: AtomicU64,
    /// From the first one on, those that the other side has said to have.
    confirmed: AtomicU64,
    /// Grows whenever something moves, and whenever a wait for the pace begins or ends.
    signs: AtomicU64,
    /// Those who wait because bandwidth is limited.
    held: AtomicU64,
    /// Such waits so far.
    holds: AtomicU64,
}

impl Sent {
    /// The same count, for bytes that keep to the limits on bandwidth.
    pub(crate) fn paced(&self, pace: Pace) -> Self {
        Self { count: Arc::clone(&self.count), pace: Some(pace) }
    }

    /// For the next try at the same file: of this one, what is confirmed stays known.
    #[must_use]
    pub(crate) fn again(&self) -> Self {
        let again = Self::default();
        again.confirm(self.confirmed());
        again
    }

    /// All up to this byte is there, the other side says.
    pub(crate) fn confirm(&self, end: u64) {
        self.count.confirmed.fetch_max(end, Ordering::Relaxed);
    }

    /// Bytes that are there, by what the other side has said in this try or an earlier one.
    pub(crate) fn confirmed(&self) -> u64 {
        self.count.confirmed.load(Ordering::Relaxed)
    }

    /// Where in the file it is: what was there and what was sent.
    pub fn position(&self) -> u64 {
        self.offset() + self.get()
    }

    /// What is there already is built on: this is the first byte that is sent.
    pub fn begin_at(&self, offset: u64) {
        self.count.offset.store(offset, Ordering::Relaxed);
        self.confirm(offset);
    }

    /// The first byte that is sent.
    pub fn offset(&self) -> u64 {
        self.count.offset.load(Ordering::Relaxed)
    }

    /// So many more.
    pub fn add(&self, bytes: u64) {
        self.count.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// All so far.
    pub fn get(&self) -> u64 {
        self.count.bytes.load(Ordering::Relaxed)
    }

    /// To be waited for before more bytes go out, after so many; `None`: they may at once.
    pub(crate) fn hold(&self, bytes: u64) -> Option<Hold> {
        let wait = self.pace.as_ref()?.grant(bytes);
        (!wait.is_zero()).then(|| Hold::new(wait, Arc::clone(&self.count)))
    }

    /// Grows as long as there is life: where it stays, and nobody is held back, nothing moves.
    pub(crate) fn signs(&self) -> u64 {
        self.count.signs.load(Ordering::Relaxed)
    }

    /// How often it waited because bandwidth is limited.
    pub(crate) fn holds(&self) -> u64 {
        self.count.holds.load(Ordering::Relaxed)
    }

    /// Whether it waits because bandwidth is limited: no fault of the other side.
    pub(crate) fn is_held(&self) -> bool {
        self.count.held.load(Ordering::Relaxed) > 0
    }
}

/// A wait for the limits on bandwidth.
#[derive(Debug)]
pub(crate) struct Hold {
    until: Pin<Box<Sleep>>,
    count: Arc<Count>,
}

impl Hold {
    fn new(wait: Duration, count: Arc<Count>) -> Self {
        count.held.fetch_add(1, Ordering::Relaxed);
        count.holds.fetch_add(1, Ordering::Relaxed);
        Self { until: Box::pin(tokio::time::sleep(wait)), count }
    }
}

impl Future for Hold {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.until.as_mut().poll(context)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.count.signs.fetch_add(1, Ordering::Relaxed);
        self.count.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of a file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The server computed a checksum of what it keeps, and it is the right one: SHA-256, or the
    /// service's own of each part. In the same answer it may have said what tells this version from
    /// others.
    Checked(Validators),
    /// Nobody has looked: it must be read back.
    Unchecked,
}

/// What came of renaming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renamed {
    /// It has its new name.
    Done,
    /// Something has that name, and the server does not replace it in one step. Both are as they
    /// were; this is what it said.
    InTheWay(TransferError),
}
