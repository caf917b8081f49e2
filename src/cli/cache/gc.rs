//! `keelboat cache gc`: removes what nobody needs, the least recently used first.
//!
//! Never removed: what an unfinished run needs, the newest run, and runs that made results which
//! newer runs use, since their journals are the truth about these and their logs belong to them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keelboat_checkpoint::{
    CHECKPOINTS_KEPT, DigestCache, GcPolicy, GcReport, ObjectCache, Recovered, SnapshotStore,
    read_journal,
};
use keelboat_engine::{Digest, Fact, MemoKey, MemoRecord};
use keelboat_staging::{PARTIAL_KEPT, abandoned};
use serde::Serialize;

use super::disk::{Usage, age, remove, usage};
use super::{CacheError, Desk, hold};
use crate::cli::exit::Exit;
use crate::cli::past::print_json;
use crate::cli::status::counted;
use crate::cli::terminal::bytes;
use crate::driver::is_unfinished;
use crate::project::RunDir;
use crate::size::parse_size;

/// What is to be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    bytes_max: Option<u64>,
    keep: Option<Duration>,
    dry_run: bool,
}

impl Limits {
    pub(super) fn parse(
        max_size: Option<&str>,
        keep_days: Option<u32>,
        dry_run: bool,
    ) -> Result<Self, CacheError> {
        let bytes_max = max_size.map(size_of).transpose()?;
        let keep = keep_days.map(|days| Duration::from_hours(24 * u64::from(days)));
        Ok(Self { bytes_max, keep, dry_run })
    }
}

fn size_of(text: &str) -> Result<u64, CacheError> {
    parse_size(text).ok_or_else(|| CacheError::Size(text.to_owned()))
}

#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    objects: u64,
    object_bytes: u64,
    objects_removed: u64,
    /// Bytes that the disk got back.
    object_bytes_freed: u64,
    /// Objects that would have gone, but are needed by an unfinished run.
    objects_in_use: u64,
    runs_removed: Vec<String>,
    run_bytes_freed: u64,
    partial_removed: Usage,
    scratch_removed: Usage,
    kept_removed: Usage,
    checkpoints_removed: Usage,
    damaged_removed: Usage,
}

pub(super) fn gc(desk: &Desk<'_>, limits: &Limits) -> Result<Exit, CacheError> {
    // To look takes no lock: nothing is touched.
    let lock = if limits.dry_run { None } else { Some(hold(desk, "keelboat cache gc")?) };
    let runs = read_runs(desk)?;
    let unfinished = runs.first().is_some_and(|(_, journal)| is_unfinished(journal));
    let mut report = Report { dry_run: limits.dry_run, ..Report::default() };

    let state = desk.project.state();
    let digests = Arc::new(DigestCache::load(&state));
    let objects = ObjectCache::open(&state, Arc::clone(&digests))?;
    let in_use = if unfinished { needed(&runs) } else { BTreeSet::new() };
    let policy =
        GcPolicy { bytes_max: limits.bytes_max, keep: limits.keep, dry_run: limits.dry_run };
    report.take(objects.gc(&policy, &in_use)?);
    if lock.is_some() {
        digests.save()?;
    }
    let removing = Removing { dry_run: limits.dry_run };
    if let Some(keep) = limits.keep {
        for run in old_runs(&runs, keep) {
            let Some(path) = run.journal().parent().map(Path::to_path_buf) else { continue };
            report.run_bytes_freed += removing.remove(&path)?.bytes;
            report.runs_removed.push(run.id().to_owned());
        }
    }
    let partial_kept = limits.keep.unwrap_or(PARTIAL_KEPT);
    if !unfinished {
        let mut removed = Ok(());
        abandoned(&desk.project.partial(), SystemTime::now(), partial_kept, |path| {
            let gone = removing.remove(path).map(|usage| report.partial_removed.add(usage));
            removed = std::mem::replace(&mut removed, Ok(())).and(gone);
        });
        removed?;
    }
    let checkpoints_kept = limits.keep.unwrap_or(CHECKPOINTS_KEPT);
    let idle = SnapshotStore::at(&state).idle(SystemTime::now(), checkpoints_kept)?;
    for path in idle.iter().filter(|_| !unfinished) {
        report.checkpoints_removed.add(removing.remove(path)?);
    }
    // Attempts end with their engine: with the lock held, nobody works there.
    for path in entries(&desk.project.scratch())? {
        report.scratch_removed.add(removing.remove(&path)?);
    }
    for path in entries(&desk.project.kept())? {
        if age(&path).is_some_and(|age| age > limits.keep.unwrap_or(CHECKPOINTS_KEPT)) {
            report.kept_removed.add(removing.remove(&path)?);
        }
    }
    for path in entries(&state.join("damaged"))? {
        report.damaged_removed.add(removing.remove(&path)?);
    }
    if desk.json {
        print_json(&report, desk.terminal);
    } else {
        report.tell(desk, limits);
    }
    Ok(Exit::Success)
}

type Journals = Vec<(RunDir, Recovered)>;

/// All runs with their journals, the newest first.
fn read_runs(desk: &Desk<'_>) -> Result<Journals, CacheError> {
    let path = desk.project.runs();
    let runs = desk.project.list_runs();
    let runs = runs.map_err(|source| CacheError::Disk { doing: "list", path, source })?;
    let mut read = Vec::new();
    for run in runs {
        let recovered = if run.journal().exists() {
            read_journal(&run.journal())?
        } else {
            Recovered::default()
        };
        read.push((run, recovered));
    }
    Ok(read)
}

/// What the newest run needs when it goes on: its results, what these were made from, and every
/// remote file that it may find unchanged.
fn needed(runs: &Journals) -> BTreeSet<Digest> {
    let mut needed = BTreeSet::new();
    let mut keep_outputs = |record: &MemoRecord| {
        let contents = record.outputs.iter().filter_map(|output| output.content);
        needed.extend(contents.map(|content| content.digest));
    };
    let mut more = BTreeSet::new();
    for (at, (_, journal)) in runs.iter().enumerate() {
        for stamped in &journal.facts {
            match &stamped.fact {
                Fact::Fetched { content, .. } => {
                    more.insert(content.digest);
                }
                Fact::Completed { parts, record, .. } if at == 0 => {
                    keep_outputs(record);
                    more.extend(parts.iter().filter_map(|part| part.value.parse::<Digest>().ok()));
                }
                Fact::Reused { record, .. } if at == 0 => keep_outputs(record),
                _ => {}
            }
        }
    }
    needed.extend(more);
    needed
}

/// Runs that are older than `keep`, unless a run that stays uses what they made.
fn old_runs(runs: &Journals, keep: Duration) -> Vec<&RunDir> {
    let (mut used, mut made) = (BTreeSet::new(), BTreeSet::new());
    let mut old = Vec::new();
    for (at, (run, journal)) in runs.iter().enumerate() {
        let (makes, uses) = keys(journal);
        let path = run.journal();
        let directory = path.parent().unwrap_or(&path);
        let is_old = at > 0 && age(directory).is_some_and(|age| age > keep);
        if is_old && !makes.iter().any(|key| used.contains(key) && !made.contains(key)) {
            old.push(run);
            continue;
        }
        made.extend(makes);
        // Of an old run that stays, only what others use of it is kept alive.
        if !is_old {
            used.extend(uses);
        }
    }
    old
}

/// The results that a run made, and all that it used.
fn keys(journal: &Recovered) -> (BTreeSet<MemoKey>, BTreeSet<MemoKey>) {
    let (mut makes, mut uses) = (BTreeSet::new(), BTreeSet::new());
    for stamped in &journal.facts {
        match &stamped.fact {
            Fact::Completed { key, .. } => {
                makes.insert(*key);
                uses.insert(*key);
            }
            Fact::Reused { key, .. } => {
                uses.insert(*key);
            }
            _ => {}
        }
    }
    (makes, uses)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let found = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.and_then(|found| found.map(|entry| Ok(entry?.path())).collect()),
    };
    found.map_err(|source| CacheError::Disk { doing: "list", path: directory.to_owned(), source })
}

struct Removing {
    dry_run: bool,
}

impl Removing {
    /// Removes a path, or only tells what that would free.
    fn remove(&self, path: &Path) -> Result<Usage, CacheError> {
        let usage = usage(path);
        if !self.dry_run {
            remove(path)?;
        }
        Ok(usage)
    }
}

impl Report {
    fn take(&mut self, report: GcReport) {
        self.objects = report.objects;
        self.object_bytes = report.bytes;
        self.objects_removed = report.removed;
        self.object_bytes_freed = report.bytes_freed;
        self.objects_in_use = report.kept_in_use;
    }

    fn tell(&self, desk: &Desk<'_>, limits: &Limits) {
        let verb = if self.dry_run { "would remove" } else { "removed" };
        let line = |text: String| desk.terminal.line(format_args!("{verb} {text}"));
        line(format!(
            "{} of {} objects, which frees {}",
            self.objects_removed,
            self.objects,
            bytes(self.object_bytes_freed)
        ));
        if self.objects_in_use > 0 {
            let kept = counted(self.objects_in_use, "object");
            desk.terminal.line(format_args!("kept {kept} that an unfinished run needs"));
        }
        if !self.runs_removed.is_empty() {
            let runs = counted(self.runs_removed.len() as u64, "old run");
            line(format!(
                "{runs}, {}: {}",
                bytes(self.run_bytes_freed),
                self.runs_removed.join(", ")
            ));
        }
        for (usage, what) in [
            (self.partial_removed, "of partial transfers"),
            (self.scratch_removed, "of scratch directories"),
            (self.kept_removed, "of scratch directories that were kept"),
            (self.checkpoints_removed, "of checkpoints"),
            (self.damaged_removed, "of damaged objects"),
        ] {
            if usage.files > 0 {
                line(format!("{} {what}, {}", counted(usage.files, "file"), bytes(usage.bytes)));
            }
        }
        if limits.bytes_max.is_none() && limits.keep.is_none() {
            desk.terminal.line(format_args!(
                "objects and runs stay unless `--max-size` or `--keep-days` says how much to keep"
            ));
        }
    }
}
