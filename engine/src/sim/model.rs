//! What an undisturbed, serial run would do: the recursive model that the oracle compares with.

use std::collections::BTreeMap;

use super::plan::{Fate, Growth, Plan, SourceFate, TOO_MUCH, source_digest, source_name};
use super::program::value_of;
use crate::{
    Command, Content, Digest, InputSpec, Kind, MemoKey, RunOutcome, Source, TaskName, TaskSpec,
    memo_key,
};

/// How a task ends under `keep_going`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    Failed,
    /// It needs a task that fails or is skipped, or says itself that it is to be skipped.
    Skipped,
    /// Its own input cannot be had and a task before it fails: whichever is known first.
    FailedOrSkipped,
}

#[derive(Debug)]
pub(super) struct Model<'a> {
    plan: &'a Plan,
    versions: BTreeMap<String, u32>,
    writers: BTreeMap<&'a str, &'a TaskSpec>,
    by_name: BTreeMap<&'a str, &'a TaskSpec>,
    endings: BTreeMap<TaskName, Ending>,
    keys: BTreeMap<TaskName, MemoKey>,
}

pub(super) fn content(digest: Digest, kind: Kind) -> Content {
    Content { digest, bytes: u64::from(digest.as_bytes()[0]) + 1, kind }
}

/// What a task writes to an output: a function of its key (dull ones: of their name).
pub(super) fn written(spec: &TaskSpec, key: MemoKey, at: usize, salt: u32) -> Option<Content> {
    let output = &spec.outputs[at];
    let coin = Digest::of(format!("{}{}", spec.name, output.path).as_bytes());
    if output.optional && coin.as_bytes()[0] < 128 {
        return None;
    }
    let script = match &spec.command {
        Command::Shell { script, .. } => script,
        Command::Function { name, .. } => name,
        Command::Argv(_) | Command::Template { .. } => panic!("plans have scripts and functions"),
    };
    let cause = if script.starts_with("dull") { spec.name.to_string() } else { key.to_string() };
    let bytes = format!("{cause} {} {salt}", output.path);
    Some(content(Digest::of(bytes.as_bytes()), output.kind))
}

/// What lies in a directory at `path`.
pub(super) fn inner(directory: Content, path: &str) -> Content {
    content(Digest::of(format!("{}/{path}", directory.digest).as_bytes()), Kind::File)
}

impl<'a> Model<'a> {
    pub(super) fn new(plan: &'a Plan, versions: BTreeMap<String, u32>) -> Self {
        let mut model = Self {
            plan,
            versions,
            writers: BTreeMap::new(),
            by_name: BTreeMap::new(),
            endings: BTreeMap::new(),
            keys: BTreeMap::new(),
        };
        for spec in plan.all() {
            model.by_name.insert(spec.name.as_ref(), spec);
            for output in &spec.outputs {
                model.writers.insert(output.path.as_ref(), spec);
            }
        }
        for spec in &plan.tasks {
            model.ending(spec);
        }
        for (name, growth) in &plan.growth {
            if let (Growth::Tasks(tasks), Some(Ending::Done)) = (growth, model.endings.get(name)) {
                for spec in tasks {
                    model.ending(spec);
                }
            }
        }
        model
    }

    /// All tasks that there will be, with their ends.
    pub(super) fn endings(&self) -> &BTreeMap<TaskName, Ending> {
        &self.endings
    }

    /// How the run may end.
    pub(super) fn outcomes(&self) -> &'static [RunOutcome] {
        let doubtful = self.endings.values().any(|ending| *ending == Ending::FailedOrSkipped);
        let failed = self.endings.values().any(|ending| *ending == Ending::Failed);
        match (failed || self.aftermath_fails(), doubtful) {
            (true, _) => &[RunOutcome::Failed],
            // Where what it needs skips itself, nothing fails if that is known first.
            (false, true) => &[RunOutcome::Failed, RunOutcome::Succeeded],
            (false, false) => &[RunOutcome::Succeeded],
        }
    }

    /// Whether a task that is done grows badly, or cannot be delivered.
    fn aftermath_fails(&self) -> bool {
        let done = |name: &str| self.endings.get(name) == Some(&Ending::Done);
        let mut growth = self.plan.growth.iter();
        let mut deliveries = self.plan.undeliverable.iter();
        growth.any(|(name, growth)| done(name) && !matches!(growth, Growth::Tasks(_)))
            || deliveries.any(|(name, at)| done(name) && self.output(name, *at).is_some())
    }

    pub(super) fn key(&self, task: &str) -> Option<MemoKey> {
        self.keys.get(task).copied()
    }

    pub(super) fn output(&self, task: &str, at: usize) -> Option<Content> {
        written(self.by_name[task], self.keys[task], at, 0)
    }

    fn writer(&self, source: &Source) -> Option<&'a TaskSpec> {
        let Source::Path(path) = source else { return None };
        let around = || self.writers.get(path.strip_suffix("/inner")?);
        self.writers.get(path.as_ref()).or_else(around).copied()
    }

    fn ending(&mut self, spec: &'a TaskSpec) -> Ending {
        if let Some(ending) = self.endings.get(&spec.name) {
            return *ending;
        }
        let after = spec.before().map(|name| self.by_name[name.as_ref()]);
        let before: Vec<_> =
            after.chain(spec.inputs.iter().filter_map(|i| self.writer(&i.source))).collect();
        let before_done =
            before.into_iter().filter(|b| self.ending(b) != Ending::Done).count() == 0;
        let source_bad = spec.inputs.iter().any(|input| self.is_bad(input));
        let ending = match (before_done, source_bad) {
            (false, true) => Ending::FailedOrSkipped,
            (false, false) => Ending::Skipped,
            (true, true) => Ending::Failed,
            (true, false) => self.ending_of_its_own(spec),
        };
        self.endings.insert(spec.name.clone(), ending);
        ending
    }

    fn ending_of_its_own(&mut self, spec: &'a TaskSpec) -> Ending {
        let contents: Vec<_> = spec.inputs.iter().map(|input| self.input(input)).collect();
        if spec.options.resources.memory == TOO_MUCH {
            return Ending::Failed;
        }
        let values: Vec<_> = spec.takes.iter().map(|name| self.value(name)).collect();
        self.keys.insert(spec.name.clone(), memo_key(spec, &contents, &values));
        match self.plan.fates[&spec.name] {
            Fate::Good | Fate::Transient(_) => self.ending_of_join(spec),
            Fate::Skips => Ending::Skipped,
            Fate::Unpublishable => {
                self.ending_of_join(spec);
                Ending::Failed
            }
            Fate::Exhausts | Fate::Permanent | Fate::FailsAtOnce => Ending::Failed,
        }
    }

    /// A function that submits tasks is done when the last of them is.
    fn ending_of_join(&mut self, spec: &TaskSpec) -> Ending {
        let joins = self.plan.program.as_ref().map(|program| &program.joins);
        let Some(inner) = joins.and_then(|joins| joins.get(&spec.name)) else {
            return Ending::Done;
        };
        let endings: Vec<Ending> = inner.iter().map(|spec| self.ending(spec)).collect();
        if endings.last() == Some(&Ending::Done) { Ending::Done } else { Ending::Failed }
    }

    /// The value that a task leaves which is done.
    fn value(&self, task: &str) -> Option<Digest> {
        let program = self.plan.program.as_ref();
        match program.and_then(|program| program.joined(task)) {
            Some(inner) => self.value(inner),
            None => value_of(self.by_name[task], &self.keys[task].to_string(), 0),
        }
    }

    /// What an input of a task whose predecessors are done holds.
    pub(super) fn input(&self, input: &InputSpec) -> Option<Content> {
        let name = source_name(&input.source);
        let Some(writer) = self.writer(&input.source) else {
            let fate = self.plan.sources[&name];
            let version = self.versions.get(&name).copied().unwrap_or(0);
            let there = fate == SourceFate::Good || input.sha256.is_some();
            return there.then(|| content(source_digest(&name, version), Kind::File));
        };
        let at = writer.outputs.iter().position(|output| name.starts_with(output.path.as_ref()))?;
        let output = self.output(&writer.name, at)?;
        Some(if name == *writer.outputs[at].path { output } else { inner(output, &name) })
    }

    /// Whether a task fails for this input, whatever becomes of the others.
    fn is_bad(&self, input: &InputSpec) -> bool {
        if let Some(writer) = self.writer(&input.source) {
            let done = self.endings.get(&writer.name) == Some(&Ending::Done);
            return done && !input.optional && self.input(input).is_none();
        }
        let name = source_name(&input.source);
        let Some(fate) = self.plan.sources.get(&name) else { return false };
        match (fate, input.sha256) {
            (SourceFate::Good, Some(declared)) => declared != source_digest(&name, 0),
            (SourceFate::Good, None) => false,
            (SourceFate::Missing, None) => !input.optional,
            (SourceFate::Missing | SourceFate::Broken, _) => true,
        }
    }
}
