//! What is to be done: tasks with their files, as text and numbers.
//!
//! Deliberately absent: templates and file formats. Every text here is final: rendered, quoted,
//! normalized. Paths are UTF-8, `/`-separated, relative to the project directory or absolute,
//! without `.` or empty components.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Digest, RetryPolicy, TaskName};

/// Whether a path holds a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory, with all below it.
    Directory,
}

/// What a file or directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 of the bytes, or the [tree digest](crate::tree_digest).
    pub digest: Digest,
    /// Bytes of the file, or of all files below the directory.
    pub bytes: u64,
    /// Which of the two it is.
    pub kind: Kind,
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A path; when a task's output has the same path, that task comes first.
    Path(Arc<str>),
    /// One remote file at one or more addresses, to be tried in this order.
    Urls(Arc<[Arc<str>]>),
}

/// One file or directory that a task reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// The name in the workflow file (`reads`); inputs of a list share it.
    pub label: Arc<str>,
    /// Where it appears in the task's scratch directory: relative, never with `..`.
    pub scratch_path: Arc<str>,
    /// Where it comes from.
    pub source: Source,
    /// The digest that it must have.
    pub sha256: Option<Digest>,
    /// File or directory.
    pub kind: Kind,
    /// Whether the task also runs without it.
    pub optional: bool,
}

/// What a command prints on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name, which is also the label of the output that it becomes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One file or directory that a task writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// The name in the workflow file (`bam`); outputs of a list share it.
    pub label: Arc<str>,
    /// Where it appears after success.
    pub path: Arc<str>,
    /// Where the task writes it in its scratch directory: relative, never with `..`.
    pub scratch_path: Arc<str>,
    /// File or directory.
    pub kind: Kind,
    /// Whether the task may leave it out.
    pub optional: bool,
    /// What the command prints, which becomes this file; `None`: the task writes it itself.
    pub captures: Option<Stream>,
    /// An address to copy it to after success.
    pub deliver_to: Option<Arc<str>>,
}

/// Of how many processes a command consists that talk by MPI, and on how many machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranks {
    /// Machines.
    pub nodes: u32,
    /// Processes on each of them.
    pub per_node: u32,
}

impl Ranks {
    /// So many on one machine.
    pub const fn new(ranks: u32) -> Self {
        Self { nodes: 1, per_node: ranks }
    }

    /// All of them.
    pub const fn total(self) -> u32 {
        self.nodes.saturating_mul(self.per_node)
    }

    /// What two of three numbers say, or one of them of one machine.
    ///
    /// # Errors
    /// They do not agree, or say nothing.
    pub fn of(
        nodes: Option<u32>,
        ranks: Option<u32>,
        per_node: Option<u32>,
    ) -> Result<Self, String> {
        let on = nodes.unwrap_or(1).max(1);
        let made = match (ranks, per_node) {
            (_, Some(per_node)) => Self { nodes: on, per_node },
            (Some(ranks), None) => Self { nodes: on, per_node: ranks / on },
            (None, None) => return Err("it does not say how many ranks there are".to_owned()),
        };
        match ranks {
            Some(ranks) if ranks != made.total() => Err(match per_node {
                Some(each) => format!("{ranks} ranks are not {each} on each of {on} nodes"),
                None => format!("{ranks} ranks cannot be spread evenly over {on} nodes"),
            }),
            _ if made.total() == 0 => Err("there must be at least one rank".to_owned()),
            _ => Ok(made),
        }
    }

    /// The same, where there is one machine.
    ///
    /// # Errors
    /// They are on several.
    pub fn on_this_machine(self) -> Result<Self, String> {
        if self.nodes == 1 {
            return Ok(self);
        }
        let (nodes, total) = (self.nodes, self.total());
        Err(format!(
            "{nodes} nodes are asked for, and each executor here is on this one machine: let the \
             {total} ranks run on one node"
        ))
    }
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A script, given to a shell as the last argument.
    Shell {
        /// The shell and its flags, such as `/bin/sh -e -c`.
        shell: Arc<[String]>,
        /// The script.
        script: Arc<str>,
    },
    /// A program and its arguments; no shell.
    Argv(Arc<[String]>),
    /// One of these, whose text is made when the values are there that it is given.
    Template {
        /// The shell and its flags, for a script.
        shell: Option<Arc<[String]>>,
        /// The script, or the program and its arguments, as they are written.
        words: Arc<[String]>,
        /// By name, the digests of what it is given; what comes from tasks counts by
        /// [`TaskSpec::takes`], not here.
        arguments: Arc<[(Arc<str>, Digest)]>,
    },
    /// A function of the program that the engine is part of. It leaves a value.
    Function {
        /// Its name.
        name: Arc<str>,
        /// Digest of what it is called with; what comes from tasks counts by
        /// [`TaskSpec::takes`], not here.
        arguments: Digest,
    },
}

impl Command {
    /// Whether a value is left, besides files.
    pub const fn leaves_value(&self) -> bool {
        matches!(self, Self::Function { .. })
    }
}

/// What kind of work a pool of slots does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Commands, as processes of their own.
    Commands,
    /// Functions of the program that the engine is part of.
    Functions,
}

impl Command {
    /// The kind of pool that it runs in.
    pub const fn work(&self) -> Work {
        match self {
            Self::Shell { .. } | Self::Argv(_) | Self::Template { .. } => Work::Commands,
            Self::Function { .. } => Work::Functions,
        }
    }
}

/// Slots of a site, or what a task takes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Processor cores.
    pub cores: u32,
    /// Memory in bytes; 0 when a task does not say.
    pub memory: u64,
    /// GPUs; no two tasks share one.
    pub gpus: u32,
    /// Room for scratch files in bytes; 0 when a task does not say.
    pub disk: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cores: 1, ..Self::NONE }
    }
}

impl Resources {
    /// Nothing.
    pub const NONE: Self = Self { cores: 0, memory: 0, gpus: 0, disk: 0 };

    /// Whether all of this is there in what is free.
    pub(crate) const fn fits(self, free: Self) -> bool {
        self.cores <= free.cores
            && self.memory <= free.memory
            && self.gpus <= free.gpus
            && self.disk <= free.disk
    }

    /// What is left without these, which are among them.
    pub(crate) const fn less(self, taken: Self) -> Self {
        Self {
            cores: self.cores - taken.cores,
            memory: self.memory - taken.memory,
            gpus: self.gpus - taken.gpus,
            disk: self.disk - taken.disk,
        }
    }

    /// These and those.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            cores: self.cores + other.cores,
            memory: self.memory + other.memory,
            gpus: self.gpus + other.gpus,
            disk: self.disk + other.disk,
        }
    }

    /// The more of each.
    pub(crate) fn largest(self, other: Self) -> Self {
        Self {
            cores: self.cores.max(other.cores),
            memory: self.memory.max(other.memory),
            gpus: self.gpus.max(other.gpus),
            disk: self.disk.max(other.disk),
        }
    }
}

/// How the memory that a task asks for grows each time that it ran out. As long as it does, running
/// out costs no retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryGrowth {
    /// By how much, in thousandths: 2000 is twice as much.
    pub factor: u32,
    /// The most in bytes, if not all that the largest site has.
    pub max: Option<u64>,
}

impl MemoryGrowth {
    /// What is asked for after so many times, where there is so much at most.
    pub(crate) fn grown(&self, first: u64, times: u32, largest: u64) -> u64 {
        let most = self.max.unwrap_or(u64::MAX).min(largest);
        let mut memory = first;
        for _ in 0..times {
            if memory >= most || self.factor <= 1_000 {
                break;
            }
            let more = u128::from(memory) * u128::from(self.factor) / 1_000;
            memory = u64::try_from(more).unwrap_or(u64::MAX).max(memory + 1).min(most);
        }
        memory
    }
}

/// Whether earlier results may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Memoize {
    /// Use them and remember new ones.
    #[default]
    On,
    /// Neither: `cache = false`.
    Off,
    /// Run, but remember the result: `--force`.
    Refresh,
    /// Use them and remember no new ones: `cache = "read-only"`.
    ReadOnly,
    /// As [`On`](Self::On), of failures too: `cache = "failures"`.
    Failures,
}

impl Memoize {
    /// Whether results are remembered for later runs.
    pub const fn remembers(self) -> bool {
        matches!(self, Self::On | Self::Refresh | Self::Failures)
    }
}

/// Whether the scratch directory of an attempt outlives it, for people to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum KeepScratch {
    /// It goes.
    #[default]
    Never,
    /// That of an attempt that failed stays until the task has another one, or succeeds.
    Failed,
    /// That of the last attempt stays.
    Always,
}

/// What a task saves for its next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSpec {
    /// The directory in its scratch directory: relative, never with `..`, apart from its inputs
    /// and outputs.
    pub directory: Arc<str>,
    /// How often it is saved while the task runs; `None`: only when an attempt ends.
    pub every: Option<Duration>,
}

/// Environment of a task, by name.
pub type Env = Arc<BTreeMap<String, String>>;

/// That of very many tasks: it takes room once.
pub fn no_env() -> Env {
    static NONE: LazyLock<Env> = LazyLock::new(Env::default);
    Arc::clone(&NONE)
}

/// What a task is given and what is no part of its memo key: it makes no difference to the result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uncounted {
    /// Names in [`TaskOptions::env`].
    pub env: BTreeSet<String>,
    /// Positions in [`TaskSpec::takes`].
    pub takes: BTreeSet<usize>,
    /// Paths in the scratch directory, of [`TaskSpec::inputs`].
    pub inputs: BTreeSet<Arc<str>>,
}

impl Uncounted {
    /// Nothing takes no room.
    pub fn shared(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}

/// What is said of a task besides what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOptions {
    /// Environment set for the task; part of its memo key.
    pub env: Env,
    /// Version of what is run, as the user declares it; part of the memo key.
    pub version: Option<Arc<str>>,
    /// The image of the container that a command runs in; part of the memo key.
    pub container: Option<Arc<str>>,
    /// Of how many processes that talk by MPI it consists; part of the memo key.
    pub ranks: Option<Ranks>,
    /// Labels of the pools that it may run in, the preferred one first; empty: any that takes
    /// whoever comes.
    pub executors: Arc<[Arc<str>]>,
    /// Of tasks that wait for the same slots those with a higher one go first, and so do the
    /// transfers that they wait for.
    pub priority: i32,
    /// Slots it takes.
    pub resources: Resources,
    /// How its memory grows, if it does.
    pub memory_growth: Option<MemoryGrowth>,
    /// The longest an attempt may run.
    pub timeout: Option<Duration>,
    /// Tries after a failure.
    pub retry: Arc<RetryPolicy>,
    /// Whether earlier results may be used.
    pub memoize: Memoize,
    /// What of all that is no part of the memo key.
    pub uncounted: Option<Arc<Uncounted>>,
    /// Whether the graph grows from what it writes.
    pub generates: bool,
    /// What it saves for its next attempt; no part of its memo key.
    pub checkpoint: Option<Arc<CheckpointSpec>>,
    /// Whether what its attempts leave in their scratch directories is kept.
    pub keep_scratch: KeepScratch,
    /// Whether it may be launched while its slots are still taken: it asks for one core and nothing
    /// else, and where it is launched it waits in line.
    pub goes_ahead: bool,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            env: no_env(),
            version: None,
            container: None,
            ranks: None,
            executors: Arc::default(),
            priority: 0,
            resources: Resources::default(),
            memory_growth: None,
            timeout: None,
            retry: RetryPolicy::none(),
            memoize: Memoize::On,
            uncounted: None,
            generates: false,
            checkpoint: None,
            keep_scratch: KeepScratch::Never,
            goes_ahead: false,
        }
    }
}

impl TaskOptions {
    /// Nothing is said: of very many tasks it takes room once.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<TaskOptions>> = LazyLock::new(Arc::default);
        Arc::clone(&NONE)
    }
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSpec {
    /// Unique in the workflow, the same in every run.
    pub name: TaskName,
    /// What is run.
    pub command: Command,
    /// Files read.
    pub inputs: Vec<InputSpec>,
    /// Files written.
    pub outputs: Vec<OutputSpec>,
    /// Names of tasks that must have succeeded first although no file passes between them.
    pub after: Vec<TaskName>,
    /// Tasks whose values it is given, in this order; they must have succeeded first.
    pub takes: Vec<TaskName>,
    /// What else is said of it; tasks of which the same is said share it.
    pub options: Arc<TaskOptions>,
}

impl TaskSpec {
    /// All tasks that must have succeeded first although no file passes between them.
    pub fn before(&self) -> impl Iterator<Item = &TaskName> {
        self.after.iter().chain(&self.takes)
    }

    /// To say something else of it.
    pub fn options_mut(&mut self) -> &mut TaskOptions {
        Arc::make_mut(&mut self.options)
    }

    /// A task with this name and command, and nothing else.
    pub fn new(name: impl Into<TaskName>, command: Command) -> Self {
        Self {
            name: name.into(),
            command,
            inputs: Vec::new(),
            outputs: Vec::new(),
            after: Vec::new(),
            takes: Vec::new(),
            options: TaskOptions::none(),
        }
    }
}
