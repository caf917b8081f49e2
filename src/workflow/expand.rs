//! From a declaration and the values of its variables to tasks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use keelboat_engine::{
    Command, Digest, InputSpec, Kind, Memoize, OutputSpec, Resources, Source, TaskName, TaskSpec,
};
use minijinja::value::Value;

use super::declaration::{
    CommandText, Declaration, InputItem, InputSource, Named, OutputItem, Text,
};
use super::explain::explain;
use super::family::{Family, MadeFile};
use super::foreach::Product;
use super::link::{Directory, Reference};
use super::paths::{self, Complaint, Project};
use super::problem::{Problem, Problems};
use super::scope::{Base, Files, Scope, path_value};
use super::shell;
use super::template::{Argument, Compiled, Fault, Mode, Templates};

/// The most files that the tasks of one declaration may name together.
const FILES_MAX: usize = 20_000_000;

/// What all declarations share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) directory: Directory<'a>,
    pub(super) project: &'a Project,
    pub(super) params: &'a Arc<BTreeMap<Arc<str>, Value>>,
    pub(super) params_value: &'a Value,
}

/// A declaration whose templates are compiled.
struct Prepared<'e, 't> {
    inputs: Vec<(&'t Named<InputItem>, Vec<PreparedInput<'e, 't>>)>,
    outputs: Vec<(&'t Named<OutputItem>, Vec<PreparedOutput<'e, 't>>)>,
    command: PreparedCommand<'e, 't>,
    env: Vec<(Arc<str>, Compiled<'e, 't>)>,
    /// The environment, when it is the same for each instance.
    env_shared: Option<Arc<BTreeMap<String, String>>>,
    version: Option<Compiled<'e, 't>>,
    after: Vec<Compiled<'e, 't>>,
    input_labels: Arc<[Arc<str>]>,
    output_labels: Arc<[Arc<str>]>,
}

struct PreparedInput<'e, 't> {
    item: &'t InputItem,
    source: PreparedSource<'e, 't>,
    sha256: Option<Compiled<'e, 't>>,
    rename: Option<Compiled<'e, 't>>,
}

enum PreparedSource<'e, 't> {
    Path(Compiled<'e, 't>),
    Urls(Vec<Compiled<'e, 't>>),
    From { text: Compiled<'e, 't>, family: usize, label: usize },
}

struct PreparedOutput<'e, 't> {
    item: &'t OutputItem,
    path: Compiled<'e, 't>,
    to: Option<Compiled<'e, 't>>,
}

enum PreparedCommand<'e, 't> {
    Run(Compiled<'e, 't>, Arc<[String]>),
    Argv(Vec<Argument<'e, 't>>, &'t [Text]),
}

/// Expands one declaration.
pub(super) struct Expander<'a, 'e, 't> {
    pub(super) context: Context<'a>,
    pub(super) templates: &'e Templates<'t>,
    pub(super) problems: &'a mut Problems,
}

impl<'e, 't> Expander<'_, 'e, 't> {
    /// The tasks of a declaration. `None`: at least one problem was found.
    pub(super) fn expand<'f>(
        &mut self,
        declaration: &'t Declaration,
        product: &Product,
        family: &dyn Fn(usize) -> Option<&'f Family>,
    ) -> Option<Vec<TaskSpec>> {
        let base = Arc::new(Base {
            variables: product.variables(),
            params: self.context.params.clone(),
            params_value: self.context.params_value.clone(),
            cores: declaration.options.cores.unwrap_or(1),
            memory_mib: declaration.options.memory.unwrap_or(0) >> 20,
        });
        let prepared = prepare(self.context, self.templates, self.problems, declaration, &base)?;
        let mut tasks = Vec::with_capacity(product.len());
        let mut names = HashSet::with_capacity(product.len());
        let mut files = 0;
        for index in 0..product.len() {
            let (name, values) = product.instance(declaration, index);
            if !names.insert(name.clone()) {
                self.problems.push(self.duplicate(declaration, &name));
                return None;
            }
            let scope = Scope { base: base.clone(), values, name, files: None };
            let task = self.instance(declaration, &prepared, scope, family)?;
            files += task.inputs.len() + task.after.len();
            if files > FILES_MAX {
                let message = format!("the tasks of `{}` name too many files", declaration.name);
                let problem = self.context.directory.sources.problem(declaration.place, message);
                self.problems.push(problem.help(
                    "each of its tasks takes all outputs of another one; take one of them: \
                     from = \"task[x={{ x }}].output\"",
                ));
                return None;
            }
            tasks.push(task);
        }
        Some(tasks)
    }

    fn duplicate(&self, declaration: &Declaration, name: &str) -> Problem {
        let place = declaration.foreach.first().and_then(|dimension| dimension.variables.first());
        let place = place.map_or(declaration.place, |variable| variable.place);
        self.context
            .directory
            .sources
            .problem(place, format!("two tasks would be called `{name}`"))
            .labelled("two of its values are the same")
            .help("each combination of values may be there once; remove the repeated one")
    }

    /// One task. All its problems are reported before it is given up.
    fn instance<'f>(
        &mut self,
        declaration: &Declaration,
        prepared: &Prepared<'_, '_>,
        mut scope: Scope,
        family: &dyn Fn(usize) -> Option<&'f Family>,
    ) -> Option<TaskSpec> {
        let name = scope.name.clone();
        let early = Value::from_object(Scope {
            base: scope.base.clone(),
            values: scope.values.clone(),
            name: name.clone(),
            files: None,
        });
        let mut builder = Builder {
            context: self.context,
            problems: self.problems,
            scope: &early,
            failed: false,
        };
        let (inputs, input_values) = builder.inputs(prepared, family);
        let (outputs, output_values) = builder.outputs(prepared);
        let after = builder.after(prepared, family);
        let version = prepared.version.as_ref().and_then(|text| builder.render(text));
        if builder.failed {
            return None;
        }
        let files = |labels: &Arc<[Arc<str>]>, values| {
            Value::from_object(Files { labels: labels.clone(), values })
        };
        scope.files = Some((
            files(&prepared.input_labels, input_values),
            files(&prepared.output_labels, output_values),
        ));
        let late = Value::from_object(scope);
        builder.scope = &late;
        let command = builder.command(&prepared.command);
        let env = builder.env(prepared);
        builder.collisions(declaration, &name, &inputs, &outputs);
        if builder.failed {
            return None;
        }
        let options = &declaration.options;
        Some(TaskSpec {
            name,
            command: command?,
            inputs,
            outputs,
            after,
            env,
            version,
            executor: options.executor.clone(),
            resources: Resources {
                cores: options.cores.unwrap_or(1),
                memory: options.memory.unwrap_or(0),
            },
            timeout: options.timeout,
            retry: options.retry(),
            memoize: if options.cache.unwrap_or(true) { Memoize::On } else { Memoize::Off },
            generates: false,
        })
    }
}

/// Compiles all texts of a declaration.
fn prepare<'e, 't>(
    context: Context<'_>,
    templates: &'e Templates<'t>,
    problems: &mut Problems,
    declaration: &'t Declaration,
    base: &Arc<Base>,
) -> Option<Prepared<'e, 't>> {
    let values = base.variables.iter().map(|_| Value::from("")).collect();
    let scope = Scope { base: base.clone(), values, name: declaration.name.clone(), files: None };
    let scope = Value::from_object(scope);
    let mut compiler = Compiler { context, templates, problems, scope: &scope, failed: false };
    let inputs = declaration
        .inputs
        .iter()
        .map(|named| (named, named.items.iter().filter_map(|item| compiler.input(item)).collect()))
        .collect();
    let outputs = declaration
        .outputs
        .iter()
        .map(|named| (named, named.items.iter().filter_map(|item| compiler.output(item)).collect()))
        .collect();
    let command = compiler.command(declaration);
    let env: Vec<_> = declaration
        .options
        .env
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), compiler.text(text, Mode::Plain)?)))
        .collect();
    let version = compiler.optional(declaration.options.version.as_ref());
    let after =
        declaration.after.iter().filter_map(|text| compiler.text(text, Mode::Plain)).collect();
    if compiler.failed {
        return None;
    }
    let env_shared = env.iter().all(|(_, text)| text.is_literal()).then(|| {
        let pairs = env
            .iter()
            .map(|(name, text)| (name.as_ref().to_owned(), text.text.value.as_ref().to_owned()));
        Arc::new(pairs.collect())
    });
    Some(Prepared {
        inputs,
        outputs,
        command: command?,
        env,
        env_shared,
        version,
        after,
        input_labels: declaration.input_labels.clone(),
        output_labels: declaration.output_labels.clone(),
    })
}

/// Compiles the texts of one declaration.
struct Compiler<'c, 'e, 't> {
    context: Context<'c>,
    templates: &'e Templates<'t>,
    problems: &'c mut Problems,
    /// What the texts may see, for suggestions.
    scope: &'c Value,
    failed: bool,
}

impl<'e, 't> Compiler<'_, 'e, 't> {
    fn report(&mut self, text: &Text, fault: &Fault) {
        let sources = self.context.directory.sources;
        self.problems.push(explain(sources, text, fault, self.scope));
        self.failed = true;
    }

    fn text(&mut self, text: &'t Text, mode: Mode) -> Option<Compiled<'e, 't>> {
        let templates = self.templates;
        templates.compile(text, mode).map_err(|fault| self.report(text, &fault)).ok()
    }

    fn optional(&mut self, text: Option<&'t Text>) -> Option<Compiled<'e, 't>> {
        text.and_then(|text| self.text(text, Mode::Plain))
    }

    fn input(&mut self, item: &'t InputItem) -> Option<PreparedInput<'e, 't>> {
        let source = match &item.source {
            InputSource::Path(text) => PreparedSource::Path(self.text(text, Mode::Plain)?),
            InputSource::Urls(urls) => PreparedSource::Urls(
                urls.iter().filter_map(|text| self.text(text, Mode::Plain)).collect(),
            ),
            InputSource::From(text) => {
                // What it refers to was checked, and reported, before.
                let (family, label) = self.context.directory.resolve(text).ok()?;
                PreparedSource::From { text: self.text(text, Mode::Plain)?, family, label }
            }
        };
        Some(PreparedInput {
            item,
            source,
            sha256: self.optional(item.sha256.as_ref()),
            rename: self.optional(item.rename.as_ref()),
        })
    }

    fn output(&mut self, item: &'t OutputItem) -> Option<PreparedOutput<'e, 't>> {
        let path = self.text(&item.path, Mode::Plain)?;
        Some(PreparedOutput { item, path, to: self.optional(item.to.as_ref()) })
    }

    fn command(&mut self, declaration: &'t Declaration) -> Option<PreparedCommand<'e, 't>> {
        match &declaration.command {
            CommandText::Run(text) => {
                let shell = declaration.options.shell.clone();
                let shell = shell.unwrap_or_else(|| shell::default_for(&text.value));
                Some(PreparedCommand::Run(self.text(text, Mode::Shell)?, shell))
            }
            CommandText::Argv(texts) => {
                let templates = self.templates;
                let mut arguments = Vec::with_capacity(texts.len());
                for text in texts {
                    match templates.compile_argument(text) {
                        Ok(argument) => arguments.push(argument),
                        Err(fault) => self.report(text, &fault),
                    }
                }
                Some(PreparedCommand::Argv(arguments, texts))
            }
            CommandText::Unreadable => {
                self.failed = true;
                None
            }
        }
    }
}

/// Builds one task.
struct Builder<'b> {
    context: Context<'b>,
    problems: &'b mut Problems,
    scope: &'b Value,
    failed: bool,
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

    fn render(&mut self, text: &Compiled<'_, '_>) -> Option<Arc<str>> {
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

    fn inputs<'f>(
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
                if paths::scheme_of(&path).is_some() {
                    if let Err(complaint) = paths::check_url(&path) {
                        self.complain(text.text, complaint);
                    }
                    let scratch = paths::scratch_of_url(&path, &named.label);
                    specs.push(spec(Source::Urls([path].into()), scratch));
                    return false;
                }
                match self.context.project.input_path(&path) {
                    Ok(path) => {
                        let scratch = paths::scratch_of_path(&path);
                        specs.push(spec(Source::Path(path), scratch));
                    }
                    Err(complaint) => self.complain(text.text, complaint),
                }
                false
            }
            PreparedSource::Urls(texts) => {
                let check = |url: &Arc<str>| paths::check_url(url).map(|()| url.clone());
                let urls: Vec<Arc<str>> =
                    texts.iter().filter_map(|text| self.checked(text, check)).collect();
                if let Some(first) = urls.first() {
                    let scratch = paths::scratch_of_url(first, &named.label);
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
                            help: "leave out `as`: files of other tasks keep their paths",
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
                help: "write what `sha256sum FILE` prints: 64 hexadecimal digits",
            })
        })
    }

    fn outputs(&mut self, prepared: &Prepared<'_, '_>) -> (Vec<OutputSpec>, FileValues) {
        let mut specs = Vec::with_capacity(prepared.outputs.len());
        let mut values = Vec::with_capacity(prepared.outputs.len());
        for (named, items) in &prepared.outputs {
            let first = specs.len();
            for prepared in items {
                let item = prepared.item;
                let project = self.context.project;
                let path = self.checked(&prepared.path, |path| project.output_path(path));
                let Some(path) = path else { continue };
                let deliver_to = prepared.to.as_ref().and_then(|text| {
                    self.checked(text, |to| paths::check_destination(to).map(|()| to.clone()))
                });
                specs.push(OutputSpec {
                    label: named.label.clone(),
                    scratch_path: paths::scratch_of_path(&path),
                    path,
                    kind: if item.directory { Kind::Directory } else { Kind::File },
                    optional: item.optional,
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

    fn after<'f>(
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

    fn command(&mut self, prepared: &PreparedCommand<'_, '_>) -> Option<Command> {
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
                            help: "its first element must not be empty",
                        },
                    );
                }
                Some(Command::Argv(argv.into()))
            }
        }
    }

    fn env(&mut self, prepared: &Prepared<'_, '_>) -> Arc<BTreeMap<String, String>> {
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
                    help: "remove it",
                },
            );
        }
    }

    /// Files of a task that would stand in one another's place in its scratch directory.
    fn collisions(
        &mut self,
        declaration: &Declaration,
        name: &str,
        inputs: &[InputSpec],
        outputs: &[OutputSpec],
    ) {
        if inputs.is_empty() || inputs.len() + outputs.len() < 2 {
            return;
        }
        let mut seen: HashMap<&str, (&str, Option<&InputSpec>)> = HashMap::new();
        let entries = inputs
            .iter()
            .map(|input| (input.scratch_path.as_ref(), (input.label.as_ref(), Some(input))))
            .chain(
                outputs
                    .iter()
                    .map(|output| (output.scratch_path.as_ref(), (output.label.as_ref(), None))),
            );
        for (path, entry) in entries {
            let Some(first) = seen.insert(path, entry) else { continue };
            // Two outputs with one path are two producers, which is reported with both places.
            let (Some(input), (label, _)) = (first.1.or(entry.1), entry) else { continue };
            let message = match (first.1, entry.1, &input.source) {
                (_, None, Source::Path(source)) if source.as_ref() == path => {
                    format!("task `{name}` reads {path:?}, which it also writes")
                }
                _ => format!("two files of task `{name}` would both be {path:?} in its directory"),
            };
            self.collision(declaration, &message, first.0, label);
            return;
        }
        for (path, (label, _)) in inputs
            .iter()
            .map(|input| (&input.scratch_path, (&input.label, ())))
            .chain(outputs.iter().map(|output| (&output.scratch_path, (&output.label, ()))))
        {
            let above = paths::ancestors(path)
                .find_map(|above| seen.get_key_value(above))
                .map(|(above, (owner, _))| (*above, *owner));
            if let Some((above, owner)) = above {
                let message = format!(
                    "in the directory of task `{name}`, {path:?} would be inside {above:?}"
                );
                self.collision(declaration, &message, owner, label);
                return;
            }
        }
    }

    fn collision(&mut self, declaration: &Declaration, message: &str, first: &str, second: &str) {
        let inputs = declaration.inputs.iter().map(|named| (&named.label, named.place));
        let outputs = declaration.outputs.iter().map(|named| (&named.label, named.place));
        let all: Vec<_> = inputs.chain(outputs).collect();
        let place_of = |label: &str, last: bool| {
            let mut found = all.iter().filter(|(known, _)| known.as_ref() == label);
            let found = if last { found.next_back() } else { found.next() };
            found.map_or(declaration.place, |(_, place)| *place)
        };
        let (first, second) = (place_of(first, false), place_of(second, true));
        let sources = self.context.directory.sources;
        let mut problem = sources.problem(second, message).labelled("this one");
        if first != second {
            problem = sources.also(problem, first, "and this one");
        }
        let is_self = message.contains("also writes");
        self.report(problem.help(if is_self {
            "a task cannot change its input; write to another path"
        } else {
            "give an input another name: { path = \"…\", as = \"other-name\" }"
        }));
    }
}
