//! Random workflows, and what will happen to each of their tasks and sources.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::chance::Chance;
use super::checkpoints;
use super::program::{Program, make_program};
use crate::core::{Admission, Options, Pool};
use crate::{
    Command, Digest, Exit, FailureClass, FailureKind, InputSpec, Kind, Memoize, MemoryGrowth,
    OutputSpec, Resources, Response, RetryRule, Source, TaskName, TaskSpec, Work,
};

/// How a task's attempts end, whatever else happens to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Good,
    /// Fails so often (no more than it may), then succeeds.
    Transient(u32),
    /// Fails transiently each time.
    Exhausts,
    Permanent,
    /// Runs well, but its outputs cannot be published.
    Unpublishable,
    /// Ends with [`FINAL`].
    FailsAtOnce,
    /// Ends with [`SKIPS`].
    Skips,
}

/// Exit codes that mean something wherever a task has [`rules`]: it fails at once;
pub(super) const FINAL: i32 = 2;
/// it is skipped;
pub(super) const SKIPS: i32 = 77;
/// it costs half a retry;
pub(super) const HALF: i32 = 70;
/// it costs nothing;
pub(super) const FREE: i32 = 75;
/// it is tried again, although its class is permanent.
pub(super) const NOT_FOUND: i32 = 127;
/// What an attempt that was lost costs then, in thousandths.
pub(super) const LOSS_COST: u32 = 10;

pub(super) fn rules() -> Arc<[RetryRule]> {
    let code = |code| FailureKind::Exit(Exit::Code(code));
    let lost = FailureKind::Class(FailureClass::InfrastructureLost);
    let rules = [
        (code(SKIPS), Response::Skip),
        (code(FINAL), Response::Fail),
        (code(HALF), Response::Retry { cost: 500 }),
        (code(FREE), Response::Retry { cost: 0 }),
        (code(NOT_FOUND), Response::Retry { cost: 1_000 }),
        (lost, Response::Retry { cost: LOSS_COST }),
    ];
    rules.map(|(on, then)| RetryRule { on, then }).into()
}

/// What there is at a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceFate {
    Good,
    Missing,
    Broken,
}

#[derive(Debug, Clone)]
pub(super) enum Growth {
    Tasks(Vec<TaskSpec>),
    /// Two tasks with one output.
    Bad(Vec<TaskSpec>),
    Fails,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) tasks: Vec<TaskSpec>,
    pub(super) growth: BTreeMap<TaskName, Growth>,
    pub(super) fates: BTreeMap<TaskName, Fate>,
    /// Memory that tasks truly need, where it may be more than they ask for.
    pub(super) needs: BTreeMap<TaskName, u64>,
    pub(super) sources: BTreeMap<String, SourceFate>,
    /// Slots of the sites, HOME first.
    pub(super) sites: Vec<Vec<Pool>>,
    pub(super) options: Options,
    /// Task and output whose delivery fails.
    pub(super) undeliverable: Vec<(TaskName, usize)>,
    /// Sources change and tasks differ from attempt to attempt while the run goes on: only what
    /// holds in any world is checked.
    pub(super) restless: bool,
    /// Its tasks are submitted by a program, in their order.
    pub(super) program: Option<Program>,
}

/// A pool of the engine's own machine for those who name it, and one of each site that is not it.
pub(super) const SIDE: &str = "side";
const NODE: &str = "node";
/// The one for functions alone.
pub(super) const THREADS: &str = "threads";

/// The engine's own machine, where every task can run.
fn home(chance: &mut Chance) -> Vec<Pool> {
    let cores = u32::try_from(chance.span(1, 3)).unwrap();
    let capacity = Resources { cores, memory: 8 << 30, gpus: 2, disk: 8 << 30 };
    let mut side = Pool::new(SIDE, Resources { cores: 1, memory: 6 << 30, ..capacity });
    side.only = Some(Work::Commands);
    side.admission = Admission::WhoAsks;
    let mut functions = Pool::new(THREADS, Resources { cores: 2, ..capacity });
    functions.only = Some(Work::Functions);
    functions.ahead = 3;
    vec![Pool::new("local", capacity), side, functions]
}

/// Another machine.
pub(super) fn node(cores: u32, gib: u64) -> Pool {
    let gpus = u32::try_from(gib % 3).unwrap();
    Pool::new(NODE, Resources { cores, memory: gib << 30, gpus, disk: gib << 30 })
}

/// More than any site has.
pub(super) const TOO_MUCH: u64 = 1 << 40;

pub(super) fn source_name(source: &Source) -> String {
    match source {
        Source::Path(path) => path.to_string(),
        Source::Urls(urls) => urls[0].to_string(),
    }
}

/// Under which name a site holds it: what is declared is kept apart from what is not.
pub(super) fn held_name(source: &Source, sha256: Option<Digest>) -> String {
    let name = source_name(source);
    match sha256 {
        Some(digest) => format!("{name} {}", digest.short()),
        None => name,
    }
}

/// What a source holds in its nth version.
pub(super) fn source_digest(name: &str, version: u32) -> Digest {
    Digest::of(format!("source {name} {version}").as_bytes())
}

pub(super) fn task(name: &str, command: &str) -> TaskSpec {
    let script: Arc<str> = command.into();
    TaskSpec::new(name, Command::Shell { shell: Arc::new(["sh".to_owned()]), script })
}

pub(super) fn output(path: &str, kind: Kind, optional: bool) -> OutputSpec {
    let path: Arc<str> = path.into();
    let (label, scratch_path) = (path.clone(), path.clone());
    OutputSpec { label, path, scratch_path, kind, optional, captures: None, deliver_to: None }
}

pub(super) fn input(source: Source, kind: Kind, optional: bool) -> InputSpec {
    let name: Arc<str> = source_name(&source).replace("://", "/").into();
    InputSpec { label: name.clone(), scratch_path: name, source, sha256: None, kind, optional }
}

/// Builds a plan layer by layer; what exists so far can be read by what comes.
struct Builder {
    chance: Chance,
    plan: Plan,
    /// Paths that can be read, with kind and whether they may be absent.
    readable: Vec<(Arc<str>, Kind, bool)>,
    names: Vec<TaskName>,
    /// One in so many tasks has a bad fate; none if 0.
    trouble: usize,
}

impl Plan {
    pub(super) fn random(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let trouble = if chance.one_in(3) { 0 } else { 4 + chance.below(12) };
        let mut sites = vec![home(&mut chance)];
        for _ in 0..chance.below(4) {
            let cores = u32::try_from(chance.span(1, 2)).unwrap();
            sites.push(vec![node(cores, chance.span(2, 8))]);
        }
        let options = Options {
            open: false,
            keep_going: !chance.one_in(4),
            seed,
            stage_retries: u32::try_from(chance.span(0, 2)).unwrap(),
            transfers_max: chance.one_in(2).then_some(1 + u32::try_from(seed % 3).unwrap()),
            ahead_after: 1,
        };
        let plan = Self {
            tasks: Vec::new(),
            growth: BTreeMap::new(),
            fates: BTreeMap::new(),
            needs: BTreeMap::new(),
            sources: BTreeMap::new(),
            sites,
            options,
            undeliverable: Vec::new(),
            restless: chance.one_in(5),
            program: None,
        };
        let (readable, names) = (Vec::new(), Vec::new());
        let mut builder = Builder { chance, plan, readable, names, trouble };
        for layer in 0..builder.chance.span(1, 5) {
            let width = builder.chance.span(1, 9);
            let made = (0..width).map(|at| builder.task(&format!("t{layer}.{at}"), true));
            let made: Vec<TaskSpec> = made.collect();
            builder.add(&made);
            builder.plan.tasks.extend(made);
        }
        if builder.chance.one_in(6) {
            builder.fan();
        }
        if builder.chance.one_in(3) {
            let gather = builder.gather();
            builder.plan.tasks.push(gather);
        }
        make_program(seed, &mut builder.plan);
        if builder.plan.program.is_none() {
            builder.chance.shuffle(&mut builder.plan.tasks);
        }
        builder.plan
    }

    /// All tasks that there can ever be.
    pub(super) fn all(&self) -> Vec<&TaskSpec> {
        let grown = self.growth.values().filter_map(|growth| match growth {
            Growth::Tasks(tasks) => Some(tasks),
            _ => None,
        });
        let joins = self.program.iter().flat_map(|program| program.joins.values());
        self.tasks.iter().chain(grown.flatten()).chain(joins.flatten()).collect()
    }
}

impl Builder {
    fn add(&mut self, made: &[TaskSpec]) {
        for spec in made {
            self.names.push(spec.name.clone());
            for output in &spec.outputs {
                self.readable.push((output.path.clone(), output.kind, output.optional));
            }
        }
    }

    /// More readers of one file than any site has room for.
    fn fan(&mut self) {
        for at in 0..16 {
            let mut spec = task(&format!("fan{at}"), &format!("make fan{at}"));
            let (hub, output) = ("o/fan0.0", output(&format!("o/fan{at}.0"), Kind::File, false));
            if at > 0 {
                spec.inputs.push(input(Source::Path(hub.into()), Kind::File, false));
            }
            spec.outputs.push(output);
            self.plan.fates.insert(spec.name.clone(), Fate::Good);
            self.plan.tasks.push(spec);
        }
    }

    /// Reads everything there is so far.
    fn gather(&mut self) -> TaskSpec {
        let mut spec = task("gather", "gather");
        for (path, kind, _) in self.readable.clone() {
            spec.inputs.push(input(Source::Path(path), kind, true));
        }
        spec.outputs.push(output("o/gather", Kind::File, false));
        self.plan.fates.insert(spec.name.clone(), Fate::Good);
        spec
    }

    fn task(&mut self, name: &str, may_grow: bool) -> TaskSpec {
        // Tasks that ignore their inputs write the same bytes whatever they read.
        let dull = if self.chance.one_in(4) { "dull" } else { "make" };
        let mut spec = task(name, &format!("{dull} {name}"));
        for _ in 0..self.chance.below(4) {
            let next = self.input();
            if !spec.inputs.iter().any(|input| input.scratch_path == next.scratch_path) {
                spec.inputs.push(next);
            }
        }
        if !self.names.is_empty() && self.chance.one_in(6) {
            let at = self.chance.below(self.names.len());
            spec.after.push(self.names[at].clone());
        }
        for at in 0..self.chance.span(0, 2) {
            let directory = self.chance.one_in(if self.plan.restless { 2 } else { 6 });
            let kind = if directory { Kind::Directory } else { Kind::File };
            let optional = self.chance.one_in(5);
            let mut output = output(&format!("o/{name}.{at}"), kind, optional);
            if self.chance.one_in(if self.plan.restless { 2 } else { 12 }) {
                output.deliver_to = Some(format!("s3://bucket/{name}.{at}").into());
                if self.trouble > 0 && self.chance.one_in(6) {
                    self.plan.undeliverable.push((spec.name.clone(), spec.outputs.len()));
                }
            }
            spec.outputs.push(output);
        }
        self.behave(&mut spec);
        if may_grow && self.chance.one_in(10) {
            spec.options_mut().generates = true;
            let growth = self.growth(name);
            self.plan.growth.insert(spec.name.clone(), growth);
        }
        spec
    }

    fn behave(&mut self, spec: &mut TaskSpec) {
        let chance = &mut self.chance;
        spec.options_mut().resources.cores = if chance.one_in(4) { 2 } else { 1 };
        if chance.one_in(15) {
            spec.options_mut().resources.cores = 9;
        }
        spec.options_mut().resources.memory = chance.span(0, 5) << 30;
        spec.options_mut().resources.gpus =
            if chance.one_in(6) { 1 + u32::from(chance.one_in(3)) } else { 0 };
        spec.options_mut().resources.disk =
            if chance.one_in(4) { chance.span(0, 5) << 30 } else { 0 };
        spec.options_mut().priority = [0, 0, 0, 0, 5, -5][chance.below(6)];
        let labels: &[&str] = match chance.below(12) {
            0 => &[SIDE],
            1 => &[SIDE, "local"],
            2 => &[NODE, SIDE],
            3 => &["local", SIDE, NODE],
            _ => &[],
        };
        spec.options_mut().executors = labels.iter().map(|label| Arc::from(*label)).collect();
        if chance.one_in(5) {
            // It needs more than it asks for, though no more than one site has that stays.
            let factor = u32::try_from(chance.span(1_200, 3_000)).unwrap();
            spec.options_mut().resources.memory = chance.span(1, 3) << 30;
            spec.options_mut().memory_growth =
                Some(MemoryGrowth { factor, max: chance.one_in(2).then_some(7 << 30) });
            self.plan.needs.insert(spec.name.clone(), chance.span(1, 6) << 30);
        }
        Arc::make_mut(&mut spec.options_mut().retry).retries =
            u32::try_from(chance.below(4)).unwrap();
        Arc::make_mut(&mut spec.options_mut().retry).backoff_min = Duration::from_millis(40);
        spec.options_mut().memoize = match chance.below(8) {
            0 => Memoize::Off,
            1 => Memoize::Refresh,
            2 => Memoize::ReadOnly,
            _ => Memoize::On,
        };
        let has_rules = chance.one_in(2);
        let mut fate = Fate::Good;
        if spec.options.retry.retries > 0 && chance.one_in(3) {
            fate = Fate::Transient(
                u32::try_from(chance.span(1, spec.options.retry.retries.into())).unwrap(),
            );
        }
        if self.trouble > 0 && chance.one_in(self.trouble) {
            match chance.below(if has_rules { 5 } else { 4 }) {
                0 => fate = Fate::Exhausts,
                1 => fate = Fate::Unpublishable,
                4 => fate = Fate::FailsAtOnce,
                2 => spec.options_mut().resources.memory = TOO_MUCH,
                _ => fate = Fate::Permanent,
            }
        }
        if has_rules {
            Arc::make_mut(&mut spec.options_mut().retry).rules = rules();
            // Losses cost something too, which is not to be what it fails of.
            Arc::make_mut(&mut spec.options_mut().retry).retries += 1;
            if fate == Fate::Good && chance.one_in(12) {
                fate = Fate::Skips;
            }
        }
        spec.options_mut().checkpoint =
            checkpoints::of_task(self.plan.options.seed, spec).map(Arc::new);
        self.plan.fates.insert(spec.name.clone(), fate);
    }

    fn input(&mut self) -> InputSpec {
        if self.readable.is_empty() || self.chance.one_in(3) {
            return self.source();
        }
        let at = self.chance.below(self.readable.len());
        let (path, kind, may_be_absent) = self.readable[at].clone();
        let optional = if self.trouble > 0 { self.chance.one_in(3) } else { may_be_absent };
        let whole = if self.plan.restless { 8 } else { 2 };
        if kind == Kind::Directory && !self.chance.one_in(whole) {
            return input(Source::Path(format!("{path}/inner").into()), Kind::File, optional);
        }
        input(Source::Path(path), kind, optional)
    }

    fn source(&mut self) -> InputSpec {
        let number = self.chance.below(9);
        let remote = number < 5;
        let name = if remote {
            format!("http://host{}/{number}", number % 2)
        } else {
            format!("in/{number}")
        };
        let bad = self.trouble > 0 && self.chance.one_in(self.trouble);
        let fate = if !bad {
            SourceFate::Good
        } else if self.chance.one_in(2) {
            SourceFate::Missing
        } else {
            SourceFate::Broken
        };
        let fate = *self.plan.sources.entry(name.clone()).or_insert(fate);
        let source = if remote {
            Source::Urls(Arc::new([name.as_str().into()]))
        } else {
            Source::Path(name.as_str().into())
        };
        let optional = self.chance.one_in(4) || self.trouble == 0 && fate == SourceFate::Missing;
        let mut input = input(source, Kind::File, optional);
        // Remote sources with even numbers do not change, so that they can be declared.
        if remote && number.is_multiple_of(2) && self.chance.one_in(2) {
            let wrong = self.trouble > 0 && self.chance.one_in(8);
            input.sha256 = Some(source_digest(&name, u32::from(wrong) * 99));
        }
        input
    }

    fn growth(&mut self, by: &str) -> Growth {
        if self.trouble > 0 && self.chance.one_in(5) {
            if self.chance.one_in(2) {
                return Growth::Fails;
            }
            let mut tasks = vec![task(&format!("{by}.x"), "x"), task(&format!("{by}.y"), "y")];
            for spec in &mut tasks {
                spec.outputs.push(output(&format!("o/{by}.twice"), Kind::File, false));
            }
            return Growth::Bad(tasks);
        }
        let before = (self.readable.clone(), self.names.clone());
        let mut tasks: Vec<TaskSpec> = Vec::new();
        for at in 0..self.chance.span(1, 5) {
            let spec = self.task(&format!("{by}+{at}"), false);
            self.add(std::slice::from_ref(&spec));
            tasks.push(spec);
        }
        // Only what is there from the beginning can be read by what is there from the beginning.
        (self.readable, self.names) = before;
        self.chance.shuffle(&mut tasks);
        Growth::Tasks(tasks)
    }
}
