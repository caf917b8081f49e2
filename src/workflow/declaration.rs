//! What a workflow file declares, read and checked one by one, before anything is put together.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{KeepScratch, Memoize, MemoryGrowth, Ranks, RetryPolicy, Stream, Uncounted};
use minijinja::value::{Enumerator, Object, Value};

use super::problem::Place;
use super::read_checkpoint::{Checkpoint, Checkpointing};
use super::read_retry::RuleLists;

/// A string of the file, with the place where it stands (quotes included).
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) value: Arc<str>,
    pub(super) place: Place,
}

/// One `[task.NAME]`.
#[derive(Debug)]
pub(super) struct Declaration {
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    pub(super) description: Option<Arc<str>>,
    pub(super) foreach: Vec<Dimension>,
    pub(super) inputs: Vec<Named<InputItem>>,
    pub(super) outputs: Vec<Named<OutputItem>>,
    pub(super) input_labels: Arc<[Arc<str>]>,
    pub(super) output_labels: Arc<[Arc<str>]>,
    /// Whether there are inputs or outputs that could not be read; a problem has been reported, and
    /// what is missing because of that is none of its own.
    pub(super) files_unread: bool,
    pub(super) command: CommandText,
    pub(super) after: Vec<Text>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) ranks: Option<Ranks>,
    pub(super) options: Options,
}

impl Declaration {
    /// The labels of outputs that the command writes itself, which come before the others.
    pub(super) fn written_labels(&self) -> Arc<[Arc<str>]> {
        let is_written =
            |named: &&Named<OutputItem>| named.items.iter().all(|item| item.captures.is_none());
        self.outputs.iter().take_while(is_written).map(|named| named.label.clone()).collect()
    }
}

/// What stands under one label of `inputs` or `outputs`.
#[derive(Debug)]
pub(super) struct Named<T> {
    pub(super) label: Arc<str>,
    pub(super) place: Place,
    pub(super) list: bool,
    pub(super) items: Vec<T>,
}

/// One input as declared.
#[derive(Debug)]
pub(super) struct InputItem {
    pub(super) source: InputSource,
    pub(super) sha256: Option<Text>,
    pub(super) rename: Option<Text>,
    pub(super) optional: bool,
    pub(super) directory: bool,
}

#[derive(Debug)]
pub(super) enum InputSource {
    /// A path, or one URL.
    Path(Text),
    Urls(Vec<Text>),
    /// The bytes themselves.
    Text(Text),
    /// Outputs of another task.
    From(Text),
}

/// One output as declared.
#[derive(Debug)]
pub(super) struct OutputItem {
    pub(super) path: Text,
    pub(super) to: Option<Text>,
    pub(super) optional: bool,
    pub(super) directory: bool,
    /// What the command prints, which becomes this file.
    pub(super) captures: Option<Stream>,
}

#[derive(Debug)]
pub(super) enum CommandText {
    Run(Text),
    Argv(Vec<Text>),
    /// Neither was readable; a problem has been reported.
    Unreadable,
}

/// What `[defaults]` may hold too.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) env: BTreeMap<Arc<str>, Text>,
    pub(super) cores: Option<u32>,
    pub(super) memory: Option<Memory>,
    pub(super) gpus: Option<u32>,
    pub(super) disk: Option<u64>,
    pub(super) priority: Option<i32>,
    pub(super) timeout: Option<Duration>,
    pub(super) retries: Option<u32>,
    pub(super) rules: RuleLists,
    pub(super) backoff: Option<(Duration, Duration)>,
    pub(super) cache: Option<Memoize>,
    /// Variables of `env` that make no difference.
    pub(super) ignored: Option<Vec<Text>>,
    pub(super) version: Option<Text>,
    pub(super) container: Option<ContainerText>,
    pub(super) executors: Option<Arc<[Arc<str>]>>,
    pub(super) shell: Option<Arc<[String]>>,
    pub(super) checkpointing: Checkpointing,
    pub(super) keep_scratch: Option<KeepScratch>,
    /// What follows from failures, once it was asked for.
    pub(super) policy: OnceCell<Arc<RetryPolicy>>,
}

/// What a task runs in.
#[derive(Debug, Clone)]
pub(super) enum ContainerText {
    Image(Text),
    /// `false`: in none, whatever the defaults say.
    None,
}

/// Memory that a task asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Bytes.
    pub(super) first: u64,
    pub(super) growth: Option<MemoryGrowth>,
}

impl Options {
    /// These options, and those of `defaults` where these say nothing.
    pub(super) fn over(self, defaults: &Self) -> Self {
        let mut env = self.env;
        for (name, value) in &defaults.env {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Self {
            env,
            cores: self.cores.or(defaults.cores),
            memory: self.memory.or(defaults.memory),
            gpus: self.gpus.or(defaults.gpus),
            disk: self.disk.or(defaults.disk),
            priority: self.priority.or(defaults.priority),
            timeout: self.timeout.or(defaults.timeout),
            retries: self.retries.or(defaults.retries),
            rules: self.rules.over(&defaults.rules),
            backoff: self.backoff.or(defaults.backoff),
            cache: self.cache.or(defaults.cache),
            ignored: self.ignored.or_else(|| defaults.ignored.clone()),
            version: self.version.or_else(|| defaults.version.clone()),
            container: self.container.or_else(|| defaults.container.clone()),
            executors: self.executors.or_else(|| defaults.executors.clone()),
            shell: self.shell.or_else(|| defaults.shell.clone()),
            checkpointing: self.checkpointing.over(&defaults.checkpointing),
            keep_scratch: self.keep_scratch.or(defaults.keep_scratch),
            policy: OnceCell::new(),
        }
    }

    /// Those of its variables that make no difference.
    pub(super) fn uncounted(&self) -> Option<Arc<Uncounted>> {
        let ignored = self.ignored.iter().flatten();
        let ignored = ignored.filter(|name| self.env.contains_key(&name.value));
        let env = ignored.map(|name| name.value.as_ref().to_owned()).collect();
        Uncounted { env, ..Uncounted::default() }.shared()
    }

    /// The image that it runs in.
    pub(super) fn image(&self) -> Option<&Text> {
        match &self.container {
            Some(ContainerText::Image(image)) => Some(image),
            Some(ContainerText::None) | None => None,
        }
    }

    /// What follows from failures: one for all tasks of the declaration.
    pub(super) fn retry(&self) -> Arc<RetryPolicy> {
        let policy = self.policy.get_or_init(|| {
            let standard = RetryPolicy::default();
            let (backoff_min, backoff_max) =
                self.backoff.unwrap_or((standard.backoff_min, standard.backoff_max));
            Arc::new(RetryPolicy {
                retries: self.retries.unwrap_or(standard.retries),
                backoff_min,
                backoff_max,
                rules: self.rules.rules(),
            })
        });
        Arc::clone(policy)
    }
}

/// One factor of the product that `foreach` runs over.
#[derive(Debug)]
pub(super) struct Dimension {
    /// One variable, or several that advance together.
    pub(super) variables: Vec<Variable>,
}

/// One variable of `foreach`.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    pub(super) values: Values,
}

/// Where the values of a variable come from.
#[derive(Debug)]
pub(super) enum Values {
    List(Vec<Item>),
    Table { path: Text, delimiter: u8 },
    Glob(Text),
    Range { start: i64, end: i64, step: i64 },
    Output { output: Text, json: bool },
}

/// One value of a variable.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Scalar(Scalar),
    Row(Arc<Row>),
    Path(Arc<str>),
}

/// A value without parts.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Text(Arc<str>),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Null,
}

/// A value with named columns: a line of a table, or an object.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) columns: Arc<[Arc<str>]>,
    pub(super) cells: Vec<Scalar>,
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Null => f.write_str("null"),
        }
    }
}

impl Scalar {
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(text.clone()),
            Self::Integer(number) => Value::from(*number),
            Self::Float(number) => Value::from(*number),
            Self::Bool(value) => Value::from(*value),
            Self::Null => Value::from(()),
        }
    }
}

impl Item {
    /// The value as templates see it.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Scalar(scalar) => scalar.to_value(),
            Self::Row(row) => Value::from_dyn_object(row.clone()),
            Self::Path(path) => Value::from_object(GlobMatch(path.clone())),
        }
    }
}

impl Object for Row {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        let column = self.columns.iter().position(|column| column.as_ref() == key)?;
        self.cells.get(column).map(Scalar::to_value)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.columns.iter().map(Value::from).collect())
    }
}

/// A path that a glob found; text by itself, with its parts as attributes.
#[derive(Debug)]
pub(super) struct GlobMatch(Arc<str>);

impl GlobMatch {
    /// The parts that templates may ask for.
    pub(super) const PARTS: [&'static str; 5] = ["path", "name", "stem", "ext", "dir"];

    pub(super) fn path(&self) -> &str {
        &self.0
    }
}

impl Object for GlobMatch {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let (dir, name) = self.0.rsplit_once('/').unwrap_or((".", &self.0));
        // All suffixes go: `s1.fastq.gz` is sample `s1`. A leading dot is part of the stem.
        let dot = name.char_indices().skip(1).find(|(_, c)| *c == '.').map(|(at, _)| at);
        let (stem, ext) = dot.map_or((name, ""), |dot| name.split_at(dot));
        match key.as_str()? {
            "path" => Some(Value::from(self.0.clone())),
            "name" => Some(Value::from(name)),
            "stem" => Some(Value::from(stem)),
            "ext" => Some(Value::from(ext)),
            "dir" => Some(Value::from(dir)),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&Self::PARTS)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
