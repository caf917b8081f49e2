//! From a `[task.NAME]` or `[defaults]` table to a declaration.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::declaration::{CommandText, ContainerText, Declaration, Memory, Options, Scalar, Text};
use super::near::suggestion;
use super::problem::Place;
use super::reader::{NameRule, Reader, Spot, in_order, integer_of, scalar_of};
use super::template::is_template;
use super::{image, units};

use keelboat_engine::{KeepScratch, Memoize, MemoryGrowth};
use toml::de::{DeTable, DeValue};

/// The keys of a task.
pub(super) const TASK_KEYS: [&str; 31] = [
    "foreach",
    "inputs",
    "outputs",
    "stdout",
    "stderr",
    "run",
    "argv",
    "after",
    "description",
    "env",
    "cores",
    "memory",
    "gpus",
    "disk",
    "priority",
    "timeout",
    "retries",
    "retry_on",
    "fail_on",
    "skip_on",
    "retry_cost",
    "backoff",
    "cache",
    "version",
    "container",
    "executor",
    "shell",
    "checkpoint",
    "checkpoint_every",
    "keep_scratch",
    "mpi",
];

/// The keys of `[defaults]`.
pub(super) const OPTION_KEYS: [&str; 21] = [
    "env",
    "cores",
    "memory",
    "gpus",
    "disk",
    "priority",
    "timeout",
    "retries",
    "retry_on",
    "fail_on",
    "skip_on",
    "retry_cost",
    "backoff",
    "cache",
    "version",
    "container",
    "executor",
    "shell",
    "checkpoint",
    "checkpoint_every",
    "keep_scratch",
];

const CORES_MAX: i64 = 65_536;
const RETRIES_MAX: i64 = 1_000;
const GPUS_MAX: i64 = 1_024;
const PRIORITIES: std::ops::RangeInclusive<i64> = -1_000_000..=1_000_000;

/// By how much memory grows that does, in thousandths, when nobody says; and what can be said.
const GROWTH_FACTOR: u32 = 2_000;
const FACTORS: std::ops::RangeInclusive<i64> = 1_100..=100_000;

impl Reader<'_> {
    pub(super) fn defaults(&mut self, value: &Spot<'_>) -> Options {
        let help =
            "write [defaults] on a line of its own, and options such as retries = 3 below it";
        let Some(table) = self.table(value, "defaults", help) else {
            return Options::default();
        };
        self.check_keys(table, &OPTION_KEYS, "[defaults]");
        self.options(table)
    }

    pub(super) fn task(
        &mut self,
        name: Arc<str>,
        place: Place,
        value: &Spot<'_>,
        defaults: &Options,
    ) -> Option<Declaration> {
        let help = format!("write [task.{name}] on a line of its own, and its keys below it");
        let table = self.table(value, &format!("task.{name}"), &help)?;
        let meant = self.check_keys(table, &TASK_KEYS, &format!("[task.{name}]"));
        let unread = |key| {
            let given: Option<&Spot<'_>> = table.get(key);
            meant.contains(&key) || given.is_some_and(|value| !value.get_ref().is_table())
        };
        let command_misspelt = meant.contains(&"run") || meant.contains(&"argv");
        let help = "write a sentence in quotes";
        let inputs = table.get("inputs").map(|value| self.inputs(value)).unwrap_or_default();
        let mut outputs = table.get("outputs").map(|value| self.outputs(value)).unwrap_or_default();
        self.printed(table, &mut outputs);
        let options = self.options(table).over(defaults);
        if table.contains_key("cache") {
            self.check_ignored(&options);
        }
        Some(Declaration {
            input_labels: inputs.iter().map(|named| named.label.clone()).collect(),
            output_labels: outputs.iter().map(|named| named.label.clone()).collect(),
            description: table
                .get("description")
                .and_then(|value| self.text(value, "description", help))
                .map(|text| text.value),
            foreach: table.get("foreach").map(|value| self.foreach(value)).unwrap_or_default(),
            inputs,
            outputs,
            files_unread: unread("inputs") || unread("outputs"),
            command: if command_misspelt
                && !table.contains_key("run")
                && !table.contains_key("argv")
            {
                CommandText::Unreadable
            } else {
                self.command(&name, place, table)
            },
            after: table.get("after").map(|value| self.after(value)).unwrap_or_default(),
            ranks: table.get("mpi").and_then(|value| self.mpi(value)),
            checkpoint: self.checkpoint(table, &options.checkpointing),
            options,
            name,
            place,
        })
    }

    fn command(&mut self, name: &str, place: Place, table: &DeTable<'_>) -> CommandText {
        match (table.get_key_value("run"), table.get_key_value("argv")) {
            (Some((run, _)), Some((argv, _))) => {
                let problem = self
                    .problem(argv.span(), format!("task `{name}` has both run and argv"))
                    .help("keep run (a script for a shell) or argv (a program and its arguments)");
                let place = self.place(run.span());
                let problem = self.sources.also(problem, place, "and here");
                self.problems.push(problem);
                CommandText::Unreadable
            }
            (None, None) => {
                let problem = self
                    .sources
                    .problem(place, format!("task `{name}` does not say what to run"))
                    .labelled("neither run nor argv")
                    .help("add run = \"…\" (a script for a shell) or argv = [\"program\", \"argument\"]");
                self.problems.push(problem);
                CommandText::Unreadable
            }
            (Some((_, value)), None) => {
                let help = "write a script in quotes, such as run = \"sort {{ inputs.x }}\"";
                self.text(value, "run", help).map_or(CommandText::Unreadable, CommandText::Run)
            }
            (None, Some((_, value))) => self.argv(value),
        }
    }

    fn argv(&mut self, value: &Spot<'_>) -> CommandText {
        let help = "write a list such as argv = [\"sort\", \"-u\", \"{{ inputs.x }}\"]";
        match self.texts(value, "argv", help) {
            Some(texts) if texts.is_empty() => {
                let problem = self
                    .problem(value.span(), "argv must name a program")
                    .labelled("empty")
                    .help(help);
                self.problems.push(problem);
                CommandText::Unreadable
            }
            Some(texts) => CommandText::Argv(texts),
            None => CommandText::Unreadable,
        }
    }

    fn after(&mut self, value: &Spot<'_>) -> Vec<Text> {
        let help = "write names of tasks, such as after = [\"prepare\"]";
        if value.get_ref().is_str() {
            return self.text(value, "after", help).into_iter().collect();
        }
        self.texts(value, "after", help).unwrap_or_default()
    }

    fn options(&mut self, table: &DeTable<'_>) -> Options {
        let cores =
            table.get("cores").and_then(|value| self.integer(value, "cores", 1..=CORES_MAX));
        let retries =
            table.get("retries").and_then(|value| self.integer(value, "retries", 0..=RETRIES_MAX));
        let gpus = table.get("gpus").and_then(|value| self.integer(value, "gpus", 0..=GPUS_MAX));
        let priority =
            table.get("priority").and_then(|value| self.integer(value, "priority", PRIORITIES));
        let version_help = "write it in quotes, such as version = \"2\"";
        Options {
            env: table.get("env").map(|value| self.env(value)).unwrap_or_default(),
            cores: cores.and_then(|cores| u32::try_from(cores).ok()),
            memory: table.get("memory").and_then(|value| self.memory(value)),
            gpus: gpus.and_then(|gpus| u32::try_from(gpus).ok()),
            disk: table.get("disk").and_then(|value| self.size(value, "disk")),
            priority: priority.and_then(|priority| i32::try_from(priority).ok()),
            timeout: table.get("timeout").and_then(|value| self.duration(value, "timeout")),
            retries: retries.and_then(|retries| u32::try_from(retries).ok()),
            rules: self.retry_rules(table),
            backoff: table.get("backoff").and_then(|value| self.backoff(value)),
            cache: table.get("cache").and_then(|value| self.cache(value)),
            ignored: table.get("cache").and_then(|value| self.ignored(value)),
            version: table
                .get("version")
                .and_then(|value| self.text(value, "version", version_help)),
            container: table.get("container").and_then(|value| self.container(value)),
            executors: table.get("executor").and_then(|value| self.executors(value)),
            shell: table.get("shell").and_then(|value| self.shell(value)),
            checkpointing: self.checkpointing(table),
            keep_scratch: table.get("keep_scratch").and_then(|value| self.keep_scratch(value)),
            policy: OnceCell::new(),
        }
    }

    fn env(&mut self, value: &Spot<'_>) -> BTreeMap<Arc<str>, Text> {
        let help = "write env = { NAME = \"value\" }";
        let Some(table) = self.table(value, "env", help) else {
            return BTreeMap::new();
        };
        let mut env = BTreeMap::new();
        for (key, value) in in_order(table) {
            let name: &str = key.get_ref();
            if name.is_empty() || name.contains(['=', '\0']) {
                let problem = self
                    .problem(key.span(), format!("{name:?} cannot be the name of a variable"))
                    .help("a name in the environment is not empty and has no `=` and no NUL");
                self.problems.push(problem);
                continue;
            }
            let place = self.place(value.span());
            let text = match value.get_ref() {
                DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
                    self.sources.slice(place).into()
                }
                _ => match self.text(value, &format!("env.{name}"), help) {
                    Some(text) => text.value,
                    None => continue,
                },
            };
            env.insert(name.into(), Text { value: text, place });
        }
        env
    }

    /// A size, or the first and the most of it, where it grows.
    fn memory(&mut self, value: &Spot<'_>) -> Option<Memory> {
        let Some(table) = value.get_ref().as_table() else {
            return Some(Memory { first: self.size(value, "memory")?, growth: None });
        };
        let help = "write memory = { first = \"2GiB\", max = \"32GiB\" }";
        self.check_keys(table, &["first", "max", "factor"], "memory");
        let Some(first) = table.get("first") else {
            let problem = self.problem(value.span(), "memory that grows needs a first size");
            self.problems.push(problem.help(help));
            return None;
        };
        let first = self.size(first, "first")?;
        let max = match table.get("max") {
            Some(max) => Some(self.size(max, "max")?),
            None => None,
        };
        if max.is_some_and(|max| max < first) {
            let problem = self.problem(value.span(), "the most memory is less than the first");
            self.problems.push(problem.help(help));
            return None;
        }
        let factor = match table.get("factor") {
            Some(factor) => self.factor(factor)?,
            None => GROWTH_FACTOR,
        };
        Some(Memory { first, growth: Some(MemoryGrowth { factor, max }) })
    }

    /// By how much memory grows, in thousandths.
    fn factor(&mut self, value: &Spot<'_>) -> Option<u32> {
        let number = match scalar_of(value.get_ref()) {
            Some(Scalar::Integer(number)) => number.checked_mul(1_000),
            #[expect(clippy::cast_possible_truncation, reason = "what is too large is refused")]
            Some(Scalar::Float(number)) => Some((number * 1_000.0).round() as i64),
            _ => None,
        };
        let factor = number.filter(|number| FACTORS.contains(number));
        if factor.is_none() {
            let problem = self
                .problem(value.span(), "factor must be a number from 1.1 to 100")
                .help("write factor = 2 for twice as much memory after each time that it ran out");
            self.problems.push(problem);
        }
        u32::try_from(factor?).ok()
    }

    fn size(&mut self, value: &Spot<'_>, what: &str) -> Option<u64> {
        if let Some(number) = integer_of(value.get_ref()) {
            let problem = self
                .problem(value.span(), format!("{what} needs a unit"))
                .help(format!("write {what} = \"{number}MiB\" or \"{number}GiB\""));
            self.problems.push(problem);
            return None;
        }
        let help = format!("write a size in quotes, such as {what} = \"4GiB\"");
        let text = self.text(value, what, &help)?;
        units::size(&text.value)
            .map_err(|help| {
                let problem = self
                    .problem(value.span(), format!("{:?} is not a size", text.value))
                    .help(help);
                self.problems.push(problem);
            })
            .ok()
    }

    pub(super) fn duration(&mut self, value: &Spot<'_>, what: &str) -> Option<Duration> {
        if let Some(number) = integer_of(value.get_ref()) {
            let problem = self.problem(value.span(), format!("{what} needs a unit")).help(format!(
                "write {what} = \"{number}s\" for seconds, \"{number}m\" for minutes"
            ));
            self.problems.push(problem);
            return None;
        }
        let help = format!("write a duration in quotes, such as {what} = \"30s\"");
        let text = self.text(value, what, &help)?;
        units::duration(&text.value)
            .map_err(|help| {
                let problem = self
                    .problem(value.span(), format!("{:?} is not a duration", text.value))
                    .help(help);
                self.problems.push(problem);
            })
            .ok()
    }

    /// One wait, or the shortest and the longest.
    fn backoff(&mut self, value: &Spot<'_>) -> Option<(Duration, Duration)> {
        let Some(table) = value.get_ref().as_table() else {
            let min = self.duration(value, "backoff")?;
            return Some((min, min.max(keelboat_engine::RetryPolicy::default().backoff_max)));
        };
        self.check_keys(table, &["min", "max"], "backoff");
        let standard = keelboat_engine::RetryPolicy::default();
        let min = match table.get("min") {
            Some(value) => self.duration(value, "min")?,
            None => standard.backoff_min,
        };
        let max = match table.get("max") {
            Some(value) => self.duration(value, "max")?,
            None => standard.backoff_max.max(min),
        };
        if min > max {
            let problem = self
                .problem(value.span(), "the shortest wait is longer than the longest")
                .help("write backoff = { min = \"1s\", max = \"1m\" }");
            self.problems.push(problem);
            return None;
        }
        Some((min, max))
    }

    /// One name, or several of which the first that is free is taken.
    fn executors(&mut self, value: &Spot<'_>) -> Option<Arc<[Arc<str>]>> {
        let help = "write executor = \"local\", or a list of names";
        let names = match value.get_ref().as_array() {
            Some(_) => self.texts(value, "executor", help)?,
            None => vec![self.text(value, "executor", help)?],
        };
        let before = self.problems.len();
        for name in &names {
            if self.executors.iter().any(|known| **known == *name.value) {
                continue;
            }
            let known = self.executors.iter().map(String::as_str);
            let near = suggestion(&name.value, known, "executor");
            let stop = if near.ends_with('?') { "" } else { ";" };
            let problem = self
                .sources
                .problem(name.place, format!("there is no executor `{}`", name.value))
                .help(format!(
                    "{near}{stop} others are made by [executors.{}] in keelboat.toml",
                    if name.value.is_empty() { "NAME" } else { &name.value }
                ));
            self.problems.push(problem);
        }
        (self.problems.len() == before).then(|| names.into_iter().map(|name| name.value).collect())
    }

    fn cache(&mut self, value: &Spot<'_>) -> Option<Memoize> {
        match value.get_ref().as_str() {
            Some("read-only") => return Some(Memoize::ReadOnly),
            Some("failures") => return Some(Memoize::Failures),
            _ => {}
        }
        if value.get_ref().is_table() {
            return Some(Memoize::On);
        }
        let Some(uses) = value.get_ref().as_bool() else {
            let help = "write true or false without quotes, \"read-only\": use earlier results, and \
                        remember no new ones, or \"failures\": remember exit codes, too";
            self.wrong_kind(value, "cache", "true, false, \"read-only\" or \"failures\"", help);
            return None;
        };
        Some(if uses { Memoize::On } else { Memoize::Off })
    }

    /// Variables that make no difference to what the task writes.
    fn ignored(&mut self, value: &Spot<'_>) -> Option<Vec<Text>> {
        let table = value.get_ref().as_table()?;
        self.check_keys(table, &["ignore"], "cache");
        let help = "write names of variables of env, such as cache = { ignore = [\"THREADS\"] }";
        self.texts(table.get("ignore")?, "ignore", help)
    }

    /// Each variable that is to be ignored has to be there.
    fn check_ignored(&mut self, options: &Options) {
        for name in options.ignored.iter().flatten() {
            if !options.env.contains_key(&name.value) {
                let known = options.env.keys().map(AsRef::as_ref);
                let problem = self
                    .sources
                    .problem(name.place, format!("there is no variable `{}` in env", name.value))
                    .help(suggestion(&name.value, known, "variable"));
                self.problems.push(problem);
            }
        }
    }

    fn container(&mut self, value: &Spot<'_>) -> Option<ContainerText> {
        if value.get_ref().as_bool() == Some(false) {
            return Some(ContainerText::None);
        }
        let help = "write the name of an image in quotes, or false for a task that runs in none";
        let image = self.text(value, "container", help)?;
        if !is_template(&image.value)
            && let Err(complaint) = image::check(&image.value)
        {
            let problem = self.problem(value.span(), complaint.message).help(complaint.help);
            self.problems.push(problem);
            return None;
        }
        Some(ContainerText::Image(image))
    }

    fn keep_scratch(&mut self, value: &Spot<'_>) -> Option<KeepScratch> {
        let help = "write \"never\", \"failed\" (what a failed attempt left stays to be looked into) \
                    or \"always\"";
        let text = self.text(value, "keep_scratch", help)?;
        match &*text.value {
            "never" => Some(KeepScratch::Never),
            "failed" => Some(KeepScratch::Failed),
            "always" => Some(KeepScratch::Always),
            other => {
                let message = format!("{other:?} does not say when scratch directories are kept");
                let problem = self.problem(value.span(), message).help(help);
                self.problems.push(problem);
                None
            }
        }
    }

    fn shell(&mut self, value: &Spot<'_>) -> Option<Arc<[String]>> {
        let help = "write a list that ends with the flag before the script, such as \
                    shell = [\"bash\", \"-euo\", \"pipefail\", \"-c\"]";
        let texts = self.texts(value, "shell", help)?;
        if texts.first().is_none_or(|program| program.value.is_empty()) {
            let problem = self.problem(value.span(), "shell must name a program").help(help);
            self.problems.push(problem);
            return None;
        }
        Some(texts.iter().map(|text| text.value.as_ref().to_owned()).collect())
    }

    /// Reads the name of a task.
    pub(super) fn task_name(&mut self, key: &toml::Spanned<std::borrow::Cow<'_, str>>) -> Arc<str> {
        self.name(key, "a task", NameRule::Task)
    }
}
