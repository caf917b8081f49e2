//! Templates: text with `{{ … }}`, rendered for a shell or plainly.
//!
//! Deliberately absent: what they can see; that is a [`Value`] that the caller makes.

use std::fmt::Write as _;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Expression, Output, Template, UndefinedBehavior,
};

use super::declaration::{GlobMatch, Row, Text};
use super::record::Record;

/// How values become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As words of a shell script, quoted.
    Shell,
    /// As they are.
    Plain,
}

/// Compiles templates that live as long as `'t`.
#[derive(Debug)]
pub(super) struct Templates<'t> {
    shell: Environment<'t>,
    plain: Environment<'t>,
}

impl<'t> Templates<'t> {
    pub(super) fn new() -> Self {
        Self { shell: environment(Mode::Shell), plain: environment(Mode::Plain) }
    }

    fn environment(&self, mode: Mode) -> &Environment<'t> {
        match mode {
            Mode::Shell => &self.shell,
            Mode::Plain => &self.plain,
        }
    }

    pub(super) fn compile<'e>(
        &'e self,
        text: &'t Text,
        mode: Mode,
    ) -> Result<Compiled<'e, 't>, Fault> {
        let template = is_template(&text.value)
            .then(|| self.environment(mode).template_from_str(&text.value))
            .transpose()
            .map_err(Fault::whole)?;
        Ok(Compiled { text, template })
    }

    /// An element of `argv`: one that is a single expression may give several arguments.
    pub(super) fn compile_argument<'e>(
        &'e self,
        text: &'t Text,
    ) -> Result<Argument<'e, 't>, Fault> {
        if let Some((offset, inner)) = single_expression(&text.value)
            && let Ok(expression) = self.plain.compile_expression(inner)
        {
            return Ok(Argument::Expression { expression, offset, length: inner.len() });
        }
        self.compile(text, Mode::Plain).map(Argument::Text)
    }
}

/// What went wrong in a template.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    /// Where the part of the text begins that the error's range is relative to.
    pub(super) offset: usize,
    /// How long that part is; `None`: the whole text.
    pub(super) length: Option<usize>,
}

impl Fault {
    fn whole(error: Error) -> Self {
        Self { error, offset: 0, length: None }
    }
}

/// A text that is ready to be rendered, many times.
#[derive(Debug)]
pub(super) struct Compiled<'e, 't> {
    pub(super) text: &'t Text,
    template: Option<Template<'e, 't>>,
}

impl Compiled<'_, '_> {
    pub(super) fn render(&self, scope: &Value) -> Result<Arc<str>, Fault> {
        match &self.template {
            None => Ok(self.text.value.clone()),
            Some(template) => template.render(scope.clone()).map(Arc::from).map_err(Fault::whole),
        }
    }

    /// The names that the text asks for, such as `inputs.reads`, in the order of the alphabet.
    pub(super) fn names(&self) -> std::collections::BTreeSet<String> {
        let names = self.template.iter().flat_map(|template| template.undeclared_variables(true));
        names.collect()
    }

    /// Whether each rendering gives the same text.
    pub(super) fn is_literal(&self) -> bool {
        self.template.is_none()
    }
}

/// A compiled element of `argv`.
#[derive(Debug)]
pub(super) enum Argument<'e, 't> {
    Text(Compiled<'e, 't>),
    Expression { expression: Expression<'e, 't>, offset: usize, length: usize },
}

impl Argument<'_, '_> {
    /// The names that it asks for.
    pub(super) fn names(&self) -> std::collections::BTreeSet<String> {
        match self {
            Self::Text(text) => text.names(),
            Self::Expression { expression, .. } => {
                expression.undeclared_variables(true).into_iter().collect()
            }
        }
    }

    pub(super) fn render_into(&self, scope: &Value, argv: &mut Vec<String>) -> Result<(), Fault> {
        match self {
            Self::Text(text) => argv.push(text.render(scope)?.as_ref().to_owned()),
            Self::Expression { expression, offset, length } => {
                let fault = |error| Fault { error, offset: *offset, length: Some(*length) };
                let value = expression.eval(scope.clone()).map_err(fault)?;
                if value.is_undefined() {
                    return Err(fault(ErrorKind::UndefinedError.into()));
                }
                words(&value, &mut |word| {
                    argv.push(word.to_owned());
                    Ok(())
                })
                .map_err(fault)?;
            }
        }
        Ok(())
    }
}

/// Whether a text has anything for the template engine to do.
pub(super) fn is_template(text: &str) -> bool {
    text.as_bytes().windows(2).any(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// The inside of a text that is `{{ expression }}` and nothing else, with its offset.
fn single_expression(text: &str) -> Option<(usize, &str)> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    let plain = !["{{", "}}", "{%", "{#"].iter().any(|mark| inner.contains(mark));
    (plain && !inner.starts_with(['-', '+']) && !inner.ends_with('-')).then_some((2, inner))
}

fn environment<'t>(mode: Mode) -> Environment<'t> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // A text means the same whether it has a template in it or not.
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    // HTML has no place in a command, and `safe` would be a second name for `raw`.
    for filter in ["escape", "e", "safe"] {
        environment.remove_filter(filter);
    }
    environment.add_filter("raw", raw);
    match mode {
        Mode::Shell => {
            // Custom escaping makes captured blocks safe strings: they are not quoted again.
            environment.set_auto_escape_callback(|_| AutoEscape::Custom("shell".into()));
            environment.set_formatter(|out, _, value| write_quoted(out, value));
        }
        Mode::Plain => {
            environment.set_auto_escape_callback(|_| AutoEscape::None);
            environment.set_formatter(|out, _, value| write_plain(out, value));
        }
    }
    environment
}

/// The filter `raw`: the value's words as they are, never quoted.
fn raw(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    let mut text = String::new();
    let mut first = true;
    words(value, &mut |word| {
        if !std::mem::take(&mut first) {
            text.push(' ');
        }
        text.push_str(word);
        Ok(())
    })?;
    Ok(Value::from_safe_string(text))
}

fn write_quoted(out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    if value.is_safe() {
        return write_plain(out, value);
    }
    let mut first = true;
    words(value, &mut |word| {
        if !std::mem::take(&mut first) {
            out.write_char(' ')?;
        }
        out.write_str(&shell_words::quote(word)).map_err(Error::from)
    })
}

fn write_plain(out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    let mut first = true;
    words(value, &mut |word| {
        if !std::mem::take(&mut first) {
            out.write_char(' ')?;
        }
        out.write_str(word).map_err(Error::from)
    })
}

/// The words of a value: one for a plain value, those of all items for a list.
fn words(value: &Value, word: &mut dyn FnMut(&str) -> Result<(), Error>) -> Result<(), Error> {
    let refuse = |why: &'static str| Err(Error::new(ErrorKind::InvalidOperation, why));
    match value.kind() {
        ValueKind::String => word(value.as_str().unwrap_or_default()),
        ValueKind::Number => word(&value.to_string()),
        // As it is written in the workflow file, and not as Python does.
        ValueKind::Bool => word(if value.is_true() { "true" } else { "false" }),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.try_for_each(|item| words(&item, word))
        }
        ValueKind::Undefined => Ok(()),
        ValueKind::None => refuse("the value is null"),
        ValueKind::Invalid => refuse("the value is an error"),
        _ => {
            if let Some(found) = value.downcast_object_ref::<GlobMatch>() {
                word(found.path())
            } else if value.downcast_object_ref::<Row>().is_some() {
                refuse("this is a whole row; name one of its columns, such as row.sample")
            } else if value.downcast_object_ref::<Record>().is_some() {
                word(&Record::as_json(value)?)
            } else {
                refuse("this value is not text; name one of its parts")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::problem::Place;

    fn text(value: &str) -> Text {
        Text { value: value.into(), place: Place { file: 0, start: 0, end: 0 } }
    }

    fn render(template: &str, mode: Mode) -> String {
        let scope = Value::from_pairs([
            ("one", Value::from("a b")),
            ("many", Value::from(vec!["x", "y z", "it's"])),
            ("empty", Value::from(Vec::<String>::new())),
            ("n", Value::from(3)),
            ("yes", Value::from(true)),
        ]);
        let text = text(template);
        let templates = Templates::new();
        let rendered = templates.compile(&text, mode).and_then(|text| text.render(&scope));
        rendered.map_or_else(|fault| fault.error.to_string(), |text| text.to_string())
    }

    #[test]
    fn a_shell_gets_quoted_words() {
        let shell = |template| render(template, Mode::Shell);
        assert_eq!(shell("cat {{ one }} > {{ n }}"), "cat 'a b' > 3");
        assert_eq!(shell("cat {{ many }}"), r"cat x 'y z' 'it'\''s'");
        assert_eq!(shell("cat {{ empty }}."), "cat .");
        assert_eq!(shell("cat {{ yes }}"), "cat true");
        assert_eq!(shell("cat {{ one | raw }} {{ many | raw }}"), "cat a b x y z it's");
        assert_eq!(shell("cat {{ '' }}"), "cat ''");
        assert_eq!(shell("x={{ 'p/' ~ one }}"), "x='p/a b'");
        assert_eq!(shell("{{ many | join(',') }}"), r"'x,y z,it'\''s'");
        assert_eq!(
            shell("{% for m in many %}-f {{ m }} {% endfor %}"),
            r"-f x -f 'y z' -f 'it'\''s' "
        );
        assert_eq!(shell("{% set x %}-f {{ one }}{% endset %}{{ x }}"), "-f 'a b'");
        assert_eq!(shell("{{ one | upper }}"), "'A B'");
        assert_eq!(shell("a\n{{ n }}\n"), "a\n3\n");
    }

    #[test]
    fn elsewhere_values_are_as_they_are() {
        assert_eq!(render("p/{{ one }}/{{ many }}", Mode::Plain), "p/a b/x y z it's");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for template in ["{{ x }}", "{{ one.x }}", "{{ x | raw }}", "{{ x ~ 'a' }}"] {
            assert!(render(template, Mode::Shell).contains("undefined"), "{template}");
        }
        assert!(render("{{ one | safe }}", Mode::Shell).contains("unknown filter"));
    }

    #[test]
    fn an_argument_that_is_one_list_spreads() {
        let scope = Value::from_pairs([("many", Value::from(vec!["x", "y z"]))]);
        let argv = |template| {
            let text = text(template);
            let templates = Templates::new();
            let mut argv = Vec::new();
            let argument = templates.compile_argument(&text).expect("a template");
            argument.render_into(&scope, &mut argv).expect("renders");
            argv
        };
        assert_eq!(argv("{{ many }}"), ["x", "y z"]);
        assert_eq!(argv("-I{{ many }}"), ["-Ix y z"]);
        assert_eq!(argv("{{ many }}{{ many }}"), ["x y zx y z"]);
        assert_eq!(argv("{{ [] }}"), [""; 0]);
    }
}
