//! What follows from a task that is done: new tasks, and copies at other addresses.

use super::attempt::LOSSES_MAX;
use super::{Action, Core, Delivering, Phase};
use crate::{Fact, Failure, FailureClass, TaskId, TaskSpec};

impl Core {
    pub(super) fn expand(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        if self.spec(task).options.generates {
            self.expanding.insert(task);
            actions.push(Action::Expand { task });
        }
    }

    /// Has those outputs of a task copied whose bytes are not at their addresses. When it was done
    /// again and wrote other bytes, those are to be there in the end.
    pub(super) fn deliver(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        let node = self.graph.task(task);
        for (output, (spec, file)) in (0..).zip(node.spec.outputs.iter().zip(&node.outputs)) {
            let Some(content) = self.content(*file).filter(|_| spec.deliver_to.is_some()) else {
                continue;
            };
            let is_there = self.was_delivered(task, output);
            let is_in_vain = self.undelivered.get(&(task, output)) == Some(&content.digest);
            // Of what is on its way it is asked when it has ended.
            if is_there || is_in_vain || self.delivering.contains_key(&(task, output)) {
                continue;
            }
            self.delivering.insert((task, output), Delivering { content, failures: 0 });
            let fact = Fact::Owed {
                task: node.spec.name.clone(),
                path: spec.path.clone(),
                display: self.destination(task, output),
            };
            super::record(fact, actions);
            actions.push(Action::Deliver { task, output, content });
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

    /// Whether what this output holds was copied to its address before a crash: nobody is told of it
    /// again.
    pub fn was_delivered(&self, task: TaskId, output: u32) -> bool {
        let node = self.graph.task(task);
        let spec = &node.spec.outputs[output as usize];
        self.content(node.outputs[output as usize]).is_some_and(|content| {
            self.history.was_delivered(&node.spec.name, &spec.path, content.digest)
        })
    }

    pub(super) fn on_delivered(&mut self, task: TaskId, output: u32, actions: &mut Vec<Action>) {
        let Some(Delivering { content, .. }) = self.delivering.remove(&(task, output)) else {
            return;
        };
        let fact = Fact::Delivered {
            task: self.spec(task).name.clone(),
            path: self.spec(task).outputs[output as usize].path.clone(),
            display: self.destination(task, output),
            content,
        };
        self.history.apply(&fact);
        super::record(fact, actions);
        if self.phase(task) == Phase::Done {
            self.deliver(task, actions);
        }
    }

    /// Where an output is to be copied to, without secrets.
    fn destination(&self, task: TaskId, output: u32) -> String {
        let to = self.spec(task).outputs[output as usize].deliver_to.as_ref();
        to.map(|address| super::transfer::without_secrets(address)).unwrap_or_default()
    }

    pub(super) fn on_deliver_failed(
        &mut self,
        task: TaskId,
        output: u32,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        let Some(Delivering { content, failures }) = self.delivering.remove(&(task, output)) else {
            return;
        };
        let file = self.graph.task(task).outputs[output as usize];
        let is_done = self.phase(task) == Phase::Done;
        let is_same = self.content(file).is_some_and(|now| now.digest == content.digest);
        if is_done && !is_same {
            // It was done again meanwhile: what failed is not wanted any more.
            return self.deliver(task, actions);
        }
        if !is_done && !self.phase(task).is_final() {
            // It is being done again, and is copied then.
            return;
        }
        let may_go_away =
            matches!(failure.class, FailureClass::Transient | FailureClass::InfrastructureLost);
        if may_go_away && failures < self.options.stage_retries {
            self.delivering.insert((task, output), Delivering { content, failures: failures + 1 });
            return actions.push(Action::Deliver { task, output, content });
        }
        self.undelivered.insert((task, output), content.digest);
        self.aftermath_failed = true;
        self.stop_after_failure();
        let (name, display) = (self.spec(task).name.clone(), self.destination(task, output));
        let path = self.spec(task).outputs[output as usize].path.clone();
        super::record(Fact::Undelivered { task: name, path, display, failure }, actions);
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
                self.reviving.insert(task);
                self.hold_inputs(task);
                self.on_inputs_known(task, actions);
                self.phase(task) != Phase::Failed
            }
            _ => true,
        }
    }
}
