//! What follows from a task that is done: new tasks, and copies at other addresses.

use super::attempt::LOSSES_MAX;
use super::{Action, Core, Phase};
use crate::{Fact, Failure, FailureClass, MemoRecord, TaskId, TaskSpec};

impl Core {
    pub(super) fn expand_and_deliver(
        &mut self,
        task: TaskId,
        record: &MemoRecord,
        actions: &mut Vec<Action>,
    ) {
        if self.spec(task).generates {
            self.expanding.insert(task);
            actions.push(Action::Expand { task });
        }
        for (output, left) in (0..).zip(&record.outputs) {
            let spec = &self.spec(task).outputs[output as usize];
            let Some(content) = left.content.filter(|_| spec.deliver_to.is_some()) else {
                continue;
            };
            if !self.history.was_delivered(&self.spec(task).name, &left.path, content.digest) {
                self.delivering.insert((task, output));
                actions.push(Action::Deliver { task, output });
            }
        }
    }

    pub(super) fn on_grown(&mut self, by: TaskId, tasks: Vec<TaskSpec>, actions: &mut Vec<Action>) {
        if !self.expanding.contains(&by) {
            return;
        }
        match self.add_tasks(tasks) {
            Ok(first) => {
                self.expanding.remove(&by);
                let fact = Fact::Planned { tasks: u64::from(self.counts.total) };
                super::record(fact, actions);
                self.begin_tasks(first, actions);
            }
            Err(error) => {
                let failure = Failure::new(FailureClass::Permanent, error.to_string());
                self.on_grow_failed(by, failure, actions);
            }
        }
    }

    pub(super) fn on_grow_failed(
        &mut self,
        by: TaskId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        if !self.expanding.remove(&by) {
            return;
        }
        self.aftermath_failed = true;
        self.stop_after_failure();
        let task = self.spec(by).name.clone();
        super::record(Fact::Failed { task, failure }, actions);
    }

    pub(super) fn on_delivered(&mut self, task: TaskId, output: u32, actions: &mut Vec<Action>) {
        if !self.delivering.remove(&(task, output)) {
            return;
        }
        let node = self.graph.task(task);
        let spec = &node.spec.outputs[output as usize];
        let content = self.content(node.outputs[output as usize]);
        if let Some((content, address)) = content.zip(spec.deliver_to.as_ref()) {
            let fact = Fact::Delivered {
                task: node.spec.name.clone(),
                path: spec.path.clone(),
                display: super::transfer::without_secrets(address),
                content,
            };
            super::record(fact, actions);
        }
    }

    pub(super) fn on_deliver_failed(
        &mut self,
        task: TaskId,
        output: u32,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        if !self.delivering.remove(&(task, output)) {
            return;
        }
        self.aftermath_failed = true;
        self.stop_after_failure();
        let task = self.spec(task).name.clone();
        super::record(Fact::Failed { task, failure }, actions);
    }

    /// A result is needed again whose bytes are nowhere any more. False: it will never be there.
    pub(super) fn revive(&mut self, task: TaskId, actions: &mut Vec<Action>) -> bool {
        match self.phase(task) {
            Phase::Failed | Phase::Skipped => false,
            Phase::Done => {
                let state = &mut self.tasks[task.index()];
                state.results_lost += 1;
                if state.results_lost > LOSSES_MAX {
                    let cause = format!("its result was lost {} times", state.results_lost);
                    let failure = Failure::new(FailureClass::InfrastructureLost, cause);
                    self.fail(task, failure, actions);
                    return false;
                }
                state.phase = Phase::Waiting;
                self.hold_inputs(task);
                self.on_inputs_known(task, actions);
                self.phase(task) != Phase::Failed
            }
            _ => true,
        }
    }
}
