//! What the edges tell the loop.

use std::path::PathBuf;

use keelboat_checkpoint::JournalError;
use keelboat_engine::core::{Event, Urgency};
use keelboat_engine::{Fact, KeyPart, MemoKey, Reason, TaskId};
use keelboat_staging::Room;

/// Told by an edge; the loop reads them all from one bounded channel.
#[derive(Debug)]
pub(crate) enum Message {
    /// Facts for the core.
    Events(Vec<Event>),
    /// Results that cannot be used, and what was known of the tasks before.
    Missed(Vec<Missed>),
    /// A file came: something to be remembered once the object is durable, then something for
    /// the core; its room on the disk is kept until then.
    Fetched(Box<(Fact, Event)>, PathBuf, Room),
    /// Outputs are in their places; they must be durable before the record of them is.
    Published(Event, Vec<PathBuf>),
    /// The journal is durable up to the flush with this number.
    Flushed(u64, Result<(), JournalError>),
    /// The program that this is the run of has asked for something.
    Program,
    /// Somebody wants the run to end.
    Stop(Urgency),
    /// Something that people should know.
    Warning(String),
    /// A transfer does not move, and why.
    Waiting(String),
}

/// A task without a usable result.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) task: TaskId,
    pub(crate) key: MemoKey,
    /// What is wrong with the result, when there is one.
    pub(crate) damage: Option<Reason>,
    /// The last key of the task and what it was made of.
    pub(crate) before: Option<(MemoKey, Vec<KeyPart>)>,
}
