//! `keelboat cache stats`: how much is kept of what.

use std::collections::BTreeSet;
use std::sync::Arc;

use keelboat_checkpoint::{DigestCache, ObjectCache, read_journal};
use keelboat_engine::Fact;
use serde::Serialize;

use super::disk::{Usage, usage};
use super::{CacheError, Desk};
use crate::cli::exit::Exit;
use crate::cli::past::print_json;
use crate::cli::status::counted;
use crate::cli::terminal::{Colour, bytes};
use crate::project::Project;

#[derive(Debug, Default, Serialize)]
struct Report {
    objects: u64,
    directories: u64,
    object_bytes: u64,
    /// Bytes of objects that are outputs in their places, too: they take no room of their own.
    object_bytes_shared: u64,
    damaged_objects: u64,
    memo_records: u64,
    sources: u64,
    runs: u64,
    run_bytes: u64,
    /// Runs whose journal cannot be read.
    runs_unreadable: u64,
    partial: Usage,
    scratch: Usage,
    /// Of scratch directories that are kept for people to look into.
    kept: Usage,
    checkpoints: Usage,
    memo_bytes: u64,
}

pub(super) fn stats(desk: &Desk<'_>) -> Result<Exit, CacheError> {
    let report = count(desk.project)?;
    if desk.json {
        print_json(&report, desk.terminal);
        return Ok(Exit::Success);
    }
    let line = |label: &str, text: String| desk.terminal.line(format_args!("{label:<18} {text}"));
    let shared = bytes(report.object_bytes_shared);
    let objects = format!("{}, {} directories", report.objects, report.directories);
    line(
        "objects",
        format!("{objects}, {} ({shared} shared with outputs)", bytes(report.object_bytes)),
    );
    line(
        "results",
        format!("{} remembered, {} on disk", report.memo_records, bytes(report.memo_bytes)),
    );
    line("remote files", format!("{} remembered", report.sources));
    line("runs", format!("{}, {}", report.runs, bytes(report.run_bytes)));
    line("partial transfers", format!("{}, {}", report.partial.files, bytes(report.partial.bytes)));
    line(
        "scratch",
        format!("{}, {}", counted(report.scratch.files, "file"), bytes(report.scratch.bytes)),
    );
    if report.kept.files > 0 {
        line(
            "kept",
            format!("{}, {}", counted(report.kept.files, "file"), bytes(report.kept.bytes)),
        );
    }
    let Usage { files, bytes: size } = report.checkpoints;
    line("checkpoints", format!("{}, {}", counted(files, "file"), bytes(size)));
    if report.damaged_objects > 0 {
        let damaged = format!("{} objects were set aside", report.damaged_objects);
        line("damaged", desk.terminal.paint(Colour::Red, damaged));
    }
    if report.runs_unreadable > 0 {
        let unreadable =
            format!("the journals of {} cannot be read", counted(report.runs_unreadable, "run"));
        line("", desk.terminal.paint(Colour::Red, unreadable));
    }
    Ok(Exit::Success)
}

fn count(project: &Project) -> Result<Report, CacheError> {
    let state = project.state();
    let objects = ObjectCache::open(&state, Arc::new(DigestCache::load(&state)))?.stats()?;
    let mut report = Report {
        objects: objects.objects,
        directories: objects.trees,
        object_bytes: objects.bytes,
        object_bytes_shared: objects.bytes_shared,
        damaged_objects: objects.damaged,
        partial: usage(&project.partial()),
        scratch: usage(&project.scratch()),
        kept: usage(&project.kept()),
        checkpoints: usage(&state.join("checkpoints")),
        memo_bytes: usage(&state.join("memo")).bytes,
        ..Report::default()
    };
    let (mut keys, mut sources) = (BTreeSet::new(), BTreeSet::new());
    let runs = project.list_runs().map_err(|source| CacheError::Disk {
        doing: "list",
        path: project.runs(),
        source,
    })?;
    for run in runs {
        report.runs += 1;
        report.run_bytes += run.journal().parent().map_or(0, |path| usage(path).bytes);
        let Ok(recovered) = read_journal(&run.journal()) else {
            report.runs_unreadable += 1;
            continue;
        };
        for stamped in recovered.facts {
            match stamped.fact {
                Fact::Completed { key, memoized: true, .. }
                | Fact::Reused { key, memoized: true, .. } => {
                    keys.insert(key);
                }
                Fact::Fetched { source, .. } => {
                    sources.insert(source);
                }
                _ => {}
            }
        }
    }
    (report.memo_records, report.sources) = (keys.len() as u64, sources.len() as u64);
    Ok(report)
}
