//! The text of a command, with what it is given: now, or when all of that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use ciborium::Value as Plain;
use keelboat_engine::{Command, Failure, FailureClass, InputSpec, Uncounted};
use minijinja::value::Value as TemplateValue;

use super::argument::{
    CodecErrorOf, CommandArgument, Lowering, Segment, assemble, digest_of, uncounted, uses,
};
use super::cell::Cell;
use super::handle::Handle;
use super::value::{self, CodecError};
use crate::workflow::free::{Scope, Template};
use crate::workflow::record::Record;

/// What a command is given by name.
#[derive(Debug)]
pub(crate) struct Given {
    lowering: Lowering,
    arguments: BTreeMap<Arc<str>, Vec<Segment>>,
    fault: Option<String>,
}

impl Given {
    /// Nothing yet, for a task of this flow.
    pub(crate) fn new(handle: Handle) -> Self {
        Self { lowering: Lowering::new(handle), arguments: BTreeMap::new(), fault: None }
    }

    pub(crate) fn add<M>(&mut self, name: &str, value: impl CommandArgument<M>) {
        let lowered = value.lower_for_text(&mut self.lowering);
        let segments = std::mem::take(&mut self.lowering.segments);
        if let Err(fault) = self.keep(name, lowered, segments) {
            self.fault.get_or_insert(fault);
        }
    }

    fn keep(
        &mut self,
        name: &str,
        lowered: Result<(), CodecErrorOf>,
        segments: Vec<Segment>,
    ) -> Result<(), String> {
        lowered.map_err(|error| format!("it cannot be given {name:?}: {error}"))?;
        if ["inputs", "outputs"].contains(&name) {
            return Err(format!("{name:?} are its files: give the value another name"));
        }
        match self.arguments.insert(name.into(), segments) {
            None => Ok(()),
            Some(_) => Err(format!("it is given {name:?} twice")),
        }
    }

    /// All of it, and what it was lowered to.
    ///
    /// # Errors
    /// Something of it is no argument.
    pub(crate) fn into_parts(self) -> Result<(Lowering, Arguments), String> {
        match self.fault {
            None => Ok((self.lowering, Arguments(self.arguments))),
            Some(fault) => Err(fault),
        }
    }
}

/// Values by name, as far as they are known.
#[derive(Debug)]
pub(crate) struct Arguments(BTreeMap<Arc<str>, Vec<Segment>>);

/// A text and what it sees.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) template: Template,
    /// Its files.
    pub(crate) scope: Scope,
    pub(crate) arguments: Arguments,
    /// Where it finds the files among its arguments.
    pub(crate) paths: Vec<PathBuf>,
}

impl Text {
    /// Checks that it asks for just what it is given.
    pub(crate) fn check(&self) -> Result<(), String> {
        let names: Vec<&str> = self.arguments.0.keys().map(|name| &**name).collect();
        self.template.check(&self.scope, &names)
    }

    /// The command as it is before the values are there.
    ///
    /// Those that make no difference are not among its arguments.
    pub(crate) fn unrendered(&self, ignored: &BTreeSet<String>) -> Command {
        let digests = self.arguments.0.iter().filter(|(name, _)| !ignored.contains(&***name));
        let digests = digests.map(|(name, segments)| (Arc::clone(name), digest_of(segments)));
        self.template.unrendered(self.scope.place, digests.collect())
    }

    /// Whether it is given a value of this name.
    pub(crate) fn gives(&self, name: &str) -> bool {
        self.arguments.0.contains_key(name)
    }

    /// Whether it is given a value of one of these names.
    pub(crate) fn gives_any_of(&self, names: &BTreeSet<String>) -> bool {
        names.iter().any(|name| self.gives(name))
    }

    /// What only values of these names stand for; `inputs` begin with those of its arguments.
    pub(crate) fn uncounted(&self, ignored: &BTreeSet<String>, inputs: &[InputSpec]) -> Uncounted {
        let of = |is_ignored: bool| {
            let arguments = self.arguments.0.iter();
            let arguments = arguments.filter(|(name, _)| ignored.contains(&***name) == is_ignored);
            uses(arguments.flat_map(|(_, segments)| segments))
        };
        uncounted(&of(true), &of(false), inputs)
    }

    /// The command, with the values of the tasks that it takes them of.
    pub(crate) fn render(&self, values: &[Arc<[u8]>]) -> Result<Command, String> {
        let mut scope = self.scope.clone();
        for (name, segments) in &self.arguments.0 {
            let value = assemble(segments, values, &self.paths).and_then(|bytes| shown(&bytes));
            let value = value.map_err(|error| format!("it cannot be given {name:?}: {error}"))?;
            scope.values.push((Arc::clone(name), value));
        }
        self.template.render(&scope)
    }

    /// The command, when these tasks have their values.
    pub(crate) fn render_late(&self, takes: &[Arc<Cell>]) -> Result<Command, Failure> {
        let failed = |cause: String| Failure::new(FailureClass::Permanent, cause);
        let values = super::cell::values_of(takes)?;
        self.render(&values).map_err(|cause| failed(format!("its command cannot be made: {cause}")))
    }
}

/// An encoded value as templates see it.
fn shown(bytes: &[u8]) -> Result<TemplateValue, CodecError> {
    value::decode::<Plain>(bytes).map(of_plain)
}

fn of_plain(plain: Plain) -> TemplateValue {
    match plain {
        Plain::Null => TemplateValue::from(()),
        Plain::Bool(truth) => TemplateValue::from(truth),
        Plain::Integer(number) => TemplateValue::from(i128::from(number)),
        Plain::Float(number) => TemplateValue::from(number),
        Plain::Text(text) => TemplateValue::from(text),
        Plain::Bytes(bytes) => TemplateValue::from_bytes(bytes),
        Plain::Array(items) => items.into_iter().map(of_plain).collect(),
        Plain::Map(entries) => Record::of(
            entries
                .into_iter()
                .map(|(key, value)| (of_plain(key).to_string().into(), of_plain(value)))
                .collect(),
        ),
        Plain::Tag(tag, inner) => tagged(tag, *inner),
        _ => TemplateValue::UNDEFINED,
    }
}

/// Numbers that are larger than 64 bits (RFC 8949, section 3.4.3).
fn tagged(tag: u64, inner: Plain) -> TemplateValue {
    match (tag, inner) {
        (2 | 3, Plain::Bytes(bytes)) if bytes.len() <= 16 => {
            let number = bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
            match i128::try_from(number) {
                Ok(number) if tag == 3 => TemplateValue::from(-1 - number),
                _ => TemplateValue::from(number),
            }
        }
        (_, inner) => of_plain(inner),
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    struct Position {
        latitude: f64,
        names: Vec<String>,
    }

    fn nothing() -> Given {
        Given::new(Handle::new(std::sync::mpsc::sync_channel(1).0))
    }

    /// A text with one argument, which it sees as `x`.
    fn rendered(template: Template, x: impl Serialize) -> Result<Command, String> {
        let mut given = nothing();
        given.add("x", x);
        let (_, arguments) = given.into_parts()?;
        let text = Text { template, scope: Scope::default(), arguments, paths: Vec::new() };
        text.check()?;
        text.render(&[])
    }

    fn script(template: &str, x: impl Serialize) -> String {
        match rendered(Template::Script(template.to_owned()), x) {
            Ok(Command::Shell { script, .. }) => script.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn values_become_words() {
        assert_eq!(script("{{ x }}", "it's"), r"'it'\''s'");
        assert_eq!(script("{{ x }}", 3), "3");
        assert_eq!(script("{{ x }} {{ x * 2 }}", 1.5), "1.5 3.0");
        assert_eq!(script("{{ x }}", true), "true");
        assert_eq!(script("{{ x }}", u64::MAX), "18446744073709551615");
        assert_eq!(script("{{ x }}", i128::MIN), "-170141183460469231731687303715884105728");
        assert_eq!(script("{{ x }}", (1, "a b", [Some(2)])), "1 'a b' 2");
        assert_eq!(script("{% if x is none %}-{% endif %}", None::<u8>), "-");
        let position = || Position { latitude: 53.5, names: vec!["a b".to_owned()] };
        let json = r#"'{"latitude":53.5,"names":["a b"]}'"#;
        assert_eq!(script("{{ x }}", position()), json);
        assert_eq!(script("{{ x.latitude }} {{ x.names }}", position()), "53.5 'a b'");
        assert_eq!(script("{{ x }}", BTreeMap::from([(1, 2)])), r#"'{"1":2}'"#);
        assert!(script("{{ x }}", None::<u8>).contains("{{ x }}: the value is null"));
    }

    #[test]
    fn a_list_spreads_over_arguments() {
        let words = ["say", "{{ x }}", "-{{ x }}"].map(str::to_owned).to_vec();
        let argv = rendered(Template::Argv(words), ["a b", "c"]).unwrap();
        let expected = ["say", "a b", "c", "-a b c"].map(str::to_owned);
        assert_eq!(argv, Command::Argv(expected.into()));
    }

    #[test]
    fn a_pipe_in_a_value_counts_when_it_is_no_word() {
        let shell = |template: &str| match rendered(Template::Script(template.to_owned()), "a | b")
        {
            Ok(Command::Shell { shell, .. }) => shell[0].clone(),
            other => format!("{other:?}"),
        };
        assert_eq!((&*shell("{{ x | raw }}"), &*shell("{{ x }}")), ("bash", "/bin/sh"));
    }

    #[test]
    fn what_is_asked_for_is_what_is_given() {
        assert!(
            script("true", 1).contains("it is given \\\"x\\\", which its text does not ask for")
        );
        assert!(script("{{ x }} {{ y }}", 1).contains("`y` is not defined"));
        assert!(script("{{ x }} {{ inputs.a }}", 1).contains("there is no `a` in `inputs`"));
        let mut given = nothing();
        given.add("x", 1);
        given.add("x", 2);
        assert_eq!(given.into_parts().unwrap_err(), "it is given \"x\" twice");
        let mut given = nothing();
        given.add("inputs", 1);
        given.into_parts().unwrap_err();
    }

    #[test]
    fn equal_texts_with_other_values_are_other_commands() {
        let of = |x: u8| {
            let mut given = nothing();
            given.add("x", x);
            let (_, arguments) = given.into_parts().unwrap();
            let template = Template::Script("echo {{ x }}".to_owned());
            Text { template, scope: Scope::default(), arguments, paths: Vec::new() }
                .unrendered(&BTreeSet::new())
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
