//! `keelboat cache verify`: reads everything that is kept, and names what is damaged.

use std::sync::Arc;

use keelboat_checkpoint::{
    CheckReport, Damage, DigestCache, LockError, MemoNotice, MemoStore, ObjectCache, read_journal,
};
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
    /// Ends of journals as a crash leaves them, in words.
    unfinished: Vec<String>,
    /// Entries of the memo store; absent when an engine was at work.
    memo_entries: Option<u64>,
    /// Results that journals have and the memo store has lost.
    memo_missing: u64,
    journals: u64,
}

pub(super) fn verify(desk: &Desk<'_>) -> Result<Exit, CacheError> {
    let mut report = Report::default();
    verify_indexes(desk, &mut report)?;
    verify_objects(desk, &mut report)?;
    verify_journals(desk, &mut report)?;
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
    for end in &report.unfinished {
        desk.terminal.line(format_args!("{end}, as a crash leaves it"));
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
        desk.terminal.line(format_args!(
            "what is damaged is not used; the next run makes it again, and \
             `keelboat cache repair` mends what can be mended"
        ));
    }
}

/// What only one process at a time has open or writes to, and so is looked at when no engine is at
/// work.
fn verify_indexes(desk: &Desk<'_>, report: &mut Report) -> Result<(), CacheError> {
    let _lock = match hold(desk, "keelboat cache verify") {
        Err(CacheError::Lock(LockError::Held { .. })) => return Ok(()),
        lock => lock?,
    };
    let state = desk.project.state();
    let digests = Arc::new(DigestCache::load(&state));
    report.damaged.extend(in_words("digests", &digests.damaged()));
    let objects = ObjectCache::open(&state, digests)?;
    report.damaged.extend(in_words("objects/used", &objects.damaged_notes()));
    let memo = MemoStore::open(&state)?;
    let checked = memo.check()?;
    report.memo_entries = Some(checked.entries);
    report.memo_missing = checked.missing;
    report.damaged.extend(memo_in_words(&checked, memo.notices()));
    memo.close()?;
    Ok(())
}

/// What is damaged in a file below `.keelboat`.
pub(super) fn in_words(file: &str, damaged: &[Damage]) -> Vec<String> {
    damaged.iter().map(|damage| format!("file {file}: {damage}")).collect()
}

/// What is amiss with the memo store. What is amiss with journals, `read_journal` tells.
pub(super) fn memo_in_words(checked: &CheckReport, notices: Vec<MemoNotice>) -> Vec<String> {
    let mut words: Vec<String> =
        checked.damaged.iter().map(|entry| format!("memo store: {entry}")).collect();
    if checked.missing > 0 {
        let missing = counted(checked.missing, "result");
        words.push(format!("memo store: {missing} of the journals missing"));
    }
    let notices = notices.into_iter().filter(|notice| {
        let of_journal = matches!(
            notice,
            MemoNotice::JournalDamaged { .. } | MemoNotice::JournalUnreadable { .. }
        );
        !of_journal
    });
    words.extend(notices.map(|notice| notice.to_string()));
    words
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
    for run in desk.runs()? {
        match read_journal(&run.journal()) {
            Ok(recovered) => {
                report.journals += 1;
                for damage in recovered.damaged {
                    report.damaged.push(format!("journal of run {}: {damage}", run.id()));
                }
                if let Some(torn) = recovered.torn {
                    report.unfinished.push(format!("journal of run {}: {torn}", run.id()));
                }
            }
            Err(error) => report.damaged.push(format!("journal of run {}: {error}", run.id())),
        }
    }
    Ok(())
}
