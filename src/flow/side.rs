//! The side of the loop: tasks that a program submitted, the calls of its functions, and the ends
//! that its futures wait for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use keelboat_engine::core::{Action, Core, Event, Urgency};
use keelboat_engine::{
    AttemptId, AttemptOutcome, Digest, Failure, FailureClass, InputSpec, MemoRecord, SiteId,
    Source, TaskId, TaskSpec, Timestamp, Usage,
};

use super::calling::{Calling, Launch, Stage, Stop};
use super::cell::{Cell, Ended};
use super::config::OnClose;
use super::error::TaskError;
use super::function::{Left, panicked};
use super::handle::{Called, Deed, Handle, LateText, Request, Submission, Work, closed};
use super::spans::Spans;
use super::workers::{Job, Workers};
use crate::driver::Edges;
use crate::driver::reads::Reads;
use crate::driver::values;
use crate::workflow::near;

/// What the loop knows of the tasks of a program.
pub(crate) struct Side {
    pub(super) handle: Handle,
    workers: Workers,
    /// Calls that were launched, for the lines of their pools.
    launched: Vec<(u16, Job)>,
    /// How many of each line may be at work.
    at_work: Vec<usize>,
    /// By the number of the task; empty when it is over.
    pub(super) entries: Vec<Option<Entry>>,
    /// How often a name was given that others have too.
    repeated: HashMap<Arc<str>, u32>,
    pub(super) calls: BTreeMap<AttemptId, Call>,
    /// The errors of tasks that joins return which are about to fail.
    pub(super) returned: BTreeMap<TaskId, TaskError>,
    /// Nothing more is begun: a join would wait for its task for ever.
    is_stopping: bool,
    pub(super) spans: Spans,
}

pub(super) struct Entry {
    pub(super) cell: Arc<Cell>,
    pub(super) work: Arc<Work>,
    /// Whether it can have to run again when it is done: its files may be lost.
    pub(super) makes_files: bool,
    /// How its last attempt failed.
    pub(super) failure: Option<Box<Failure>>,
}

/// An attempt of a function.
pub(super) struct Call {
    begun: Instant,
    /// Whether the core was told of its end.
    is_over: bool,
    stop: Arc<Stop>,
    left: Option<Left>,
    /// Whether its value is that of a task that is waited for.
    is_joining: bool,
    pub(super) value: Option<Arc<[u8]>>,
}

/// What taking in the program's requests came to.
#[derive(Default)]
pub(crate) struct TakenIn {
    pub(crate) actions: Vec<Action>,
    pub(crate) events: Vec<Event>,
    /// To be durable before the results that are told of.
    pub(crate) places: Vec<PathBuf>,
    /// To end when all that is done is durable.
    pub(crate) checkpoints: Vec<Arc<Cell>>,
}

impl Side {
    pub(crate) fn new(handle: Handle, workers: Workers, spans: Spans) -> Self {
        let (entries, repeated, calls) = (Vec::new(), HashMap::new(), BTreeMap::new());
        Self {
            handle,
            workers,
            launched: Vec::new(),
            at_work: Vec::new(),
            entries,
            repeated,
            calls,
            returned: BTreeMap::new(),
            is_stopping: false,
            spans,
        }
    }

    /// Tasks that cannot be, and that the core never saw.
    pub(crate) fn refused(&self) -> u32 {
        u32::try_from(self.handle.tally().refused()).unwrap_or(u32::MAX)
    }

    /// Whether the program asked for something.
    pub(crate) fn is_awaited(&self) -> bool {
        self.handle.inbox().is_filled()
    }

    /// Says whether the loop looks by itself; whether the program asked for something.
    pub(crate) fn set_watched(&self, is_watched: bool) -> bool {
        self.handle.inbox().set_watched(is_watched)
    }

    /// Takes in what the program asked for since.
    pub(crate) fn take_in(&mut self, core: &mut Core, now: Timestamp, edges: &Edges) -> TakenIn {
        let mut taken = TakenIn::default();
        let mut submitted = Vec::new();
        for request in self.handle.inbox().take() {
            if let Request::Submit(submission) = request {
                submitted.push(*submission);
                continue;
            }
            let before = std::mem::take(&mut submitted);
            self.submit(core, now, before, edges, &mut taken.actions);
            match request {
                Request::Submit(_) => unreachable!("taken above"),
                Request::Checkpoint(cell) => taken.checkpoints.push(cell),
                Request::Cancel(cell) => taken.events.extend(self.cancel(core, &cell)),
                Request::Called(called) => taken.events.extend(self.called(called)),
                Request::Joined(attempt, ended) => {
                    let event = self.joined(attempt, ended, edges, &mut taken);
                    taken.events.extend(event);
                }
                Request::Close(OnClose::Wait) => taken.events.push(Event::Closed),
                Request::Close(OnClose::Drain) => {
                    taken.events.push(Event::Closed);
                    self.stop(Urgency::Drain, &mut taken.events);
                }
                Request::Close(OnClose::Cancel) => {
                    taken.events.push(Event::Closed);
                    self.stop(Urgency::Now, &mut taken.events);
                }
            }
        }
        self.submit(core, now, submitted, edges, &mut taken.actions);
        self.handle.tally().set(core);
        taken
    }

    /// Of a task with this very cell: others may be called the same.
    fn cancel(&mut self, core: &Core, cell: &Arc<Cell>) -> Vec<Event> {
        let is_it =
            |task: &TaskId| self.entry(*task).is_some_and(|entry| Arc::ptr_eq(&entry.cell, cell));
        let Some(task) = core.graph().find(&cell.name()).filter(is_it) else { return Vec::new() };
        let mut events = vec![Event::TaskCancelled { task }];
        let mut calls = self.calls.range(attempts_of(task));
        let joining = calls.find(|(_, call)| call.is_joining);
        if let Some(attempt) = joining.map(|(attempt, _)| *attempt) {
            // The core lets what is published come to its end; this one may never do.
            self.calls.remove(&attempt);
            let failure = Failure::new(FailureClass::Permanent, "it was cancelled");
            events.push(Event::PublishFailed { attempt, failure });
        }
        events
    }

    /// Begins nothing more. Joins wait for tasks that may never begin: the next run takes them up.
    fn stop(&mut self, urgency: Urgency, events: &mut Vec<Event>) {
        self.is_stopping = true;
        self.spans.stop();
        events.push(Event::StopRequested { urgency });
        let joining = self.calls.iter().filter(|(_, call)| call.is_joining);
        let joining: Vec<AttemptId> = joining.map(|(attempt, _)| *attempt).collect();
        for attempt in joining {
            self.calls.remove(&attempt);
            events.push(Event::PublishFailed { attempt, failure: stopped() });
        }
    }

    fn submit(
        &mut self,
        core: &mut Core,
        now: Timestamp,
        submitted: Vec<Submission>,
        edges: &Edges,
        actions: &mut Vec<Action>,
    ) {
        if submitted.is_empty() {
            return;
        }
        let mut names = HashSet::new();
        let (mut specs, mut entries) = (Vec::new(), Vec::new());
        for submission in submitted {
            let Submission { cell, mut spec, name, work, after } = submission;
            let refused = unknown_pool(&spec, edges)
                .map(|failure| TaskError::failed(&name, failure))
                .or_else(|| needs_refused(&work).map(|error| TaskError::needs(&name, error)));
            if let Some(error) = refused {
                self.handle.tally().refuse();
                cell.set_name(Arc::clone(&name));
                cell.end(Err(error));
                continue;
            }
            spec.takes = work.takes.iter().map(|taken| taken.name()).collect();
            spec.after = after.iter().map(|earlier| earlier.name()).collect();
            spec.name = self.free_name(core, &names, &name, &spec);
            names.insert(Arc::clone(&spec.name));
            cell.set_name(Arc::clone(&spec.name));
            let makes_files = !spec.outputs.is_empty();
            specs.push(spec);
            entries.push(Entry { cell, work, makes_files, failure: None });
        }
        let specs = match core.submit(now, specs, actions) {
            Ok(_) => return entries.into_iter().for_each(|entry| self.add(entry)),
            Err((_, specs)) => specs,
        };
        // One of them cannot be, nor can those that need it; the others can.
        for (spec, entry) in specs.into_iter().zip(entries) {
            let name = Arc::clone(&spec.name);
            if let Some(error) = needs_refused(&entry.work) {
                self.handle.tally().refuse();
                entry.cell.end(Err(TaskError::needs(&name, error)));
                continue;
            }
            match core.submit(now, vec![spec], actions) {
                Ok(_) => self.add(entry),
                Err((error, _)) => {
                    self.handle.tally().refuse();
                    let failure = Failure::new(FailureClass::Permanent, error.to_string());
                    entry.cell.end(Err(TaskError::failed(&name, failure)));
                }
            }
        }
    }

    fn add(&mut self, entry: Entry) {
        entry.cell.set_taken_in();
        self.entries.push(Some(entry));
    }

    /// A name that tells what is called with what, so that it is the same when the program is started
    /// again; with a number when it was called so before.
    fn free_name(
        &mut self,
        core: &Core,
        new: &HashSet<Arc<str>>,
        name: &str,
        spec: &TaskSpec,
    ) -> Arc<str> {
        let plain: Arc<str> = match &spec.command {
            keelboat_engine::Command::Function { arguments, .. } => {
                let mut digester = keelboat_engine::Digester::new();
                digester.update(arguments.as_bytes());
                for taken in &spec.takes {
                    digester.update(Digest::of(taken.as_bytes()).as_bytes());
                }
                format!("{name}[{}]", digester.finish().short()).into()
            }
            _ => name.into(),
        };
        let is_free = |name: &str| core.graph().find(name).is_none() && !new.contains(name);
        if is_free(&plain) {
            return plain;
        }
        let count = self.repeated.entry(Arc::clone(&plain)).or_insert(1);
        loop {
            *count += 1;
            let numbered: Arc<str> = format!("{plain}#{count}").into();
            if is_free(&numbered) {
                return numbered;
            }
        }
    }

    /// All that a task needs is there.
    pub(crate) fn on_ready(&self, core: &Core, task: TaskId) {
        self.spans.on_ready(&core.spec(task).name);
    }

    pub(super) fn entry(&self, task: TaskId) -> Option<&Entry> {
        self.entries.get(task.index())?.as_ref()
    }

    /// Has a function called; otherwise returns what is to be launched.
    pub(crate) fn launch(
        &mut self,
        core: &Core,
        attempt: AttemptId,
        edges: &Arc<Edges>,
    ) -> Option<Launch> {
        let Some(entry) = self.entry(attempt.task) else { return Some(Launch::Command) };
        let work = Arc::clone(&entry.work);
        let function = match &work.deed {
            Deed::Command => return Some(Launch::Command),
            Deed::Text(_) => return Some(Launch::Text(LateText(work))),
            Deed::Function(function) => function,
        };
        let needs_scratch = function.needs_scratch;
        let spec = core.spec(attempt.task);
        let calling = Calling {
            attempt,
            work,
            handle: self.handle.clone(),
            workers: self.workers.clone(),
            runtime: edges.runtime.clone(),
            timeout: spec.options.timeout,
            span: self.spans.attempt(core, attempt, edges),
            stop: Arc::default(),
        };
        let call = Call {
            begun: Instant::now(),
            is_over: false,
            stop: Arc::clone(&calling.stop),
            left: None,
            is_joining: false,
            value: None,
        };
        self.calls.insert(attempt, call);
        if needs_scratch {
            return Some(Launch::Call(calling));
        }
        let path = |input: &InputSpec| match &input.source {
            Source::Path(path) => Some(edges.project.resolve(path)),
            Source::Urls(_) => None,
        };
        let paths = spec.inputs.iter().filter_map(path).collect();
        let reads = Reads::of(core, attempt.task, edges).map(Arc::new);
        let stage = Stage { paths, reads, ..Stage::default() };
        if spec.options.goes_ahead {
            self.launched.push((core.pool(attempt.task), calling.job(stage)));
        } else {
            calling.begin(stage);
        }
        None
    }

    /// Puts what was launched into the lines, of which as many are at work as the core says.
    pub(crate) fn line_up(&mut self, core: &Core, pools: usize) {
        let pools = (0..pools).map(|pool| u16::try_from(pool).unwrap_or(u16::MAX));
        let at_work: Vec<usize> = pools.map(|pool| core.at_work(SiteId::HOME, pool)).collect();
        if self.launched.is_empty() && self.at_work == at_work {
            return;
        }
        self.workers.line_up(self.launched.drain(..), &at_work);
        self.at_work = at_work;
    }

    /// Ends a call: an `async` one for good; of another one only the result is not waited for.
    pub(crate) fn kill(&mut self, attempt: AttemptId) -> Option<Event> {
        let call = self.calls.get(&attempt)?;
        let wall = call.begun.elapsed();
        let failure = Failure::new(FailureClass::Transient, "it was cancelled");
        self.called(Called { attempt, result: Err(failure), wall })
    }

    fn called(&mut self, called: Called) -> Option<Event> {
        let Called { attempt, result, wall } = called;
        let call = self.calls.get_mut(&attempt).filter(|call| !call.is_over)?;
        call.is_over = true;
        call.stop.end_timer();
        let result = match result {
            Ok(left) => {
                call.left = Some(left);
                Ok(())
            }
            Err(failure) => {
                call.stop.give_up(|| self.workers.replace(&self.handle));
                self.calls.remove(&attempt);
                if let Some(entry) = self.entry(attempt.task) {
                    entry.cell.set_running(false);
                }
                Err(failure)
            }
        };
        let usage = Usage { wall, ..Usage::default() };
        Some(Event::AttemptEnded(AttemptOutcome { attempt, result, usage }))
    }

    /// Remembers what a function left. `None`: it is known when another task has ended.
    pub(crate) fn publish(
        &mut self,
        attempt: AttemptId,
        edges: &Edges,
        taken: &mut TakenIn,
    ) -> Option<Result<Digest, Failure>> {
        let is_stopping = self.is_stopping;
        let call = self.calls.get_mut(&attempt)?;
        match call.left.take()? {
            Left::Join(_) if is_stopping => {
                self.calls.remove(&attempt);
                Some(Err(stopped()))
            }
            Left::Value(bytes) => Some(self.keep(attempt, bytes.into(), edges, taken)),
            Left::Join(cell) => {
                call.is_joining = true;
                let handle = self.handle.clone();
                cell.when_over(move |ended| {
                    handle.tell(Request::Joined(attempt, ended.clone()));
                });
                taken.events.push(Event::JoinBegan { attempt });
                None
            }
        }
    }

    fn joined(
        &mut self,
        attempt: AttemptId,
        ended: Ended,
        edges: &Edges,
        taken: &mut TakenIn,
    ) -> Option<Event> {
        self.calls.get(&attempt)?;
        match ended {
            Ok(value) => Some(published(attempt, self.keep(attempt, value, edges, taken))),
            Err(error) => {
                self.calls.remove(&attempt);
                let cause = format!("the task that it returns has no value: {error:?}");
                self.returned.insert(attempt.task, error);
                let failure = Failure::new(FailureClass::Permanent, cause);
                Some(Event::PublishFailed { attempt, failure })
            }
        }
    }

    fn keep(
        &mut self,
        attempt: AttemptId,
        bytes: Arc<[u8]>,
        edges: &Edges,
        taken: &mut TakenIn,
    ) -> Result<Digest, Failure> {
        let digest = Digest::of(&bytes);
        match values::store(edges, digest, &bytes) {
            Ok(kept) => {
                taken.actions.extend(kept.fact.map(Action::Record));
                taken.places.extend(kept.place);
            }
            Err(failure) => {
                self.calls.remove(&attempt);
                return Err(failure);
            }
        }
        if let Some(call) = self.calls.get_mut(&attempt) {
            call.value = Some(bytes);
        }
        Ok(digest)
    }

    /// Has the program say what follows from a failure, if it wants to.
    pub(crate) fn respond(&self, task: TaskId, failure: &mut Failure) {
        let Some(entry) = self.entry(task) else { return };
        let Some(handler) = &entry.work.handler else { return };
        let answer = catch_unwind(AssertUnwindSafe(|| handler(failure)));
        match answer {
            Ok(response) => failure.response = failure.response.or(response),
            Err(panic) => {
                let told = panicked(&*panic).cause;
                failure.cause = format!("{}; and what looks at it: {told}", failure.cause);
            }
        }
    }

    /// Nothing more will happen: whoever still waits is told.
    pub(crate) fn shut(&mut self, failure: &Failure) {
        self.workers.end();
        for request in self.handle.inbox().shut() {
            let (cell, name) = match request {
                Request::Submit(submission) => (submission.cell, submission.name),
                Request::Checkpoint(cell) => (Arc::clone(&cell), cell.name()),
                _ => continue,
            };
            cell.set_name(Arc::clone(&name));
            cell.end(Err(TaskError::failed(&name, closed())));
        }
        for entry in self.entries.drain(..).flatten() {
            let error = TaskError::failed(&entry.cell.name(), failure.clone());
            entry.cell.end(Err(error.clone()));
            entry.cell.give_up_sending(&error);
        }
    }
}

/// All attempts of a task.
pub(super) fn attempts_of(task: TaskId) -> RangeInclusive<AttemptId> {
    AttemptId { task, ordinal: 0 }..=AttemptId { task, ordinal: u32::MAX }
}

/// What the core is told of a function without files.
pub(crate) fn published(attempt: AttemptId, kept: Result<Digest, Failure>) -> Event {
    match kept {
        Ok(digest) => {
            let record = MemoRecord { outputs: Vec::new(), value: Some(digest) };
            Event::Published { attempt, record }
        }
        Err(failure) => Event::PublishFailed { attempt, failure },
    }
}

/// Of a join whose task does not begin any more.
fn stopped() -> Failure {
    let cause = "the flow was closed before the task that it returns was done";
    Failure::new(FailureClass::Transient, cause)
}

/// The error of a task that is needed and that the core never saw.
fn needs_refused(work: &Work) -> Option<TaskError> {
    work.takes.iter().chain(&work.makers).find_map(|cell| cell.refused())
}

/// A pool that is asked for and that is not there.
fn unknown_pool(spec: &TaskSpec, edges: &Edges) -> Option<Failure> {
    let labels = || edges.pools.iter().map(|local| &*local.pool.label);
    let unknown =
        spec.options.executors.iter().find(|label| !labels().any(|known| known == &***label))?;
    let cause = format!("no executor is called {unknown:?}");
    let hint = match near::nearest(unknown, labels()) {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None => format!("[executors.{unknown}] in keelboat.toml makes one"),
    };
    Some(Failure::new(FailureClass::Permanent, cause).with_hint(hint))
}

/// The encoding of `()`.
pub(crate) const UNIT: [u8; 1] = [0xf6];
