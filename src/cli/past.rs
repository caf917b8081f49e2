//! Past runs, and the one that is at work: found by name, read from their journals without a lock.
//!
//! Deliberately absent: the memo store. A journal tells all that people are told of a run, also
//! while the run is live and after its engine has died.

mod picture;

use std::io;
use std::path::{Path, PathBuf};

use keelboat_checkpoint::{Holder, JournalError, LockError, ProjectLock, read_journal};
use keelboat_engine::{CheckpointOrigin, MemoKey, TaskName, Timestamp};

pub(super) use picture::{AttemptEnd, AttemptPicture, Made, Picture, Standing, TaskPicture};

use super::args::PastArgs;
use super::exit::Exit;
use super::terminal::{Terminal, bytes, plain};
use crate::project::{Project, RUNS_SEARCHED_MAX, RunDir};
use crate::workflow::near::nearest;
use crate::workflow::{LoadOptions, Workflow};

/// Instances that are listed when a declaration is named instead of a task.
const LISTED_MAX: usize = 10;

/// Why the past cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum PastError {
    #[error("no run is known in {}", directory.display())]
    NoRun { directory: PathBuf },
    #[error("no run is called {name:?}{}", or_nearest(.nearest.as_ref()))]
    UnknownRun { name: String, nearest: Option<String> },
    #[error("{name:?} means several runs: {}", listed(.runs))]
    AmbiguousRun { name: String, runs: Vec<String> },
    #[error("no run has a task that is called {name:?}{}", or_nearest(.nearest.as_ref()))]
    UnknownTask { name: String, nearest: Option<String> },
    #[error("{name:?} has {} tasks: {}", instances.len(), listed(.instances))]
    SeveralTasks { name: String, instances: Vec<String> },
    #[error("cannot list the runs in {}: {source}", directory.display())]
    List { directory: PathBuf, source: io::Error },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

fn or_nearest(nearest: Option<&String>) -> String {
    nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    let mut text: Vec<&str> = names.iter().take(LISTED_MAX).map(String::as_str).collect();
    if names.len() > LISTED_MAX {
        text.push("…");
    }
    text.join(", ")
}

impl PastError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoRun { .. } => Some(
                "run the workflow first, or name the directory of its file with `-C`".to_owned(),
            ),
            Self::UnknownRun { .. } => Some("`keelboat status --all` lists the runs".to_owned()),
            Self::AmbiguousRun { .. } => Some("give more of the name".to_owned()),
            Self::UnknownTask { .. } => {
                Some("`keelboat plan --verbose` lists the tasks of the workflow".to_owned())
            }
            Self::SeveralTasks { instances, .. } => instances
                .first()
                .map(|name| format!("name one of them, in quotes: {}", quoted(name))),
            Self::List { .. } => None,
            Self::Journal(error) => error.hint().map(ToOwned::to_owned),
            Self::Lock(error) => error.hint().map(ToOwned::to_owned),
        }
    }

    /// Tells it, and how the program ends.
    pub(super) fn tell(&self, terminal: &Terminal) -> Exit {
        terminal.error(self, self.hint().as_deref());
        match self {
            Self::List { .. } | Self::Journal(_) | Self::Lock(_) => Exit::Broken,
            _ => Exit::BadInput,
        }
    }
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    shell_words::quote(word).into_owned()
}

/// The runs of a project, and the one that is asked about.
#[derive(Debug)]
pub(super) struct Past {
    project: Project,
    runs: Vec<RunDir>,
    chosen: usize,
    holder: Option<Holder>,
    /// Whether the run was named, so that no other one is to be told of.
    named: bool,
}

/// Whether somebody works on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// An engine is at work on it.
    Live,
    /// Its engine died over it.
    Interrupted,
    /// It ended.
    Over,
}

/// A run and what its journal says.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) dir: RunDir,
    pub(super) picture: Picture,
    pub(super) life: Life,
}

impl Past {
    /// Finds the run that is asked about: the newest one, or the one whose name begins so.
    pub(super) fn open(args: &PastArgs) -> Result<Self, PastError> {
        let project = Project::at(&args.directory);
        let list = |source| PastError::List { directory: project.runs(), source };
        let runs = project.list_runs().map_err(list)?;
        if runs.is_empty() {
            return Err(PastError::NoRun { directory: args.directory.clone() });
        }
        let chosen = match &args.run {
            Some(name) => choose(&runs, name)?,
            None => 0,
        };
        let holder = ProjectLock::current(&project.state())?;
        Ok(Self { project, runs, chosen, holder, named: args.run.is_some() })
    }

    /// The run that is asked about.
    pub(super) fn chosen(&self) -> Result<Run, PastError> {
        self.read(self.chosen)
    }

    /// All runs, the newest first.
    pub(super) fn all(&self) -> impl Iterator<Item = (&RunDir, Result<Run, PastError>)> {
        self.runs.iter().enumerate().map(|(at, dir)| (dir, self.read(at)))
    }

    /// The runs before the one that is asked about, the newest first, as far as they can be read.
    pub(super) fn older(&self) -> impl Iterator<Item = Run> {
        let from = self.chosen + 1;
        (from..self.runs.len()).take(RUNS_SEARCHED_MAX).filter_map(|at| self.read(at).ok())
    }

    /// Whether the run was named on the command line.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// The older run that made the result with this key, and the name that the task had there.
    pub(super) fn maker(&self, key: &MemoKey) -> Option<(Run, TaskName)> {
        self.older().find_map(|run| {
            let name = run.picture.maker(key)?.clone();
            Some((run, name))
        })
    }

    fn read(&self, at: usize) -> Result<Run, PastError> {
        let dir = self.runs[at].clone();
        let recovered = match read_journal(&dir.journal()) {
            Ok(recovered) => recovered,
            // A run that has just begun has a directory and no journal yet.
            Err(JournalError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Default::default()
            }
            Err(error) => return Err(error.into()),
        };
        let picture = Picture::of(recovered);
        let life = self.life(at, &picture);
        Ok(Run { dir, picture, life })
    }

    fn life(&self, at: usize, picture: &Picture) -> Life {
        if picture.outcome.is_some() {
            return Life::Over;
        }
        let at_work = |holder: &Holder| {
            let engine = picture.engine.as_ref();
            engine.is_none_or(|engine| holder.pid == engine.pid && holder.host == engine.host)
        };
        match &self.holder {
            Some(holder) if at == 0 && at_work(holder) => Life::Live,
            _ => Life::Interrupted,
        }
    }

    /// The workflow of a run as its file says it now, when that can be read. Parameters that the
    /// run was given are not known, so what it tells is for people only.
    pub(super) fn workflow(&self, run: &Run) -> Option<Workflow> {
        let file = &run.picture.engine.as_ref()?.file;
        let options = LoadOptions {
            project_dir: self.project.root().to_path_buf(),
            executors: crate::driver::labels_of(self.project.root()),
            ..Default::default()
        };
        Workflow::load(&self.project.resolve(file), &options).ok()
    }

    /// How to run the workflow of a run once more; `None`: by a program that nobody knows here.
    pub(super) fn command(&self, run: &Run) -> Option<String> {
        if run.picture.is_of_program() {
            return None;
        }
        let last = ProjectLock::current(&self.project.state()).ok().flatten();
        let pid = run.picture.engine.as_ref().map(|engine| engine.pid);
        if let Some(holder) = last.filter(|holder| Some(holder.pid) == pid) {
            let arguments = holder.command.split_once(' ').map_or("", |(_, rest)| rest);
            return Some(format!("keelboat {arguments}"));
        }
        let file = run.picture.engine.as_ref().map_or("flow.toml", |engine| &engine.file);
        let path = self.project.root().join(file);
        let path = path.strip_prefix(Path::new(".")).unwrap_or(&path);
        Some(format!("keelboat run {}", quoted(&path.to_string_lossy())))
    }
}

fn choose(runs: &[RunDir], name: &str) -> Result<usize, PastError> {
    if let Some(exact) = runs.iter().position(|run| run.id() == name) {
        return Ok(exact);
    }
    let matching = || runs.iter().enumerate().filter(|(_, run)| run.id().starts_with(name));
    match (matching().count(), matching().next()) {
        (1, Some((only, _))) => Ok(only),
        (0, _) | (_, None) => {
            let nearest = nearest(name, runs.iter().map(RunDir::id)).map(ToOwned::to_owned);
            Err(PastError::UnknownRun { name: name.to_owned(), nearest })
        }
        _ => {
            let runs = matching().map(|(_, run)| run.id().to_owned()).collect();
            Err(PastError::AmbiguousRun { name: name.to_owned(), runs })
        }
    }
}

/// The task that a name means among those that are known; `None`: nothing of the kind.
pub(super) fn meant<'a>(
    name: &str,
    known: impl Iterator<Item = &'a TaskName> + Clone,
) -> Result<Option<TaskName>, PastError> {
    if let Some(exact) = known.clone().find(|task| ***task == *name) {
        return Ok(Some(exact.clone()));
    }
    let mut instances = known.filter(|task| declaration_of(task) == name);
    match (instances.next(), instances.next()) {
        (Some(only), None) => Ok(Some(only.clone())),
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(instances);
            let instances = all.map(|task| plain(task)).collect();
            Err(PastError::SeveralTasks { name: name.to_owned(), instances })
        }
        (None, _) => Ok(None),
    }
}

/// The error about a name that means no task, with the known name that comes nearest.
pub(super) fn unknown_task<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a TaskName>,
) -> PastError {
    let nearest = nearest(name, known.into_iter().map(AsRef::as_ref)).map(plain);
    PastError::UnknownTask { name: name.to_owned(), nearest }
}

/// `align` of `align[sample=a]`.
pub(super) fn declaration_of(task: &str) -> &str {
    task.split('[').next().unwrap_or_default()
}

/// A checkpoint for people: whose it is, its size, and when it was saved.
pub(super) fn checkpoint(origin: &CheckpointOrigin) -> String {
    let run = origin.run.as_ref().map(|run| format!(" of run {}", plain(run))).unwrap_or_default();
    let (ordinal, size, saved) = (origin.ordinal, bytes(origin.bytes), moment(origin.saved));
    format!("the checkpoint of attempt {ordinal}{run} ({size}, saved {saved})")
}

/// A moment for people, in local time.
pub(super) fn moment(at: Timestamp) -> String {
    let local = instant(at).to_zoned(jiff::tz::TimeZone::system());
    local.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A moment for programs: RFC 3339, in UTC.
pub(super) fn rfc3339(at: Timestamp) -> String {
    instant(at).to_string()
}

fn instant(at: Timestamp) -> jiff::Timestamp {
    let milliseconds = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX)
}

/// The present moment.
pub(super) fn now() -> Timestamp {
    Timestamp::default().after(std::time::UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// A value as JSON on standard output.
pub(super) fn print_json(value: &impl serde::Serialize, terminal: &Terminal) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => terminal.line(format_args!("{text}")),
        Err(error) => terminal.error(format_args!("cannot write JSON: {error}"), None),
    }
}
