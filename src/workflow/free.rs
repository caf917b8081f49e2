//! What the workflow file means, without a file: for programs that make their tasks themselves.

use std::path::Path;
use std::sync::Arc;

use keelboat_engine::{Command, Source};
use minijinja::value::Value;

use super::declaration::Text;
use super::paths::{self, Complaint};
use super::problem::Place;
use super::scope::path_value;
use super::template::{Mode, Templates};
use super::{addresses, shell};

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

/// What templates of a command see: texts by name, and paths by label.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) values: Vec<(String, Value)>,
    pub(crate) inputs: Vec<(Arc<str>, Arc<str>)>,
    pub(crate) outputs: Vec<(Arc<str>, Arc<str>)>,
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
        let all = self.values.iter().cloned();
        let all = all.chain([
            ("inputs".to_owned(), files(&self.inputs)),
            ("outputs".to_owned(), files(&self.outputs)),
        ]);
        Value::from_pairs(all)
    }
}

/// A script with what it sees, quoted for the shell.
pub(crate) fn script(script: &str, scope: &Scope) -> Result<Command, String> {
    let rendered = render(script, Mode::Shell, scope)?;
    Ok(Command::Shell { shell: shell::default_for(script), script: rendered })
}

/// A program and its arguments. One that is a list gives several.
pub(crate) fn argv(words: &[String], scope: &Scope) -> Result<Command, String> {
    let (templates, scope) = (Templates::new(), scope.value());
    let texts: Vec<Text> = words.iter().map(|word| text(word)).collect();
    let mut argv = Vec::with_capacity(texts.len());
    for text in &texts {
        let argument = templates.compile_argument(text).map_err(|fault| fault.error.to_string());
        argument?.render_into(&scope, &mut argv).map_err(|fault| fault.error.to_string())?;
    }
    match argv.first() {
        Some(program) if !program.is_empty() => no_nul(argv.iter())?,
        _ => return Err("it names no program: the first argument must not be empty".to_owned()),
    }
    Ok(Command::Argv(argv.into()))
}

fn render(template: &str, mode: Mode, scope: &Scope) -> Result<Arc<str>, String> {
    let (templates, text) = (Templates::new(), text(template));
    let rendered = templates.compile(&text, mode).and_then(|text| text.render(&scope.value()));
    let rendered = rendered.map_err(|fault| fault.error.to_string())?;
    no_nul([&rendered].into_iter())?;
    Ok(rendered)
}

fn no_nul<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> Result<(), String> {
    let mut texts = texts;
    if texts.any(|text| text.as_ref().contains('\0')) {
        return Err("it has a NUL character, which no program can be given".to_owned());
    }
    Ok(())
}

fn text(value: &str) -> Text {
    Text { value: value.into(), place: Place { file: 0, start: 0, end: 0 } }
}
