//! Building one task: rendering and checking each of its texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelboat_engine::{Command, Digest, InputSpec, Kind, OutputSpec, Source, TaskName};
use minijinja::value::Value;

use super::addresses;
use super::declaration::{InputItem, Named, Text};
use super::expand::Context;
use super::explain::explain;
use super::family::{Family, MadeFile};
use super::image;
use super::link::Reference;
use super::paths::{self, Complaint};
use super::prepare::{Prepared, PreparedCommand, PreparedInput, PreparedSource};
use super::problem::{Problem, Problems};
use super::scope::path_value;
use super::template::{Compiled, Fault};

/// Builds one task.
pub(super) struct Builder<'b> {
    pub(super) context: Context<'b>,
    pub(super) problems: &'b mut Problems,
    pub(super) scope: &'b Value,
    pub(super) failed: bool,
}

type FileValues = Vec<Value>;

impl Builder<'_> {
    fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
        self.failed = true;
    }

    fn complain(&mut self, text: &Text, complaint: Complaint) {
        let sources = self.context.directory.sources;
        self.report(sources.problem(text.place, complaint.message).help(complaint.help));
    }

    fn explain(&mut self, text: &Text, fault: &Fault) {
        self.report(explain(self.context.directory.sources, text, fault, self.scope));
    }

    pub(super) fn render(&mut self, text: &Compiled<'_, '_>) -> Option<Arc<str>> {
        text.render(self.scope).map_err(|fault| self.explain(text.text, &fault)).ok()
    }

    /// Renders a text and checks it.
    fn checked<T>(
        &mut self,
        text: &Compiled<'_, '_>,
        check: impl FnOnce(&Arc<str>) -> Result<T, Complaint>,
    ) -> Option<T> {
        let rendered = self.render(text)?;
        check(&rendered).map_err(|complaint| self.complain(text.text, complaint)).ok()
    }

    pub(super) fn inputs<'f>(
        &mut self,
        prepared: &Prepared<'_, '_>,
        family: &dyn Fn(usize) -> Option<&'f Family>,
    ) -> (Vec<InputSpec>, FileValues) {
        let mut specs = Vec::with_capacity(prepared.inputs.len());
        let mut values = Vec::with_capacity(prepared.inputs.len());
        for (named, items) in &prepared.inputs {
            let first = specs.len();
            let mut list = named.list;
            for item in items {
                list |= self.input(named, item, family, &mut specs);
            }
            let paths = specs.get(first..).unwrap_or_default().iter();
            let mut paths = paths.map(|spec: &InputSpec| path_value(&spec.scratch_path));
            values.push(match paths.next() {
                Some(path) if !list => path,
                path => Value::from(path.into_iter().chain(paths).collect::<Vec<_>>()),
            });
        }
        (specs, values)
    }

    /// Adds the files of one declared input; whether they are a list.
    fn input<'f>(
        &mut self,
        named: &Named<InputItem>,
        prepared: &PreparedInput<'_, '_>,
        family: &dyn Fn(usize) -> Option<&'f Family>,
        specs: &mut Vec<InputSpec>,
    ) -> bool {
        let item = prepared.item;
        let sha256 = prepared.sha256.as_ref().and_then(|text| self.sha256(text));
        let rename = prepared.rename.as_ref();
        let rename = rename.and_then(|text| self.checked(text, paths::check_rename));
        let spec = |source, scratch_path: Arc<str>| InputSpec {
            label: named.label.clone(),
            scratch_path: rename.clone().unwrap_or(scratch_path),
            source,
            sha256,
            kind: if item.directory { Kind::Directory } else { Kind::File },
            optional: item.optional,
        };
        match &prepared.source {
            PreparedSource::Path(text) => {
                let Some(path) = self.render(text) else { return false };
                if addresses::scheme_of(&path).is_some() {
                    let scratch = addresses::scratch_of_url(&path, &named.label);
                    match addresses::of_input(&path, self.context.project) {
                        Ok(address) => specs.push(spec(Source::Urls([address].into()), scratch)),
                        Err(complaint) => self.complain(text.text, complaint),
                    }
                    return false;
                }
                match addresses::of_path(&path, self.context.project) {
                    Ok(path) => {
                        let scratch = paths::scratch_of_path(&path);
                        specs.push(spec(Source::Path(path), scratch));
                    }
                    Err(complaint) => self.complain(text.text, complaint),
                }
                false
            }
            PreparedSource::Text(text) => {
                if let Some(address) = self.checked(text, |text| addresses::of_text(text)) {
                    specs.push(spec(Source::Urls([address].into()), named.label.clone()));
                }
                false
            }
            PreparedSource::Urls(texts) => {
                let project = self.context.project;
                let check = |url: &Arc<str>| addresses::of_input(url, project);
                let urls: Vec<Arc<str>> =
                    texts.iter().filter_map(|text| self.checked(text, check)).collect();
                if let Some(first) = urls.first() {
                    let scratch = addresses::scratch_of_url(first, &named.label);
                    specs.push(spec(Source::Urls(urls.into()), scratch));
                }
                false
            }
            PreparedSource::From { text, family: at, label } => {
                let Some(made) = family(*at) else { return false };
                let (files, list) = self.made(text, *at, *label, made);
                if rename.is_some() && files.len() > 1 {
                    self.complain(
                        text.text,
                        Complaint {
                            message: format!("`as` gives one name to {} files", files.len()),
                            help: "leave out `as`: files of other tasks keep their paths".into(),
                        },
                    );
                }
                specs.extend(files.iter().map(|file| InputSpec {
                    kind: file.kind,
                    optional: item.optional || file.optional,
                    ..spec(Source::Path(file.path.clone()), paths::scratch_of_path(&file.path))
                }));
                list
            }
        }
    }

    /// The files that a `from` means, and whether they are a list.
    fn made<'f>(
        &mut self,
        text: &Compiled<'_, '_>,
        family: usize,
        label: usize,
        made: &'f Family,
    ) -> (&'f [MadeFile], bool) {
        let declaration = &self.context.directory.declarations[family];
        let list = declaration.outputs.get(label).is_some_and(|named| named.list);
        if !text.text.value.contains('[') {
            return (made.files(label), list || !declaration.foreach.is_empty());
        }
        let Some(rendered) = self.render(text) else {
            return (&[], list);
        };
        let instance = Reference::parse(&rendered).instance.unwrap_or_default();
        if let Some(files) = made.files_of(instance, label) {
            return (files, list);
        }
        let problem = self.no_instance(text.text, instance, made);
        self.report(problem);
        (&[], list)
    }

    fn no_instance(&self, text: &Text, instance: &str, made: &Family) -> Problem {
        const LISTED_MAX: usize = 1000;
        let known = made.names.iter().take(LISTED_MAX).map(AsRef::as_ref);
        self.context
            .directory
            .sources
            .problem(text.place, format!("there is no task `{instance}`"))
            .help(super::near::suggestion(instance, known, "task"))
    }

    fn sha256(&mut self, text: &Compiled<'_, '_>) -> Option<Digest> {
        self.checked(text, |value| {
            value.parse().map_err(|error: keelboat_engine::DigestParseError| Complaint {
                message: error.to_string(),
                help: "write what `sha256sum FILE` prints: 64 hexadecimal digits".into(),
            })
        })
    }

    pub(super) fn outputs(&mut self, prepared: &Prepared<'_, '_>) -> (Vec<OutputSpec>, FileValues) {
        let mut specs = Vec::with_capacity(prepared.outputs.len());
        let mut values = Vec::with_capacity(prepared.outputs.len());
        for (named, items) in &prepared.outputs {
            let first = specs.len();
            for prepared in items {
                let item = prepared.item;
                let project = self.context.project;
                let path = self.checked(&prepared.path, |path| addresses::of_output(path, project));
                let Some(path) = path else { continue };
                let deliver_to = prepared.to.as_ref().and_then(|text| {
                    self.checked(text, |to| addresses::of_destination(to, project))
                });
                specs.push(OutputSpec {
                    label: named.label.clone(),
                    scratch_path: paths::scratch_of_path(&path),
                    path,
                    kind: if item.directory { Kind::Directory } else { Kind::File },
                    optional: item.optional,
                    captures: item.captures,
                    deliver_to,
                });
            }
            let paths = specs.get(first..).unwrap_or_default().iter();
            let mut paths = paths.map(|spec: &OutputSpec| path_value(&spec.scratch_path));
            values.push(match paths.next() {
                Some(path) if !named.list => path,
                path => Value::from(path.into_iter().chain(paths).collect::<Vec<_>>()),
            });
        }
        (specs, values)
    }

    pub(super) fn after<'f>(
        &mut self,
        prepared: &Prepared<'_, '_>,
        family: &dyn Fn(usize) -> Option<&'f Family>,
    ) -> Vec<TaskName> {
        let mut names = Vec::new();
        for text in &prepared.after {
            let reference = Reference::parse(&text.text.value);
            let made =
                self.context.directory.by_name.get(reference.task).and_then(|at| family(*at));
            let Some(made) = made else { continue };
            if reference.instance.is_none() {
                names.extend(made.names.iter().cloned());
                continue;
            }
            let Some(name) = self.render(text) else { continue };
            if made.has(&name) {
                names.push(name);
            } else {
                let problem = self.no_instance(text.text, &name, made);
                self.report(problem);
            }
        }
        names
    }

    pub(super) fn command(&mut self, prepared: &PreparedCommand<'_, '_>) -> Option<Command> {
        match prepared {
            PreparedCommand::Run(text, shell) => {
                let script = self.render(text)?;
                self.no_nul(text.text, &script);
                Some(Command::Shell { shell: shell.clone(), script })
            }
            PreparedCommand::Argv(arguments, texts) => {
                let mut argv = Vec::with_capacity(arguments.len());
                for (argument, text) in arguments.iter().zip(*texts) {
                    let first = argv.len();
                    if let Err(fault) = argument.render_into(self.scope, &mut argv) {
                        self.explain(text, &fault);
                    }
                    for value in argv.get(first..).unwrap_or_default() {
                        self.no_nul(text, value);
                    }
                }
                if argv.first().is_none_or(String::is_empty) && !self.failed {
                    let text = &texts[0];
                    self.complain(
                        text,
                        Complaint {
                            message: "argv names no program".to_owned(),
                            help: "its first element must not be empty".into(),
                        },
                    );
                }
                Some(Command::Argv(argv.into()))
            }
        }
    }

    /// The image that the command runs in.
    pub(super) fn container(&mut self, prepared: &Prepared<'_, '_>) -> Option<Arc<str>> {
        self.checked(prepared.container.as_ref()?, image::check)
    }

    pub(super) fn env(&mut self, prepared: &Prepared<'_, '_>) -> Arc<BTreeMap<String, String>> {
        if let Some(shared) = &prepared.env_shared {
            return shared.clone();
        }
        let mut env = BTreeMap::new();
        for (name, text) in &prepared.env {
            if let Some(value) = self.render(text) {
                self.no_nul(text.text, &value);
                env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
            }
        }
        Arc::new(env)
    }

    fn no_nul(&mut self, text: &Text, value: &str) {
        if value.contains('\0') {
            self.complain(
                text,
                Complaint {
                    message: "this has a NUL character, which no program can be given".to_owned(),
                    help: "remove it".into(),
                },
            );
        }
    }
}
