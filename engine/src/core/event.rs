//! What the core is told, and what it asks for. Neither carries a closure or a handle.

use std::sync::Arc;

use crate::{
    AttemptId, AttemptOutcome, CheckpointOrigin, Content, Fact, Failure, FileId, MemoKey,
    MemoRecord, Reason, Resources, Reuse, RunOutcome, SiteId, TaskId, TaskSpec, Work,
};

/// A fact from outside, in the past tense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed; nothing else happened.
    TimePassed,
    /// A place that can hold files and run tasks is there. Its number was never used before.
    SiteJoined {
        /// The place.
        site: SiteId,
        /// Its slots, in at least one pool; the pools share its files.
        pools: Vec<Pool>,
    },
    /// A place is gone, with all files and attempts on it. Nothing more is reported of it.
    SiteLost {
        /// The place.
        site: SiteId,
        /// What is known of the reason.
        cause: String,
    },
    /// A file is whole at a site, and its digest is known. Answers [`Action::Stage`]; whoever
    /// reports drops duplicates by (file, site).
    Staged {
        /// The file.
        file: FileId,
        /// Where it is now.
        site: SiteId,
        /// What it holds.
        content: Content,
    },
    /// A file could not be brought. Answers [`Action::Stage`].
    StageFailed {
        /// The file.
        file: FileId,
        /// Where it was to go.
        site: SiteId,
        /// Why not; [`crate::FailureClass::InputMissing`]: it does not exist.
        failure: Failure,
    },
    /// It is known whether an earlier result can be used. Answers [`Action::Recall`].
    Recalled {
        /// The task.
        task: TaskId,
        /// The key that was asked for.
        key: MemoKey,
        /// What was found.
        verdict: Recall,
    },
    /// An attempt is over. Answers [`Action::Launch`].
    AttemptEnded(AttemptOutcome),
    /// The outputs of an attempt are in their places, all of them. Answers [`Action::Publish`].
    Published {
        /// The attempt.
        attempt: AttemptId,
        /// What it left, one entry for each declared output.
        record: MemoRecord,
    },
    /// The outputs of an attempt could not be put in their places; none is.
    PublishFailed {
        /// The attempt.
        attempt: AttemptId,
        /// Why not.
        failure: Failure,
    },
    /// What an attempt leaves is what another task will leave: it is published when that one has
    /// ended, and nothing of it moves until then. May follow [`Action::Publish`].
    JoinBegan {
        /// The attempt.
        attempt: AttemptId,
    },
    /// A task's output was read, and these tasks follow from it. Answers [`Action::Expand`].
    Grown {
        /// The task whose output was read.
        by: TaskId,
        /// The new tasks.
        tasks: Vec<TaskSpec>,
    },
    /// A task's output was read, and no tasks can be made of it. Answers [`Action::Expand`].
    GrowFailed {
        /// The task whose output was read.
        by: TaskId,
        /// Why not.
        failure: Failure,
    },
    /// An output is at its address. Answers [`Action::Deliver`]; whoever reports drops duplicates.
    Delivered {
        /// The task.
        task: TaskId,
        /// Which of its outputs.
        output: u32,
    },
    /// An output could not be copied to its address. Answers [`Action::Deliver`].
    DeliverFailed {
        /// The task.
        task: TaskId,
        /// Which of its outputs.
        output: u32,
        /// Why not.
        failure: Failure,
    },
    /// Transfers to the engine's own machine lack so many bytes of room on its disk.
    RoomWanted {
        /// Bytes.
        bytes: u64,
    },
    /// No further tasks are submitted: see [`Options::open`].
    Closed,
    /// Somebody wants the run to end.
    StopRequested {
        /// How soon.
        urgency: Urgency,
    },
    /// Somebody wants one task not to be done.
    TaskCancelled {
        /// The task.
        task: TaskId,
    },
    /// An attempt began with what an earlier one had saved.
    CheckpointRestored {
        /// The attempt.
        attempt: AttemptId,
        /// What it goes on from.
        from: CheckpointOrigin,
    },
    /// What an attempt keeps in its checkpoint directory is saved, durably. Answers
    /// [`Action::Snapshot`]; comes without being asked for before an attempt is reported as failed.
    CheckpointSaved {
        /// The attempt.
        attempt: AttemptId,
        /// Which one of the checkpoints of this attempt: 1, 2, …
        number: u32,
        /// Bytes of its files.
        bytes: u64,
    },
    /// There was nothing to save, or it could not be saved; the attempt runs on. Answers
    /// [`Action::Snapshot`].
    CheckpointNotSaved {
        /// The attempt.
        attempt: AttemptId,
    },
}

/// Slots of a site that are given out together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What tasks name it by.
    pub label: Arc<str>,
    /// What alone it runs; `None`: everything.
    pub only: Option<Work>,
    /// Who gets a place in it.
    pub admission: Admission,
    /// Its slots.
    pub capacity: Resources,
    /// How many tasks at most are launched ahead, while their slots are still taken.
    pub ahead: u32,
}

impl Pool {
    /// A pool for everything and everybody.
    pub fn new(label: impl Into<Arc<str>>, capacity: Resources) -> Self {
        Self { label: label.into(), only: None, admission: Admission::Anyone, capacity, ahead: 0 }
    }
}

/// Who gets a place in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// Tasks that name it, and those that name none.
    Anyone,
    /// Tasks that name it.
    WhoAsks,
}

/// How soon a run is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Start nothing more; let what runs finish.
    Drain,
    /// Kill what runs, and wait for no copies to addresses.
    Now,
}

/// Whether an earlier result can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recall {
    /// It can: the outputs are in their places, whole.
    Hit {
        /// What is there.
        record: MemoRecord,
        /// How it came there.
        reuse: Reuse,
    },
    /// It failed, and that is remembered.
    Failed {
        /// What went wrong, as it is to be told.
        failure: Failure,
    },
    /// It cannot.
    Miss {
        /// Why not.
        reasons: Vec<Reason>,
    },
}

/// A request, in the imperative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bring a file to a site, or find it there, and tell its digest.
    Stage {
        /// The file.
        file: FileId,
        /// Where it is needed.
        site: SiteId,
        /// Where to take it from.
        from: StageFrom,
        /// How much work it unblocks; more is sooner.
        priority: u8,
    },
    /// Give up the bytes of a remote file on the engine's own machine: no task of this run reads
    /// it any more. Where something else has the same bytes, they stay. Answers
    /// [`Event::RoomWanted`].
    Evict {
        /// The file.
        file: FileId,
    },
    /// See whether an earlier result can be used, and put its outputs in their places.
    Recall {
        /// The task.
        task: TaskId,
        /// Its key.
        key: MemoKey,
        /// A result of this very run, which may be used even where earlier runs' may not.
        known: Option<MemoRecord>,
    },
    /// Run a task on a site that has all of its inputs.
    Launch {
        /// The attempt; its number was never used before.
        attempt: AttemptId,
        /// Where.
        site: SiteId,
    },
    /// Kill an attempt; it ends with an [`Event::AttemptEnded`] as any other.
    Kill {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Move the outputs of an attempt that succeeded to their places.
    Publish {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Read a task's output and tell which tasks follow from it.
    Expand {
        /// The task.
        task: TaskId,
    },
    /// Copy an output to its address, after the facts so far are durable.
    Deliver {
        /// The task.
        task: TaskId,
        /// Which of its outputs.
        output: u32,
        /// What it held when this was decided. If it holds something else by then, that is an
        /// [`Event::DeliverFailed`], and the core knows more.
        content: Content,
    },
    /// Remember a fact, before any action that comes after it in the list is carried out.
    Record(Fact),
    /// Save what a running attempt keeps in its checkpoint directory.
    Snapshot {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Remove all that attempts of a task have saved, under whatever key, after the facts so far
    /// are durable: it is done.
    ForgetCheckpoints {
        /// The task.
        task: TaskId,
    },
    /// Everything is over. Nothing follows.
    Finish {
        /// How.
        outcome: RunOutcome,
    },
}

/// Where a file is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageFrom {
    /// Where the workflow says that it is.
    Origin,
    /// Another site that has it, or that has the directory in which it lies.
    Site(SiteId),
}

/// How the core behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// After a failure, go on with what does not depend on it.
    pub keep_going: bool,
    /// Chance for jitter.
    pub seed: u64,
    /// Further tries of a transfer, in or out, that failed in a way that may go away.
    pub stage_retries: u32,
    /// Transfers that are asked for at one time, if not as many as usual.
    pub transfers_max: Option<u32>,
    /// Tasks are submitted while it runs ([`Core::submit`](super::Core::submit)), until
    /// [`Event::Closed`].
    pub open: bool,
    /// So many calls of a function in a row have to be short before its tasks are launched ahead.
    pub ahead_after: u32,
}

/// How many tasks are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All that are known.
    pub total: u32,
    /// Ran and succeeded.
    pub completed: u32,
    /// Done without having run.
    pub reused: u32,
    /// Failed for good, or were cancelled.
    pub failed: u32,
    /// Not run since another one failed.
    pub skipped: u32,
    /// Running now.
    pub running: u32,
}

impl Counts {
    /// Tasks about which nothing more will happen.
    pub const fn ended(&self) -> u32 {
        self.completed + self.reused + self.failed + self.skipped
    }
}
