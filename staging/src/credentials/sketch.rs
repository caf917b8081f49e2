//! The line of a file with credentials that is wrong, as people are shown it: its key, and nothing
//! of what the key holds.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::KEYS;

/// The place, the line and what in it is meant; no values.
pub(super) fn draw(name: &str, text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = 1 + before.matches('\n').count();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let (shown, column) = match (header_at(text, start), key_range(text, at)) {
        (Some(header), _) => (header.to_owned(), 1),
        (None, Some(range)) => {
            let key = text.get(range.clone()).unwrap_or_default();
            (format!("{key} = ..."), range.start.saturating_sub(start) + 1)
        }
        (None, None) => ("...".to_owned(), 1),
    };
    let underlined = shown.strip_suffix(" = ...").unwrap_or(&shown).chars().count();
    let (left, right) = ((underlined - 1) / 2, underlined / 2);
    let (number, margin) = (line.to_string(), " ".repeat(line.to_string().len()));
    format!(
        "\n {margin} ╭─[{name}:{line}:{column}]\n {number} │ {shown}\n {margin} · {}┬{}\n \
         {margin} · {}╰── here\n {margin} ╰────",
        "─".repeat(left),
        "─".repeat(right),
        " ".repeat(left),
    )
}

/// The key that a place is about: it stands before it on the same line.
pub(super) fn key_at(text: &str, at: usize) -> Option<&str> {
    text.get(key_range(text, at)?)
}

/// Where a key of an entry stands.
pub(super) fn key_of_entry(text: &str, number: usize, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let list = table.get_ref().get("credential")?.get_ref().as_array()?;
    let entry = list.get(number)?.get_ref().as_table()?;
    let (key, _) = entry.iter().find(|(name, _)| name.get_ref() == key)?;
    Some(key.span().start)
}

fn key_range(text: &str, at: usize) -> Option<Range<usize>> {
    let is_on_line = |range: &Range<usize>| {
        range.start <= at && text.get(range.start..at).is_some_and(|part| !part.contains('\n'))
    };
    if let Ok(table) = DeTable::parse(text) {
        let mut keys = Vec::new();
        collect(table.get_ref(), &mut keys);
        return keys.into_iter().filter(is_on_line).max_by_key(|range| range.start);
    }
    // What looks like a key may be a part of a secret of several lines: only known ones are keys.
    let before = text.get(..at)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next()?;
    let (key, _) = line.split_once('=')?;
    let indent = key.len() - key.trim_start().len();
    let key = key.trim();
    let range = start + indent..start + indent + key.len();
    KEYS.iter().any(|(known, _)| *known == key).then_some(range)
}

fn collect(table: &DeTable<'_>, keys: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        keys.push(key.span());
        collect_below(value, keys);
    }
}

fn collect_below(value: &Spanned<DeValue<'_>>, keys: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => collect(table, keys),
        DeValue::Array(list) => list.iter().for_each(|value| collect_below(value, keys)),
        _ => {}
    }
}

/// The head of an entry, when the line is one.
fn header_at(text: &str, start: usize) -> Option<&str> {
    let line = text.get(start..)?.lines().next()?.trim();
    let name = line.trim_start_matches('[').trim_end_matches(']');
    matches!(name, "credential" | "credentials").then_some(line)
}
