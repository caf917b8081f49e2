//! Log files that stayed empty, kept for the next attempts.
//!
//! Most tasks print nothing. A new file for each of their streams would cost more than all else
//! that is done for a small task, so an empty one is renamed for the next.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use keelboat_engine::Stream;

use crate::project::RunDir;

/// Files that are kept; further empty ones are removed.
const KEPT_MAX: usize = 256;

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

#[derive(Debug)]
pub(crate) struct Logs {
    run: RunDir,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    free: Vec<PathBuf>,
    number: u64,
}

impl Logs {
    pub(crate) fn new(run: RunDir) -> Self {
        Self { run, kept: Mutex::default() }
    }

    /// The files for the output and the error stream of an attempt, the one or other of which may
    /// be there already, empty.
    pub(crate) fn prepare(&self, task: &str, ordinal: u32) -> [PathBuf; 2] {
        STREAMS.map(|stream| {
            let place = self.of(task, ordinal, stream);
            let free = self.lock().free.pop();
            if let Some(free) = free
                && let Err(error) = std::fs::rename(&free, &place)
            {
                tracing::debug!(%error, "a kept log file is gone");
            }
            place
        })
    }

    /// What an attempt printed.
    pub(crate) fn of(&self, task: &str, ordinal: u32, stream: Stream) -> PathBuf {
        let stream = match stream {
            Stream::Stdout => "out",
            Stream::Stderr => "err",
        };
        self.run.log(task, ordinal, stream)
    }

    /// An attempt is over: those of its files that are empty are kept for others.
    pub(crate) fn take_back(&self, task: &str, ordinal: u32) {
        for stream in STREAMS {
            let place = self.of(task, ordinal, stream);
            if place.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
                self.keep(&place);
            }
        }
    }

    /// Removes what is kept.
    pub(crate) fn clear(&self) {
        for free in std::mem::take(&mut self.lock().free) {
            remove(&free);
        }
    }

    fn keep(&self, place: &Path) {
        let mut kept = self.lock();
        if kept.free.len() >= KEPT_MAX {
            drop(kept);
            return remove(place);
        }
        kept.number += 1;
        let free = self.run.free_log(kept.number);
        match std::fs::rename(place, &free) {
            Ok(()) => kept.free.push(free),
            Err(error) => tracing::debug!(%error, "an empty log file stays"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(place: &Path) {
    if let Err(error) = std::fs::remove_file(place) {
        tracing::debug!(%error, "an empty log file stays");
    }
}
