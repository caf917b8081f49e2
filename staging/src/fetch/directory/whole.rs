//! The room of a directory, which is there for all of its files before the first one comes: two
//! directories that are half here would wait for each other.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Job;
use crate::gate::{Gate, Turn};
use crate::protocol::{Entry, TransferError};

#[derive(Debug)]
pub(super) struct Whole {
    gate: Gate,
    turn: Turn,
    bytes: AtomicU64,
}

impl Whole {
    /// Waits for room for all that a listing tells of.
    pub(super) async fn enter(job: &Job, entries: &[Entry]) -> Result<Self, TransferError> {
        let (gate, turn) = (job.stager.gate.clone(), job.turn());
        let lengths = entries.iter().map(|entry| entry.length.unwrap_or(0));
        let bytes = lengths.fold(0, u64::saturating_add);
        gate.enter_room(&job.address, &turn, bytes).await?;
        Ok(Self { gate, turn, bytes: bytes.into() })
    }

    /// Here is a file. What is longer than it was listed takes more room, whether there is some or
    /// not.
    pub(super) fn came(&self, entry: &Entry, bytes: u64) {
        let more = bytes.saturating_sub(entry.length.unwrap_or(0));
        if more > 0 {
            let before = self.bytes.fetch_add(more, Ordering::Relaxed);
            self.gate.occupy(&self.turn, before.saturating_add(more));
            self.turn.fill();
        }
    }

    /// What keeps the room.
    pub(super) fn turn(&self) -> Turn {
        self.turn.clone()
    }
}
