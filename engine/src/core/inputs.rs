//! From files to keys: a task whose inputs are all known gets its memo key, and then either a
//! result that is there already or a place to run.

use std::sync::Arc;

use super::graph::Reader;
use super::task::{Counted, Knowledge};
use super::{Action, Core, Phase, Recall, StageFrom};
use crate::{
    Content, Digest, Fact, Failure, FailureClass, FileId, MemoKey, MemoRecord, Memoize,
    OutputRecord, Reason, SiteId, Source, TaskId, Timestamp, memo_key,
};

impl Core {
    /// What the inputs of a task hold, in their order; `None` for those that are absent.
    pub(super) fn contents(&self, task: TaskId) -> Vec<Option<Content>> {
        self.graph.task(task).inputs.iter().map(|file| self.content(*file)).collect()
    }

    /// The values that a task is given, in their order.
    pub(super) fn values(&self, task: TaskId) -> Vec<Option<Digest>> {
        let takes = self.spec(task).takes.iter();
        takes.map(|name| self.tasks[self.graph.find(name)?.index()].value()).collect()
    }

    /// What the present attempt of a task read, also where that has changed since.
    pub(super) fn contents_read(&self, task: TaskId) -> Vec<Option<Content>> {
        let inputs = self.graph.task(task).inputs.iter();
        let read = |file: &FileId| self.read_before.get(&(task, *file)).copied();
        inputs.map(|file| read(file).unwrap_or_else(|| self.content(*file))).collect()
    }

    /// Finds out what a new task's inputs hold: counts those that are known already, and asks for
    /// those that nobody asked for yet.
    pub(super) fn learn_inputs(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        if self.phase(task) != Phase::Waiting {
            return;
        }
        let spec = self.spec(task);
        let before: Vec<TaskId> = spec.before().filter_map(|name| self.graph.find(name)).collect();
        let producers =
            self.graph.task(task).inputs.iter().filter_map(|file| self.graph.file(*file).producer);
        let broken = before
            .iter()
            .copied()
            .chain(producers)
            .find(|before| matches!(self.phase(*before), Phase::Failed | Phase::Skipped));
        if let Some(broken) = broken {
            let because = self.spec(broken).name.clone();
            self.skip(task, &because, actions);
            return self.skip_after(task, &because, actions);
        }
        let done = before.iter().filter(|before| self.tasks[before.index()].was_done()).count();
        self.tasks[task.index()].missing -= super::number(done);
        for at in 0..self.graph.task(task).inputs.len() {
            let file = self.graph.task(task).inputs[at];
            if self.files[file.index()].knowledge == Knowledge::Unknown {
                self.ask_for(file);
            }
            if self.files[file.index()].knowledge != Knowledge::Unknown {
                self.tasks[task.index()].missing -= 1;
            }
        }
        self.raise_last(task);
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
                let Some(outer) = node.outer else { return };
                match &self.files[outer.index()].knowledge {
                    Knowledge::Failed(failure) => {
                        self.files[file.index()].knowledge = Knowledge::Failed(failure.clone());
                    }
                    _ if self.phase(producer) == Phase::Done => {
                        self.want(file, SiteId::HOME, None);
                    }
                    _ => {}
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
        let Some(from) = self.transfers.under_way_from(file, site) else { return };
        if self.transfers.is_outdated(file, site) {
            if let StageFrom::Site(_) = from {
                // It came over what may have been right: published there while this was under way.
                self.forget_replica(file, site);
            }
            return self.on_outdated_ended(file, site);
        }
        let changed = self.content(file).is_some_and(|known| known.digest != content.digest);
        let may_change = from == StageFrom::Origin || self.files[file.index()].unsettled;
        if changed && !may_change {
            self.forget_missing(file, from);
            // What it came over may have been right: published there while this was under way.
            self.forget_replica(file, site);
            return self.transfers.start_over(file, site);
        }
        let waiting = self.transfers.complete(file, site);
        let declared = self.graph.file(file).sha256;
        if let Some(expected) = declared.filter(|expected| *expected != content.digest) {
            let failure = self.wrong_digest(file, expected, content);
            return self.give_up_on((file, site), &failure, waiting, actions);
        }
        self.set_content(file, content, site, actions);
        self.keep(file, content, site);
        for task in waiting {
            self.on_input_arrived(task, site);
        }
    }

    /// A file that is known is not where it was said to be, or not what it was. Nor is the
    /// directory then in which it lies. False: it cannot be anywhere else.
    pub(super) fn forget_missing(&mut self, file: FileId, from: StageFrom) -> bool {
        let source = match from {
            StageFrom::Site(source) => source,
            StageFrom::Origin if self.graph.file(file).inside_output => SiteId::HOME,
            StageFrom::Origin => return false,
        };
        if self.content(file).is_none() || self.files[file.index()].unsettled {
            // Whether it is in there, a directory that is gone cannot tell.
            let outer = self.graph.file(file).outer;
            return outer.is_some_and(|o| !self.files[o.index()].replicas.contains(&source));
        }
        self.forget_replica(file, source);
        true
    }

    /// A site has not what it was said to have of a file, nor of the directory in which it lies.
    pub(super) fn forget_replica(&mut self, file: FileId, site: SiteId) {
        for gone in self.graph.stands_with(file) {
            self.files[gone.index()].replicas.retain(|replica| *replica != site);
        }
    }

    fn wrong_digest(&self, file: FileId, expected: Digest, found: Content) -> Failure {
        let name = super::transfer::describe(&self.graph.file(file).source);
        let cause = format!("{name} has SHA-256 {}, but {expected} was declared", found.digest);
        Failure::new(FailureClass::Permanent, cause).with_hint(
            "the file changed or is damaged; if the new one is right, declare its digest",
        )
    }

    /// A file turned out to hold this, and to be here. Wakes those who wait to know; those who
    /// counted on other bytes get another key.
    fn set_content(
        &mut self,
        file: FileId,
        content: Content,
        site: SiteId,
        actions: &mut Vec<Action>,
    ) {
        let state = &mut self.files[file.index()];
        state.given_up = None;
        state.unsettled = false;
        let before = std::mem::replace(&mut state.knowledge, Knowledge::Content(content));
        let before = match before {
            Knowledge::Unknown => {
                state.replicas.push(site);
                return self.on_file_known(file, actions);
            }
            Knowledge::Content(before) if before.digest == content.digest => {
                if !state.replicas.contains(&site) {
                    state.replicas.push(site);
                }
                return;
            }
            Knowledge::Content(before) => Some(before),
            Knowledge::Failed(_) => None,
        };
        state.replicas = vec![site];
        self.rekey_readers(file, before, actions);
    }

    /// A file cannot be had, or is not there any more.
    fn set_failed(&mut self, file: FileId, failure: &Failure, actions: &mut Vec<Action>) {
        let state = &mut self.files[file.index()];
        state.unsettled = false;
        let failed = Knowledge::Failed(Arc::new(failure.clone()));
        match std::mem::replace(&mut state.knowledge, failed) {
            Knowledge::Unknown => self.on_file_known(file, actions),
            Knowledge::Failed(_) => {}
            Knowledge::Content(before) => {
                state.replicas.clear();
                self.rekey_readers(file, Some(before), actions);
            }
        }
    }

    fn on_file_known(&mut self, file: FileId, actions: &mut Vec<Action>) {
        let mut next = self.graph.first_reader(file);
        while let Some(at) = next {
            let reader;
            (reader, next) = self.graph.reader(at);
            if self.phase(reader.task) != Phase::Waiting {
                continue;
            }
            match self.obstacle(file, reader) {
                Some(failure) => self.fail(reader.task, failure, actions),
                None => self.one_less_missing(reader.task, actions),
            }
        }
    }

    pub(super) fn one_less_missing(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        let state = &mut self.tasks[task.index()];
        state.missing -= 1;
        if state.missing == 0 && state.phase == Phase::Waiting {
            return self.on_inputs_known(task, actions);
        }
        self.raise_last(task);
    }

    /// Why a task cannot do with this input as it is.
    fn obstacle(&self, file: FileId, reader: Reader) -> Option<Failure> {
        let Knowledge::Failed(failure) = &self.files[file.index()].knowledge else { return None };
        let input = &self.spec(reader.task).inputs[reader.input as usize];
        let can_do_without = failure.class == FailureClass::InputMissing && input.optional;
        (!can_do_without).then(|| failure.as_ref().clone())
    }

    /// A file cannot be brought. Who waits for it, to know it or to have it in its place, fails.
    pub(super) fn give_up_on(
        &mut self,
        (file, site): (FileId, SiteId),
        failure: &Failure,
        waiting: Vec<TaskId>,
        actions: &mut Vec<Action>,
    ) {
        let state = &mut self.files[file.index()];
        // Of a directory that was written anew, what is here tells, or that it is not in there.
        let is_told = site == SiteId::HOME || failure.class == FailureClass::InputMissing;
        if state.knowledge == Knowledge::Unknown || state.unsettled && is_told {
            return self.set_failed(file, failure, actions);
        }
        if state.replicas.is_empty() {
            state.given_up = Some(Arc::new(failure.clone()));
        }
        for task in waiting {
            if matches!(self.phase(task), Phase::Fetching(_)) {
                self.fail(task, failure.clone(), actions);
            }
        }
    }

    pub(super) fn on_inputs_known(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        let node = self.graph.task(task);
        let mut inputs = (0..).zip(&node.inputs);
        let obstacle =
            inputs.find_map(|(input, file)| self.obstacle(*file, Reader { task, input }));
        if let Some(failure) = obstacle.or_else(|| self.undeclared_bytes(task)) {
            return self.fail(task, failure, actions);
        }
        let key = memo_key(&node.spec, &self.contents(task), &self.values(task));
        let known = self.known_result(task, key);
        let memoize = node.spec.options.memoize;
        self.tasks[task.index()].set_key(key);
        match (memoize, &known) {
            (Memoize::Off, None) => self.run_because(task, vec![Reason::CacheOff]),
            (Memoize::Refresh, None) => self.run_because(task, vec![Reason::Forced]),
            _ => {
                self.tasks[task.index()].phase = Phase::Recalling;
                self.recalling.insert(task);
                actions.push(Action::Recall { task, key, known });
            }
        }
    }

    /// A result with this key from this run: from before a crash, or lost since it was made.
    fn known_result(&self, task: TaskId, key: MemoKey) -> Option<MemoRecord> {
        let node = self.graph.task(task);
        let state = &self.tasks[task.index()];
        if state.was_done() && state.done_under() == Some(key) {
            let left = node.spec.outputs.iter().zip(&node.outputs).map(|(output, file)| {
                let executable = self.files[file.index()].executable;
                OutputRecord { path: output.path.clone(), content: self.content(*file), executable }
            });
            return Some(MemoRecord { outputs: left.collect(), value: state.value() });
        }
        let (before, record) = self.history.task(&node.spec.name)?.result.as_ref()?;
        (*before == key).then(|| record.clone())
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
        if state.phase != Phase::Recalling || state.key() != Some(key) {
            return;
        }
        match verdict {
            Recall::Hit { record, reuse } if self.fits(task, &record) => {
                let spec = self.spec(task);
                let (name, memoized) = (spec.name.clone(), spec.options.memoize.remembers());
                let record_left = record.clone();
                let fact = Fact::Reused { task: name, key, record: record_left, reuse, memoized };
                super::record(fact, actions);
                self.on_done(task, &record, SiteId::HOME, Counted::Reused, actions);
            }
            Recall::Hit { .. } => self.run_because(task, vec![Reason::RecordLost]),
            Recall::Failed { failure } => self.fail(task, failure, actions),
            Recall::Miss { reasons } => {
                let lost = state.counted != Counted::No;
                let reasons = if lost { vec![Reason::ResultLost] } else { reasons };
                self.run_because(task, reasons);
            }
        }
    }

    /// Whether a record speaks of the outputs that the task declares.
    fn fits(&self, task: TaskId, record: &MemoRecord) -> bool {
        let spec = self.spec(task);
        let outputs = &spec.outputs;
        outputs.len() == record.outputs.len()
            && record.value.is_some() == spec.command.leaves_value()
            && outputs.iter().zip(&record.outputs).all(|(declared, left)| {
                declared.path == left.path && (declared.optional || left.content.is_some())
            })
    }

    fn run_because(&mut self, task: TaskId, reasons: Vec<Reason>) {
        self.recalling.remove(&task);
        self.tasks[task.index()].reasons = reasons;
        self.make_ready(task);
    }

    /// A file holds other bytes than the keys of its readers were made of.
    fn rekey_readers(&mut self, file: FileId, before: Option<Content>, actions: &mut Vec<Action>) {
        let mut next = self.graph.first_reader(file);
        while let Some(at) = next {
            let reader;
            (reader, next) = self.graph.reader(at);
            let task = reader.task;
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
                // What runs, runs on the bytes that it got.
                Phase::Running(_) | Phase::Publishing(_) => {
                    self.read_before.entry((task, file)).or_insert(before);
                }
                Phase::Waiting | Phase::Done | Phase::Failed | Phase::Skipped => {}
            }
        }
    }

    /// A task's outputs are in their places, and that is recorded.
    pub(super) fn on_done(
        &mut self,
        task: TaskId,
        record: &MemoRecord,
        site: SiteId,
        counted: Counted,
        actions: &mut Vec<Action>,
    ) {
        let again = self.tasks[task.index()].counted != Counted::No;
        self.leave(task);
        self.reviving.remove(&task);
        self.forget_checkpoints(task, actions);
        let state = &mut self.tasks[task.index()];
        state.phase = Phase::Done;
        state.set_done();
        // Others were given the value that it left first: what is made anew are its files.
        if !again {
            state.set_value(record.value);
        }
        state.reasons = Vec::new();
        state.cancelled = false;
        state.losses = 0;
        state.due = Timestamp::default();
        if !again {
            self.count(task, counted);
        }
        for (at, output) in record.outputs.iter().enumerate() {
            let file = self.graph.task(task).outputs[at];
            self.files[file.index()].executable = output.executable;
            match output.content {
                Some(content) => self.on_written(file, content, site, actions),
                None => self.on_left_out(task, file, actions),
            }
        }
        if again {
            self.give_up_inputs_again(task);
            return self.deliver(task, actions);
        }
        for at in 0..self.graph.task(task).followers.len() {
            let follower = self.graph.task(task).followers[at];
            self.one_less_missing(follower, actions);
        }
        self.expand(task, actions);
        self.deliver(task, actions);
    }

    fn on_written(
        &mut self,
        file: FileId,
        content: Content,
        site: SiteId,
        actions: &mut Vec<Action>,
    ) {
        let before = self.content(file);
        self.set_content(file, content, site, actions);
        self.transfers.retry_parked(file);
        let same = before.is_some_and(|before| before.digest == content.digest);
        if !same {
            self.transfers.outdate(file);
        }
        for at in 0..self.graph.file(file).inner.len() {
            let inner = self.graph.file(file).inner[at];
            self.transfers.retry_parked(inner);
            if !same {
                self.transfers.outdate(inner);
            }
            if !same || self.files[inner.index()].knowledge == Knowledge::Unknown {
                self.files[inner.index()].replicas.clear();
                self.files[inner.index()].unsettled = true;
                self.want(inner, SiteId::HOME, None);
            }
        }
    }

    fn on_left_out(&mut self, task: TaskId, file: FileId, actions: &mut Vec<Action>) {
        let name = &self.spec(task).name;
        let path = super::transfer::describe(&self.graph.file(file).source);
        let cause = format!("{path} was not written by {name}, where it is optional");
        let failure = Failure::new(FailureClass::InputMissing, cause)
            .with_hint("mark the input as optional too, or make the task write it");
        let inner = self.graph.file(file).inner.iter();
        for absent in inner.chain([&file]).copied().collect::<Vec<_>>() {
            self.transfers.outdate(absent);
            self.set_failed(absent, &failure, actions);
            // Who waited for it has another key by now, and waits no more.
            self.transfers.abandon(absent);
        }
    }
}
