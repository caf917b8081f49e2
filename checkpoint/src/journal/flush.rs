//! Group commit: one thread makes durable, and all who wait share each `fdatasync`.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::durable::{self, Disk};
use super::{JournalError, Position};
use crate::error::{IoContext as _, IoError};

/// Called when a request is settled.
pub(super) type Done = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// "Make everything up to here durable."
pub(super) struct Request {
    pub(super) position: Position,
    pub(super) durable_first: Vec<PathBuf>,
    pub(super) done: Done,
}

/// What the flush thread of a journal has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlushStats {
    /// Requests that were answered.
    pub requests: u64,
    /// Times that the journal was made durable.
    pub journal_syncs: u64,
    /// Files and folders that were made durable one by one.
    pub file_syncs: u64,
    /// Times that a whole file system was made durable.
    pub filesystem_syncs: u64,
}

/// The thread and the way to it.
#[derive(Debug)]
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    file: File,
    disk: Box<dyn Disk>,
    queue: Mutex<Queue>,
    wake: Condvar,
    poison: OnceLock<JournalError>,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    closed: bool,
    stats: FlushStats,
}

impl Flusher {
    pub(super) fn start(path: &Path, file: File, disk: Box<dyn Disk>) -> Result<Self, IoError> {
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            file,
            disk,
            queue: Mutex::default(),
            wake: Condvar::new(),
            poison: OnceLock::new(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("journal-flush".into())
            .spawn(move || for_thread.run())
            .doing("start the flush thread of", path)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn request(&self, request: Request) {
        self.shared.queue().requests.push(request);
        self.shared.wake.notify_one();
    }

    /// Fails when the journal is not to be trusted any more.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        self.shared.poison.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    pub(super) fn poison(&self, cause: IoError) -> JournalError {
        self.shared.poison(cause)
    }

    pub(super) fn stats(&self) -> FlushStats {
        self.shared.queue().stats
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.wake.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(journal = %self.shared.path.display(), "the flush thread panicked");
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut durable = Position::default();
        while let Some(requests) = self.next_batch() {
            let result = self.settle(&requests, &mut durable);
            self.queue().stats.requests += requests.len() as u64;
            for request in requests {
                let (done, answer) = (request.done, result.clone());
                if catch_unwind(AssertUnwindSafe(|| done(answer))).is_err() {
                    tracing::error!(journal = %self.path.display(), "a flush callback panicked");
                }
            }
        }
    }

    /// Everything that waits, at least one request; `None` when the journal is closed.
    fn next_batch(&self) -> Option<Vec<Request>> {
        let mut queue = self.queue();
        while queue.requests.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut queue.requests))
    }

    /// First what the facts speak of, then the facts.
    fn settle(&self, requests: &[Request], durable: &mut Position) -> Result<(), JournalError> {
        if let Some(error) = self.poison.get() {
            return Err(error.clone());
        }
        let paths = requests.iter().flat_map(|request| &request.durable_first);
        let plan = durable::plan(paths.map(PathBuf::as_path)).map_err(|e| self.poison(e))?;
        plan.carry_out(&*self.disk).map_err(|e| self.poison(e))?;
        let wanted = requests.iter().map(|request| request.position).max().unwrap_or_default();
        let needed = wanted > *durable;
        if needed {
            let synced = self.disk.sync_data(&self.file);
            synced.doing("make durable the journal", &self.path).map_err(|e| self.poison(e))?;
            *durable = wanted;
        }
        let mut queue = self.queue();
        queue.stats.journal_syncs += u64::from(needed);
        queue.stats.file_syncs += plan.file_syncs();
        queue.stats.filesystem_syncs += plan.filesystem_syncs();
        Ok(())
    }

    /// The first cause stays.
    fn poison(&self, cause: IoError) -> JournalError {
        self.poison
            .get_or_init(|| {
                tracing::error!(journal = %self.path.display(), error = %cause, "not trusted");
                JournalError::Poisoned { path: self.path.clone(), cause }
            })
            .clone()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flush").field("path", &self.path).finish_non_exhaustive()
    }
}
