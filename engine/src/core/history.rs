//! What a run remembers of itself after a crash: facts, folded by task name.
//!
//! Numbers of tasks are not stable when the graph grows while it runs, so facts name tasks by
//! text, and what they say is taken up when the task appears in the graph.

use std::sync::Arc;

use super::lookup::Lookup;
use crate::{Digest, Fact, MemoKey, MemoRecord, Shortage, TaskName};

/// The durable part of a run's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    tasks: Lookup<TaskName, Remembered>,
    delivered: Lookup<(TaskName, Arc<str>), Digest>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) ordinal: u32,
    pub(crate) failures: u32,
    pub(crate) spent: u64,
    pub(crate) shortages: u32,
    pub(crate) result: Option<(MemoKey, MemoRecord)>,
}

impl History {
    /// Takes in the next fact.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::AttemptStarted { task, ordinal, .. } => {
                let remembered = self.of(task);
                remembered.ordinal = remembered.ordinal.max(*ordinal);
            }
            Fact::AttemptFailed { task, cost, failure, .. } => {
                let remembered = self.of(task);
                let ran_out = failure.shortage == Some(Shortage::Memory);
                remembered.shortages += u32::from(ran_out);
                remembered.failures += u32::from(*cost > 0);
                remembered.spent += u64::from(*cost);
            }
            Fact::Completed { task, ordinal, key, record, .. } => {
                let remembered = self.of(task);
                remembered.ordinal = remembered.ordinal.max(*ordinal);
                remembered.result = Some((*key, record.clone()));
            }
            Fact::Reused { task, key, record, .. } => {
                self.of(task).result = Some((*key, record.clone()));
            }
            Fact::Delivered { task, path, content, .. } => {
                self.delivered.insert((task.clone(), path.clone()), content.digest);
            }
            Fact::EngineStarted { .. }
            | Fact::Planned { .. }
            | Fact::Fetched { .. }
            | Fact::Failed { .. }
            | Fact::Owed { .. }
            | Fact::Undelivered { .. }
            | Fact::Skipped { .. }
            | Fact::Value { .. }
            | Fact::CheckpointSaved { .. }
            | Fact::CheckpointRestored { .. }
            | Fact::FailureKept { .. }
            | Fact::RunEnded { .. } => {}
        }
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.delivered.is_empty()
    }

    pub(crate) fn task(&self, name: &str) -> Option<&Remembered> {
        self.tasks.get(name)
    }

    pub(crate) fn was_delivered(&self, task: &TaskName, path: &Arc<str>, digest: Digest) -> bool {
        !self.delivered.is_empty()
            && self.delivered.get(&(task.clone(), path.clone())) == Some(&digest)
    }

    fn of(&mut self, task: &TaskName) -> &mut Remembered {
        self.tasks.get_or_default(task.clone())
    }
}
