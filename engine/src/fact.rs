//! Facts: what happened in a run, as the journal keeps it. Tasks are named by text, since numbers
//! are not stable between runs.
//!
//! Deliberately absent: how facts look on disk; the journal has types of its own.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    AttemptId, Content, Failure, FailureClass, KeyChange, KeyPart, MemoKey, TaskName, Timestamp,
};

/// What a task left: the content of each declared output, in the order of the declaration, and the
/// value of a function.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoRecord {
    /// One for each output.
    pub outputs: Vec<OutputRecord>,
    /// Digest of the value, as it is encoded.
    pub value: Option<crate::Digest>,
}

/// What was found at one declared output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRecord {
    /// Its path after success.
    pub path: Arc<str>,
    /// What it holds; `None`: optional, and not written.
    pub content: Option<Content>,
    /// Whether a file can be executed by its owner; false for directories, whose digest tells it of
    /// each of their files.
    pub executable: bool,
}

/// What an attempt used. Zero where the executor cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Time from start to end.
    pub wall: Duration,
    /// Processor time in user mode, of the process and of the children it waited for.
    pub cpu_user: Duration,
    /// Processor time in the kernel.
    pub cpu_system: Duration,
    /// Largest resident set of any of its processes, in bytes.
    pub memory_max: u64,
    /// Bytes read from storage.
    pub read: u64,
    /// Bytes written to storage.
    pub written: u64,
}

/// Why a task has to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is remembered of a task with this name.
    FirstRun,
    /// A part of its key differs from the last time.
    Changed(KeyChange),
    /// `--force`.
    Forced,
    /// `cache = false`.
    CacheOff,
    /// An output is gone, and the object cache does not have it.
    OutputMissing {
        /// The output's path.
        path: Arc<str>,
    },
    /// An output holds other bytes than were recorded, and the object cache does not have them.
    OutputChanged {
        /// The output's path.
        path: Arc<str>,
    },
    /// The same key was seen, but what was remembered cannot be used (removed or damaged).
    RecordLost,
    /// Its result was on a site that is lost, and is needed again.
    ResultLost,
}

/// How a result that was remembered came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The outputs were in their places.
    InPlace,
    /// At least one was brought from the object cache.
    Restored,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunOutcome {
    /// Every task that was asked for is done.
    Succeeded,
    /// At least one task failed.
    Failed,
    /// It was asked to stop.
    Cancelled,
}

/// Where a checkpoint comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointOrigin {
    /// The run of the attempt that saved it; `None`: this one.
    pub run: Option<Arc<str>>,
    /// Which try of the task saved it.
    pub ordinal: u32,
    /// When.
    pub saved: Timestamp,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Something that happened. [`Stamped`] says when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An engine took up the run: the first time, or after a crash.
    EngineStarted {
        /// Process id of the engine.
        pid: u32,
        /// Name of its machine.
        host: String,
        /// Version of Keelboat.
        version: String,
        /// The workflow's name.
        workflow: String,
        /// Identity of the workflow file, its parameters and targets: a run is resumed only when
        /// it is the same.
        plan: crate::Digest,
        /// The workflow file, relative to the project directory.
        file: String,
    },
    /// The graph has this many tasks now.
    Planned {
        /// All tasks so far.
        tasks: u64,
    },
    /// A remote file was brought here, or found unchanged.
    Fetched {
        /// Digest of the address: an address may hold secrets.
        source: crate::Digest,
        /// The address without user information and query values.
        display: String,
        /// What came.
        content: Content,
        /// Bytes that went over the network for it, lost tries included.
        transferred: u64,
        /// The server's ETag.
        etag: Option<String>,
        /// The server's Last-Modified.
        last_modified: Option<String>,
    },
    /// An attempt was launched.
    AttemptStarted {
        /// The task.
        task: TaskName,
        /// Which try.
        ordinal: u32,
        /// Why the task runs.
        reasons: Vec<Reason>,
    },
    /// An attempt failed; the task may be tried again.
    AttemptFailed {
        /// The task.
        task: TaskName,
        /// Which try.
        ordinal: u32,
        /// What went wrong.
        failure: Failure,
        /// What it used.
        usage: Usage,
        /// What it cost of the task's retries, in thousandths of one.
        cost: u32,
    },
    /// A task is done: it ran, and its outputs are in their places.
    Completed {
        /// The task.
        task: TaskName,
        /// Which try.
        ordinal: u32,
        /// Its memo key.
        key: MemoKey,
        /// What the key is made of.
        parts: Vec<KeyPart>,
        /// What it left.
        record: MemoRecord,
        /// What it used.
        usage: Usage,
        /// Whether later runs may use it.
        memoized: bool,
    },
    /// A task is done without having run.
    Reused {
        /// The task.
        task: TaskName,
        /// Its memo key.
        key: MemoKey,
        /// What it had left.
        record: MemoRecord,
        /// Where that was.
        reuse: Reuse,
        /// Whether later runs may use it; if not, it is a result of this run from before a crash.
        memoized: bool,
    },
    /// An output was copied to its address.
    Delivered {
        /// The task.
        task: TaskName,
        /// The output's path.
        path: Arc<str>,
        /// The address without user information and query values.
        display: String,
        /// What it holds.
        content: Content,
    },
    /// A task failed for good.
    Failed {
        /// The task.
        task: TaskName,
        /// What went wrong.
        failure: Failure,
    },
    /// A task was not run since another one failed or was skipped; or it ran, and how it ended says
    /// that it is to be skipped.
    Skipped {
        /// The task.
        task: TaskName,
        /// The one that failed or was skipped; itself, when it ran.
        because: TaskName,
    },
    /// The run is over.
    RunEnded {
        /// How.
        outcome: RunOutcome,
    },
    /// An output is to be copied to its address.
    Owed {
        /// The task.
        task: TaskName,
        /// The output's path.
        path: Arc<str>,
        /// The address without user information and query values.
        display: String,
    },
    /// A value that results speak of by its digest. It stands before them.
    Value {
        /// Its encoding.
        bytes: Arc<[u8]>,
    },
    /// An output could not be copied to its address. The task itself is done.
    Undelivered {
        /// The task.
        task: TaskName,
        /// The output's path.
        path: Arc<str>,
        /// The address without user information and query values.
        display: String,
        /// What went wrong.
        failure: Failure,
    },
    /// What an attempt keeps in its checkpoint directory was saved.
    CheckpointSaved {
        /// The task.
        task: TaskName,
        /// Which try.
        ordinal: u32,
        /// Bytes of its files.
        bytes: u64,
    },
    /// An attempt goes on from what an earlier one had saved.
    CheckpointRestored {
        /// The task.
        task: TaskName,
        /// Which try.
        ordinal: u32,
        /// What it goes on from.
        from: CheckpointOrigin,
    },
    /// A task failed for good by its own verdict, and that is remembered.
    FailureKept {
        /// The task.
        task: TaskName,
        /// Its memo key.
        key: MemoKey,
        /// What went wrong.
        failure: Failure,
    },
}

/// A fact and its moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// When it was recorded.
    pub at: Timestamp,
    /// What.
    pub fact: Fact,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptOutcome {
    /// The attempt.
    pub attempt: AttemptId,
    /// `Ok`: exit status 0.
    pub result: Result<(), Failure>,
    /// What it used.
    pub usage: Usage,
}

impl AttemptOutcome {
    /// An attempt that was lost with the place where it ran.
    pub fn lost(attempt: AttemptId, cause: impl Into<String>) -> Self {
        let failure = Failure::new(FailureClass::InfrastructureLost, cause);
        Self { attempt, result: Err(failure), usage: Usage::default() }
    }
}

/// What a file's metadata says: equal stamps, equal bytes (but for files changed within one clock
/// tick, which whoever caches by stamp must allow for).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileStamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of content, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Last change of content or metadata, nanoseconds since 1970.
    pub changed_ns: i128,
}
