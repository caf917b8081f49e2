//! The port: what the engine's driver asks of an executor, and what it is told.
//!
//! Ports begin, sinks end: each method returns at once, and the end of an attempt comes to the sink.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use keelboat_engine::{AttemptId, AttemptOutcome, Command};

/// All that is needed to run one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    /// The attempt. Its number is used once.
    pub attempt: AttemptId,
    /// What is run.
    pub command: Command,
    /// The working directory: the attempt's scratch directory, which exists.
    pub directory: PathBuf,
    /// Set on top of the environment that the executor inherited.
    pub env: BTreeMap<String, String>,
    /// Receives standard output; created, or emptied when it exists.
    pub stdout: PathBuf,
    /// Receives standard error; may be the same file.
    pub stderr: PathBuf,
    /// The longest it may run.
    pub timeout: Option<Duration>,
    /// The most memory that all of its processes may have together, in bytes: with more of it, it
    /// is killed.
    pub memory: Option<u64>,
    /// From the polite signal (SIGTERM) to the one that cannot be ignored (SIGKILL).
    pub grace: Duration,
    /// A program and its arguments that are run before the end is told of an attempt that ended
    /// in any way but by exit code 0: it removes what was started elsewhere. Empty: none.
    pub cleanup: Vec<String>,
}

/// Where ends of attempts are told. Called from a thread of the executor; it may block, which
/// delays only the ends behind it.
pub trait Sink: Send + Sync {
    /// An attempt is over, and none of its processes is left. Once for each attempt begun.
    fn ended(&self, outcome: AttemptOutcome);
}

/// Something that runs attempts.
pub trait Executor: Send + Sync + Debug {
    /// Starts an attempt. A second time for the same attempt, or for an earlier ordinal of its
    /// task, does nothing.
    fn begin(&self, spec: LaunchSpec);

    /// Stops an attempt: SIGTERM, then SIGKILL after its grace. It ends as a failure. Any number
    /// of times; does nothing for an attempt that is not running.
    fn kill(&self, attempt: AttemptId);

    /// Kills all attempts and waits until they are gone, at most their grace and some seconds
    /// more. Attempts begun afterwards end at once as failures.
    fn shutdown(&self);
}
