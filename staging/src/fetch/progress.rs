//! Seeing transfers advance.

use std::fmt;
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
        /// How long until the next try.
        wait: Duration,
    },
    /// An address was given up; the next one is tried.
    Abandoned {
        /// Which.
        source: &'a str,
        /// Why.
        cause: &'a str,
    },
}

/// Everyone who watches one transfer.
#[derive(Clone, Default)]
pub(super) struct Observers(Arc<Mutex<Vec<Arc<dyn Progress>>>>);

impl Observers {
    pub(super) fn add(&self, observer: Option<&Arc<dyn Progress>>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(observer.cloned());
    }

    pub(super) fn tell(&self, event: &TransferEvent<'_>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().for_each(|observer| observer.on_event(event));
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}
