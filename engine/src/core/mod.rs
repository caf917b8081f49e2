//! The state machine: events in, actions out.
//!
//! Fed by one loop: `step` for each event, then the actions in their order. A fresh run and a run
//! that crashed begin the same way: [`Core::new`] with the history of the run (empty for a fresh
//! one), then [`Core::resume`], which asks for all that is outstanding. There is no other restore
//! path. What is durable (attempt numbers, counted failures, results) comes from the history; what
//! only lived in the edges is asked for again.
//!
//! Deliberately absent: clocks, files, processes, and waiting for any of them.

mod ahead;
mod attempt;
mod event;
mod graph;
mod history;
mod inputs;
#[cfg(test)]
mod invariants;
mod kept;
mod line;
mod lookup;
mod placement;
mod ready;
mod result;
mod site;
mod snapshots;
mod task;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};

pub use event::{Action, Admission, Counts, Event, Options, Pool, Recall, StageFrom, Urgency};
pub use graph::{FileNode, Graph, GraphError, TaskNode};
pub use history::History;
pub use task::Phase;

use self::graph::number;
use self::kept::Kept;
use self::ready::Ready;
use self::site::Sites;
use self::snapshots::Snapshots;
use self::task::{Counted, FileState, Knowledge, TaskState};
use self::transfer::Transfers;
use crate::{
    Content, Digest, Fact, Failure, FailureClass, FileId, KeyPart, MemoKey, RunOutcome, TaskId,
    TaskName, TaskSpec, Timestamp, key_parts,
};

/// The state of a run.
#[derive(Debug)]
pub struct Core {
    options: Options,
    now: Timestamp,
    graph: Graph,
    history: History,
    tasks: Vec<TaskState>,
    files: Vec<FileState>,
    sites: Sites,
    transfers: Transfers,
    kept: Kept,
    /// Tasks of which it is being asked whether they have a result.
    recalling: BTreeSet<TaskId>,
    /// Tasks that have to run and have no place.
    ready: Ready,
    functions: ahead::Functions,
    /// Those of them whose remote inputs nobody has asked for ahead.
    ahead: BTreeSet<site::Turn>,
    timers: BTreeSet<(Timestamp, TaskId)>,
    snapshots: Snapshots,
    counts: Counts,
    /// Tasks that are counted and are done again, since their results were lost.
    reviving: BTreeSet<TaskId>,
    /// Tasks whose output is being read for new tasks.
    expanding: BTreeSet<TaskId>,
    /// Outputs that are being copied to their addresses.
    delivering: BTreeMap<(TaskId, u32), Delivering>,
    /// What could not be copied to its address in this run.
    undelivered: BTreeMap<(TaskId, u32), Digest>,
    /// What attempts read whose inputs hold other bytes by now.
    read_before: BTreeMap<(TaskId, FileId), Option<Content>>,
    /// A task is done, but its new tasks or the copies of its outputs could not be made.
    aftermath_failed: bool,
    course: Course,
}

/// An output on its way to its address.
#[derive(Debug, Clone, Copy)]
struct Delivering {
    /// What it held when that began.
    content: Content,
    /// Tries that failed.
    failures: u32,
}

/// How far a run is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Starts whatever can be started.
    Going,
    /// Starts nothing more, since something failed.
    Failing,
    /// Starts nothing more, since somebody asked for its end.
    Draining,
    /// The same, and waits for as little as possible.
    Halting,
    /// Over: nothing that is still reported counts.
    Over,
}

impl Core {
    /// A run of these tasks, with what is remembered of it from before a crash.
    pub fn new(
        tasks: Vec<TaskSpec>,
        history: History,
        options: Options,
    ) -> Result<Self, GraphError> {
        let mut core = Self {
            options,
            now: Timestamp::default(),
            graph: Graph::default(),
            history,
            tasks: Vec::new(),
            files: Vec::new(),
            sites: Sites::default(),
            transfers: Transfers::new(options.transfers_max),
            kept: Kept::default(),
            recalling: BTreeSet::new(),
            ready: Ready::default(),
            functions: ahead::Functions::default(),
            ahead: BTreeSet::new(),
            timers: BTreeSet::new(),
            snapshots: Snapshots::default(),
            counts: Counts::default(),
            reviving: BTreeSet::new(),
            expanding: BTreeSet::new(),
            delivering: BTreeMap::new(),
            undelivered: BTreeMap::new(),
            read_before: BTreeMap::new(),
            aftermath_failed: false,
            course: Course::Going,
        };
        core.add_tasks(tasks)?;
        Ok(core)
    }

    /// Asks for all that is outstanding. Called once, after [`Core::new`].
    pub fn resume(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.now = now;
        record(Fact::Planned { tasks: u64::from(self.counts.total) }, actions);
        self.begin_tasks(TaskId(0), actions);
        self.proceed(actions);
    }

    /// Takes in one event at a moment and adds what is to be done about it.
    pub fn step(&mut self, now: Timestamp, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        if self.course == Course::Over {
            return;
        }
        match event {
            Event::TimePassed => {}
            Event::SiteJoined { site, pools } => self.sites.join(site, pools),
            Event::SiteLost { site, cause } => self.on_site_lost(site, &cause, actions),
            Event::Staged { file, site, content } => self.on_staged(file, site, content, actions),
            Event::StageFailed { file, site, failure } => {
                self.on_stage_failed(file, site, &failure, actions);
            }
            Event::Recalled { task, key, verdict } => {
                self.on_recalled(task, key, verdict, actions);
            }
            Event::AttemptEnded(outcome) => self.on_attempt_ended(outcome, actions),
            Event::Published { attempt, record } => self.on_published(attempt, &record, actions),
            Event::PublishFailed { attempt, failure } => {
                self.on_publish_failed(attempt, failure, actions);
            }
            Event::JoinBegan { attempt } => self.on_join_began(attempt),
            Event::Grown { by, tasks } => self.on_grown(by, tasks, actions),
            Event::GrowFailed { by, failure } => self.on_grow_failed(by, failure, actions),
            Event::Delivered { task, output } => self.on_delivered(task, output, actions),
            Event::DeliverFailed { task, output, failure } => {
                self.on_deliver_failed(task, output, failure, actions);
            }
            Event::RoomWanted { bytes } => self.on_room_wanted(bytes, actions),
            Event::Closed => self.options.open = false,
            Event::StopRequested { urgency } => self.on_stop_requested(urgency, actions),
            Event::TaskCancelled { task } => self.on_task_cancelled(task, actions),
            Event::CheckpointRestored { attempt, from } => {
                self.on_checkpoint_restored(attempt, from, actions);
            }
            Event::CheckpointSaved { attempt, number, bytes } => {
                self.on_checkpoint_saved(attempt, number, bytes, actions);
            }
            Event::CheckpointNotSaved { attempt } => self.on_checkpoint_not_saved(attempt),
        }
        self.proceed(actions);
    }

    /// Takes in tasks that a program submits while it runs, all or none, and returns the number of
    /// the first one. They may take, read and come after what is there or among them.
    ///
    /// # Errors
    /// They do not fit with each other or with what is there, and are given back.
    pub fn submit(
        &mut self,
        now: Timestamp,
        tasks: Vec<TaskSpec>,
        actions: &mut Vec<Action>,
    ) -> Result<TaskId, (GraphError, Vec<TaskSpec>)> {
        self.now = self.now.max(now);
        if let Err(error) = self.graph.check(&tasks) {
            return Err((error, tasks));
        }
        let first = self.add_checked(tasks);
        if self.course != Course::Over {
            self.begin_tasks(first, actions);
            self.proceed(actions);
        }
        Ok(first)
    }

    /// When [`Event::TimePassed`] is due at the latest, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let retry = self.timers.first().map(|(due, _)| *due);
        retry.into_iter().chain(self.snapshots.next_due()).min()
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// How many tasks are in which state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many tasks have all that they need, and wait for their turn to run; among them those that
    /// are done again since their results were lost.
    pub fn ready(&self) -> u64 {
        let placed = self.sites.all.values().map(|place| place.placed.len());
        (self.ready.len() + placed.sum::<usize>() + self.sites.in_line) as u64
    }

    /// How many tasks have run, and what they left is on its way to its place.
    pub const fn publishing(&self) -> u64 {
        self.sites.publishing as u64
    }

    /// Where a task stands.
    pub fn phase(&self, task: TaskId) -> Phase {
        self.tasks[task.index()].phase
    }

    /// What a task is.
    pub fn spec(&self, task: TaskId) -> &TaskSpec {
        &self.graph.task(task).spec
    }

    /// A task's memo key, once its inputs are known.
    pub fn key(&self, task: TaskId) -> Option<MemoKey> {
        self.tasks[task.index()].key()
    }

    /// What a task's key is made of, once its inputs are known.
    pub fn parts(&self, task: TaskId) -> Option<Vec<KeyPart>> {
        self.key(task)?;
        Some(key_parts(self.spec(task), &self.contents(task), &self.values(task)))
    }

    /// What a file holds, once that is known.
    pub fn content(&self, file: FileId) -> Option<Content> {
        match self.files[file.index()].knowledge {
            Knowledge::Content(content) => Some(content),
            _ => None,
        }
    }

    /// Why a task has to run, once that is known.
    pub fn reasons(&self, task: TaskId) -> &[crate::Reason] {
        &self.tasks[task.index()].reasons
    }

    /// What a task waits for, in words; `None` when it does not wait.
    pub fn waits_for(&self, task: TaskId) -> Option<String> {
        let node = self.graph.task(task);
        let unknown =
            |file: &&FileId| matches!(self.files[file.index()].knowledge, Knowledge::Unknown);
        match self.phase(task) {
            Phase::Waiting => {
                let file = node.inputs.iter().find(unknown).map(|file| self.graph.file(*file));
                Some(match file {
                    Some(FileNode { producer: Some(task), .. }) => {
                        format!("task {}", self.spec(*task).name)
                    }
                    Some(file) => format!("input {}", transfer::describe(&file.source)),
                    None => "a task before it".to_owned(),
                })
            }
            Phase::Recalling => Some("the memo store".to_owned()),
            Phase::Ready => Some(match node.spec.options.executors.as_ref() {
                [] => "a place to run".to_owned(),
                labels => format!("a place at {}", labels.join(" or ")),
            }),
            Phase::Fetching(site) => Some(format!("inputs on their way to {site}")),
            Phase::Queued(site) => Some(format!("free slots at {site}")),
            Phase::Backoff => Some("its next try".to_owned()),
            Phase::Publishing(_) if self.sites.joining.contains(&task) => {
                Some("the task whose value it leaves".to_owned())
            }
            Phase::Publishing(_) => Some("its outputs to be in their places".to_owned()),
            Phase::Running(site) if self.is_in_line(task) => Some(format!("free slots at {site}")),
            Phase::Running(_) | Phase::Done | Phase::Failed | Phase::Skipped => None,
        }
    }

    fn add_tasks(&mut self, specs: Vec<TaskSpec>) -> Result<TaskId, GraphError> {
        self.graph.check(&specs)?;
        Ok(self.add_checked(specs))
    }

    fn add_checked(&mut self, specs: Vec<TaskSpec>) -> TaskId {
        let first = self.graph.add_checked(specs);
        for node in &self.graph.tasks()[first.index()..] {
            let mut state = TaskState::new(node.waits_for);
            state.kind = self.ready.kind_of(&node.spec);
            state.function = self.functions.number_of(&node.spec);
            if let Some(remembered) = self.history.task(&node.spec.name) {
                state.ordinal = remembered.ordinal;
                state.failures = remembered.failures;
                state.spent = remembered.spent;
                state.shortages = remembered.shortages;
            }
            self.tasks.push(state);
        }
        self.files.resize_with(self.graph.file_count(), FileState::default);
        self.counts.total = number(self.tasks.len());
        for task in (first.0..self.counts.total).map(TaskId) {
            self.keep_for(task);
        }
        first
    }

    /// Begins the tasks from this number on: asks for their source files, and starts those that
    /// wait for nothing.
    fn begin_tasks(&mut self, first: TaskId, actions: &mut Vec<Action>) {
        for task in (first.0..self.counts.total).map(TaskId) {
            self.learn_inputs(task, actions);
        }
        for task in (first.0..self.counts.total).map(TaskId) {
            let state = &self.tasks[task.index()];
            if state.phase == Phase::Waiting && state.missing == 0 {
                self.on_inputs_known(task, actions);
            }
        }
    }

    /// All that can be done without further events. Transfers may turn up lost results, which
    /// become ready again, and launches make room, so this goes around.
    fn proceed(&mut self, actions: &mut Vec<Action>) {
        self.wake_retries();
        self.ask_for_snapshots(actions);
        self.admit_from_line(actions);
        while self.course == Course::Going {
            self.place_ready(actions);
            let launched = self.launch_queued(actions);
            self.prefetch();
            if !launched && !self.transfers.can_start() {
                break;
            }
            self.start_transfers(actions);
        }
        self.finish_if_over(actions);
    }

    fn stopping(&self) -> bool {
        self.course != Course::Going
    }

    /// Whether somebody asked for the end of the run.
    fn was_asked_to_stop(&self) -> bool {
        matches!(self.course, Course::Draining | Course::Halting)
    }

    /// After a failure nothing more is started, unless the run is to go on with what it can.
    fn stop_after_failure(&mut self) {
        if !self.options.keep_going && self.course == Course::Going {
            self.course = Course::Failing;
            self.timers.clear();
        }
    }

    fn finish_if_over(&mut self, actions: &mut Vec<Action>) {
        let aftermath = !self.expanding.is_empty() || !self.delivering.is_empty();
        // What is known to be lost is made again, even if nobody is left who reads it: its task
        // is told of as done, and a copy of it at its address can be waiting for it.
        let is_whole = self.reviving.is_empty();
        let all_ended = self.counts.ended() == self.counts.total && is_whole && !aftermath;
        if self.course == Course::Going && (!all_ended || self.options.open) {
            return;
        }
        let busy = self.counts.running > 0
            || self.sites.in_line > 0
            || self.sites.any_publishing()
            || aftermath && self.course != Course::Halting;
        if busy {
            return;
        }
        let failed = self.counts.failed > 0 || self.aftermath_failed;
        let outcome = match self.course {
            // Of what was to be submitted yet nobody knows.
            Course::Draining | Course::Halting if !all_ended || self.options.open => {
                RunOutcome::Cancelled
            }
            _ if failed || !all_ended => RunOutcome::Failed,
            _ => RunOutcome::Succeeded,
        };
        self.course = Course::Over;
        self.timers.clear();
        self.snapshots = Snapshots::default();
        record(Fact::RunEnded { outcome }, actions);
        actions.push(Action::Finish { outcome });
    }

    fn count(&mut self, task: TaskId, counted: Counted) {
        let before = std::mem::replace(&mut self.tasks[task.index()].counted, counted);
        for (kind, change) in [(before, false), (counted, true)] {
            let number = match kind {
                Counted::No => continue,
                Counted::Completed => &mut self.counts.completed,
                Counted::Reused => &mut self.counts.reused,
                Counted::Failed => &mut self.counts.failed,
                Counted::Skipped => &mut self.counts.skipped,
            };
            *number = if change { *number + 1 } else { *number - 1 };
        }
        if before == Counted::No {
            self.give_up_inputs(task);
        } else {
            self.give_up_inputs_again(task);
        }
    }

    fn fail(&mut self, task: TaskId, failure: Failure, actions: &mut Vec<Action>) {
        self.leave(task);
        self.reviving.remove(&task);
        let state = &mut self.tasks[task.index()];
        state.phase = Phase::Failed;
        let cancelled = state.cancelled;
        self.count(task, Counted::Failed);
        let name = self.spec(task).name.clone();
        record(Fact::Failed { task: name.clone(), failure }, actions);
        self.skip_after(task, &name, actions);
        if !cancelled {
            self.stop_after_failure();
        }
        self.fail_waiters(task, actions);
    }

    /// A result was lost and could not be made again: who has a place and lacks it, fails too.
    fn fail_waiters(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        for file in self.graph.files_of(task) {
            for waiting in self.transfers.abandon(file) {
                self.fail_without_input(waiting, task, actions);
            }
        }
    }

    fn fail_without_input(&mut self, task: TaskId, maker: TaskId, actions: &mut Vec<Action>) {
        if matches!(self.phase(task), Phase::Fetching(_)) {
            let cause = format!(
                "an input from {} was lost and could not be made again",
                self.spec(maker).name
            );
            self.fail(task, Failure::new(FailureClass::InputMissing, cause), actions);
        }
    }

    /// A task ended in a way that says that it is to be skipped, and so is what needs it.
    fn skip_itself(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        self.reviving.remove(&task);
        let name = self.spec(task).name.clone();
        self.skip(task, &name, actions);
        self.skip_after(task, &name, actions);
        self.fail_waiters(task, actions);
    }

    /// Skips all that waits for a task which failed or was skipped.
    fn skip_after(&mut self, failed: TaskId, because: &TaskName, actions: &mut Vec<Action>) {
        let mut reached = vec![failed];
        while let Some(task) = reached.pop() {
            for next in self.graph.dependents(task) {
                if self.phase(next) == Phase::Waiting {
                    self.skip(next, because, actions);
                    reached.push(next);
                }
            }
        }
    }

    fn skip(&mut self, task: TaskId, because: &TaskName, actions: &mut Vec<Action>) {
        self.tasks[task.index()].phase = Phase::Skipped;
        self.count(task, Counted::Skipped);
        let (task, because) = (self.spec(task).name.clone(), because.clone());
        record(Fact::Skipped { task, because }, actions);
    }
}

/// Facts go the way of all actions, so that their order among them is kept.
fn record(fact: Fact, actions: &mut Vec<Action>) {
    actions.push(Action::Record(fact));
}

#[cfg(test)]
mod tests;
