//! From `inputs` and `outputs` to declarations of files.

use super::declaration::{InputItem, InputSource, Named, OutputItem, Text};
use super::reader::{NameRule, Reader, Spot, in_order};

use keelboat_engine::Stream;
use toml::de::{DeTable, DeValue};

/// The keys of an input that is a table.
pub(super) const INPUT_KEYS: [&str; 9] =
    ["path", "url", "urls", "from", "text", "sha256", "as", "optional", "directory"];

/// The keys of an output that is a table.
pub(super) const OUTPUT_KEYS: [&str; 4] = ["path", "to", "optional", "directory"];

/// Those of what a command prints.
pub(super) const PRINTED_KEYS: [&str; 2] = ["path", "to"];

const INPUT_HELP: &str = "write a path or URL in quotes, a table such as { url = \"https://…\" }, \
                          { path = \"…\" } or { from = \"task.output\" }, or a list of these";
const OUTPUT_HELP: &str =
    "write a path in quotes, a table such as { path = \"…\", to = \"URL\" }, or a list of these";
const PRINTED_HELP: &str =
    "write a path in quotes, or a table such as { path = \"…\", to = \"URL\" }";

impl Reader<'_> {
    pub(super) fn inputs(&mut self, value: &Spot<'_>) -> Vec<Named<InputItem>> {
        self.files(value, "inputs", Self::input)
    }

    pub(super) fn outputs(&mut self, value: &Spot<'_>) -> Vec<Named<OutputItem>> {
        self.files(value, "outputs", Self::output)
    }

    fn files<T>(
        &mut self,
        value: &Spot<'_>,
        what: &str,
        read: fn(&mut Self, &Spot<'_>) -> Option<T>,
    ) -> Vec<Named<T>> {
        let help = format!("write {what} = {{ label = \"path\" }}");
        let Some(table) = self.table(value, what, &help) else {
            return Vec::new();
        };
        let mut named = Vec::with_capacity(table.len());
        for (key, value) in in_order(table) {
            let label = self.name(key, "a file", NameRule::Identifier);
            let place = self.place(key.span());
            let (list, items) = match value.get_ref() {
                DeValue::Array(array) => {
                    (true, array.iter().filter_map(|value| read(self, value)).collect())
                }
                _ => (false, read(self, value).into_iter().collect()),
            };
            named.push(Named { label, place, list, items });
        }
        named
    }

    fn input(&mut self, value: &Spot<'_>) -> Option<InputItem> {
        let plain = |source, directory| InputItem {
            source,
            sha256: None,
            rename: None,
            optional: false,
            directory,
        };
        match value.get_ref() {
            DeValue::String(_) => {
                let text = self.text(value, "an input", INPUT_HELP)?;
                let directory = text.value.ends_with('/');
                Some(plain(InputSource::Path(text), directory))
            }
            DeValue::Table(table) => {
                self.check_keys(table, &INPUT_KEYS, "an input");
                let source = self.input_source(value, table)?;
                let slash = matches!(&source, InputSource::Path(text) if text.value.ends_with('/'));
                Some(InputItem {
                    sha256: self.text_of(table, "sha256", "write 64 hexadecimal digits in quotes"),
                    rename: self.text_of(table, "as", "write a file name in quotes"),
                    optional: self.bool(table.get("optional"), "optional").unwrap_or(false),
                    directory: self.bool(table.get("directory"), "directory").unwrap_or(slash),
                    source,
                })
            }
            _ => {
                self.wrong_kind(value, "an input", "a string or a table", INPUT_HELP);
                None
            }
        }
    }

    /// Exactly one of `path`, `url`, `urls`, `from`, `text`.
    fn input_source(&mut self, value: &Spot<'_>, table: &DeTable<'_>) -> Option<InputSource> {
        let given: Vec<_> = in_order(table)
            .into_iter()
            .filter(|(key, _)| {
                ["path", "url", "urls", "from", "text"].contains(&key.get_ref().as_ref())
            })
            .collect();
        let (key, source) = match given.as_slice() {
            [one] => *one,
            [] => {
                let problem = self
                    .problem(value.span(), "this input does not say where it comes from")
                    .help("add one of path, url, urls, from or text");
                self.problems.push(problem);
                return None;
            }
            [(first, _), (second, _), ..] => {
                let problem = self.problem(second.span(), "this input comes from two places").help(
                    "keep one of path, url, urls, from, text; several addresses of one file go into urls",
                );
                let place = self.place(first.span());
                let problem = self.sources.also(problem, place, "and here");
                self.problems.push(problem);
                return None;
            }
        };
        match key.get_ref().as_ref() {
            "urls" => {
                let help = "write a list of addresses of the same file, the preferred one first";
                let urls = self.texts(source, "urls", help)?;
                if urls.is_empty() {
                    let problem = self.problem(source.span(), "urls is empty").help(help);
                    self.problems.push(problem);
                    return None;
                }
                Some(InputSource::Urls(urls))
            }
            "url" => Some(InputSource::Urls(vec![self.text(
                source,
                "url",
                "write url = \"https://…\"",
            )?])),
            "from" => {
                let help = "write from = \"task.output\"";
                self.text(source, "from", help).map(InputSource::From)
            }
            "text" => self.text(source, "text", "write text = \"...\"").map(InputSource::Text),
            _ => self.text(source, "path", "write path = \"…\"").map(InputSource::Path),
        }
    }

    /// Adds what the command prints, as far as it is to be a file, after what it writes.
    pub(super) fn printed(&mut self, table: &DeTable<'_>, outputs: &mut Vec<Named<OutputItem>>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some((key, value)) = table.get_key_value(stream.name()) else { continue };
            let (label, place) = (stream.name().into(), self.place(key.span()));
            if let Some(other) = outputs.iter().find(|named| named.label == label) {
                let problem = self
                    .problem(key.span(), format!("two outputs of the task are called `{label}`"))
                    .help("what is printed has this name: give the one in outputs another");
                let problem = self.sources.also(problem, other.place, "and here");
                self.problems.push(problem);
                continue;
            }
            let items = self.output_of(value, PRINTED_HELP, &PRINTED_KEYS).into_iter();
            let items = items.filter_map(|item| {
                if item.directory {
                    let place = item.path.place;
                    let problem = self.sources.problem(place, format!("{label} is one file"));
                    self.problems.push(problem.help("write its path without a slash at the end"));
                    return None;
                }
                Some(OutputItem { captures: Some(stream), ..item })
            });
            let items = items.collect();
            outputs.push(Named { label, place, list: false, items });
        }
    }

    fn output(&mut self, value: &Spot<'_>) -> Option<OutputItem> {
        self.output_of(value, OUTPUT_HELP, &OUTPUT_KEYS)
    }

    fn output_of(
        &mut self,
        value: &Spot<'_>,
        help: &str,
        keys: &'static [&'static str],
    ) -> Option<OutputItem> {
        match value.get_ref() {
            DeValue::String(_) => {
                let path = self.text(value, "an output", help)?;
                let directory = path.value.ends_with('/');
                Some(OutputItem { path, to: None, optional: false, directory, captures: None })
            }
            DeValue::Table(table) => {
                self.check_keys(table, keys, "an output");
                let Some(path) = table.get("path") else {
                    let problem = self
                        .problem(value.span(), "this output has no path")
                        .help("add path = \"…\", the place where it appears after success");
                    self.problems.push(problem);
                    return None;
                };
                let path = self.text(path, "path", "write path = \"…\"")?;
                let slash = path.value.ends_with('/');
                Some(OutputItem {
                    to: self.text_of(table, "to", "write an address in quotes"),
                    optional: self.bool(table.get("optional"), "optional").unwrap_or(false),
                    directory: self.bool(table.get("directory"), "directory").unwrap_or(slash),
                    captures: None,
                    path,
                })
            }
            _ => {
                self.wrong_kind(value, "an output", "a string or a table", help);
                None
            }
        }
    }

    fn text_of(&mut self, table: &DeTable<'_>, key: &str, help: &str) -> Option<Text> {
        table.get(key).and_then(|value| self.text(value, key, help))
    }
}
