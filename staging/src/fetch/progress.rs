//! Seeing transfers advance.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The port to whoever shows or counts transfers. Called often: it returns at once.
pub trait Progress: Send + Sync {
    /// Something happened in the transfer.
    fn on_event(&self, event: &TransferEvent<'_>);
}

/// What happened in a transfer. Addresses are redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferEvent<'a> {
    /// A server begins to send.
    Opened {
        /// From where.
        source: &'a str,
        /// The first byte that it sends.
        offset: u64,
        /// Bytes of the whole file, when known.
        length: Option<u64>,
    },
    /// Bytes came.
    Received {
        /// Bytes of the file that are here.
        position: u64,
        /// Bytes of the whole file, when known.
        length: Option<u64>,
    },
    /// A try failed; there is another one.
    Waiting {
        /// From where.
        source: &'a str,
        /// Why.
        cause: &'a str,
        /// How long until the next try, or look.
        wait: Duration,
        /// Which try is the next one; `None`: another look at what goes on elsewhere.
        next: Option<NextTry>,
    },
    /// It waits for longer than a moment: for its turn, for room, or for a host that is down.
    Queued {
        /// From where.
        source: &'a str,
        /// For what, in words.
        cause: &'a str,
    },
    /// What was sent by an earlier try is gone on with.
    Resumed {
        /// To where.
        source: &'a str,
        /// The first byte that is sent now.
        offset: u64,
    },
    /// Something else makes way for what is sent.
    Replacing {
        /// Where.
        source: &'a str,
        /// What, in words.
        found: &'a str,
    },
    /// An address was given up; the next one is tried.
    Abandoned {
        /// Which.
        source: &'a str,
        /// Why.
        cause: &'a str,
    },
}

/// A try that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextTry {
    /// Which one since the last new byte; the first is 1.
    pub number: u32,
    /// How many there may be.
    pub of: u32,
}

/// Everyone who watches one transfer.
#[derive(Clone, Default)]
pub(super) struct Observers(Arc<Mutex<Vec<Arc<dyn Progress>>>>);

impl Observers {
    pub(super) fn of(observer: impl Into<Option<Arc<dyn Progress>>>) -> Self {
        Self(Arc::new(Mutex::new(observer.into().into_iter().collect())))
    }

    pub(super) fn add_all(&self, others: &Self) {
        let others = others.lock().clone();
        self.lock().extend(others);
    }

    pub(super) fn tell(&self, event: &TransferEvent<'_>) {
        self.lock().iter().for_each(|observer| observer.on_event(event));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Observers {
    fn on_event(&self, event: &TransferEvent<'_>) {
        self.tell(event);
    }
}

/// One file's share in the transfer of a directory: those who watch see the bytes of all of them.
#[derive(Clone)]
pub(super) struct Share {
    whole: Observers,
    length: u64,
    position: Arc<AtomicU64>,
    /// Of this file.
    seen: Arc<AtomicU64>,
}

impl Share {
    /// For all files of a directory of this many bytes.
    pub(super) fn new(whole: Observers, length: u64) -> Self {
        Self { whole, length, position: Arc::default(), seen: Arc::default() }
    }

    /// For one more file.
    pub(super) fn another(&self) -> Self {
        Self { seen: Arc::default(), ..self.clone() }
    }
}

impl Progress for Share {
    fn on_event(&self, event: &TransferEvent<'_>) {
        let TransferEvent::Received { position, .. } = event else {
            return match event {
                TransferEvent::Opened { .. } => {}
                other => self.whole.tell(other),
            };
        };
        let before = self.seen.swap(*position, Ordering::Relaxed);
        // A file that begins again gives back what it had.
        let all = if *position >= before {
            self.position.fetch_add(position - before, Ordering::Relaxed) + (position - before)
        } else {
            self.position.fetch_sub(before - position, Ordering::Relaxed) - (before - position)
        };
        let length = Some(self.length.max(all));
        self.whole.tell(&TransferEvent::Received { position: all, length });
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}
