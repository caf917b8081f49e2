//! Programs: plans whose tasks are submitted while others run. Some of them are functions, which
//! leave values that others take; some of these are joins, which submit tasks themselves and leave
//! the value of the last of them. A program that is started again submits the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ahead::may_go_ahead;
use super::chance::Chance;
use super::life::Life;
use super::marks::Mark;
use super::oracle::Oracle;
use super::plan::{Fate, Plan, SIDE, THREADS, input, output, rules, task};
use super::world::{Deed, World, failure};
use crate::core::{Action, Core, Event, Phase, Urgency};
use crate::{
    AttemptId, Command, Digest, Fact, Failure, FailureClass, Kind, RetryPolicy, RunOutcome, Source,
    TaskId, TaskName, TaskSpec,
};

/// What a program is besides its tasks.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Functions that submit these, and leave the value of the last one.
    pub(super) joins: BTreeMap<TaskName, Vec<TaskSpec>>,
    /// Tasks whose failures the program looks at itself.
    handled: BTreeSet<TaskName>,
}

impl Program {
    /// What the program says to a failure of this task, if it looks at it.
    pub(super) fn look_at(&self, task: &str, failure: &mut Failure) {
        if self.handled.contains(task) {
            let policy = RetryPolicy { rules: rules(), ..RetryPolicy::default() };
            failure.response = policy.answer(failure);
        }
    }

    pub(super) fn handles(&self, task: &str) -> bool {
        self.handled.contains(task)
    }

    /// The task whose value a join leaves.
    pub(super) fn joined(&self, join: &str) -> Option<&TaskName> {
        self.joins.get(join)?.last().map(|spec| &spec.name)
    }
}

/// Whether a join submits this task: where there is a result of the join, nobody does.
pub(super) fn is_inner(task: &str) -> bool {
    task.contains('>')
}

/// Some plans are programs. They have their chance, so that all other plans stay as they are.
pub(super) fn make_program(seed: u64, plan: &mut Plan) {
    let mut chance = Chance::new(seed ^ 0xf10e);
    if !chance.one_in(3) {
        return;
    }
    plan.options.open = true;
    // Nobody else submits to a run that came to an end by the failure of something else.
    plan.options.keep_going = true;
    let mut program = Program::default();
    let mut before: Vec<TaskName> = Vec::new();
    let mut tasks = std::mem::take(&mut plan.tasks);
    for spec in &mut tasks {
        if chance.one_in(2) {
            turn_into_function(spec);
        }
        for _ in 0..chance.below(4) {
            if !before.is_empty() && chance.one_in(2) {
                spec.takes.push(before[chance.below(before.len())].clone());
            }
        }
        if !spec.options.retry.rules.is_empty() && chance.one_in(2) {
            Arc::make_mut(&mut spec.options_mut().retry).rules = [].into();
            program.handled.insert(spec.name.clone());
        }
        let may_join =
            spec.command.leaves_value() && spec.outputs.is_empty() && !spec.options.generates;
        if may_join && chance.one_in(2) {
            spec.options_mut().checkpoint = None;
            let mut maker = Joins { plan, program: &mut program, chance: &mut chance };
            maker.make(spec, 0);
        }
        before.push(spec.name.clone());
    }
    plan.tasks = tasks;
    plan.program = Some(program);
}

fn turn_into_function(spec: &mut TaskSpec) {
    let Command::Shell { script, .. } = &spec.command else { return };
    let arguments = Digest::of(spec.name.as_bytes());
    spec.command = Command::Function { name: script.clone(), arguments };
    let label = |label: &Arc<str>| match &**label {
        SIDE => THREADS.into(),
        _ => label.clone(),
    };
    let labels = spec.options.executors.iter().map(label).collect();
    spec.options_mut().executors = labels;
    may_go_ahead(spec, THREADS);
}

struct Joins<'a> {
    plan: &'a mut Plan,
    program: &'a mut Program,
    chance: &'a mut Chance,
}

impl Joins<'_> {
    /// What a join submits: each of them needs the one before it.
    fn make(&mut self, join: &TaskSpec, depth: u32) {
        let mut inner: Vec<TaskSpec> = Vec::new();
        let count = self.chance.span(1, 3);
        for at in 1..=count {
            let name = format!("{}>{at}", join.name);
            let mut spec = task(&name, &format!("make {name}"));
            let is_command = at < count && self.chance.one_in(3);
            if is_command {
                spec.outputs.push(output(&format!("o/{name}.0"), Kind::File, false));
            } else {
                turn_into_function(&mut spec);
            }
            if self.chance.one_in(2) {
                spec.takes.clone_from(&join.takes);
            }
            match inner.last() {
                Some(last) if last.outputs.is_empty() => spec.takes.push(last.name.clone()),
                Some(last) => {
                    let made = Source::Path(last.outputs[0].path.clone());
                    spec.inputs.push(input(made, Kind::File, false));
                }
                None => {}
            }
            let fate = self.fate(&mut spec);
            self.plan.fates.insert(spec.name.clone(), fate);
            let is_last = at == count && depth == 0;
            if is_last && self.chance.one_in(4) {
                self.make(&spec, depth + 1);
            }
            inner.push(spec);
        }
        self.program.joins.insert(join.name.clone(), inner);
    }

    fn fate(&mut self, spec: &mut TaskSpec) -> Fate {
        match self.chance.below(12) {
            0 => Fate::Permanent,
            1 | 2 => {
                Arc::make_mut(&mut spec.options_mut().retry).retries = 1;
                Fate::Transient(1)
            }
            _ => Fate::Good,
        }
    }
}

impl World<'_> {
    /// The program begins: it submits a few tasks at a time, and then says that this was all.
    pub(super) fn begin_program(&mut self) {
        self.joining.clear();
        self.cells.clear();
        if self.plan.program.is_none() {
            return;
        }
        let mut left = &self.plan.tasks[..];
        let mut wait = 0;
        let mut number = 0;
        while !left.is_empty() {
            let many = if self.chance_of_program.one_in(3) { 12 } else { 3 };
            let count = (1 + self.chance_of_program.below(many)).min(left.len());
            let (batch, rest) = left.split_at(count);
            let mut batch = batch.to_vec();
            if self.chance_of_program.one_in(6) {
                number += 1;
                let bad = self.bad_task(number, &batch);
                // Behind the one whose name it may have.
                batch.insert(1 + self.chance_of_program.below(batch.len()), bad);
            } else {
                self.chance_of_program.shuffle(&mut batch);
            }
            self.after(wait, Deed::Submit(batch));
            let pause = if self.chance_of_program.one_in(8) { 400 } else { 40 };
            wait += self.chance_of_program.span(0, pause);
            left = rest;
        }
        let wait = wait + self.chance_of_program.below(2) as u64 * 600;
        self.after(wait, Deed::Close);
        // Whoever wants the end of it all says both at once.
        if self.chance_of_program.one_in(8) {
            self.after(wait, Deed::Stop(Urgency::Now));
        }
    }

    /// Something that cannot be submitted.
    fn bad_task(&mut self, number: u32, batch: &[TaskSpec]) -> TaskSpec {
        let mut bad = task(&format!("bad{number}"), "make nothing");
        match self.chance_of_program.below(4) {
            0 => bad.takes.push("nobody".into()),
            1 => bad.name = batch[0].name.clone(),
            2 => bad.takes.push(bad.name.clone()),
            _ => {
                bad.outputs.push(output("o/twice", Kind::File, false));
                bad.outputs.push(output("o/twice", Kind::File, false));
            }
        }
        bad
    }

    /// An attempt of a join has come to its end, and its value is that of another task.
    fn begin_joining(&mut self, attempt: AttemptId, join: &TaskName, stopped: bool) {
        let wait = self.chance_of_program.span(0, 20);
        if stopped {
            return self.after(wait, Deed::GiveUp(attempt, FailureClass::Transient));
        }
        let program = self.plan.program.as_ref().expect("joins are of programs");
        self.after(0, Deed::Again(Event::JoinBegan { attempt }));
        self.joining.insert(attempt, program.joins[join].last().unwrap().name.clone());
        let (now, later) = program.joins[join].split_at(self.chance_of_program.below(2));
        self.after(wait, Deed::Submit(now.to_vec()));
        self.after(wait + 3, Deed::Submit(later.to_vec()));
    }

    /// The outputs of an attempt are to go to their places.
    pub(super) fn begin_publishing(&mut self, attempt: AttemptId, name: &TaskName, stopped: bool) {
        if self.is_join(name) {
            self.begin_joining(attempt, name, stopped);
        } else {
            self.later((1, 50), Deed::Publish(attempt));
        }
    }

    /// Joins whose tasks have ended are told, sooner or later.
    pub(super) fn end_joins(&mut self) {
        let over = self.joining.extract_if(.., |_, inner| self.cells.contains_key(inner));
        for attempt in over.map(|(attempt, _)| attempt).collect::<Vec<_>>() {
            let wait = self.chance_of_program.span(0, 60);
            self.after(wait, Deed::Publish(attempt));
        }
    }

    /// A join is not waited for any more.
    pub(super) fn give_up_join(&mut self, id: AttemptId, class: FailureClass) -> Option<Event> {
        self.joining.remove(&id);
        self.attempts.get(&id)?;
        let mark = match class {
            FailureClass::Permanent => Mark::JoinCancelled,
            _ => Mark::JoinGivenUp,
        };
        self.marks.hit(mark);
        let failure = failure(class, "its task is not waited for");
        Some(self.fail(id, Event::PublishFailed { attempt: id, failure }))
    }

    /// Nothing more is begun, and so nobody knows whether the tasks of joins ever are.
    pub(super) fn give_up_joins(&mut self) {
        for attempt in self.joining.keys().copied().collect::<Vec<_>>() {
            self.after(0, Deed::GiveUp(attempt, FailureClass::Transient));
        }
    }

    /// Somebody wants any one of the tasks not to be done.
    pub(super) fn cancel(&mut self, core: &Core) -> Option<Event> {
        let total = core.counts().total as usize;
        if total == 0 {
            return None;
        }
        let any = TaskId(u32::try_from(self.chance.below(total)).unwrap());
        // What is rare is to be met.
        let in_line = self.lines.values().flatten().next();
        let rare = self.joining.keys().next().or(in_line).map(|attempt| attempt.task);
        let task = rare.filter(|_| self.chance_of_program.one_in(2)).unwrap_or(any);
        self.marks.hit(Mark::Cancelled);
        let joining = self.joining.keys().find(|attempt| attempt.task == task).copied();
        if let Some(attempt) = joining {
            self.after(0, Deed::GiveUp(attempt, FailureClass::Permanent));
        }
        Some(Event::TaskCancelled { task })
    }

    /// The value that an attempt leaves, or why it has none.
    pub(super) fn value(&mut self, id: AttemptId, salt: u32) -> Result<Option<Digest>, Failure> {
        let attempt = &self.attempts[&id];
        let (name, key) = (&attempt.spec.name, attempt.key);
        let program = self.plan.program.as_ref();
        let value = match program.and_then(|program| program.joined(name)) {
            None => value_of(&attempt.spec, &key.to_string(), salt),
            Some(inner) => {
                let Some(Ok(value)) = self.cells.get(inner) else {
                    self.marks.hit(Mark::JoinFailed);
                    return Err(failure(FailureClass::Permanent, "its task has no value"));
                };
                self.marks.hit(Mark::Joined);
                *value
            }
        };
        self.values.extend(value);
        Ok(value)
    }

    pub(super) fn is_join(&self, task: &str) -> bool {
        self.plan.program.as_ref().is_some_and(|program| program.joins.contains_key(task))
    }

    /// What the futures of a task are told: how it ended first.
    pub(super) fn tell_cell(&mut self, fact: &Fact) {
        let (task, ended) = match fact {
            Fact::Completed { task, record, .. } | Fact::Reused { task, record, .. } => {
                (task, Ok(record.value))
            }
            Fact::Failed { task, .. } | Fact::Skipped { task, .. } => (task, Err(())),
            _ => return,
        };
        let first = *self.cells.entry(task.clone()).or_insert(ended);
        self.marks.hit_if(ended.is_ok() && first.is_ok() && first != ended, Mark::LeftAnotherValue);
    }
}

/// What a function leaves: decided by its key; by its name if it is dull.
pub(super) fn value_of(spec: &TaskSpec, key: &str, salt: u32) -> Option<Digest> {
    let Command::Function { name, .. } = &spec.command else { return None };
    let cause = if name.starts_with("dull") { &*spec.name } else { key };
    Some(Digest::of(format!("value {cause} {salt}").as_bytes()))
}

impl Life<'_, '_> {
    /// The program submits tasks: all of them, or, if one cannot be, each of the others.
    pub(super) fn submit(
        &mut self,
        core: &mut Core,
        mut batch: Vec<TaskSpec>,
        actions: &mut Vec<Action>,
    ) {
        batch.retain(|spec| !is_inner(&spec.name) || core.graph().find(&spec.name).is_none());
        self.world.tell("submit", &batch.iter().map(|spec| &spec.name).collect::<Vec<_>>());
        let marks = &mut *self.world.marks;
        let counts = core.counts();
        marks.hit_if(counts.running > 0, Mark::SubmittedWhileRunning);
        marks.hit_if(counts.running > 0 && self.oracle.flushed > 0, Mark::SubmittedAfterCrash);
        marks.hit_if(self.oracle.stopped, Mark::SubmittedWhileStopping);
        let ended = |spec: &TaskSpec, phase: fn(Phase) -> bool| {
            let mut taken = spec.takes.iter().filter_map(|name| core.graph().find(name));
            taken.any(|task| phase(core.phase(task)))
        };
        for spec in &batch {
            marks.hit_if(ended(spec, |phase| phase == Phase::Done), Mark::TookWhatWasDone);
            let broken = |phase| matches!(phase, Phase::Failed | Phase::Skipped);
            marks.hit_if(ended(spec, broken), Mark::TookWhatHadFailed);
        }
        let before = (core.graph().tasks().len(), counts, actions.len());
        let Err((_, back)) = core.submit(self.world.now, batch.clone(), actions) else { return };
        assert_eq!(back, batch, "what is refused is given back");
        let after = (core.graph().tasks().len(), core.counts(), actions.len());
        assert_eq!(before, after, "what is refused leaves nothing behind");
        self.world.marks.hit(Mark::SubmissionRefused);
        if batch.len() > 1 {
            for spec in batch {
                self.submit(core, vec![spec], actions);
            }
        }
    }
}

impl Oracle {
    /// Whoever runs has what it needs: all that is before it was done, in this life of the engine.
    pub(super) fn check_before(spec: &TaskSpec, makers: &[TaskName], world: &World<'_>) {
        for before in spec.before().chain(makers) {
            let ended = world.cells.get(before);
            assert!(matches!(ended, Some(Ok(_))), "{} runs, and {before} {ended:?}", spec.name);
        }
    }

    /// What was cancelled never begins again.
    pub(super) fn check_cancelled(&self, fact: &Fact) {
        if let Fact::AttemptStarted { task, .. } = fact {
            assert!(!self.cancelled.contains(task), "{task} begins although it was cancelled");
        }
    }

    /// A run is over that somebody interfered with: still each of its tasks has ended.
    pub(super) fn check_all_ended(outcome: RunOutcome, world: &World<'_>, core: &Core) {
        if !world.plan.options.keep_going {
            return;
        }
        for (at, node) in core.graph().tasks().iter().enumerate() {
            let phase = core.phase(TaskId(u32::try_from(at).unwrap()));
            assert!(phase.is_final(), "{} is {phase:?}, and the run {outcome:?}", node.spec.name);
            assert!(world.cells.contains_key(&node.spec.name), "{} was told of", node.spec.name);
        }
        for spec in &world.plan.tasks {
            assert!(core.graph().find(&spec.name).is_some(), "{} was submitted", spec.name);
        }
    }
}
