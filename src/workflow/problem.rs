//! Problems of a workflow file: what is wrong, where exactly, what to write instead.
//!
//! Deliberately absent: how they are drawn. They are [`miette::Diagnostic`]s.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use miette::{LabeledSpan, NamedSource, Severity};

use super::mask;

/// The most problems that one report holds; what follows them is counted only.
pub(super) const PROBLEMS_MAX: usize = 50;

/// A text with a name, in which problems are shown.
pub(super) type SourceText = NamedSource<Arc<str>>;

/// A part of one of the loaded texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which text, in the order of loading.
    pub(crate) file: u32,
    /// Byte offset of the first byte.
    pub(crate) start: u32,
    /// Byte offset behind the last byte.
    pub(crate) end: u32,
}

/// The texts that have been loaded; a [`Place`] points into one of them.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    texts: Vec<Text>,
}

#[derive(Debug)]
struct Text {
    whole: Arc<str>,
    /// As it is shown.
    masked: Arc<SourceText>,
}

impl Sources {
    pub(crate) fn add(&mut self, name: &str, text: Arc<str>) -> u32 {
        let masked = NamedSource::new(name, mask::secrets(&text)).with_language("toml");
        self.texts.push(Text { whole: text, masked: Arc::new(masked) });
        u32::try_from(self.texts.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn text(&self, file: u32) -> &str {
        self.texts.get(file as usize).map_or("", |text| &text.whole)
    }

    /// The text at a place.
    pub(crate) fn slice(&self, place: Place) -> &str {
        self.text(place.file).get(place.start as usize..place.end as usize).unwrap_or("")
    }

    /// A problem that is shown at `place`.
    pub(crate) fn problem(&self, place: Place, message: impl Into<String>) -> Problem {
        Problem {
            message: message.into(),
            source: self.texts.get(place.file as usize).map(|text| Arc::clone(&text.masked)),
            place,
            labels: vec![label(place, "here")],
            help: None,
            severity: Severity::Error,
            related: Vec::new(),
        }
    }

    /// Adds a second place to a problem, in the same picture when it is in the same text.
    pub(crate) fn also(&self, mut problem: Problem, place: Place, text: &str) -> Problem {
        if place.file == problem.place.file {
            problem.labels.push(label(place, text));
        } else {
            problem.related.push(self.problem(place, text).labelled("here"));
        }
        problem
    }
}

fn label(place: Place, text: &str) -> LabeledSpan {
    let length = place.end.saturating_sub(place.start) as usize;
    LabeledSpan::new_primary_with_span(Some(text.to_owned()), (place.start as usize, length))
}

/// One thing that is wrong with a workflow file, or (as a warning) probably not meant.
#[derive(Debug, Clone)]
pub struct Problem {
    message: String,
    source: Option<Arc<SourceText>>,
    place: Place,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
    severity: Severity,
    related: Vec<Problem>,
}

impl Problem {
    /// A problem that is in no text.
    pub(super) fn without_place(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
            place: Place { file: 0, start: 0, end: 0 },
            labels: Vec::new(),
            help: None,
            severity: Severity::Error,
            related: Vec::new(),
        }
    }

    /// What to write instead.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Replaces the words beside the first underlined text.
    pub(crate) fn labelled(mut self, text: &str) -> Self {
        if let Some(first) = self.labels.first_mut() {
            first.set_label(Some(text.to_owned()));
        }
        self
    }

    pub(super) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The name of the file that holds the mistake, when it is in one.
    pub fn file(&self) -> Option<&str> {
        self.source.as_ref().map(|source| source.name())
    }

    /// The line that it begins in, the first one being 1, when it is in a file.
    pub fn line(&self) -> Option<usize> {
        let text = self.source.as_ref()?.inner();
        let before = text.bytes().take(self.place.start as usize);
        Some(before.filter(|byte| *byte == b'\n').count() + 1)
    }

    /// What is wrong in one line that begins with its place, such as `flow.toml:12: …`, for where
    /// the file cannot be shown.
    pub fn located(&self) -> String {
        match (self.file(), self.line()) {
            (Some(file), Some(line)) => format!("{file}:{line}: {}", self.message),
            _ => self.message.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl miette::Diagnostic for Problem {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_deref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as Box<_>)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        let related = self.related.iter().map(|problem| problem as &dyn miette::Diagnostic);
        (!self.related.is_empty()).then(|| Box::new(related) as Box<_>)
    }
}

/// All that is wrong with a workflow file.
#[derive(Debug, Clone)]
pub struct WorkflowErrors {
    file: String,
    problems: Vec<Problem>,
    left_out: usize,
    /// The task whose output made the mistakes.
    generator: Option<String>,
}

impl WorkflowErrors {
    pub(super) fn new(file: &Path, problems: Problems) -> Self {
        let Problems { mut list, left_out, .. } = problems;
        list.sort_by_key(|problem| (problem.source.is_some(), problem.place));
        Self { file: file.display().to_string(), problems: list, left_out, generator: None }
    }

    /// The same, as mistakes that what this task wrote has made.
    pub(super) fn of_growth(mut self, generator: &str) -> Self {
        self.generator = Some(generator.to_owned());
        self
    }

    /// Each problem, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for WorkflowErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(generator) = &self.generator {
            // This may be all that is shown of a failed task, so it holds what is wrong.
            let all: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
            return write!(f, "cannot make tasks of what `{generator}` wrote: {}", all.join("; "));
        }
        let count = self.problems.len() + self.left_out;
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "cannot use {}: {count} {noun}", self.file)?;
        if self.left_out > 0 {
            write!(f, ", of which the first {} are shown", self.problems.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for WorkflowErrors {}

impl miette::Diagnostic for WorkflowErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn miette::Diagnostic)))
    }
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    left_out: usize,
    warnings: Vec<Problem>,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        if problem.severity == Severity::Warning {
            if self.warnings.len() < PROBLEMS_MAX {
                self.warnings.push(problem);
            }
        } else if self.list.len() < PROBLEMS_MAX {
            self.list.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are, warnings left aside.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Adds what `other` found besides: not the mistakes that have been reported since there were
    /// `known`, and no warnings.
    pub(super) fn add_new(&mut self, other: Self, known: usize) {
        for problem in other.list {
            let since = self.list.get(known..).unwrap_or_default();
            if since.iter().all(|reported| reported.message != problem.message) {
                self.push(problem);
            }
        }
    }

    /// Each of them, warnings left aside, in the order of finding.
    pub(crate) fn into_list(self) -> Vec<Problem> {
        self.list
    }

    pub(super) fn take_warnings(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.warnings)
    }
}
