//! What happened to tasks, told to their futures.

use std::sync::Arc;

use keelboat_engine::core::Core;
use keelboat_engine::{AttemptId, Fact, Failure, FailureClass, MemoRecord, Stamped, TaskId};

use super::cell::Ended;
use super::error::TaskError;
use super::side::{Side, UNIT, attempts_of};
use crate::driver::Edges;
use crate::driver::values;

impl Side {
    /// Tells the futures what has happened.
    pub(crate) fn on_facts(&mut self, core: &Core, facts: &[Stamped], edges: &Edges) {
        self.handle.tally().set(core);
        self.spans.on_facts(core, facts, edges);
        for Stamped { fact, .. } in facts {
            match fact {
                Fact::AttemptStarted { task, .. } => {
                    let Some(id) = core.graph().find(task) else { continue };
                    self.returned.remove(&id);
                    if let Some(entry) = self.entry(id) {
                        entry.cell.set_running(true);
                    }
                }
                Fact::AttemptFailed { task, ordinal, failure, .. } => {
                    let id = core.graph().find(task);
                    if let Some(task) = id {
                        self.calls.remove(&AttemptId { task, ordinal: *ordinal });
                    }
                    let slot = id.and_then(|id| self.entries.get_mut(id.index()));
                    if let Some(Some(entry)) = slot {
                        entry.cell.set_running(false);
                        entry.failure = Some(Box::new(failure.clone()));
                    }
                }
                Fact::Completed { task, ordinal, record, .. } => {
                    let Some(id) = core.graph().find(task) else { continue };
                    let call = self.calls.remove(&AttemptId { task: id, ordinal: *ordinal });
                    let value = call.and_then(|call| call.value);
                    self.done(id, value, record, edges);
                    self.sent_before(core, id);
                }
                Fact::Reused { task, record, .. } => {
                    let Some(id) = core.graph().find(task) else { continue };
                    self.done(id, None, record, edges);
                    self.sent_before(core, id);
                }
                Fact::Failed { task, failure } => {
                    let Some(id) = core.graph().find(task) else { continue };
                    let error = match self.returned.remove(&id) {
                        Some(returned) => TaskError::joined(task, returned),
                        None => TaskError::failed(task, failure.clone()),
                    };
                    self.end(id, Err(error));
                }
                Fact::Skipped { task, because } => self.skipped(core, task, because),
                Fact::Delivered { task, path, .. } => {
                    self.sent(core, task, path, Ok(()));
                }
                Fact::Undelivered { task, path, failure, .. } => {
                    let error = TaskError::failed(task, failure.clone());
                    self.sent(core, task, path, Err(error));
                }
                _ => {}
            }
        }
    }

    fn done(&mut self, task: TaskId, value: Option<Arc<[u8]>>, record: &MemoRecord, edges: &Edges) {
        let value = match (value, record.value) {
            (Some(value), _) => Some(value),
            (None, Some(digest)) => values::load(edges, digest),
            (None, None) => Some(Arc::from(UNIT)),
        };
        let Some(entry) = self.entry(task) else { return };
        let ended = value.ok_or_else(|| {
            let cause = "the value that is remembered was lost just now; run the program again";
            TaskError::value(&entry.cell.name(), cause)
        });
        self.over(task, ended);
    }

    fn skipped(&mut self, core: &Core, task: &Arc<str>, because: &Arc<str>) {
        let Some(id) = core.graph().find(task) else { return };
        let Some(entry) = self.entry(id) else { return };
        if because == task {
            let own = entry.failure.as_deref().cloned();
            let failure = own.unwrap_or_else(|| Failure::new(FailureClass::Permanent, "it ended"));
            let cause = format!("{}, and for that it is to be skipped", failure.cause);
            return self.end(id, Err(TaskError::failed(task, Failure { cause, ..failure })));
        }
        let mut needed = entry.work.takes.iter().chain(&entry.work.makers);
        let broken = needed.find_map(|cell| cell.ended()?.err());
        let broken = broken.unwrap_or_else(|| {
            TaskError::failed(because, Failure::new(FailureClass::Permanent, "it failed"))
        });
        self.end(id, Err(TaskError::needs(task, broken)));
    }

    fn end(&mut self, task: TaskId, ended: Ended) {
        while let Some((&attempt, _)) = self.calls.range(attempts_of(task)).next() {
            self.calls.remove(&attempt);
        }
        self.over(task, ended);
    }

    /// What it was made of goes, unless it may be needed again.
    fn over(&mut self, task: TaskId, ended: Ended) {
        let Some(slot) = self.entries.get_mut(task.index()) else { return };
        let Some(entry) = slot else { return };
        let cell = Arc::clone(&entry.cell);
        if !entry.makes_files || ended.is_err() {
            *slot = None;
        }
        cell.end(ended);
    }

    /// Tells of the outputs that an earlier start of the program has sent.
    fn sent_before(&mut self, core: &Core, id: TaskId) {
        let spec = core.spec(id);
        let sent = (0..).zip(&spec.outputs).filter(|(_, output)| output.deliver_to.is_some());
        for (at, output) in sent {
            if core.was_delivered(id, at) {
                self.sent(core, &spec.name, &output.path, Ok(()));
            }
        }
    }

    fn sent(&mut self, core: &Core, task: &str, path: &str, result: Result<(), TaskError>) {
        let Some(id) = core.graph().find(task) else { return };
        if let Some(entry) = self.entry(id) {
            entry.cell.set_sent(path, result);
        }
    }
}
