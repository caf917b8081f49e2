//! `keelboat cache verify`: reads everything that is kept, and names what is damaged.

use std::sync::Arc;

use keelboat_checkpoint::{DigestCache, LockError, MemoStore, ObjectCache, read_journal};
use serde::Serialize;

use super::{CacheError, Desk, hold};
use crate::cli::exit::Exit;
use crate::cli::past::print_json;
use crate::cli::status::counted;
use crate::cli::terminal::{Colour, bytes};

#[derive(Debug, Default, Serialize)]
struct Report {
    objects: u64,
    bytes: u64,
    /// Each thing that is damaged, in words.
    damaged: Vec<String>,
    /// Entries of the memo store; absent when an engine was at work.
    memo_entries: Option<u64>,
    /// Results that journals have and the memo store has not: it gets them when it is next used.
    memo_missing: u64,
    journals: u64,
}

pub(super) fn verify(desk: &Desk<'_>) -> Result<Exit, CacheError> {
    let mut report = Report::default();
    verify_objects(desk, &mut report)?;
    verify_journals(desk, &mut report)?;
    verify_memo(desk, &mut report)?;
    if desk.json {
        print_json(&report, desk.terminal);
    } else {
        tell(desk, &report);
    }
    Ok(if report.damaged.is_empty() { Exit::Success } else { Exit::Damaged })
}

fn tell(desk: &Desk<'_>, report: &Report) {
    for damage in &report.damaged {
        desk.terminal
            .line(format_args!("{} {damage}", desk.terminal.paint(Colour::Red, "damaged:")));
    }
    let memo = match report.memo_entries {
        Some(entries) => format!("{entries} entries of the memo store"),
        None => "not the memo store, since an engine is at work".to_owned(),
    };
    desk.terminal.line(format_args!(
        "read {} ({}), {} and {memo}",
        counted(report.objects, "object"),
        bytes(report.bytes),
        counted(report.journals, "journal"),
    ));
    if report.damaged.is_empty() {
        desk.terminal.line(format_args!("{}", desk.terminal.paint(Colour::Green, "all is whole")));
    } else {
        desk.terminal
            .line(format_args!("what is damaged is not used; the next run makes it again"));
    }
}

fn verify_objects(desk: &Desk<'_>, report: &mut Report) -> Result<(), CacheError> {
    let state = desk.project.state();
    let objects = ObjectCache::open(&state, Arc::new(DigestCache::load(&state)))?;
    let found = objects.verify()?;
    (report.objects, report.bytes) = (found.objects, found.bytes);
    for bad in found.bad {
        let place = bad.quarantined.display();
        report.damaged.push(format!("object {}: {}; moved to {place}", bad.digest, bad.what));
    }
    for digest in found.incomplete {
        report.damaged.push(format!("directory object {digest}: files of it are missing"));
    }
    Ok(())
}

fn verify_journals(desk: &Desk<'_>, report: &mut Report) -> Result<(), CacheError> {
    let runs = desk.project.list_runs().map_err(|source| CacheError::Disk {
        doing: "list",
        path: desk.project.runs(),
        source,
    })?;
    for run in runs {
        match read_journal(&run.journal()) {
            // A torn end is what a crash leaves, or a write that is under way.
            Ok(recovered) => {
                report.journals += 1;
                for damage in recovered.damaged {
                    report.damaged.push(format!("journal of run {}: {damage}", run.id()));
                }
            }
            Err(error) => report.damaged.push(format!("journal of run {}: {error}", run.id())),
        }
    }
    Ok(())
}

/// The memo store is opened by one process at a time.
fn verify_memo(desk: &Desk<'_>, report: &mut Report) -> Result<(), CacheError> {
    let _lock = match hold(desk, "keelboat cache verify") {
        Err(CacheError::Lock(LockError::Held { .. })) => return Ok(()),
        lock => lock?,
    };
    let memo = MemoStore::open(&desk.project.state())?;
    let checked = memo.check()?;
    report.memo_entries = Some(checked.entries);
    report.memo_missing = checked.missing;
    report.damaged.extend(checked.damaged.into_iter().map(|entry| format!("memo store: {entry}")));
    for notice in memo.notices() {
        desk.terminal.note(format_args!("{notice}"));
    }
    memo.close()?;
    Ok(())
}
