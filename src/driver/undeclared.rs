//! The mistake that everybody makes once: a task that uses a file of the project which it does not
//! declare, and so does not find in its scratch directory.

use std::collections::BTreeSet;

use keelboat_engine::{AttemptOutcome, Command, FailureClass, InputSpec, OutputSpec};

use crate::project::Project;

/// Names that are named in the hint.
const NAMED_MAX: usize = 3;

/// Adds a hint to a failure when the command names files that are in the project and no inputs.
pub(super) fn hint(
    outcome: &mut AttemptOutcome,
    command: &Command,
    inputs: &[(InputSpec, keelboat_engine::Content)],
    outputs: &[OutputSpec],
    project: &Project,
) {
    let Err(failure) = &mut outcome.result else { return };
    let may_be = matches!(failure.class, FailureClass::Transient | FailureClass::Permanent);
    if !may_be || (failure.hint.is_some() && failure.class != FailureClass::Permanent) {
        return;
    }
    let known = |word: &str| {
        let covers = |declared: &str| {
            word == declared
                || word.strip_prefix(declared).is_some_and(|rest| rest.starts_with('/'))
        };
        inputs.iter().any(|(input, _)| covers(&input.scratch_path))
            || outputs.iter().any(|output| covers(&output.scratch_path))
    };
    let found: BTreeSet<&str> = words(command)
        .into_iter()
        .map(|word| word.trim_start_matches("./"))
        .filter(|word| looks_like_a_path(word) && !known(word))
        .filter(|word| project.resolve(word).is_file())
        .collect();
    if found.is_empty() {
        return;
    }
    let named: Vec<&str> = found.into_iter().take(NAMED_MAX).collect();
    failure.hint = Some(format!(
        "{} in the project, but no input of the task, which runs in a directory of its own: \
         declare it under `inputs`",
        match named.as_slice() {
            [one] => format!("{one} is"),
            several => format!("{} are", several.join(", ")),
        }
    ));
}

fn words(command: &Command) -> Vec<&str> {
    match command {
        Command::Function { .. } => Vec::new(),
        Command::Argv(argv) | Command::Template { shell: None, words: argv, .. } => {
            argv.iter().map(String::as_str).collect()
        }
        Command::Shell { script, .. } => words_of_script(script).collect(),
        Command::Template { words, .. } => {
            words.iter().flat_map(|script| words_of_script(script)).collect()
        }
    }
}

fn words_of_script(script: &str) -> impl Iterator<Item = &str> {
    script.split(|c: char| c.is_whitespace() || "'\"`$(){}<>|&;=".contains(c))
}

/// A plain relative path; a word without `/` or `.` is rather the name of a program.
fn looks_like_a_path(word: &str) -> bool {
    let parts = word.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    parts && word.len() > 2 && (word.contains('/') || word.contains('.'))
}
