//! `keelboat log`: what an attempt of a task wrote to its standard output and error, also while it
//! runs. The log of a result that was reused is in the run that made it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use keelboat_engine::TaskName;

use super::args::LogArgs;
use super::exit::Exit;
use super::past::{Past, PastError, Run, meant, quoted, unknown_task};
use super::terminal::{Colour, Terminal, plain};
use crate::workflow::Workflow;

/// Bytes that are read and written at once.
const PIECE_BYTES: usize = 64 << 10;

pub(super) fn log(args: &LogArgs, terminal: &mut Terminal) -> Exit {
    match find(args, terminal) {
        Ok(found) => show(&found, args, terminal).unwrap_or_else(|error| {
            error.tell(terminal);
            error.exit()
        }),
        Err(Problem::Past(error)) => error.tell(terminal),
        Err(error) => {
            error.tell(terminal);
            error.exit()
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Past(#[from] PastError),
    #[error("{} has not run{}", plain(task), in_run(run.as_ref()))]
    NeverRan { task: TaskName, run: Option<String> },
    #[error("{} has no attempt {wanted} in run {run}: it has {}", plain(task), listed(.there))]
    NoAttempt { task: TaskName, run: String, wanted: u32, there: Vec<u32> },
    #[error("the log {} is not there any more", path.display())]
    Gone { path: PathBuf },
    #[error("cannot read the log {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

fn in_run(run: Option<&String>) -> String {
    run.map(|run| format!(" in run {run}")).unwrap_or_default()
}

fn listed(ordinals: &[u32]) -> String {
    ordinals.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Problem {
    fn tell(&self, terminal: &Terminal) {
        let hint = match self {
            Self::NeverRan { task, .. } => {
                Some(format!("`keelboat why {}` tells why", plain(&quoted(task))))
            }
            Self::Gone { .. } => Some(
                "`cache gc` removes logs of old runs; `keelboat run --force` makes a new one"
                    .to_owned(),
            ),
            _ => None,
        };
        terminal.error(self, hint.as_deref());
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } => Exit::Broken,
            _ => Exit::BadInput,
        }
    }
}

/// An attempt that has a log.
struct Found {
    run: Run,
    task: TaskName,
    ordinal: u32,
}

fn find(args: &LogArgs, terminal: &Terminal) -> Result<Found, Problem> {
    let past = Past::open(&args.past)?;
    let (run, task) = run_with_log(&past, args, terminal)?;
    let attempts = run.picture.tasks.get(&task).map_or(&[][..], |task| &task.attempts);
    let attempt = match args.attempt {
        None => attempts.last(),
        Some(wanted) => attempts.iter().find(|attempt| attempt.ordinal == wanted),
    };
    if let Some(ordinal) = attempt.map(|attempt| attempt.ordinal) {
        return Ok(Found { run, task, ordinal });
    }
    let there = attempts.iter().map(|attempt| attempt.ordinal).collect();
    let run = run.dir.id().to_owned();
    Err(Problem::NoAttempt { task, run, wanted: args.attempt.unwrap_or(1), there })
}

/// The run that is asked about, when the task ran in it; else the one that made the result which
/// the task has there; else the last one in which it ran.
fn run_with_log(
    past: &Past,
    args: &LogArgs,
    terminal: &Terminal,
) -> Result<(Run, TaskName), Problem> {
    let chosen = past.chosen()?;
    let known = meant(&args.task, chosen.picture.tasks.keys())?;
    if let Some(task) = &known {
        let picture = &chosen.picture.tasks[task];
        if !picture.attempts.is_empty() {
            return Ok((chosen, task.clone()));
        }
        if let Some((maker, name)) = picture.result.as_ref().and_then(|made| past.maker(&made.key))
        {
            note_other_run(&maker, task, terminal);
            return Ok((maker, name));
        }
    }
    if past.is_named() {
        let run = Some(chosen.dir.id().to_owned());
        return match known {
            Some(task) => Err(Problem::NeverRan { task, run }),
            None => Err(unknown_task(&args.task, chosen.picture.tasks.keys()).into()),
        };
    }
    for run in past.older() {
        let Some(task) = meant(&args.task, run.picture.tasks.keys())? else { continue };
        if !run.picture.tasks[&task].attempts.is_empty() {
            note_other_run(&run, &task, terminal);
            return Ok((run, task));
        }
    }
    never_ran(past, &chosen, args, known)
}

fn never_ran(
    past: &Past,
    chosen: &Run,
    args: &LogArgs,
    known: Option<TaskName>,
) -> Result<(Run, TaskName), Problem> {
    let mut workflow = past.workflow(chosen);
    let tasks = workflow.as_mut().map(Workflow::take_tasks).unwrap_or_default();
    let declared = tasks.iter().map(|task| &task.name);
    let known = match known {
        Some(task) => Some(task),
        None => meant(&args.task, declared.clone())?,
    };
    match known {
        Some(task) => Err(Problem::NeverRan { task, run: None }),
        None => Err(unknown_task(&args.task, chosen.picture.tasks.keys().chain(declared)).into()),
    }
}

fn note_other_run(run: &Run, task: &TaskName, terminal: &Terminal) {
    let note =
        format!("{} did not run since; this is the log of run {}", plain(task), run.dir.id());
    terminal.note(format_args!("{}", terminal.paint(Colour::Dim, note)));
}

fn show(found: &Found, args: &LogArgs, terminal: &Terminal) -> Result<Exit, Problem> {
    let path = |stream| found.run.dir.log(&found.task, found.ordinal, stream);
    let both = [("standard output", path("out")), ("standard error", path("err"))];
    let wanted = match (args.out, args.err) {
        (true, false) => &both[..1],
        (false, true) => &both[1..],
        _ => &both[..],
    };
    if args.path {
        for (_, path) in wanted {
            terminal.line(format_args!("{}", path.display()));
        }
        return Ok(Exit::Success);
    }
    let mut open = Vec::new();
    for (name, path) in wanted {
        let Some(file) = open_log(path)? else { continue };
        let length = file.metadata().map_err(read_error(path))?.len();
        if length > 0 {
            open.push((*name, path.as_path(), file));
        }
    }
    if open.is_empty() {
        let (task, ordinal) = (plain(&found.task), found.ordinal);
        terminal.note(format_args!("attempt {ordinal} of {task} wrote nothing"));
    }
    let heads = open.len() > 1;
    for (name, path, file) in open {
        if heads {
            let head =
                format!("==> {name} of {}, attempt {} <==", plain(&found.task), found.ordinal);
            terminal.line(format_args!("{}", terminal.paint(Colour::Bold, head)));
        }
        pass_through(file, path, terminal)?;
    }
    Ok(Exit::Success)
}

/// The log, unless it is empty: no file is kept for nothing.
fn open_log(path: &Path) -> Result<Option<File>, Problem> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Problem::Read { path: path.to_owned(), source })
        }
        Err(_) if path.parent().is_some_and(Path::is_dir) => Ok(None),
        Err(_) => Err(Problem::Gone { path: path.to_owned() }),
    }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let path = path.to_owned();
    move |source| Problem::Read { path, source }
}

/// Shows bytes as they are: what a program wrote for a terminal is for a terminal.
fn pass_through(mut file: File, path: &Path, terminal: &Terminal) -> Result<(), Problem> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => terminal.raw(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(path)(error)),
        }
    }
}
