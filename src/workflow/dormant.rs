//! What tasks that are not known yet wait for, as the file says.

use std::collections::BTreeSet;

use super::Workflow;
use super::addresses::scheme_of;
use super::declaration::{Declaration, InputSource};
use super::pattern::Pattern;

/// A declaration whose tasks depend on what others will write.
#[derive(Debug, Clone)]
pub struct Dormant<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// The names of the declarations whose tasks come before its own, in the order of the file:
    /// those that it names in `foreach`, `from` and `after`, and those that may write what it reads.
    pub depends_on: Vec<&'a str>,
}

impl Workflow {
    /// The declarations that take values of `foreach` from what others write, each with the names
    /// of these.
    pub fn growing(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        let name = |at: usize| self.declarations[at].name.as_ref();
        let growing = self.links.iter().enumerate();
        growing.filter(|(_, link)| !link.generators.is_empty()).map(move |(at, link)| {
            (name(at), link.generators.iter().map(|generator| name(*generator)).collect())
        })
    }

    /// The declarations whose tasks are not known yet, in the order of the file.
    pub fn dormant(&self) -> Vec<Dormant<'_>> {
        let dormant = |at: &usize| self.families[*at].is_none();
        let dormant: Vec<usize> = (0..self.declarations.len()).filter(dormant).collect();
        if dormant.is_empty() {
            return Vec::new();
        }
        let written: Vec<Vec<Pattern>> = self
            .declarations
            .iter()
            .map(|declaration| self.patterns_written(declaration))
            .collect();
        let before = |at: usize| {
            let read = self.patterns_read(&self.declarations[at]);
            let may_write = |other: &usize| {
                let mut read = read.iter();
                read.any(|path| written[*other].iter().any(|written| written.may_equal(path)))
            };
            let mut before: BTreeSet<usize> =
                (0..self.declarations.len()).filter(may_write).collect();
            before.extend(self.links[at].needs.iter().map(|(need, _)| *need));
            before.remove(&at);
            before.into_iter().map(|other| self.declarations[other].name.as_ref()).collect()
        };
        dormant
            .into_iter()
            .map(|at| Dormant { name: &self.declarations[at].name, depends_on: before(at) })
            .collect()
    }

    /// The paths that a declaration's tasks may read.
    fn patterns_read(&self, declaration: &Declaration) -> Vec<Pattern> {
        let items = declaration.inputs.iter().flat_map(|named| &named.items);
        let texts = items.filter_map(|item| match &item.source {
            InputSource::Path(text) => Some(self.with_parameters(&text.value)),
            InputSource::Urls(_) | InputSource::From(_) | InputSource::Text(_) => None,
        });
        texts.filter(|text| scheme_of(text).is_none()).map(|text| Pattern::of(&text)).collect()
    }

    /// The paths that a declaration's tasks may write.
    fn patterns_written(&self, declaration: &Declaration) -> Vec<Pattern> {
        let items = declaration.outputs.iter().flat_map(|named| &named.items);
        items.map(|item| Pattern::of(&self.with_parameters(&item.path.value))).collect()
    }

    /// The template with the values of parameters in their places, where they stand by themselves.
    fn with_parameters(&self, template: &str) -> String {
        let mut filled = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, (inner, after))) =
            rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
        {
            let name = inner.trim();
            let name = name.strip_prefix("params.").unwrap_or(name);
            filled.push_str(before);
            match self.params.get(name) {
                Some(value) => filled.push_str(&value.to_string()),
                None => filled.extend(["{{", inner, "}}"]),
            }
            rest = after;
        }
        filled + rest
    }
}
