//! `keelboat demo`: a workflow on files of a faulty web server, killed half way, taken up again by
//! the same command, and run once more with nothing left to do.
//!
//! Deliberately absent: how many tasks a pass ran and reused. That stands in the run's journal, and
//! whoever calls [`run`] knows how to read it.

mod data;
mod pass;
mod request;
mod server;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use keelboat_engine::Digest;

use self::pass::{Ended, Until};
use self::server::{Counts, Faults, Server};

/// One request of seven is refused, one body of four cut.
const FAULTS: Faults = Faults { seed: 2, unavailable_every: 7, cut_every: 4 };
/// The SHA-256 of `out/report.txt` of a run that nothing disturbed.
const REPORT_SHA256: &str = "86c6c5e371f9bc518fd344b16aef45b181b8e7775e7bf88c4992c4a7700b198d";

/// What the demo says, line by line.
pub(crate) type Say<'a> = dyn FnMut(fmt::Arguments<'_>) + 'a;

/// What tells how many tasks the latest command in a project directory ran and reused.
pub(crate) type CountTasks<'a> = dyn FnMut(&Path) -> TaskCounts + 'a;

/// How many tasks a pass completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TaskCounts {
    /// By running them.
    pub(crate) ran: u64,
    /// From what was remembered.
    pub(crate) reused: u64,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// No directory to work in.
    #[error("cannot prepare the demo's directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory has files that are not the demo's.
    #[error("the directory {path} is not empty: name one that is, or that is not there yet")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The demo's web server cannot listen.
    #[error("cannot start the demo's web server on 127.0.0.1")]
    Server(#[source] io::Error),
    /// The engine cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The engine cannot be watched.
    #[error("cannot watch the command that the demo started")]
    Watch(#[source] io::Error),
    /// The engine failed.
    #[error("the command ended with {0}; what it printed above says why")]
    Failed(ExitStatus),
    /// The engine was not done in time.
    #[error("the command was not done after {seconds} s, where some seconds are enough")]
    TimedOut {
        /// The longest it may take.
        seconds: u64,
    },
    /// The report is not what it must be.
    #[error("{path} has the wrong content: expected sha256 {REPORT_SHA256}, found {found}")]
    WrongResult {
        /// The report.
        path: PathBuf,
        /// Its digest.
        found: Digest,
    },
}

/// One command of the demo, and what it cost.
#[derive(Debug)]
struct Pass {
    title: &'static str,
    ended: Ended,
    wall: Duration,
    tasks: TaskCounts,
    served: Counts,
}

/// Shows the demo with this `program`, in `directory` or else in a temporary one that is removed.
///
/// # Errors
/// When it cannot work, or when the result is not that of an undisturbed run.
pub(crate) fn run(
    program: &Path,
    directory: Option<&Path>,
    count_tasks: &mut CountTasks<'_>,
    say: &mut Say<'_>,
) -> Result<(), DemoError> {
    let project = Project::prepare(directory)?;
    let server = Server::start(data::FILES, FAULTS).map_err(DemoError::Server)?;
    let stage = Stage { program, project: project.path(), server };
    say(format_args!(
        "The demo works in {}. Its web server, {}, refuses some requests and cuts some connections.",
        project.path().display(),
        stage.server.base()
    ));
    let passes = [
        stage.pass("first", Until::HalfWay, count_tasks, say)?,
        stage.pass("resumed", Until::Done, count_tasks, say)?,
        stage.pass("again", Until::Done, count_tasks, say)?,
    ];
    let report = stage.checked_report()?;
    say(format_args!("\nout/report.txt, the same as after a run that nothing disturbed:\n"));
    for line in report.lines().take(5) {
        say(format_args!("    {line}"));
    }
    say(format_args!("    …\n"));
    for line in table(&passes) {
        say(format_args!("{line}"));
    }
    say(format_args!("\n{}", savings(&passes)));
    Ok(())
}

/// What all passes have in common.
#[derive(Debug)]
struct Stage<'a> {
    program: &'a Path,
    project: &'a Path,
    server: Server,
}

impl Stage<'_> {
    fn pass(
        &self,
        title: &'static str,
        until: Until,
        count_tasks: &mut CountTasks<'_>,
        say: &mut Say<'_>,
    ) -> Result<Pass, DemoError> {
        let arguments = pass::arguments(&self.server.base());
        say(format_args!("\n$ keelboat {}", arguments.join(" ")));
        let (since, before) = (Instant::now(), self.server.counts());
        let ended = pass::run(self.program, &arguments, self.project, until)?;
        let wall = since.elapsed();
        match (until, ended) {
            (Until::HalfWay, Ended::Killed) => say(format_args!("Killed by SIGKILL, half way.")),
            (Until::HalfWay, Ended::Done) => say(format_args!("It was done before it was killed.")),
            (Until::Done, _) => {}
        }
        let served = self.server.counts().since(&before);
        Ok(Pass { title, ended, wall, tasks: count_tasks(self.project), served })
    }

    fn checked_report(&self) -> Result<String, DemoError> {
        let path = self.project.join("out/report.txt");
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes).to_hex() == REPORT_SHA256 => {
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Ok(bytes) => Err(DemoError::WrongResult { path, found: Digest::of(&bytes) }),
            Err(source) => Err(DemoError::Directory { path, source }),
        }
    }
}

/// The lines of a table with a column for each pass.
fn table(passes: &[Pass]) -> Vec<String> {
    type Cell = fn(&Pass) -> String;
    let rows: [(&str, Cell); 11] = [
        ("", |pass| pass.title.to_owned()),
        ("ended by", |pass| {
            let how = match pass.ended {
                Ended::Killed => "SIGKILL",
                Ended::Done => "itself",
            };
            how.to_owned()
        }),
        ("seconds", |pass| format!("{:.2}", pass.wall.as_secs_f64())),
        ("tasks run", |pass| pass.tasks.ran.to_string()),
        ("tasks reused", |pass| pass.tasks.reused.to_string()),
        ("requests to the server", |pass| pass.served.requests.to_string()),
        ("bytes transferred", |pass| pass.served.bytes.to_string()),
        ("refused with 503", |pass| pass.served.unavailable.to_string()),
        ("connections cut", |pass| pass.served.cuts.to_string()),
        ("transfers resumed", |pass| pass.served.resumed.to_string()),
        ("files found unchanged", |pass| pass.served.unchanged.to_string()),
    ];
    rows.iter()
        .map(|(title, cell)| {
            let cells = passes.iter().map(|pass| format!("{:>10}", cell(pass)));
            format!("{title:<24}{}", cells.collect::<String>())
        })
        .collect()
}

/// What the later passes did not do again, since the earlier ones had done it.
fn savings(passes: &[Pass]) -> String {
    let later = passes.get(1..).unwrap_or_default();
    let tasks: u64 = later.iter().map(|pass| pass.tasks.reused).sum();
    let bytes: u64 =
        later.iter().map(|pass| data::bytes_needed().saturating_sub(pass.served.bytes)).sum();
    format!("Saved: {tasks} tasks were not run again, and {bytes} bytes not transferred again.")
}

/// The directory that the demo works in.
#[derive(Debug)]
enum Project {
    Temporary(tempfile::TempDir),
    Named(PathBuf),
}

impl Project {
    /// An empty directory with the workflow in it.
    fn prepare(directory: Option<&Path>) -> Result<Self, DemoError> {
        let project = match directory {
            None => Self::temporary()?,
            Some(path) => Self::named(path)?,
        };
        let path = project.path().join("flow.toml");
        fs::write(&path, data::FLOW).map_err(|source| DemoError::Directory { path, source })?;
        Ok(project)
    }

    fn temporary() -> Result<Self, DemoError> {
        let made = tempfile::Builder::new().prefix("keelboat-demo-").tempdir();
        made.map(Self::Temporary)
            .map_err(|source| DemoError::Directory { path: std::env::temp_dir(), source })
    }

    fn named(path: &Path) -> Result<Self, DemoError> {
        let error = |source| DemoError::Directory { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(error)?;
        if fs::read_dir(path).map_err(error)?.next().is_some() {
            return Err(DemoError::NotEmpty { path: path.to_owned() });
        }
        Ok(Self::Named(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Named(path) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_files_in_it_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.tex"), "years of work").unwrap();
        let error = Project::prepare(Some(directory.path())).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_project_has_the_workflow_and_a_temporary_one_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let named = Project::prepare(Some(&directory.path().join("a/b"))).unwrap();
        assert_eq!(fs::read_to_string(named.path().join("flow.toml")).unwrap(), data::FLOW);
        let temporary = Project::prepare(None).unwrap();
        let path = temporary.path().to_owned();
        assert!(path.join("flow.toml").exists());
        drop(temporary);
        assert!(!path.exists());
    }

    #[test]
    fn a_report_that_differs_is_an_error() {
        let project = tempfile::tempdir().unwrap();
        fs::create_dir(project.path().join("out")).unwrap();
        fs::write(project.path().join("out/report.txt"), "half a rep").unwrap();
        let server = Server::start(data::FILES, FAULTS).unwrap();
        let stage = Stage { program: Path::new("keelboat"), project: project.path(), server };
        let error = stage.checked_report().unwrap_err();
        assert!(matches!(error, DemoError::WrongResult { .. }), "{error}");
    }

    fn pass(title: &'static str, ended: Ended, ran: u64, reused: u64, bytes: u64) -> Pass {
        Pass {
            title,
            ended,
            wall: Duration::from_millis(1234),
            tasks: TaskCounts { ran, reused },
            served: Counts { requests: 13, bytes, ..Counts::default() },
        }
    }

    #[test]
    fn only_the_later_passes_save_something() {
        let needed = data::bytes_needed();
        let passes = [
            pass("first", Ended::Killed, 20, 0, 100),
            pass("resumed", Ended::Done, 24, 20, 300),
            pass("again", Ended::Done, 0, 44, 0),
        ];
        let expected = format!(
            "Saved: 64 tasks were not run again, and {} bytes not transferred again.",
            2 * needed - 300
        );
        assert_eq!(savings(&passes), expected);
    }

    #[test]
    fn the_table_has_a_column_for_each_pass() {
        let lines = table(&[
            pass("first", Ended::Killed, 20, 0, 388_000),
            pass("resumed", Ended::Done, 24, 20, 388_000),
        ]);
        let expected = [
            "                             first   resumed",
            "ended by                   SIGKILL    itself",
            "seconds                       1.23      1.23",
            "tasks run                       20        24",
            "tasks reused                     0        20",
            "requests to the server          13        13",
            "bytes transferred           388000    388000",
        ];
        assert_eq!(lines[..7], expected);
        assert_eq!(lines.len(), 11);
    }
}
