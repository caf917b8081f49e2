//! Reasons, in words.

use keelboat_engine::{KeyChange, Reason};

use super::terminal::plain;

/// The longest value that is shown whole.
const VALUE_CHARS_MAX: usize = 60;

/// Why a task has to run, on one line.
pub(super) fn reason(reason: &Reason) -> String {
    match reason {
        Reason::FirstRun => "it never ran before".to_owned(),
        Reason::Changed(change) => changed(change),
        Reason::Forced => "it was asked for by --force".to_owned(),
        Reason::CacheOff => "it says `cache = false`".to_owned(),
        Reason::OutputMissing { path } => format!("its output {} is gone", plain(path)),
        Reason::OutputChanged { path } => {
            format!("its output {} is not what it wrote", plain(path))
        }
        Reason::RecordLost => "what was remembered of it is lost".to_owned(),
        Reason::ResultLost => "its result was lost and is needed again".to_owned(),
    }
}

/// All reasons on one line.
pub(super) fn reasons(all: &[Reason]) -> String {
    all.iter().map(reason).collect::<Vec<_>>().join("; ")
}

fn changed(change: &KeyChange) -> String {
    let part = plain(&change.part);
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let (old, new) = around_the_difference(old, new);
            format!("{part} changed: {} → {}", value(&old), value(&new))
        }
        (None, Some(new)) => format!("{part} is new: {}", value(new)),
        (Some(old), None) => format!("{part} is gone: {}", value(old)),
        (None, None) => format!("{part} changed"),
    }
}

/// A digest by its first digits, other values as they are, when they are not too long.
fn value(value: &str) -> String {
    let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let limit = if is_digest { 12 } else { VALUE_CHARS_MAX };
    let value = plain(value);
    if value.chars().count() <= limit {
        return value;
    }
    value.chars().take(limit).chain(['…']).collect()
}

/// Two long texts from shortly before their first difference on, so that it is seen.
fn around_the_difference(old: &str, new: &str) -> (String, String) {
    const BEFORE_CHARS: usize = 16;
    let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
    let skipped = same.saturating_sub(BEFORE_CHARS);
    let fits = |text: &str| text.chars().count() <= VALUE_CHARS_MAX;
    if skipped == 0 || (fits(old) && fits(new)) {
        return (old.to_owned(), new.to_owned());
    }
    let rest = |text: &str| ['…'].into_iter().chain(text.chars().skip(skipped)).collect();
    (rest(old), rest(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_far_behind_is_shown() {
        let old = format!("{} old end", "x".repeat(100));
        let new = format!("{} new end", "x".repeat(100));
        let change = KeyChange { part: "command".to_owned(), old: Some(old), new: Some(new) };
        let text = reason(&Reason::Changed(change));
        assert_eq!(text, "command changed: …xxxxxxxxxxxxxxx old end → …xxxxxxxxxxxxxxx new end");
    }
}
