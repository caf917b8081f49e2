//! From files to keys: a task whose inputs are all known gets its memo key, and then either a
//! result that is there already or a place to run.

use std::sync::Arc;

use super::task::{Counted, Knowledge};
use super::{Action, Core, Phase, Recall};
use crate::{
    Content, Fact, Failure, FailureClass, FileId, Kind, MemoKey, Memoize, Reason, SiteId, Source,
    TaskId, memo_key,
};

impl Core {
    /// What the inputs of a task hold, in their order; `None` for those that are absent.
    pub(super) fn contents(&self, task: TaskId) -> Vec<Option<Content>> {
        self.graph.task(task).inputs.iter().map(|file| self.content(*file)).collect()
    }

    /// Finds out what a new task's inputs hold: counts those that are known already, and asks for
    /// those that nobody asked for yet.
    pub(super) fn learn_inputs(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        for at in 0..self.graph.task(task).inputs.len() {
            let file = self.graph.task(task).inputs[at];
            if self.files[file.index()].knowledge == Knowledge::Unknown {
                self.ask_for(file);
            }
            if self.files[file.index()].knowledge != Knowledge::Unknown {
                self.tasks[task.index()].missing -= 1;
            }
        }
        let spec = self.spec(task);
        let before: Vec<TaskId> =
            spec.after.iter().filter_map(|name| self.graph.find(name)).collect();
        let producers =
            self.graph.task(task).inputs.iter().filter_map(|file| self.graph.file(*file).producer);
        let broken = before
            .iter()
            .copied()
            .chain(producers)
            .find(|before| matches!(self.phase(*before), Phase::Failed | Phase::Skipped));
        let done = before.iter().filter(|before| self.phase(**before) == Phase::Done).count();
        self.tasks[task.index()].missing -= super::number(done);
        if let Some(broken) = broken {
            let because = self.spec(broken).name.clone();
            self.skip_after(broken, &because, actions);
        }
    }

    fn ask_for(&mut self, file: FileId) {
        let node = self.graph.file(file);
        match (&node.source, node.producer, node.sha256) {
            (Source::Urls(_), _, Some(digest)) => {
                let content = Content { digest, bytes: 0, kind: node.kind };
                self.files[file.index()].knowledge = Knowledge::Content(content);
            }
            (_, None, _) => self.want(file, SiteId::HOME, None),
            (_, Some(producer), _) => {
                if node.inside_output && self.phase(producer) == Phase::Done {
                    self.want(file, SiteId::HOME, None);
                }
            }
        }
    }

    pub(super) fn on_staged(
        &mut self,
        file: FileId,
        site: SiteId,
        content: Content,
        actions: &mut Vec<Action>,
    ) {
        let Some(waiting) = self.transfers.arrived(file, site) else { return };
        let declared = self.graph.file(file).sha256;
        if let Some(expected) = declared.filter(|expected| *expected != content.digest) {
            let failure = self.wrong_digest(file, expected, content);
            return self.give_up_on(file, failure, waiting, actions);
        }
        let state = &mut self.files[file.index()];
        if !state.replicas.contains(&site) {
            state.replicas.push(site);
        }
        state.failures = 0;
        self.set_content(file, content, actions);
        for task in waiting {
            self.on_input_arrived(task, site);
        }
    }

    fn wrong_digest(&self, file: FileId, expected: crate::Digest, found: Content) -> Failure {
        let name = super::transfer::describe(&self.graph.file(file).source);
        let cause = format!("{name} has SHA-256 {}, but {expected} was declared", found.digest);
        Failure::new(FailureClass::Permanent, cause).with_hint(
            "the file changed or is damaged; if the new one is right, declare its digest",
        )
    }

    /// A file turned out to hold this. Wakes those who wait to know; those who counted on other
    /// bytes get another key.
    fn set_content(&mut self, file: FileId, content: Content, actions: &mut Vec<Action>) {
        let knowledge = &mut self.files[file.index()].knowledge;
        match std::mem::replace(knowledge, Knowledge::Content(content)) {
            Knowledge::Unknown => self.on_file_known(file, actions),
            Knowledge::Content(before) if before.digest == content.digest => {}
            Knowledge::Content(_) | Knowledge::Failed(_) => {
                for at in 0..self.graph.file(file).consumers.len() {
                    self.rekey(self.graph.file(file).consumers[at], actions);
                }
            }
        }
    }

    fn on_file_known(&mut self, file: FileId, actions: &mut Vec<Action>) {
        for at in 0..self.graph.file(file).consumers.len() {
            let task = self.graph.file(file).consumers[at];
            if self.phase(task) != Phase::Waiting {
                continue;
            }
            match self.obstacle(task, file) {
                Some(failure) => self.fail(task, failure, actions),
                None => self.one_less_missing(task, actions),
            }
        }
    }

    pub(super) fn one_less_missing(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        let state = &mut self.tasks[task.index()];
        state.missing -= 1;
        if state.missing == 0 && state.phase == Phase::Waiting {
            self.on_inputs_known(task, actions);
        }
    }

    /// Why a task cannot do with this file as it is.
    fn obstacle(&self, task: TaskId, file: FileId) -> Option<Failure> {
        let Knowledge::Failed(failure) = &self.files[file.index()].knowledge else { return None };
        let node = self.graph.task(task);
        let mut reads = node.inputs.iter().zip(&node.spec.inputs).filter(|(id, _)| **id == file);
        let can_do_without =
            failure.class == FailureClass::InputMissing && reads.all(|(_, input)| input.optional);
        (!can_do_without).then(|| failure.as_ref().clone())
    }

    /// A file cannot be had. Who waits for it, to know it or to have it in its place, fails.
    pub(super) fn give_up_on(
        &mut self,
        file: FileId,
        failure: Failure,
        waiting: Vec<TaskId>,
        actions: &mut Vec<Action>,
    ) {
        let state = &mut self.files[file.index()];
        let unknown = state.knowledge == Knowledge::Unknown;
        if unknown {
            state.knowledge = Knowledge::Failed(Arc::new(failure.clone()));
            self.on_file_known(file, actions);
        }
        for task in waiting {
            if matches!(self.phase(task), Phase::Fetching(_)) {
                self.fail(task, failure.clone(), actions);
            }
        }
    }

    pub(super) fn on_inputs_known(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        let node = self.graph.task(task);
        let obstacle = node.inputs.iter().find_map(|file| self.obstacle(task, *file));
        if let Some(failure) = obstacle.or_else(|| self.undeclared_bytes(task)) {
            return self.fail(task, failure, actions);
        }
        let key = memo_key(&node.spec, &self.contents(task));
        let remembered = self.history.task(&node.spec.name).and_then(|task| task.result.as_ref());
        let known = remembered.filter(|(before, _)| *before == key).map(|(_, record)| record);
        let known = known.cloned();
        let memoize = node.spec.memoize;
        self.tasks[task.index()].key = Some(key);
        match (memoize, &known) {
            (Memoize::Off, None) => self.make_ready(task, vec![Reason::CacheOff]),
            (Memoize::Refresh, None) => self.make_ready(task, vec![Reason::Forced]),
            _ => {
                self.tasks[task.index()].phase = Phase::Recalling;
                actions.push(Action::Recall { task, key, known });
            }
        }
    }

    /// An input that a task wrote, and that has not the digest which its reader declares.
    fn undeclared_bytes(&self, task: TaskId) -> Option<Failure> {
        let node = self.graph.task(task);
        node.inputs.iter().zip(&node.spec.inputs).find_map(|(file, input)| {
            let (expected, found) = (input.sha256?, self.content(*file)?);
            (expected != found.digest).then(|| self.wrong_digest(*file, expected, found))
        })
    }

    pub(super) fn on_recalled(
        &mut self,
        task: TaskId,
        key: MemoKey,
        verdict: Recall,
        actions: &mut Vec<Action>,
    ) {
        let state = &self.tasks[task.index()];
        if state.phase != Phase::Recalling || state.key != Some(key) {
            return;
        }
        match verdict {
            Recall::Hit { record, reuse } if self.fits(task, &record) => {
                let name = self.spec(task).name.clone();
                let fact = Fact::Reused { task: name, key, record: record.clone(), reuse };
                self.record(fact, actions);
                self.on_done(task, &record, SiteId::HOME, Counted::Reused, actions);
            }
            Recall::Hit { .. } => self.make_ready(task, vec![Reason::RecordLost]),
            Recall::Miss { reasons } => {
                let lost = state.counted != Counted::No;
                let reasons = if lost { vec![Reason::ResultLost] } else { reasons };
                self.make_ready(task, reasons);
            }
        }
    }

    /// Whether a record speaks of the outputs that the task declares.
    fn fits(&self, task: TaskId, record: &crate::MemoRecord) -> bool {
        let outputs = &self.spec(task).outputs;
        outputs.len() == record.outputs.len()
            && outputs.iter().zip(&record.outputs).all(|(declared, left)| {
                declared.path == left.path && (declared.optional || left.content.is_some())
            })
    }

    fn make_ready(&mut self, task: TaskId, reasons: Vec<Reason>) {
        let state = &mut self.tasks[task.index()];
        state.phase = Phase::Ready;
        state.reasons = reasons;
        self.ready.insert(task);
    }

    /// A task's inputs hold other bytes than its key was made of.
    fn rekey(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        match self.phase(task) {
            Phase::Recalling
            | Phase::Ready
            | Phase::Fetching(_)
            | Phase::Queued(_)
            | Phase::Backoff => {
                self.leave(task);
                self.tasks[task.index()].phase = Phase::Waiting;
                self.on_inputs_known(task, actions);
            }
            // What runs, runs on the bytes that it got; what waits will see the new ones.
            _ => {}
        }
    }

    /// A task's outputs are in their places, and that is recorded.
    pub(super) fn on_done(
        &mut self,
        task: TaskId,
        record: &crate::MemoRecord,
        site: SiteId,
        counted: Counted,
        actions: &mut Vec<Action>,
    ) {
        let again = self.tasks[task.index()].counted != Counted::No;
        self.leave(task);
        let state = &mut self.tasks[task.index()];
        state.phase = Phase::Done;
        state.reasons = Vec::new();
        if !again {
            self.count(task, counted);
        }
        for (at, output) in record.outputs.iter().enumerate() {
            let file = self.graph.task(task).outputs[at];
            match output.content {
                Some(content) => self.on_written(file, content, site, actions),
                None => self.on_left_out(task, file, actions),
            }
        }
        if again {
            return;
        }
        for at in 0..self.graph.task(task).followers.len() {
            let follower = self.graph.task(task).followers[at];
            self.one_less_missing(follower, actions);
        }
        self.expand_and_deliver(task, record, actions);
    }

    fn on_written(
        &mut self,
        file: FileId,
        content: Content,
        site: SiteId,
        actions: &mut Vec<Action>,
    ) {
        let state = &mut self.files[file.index()];
        if !state.replicas.contains(&site) {
            state.replicas.push(site);
        }
        self.transfers.retry_parked(file);
        self.set_content(file, content, actions);
        if self.graph.file(file).kind == Kind::Directory {
            for at in 0..self.graph.file(file).inner.len() {
                self.want(self.graph.file(file).inner[at], SiteId::HOME, None);
            }
        }
    }

    fn on_left_out(&mut self, task: TaskId, file: FileId, actions: &mut Vec<Action>) {
        let name = &self.spec(task).name;
        let path = super::transfer::describe(&self.graph.file(file).source);
        let cause = format!("{path} was not written by {name}, where it is optional");
        let failure = Failure::new(FailureClass::InputMissing, cause)
            .with_hint("mark the input as optional too, or make the task write it");
        for at in 0..self.graph.file(file).inner.len() {
            let inner = self.graph.file(file).inner[at];
            self.give_up_on(inner, failure.clone(), Vec::new(), actions);
        }
        self.give_up_on(file, failure, Vec::new(), actions);
    }
}
