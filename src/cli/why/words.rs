//! Why a task had to run, in words.

use keelboat_engine::{KeyChange, RETRY_COST, Reason};

use super::diff::{Line, diff};
use crate::cli::past::Picture;
use crate::cli::terminal::{Colour, Terminal, plain};

/// The reason as a sentence about "it", then lines that show more.
pub(super) fn reason(reason: &Reason, run: &Picture, terminal: &Terminal) -> (String, Vec<String>) {
    let sentence = match reason {
        Reason::FirstRun => {
            "nothing was remembered of a task with its name: its first run".to_owned()
        }
        Reason::Changed(change) => return changed(change, run, terminal),
        Reason::Forced => "it was forced, with `--force`".to_owned(),
        Reason::CacheOff => {
            "its results are never reused, since it says `cache = false`".to_owned()
        }
        Reason::OutputMissing { path } => {
            format!("its output {} was missing, and is not in the object cache", plain(path))
        }
        Reason::OutputChanged { path } => format!(
            "its output {} held other bytes than it had written, which are not in the object cache",
            plain(path)
        ),
        Reason::RecordLost => {
            "what was remembered of its last result is lost or damaged".to_owned()
        }
        Reason::ResultLost => "its result was lost, and was needed again".to_owned(),
    };
    (sentence, Vec::new())
}

/// What a failed attempt cost, where that was not one retry.
pub(super) fn cost(thousandths: u32) -> String {
    match thousandths {
        RETRY_COST => String::new(),
        other => format!(" at the cost of {} retries", f64::from(other) / f64::from(RETRY_COST)),
    }
}

fn changed(change: &KeyChange, run: &Picture, terminal: &Terminal) -> (String, Vec<String>) {
    let (kind, name) = change.part.split_once(' ').unwrap_or((&change.part, ""));
    let name = plain(name);
    match kind {
        "command" | "shell" | "argv" => text_changed(kind, change, terminal),
        "version" => (of_values("its version", change, |value| format!("{value:?}")), Vec::new()),
        "env" => {
            let what = format!("its environment variable {name}");
            (of_values(&what, change, |value| format!("{value:?}")), Vec::new())
        }
        "input" => {
            let mut sentence = of_values(&format!("its input {name}"), change, digest_in_short);
            if let Some(writer) = change.part.split_once(' ').and_then(|(_, path)| run.writer(path))
            {
                sentence.extend([format!("; {} wrote it in this run", plain(writer))]);
            }
            (sentence, Vec::new())
        }
        "output" => (of_values(&format!("its output {name}"), change, plain), Vec::new()),
        _ => (of_values(&plain(&change.part), change, plain), Vec::new()),
    }
}

fn text_changed(kind: &str, change: &KeyChange, terminal: &Terminal) -> (String, Vec<String>) {
    let shown = |value: &Option<String>| value.clone().unwrap_or_default();
    let what = if kind == "shell" { "its shell" } else { "its command" };
    let sentence = match (&change.old, &change.new) {
        (None, _) => format!("{what} is new here:"),
        (_, None) => format!("{what} is not there any more:"),
        _ => format!("{what} changed:"),
    };
    let (old, new) = (shown(&change.old), shown(&change.new));
    let lines = diff(&old, &new);
    let lines = lines.into_iter().map(|line| match line {
        Line::Same(text) => format!("  {}", plain(text)),
        Line::Old(text) => terminal.paint(Colour::Red, format!("- {}", plain(text))),
        Line::New(text) => terminal.paint(Colour::Green, format!("+ {}", plain(text))),
        Line::Gap => terminal.paint(Colour::Dim, "  …"),
    });
    (sentence, lines.collect())
}

fn of_values(what: &str, change: &KeyChange, shown: impl Fn(&str) -> String) -> String {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{what} changed: {} → {}", shown(old), shown(new)),
        (None, Some(new)) => format!("{what} is new: {}", shown(new)),
        (Some(old), None) => format!("{what} is not there any more; it was {}", shown(old)),
        (None, None) => format!("{what} changed"),
    }
}

/// The first digits of a digest; `absent` and the like as they are.
fn digest_in_short(value: &str) -> String {
    value.parse().map_or_else(|_| plain(value), |digest: keelboat_engine::Digest| digest.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(part: &str, old: Option<&str>, new: Option<&str>) -> String {
        let (old, new) = (old.map(ToOwned::to_owned), new.map(ToOwned::to_owned));
        let change = Reason::Changed(KeyChange { part: part.to_owned(), old, new });
        let (sentence, lines) = reason(&change, &Picture::default(), &Terminal::new());
        [vec![sentence], lines].concat().join("\n")
    }

    #[test]
    fn each_part_of_a_key_is_told_with_its_old_and_new_value() {
        let digests = [&"ab".repeat(32), &"cd".repeat(32)];
        assert_eq!(
            said("input a b.fq", Some(digests[0]), Some(digests[1])),
            "its input a b.fq changed: abababababab → cdcdcdcdcdcd"
        );
        assert_eq!(
            said("env N", Some("1"), None),
            "its environment variable N is not there any more; it was \"1\""
        );
        assert_eq!(said("version", None, Some("2")), "its version is new: \"2\"");
        assert_eq!(
            said("argv", Some("a 'b c'"), Some("a b")),
            "its command changed:\n- a 'b c'\n+ a b"
        );
        assert_eq!(
            said("command", Some("set -e\nsort a > b"), Some("set -e\nsort -n a > b")),
            "its command changed:\n  set -e\n- sort a > b\n+ sort -n a > b"
        );
    }
}
