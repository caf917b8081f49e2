//! Files of one task that would stand in one another's place in its scratch directory.

use std::collections::HashMap;

use keelboat_engine::{InputSpec, Source, TaskSpec};

use super::declaration::Declaration;
use super::paths;
use super::problem::{Place, Problem, Sources};

/// The first collision among the files of a task.
pub(super) fn find(
    sources: &Sources,
    declaration: &Declaration,
    task: &TaskSpec,
) -> Option<Problem> {
    if let Some(problem) = find_checkpoint(sources, declaration, task) {
        return Some(problem);
    }
    if task.inputs.is_empty() || task.inputs.len() + task.outputs.len() < 2 {
        return None;
    }
    let name = &task.name;
    let entries = entries(task);
    let mut seen: HashMap<&str, Entry<'_>> = HashMap::with_capacity(entries.len());
    for entry in &entries {
        // Two outputs with one path are two producers, which is reported with both places.
        let Some(first) = seen.insert(entry.path, *entry) else { continue };
        let Some(input) = first.input.or(entry.input) else { continue };
        let path = entry.path;
        if entry.input.is_none() && matches!(&input.source, Source::Path(from) if **from == *path) {
            let message = format!("task `{name}` reads {path:?}, which it also writes");
            return Some(
                pair(sources, declaration, first, *entry, message)
                    .help("a task cannot change its input; write to another path"),
            );
        }
        let message = format!("two files of task `{name}` would both be {path:?} in its directory");
        return Some(pair(sources, declaration, first, *entry, message).help(AS));
    }
    entries.iter().find_map(|entry| {
        let above = paths::ancestors(entry.path).find_map(|above| seen.get(above))?;
        let (path, above_path) = (entry.path, above.path);
        let message =
            format!("in the directory of task `{name}`, {path:?} would be inside {above_path:?}");
        // Outputs inside one another are reported with both producers.
        entry.input.or(above.input)?;
        Some(pair(sources, declaration, *above, *entry, message).help(AS))
    })
}

/// A file in the place of the checkpoint directory, in it, or around it.
fn find_checkpoint(
    sources: &Sources,
    declaration: &Declaration,
    task: &TaskSpec,
) -> Option<Problem> {
    let checkpoint = declaration.checkpoint.as_ref()?;
    let directory = &checkpoint.spec.directory;
    let is_above = |above: &str, path: &str| paths::ancestors(path).any(|other| other == above);
    let entries = entries(task);
    let entry = entries.iter().find(|entry| {
        entry.path == directory.as_ref()
            || is_above(entry.path, directory)
            || is_above(directory, entry.path)
    })?;
    let (kind, path) = (if entry.input.is_some() { "input" } else { "output" }, entry.path);
    let message = format!(
        "the checkpoint directory {directory:?} of task `{}` and its {kind} {path:?} would be in one \
         another's place",
        task.name
    );
    let problem = sources.problem(checkpoint.place, message).labelled("this directory");
    let problem = sources.also(problem, entry.place(declaration), "and this file");
    Some(problem.help("a checkpoint directory holds nothing but what the task saves; rename it"))
}

fn entries(task: &TaskSpec) -> Vec<Entry<'_>> {
    let inputs = task.inputs.iter().map(|input| Entry {
        path: &input.scratch_path,
        label: &input.label,
        input: Some(input),
    });
    let outputs = task.outputs.iter().map(|output| Entry {
        path: &output.scratch_path,
        label: &output.label,
        input: None,
    });
    inputs.chain(outputs).collect()
}

const AS: &str = "give an input another name: { path = \"…\", as = \"other-name\" }";

#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    path: &'a str,
    label: &'a str,
    /// `None`: an output.
    input: Option<&'a InputSpec>,
}

impl Entry<'_> {
    fn place(&self, declaration: &Declaration) -> Place {
        let place = if self.input.is_some() {
            let mut inputs = declaration.inputs.iter();
            inputs.find(|named| *named.label == *self.label).map(|named| named.place)
        } else {
            let mut outputs = declaration.outputs.iter();
            outputs.find(|named| *named.label == *self.label).map(|named| named.place)
        };
        place.unwrap_or(declaration.place)
    }
}

fn pair(
    sources: &Sources,
    declaration: &Declaration,
    first: Entry<'_>,
    second: Entry<'_>,
    message: String,
) -> Problem {
    let (first, second) = (first.place(declaration), second.place(declaration));
    let problem = sources.problem(second, message).labelled("this one");
    if first == second { problem } else { sources.also(problem, first, "and this one") }
}
