//! Holding a project: the lock that keeps other engines out, what a dead engine left, and what is
//! remembered, read by a thread of its own while the workflow file is.

use std::sync::Arc;
use std::thread::JoinHandle;

use keelboat_checkpoint::{DigestCache, MemoStore, ProjectLock, Recovered, read_journal};
use keelboat_executors::kill_leftovers;
use keelboat_staging::remove_tree;

use super::observe::Observer;
use super::{RunError, checkpoints};
use crate::project::{Project, RunDir};

/// A project that is ours.
pub(super) struct Held {
    lock: ProjectLock,
    reading: JoinHandle<Result<Remembered, RunError>>,
}

/// What earlier runs found out.
pub(super) struct Remembered {
    pub(super) memo: Arc<MemoStore>,
    pub(super) digests: Arc<DigestCache>,
    /// The newest run whose journal can be read, when it is the newest of all.
    pub(super) last: Option<(RunDir, Recovered)>,
}

impl Held {
    /// Takes the lock, ends what a dead engine left running, and begins to read.
    pub(super) fn take(
        project: &Project,
        token: &str,
        observer: &mut dyn Observer,
    ) -> Result<Self, RunError> {
        project
            .prepare()
            .map_err(RunError::setup(format!("make {}", project.state().display())))?;
        let mut lock = ProjectLock::acquire(&project.state(), &own_command(), token)?;
        clean_up_after(&mut lock, project, observer);
        let project = project.clone();
        let thread = std::thread::Builder::new().name("memory".to_owned());
        let reading = thread.spawn(move || read(&project));
        Ok(Self { lock, reading: reading.map_err(RunError::setup("start a thread"))? })
    }

    /// Waits until all is read.
    pub(super) fn remembered(self) -> Result<(ProjectLock, Remembered), RunError> {
        let read = self.reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((self.lock, read))
    }
}

/// The command line of this process without the values of parameters, which may be secrets.
fn own_command() -> String {
    let mut words: Vec<String> = Vec::new();
    for word in std::env::args_os() {
        let word = word.to_string_lossy().into_owned();
        let set = words.last().is_some_and(|before| before == "--set");
        words.push(match word.split_once('=') {
            Some((name, _)) if set || word.starts_with("--set=") => {
                let name = word
                    .strip_prefix("--set=")
                    .map_or(name, |setting| setting.split('=').next().unwrap_or_default());
                let flag = if set { "" } else { "--set=" };
                format!("{flag}{name}=…")
            }
            _ => word,
        });
    }
    words.join(" ")
}

fn read(project: &Project) -> Result<Remembered, RunError> {
    let state = project.state();
    let runs = project.list_runs().map_err(RunError::setup("list the runs so far"))?;
    let newest = runs.into_iter().next();
    let last = newest.and_then(|run| Some((read_journal(&run.journal()).ok()?, run)));
    let memo = match &last {
        Some((recovered, run)) => MemoStore::open_with(&state, run.id(), &recovered.facts)?,
        None => MemoStore::open(&state)?,
    };
    Ok(Remembered {
        memo: Arc::new(memo),
        digests: Arc::new(DigestCache::load(&state)),
        last: last.map(|(recovered, run)| (run, recovered)),
    })
}

/// Kills what dead engines left running.
fn end_the_dead(lock: &mut ProjectLock) -> std::io::Result<()> {
    for token in lock.left_behind() {
        let count = kill_leftovers(token)?;
        // Its warden may not have come to the end of that itself, so this is nothing to warn of.
        tracing::info!(count, engine = token, "killed left-over processes");
    }
    lock.settle().map_err(std::io::Error::other)
}

/// Kills what a dead engine left running, saves what its attempts saved for the next ones, and
/// removes their scratch directories.
fn clean_up_after(lock: &mut ProjectLock, project: &Project, observer: &mut dyn Observer) {
    if let Err(error) = end_the_dead(lock) {
        observer.warning(&format!("cannot end left-over processes: {error}"));
    }
    for warning in checkpoints::save_left_behind(project) {
        observer.warning(&warning);
    }
    if let Err(error) = checkpoints::sweep(project) {
        observer.warning(&format!("checkpoints that nobody needs stay: {error}"));
    }
    let Ok(entries) = std::fs::read_dir(project.scratch()) else { return };
    for entry in entries.flatten() {
        if let Err(error) = remove_tree(&entry.path()) {
            observer.warning(&format!("a scratch directory of an earlier run stays: {error}"));
        }
    }
}
