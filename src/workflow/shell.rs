//! The shell that runs a script when the file names none.

use std::sync::{Arc, LazyLock};

/// Where a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Place {
    /// Among the programs of this machine.
    #[default]
    Here,
    /// Among those of an image.
    Container,
}

/// `/bin/sh -e -c`; for a script with a pipe `bash -e -o pipefail -c` where there is a `bash`, so
/// that a pipe of which any part fails does not count as a success.
///
/// What is chosen is part of the memo key, hence `bash` without the directory that it is in. What
/// an image has is found out when the script runs there, which is the same everywhere.
pub(super) fn default_for(script: &str, place: Place) -> Arc<[String]> {
    static PLAIN: LazyLock<Arc<[String]>> = LazyLock::new(|| words(&["/bin/sh", "-e", "-c"]));
    static PIPES: LazyLock<Arc<[String]>> = LazyLock::new(|| {
        if on_path("bash") { words(&["bash", "-e", "-o", "pipefail", "-c"]) } else { PLAIN.clone() }
    });
    static CONTAINED: LazyLock<Arc<[String]>> = LazyLock::new(|| words(&["/bin/sh", "-c", CHOICE]));
    match (has_pipe(script), place) {
        (false, _) => PLAIN.clone(),
        (true, Place::Here) => PIPES.clone(),
        (true, Place::Container) => CONTAINED.clone(),
    }
}

/// Runs its first argument, which is the script, by a shell that can tell of each part of a pipe.
const CHOICE: &str = "\
if command -v bash >/dev/null; then exec bash -e -o pipefail -c \"$0\"; fi
if (set -o pipefail) 2>/dev/null; then exec /bin/sh -e -o pipefail -c \"$0\"; fi
echo 'no shell of this image has `pipefail`, which a script with a pipe needs: give the task a `shell`' >&2
exit 126";

fn words(words: &[&str]) -> Arc<[String]> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Whether a script, as it is declared, has a `|` that is not part of `||` or of a template.
fn has_pipe(script: &str) -> bool {
    let mut rest = script;
    while let Some(at) = rest.find(['|', '{']) {
        let found = rest.get(at..).unwrap_or("");
        let template = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")]
            .iter()
            .find(|(open, _)| found.starts_with(open));
        rest = match template {
            Some((_, close)) => found.split_once(close).map_or("", |(_, after)| after),
            None if found.starts_with("||") => found.get(2..).unwrap_or(""),
            None if found.starts_with('|') => return true,
            None => found.get(1..).unwrap_or(""),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_seen() {
        for script in ["a | b", "a|b", "a || b | c", "{{ x | raw }} | b", "{ a; } |& b"] {
            assert!(has_pipe(script), "{script}");
        }
        for script in ["a || b", "cat {{ x | raw }}", "{% if a|length %}b{% endif %}", "a"] {
            assert!(!has_pipe(script), "{script}");
        }
    }
}
