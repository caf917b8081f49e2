//! `keelboat cache`: how much is kept, whether it is whole, and what can go.

mod disk;
mod gc;
mod repair;
mod stats;
mod verify;

use std::io;
use std::path::PathBuf;

use keelboat_checkpoint::{IoError, JournalError, LockError, MemoError, ObjectError, ProjectLock};
use keelboat_executors::kill_leftovers;
use keelboat_staging::LocalError;

use self::gc::Limits;
use super::args::{CacheArgs, CacheCommand};
use super::exit::Exit;
use super::terminal::Terminal;
use crate::project::{Project, RunDir};

pub(super) fn cache(args: &CacheArgs, terminal: &mut Terminal) -> Exit {
    let project = Project::at(&args.directory);
    let done = if project.state().is_dir() {
        let desk = Desk { project: &project, json: args.json, terminal };
        match &args.command {
            CacheCommand::Stats => stats::stats(&desk),
            CacheCommand::Verify => verify::verify(&desk),
            CacheCommand::Repair => repair::repair(&desk),
            CacheCommand::Gc { max_size, keep_days, dry_run } => {
                Limits::parse(max_size.as_deref(), *keep_days, *dry_run)
                    .and_then(|limits| gc::gc(&desk, &limits))
            }
        }
    } else {
        Err(CacheError::NoProject(args.directory.clone()))
    };
    done.unwrap_or_else(|error| {
        terminal.error(&error, error.hint().as_deref());
        error.exit()
    })
}

/// Where the work is done, and where it is told.
struct Desk<'a> {
    project: &'a Project,
    json: bool,
    terminal: &'a Terminal,
}

impl Desk<'_> {
    /// All runs of the project, the newest first.
    fn runs(&self) -> Result<Vec<RunDir>, CacheError> {
        let path = self.project.runs();
        self.project.list_runs().map_err(|source| CacheError::Disk { doing: "list", path, source })
    }
}

#[derive(Debug, thiserror::Error)]
enum CacheError {
    #[error("{} has no `.keelboat` directory: nothing was run there", .0.display())]
    NoProject(PathBuf),
    #[error("{0:?} is no size: expected a number and a unit, such as 20GiB or 500MB")]
    Size(String),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Memo(#[from] MemoError),
    #[error("{0}; nothing was removed, since it may say what is still needed")]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Remove(#[from] LocalError),
    #[error("cannot {doing} {}: {source}", path.display())]
    Disk { doing: &'static str, path: PathBuf, source: io::Error },
}

impl CacheError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoProject(_) => Some("name the directory of the workflow file with `-C`"),
            Self::Remove(_) => Some("look at who owns it and at its permissions"),
            Self::Size(_) | Self::Disk { .. } => None,
            Self::Lock(error) => error.hint(),
            Self::Object(error) => error.hint(),
            Self::Io(error) => error.hint(),
            Self::Memo(error) => error.hint(),
            Self::Journal(error) => error.hint(),
        };
        hint.map(ToOwned::to_owned)
    }

    fn exit(&self) -> Exit {
        match self {
            Self::NoProject(_) | Self::Size(_) => Exit::BadInput,
            Self::Lock(LockError::Held { .. }) => Exit::Busy,
            _ => Exit::Broken,
        }
    }
}

/// Takes the project lock. As any engine that takes over, ends what a dead one left running: its
/// name is forgotten with the lock.
fn hold(desk: &Desk<'_>, command: &str) -> Result<ProjectLock, CacheError> {
    let token = format!("kb-cache-{}", std::process::id());
    let mut lock = ProjectLock::acquire(&desk.project.state(), command, &token)?;
    if let Err(error) =
        lock.left_behind().iter().try_for_each(|dead| kill_leftovers(dead).map(drop))
    {
        desk.terminal.note(format_args!("cannot look for left-over processes: {error}"));
        return Ok(lock);
    }
    lock.settle()?;
    Ok(lock)
}
