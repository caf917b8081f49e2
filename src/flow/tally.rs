//! How many tasks of a flow are in which state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keelboat_engine::core::Core;

/// How many tasks of a flow are in which state, at one moment.
///
/// A task that a future tells of as ended is counted so, and one that was submitted is counted. The states
/// add up to [`total`](Self::total).
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let squares = flow.function(|x: u64| x * x).name("square");
/// let last = (0..100).map(|x| squares.call((x,))).last().expect("a hundred");
/// println!("{} of {}", flow.counts().ended(), flow.counts().total);
/// last.wait()?;
/// let counts = flow.counts();
/// assert_eq!(counts.total, 100);
/// assert!(counts.done > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskCounts {
    /// All that were submitted.
    pub total: u64,
    /// Wait: for others, for files, for what is remembered of them, or for their next try.
    pub waiting: u64,
    /// Have all that they need, and wait for their turn.
    pub ready: u64,
    /// Run, or what they left is being put in its place. A join counts here while its task does not end.
    pub running: u64,
    /// Ran, and are done.
    pub done: u64,
    /// Are done without having run: their result was remembered.
    pub reused: u64,
    /// Failed for good, were cancelled, or were refused.
    pub failed: u64,
    /// Did not run since another one failed, or said itself that it is to be skipped.
    pub skipped: u64,
}

impl TaskCounts {
    /// Tasks about which nothing more will happen.
    pub const fn ended(&self) -> u64 {
        self.done + self.reused + self.failed + self.skipped
    }
}

/// What the loop tells of its tasks, and what is known of those that it has not taken in.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    submitted: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    counts: TaskCounts,
    /// Tasks that the core never saw, since they cannot be.
    refused: u64,
}

impl Tally {
    /// A task is on its way to the loop.
    pub(crate) fn submit(&self) {
        self.submitted.fetch_add(1, Ordering::SeqCst);
    }

    /// It was too late for it.
    pub(crate) fn take_back(&self) {
        self.submitted.fetch_sub(1, Ordering::SeqCst);
    }

    /// A task cannot be.
    pub(crate) fn refuse(&self) {
        self.told().refused += 1;
    }

    pub(crate) fn set(&self, core: &Core) {
        let (counts, publishing) = (core.counts(), core.publishing());
        let running = u64::from(counts.running) + publishing;
        let pending = u64::from(counts.total - counts.ended()).saturating_sub(running);
        // What was done and is made anew is counted as done.
        let ready = core.ready().min(pending);
        self.told().counts = TaskCounts {
            total: counts.total.into(),
            waiting: pending - ready,
            ready,
            running,
            done: counts.completed.into(),
            reused: counts.reused.into(),
            failed: counts.failed.into(),
            skipped: counts.skipped.into(),
        };
    }

    pub(crate) fn counts(&self) -> TaskCounts {
        let Told { counts, refused } = *self.told();
        let known = counts.total + refused;
        let total = self.submitted.load(Ordering::SeqCst).max(known);
        let failed = counts.failed + refused;
        TaskCounts { total, waiting: counts.waiting + (total - known), failed, ..counts }
    }

    /// Tasks that cannot be.
    pub(crate) fn refused(&self) -> u64 {
        self.told().refused
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
