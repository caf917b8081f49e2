//! A declaration whose templates are compiled, once for all its tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minijinja::value::Value;

use super::declaration::{
    CommandText, Declaration, InputItem, InputSource, Named, OutputItem, Text,
};
use super::expand::Context;
use super::explain::{explain, explain_name};
use super::lint;
use super::problem::Problems;
use super::scope::{Base, Files, Scope};
use super::shell::{self, Place};
use super::template::{Argument, Compiled, Fault, Mode, Templates};

/// A declaration whose templates are compiled.
pub(super) struct Prepared<'e, 't> {
    pub(super) inputs: Vec<(&'t Named<InputItem>, Vec<PreparedInput<'e, 't>>)>,
    pub(super) outputs: Vec<(&'t Named<OutputItem>, Vec<PreparedOutput<'e, 't>>)>,
    pub(super) command: PreparedCommand<'e, 't>,
    pub(super) env: Vec<(Arc<str>, Compiled<'e, 't>)>,
    /// The environment, when it is the same for each instance.
    pub(super) env_shared: Option<Arc<BTreeMap<String, String>>>,
    pub(super) version: Option<Compiled<'e, 't>>,
    pub(super) container: Option<Compiled<'e, 't>>,
    pub(super) after: Vec<Compiled<'e, 't>>,
    pub(super) input_labels: Arc<[Arc<str>]>,
    pub(super) output_labels: Arc<[Arc<str>]>,
}

pub(super) struct PreparedInput<'e, 't> {
    pub(super) item: &'t InputItem,
    pub(super) source: PreparedSource<'e, 't>,
    pub(super) sha256: Option<Compiled<'e, 't>>,
    pub(super) rename: Option<Compiled<'e, 't>>,
}

pub(super) enum PreparedSource<'e, 't> {
    Path(Compiled<'e, 't>),
    Urls(Vec<Compiled<'e, 't>>),
    Text(Compiled<'e, 't>),
    From { text: Compiled<'e, 't>, family: usize, label: usize },
}

pub(super) struct PreparedOutput<'e, 't> {
    pub(super) item: &'t OutputItem,
    pub(super) path: Compiled<'e, 't>,
    pub(super) to: Option<Compiled<'e, 't>>,
}

pub(super) enum PreparedCommand<'e, 't> {
    Run(Compiled<'e, 't>, Arc<[String]>),
    Argv(Vec<Argument<'e, 't>>, &'t [Text]),
}

/// Looks for mistakes in a declaration that cannot be expanded yet: templates that are broken, and
/// names that nothing will have.
pub(super) fn check<'t>(
    context: Context<'_>,
    templates: &Templates<'t>,
    problems: &mut Problems,
    declaration: &'t Declaration,
    base: &Arc<Base>,
) {
    let Some(prepared) = prepare(context, templates, problems, declaration, base) else { return };
    let files = |labels: &Arc<[Arc<str>]>| {
        let values = labels.iter().map(|_| Value::from("")).collect();
        Value::from_object(Files { labels: labels.clone(), values })
    };
    let scope = |files| {
        let values = base.variables.iter().map(|_| Value::from("")).collect();
        Value::from_object(Scope {
            base: base.clone(),
            values,
            name: declaration.name.clone(),
            files,
        })
    };
    let early = scope(None);
    let late = scope(Some((files(&prepared.input_labels), files(&prepared.output_labels))));
    let sources = context.directory.sources;
    // What values hold is known when they are.
    let opaque = |name: &str| base.variables.iter().any(|variable| variable.as_ref() == name);
    let mut look = |text: &Text, names: BTreeSet<String>, scope: &Value| {
        for name in names {
            if let Some(problem) = explain_name(sources, text, &name, scope, &opaque) {
                problems.push(problem);
            }
        }
    };
    for text in prepared.early_texts() {
        look(text.text, text.names(), &early);
    }
    if declaration.files_unread {
        return;
    }
    for (_, text) in &prepared.env {
        look(text.text, text.names(), &late);
    }
    match &prepared.command {
        PreparedCommand::Run(text, _) => look(text.text, text.names(), &late),
        PreparedCommand::Argv(arguments, texts) => {
            for (argument, text) in arguments.iter().zip(*texts) {
                look(text, argument.names(), &late);
            }
        }
    }
}

impl<'e, 't> Prepared<'e, 't> {
    /// The texts that are rendered before inputs and outputs are known.
    fn early_texts(&self) -> Vec<&Compiled<'e, 't>> {
        let mut texts: Vec<&Compiled<'e, 't>> = Vec::new();
        for input in self.inputs.iter().flat_map(|(_, items)| items) {
            match &input.source {
                PreparedSource::Path(text)
                | PreparedSource::Text(text)
                | PreparedSource::From { text, .. } => texts.push(text),
                PreparedSource::Urls(urls) => texts.extend(urls),
            }
            texts.extend(input.sha256.iter().chain(&input.rename));
        }
        for output in self.outputs.iter().flat_map(|(_, items)| items) {
            texts.push(&output.path);
            texts.extend(&output.to);
        }
        texts.extend(self.version.iter().chain(&self.container).chain(&self.after));
        texts
    }
}

/// Compiles all texts of a declaration.
pub(super) fn prepare<'e, 't>(
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
    let container = compiler.optional(declaration.options.image());
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
        container,
        after,
        input_labels: declaration.input_labels.clone(),
        output_labels: declaration.written_labels(),
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
            InputSource::Text(text) => PreparedSource::Text(self.text(text, Mode::Plain)?),
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
                for warning in lint::quoted_values(self.context.directory.sources, text) {
                    self.problems.push(warning);
                }
                let shell = declaration.options.shell.clone();
                let contained = declaration.options.image().is_some();
                let place = if contained { Place::Container } else { Place::Here };
                let shell = shell.unwrap_or_else(|| shell::default_for(&text.value, place));
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
