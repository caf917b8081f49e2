//! The shell that runs a script when the file names none.

use std::sync::{Arc, LazyLock};

/// `/bin/sh -e -c`; for a script with a pipe `bash -e -o pipefail -c` where there is a `bash`, so
/// that a pipe of which any part fails does not count as a success.
///
/// What is chosen is part of the memo key, hence `bash` without the directory that it is in.
pub(super) fn default_for(script: &str) -> Arc<[String]> {
    static PLAIN: LazyLock<Arc<[String]>> = LazyLock::new(|| words(&["/bin/sh", "-e", "-c"]));
    static PIPES: LazyLock<Arc<[String]>> = LazyLock::new(|| {
        if on_path("bash") { words(&["bash", "-e", "-o", "pipefail", "-c"]) } else { PLAIN.clone() }
    });
    if has_pipe(script) { PIPES.clone() } else { PLAIN.clone() }
}

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
