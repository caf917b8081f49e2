//! The memo key: the identity of a computation, the same on every machine.
//!
//! In the key: command, declared version and environment, input names with digests, output names.
//! Deliberately not in the key: where inputs come from, times, hosts, retries, resources, executor,
//! and what a task says makes no difference ([`Uncounted`](crate::Uncounted)).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Command, Content, Digest, Digester, InputSpec, Kind, TaskSpec};

/// The identity of a computation: equal keys, equal outputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemoKey(pub Digest);

impl std::fmt::Debug for MemoKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoKey({})", self.0.short())
    }
}

impl std::fmt::Display for MemoKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One part of what a key is made of, kept to say later which part changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyPart {
    /// Which part: `command`, `input reads.fq`, `env THREADS`.
    pub name: String,
    /// Its value as text; digests in hexadecimal.
    pub value: String,
}

/// The version of the encoding, its first byte after the prefix.
pub const KEY_VERSION: u8 = 1;

/// The memo key of a task whose inputs hold `contents` (`None`: an optional input that is absent),
/// one for each input in the order of [`TaskSpec::inputs`], and which is given `values`, one for
/// each of [`TaskSpec::takes`] (`None`: a task that leaves none).
///
/// Format, version 1: `keelboat-memo-key\0` `0x01`, then each part of [`key_parts`] as a 0x01 byte,
/// the name's length (u64, little-endian), the name, the value's length, the value. The parts, in
/// this order: `shell` and `command`, or `argv`, or `function` (its name) and `arguments` (their
/// digest), or for what is made late `shell` and `template`, or `argv template`, and then each
/// `argument NAME` (its digest); since what is made late finds its files by their labels, then each
/// `inputs LABEL N` and `outputs LABEL N` (the path in the scratch directory of the Nth one of this
/// label, from 0 on), by label, and for a function each `outputs LABEL N`; `version` if there is one; `container` if there is one; `nodes` and `ranks` of an MPI
/// program; `value N` from 0 on, a digest or `none`; `env NAME`, by name;
/// `input PATH` and `output PATH`, each by their path in the scratch directory. The value of
/// `shell`, `argv` and `argv template` is the list of arguments, joined by spaces, each of them as it is when it
/// consists of ASCII letters, digits and `_@%+=:,./-`, and otherwise between single quotes, with
/// `'\\''` for a single quote: so different lists have different texts. The value of an input is
/// its digest, `directory` and its digest, or `absent`; that of an output is its kind, behind
/// `optional` if it is, or `stdout` or `stderr` when it is what the command prints.
pub fn memo_key(
    task: &TaskSpec,
    contents: &[Option<Content>],
    values: &[Option<Digest>],
) -> MemoKey {
    let mut digester = Digester::new();
    digester.update(b"keelboat-memo-key\0");
    digester.update(&[KEY_VERSION]);
    each_part(task, contents, values, &mut |prefix, name, value| {
        digester.update(&[1]);
        let separator = usize::from(!name.is_empty());
        digester.update(&((prefix.len() + separator + name.len()) as u64).to_le_bytes());
        digester.update(prefix.as_bytes());
        digester.update(&b" "[..separator]);
        digester.update(name.as_bytes());
        digester.update(&(value.len() as u64).to_le_bytes());
        digester.update(value.as_bytes());
    });
    MemoKey(digester.finish())
}

/// What a task's key is made of, in the order in which it is hashed.
pub fn key_parts(
    task: &TaskSpec,
    contents: &[Option<Content>],
    values: &[Option<Digest>],
) -> Vec<KeyPart> {
    let mut parts = Vec::new();
    each_part(task, contents, values, &mut |prefix, name, value| {
        let name = if name.is_empty() { prefix.to_owned() } else { format!("{prefix} {name}") };
        parts.push(KeyPart { name, value: value.to_owned() });
    });
    parts
}

/// A difference between what a key was made of and what it is made of now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The part's name.
    pub part: String,
    /// Its value before; `None`: it was not there.
    pub old: Option<String>,
    /// Its value now; `None`: it is not there.
    pub new: Option<String>,
}

/// The parts that differ, in the order of the new key, then those that are gone.
pub fn key_changes(old: &[KeyPart], new: &[KeyPart]) -> Vec<KeyChange> {
    let value_in = |parts: &[KeyPart], name: &str| {
        parts.iter().find(|part| part.name == name).map(|part| part.value.clone())
    };
    let mut changes = Vec::new();
    for part in new {
        let before = value_in(old, &part.name);
        if before.as_ref() != Some(&part.value) {
            changes.push(KeyChange {
                part: part.name.clone(),
                old: before,
                new: Some(part.value.clone()),
            });
        }
    }
    for part in old {
        if value_in(new, &part.name).is_none() {
            changes.push(KeyChange {
                part: part.name.clone(),
                old: Some(part.value.clone()),
                new: None,
            });
        }
    }
    changes
}

/// Calls `part` with (prefix, name, value) for each part, in the order of the encoding.
fn each_part(
    task: &TaskSpec,
    contents: &[Option<Content>],
    values: &[Option<Digest>],
    part: &mut dyn FnMut(&str, &str, &str),
) {
    assert_eq!(task.inputs.len(), contents.len(), "one content for each input of {}", task.name);
    assert_eq!(task.takes.len(), values.len(), "one value for each that {} takes", task.name);
    command_parts(task, part);
    if let Some(version) = &task.options.version {
        part("version", "", version);
    }
    if let Some(image) = &task.options.container {
        part("container", "", image);
    }
    if let Some(ranks) = task.options.ranks {
        part("nodes", "", &ranks.nodes.to_string());
        part("ranks", "", &ranks.total().to_string());
    }
    let uncounted = task.options.uncounted.as_deref();
    for (at, value) in values.iter().enumerate() {
        if uncounted.is_some_and(|ignored| ignored.takes.contains(&at)) {
            continue;
        }
        let value = value.map_or_else(|| "none".to_owned(), |digest| digest.to_hex());
        part("value", &at.to_string(), &value);
    }
    for (name, value) in task.options.env.iter() {
        if uncounted.is_some_and(|ignored| ignored.env.contains(name)) {
            continue;
        }
        part("env", name, value);
    }
    let mut inputs: Vec<_> = task.inputs.iter().zip(contents).collect();
    inputs.sort_by(|(a, _), (b, _)| a.scratch_path.cmp(&b.scratch_path));
    for (input, content) in inputs {
        if !counts(task, input) {
            continue;
        }
        let value = match content {
            None => "absent".to_owned(),
            Some(Content { digest, kind: Kind::File, .. }) => digest.to_hex(),
            Some(Content { digest, kind: Kind::Directory, .. }) => format!("directory {digest}"),
        };
        part("input", &input.scratch_path, &value);
    }
    let mut outputs: Vec<_> = task.outputs.iter().collect();
    outputs.sort_by(|a, b| a.scratch_path.cmp(&b.scratch_path));
    for output in outputs {
        let value = match (output.captures, output.kind, output.optional) {
            (Some(stream), ..) => stream.name(),
            (None, Kind::File, false) => "file",
            (None, Kind::File, true) => "optional file",
            (None, Kind::Directory, false) => "directory",
            (None, Kind::Directory, true) => "optional directory",
        };
        part("output", &output.scratch_path, value);
    }
}

/// The parts of what is run.
fn command_parts(task: &TaskSpec, part: &mut dyn FnMut(&str, &str, &str)) {
    match &task.command {
        Command::Shell { shell, script } => {
            part("shell", "", &quoted(shell));
            part("command", "", script);
        }
        Command::Argv(argv) => part("argv", "", &quoted(argv)),
        Command::Template { shell, words, arguments } => {
            match shell {
                Some(shell) => {
                    part("shell", "", &quoted(shell));
                    part("template", "", &words.join("\n"));
                }
                None => part("argv template", "", &quoted(words)),
            }
            for (name, digest) in arguments.iter() {
                part("argument", name, &digest.to_hex());
            }
            let inputs = task.inputs.iter().filter(|input| counts(task, input));
            let inputs = inputs.map(|input| (&*input.label, &*input.scratch_path));
            each_label("inputs", inputs, part);
            each_label("outputs", labelled_outputs(task), part);
        }
        Command::Function { name, arguments } => {
            part("function", "", name);
            part("arguments", "", &arguments.to_hex());
            each_label("outputs", labelled_outputs(task), part);
        }
    }
}

/// Whether this input makes a difference.
fn counts(task: &TaskSpec, input: &InputSpec) -> bool {
    let uncounted = task.options.uncounted.as_deref();
    !uncounted.is_some_and(|ignored| ignored.inputs.contains(&input.scratch_path))
}

fn labelled_outputs(task: &TaskSpec) -> impl Iterator<Item = (&str, &str)> {
    task.outputs.iter().map(|output| (&*output.label, &*output.scratch_path))
}

/// Which file is meant by which label, and by which place among those of one label.
fn each_label<'t>(
    prefix: &str,
    files: impl Iterator<Item = (&'t str, &'t str)>,
    part: &mut dyn FnMut(&str, &str, &str),
) {
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (label, path) in files {
        labels.entry(label).or_default().push(path);
    }
    for (label, paths) in labels {
        for (at, path) in paths.into_iter().enumerate() {
            part(prefix, &format!("{label} {at}"), path);
        }
    }
}

/// A list of arguments as a POSIX shell would read it back.
fn quoted(arguments: &[String]) -> String {
    let mut text = String::new();
    for (at, argument) in arguments.iter().enumerate() {
        if at > 0 {
            text.push(' ');
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
        if !argument.is_empty() && argument.bytes().all(plain) {
            text.push_str(argument);
        } else {
            text.push('\'');
            text.push_str(&argument.replace('\'', "'\\''"));
            text.push('\'');
        }
    }
    text
}
