//! What must hold whatever happens: checked where the core acts, and where a run ends.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::Mark;
use super::model::{Ending, Model};
use super::plan::{FINAL, FREE, HALF, LOSS_COST, NOT_FOUND, SKIPS, held_name, source_name};
use super::program::is_inner;
use super::world::{Attempt, World};
use crate::core::{Admission, Core, Phase, Pool};
use crate::{
    AttemptId, Digest, Exit, Fact, Failure, FailureClass, KeyPart, MemoKey, MemoRecord, Memoize,
    Reason, Resources, Reuse, RunOutcome, Shortage, SiteId, TaskId, TaskName, TaskSpec, Timestamp,
    memo_key,
};

/// What the oracle remembers of a run by itself.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// All facts of the run.
    pub(super) journal: Vec<Fact>,
    /// How many of them a power cut leaves.
    pub(super) flushed: usize,
    done: BTreeMap<TaskName, (MemoKey, MemoRecord)>,
    /// Tasks whose results this engine asked for in vain since they were done last.
    missed: BTreeMap<TaskName, MemoKey>,
    ordinals: BTreeMap<TaskName, u32>,
    /// What failures cost, in thousandths of a retry: before this engine began, and since.
    spent: BTreeMap<TaskName, (u32, u32)>,
    last_failure: BTreeMap<TaskName, (Timestamp, Failure, u32)>,
    /// Attempts in a row that this engine saw lost.
    losses: BTreeMap<TaskName, u32>,
    completed_now: Vec<TaskName>,
    skipped_by: BTreeMap<TaskName, u32>,
    /// Checkpoints of each attempt that this engine recorded.
    pub(super) saved: BTreeMap<(TaskName, u32), u32>,
    /// Attempts that went on from one.
    pub(super) restored: BTreeSet<(TaskName, u32)>,
    /// Somebody interfered: the sets of failed and skipped tasks are not the model's.
    pub(super) cancels: bool,
    pub(super) stopped: bool,
    /// Tasks that somebody did not want any more before they had ended.
    pub(super) cancelled: BTreeSet<TaskName>,
}

impl Oracle {
    /// An engine has crashed, and only the facts in the journal are left.
    pub(super) fn restart(&mut self) {
        let facts = std::mem::take(&mut self.journal);
        let cancels = self.cancels;
        *self = Self { cancels, flushed: facts.len(), ..Self::default() };
        for fact in &facts {
            self.remember(fact);
        }
        for (before, now) in self.spent.values_mut() {
            *before += std::mem::take(now);
        }
        self.completed_now.clear();
        self.skipped_by.clear();
        self.journal = facts;
    }

    fn remember(&mut self, fact: &Fact) {
        match fact {
            Fact::AttemptStarted { task, ordinal, .. } => {
                let last = self.ordinals.insert(task.clone(), *ordinal);
                assert!(last.unwrap_or(0) < *ordinal, "attempt {ordinal} of {task} is a new one");
            }
            Fact::AttemptFailed { task, cost, .. } => {
                self.spent.entry(task.clone()).or_default().1 += *cost;
            }
            Fact::Completed { task, key, record, .. } => {
                self.losses.remove(task);
                self.missed.remove(task);
                self.done.insert(task.clone(), (*key, record.clone()));
                self.completed_now.push(task.clone());
            }
            Fact::Reused { task, key, record, .. } => {
                self.losses.remove(task);
                self.last_failure.remove(task);
                self.missed.remove(task);
                self.done.insert(task.clone(), (*key, record.clone()));
            }
            Fact::Skipped { because, .. } => {
                *self.skipped_by.entry(because.clone()).or_default() += 1;
            }
            _ => {}
        }
    }

    /// A result was asked for and is not to be had. The task runs then, even if transfers for
    /// others bring all of it home while it waits for its place: whether it is there is asked
    /// once, not before each launch.
    pub(super) fn on_missed(&mut self, task: &TaskName, key: MemoKey, world: &World<'_>) {
        let known = self.done.get(task).filter(|(before, _)| *before == key);
        if !known.is_some_and(|(_, record)| world.is_whole(record)) {
            self.missed.insert(task.clone(), key);
        }
    }

    pub(super) fn on_fact(&mut self, fact: &Fact, world: &mut World<'_>, core: &Core) {
        self.remember(fact);
        self.check_cancelled(fact);
        world.tell_cell(fact);
        match fact {
            Fact::AttemptStarted { task, ordinal, reasons } => {
                world.admit(task, *ordinal, core);
                let again = reasons.contains(&Reason::ResultLost);
                world.marks.hit_if(again, Mark::ResultMadeAgain);
                self.check_wait(task, world, core);
            }
            Fact::AttemptFailed { task, failure, cost, .. } => {
                self.check_failure(task, failure, *cost, world, core);
            }
            Fact::Completed { task, key, parts, record, memoized, .. } => {
                assert_eq!(key_of(parts), *key, "{task}'s parts make its key");
                if *memoized {
                    world.memo.insert(*key, record.clone());
                }
            }
            Fact::Reused { task, reuse, memoized, .. } => {
                let spec = core.spec(core.graph().find(task).unwrap());
                assert_eq!(
                    *memoized,
                    spec.options.memoize.remembers(),
                    "{task} is memoized or not"
                );
                let read = |name: &TaskName| {
                    let outputs = &core.spec(core.graph().find(name).unwrap()).outputs;
                    let mut inputs = spec.inputs.iter().map(|input| source_name(&input.source));
                    inputs.any(|input| outputs.iter().any(|output| *output.path == *input))
                };
                let cut_off = self.completed_now.iter().any(read);
                world.marks.hit_if(cut_off && *reuse == Reuse::InPlace, Mark::EarlyCutoff);
            }
            Fact::CheckpointSaved { task, ordinal, .. } => self.check_saved(task, *ordinal, world),
            Fact::CheckpointRestored { task, ordinal, .. } => self.check_restored(task, *ordinal),
            Fact::Delivered { path, content, .. } => Self::check_delivered(path, *content, world),
            Fact::Skipped { task, because } => {
                world.marks.hit_if(task == because, Mark::SkippedItself);
            }
            Fact::Failed { task, failure } => {
                let code = code_of(failure, core.spec(core.graph().find(task).unwrap()));
                world.marks.hit_if(code == FINAL, Mark::FailedByRule);
                let used_up = failure.class == FailureClass::Transient;
                world.marks.hit_if(used_up, Mark::RetriesUsedUp);
                world
                    .marks
                    .hit_if(failure.cause == "exit status 1" && !used_up, Mark::FailedPermanently);
                world.marks.hit_if(failure.cause.contains("memory"), Mark::TooLarge);
                world.marks.hit_if(failure.cause.contains("written by"), Mark::GrowthRefused);
                world.marks.hit_if(failure.cause == "403", Mark::SourceBroken);
                assert!(core.graph().find(task).is_some(), "{task} is known");
            }
            _ => {}
        }
        let longest = self.skipped_by.values().max().copied().unwrap_or(0);
        world.marks.hit_if(longest > 3, Mark::SkippedLong);
        self.journal.push(fact.clone());
        if world.chance.one_in(4) {
            self.flushed = self.journal.len();
            self.forget_durable(world);
        }
    }

    fn check_failure(
        &mut self,
        task: &TaskName,
        failure: &Failure,
        cost: u32,
        world: &World<'_>,
        core: &Core,
    ) {
        let spec = core.spec(core.graph().find(task).unwrap());
        let expected = cost_of(failure, spec);
        let interfered = self.stopped || self.cancels;
        let is_right = cost == expected || interfered && cost == 0;
        assert!(is_right, "{failure:?} of {task} costs {expected}, not {cost}");
        let budget = spec.options.retry.retries * 1_000;
        let (before, now) = self.spent.get(task).copied().unwrap_or_default();
        // What is not more than there is leads to another try, whatever that one costs.
        let may = (budget + 1_000).saturating_sub(before).max(1_000);
        assert!(now <= may, "{task} spent {before} + {now} of {budget}");
        let class = failure.class;
        let own = !matches!(class, FailureClass::InfrastructureLost | FailureClass::InputMissing);
        self.last_failure.insert(task.clone(), (world.now, failure.clone(), cost));
        let losses = self.losses.entry(task.clone()).or_default();
        *losses = if own { 0 } else { *losses + 1 };
    }

    /// A task that failed waits before its next try.
    fn check_wait(&mut self, task: &TaskName, world: &mut World<'_>, core: &Core) {
        let Some((at, failure, cost)) = self.last_failure.remove(task) else { return };
        world.marks.hit(match failure.class {
            FailureClass::Transient => Mark::RetriedTransient,
            FailureClass::OutOfResources => Mark::RetriedOutOfResources,
            FailureClass::InfrastructureLost => Mark::RetriedInfrastructureLost,
            FailureClass::InputMissing => Mark::RetriedInputMissing,
            FailureClass::Permanent => Mark::RetriedPermanent,
        });
        let is_lost = failure.class == FailureClass::InfrastructureLost;
        world.marks.hit_if(is_lost && cost > 0, Mark::LossCharged);
        world.marks.hit_if(cost == 500, Mark::RetriedAtHalf);
        let spec = core.spec(core.graph().find(task).unwrap());
        let code = code_of(&failure, spec);
        assert!(!matches!(code, FINAL | SKIPS), "{task} was tried again after exit code {code}");
        let is_final = failure.class == FailureClass::Permanent && code != NOT_FOUND;
        assert!(!is_final, "{task} was tried again after a permanent failure");
        world.marks.hit_if(code == FREE, Mark::RetriedFree);
        let interfered = self.stopped || self.cancels;
        let grows = failure.shortage == Some(Shortage::Memory);
        world.marks.hit_if(grows, Mark::RetriedWithMore);
        if failure.exit.is_some() && !interfered {
            let waited = world.now.since(at);
            assert!(waited >= spec.options.retry.backoff_min / 2, "{task} waited only {waited:?}");
            world.marks.hit(Mark::WaitedForBackoff);
        }
        if self.losses.get(task).is_some_and(|losses| *losses > 1) {
            let waited = world.now.since(at).as_millis();
            assert!(waited >= 50, "{task} waited only {waited} ms after losses in a row");
            world.marks.hit(Mark::WaitedAfterLosses);
        }
    }

    /// A task is launched: with whole inputs, within the slots, once, and not in vain.
    pub(super) fn check_launch(
        &mut self,
        id: AttemptId,
        site: SiteId,
        world: &mut World<'_>,
        core: &Core,
        model: &Model<'_>,
    ) -> MemoKey {
        let spec = core.spec(id.task);
        let name = &spec.name;
        let last = self.ordinals.get(name).copied().unwrap_or(0);
        let is_ahead = spec.options.goes_ahead && last < id.ordinal;
        assert!(is_ahead || last == id.ordinal, "{name}'s attempt is recorded");
        let twin = world.attempts.keys().find(|other| other.task == id.task);
        assert_eq!(twin, None, "{name} runs once at a time");
        if !is_ahead {
            check_slots(id, site, world, core);
        }
        let node = core.graph().task(id.task);
        let mut contents = Vec::new();
        for (file, input) in node.inputs.iter().zip(&spec.inputs) {
            let path = source_name(&input.source);
            let believed = core.content(*file);
            let there = world
                .actual(site, &held_name(&input.source, input.sha256))
                .filter(|_| believed.is_some());
            let digest = |what: Option<crate::Content>| what.map(|what| what.digest);
            assert_eq!(digest(there), digest(believed), "{name} has {path} at {site}");
            assert!(there.is_some() || input.optional, "{name} has {path} at {site}");
            if !world.plan.restless {
                assert_eq!(
                    digest(there),
                    digest(model.input(input)),
                    "{name} reads the right {path}"
                );
            }
            let absent =
                if path.starts_with("o/") { Mark::AbsentOutput } else { Mark::AbsentSource };
            world.marks.hit_if(there.is_none(), absent);
            world.marks.hit_if(path.ends_with("/inner"), Mark::InsideDirectory);
            contents.push(there);
        }
        let makers = node.inputs.iter().filter_map(|file| core.graph().file(*file).producer);
        let makers: Vec<_> = makers.map(|maker| core.spec(maker).name.clone()).collect();
        Self::check_before(spec, &makers, world);
        let values: Vec<_> = spec.takes.iter().map(|taken| world.cells[taken].unwrap()).collect();
        let key = memo_key(spec, &contents, &values);
        assert_eq!(core.key(id.task), Some(key), "{name} runs under the key of what it reads");
        self.check_need(name, key, world, core);
        key
    }

    /// What is done runs again only if its result was lost or its key changed.
    fn check_need(&self, name: &TaskName, key: MemoKey, world: &World<'_>, core: &Core) {
        let spec = core.spec(core.graph().find(name).unwrap());
        let damaged = world.doubted.contains("memo");
        let missed = self.missed.get(name) == Some(&key);
        let memoize = spec.options.memoize;
        if matches!(memoize, Memoize::On | Memoize::ReadOnly | Memoize::Failures)
            && !missed
            && let Some(record) = world.memo.get(&key)
        {
            assert!(!world.is_whole(record), "{name} runs although its result is remembered");
        }
        let Some((before, record)) = self.done.get(name) else { return };
        if *before != key || damaged {
            return;
        }
        let there = world.is_whole(record);
        assert!(missed || !there, "{name} runs again although its result is there");
        // An attempt whose end no engine lived to record may have left other bytes.
        let lost = record.outputs.iter().any(|output| {
            let here = world.held[&SiteId::HOME].get(output.path.as_ref());
            world.doubted.contains(output.path.as_ref())
                || here.is_some() && here != output.content.as_ref()
        });
        let lost = lost || record.value.is_some_and(|value| !world.values.contains(&value));
        assert!(lost || there, "{name} runs again although nothing of its result was lost");
    }

    /// The run is over: what is done is what could be done.
    pub(super) fn check_end(
        &self,
        outcome: RunOutcome,
        world: &mut World<'_>,
        core: &Core,
        model: &Model<'_>,
    ) {
        if outcome == RunOutcome::Cancelled {
            assert!(self.stopped, "nobody asked for the end");
            return;
        }
        if world.plan.restless || self.cancels {
            return Self::check_all_ended(outcome, world, core);
        }
        let expected = model.outcomes();
        let well = expected == [RunOutcome::Succeeded];
        let failed = self.journal.iter().filter(|fact| matches!(fact, Fact::Failed { .. }));
        let failed: Vec<_> = failed.collect();
        assert!(expected.contains(&outcome), "{outcome:?}, not {expected:?}; {failed:?}");
        let exact = world.plan.options.keep_going || well;
        world.marks.hit_if(!exact, Mark::FailedFast);
        for (at, node) in core.graph().tasks().iter().enumerate() {
            let name = &node.spec.name;
            let phase = core.phase(TaskId(u32::try_from(at).unwrap()));
            let ending = model.endings()[name];
            let agrees = match phase {
                Phase::Done => ending == Ending::Done,
                Phase::Failed => matches!(ending, Ending::Failed | Ending::FailedOrSkipped),
                Phase::Skipped => matches!(ending, Ending::Skipped | Ending::FailedOrSkipped),
                _ => !exact,
            };
            assert!(agrees, "{name} is {phase:?} where the model says {ending:?}; {failed:?}");
            if phase == Phase::Done {
                assert_eq!(core.key(TaskId(u32::try_from(at).unwrap())), model.key(name));
                for (out, file) in node.outputs.iter().enumerate() {
                    let (left, right) = (core.content(*file), model.output(name, out));
                    assert_eq!(left, right, "{name} left what a serial run leaves");
                }
            }
        }
        if exact {
            let known = core.graph().tasks().iter().filter(|node| !is_inner(&node.spec.name));
            let expected = model.endings().keys().filter(|name| !is_inner(name));
            assert_eq!(known.count(), expected.count(), "all tasks are there");
        }
    }
}

fn check_slots(id: AttemptId, site: SiteId, world: &mut World<'_>, core: &Core) {
    let (spec, held, number) = (core.spec(id.task), core.held(id.task), core.pool(id.task));
    let pool = world.pools[&site][usize::from(number)].clone();
    let here = |a: &&Attempt| a.site == site && a.pool == number && !a.publishing;
    let running: Vec<&Attempt> = world.attempts.values().filter(here).collect();
    let before = running.iter().fold(Resources::NONE, |all, attempt| all.and(attempt.held));
    assert!(before.and(held).fits(pool.capacity), "{held:?} in {pool:?} beside {before:?}");
    let gpus = core.gpus(id.task);
    assert_eq!(gpus.len(), held.gpus as usize, "{} has its GPUs", spec.name);
    let shared = running.iter().flat_map(|attempt| &attempt.gpus).find(|gpu| gpus.contains(gpu));
    assert_eq!(shared, None, "no two tasks share a GPU");
    world.marks.hit_if(before.gpus > 0 && held.gpus > 0, Mark::GpusBesideOthers);
    assert!(gpus.iter().all(|gpu| *gpu < pool.capacity.gpus), "{} has GPUs that are", spec.name);

    let asked = Resources {
        cores: spec.options.resources.cores.min(pool.capacity.cores),
        ..spec.options.resources
    };
    let grown = Resources { memory: held.memory.max(asked.memory), ..asked };
    let is_right = held == asked || spec.options.memory_growth.is_some() && held == grown;
    assert!(is_right, "{} asks for {asked:?}, and has {held:?}", spec.name);
    let fits = pool.only.is_none_or(|only| only == spec.command.work());
    assert!(fits, "{} runs where its kind does", spec.name);
    let may = match spec.options.executors.as_ref() {
        [] => pool.admission == Admission::Anyone,
        labels => labels.contains(&pool.label),
    };
    assert!(
        may,
        "{} runs in one of {:?}, not in {}",
        spec.name, spec.options.executors, pool.label
    );
    let choice = spec.options.executors.iter().position(|label| *label == pool.label);
    world.marks.hit_if(choice == Some(0), Mark::FirstChoice);
    world.marks.hit_if(choice > Some(0), Mark::OtherChoice);

    check_turn(id, (site, number), &pool, before, world, core);
    world.marks.hit_if(spec.options.resources.cores > pool.capacity.cores, Mark::AloneOnItsSite);
    let passed = (0..id.task.0).any(|t| core.phase(TaskId(t)) == Phase::Queued(site));
    world.marks.hit_if(passed, Mark::PassedOver);
}

/// Nobody who waited there already, goes before it and would have fitted still waits.
fn check_turn(
    id: AttemptId,
    place: (SiteId, u16),
    pool: &Pool,
    before: Resources,
    world: &mut World<'_>,
    core: &Core,
) {
    let turn = |task: TaskId| (std::cmp::Reverse(core.spec(task).options.priority), task);
    let elsewhere = world.queued.get(&id.task).is_some_and(|other| *other != place);
    world.marks.hit_if(elsewhere, Mark::TakenOver);
    for (&other, at) in &world.queued {
        let waits = core.phase(other) == Phase::Queued(place.0) && core.pool(other) == place.1;
        let is_fixed = core.spec(other).options.memory_growth.is_none();
        if *at != place || !waits || !is_fixed || turn(other) > turn(id.task) {
            continue;
        }
        let resources = core.spec(other).options.resources;
        let share = Resources { cores: resources.cores.min(pool.capacity.cores), ..resources };
        let fits = before.and(share).fits(pool.capacity);
        assert!(!fits, "{} goes before {}", core.spec(other).name, core.spec(id.task).name);
    }
    let urgent = core.spec(id.task).options.priority > 0;
    let overtaken = world.queued.iter().any(|(other, at)| *at == place && *other < id.task);
    world.marks.hit_if(urgent && overtaken, Mark::UrgentFirst);
}

/// Whether somebody said what is to follow from the exit codes of this task.
fn is_answered(failure: &Failure, spec: &TaskSpec) -> bool {
    !spec.options.retry.rules.is_empty() || failure.response.is_some()
}

/// The exit code of a failure, where the task's rules know it; 0 where not.
fn code_of(failure: &Failure, spec: &TaskSpec) -> i32 {
    match failure.exit {
        Some(Exit::Code(code)) if is_answered(failure, spec) => code,
        _ => 0,
    }
}

/// What a failure costs, in thousandths of a retry.
fn cost_of(failure: &Failure, spec: &TaskSpec) -> u32 {
    match (code_of(failure, spec), failure.class) {
        // Whoever needs more is given more in these plans, before there is no more.
        _ if failure.shortage == Some(Shortage::Memory) => 0,
        (FINAL | SKIPS | FREE, _) => 0,
        (HALF, _) => 500,
        (NOT_FOUND, _) => 1_000,
        (_, FailureClass::InfrastructureLost) if is_answered(failure, spec) => LOSS_COST,
        (_, FailureClass::Transient | FailureClass::OutOfResources) => 1_000,
        _ => 0,
    }
}

/// The memo key that these parts make, by the documented format.
fn key_of(parts: &[KeyPart]) -> MemoKey {
    let mut bytes = b"keelboat-memo-key\0\x01".to_vec();
    for part in parts {
        bytes.push(1);
        for text in [&part.name, &part.value] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
    }
    MemoKey(Digest::of(&bytes))
}
