//! `keelboat cache repair`: makes whole what can be, and sets aside what cannot, so that the next
//! run makes it again.
//!
//! Objects come back from outputs that are in their places and whole, the memo store from journals.
//! A journal keeps its undamaged records; what a damaged one said, nobody knows any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use keelboat_checkpoint::{
    DigestCache, JournalError, MemoStore, Mended, ObjectCache, mend_journal, read_journal,
};
use keelboat_engine::{Digest, Fact, Kind, OutputRecord};
use serde::Serialize;

use super::verify::{in_words, memo_in_words};
use super::{CacheError, Desk, hold};
use crate::cli::exit::Exit;
use crate::cli::past::print_json;
use crate::cli::terminal::Colour;

#[derive(Debug, Default, Serialize)]
struct Report {
    /// What is whole again, in words.
    mended: Vec<String>,
    /// What was set aside and is made again when it is needed, in words.
    set_aside: Vec<String>,
    /// What stays as it is, in words.
    left: Vec<String>,
}

pub(super) fn repair(desk: &Desk<'_>) -> Result<Exit, CacheError> {
    let _lock = hold(desk, "keelboat cache repair")?;
    let mut report = Report::default();
    repair_journals(desk, &mut report)?;
    repair_objects(desk, &mut report)?;
    repair_memo(desk, &mut report)?;
    if desk.json {
        print_json(&report, desk.terminal);
    } else {
        tell(desk, &report);
    }
    Ok(if report.left.is_empty() { Exit::Success } else { Exit::Damaged })
}

fn tell(desk: &Desk<'_>, report: &Report) {
    let line = |colour, what: &str, text: &str| {
        desk.terminal.line(format_args!("{} {text}", desk.terminal.paint(colour, what)));
    };
    report.mended.iter().for_each(|text| line(Colour::Green, "mended:", text));
    report.set_aside.iter().for_each(|text| line(Colour::Yellow, "set aside:", text));
    report.left.iter().for_each(|text| line(Colour::Red, "left:", text));
    if report.mended.is_empty() && report.set_aside.is_empty() && report.left.is_empty() {
        line(Colour::Green, "all is whole:", "nothing to mend");
    } else if !report.set_aside.is_empty() {
        desk.terminal.line(format_args!("what was set aside is made again when it is needed"));
    }
}

fn repair_journals(desk: &Desk<'_>, report: &mut Report) -> Result<(), CacheError> {
    for run in desk.runs()? {
        let aside = desk.project.state().join("damaged").join(format!("journal-{}", run.id()));
        match mend_journal(&run.journal(), &aside) {
            Ok(Mended::Whole) => {}
            Ok(Mended::Anew { records }) => report.mended.push(format!(
                "journal of run {}: it has its {records} whole records; what it was is {}",
                run.id(),
                aside.display()
            )),
            Ok(Mended::Newer) => report.left.push(format!(
                "journal of run {}: it has records of a newer Keelboat, which can read them",
                run.id()
            )),
            // A run that died before it had one.
            Err(JournalError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error @ JournalError::Version { .. }) => {
                report.left.push(format!("journal of run {}: {error}", run.id()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn repair_objects(desk: &Desk<'_>, report: &mut Report) -> Result<(), CacheError> {
    let state = desk.project.state();
    let digests = Arc::new(DigestCache::load(&state));
    report.mended.extend(in_words("digests", &digests.damaged()));
    let objects = ObjectCache::open(&state, Arc::clone(&digests))?;
    let damaged_notes = objects.damaged_notes();
    if !damaged_notes.is_empty() {
        objects.mend_notes()?;
        report.mended.extend(in_words("objects/used", &damaged_notes));
    }
    let found = objects.verify()?;
    if !found.bad.is_empty() || !found.incomplete.is_empty() {
        keep_again(desk, &objects)?;
    }
    for bad in found.bad {
        let text = format!("object {}: {}", bad.digest, bad.what);
        if holds(&objects, &bad.digest, Kind::File) || holds(&objects, &bad.digest, Kind::Directory)
        {
            report.mended.push(format!("{text}; an output in its place had it"));
        } else {
            report.set_aside.push(format!("{text}; moved to {}", bad.quarantined.display()));
        }
    }
    for digest in found.incomplete {
        let text = format!("directory object {digest}: files of it were missing");
        if holds(&objects, &digest, Kind::Directory) {
            report.mended.push(format!("{text}; an output in its place had them"));
        } else {
            let aside = objects.set_aside(&digest);
            report.set_aside.push(format!("{text}; moved to {}", aside.display()));
        }
    }
    objects.save()?;
    Ok(digests.save()?)
}

fn holds(objects: &ObjectCache, digest: &Digest, kind: Kind) -> bool {
    objects.has(digest, kind).unwrap_or(false)
}

/// Keeps outputs that are in their places, whole, and not in the cache.
fn keep_again(desk: &Desk<'_>, objects: &ObjectCache) -> Result<(), CacheError> {
    let mut seen: BTreeSet<(Arc<str>, Digest)> = BTreeSet::new();
    for run in desk.runs()? {
        // What cannot be read was told of before.
        let Ok(recovered) = read_journal(&run.journal()) else { continue };
        for stamped in recovered.facts {
            let (Fact::Completed { record, .. } | Fact::Reused { record, .. }) = stamped.fact
            else {
                continue;
            };
            for OutputRecord { path, content, .. } in record.outputs {
                let Some(content) = content else { continue };
                if !seen.insert((Arc::clone(&path), content.digest))
                    || holds(objects, &content.digest, content.kind)
                {
                    continue;
                }
                if let Err(error) = objects.insert(&desk.project.resolve(&path), &content) {
                    tracing::debug!(%error, %path, "this output cannot stand in for an object");
                }
            }
        }
    }
    Ok(())
}

fn repair_memo(desk: &Desk<'_>, report: &mut Report) -> Result<(), CacheError> {
    let memo = MemoStore::open(&desk.project.state())?;
    let found = memo.mend()?;
    report.mended.extend(memo_in_words(&found, memo.notices()));
    memo.close()?;
    Ok(())
}
