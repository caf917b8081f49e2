//! What the core knows of one task.

use std::sync::Arc;

use crate::{AttemptId, Digest, Failure, MemoKey, Reason, SiteId, TaskId, Timestamp, Usage};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waits for files or tasks.
    Waiting,
    /// Its key is known; whether it has a result already is being asked.
    Recalling,
    /// Has to run, and has no place yet.
    Ready,
    /// Has a place; some inputs are still on their way there.
    Fetching(SiteId),
    /// Has a place with all inputs; waits for free slots.
    Queued(SiteId),
    /// Runs.
    Running(SiteId),
    /// Ran; its outputs are being moved to their places.
    Publishing(SiteId),
    /// Failed; waits for its next try.
    Backoff,
    /// Done.
    Done,
    /// Failed for good.
    Failed,
    /// Not run since another one failed.
    Skipped,
}

impl Phase {
    /// Whether nothing more happens to the task, unless its result is lost.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Skipped)
    }

    /// The site at which it has a place.
    pub(crate) const fn site(self) -> Option<SiteId> {
        match self {
            Self::Fetching(site)
            | Self::Queued(site)
            | Self::Running(site)
            | Self::Publishing(site) => Some(site),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct TaskState {
    pub(crate) phase: Phase,
    /// Files and tasks that it still waits for.
    pub(crate) missing: u32,
    /// Inputs still on their way to its place.
    pub(crate) lacking: u32,
    /// The number of its last attempt.
    pub(crate) ordinal: u32,
    /// Failures that cost something of its retries.
    pub(crate) failures: u32,
    /// What they cost, in thousandths of a retry.
    pub(crate) spent: u64,
    /// Its last attempts, as far as they were lost through no fault of its own or cost nothing.
    pub(crate) losses: u32,
    /// How often its result was lost.
    pub(crate) results_lost: u32,
    /// `None`: nothing is known yet. Very many tasks may be waiting.
    known: Option<Box<Known>>,
    /// Why it has to run.
    pub(crate) reasons: Vec<Reason>,
    /// What the attempt used that is being published.
    pub(crate) usage: Option<Box<Usage>>,
    /// Somebody does not want it any more; its attempt is being killed.
    pub(crate) cancelled: bool,
    /// Its result was counted: it is done again only to bring back lost bytes.
    pub(crate) counted: Counted,
    /// It is not tried again before.
    pub(crate) due: Timestamp,
    /// What kind of place it can have.
    pub(crate) kind: u32,
    /// The function that it calls, if it may be launched ahead.
    pub(crate) function: Option<u32>,
    /// The pool of its site that it has its place in.
    pub(crate) pool: u16,
    /// How often it ran out of memory.
    pub(crate) shortages: u32,
}

/// What is known of a task whose inputs are.
#[derive(Debug, Default)]
struct Known {
    key: Option<MemoKey>,
    /// The key under which it was done last. When its result is lost, its key can change to and
    /// fro with its inputs before it is done again.
    done_under: Option<MemoKey>,
    /// The value that it left.
    value: Option<Digest>,
}

/// Under which number of [`super::Counts`] a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    No,
    Completed,
    Reused,
    Failed,
    Skipped,
}

impl TaskState {
    pub(crate) fn new(missing: u32) -> Self {
        Self {
            phase: Phase::Waiting,
            missing,
            lacking: 0,
            ordinal: 0,
            failures: 0,
            spent: 0,
            losses: 0,
            results_lost: 0,
            known: None,
            reasons: Vec::new(),
            usage: None,
            cancelled: false,
            counted: Counted::No,
            due: Timestamp::default(),
            kind: 0,
            function: None,
            pool: 0,
            shortages: 0,
        }
    }

    pub(crate) fn key(&self) -> Option<MemoKey> {
        self.known.as_ref()?.key
    }

    /// The key under which it was done last.
    pub(crate) fn done_under(&self) -> Option<MemoKey> {
        self.known.as_ref()?.done_under
    }

    /// The value that it left.
    pub(crate) fn value(&self) -> Option<Digest> {
        self.known.as_ref()?.value
    }

    pub(crate) fn set_key(&mut self, key: MemoKey) {
        self.known.get_or_insert_default().key = Some(key);
    }

    /// It was done under its key.
    pub(crate) fn set_done(&mut self) {
        let known = self.known.get_or_insert_default();
        known.done_under = known.key;
    }

    pub(crate) fn set_value(&mut self, value: Option<Digest>) {
        self.known.get_or_insert_default().value = value;
    }

    /// Whether it was done in this run, even if its result was lost since.
    pub(crate) const fn was_done(&self) -> bool {
        matches!(self.counted, Counted::Completed | Counted::Reused)
    }

    pub(crate) fn attempt(&self, task: TaskId) -> AttemptId {
        AttemptId { task, ordinal: self.ordinal }
    }
}

/// What the core knows of one file.
#[derive(Debug, Default)]
pub(crate) struct FileState {
    pub(crate) knowledge: Knowledge,
    /// Sites that hold it whole.
    pub(crate) replicas: Vec<SiteId>,
    /// Lies in a directory that was written anew, and may hold anything now.
    pub(crate) unsettled: bool,
    /// As the record of the task that wrote it says.
    pub(crate) executable: bool,
    /// Why it cannot be brought anywhere, although it is known what it has to hold.
    pub(crate) given_up: Option<Arc<Failure>>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Knowledge {
    #[default]
    Unknown,
    /// What it holds, or has to hold.
    Content(crate::Content),
    /// It cannot be had.
    Failed(Arc<Failure>),
}
