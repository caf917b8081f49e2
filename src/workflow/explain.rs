//! From an error of the template engine to a problem: the exact place, and what was meant.

use std::ops::Range;

use minijinja::ErrorKind;
use minijinja::value::Value;

use super::declaration::Text;
use super::near::suggestion;
use super::problem::{Place, Problem, Sources};
use super::template::Fault;

/// The problem of a template that cannot be compiled or rendered; `scope` is what it can see.
pub(super) fn explain(sources: &Sources, text: &Text, fault: &Fault, scope: &Value) -> Problem {
    let length = fault.length.unwrap_or(text.value.len());
    let range = fault.error.range().unwrap_or(0..length);
    let range = fault.offset + range.start..fault.offset + range.end;
    let at = |range: Range<usize>| within(sources, text, range);
    match fault.error.kind() {
        ErrorKind::UndefinedError => {
            if let Some(unknown) = unknown_name(&text.value, &range, scope) {
                return sources
                    .problem(at(unknown.range), unknown.message)
                    .labelled("not known here")
                    .help(unknown.help);
            }
            sources
                .problem(at(range), "this has no value here")
                .help("check its names, or give another value: {{ x | default(\"…\") }}")
        }
        ErrorKind::SyntaxError => {
            let detail = fault.error.detail().unwrap_or("it cannot be read");
            sources
                .problem(at(range), format!("this template is broken: {detail}"))
                .help("a value is put in by {{ name }}; to write two braces as such: {{ \"{{\" }}")
        }
        ErrorKind::UnknownFilter => sources
            .problem(at(range), fault.error.detail().unwrap_or("unknown filter").to_owned())
            .help("filters are those of Jinja (upper, join, replace, default, …), and raw"),
        _ => {
            let detail =
                fault.error.detail().map_or_else(|| fault.error.to_string(), ToOwned::to_owned);
            sources
                .problem(at(range), format!("this template cannot be filled in: {detail}"))
                .help("see \"Templates\" in the description of the workflow file")
        }
    }
}

/// The problem of a name that a template asks for and that will not be there; `opaque` names are
/// there, but what they hold is not known yet.
pub(super) fn explain_name(
    sources: &Sources,
    text: &Text,
    name: &str,
    scope: &Value,
    opaque: &dyn Fn(&str) -> bool,
) -> Option<Problem> {
    let unknown = asked_for(&text.value, name, scope, opaque)?;
    let place = within(sources, text, unknown.range);
    Some(sources.problem(place, unknown.message).labelled("not known here").help(unknown.help))
}

/// What is wrong with a name that a template asks for, if it will not be there.
pub(super) fn asked_for(
    text: &str,
    name: &str,
    scope: &Value,
    opaque: &dyn Fn(&str) -> bool,
) -> Option<Unknown> {
    let first = name.split('.').next().unwrap_or(name);
    // Functions of the template engine.
    if opaque(first) || ["range", "dict", "namespace", "debug"].contains(&first) {
        return None;
    }
    let range = text.find(name).map(|start| start..start + name.len())?;
    unknown_name(text, &range, scope)
}

/// A name that means nothing.
pub(super) struct Unknown {
    range: Range<usize>,
    pub(super) message: String,
    pub(super) help: String,
}

/// The first name in a range of a template that means nothing.
fn unknown_name(text: &str, range: &Range<usize>, scope: &Value) -> Option<Unknown> {
    let part = text.get(range.clone())?;
    for path in dotted_names(part) {
        let mut value = scope.clone();
        let mut parent = String::new();
        for (start, name) in path {
            let next = value.get_attr(name).ok().filter(|next| !next.is_undefined());
            if let Some(next) = next {
                value = next;
                if !parent.is_empty() {
                    parent.push('.');
                }
                parent.push_str(name);
                continue;
            }
            let start = range.start + start;
            return Some(describe(&value, &parent, name, start..start + name.len()));
        }
    }
    None
}

fn describe(owner: &Value, parent: &str, name: &str, range: Range<usize>) -> Unknown {
    if parent == "outputs" && matches!(name, "stdout" | "stderr") {
        let message = format!("there is no `{name}` in `{parent}`");
        let help = format!(
            "a task prints, and {name} = \"path\" makes an output of it: nothing is written there"
        );
        return Unknown { range, message, help };
    }
    let known: Vec<String> =
        owner.try_iter().map(|keys| keys.map(|key| key.to_string()).collect()).unwrap_or_default();
    let none = match parent {
        "inputs" => "this task declares no inputs",
        "outputs" => "this task declares no outputs",
        _ => "this workflow declares no parameters",
    };
    if known.is_empty() && matches!(parent, "inputs" | "outputs" | "params") {
        let message = format!("there is no `{name}` in `{parent}`");
        return Unknown { range, message, help: none.to_owned() };
    }
    let known = known.iter().map(String::as_str);
    let (message, help) = if parent.is_empty() {
        let help = match name {
            "inputs" | "outputs" => {
                "the files of a task are known in run, argv and env, not in its paths".to_owned()
            }
            _ => suggestion(name, known, "name"),
        };
        (format!("`{name}` is not defined"), help)
    } else {
        (format!("there is no `{name}` in `{parent}`"), suggestion(name, known, "name"))
    };
    Unknown { range, message, help }
}

/// Names such as `inputs.reads` in an expression, each name with its offset.
fn dotted_names(part: &str) -> Vec<Vec<(usize, &str)>> {
    const WORDS: [&str; 14] = [
        "if",
        "else",
        "elif",
        "for",
        "in",
        "not",
        "and",
        "or",
        "is",
        "true",
        "false",
        "none",
        "set",
        "recursive",
    ];
    let mut paths: Vec<Vec<(usize, &str)>> = Vec::new();
    let mut quote = None;
    let mut after = ' ';
    let mut rest = part.char_indices().peekable();
    while let Some((start, c)) = rest.next() {
        if quote.is_some() {
            quote = quote.filter(|quote| *quote != c);
            continue;
        }
        if c == '"' || c == '\'' {
            quote = Some(c);
        }
        if !(c.is_alphabetic() || c == '_') {
            if !c.is_whitespace() {
                after = c;
            }
            continue;
        }
        let mut end = start + c.len_utf8();
        while let Some((at, c)) = rest.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
            end = at + c.len_utf8();
        }
        let name = part.get(start..end).unwrap_or_default();
        match after {
            '.' => {
                if let Some(path) = paths.last_mut() {
                    path.push((start, name));
                }
            }
            // The name of a filter.
            '|' => {}
            _ if WORDS.contains(&name) => {}
            _ => paths.push(vec![(start, name)]),
        }
        after = ' ';
    }
    paths
}

/// The place of a part of a string, given by offsets into the string's value.
pub(super) fn within(sources: &Sources, text: &Text, range: Range<usize>) -> Place {
    let raw = sources.slice(text.place);
    let offset = |at: usize| {
        let at = raw_offset(raw, at).min(raw.len());
        text.place.start + u32::try_from(at).unwrap_or(0)
    };
    let (start, end) = (offset(range.start), offset(range.end));
    Place { file: text.place.file, start, end: end.max(start + 1) }
}

/// Where the byte at an offset of a TOML string's value stands in its source.
fn raw_offset(raw: &str, value_offset: usize) -> usize {
    let (prefix, escapes) = if raw.starts_with("\"\"\"") {
        (3, true)
    } else if raw.starts_with("'''") {
        (3, false)
    } else if raw.starts_with('"') {
        (1, true)
    } else {
        (usize::from(raw.starts_with('\'')), false)
    };
    let body = raw.get(prefix..).unwrap_or("");
    let newline = match prefix {
        3 if body.starts_with("\r\n") => 2,
        3 if body.starts_with('\n') => 1,
        _ => 0,
    };
    let prefix = prefix + newline;
    if !escapes {
        return prefix + value_offset;
    }
    let body = raw.get(prefix..).unwrap_or("");
    let (mut at, mut value) = (0, 0);
    while value < value_offset && at < body.len() {
        let (raw_length, value_length) = escape_at(body.get(at..).unwrap_or(""));
        at += raw_length;
        value += value_length;
    }
    prefix + at
}

/// How long the next character of a basic string is, in its source and in its value.
fn escape_at(rest: &str) -> (usize, usize) {
    let mut chars = rest.chars();
    let first = chars.next().map_or(1, char::len_utf8);
    if !rest.starts_with('\\') {
        return (first, first);
    }
    let digits = match chars.next() {
        Some('u') => 4,
        Some('U') => 8,
        Some('x') => 2,
        Some(c) if c.is_whitespace() => {
            let skipped = rest.len() - 1 - chars.as_str().trim_start().len();
            return (1 + skipped, 0);
        }
        _ => return (2, 1),
    };
    let code = rest.get(2..2 + digits).and_then(|text| u32::from_str_radix(text, 16).ok());
    (2 + digits, code.and_then(char::from_u32).map_or(1, char::len_utf8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_through_escapes() {
        assert_eq!(raw_offset("'ab'", 1), 2);
        assert_eq!(raw_offset(r#""a\tb""#, 2), 4);
        assert_eq!(raw_offset(r#""\u00e9b""#, 2), 7);
        assert_eq!(raw_offset("\"\"\"\nab\\\n   c\"\"\"", 2), 6);
        assert_eq!(raw_offset("'''\r\nab'''", 1), 6);
    }

    #[test]
    fn names_of_an_expression_are_found() {
        let names: Vec<String> = dotted_names("a.b | upper ~ 'x.y' if c else dd . e")
            .into_iter()
            .map(|path| path.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join("."))
            .collect();
        assert_eq!(names, ["a.b", "c", "dd.e"]);
    }
}
