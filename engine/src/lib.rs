//! The decisions of Keelboat: what to run, move, reuse, retry, and when.
//!
//! Pure: no clock, no input or output, no threads, no async, no hash order. Time and chance are
//! arguments. The crates at the edges (`staging`, `checkpoint`, `executors`) do the deeds.

pub mod core;
mod digest;
mod fact;
mod failure;
mod ids;
mod key;
mod plan;
pub mod queue;
mod retry;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod testing;

pub use digest::{Digest, DigestParseError, Digester, TreeEntry, TreeNode, tree_digest};
pub use fact::{
    AttemptOutcome, CheckpointOrigin, Fact, FileStamp, MemoRecord, OutputRecord, Reason, Reuse,
    RunOutcome, Stamped, Usage,
};
pub use failure::{Exit, Failure, FailureClass, Shortage};
pub use ids::{AttemptId, FileId, SiteId, TaskId, TaskName, Timestamp};
pub use key::{KEY_VERSION, KeyChange, KeyPart, MemoKey, key_changes, key_parts, memo_key};
pub use plan::{
    CheckpointSpec, Command, Content, Env, InputSpec, KeepScratch, Kind, Memoize, MemoryGrowth,
    OutputSpec, Ranks, Resources, Source, Stream, TaskOptions, TaskSpec, Uncounted, Work, no_env,
};
pub use retry::{FailureKind, RETRY_COST, Response, RetryPolicy, RetryRule};
