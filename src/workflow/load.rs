//! From files to declarations: TOML, includes, parameters.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelboat_engine::Digester;
use minijinja::value::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::LoadOptions;
use super::declaration::{Declaration, Options, Text};
use super::near::suggestion;
use super::own_files::OwnFiles;
use super::problem::{Place, Problem, Problems, Sources};
use super::read_foreach::RESERVED;
use super::reader::{NameRule, Reader, Spot, in_order, scalar_of};
use super::syntax;

/// The largest workflow file, in bytes.
const FILE_BYTES_MAX: usize = 256 << 20;

pub(super) const ROOT_KEYS: [&str; 4] = ["workflow", "defaults", "include", "task"];
pub(super) const WORKFLOW_KEYS: [&str; 3] = ["name", "description", "params"];

/// All that the files say.
#[derive(Debug)]
pub(super) struct Loader {
    pub(super) sources: Sources,
    pub(super) problems: Problems,
    pub(super) name: Option<Arc<str>>,
    pub(super) params: BTreeMap<Arc<str>, Value>,
    pub(super) declarations: Vec<Declaration>,
    pub(super) by_name: HashMap<Arc<str>, usize>,
    /// Takes in all that the plan is made from.
    pub(super) identity: Digester,
    pub(super) own_files: OwnFiles,
    /// Files that are being read, each included by the one before it.
    stack: Vec<PathBuf>,
    done: HashSet<PathBuf>,
    executors: Vec<String>,
}

impl Loader {
    pub(super) fn load(path: &Path, options: &LoadOptions) -> Self {
        let mut loader = Self {
            sources: Sources::default(),
            problems: Problems::default(),
            name: None,
            params: BTreeMap::new(),
            declarations: Vec::new(),
            by_name: HashMap::new(),
            identity: Digester::new(),
            own_files: OwnFiles::default(),
            stack: Vec::new(),
            done: HashSet::new(),
            executors: match options.executors.as_slice() {
                [] => vec!["local".to_owned()],
                known => known.to_vec(),
            },
        };
        loader.identity.update(b"keelboat-workflow\0\x01");
        loader.file(path, None, &Options::default());
        for (name, text) in &options.set {
            loader.set(name, text);
        }
        for (name, value) in &loader.params {
            for part in [name.as_ref(), &format!("{value:?}")] {
                loader.identity.update(&(part.len() as u64).to_le_bytes());
                loader.identity.update(part.as_bytes());
            }
        }
        if loader.name.is_none() {
            loader.name = path.file_stem().map(|stem| stem.to_string_lossy().into());
        }
        loader
    }

    /// Reads one file and those that it includes; `place`: where it was included.
    fn file(&mut self, path: &Path, place: Option<Place>, defaults: &Options) {
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(place) = place
            && self.stack.contains(&identity)
        {
            let chain: Vec<String> =
                self.stack.iter().map(|path| path.display().to_string()).collect();
            let problem = self
                .sources
                .problem(place, "this file includes itself")
                .labelled("included again here")
                .help(format!("the chain: {} -> this", chain.join(" -> ")));
            self.problems.push(problem);
            return;
        }
        // Two files may include a third one; its tasks are there once.
        if self.done.contains(&identity) {
            return;
        }
        let Some(text) = self.read(path, place) else {
            return;
        };
        self.identity.update(&(text.len() as u64).to_le_bytes());
        self.identity.update(text.as_bytes());
        let file = self.sources.add(&path.display().to_string(), text.clone());
        self.own_files.add(path, file, place);
        self.stack.push(identity);
        if let Some(table) = syntax::parse(file, &text, &self.sources, &mut self.problems) {
            let (includes, defaults) = self.tables(file, &table, defaults);
            for include in includes {
                let directory = path.parent().unwrap_or_else(|| Path::new(""));
                self.file(&directory.join(include.value.as_ref()), Some(include.place), &defaults);
            }
        }
        self.done.extend(self.stack.pop());
    }

    fn read(&mut self, path: &Path, place: Option<Place>) -> Option<Arc<str>> {
        let found = std::fs::read(path).map_err(|error| error.to_string());
        let message = match found.map(String::from_utf8) {
            Ok(Ok(text)) if text.len() <= FILE_BYTES_MAX => return Some(unix_lines(text).into()),
            Ok(Ok(_)) => "it is larger than 256 MiB".to_owned(),
            Ok(Err(error)) => {
                let at = error.utf8_error().valid_up_to();
                let before = error.as_bytes().iter().take(at);
                let line = before.filter(|byte| **byte == b'\n').count() + 1;
                format!("line {line} is not UTF-8 text")
            }
            Err(error) => error,
        };
        let message = format!("cannot read {}: {message}", path.display());
        self.problems.push(match place {
            Some(place) => {
                let help = "an included file is looked for beside the file that includes it";
                self.sources.problem(place, message).help(help)
            }
            None => Problem::without_place(message)
                .help("name a workflow file; `keelboat init` writes a first one"),
        });
        None
    }

    /// Reads the tables of one file; gives what it includes, and the options that hold there.
    fn tables(
        &mut self,
        file: u32,
        table: &DeTable<'_>,
        defaults: &Options,
    ) -> (Vec<Text>, Options) {
        let Self { sources, problems, executors, .. } = self;
        let mut reader = Reader { file, sources, problems, executors };
        reader.check_keys(table, &ROOT_KEYS, "the workflow file");
        let own = table.get("defaults").map(|value| reader.defaults(value)).unwrap_or_default();
        let defaults = own.over(defaults);
        let includes = table.get("include").map(|value| {
            let help = "write include = [\"other.toml\"]";
            match value.get_ref() {
                DeValue::String(_) => reader.text(value, "include", help).into_iter().collect(),
                _ => reader.texts(value, "include", help).unwrap_or_default(),
            }
        });
        let tasks = table.get("task").and_then(|value| {
            reader.table(value, "task", "write [task.NAME] on a line of its own")
        });
        for (key, value) in tasks.map(in_order).unwrap_or_default() {
            let name = reader.task_name(key);
            let place = reader.place(key.span());
            if let Some(first) = self.by_name.get(&name) {
                let first = self.declarations[*first].place;
                let problem = reader
                    .problem(key.span(), format!("there are two tasks `{name}`"))
                    .labelled("second one here")
                    .help("rename one of them");
                reader.problems.push(reader.sources.also(problem, first, "first one here"));
                continue;
            }
            if let Some(declaration) = reader.task(name.clone(), place, value, &defaults) {
                self.by_name.insert(name, self.declarations.len());
                self.declarations.push(declaration);
            }
        }
        if let Some(value) = table.get("workflow") {
            self.workflow(file, value);
        }
        (includes.unwrap_or_default(), defaults)
    }

    fn workflow(&mut self, file: u32, value: &Spot<'_>) {
        let Self { sources, problems, executors, .. } = self;
        let mut reader = Reader { file, sources, problems, executors };
        let help = "write [workflow] on a line of its own, and name = \"…\" below it";
        let Some(table) = reader.table(value, "workflow", help) else {
            return;
        };
        reader.check_keys(table, &WORKFLOW_KEYS, "[workflow]");
        for key in ["name", "description"] {
            let help = format!("write {key} = \"…\"");
            let text = table.get(key).and_then(|value| reader.text(value, key, &help));
            // An included file keeps its own name to itself.
            if key == "name" && self.stack.len() == 1 {
                self.name = text.map(|text| text.value);
            }
        }
        let help = "write params = { min_quality = 30 }";
        let params = table.get("params").and_then(|value| reader.table(value, "params", help));
        for (key, value) in params.map(in_order).unwrap_or_default() {
            let name = reader.name(key, "a parameter", NameRule::Identifier);
            if RESERVED.contains(&name.as_ref()) {
                let problem = reader
                    .problem(key.span(), format!("a parameter cannot be called `{name}`"))
                    .help("this name means something else in templates; choose another one");
                reader.problems.push(problem);
                continue;
            }
            let Some(value) = param_value(value) else {
                reader.wrong_kind(value, &format!("params.{name}"), "a value that fits", "");
                continue;
            };
            // What the including file says goes before what is included.
            self.params.entry(name).or_insert(value);
        }
    }

    /// `--set name=text`.
    fn set(&mut self, name: &str, text: &str) {
        let line: Arc<str> = format!("--set {name}={text}").into();
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
        let name_end = u32::try_from(6 + name.len()).unwrap_or(u32::MAX);
        let Some(current) = self.params.get(name) else {
            let known = self.params.keys().map(AsRef::as_ref);
            let help = if self.params.is_empty() {
                "this workflow declares no parameters: see [workflow] params".to_owned()
            } else {
                suggestion(name, known, "parameter")
            };
            let file = self.sources.add("command line", line);
            let problem = self
                .sources
                .problem(
                    Place { file, start: 6, end: name_end },
                    format!("there is no parameter `{name}`"),
                )
                .help(help);
            self.problems.push(problem);
            return;
        };
        match typed(current, text) {
            Ok(value) => {
                self.params.insert(name.into(), value);
            }
            Err(expected) => {
                let file = self.sources.add("command line", line);
                let place = Place { file, start: name_end + 1, end: length };
                let message = format!("parameter `{name}` must be {expected}");
                let help = format!("its default in [workflow] params is {current:?}");
                let problem = self.sources.problem(place, message).help(help);
                self.problems.push(problem);
            }
        }
    }
}

/// A text whose lines end as those of Unix do: to a shell, the other end is a part of the last word.
fn unix_lines(text: String) -> String {
    if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text }
}

fn param_value(value: &Spanned<DeValue<'_>>) -> Option<Value> {
    match value.get_ref() {
        DeValue::Array(array) => {
            array.iter().map(param_value).collect::<Option<Vec<_>>>().map(Value::from)
        }
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| Some((key.get_ref().to_string(), param_value(value)?)))
            .collect::<Option<BTreeMap<_, _>>>()
            .map(Value::from),
        plain => scalar_of(plain).map(|scalar| scalar.to_value()),
    }
}

/// A text from the command line as a value of the same kind as `like`, or what it must be.
fn typed(like: &Value, text: &str) -> Result<Value, &'static str> {
    use minijinja::value::ValueKind;
    match like.kind() {
        ValueKind::String => Ok(Value::from(text)),
        ValueKind::Bool => match text {
            "true" => Ok(Value::from(true)),
            "false" => Ok(Value::from(false)),
            _ => Err("true or false"),
        },
        ValueKind::Number if like.is_integer() => {
            text.trim().parse::<i64>().map(Value::from).ok().ok_or("a whole number")
        }
        ValueKind::Number => text.trim().parse::<f64>().map(Value::from).ok().ok_or("a number"),
        kind => {
            let expected = if kind == ValueKind::Seq {
                "a list as in TOML, such as '[1, 2]'"
            } else {
                "a table as in TOML, such as '{ a = 1 }'"
            };
            let value = DeValue::parse(text).ok().ok_or(expected)?;
            let value = param_value(&value).ok_or(expected)?;
            if value.kind() == kind { Ok(value) } else { Err(expected) }
        }
    }
}
