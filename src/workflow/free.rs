//! What the workflow file means, without a file: for programs that make their tasks themselves.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use keelboat_engine::{Command, Digest, Source};
use minijinja::value::Value;

use super::declaration::Text;
use super::explain::{Unknown, asked_for};
use super::paths::{self, Complaint};
use super::problem::Place as Spot;
use super::scope::path_value;
pub(crate) use super::shell::Place;
use super::template::{Fault, Mode, Templates};
use super::{addresses, image, shell};

/// The directory that paths are relative to.
#[derive(Debug)]
pub(crate) struct Project(paths::Project);

impl Project {
    pub(crate) fn new(directory: &Path) -> Self {
        Self(paths::Project::new(directory))
    }
}

fn told(complaint: &Complaint) -> String {
    format!("{}: {}", complaint.message, complaint.help)
}

/// Where an input comes from that is at these addresses, or at this path.
pub(crate) fn source(addresses: &[Arc<str>], project: &Project) -> Result<Source, String> {
    let is_path = |text: &&Arc<str>| addresses::scheme_of(text).is_none();
    match addresses {
        [path] if is_path(&path) => addresses::of_path(path, &project.0)
            .map(Source::Path)
            .map_err(|complaint| told(&complaint)),
        _ => {
            let urls: Result<Vec<_>, _> = addresses
                .iter()
                .map(|address| {
                    addresses::of_input(address, &project.0).map_err(|complaint| told(&complaint))
                })
                .collect();
            Ok(Source::Urls(urls?.into()))
        }
    }
}

/// The name of an input in the directory that its task runs in.
pub(crate) fn scratch_of(source: &Source, label: &Arc<str>) -> Arc<str> {
    match source {
        Source::Path(path) => paths::scratch_of_path(path),
        Source::Urls(urls) => {
            let first = urls.first().map_or("", |url| &**url);
            addresses::scratch_of_url(first, label)
        }
    }
}

/// The path of an output, and its name in the directory that its task runs in.
pub(crate) fn output(path: &str, project: &Project) -> Result<(Arc<str>, Arc<str>), String> {
    let path =
        addresses::of_output(&path.into(), &project.0).map_err(|complaint| told(&complaint))?;
    let scratch = paths::scratch_of_path(&path);
    Ok((path, scratch))
}

/// An address that an output is sent to.
pub(crate) fn destination(to: &str, project: &Project) -> Result<Arc<str>, String> {
    addresses::of_destination(&to.into(), &project.0).map_err(|complaint| told(&complaint))
}

/// The name of an image that a command runs in.
pub(crate) fn container(image: &str) -> Result<Arc<str>, String> {
    image::check(&image.into()).map_err(|complaint| told(&complaint))
}

/// The directory that a task keeps its checkpoint in, apart from the files at these names.
pub(crate) fn checkpoint(directory: &str, files: &[Arc<str>]) -> Result<Arc<str>, String> {
    let directory = paths::check_checkpoint(&directory.into()).map_err(|error| told(&error))?;
    let around = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let in_the_way = |file: &&Arc<str>| around(&directory, file) || around(file, &directory);
    match files.iter().find(in_the_way) {
        None => Ok(directory),
        Some(file) => Err(format!(
            "the checkpoint directory {directory:?} and the file {file:?} would be in one place: a \
             checkpoint directory holds nothing but what the task saves"
        )),
    }
}

/// What templates of a command see: values by name, and paths by label.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) values: Vec<(Arc<str>, Value)>,
    pub(crate) inputs: Vec<(Arc<str>, Arc<str>)>,
    pub(crate) outputs: Vec<(Arc<str>, Arc<str>)>,
    /// Where the command runs.
    pub(crate) place: Place,
}

impl Scope {
    fn value(&self) -> Value {
        let files = |files: &[(Arc<str>, Arc<str>)]| {
            let mut labels: Vec<(String, Vec<Value>)> = Vec::new();
            for (label, path) in files {
                let path = path_value(path);
                match labels.iter_mut().find(|(known, _)| **known == **label) {
                    Some((_, paths)) => paths.push(path),
                    None => labels.push((label.to_string(), vec![path])),
                }
            }
            Value::from_pairs(labels.into_iter().map(|(label, mut paths)| {
                let one = if paths.len() == 1 { paths.pop() } else { None };
                (label, one.unwrap_or_else(|| Value::from(paths)))
            }))
        };
        let all = self.values.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let all = all.chain([
            ("inputs".to_owned(), files(&self.inputs)),
            ("outputs".to_owned(), files(&self.outputs)),
        ]);
        Value::from_pairs(all)
    }
}

/// The text of a command, as it is written.
#[derive(Debug)]
pub(crate) enum Template {
    /// A script.
    Script(String),
    /// A program and its arguments.
    Argv(Vec<String>),
}

impl Template {
    /// The command with what it sees. In a script that is quoted for the shell; an argument that is
    /// a list gives several.
    pub(crate) fn render(&self, scope: &Scope) -> Result<Command, String> {
        match self {
            Self::Script(script) => {
                let (templates, text) = (Templates::new(), text(script));
                let rendered = templates.compile(&text, Mode::Shell);
                let rendered = rendered.and_then(|text| text.render(&scope.value()));
                let rendered = rendered.map_err(|fault| fault_in(script, &fault))?;
                no_nul([&rendered].into_iter())?;
                Ok(Command::Shell {
                    shell: shell_for(script, &rendered, scope.place),
                    script: rendered,
                })
            }
            Self::Argv(words) => argv(words, &scope.value()),
        }
    }

    /// The command before it has what it sees: later it is also given these, whose digests are known.
    pub(crate) fn unrendered(&self, place: Place, arguments: Arc<[(Arc<str>, Digest)]>) -> Command {
        let (shell, words) = match self {
            Self::Script(script) => {
                (Some(shell::default_for(script, place)), [script.clone()].into())
            }
            Self::Argv(words) => (None, words.clone().into()),
        };
        Command::Template { shell, words, arguments }
    }

    /// Checks that each name is there that it asks for, and that it asks for each of those that it is
    /// given, of which nothing else is known.
    pub(crate) fn check(&self, scope: &Scope, given: &[&str]) -> Result<(), String> {
        let seen = Scope {
            values: given.iter().map(|name| ((*name).into(), Value::from(()))).collect(),
            ..scope.clone()
        };
        let seen = seen.value();
        let is_given = |name: &str| given.contains(&name);
        let mut asked = BTreeSet::new();
        let texts = match self {
            Self::Script(script) => std::slice::from_ref(script),
            Self::Argv(words) => words,
        };
        for written in texts {
            for name in self.names(written)? {
                if let Some(unknown) = asked_for(written, &name, &seen, &is_given) {
                    return Err(not_there(&name, &unknown));
                }
                asked.extend(name.split('.').next().map(str::to_owned));
            }
        }
        match given.iter().find(|name| !asked.contains(**name)) {
            None => Ok(()),
            Some(name) => Err(format!(
                "it is given {name:?}, which its text does not ask for: write {{{{ {name} }}}} \
                 where it is to stand, or do not give it"
            )),
        }
    }

    fn names(&self, written: &str) -> Result<BTreeSet<String>, String> {
        let (templates, text) = (Templates::new(), text(written));
        let names = match self {
            Self::Script(_) => templates.compile(&text, Mode::Shell).map(|text| text.names()),
            Self::Argv(_) => templates.compile_argument(&text).map(|text| text.names()),
        };
        names.map_err(|fault| fault_in(written, &fault))
    }
}

fn not_there(name: &str, unknown: &Unknown) -> String {
    let Unknown { message, help, .. } = unknown;
    let is_file = name.contains('.');
    let by = if is_file { "" } else { "; values are given by `arg`" };
    format!("{message}: {help}{by}")
}

/// By the filter `raw` a pipe may also come from a value.
fn shell_for(script: &str, rendered: &str, place: Place) -> Arc<[String]> {
    shell::default_for(if script.contains("raw") { rendered } else { script }, place)
}

fn argv(words: &[String], scope: &Value) -> Result<Command, String> {
    let templates = Templates::new();
    let texts: Vec<Text> = words.iter().map(|word| text(word)).collect();
    let mut argv = Vec::with_capacity(texts.len());
    for text in &texts {
        let argument = templates.compile_argument(text);
        let rendered = argument.and_then(|argument| argument.render_into(scope, &mut argv));
        rendered.map_err(|fault| fault_in(&text.value, &fault))?;
    }
    match argv.first() {
        Some(program) if !program.is_empty() => no_nul(argv.iter())?,
        _ => return Err("it names no program: the first argument must not be empty".to_owned()),
    }
    Ok(Command::Argv(argv.into()))
}

/// What is wrong, and where in the text.
fn fault_in(text: &str, fault: &Fault) -> String {
    let error = &fault.error;
    let range = error.range().map(|range| fault.offset + range.start..fault.offset + range.end);
    let detail = error.detail().map_or_else(|| error.to_string(), ToOwned::to_owned);
    match range.and_then(|range| text.get(range)).filter(|part| !part.is_empty()) {
        Some(part) => format!("{{{{ {} }}}}: {detail}", part.trim()),
        None => detail,
    }
}

fn no_nul<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> Result<(), String> {
    let mut texts = texts;
    if texts.any(|text| text.as_ref().contains('\0')) {
        return Err("it has a NUL character, which no program can be given".to_owned());
    }
    Ok(())
}

fn text(value: &str) -> Text {
    Text { value: value.into(), place: Spot { file: 0, start: 0, end: 0 } }
}
