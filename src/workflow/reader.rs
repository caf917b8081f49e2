//! Reading values of TOML with a problem, and its place, for each that is of the wrong kind.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::declaration::{Scalar, Text};
use super::near::{nearest, suggestion};
use super::problem::{Place, Problem, Problems, Sources};

pub(crate) type Spot<'a> = Spanned<DeValue<'a>>;

/// Reads one file.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) file: u32,
    pub(crate) sources: &'a Sources,
    pub(crate) problems: &'a mut Problems,
    /// Executors that tasks may ask for.
    pub(crate) executors: &'a [String],
}

impl Reader<'_> {
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Place { file: self.file, start: offset(span.start), end: offset(span.end) }
    }

    pub(crate) fn problem(&self, span: Range<usize>, message: impl Into<String>) -> Problem {
        self.sources.problem(self.place(span), message)
    }

    pub(crate) fn wrong_kind(&mut self, value: &Spot<'_>, what: &str, expected: &str, help: &str) {
        let found = kind_of(value.get_ref());
        let problem = self
            .problem(value.span(), format!("{what} must be {expected}, not {found}"))
            .labelled(found)
            .help(help);
        self.problems.push(problem);
    }

    /// Keys that are not in `known` are problems; gives those that were probably meant.
    pub(crate) fn check_keys<'k>(
        &mut self,
        table: &DeTable<'_>,
        known: &[&'k str],
        owner: &str,
    ) -> Vec<&'k str> {
        let mut meant = Vec::new();
        for key in table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                meant.extend(nearest(key.get_ref(), known.iter().copied()));
                let problem = self
                    .problem(key.span(), format!("unknown key `{}` in {owner}", key.get_ref()))
                    .labelled("not a key that means anything here")
                    .help(suggestion(key.get_ref(), known.iter().copied(), "key"));
                self.problems.push(problem);
            }
        }
        meant
    }

    pub(crate) fn table<'t, 's>(
        &mut self,
        value: &'t Spot<'s>,
        what: &str,
        help: &str,
    ) -> Option<&'t DeTable<'s>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_kind(value, what, "a table", help);
        }
        table
    }

    pub(super) fn text(&mut self, value: &Spot<'_>, what: &str, help: &str) -> Option<Text> {
        let text = self.string(value, what, help)?;
        Some(Text { value: text, place: self.place(value.span()) })
    }

    /// The same without its place.
    pub(crate) fn string(&mut self, value: &Spot<'_>, what: &str, help: &str) -> Option<Arc<str>> {
        let text = value.get_ref().as_str().map(Into::into);
        if text.is_none() {
            self.wrong_kind(value, what, "a string", help);
        }
        text
    }

    pub(super) fn bool(&mut self, value: Option<&Spot<'_>>, what: &str) -> Option<bool> {
        let value = value?;
        let read = value.get_ref().as_bool();
        if read.is_none() {
            self.wrong_kind(value, what, "true or false", "write true or false, without quotes");
        }
        read
    }

    /// A whole number in a range.
    pub(super) fn integer(
        &mut self,
        value: &Spot<'_>,
        what: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let Some(number) = integer_of(value.get_ref()) else {
            self.wrong_kind(
                value,
                what,
                "a whole number",
                &format!("write for example {what} = 2"),
            );
            return None;
        };
        if range.contains(&number) {
            return Some(number);
        }
        let (low, high) = (range.start(), range.end());
        let problem = self
            .problem(value.span(), format!("{what} = {number} is out of range"))
            .help(format!("write a whole number from {low} to {high}"));
        self.problems.push(problem);
        None
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, value: &Spot<'_>, what: &str, help: &str) -> Option<Vec<Text>> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_kind(value, what, "a list of strings", help);
            return None;
        };
        let item = format!("each item of {what}");
        let before = array.len();
        let texts: Vec<Text> =
            array.iter().filter_map(|value| self.text(value, &item, help)).collect();
        (texts.len() == before).then_some(texts)
    }

    /// A value that must be a name: of a task, a label, a variable, a parameter.
    pub(super) fn name(
        &mut self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        noun: &str,
        rule: NameRule,
    ) -> Arc<str> {
        let name = key.get_ref().as_ref();
        if !rule.allows(name) {
            let problem = self
                .problem(key.span(), format!("{name:?} cannot be the name of {noun}"))
                .help(rule.help());
            self.problems.push(problem);
        }
        name.into()
    }
}

/// What names may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameRule {
    /// Names that templates use.
    Identifier,
    /// Names of tasks, which may also hold `-` and begin with a digit.
    Task,
}

impl NameRule {
    const BYTES_MAX: usize = 100;

    fn allows(self, name: &str) -> bool {
        let dash = self == Self::Task;
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || (dash && c == '-');
        let first = name
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || (dash && c.is_ascii_digit()));
        first && name.len() <= Self::BYTES_MAX && name.chars().all(inner)
    }

    fn help(self) -> &'static str {
        match self {
            Self::Identifier => {
                "use letters, digits and `_`, not a digit first, at most 100 of them: templates \
                 refer to it by this name"
            }
            Self::Task => "use letters, digits, `_` and `-`, at most 100 of them",
        }
    }
}

/// The entries of a table in the order of the file.
pub(crate) fn in_order<'t, 's>(
    table: &'t DeTable<'s>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'s, str>>, &'t Spot<'s>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

pub(crate) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(crate) fn integer_of(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value without parts; `None` for lists, tables, and numbers that do not fit.
pub(super) fn scalar_of(value: &DeValue<'_>) -> Option<Scalar> {
    match value {
        DeValue::String(text) => Some(Scalar::Text(text.as_ref().into())),
        DeValue::Integer(_) => integer_of(value).map(Scalar::Integer),
        DeValue::Float(number) => number.as_str().parse().ok().map(Scalar::Float),
        DeValue::Boolean(value) => Some(Scalar::Bool(*value)),
        DeValue::Datetime(date) => Some(Scalar::Text(date.to_string().into())),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
