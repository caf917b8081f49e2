//! One pass of the demo: the engine as a process of its own, killed half way or left to end.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use super::DemoError;

/// The longest that a pass may take; it takes some seconds.
const PASS_MAX: Duration = Duration::from_mins(5);
/// How often a pass is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Half of the stations are smoothed: half of the work is done.
const HALF_WAY_FILES: usize = 6;

/// When a pass ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// By SIGKILL, when half of the work is done.
    HalfWay,
    /// When everything is done.
    Done,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By SIGKILL.
    Killed,
    /// With success.
    Done,
}

/// The arguments of the command, the same in every pass.
pub(super) fn arguments(base: &str) -> [String; 6] {
    let setting = format!("base={base}");
    ["run", "flow.toml", "-j", "2", "--set", &setting].map(str::to_owned)
}

/// Runs the command in the project directory.
///
/// # Errors
/// When the program cannot be started, fails, or is not done in time.
pub(super) fn run(
    program: &Path,
    arguments: &[String],
    project: &Path,
    until: Until,
) -> Result<Ended, DemoError> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(project)
        .spawn()
        .map_err(|source| DemoError::Start { program: program.to_owned(), source })?;
    let ended = watch(&mut child, project, until);
    if !matches!(ended, Ok(Ended::Done)) {
        // No pass outlives its turn, whatever went wrong. It may have ended by itself meanwhile.
        child.kill().and_then(|()| child.wait()).map_err(DemoError::Watch)?;
    }
    ended
}

fn watch(child: &mut Child, project: &Path, until: Until) -> Result<Ended, DemoError> {
    let deadline = Instant::now() + PASS_MAX;
    loop {
        if let Some(status) = child.try_wait().map_err(DemoError::Watch)? {
            return if status.success() { Ok(Ended::Done) } else { Err(DemoError::Failed(status)) };
        }
        if until == Until::HalfWay && is_half_way(project) {
            return Ok(Ended::Killed);
        }
        if Instant::now() >= deadline {
            return Err(DemoError::TimedOut { seconds: PASS_MAX.as_secs() });
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Outputs appear whole or not at all, so that counting them says how far the run is.
fn is_half_way(project: &Path) -> bool {
    fs::read_dir(project.join("work/smooth")).is_ok_and(|files| files.count() >= HALF_WAY_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pass of `sh run …`: a script named `run` in the project directory plays the engine.
    fn pass_of(script: &str, until: Until) -> (Result<Ended, DemoError>, tempfile::TempDir) {
        let project = tempfile::tempdir().expect("a temporary directory");
        fs::write(project.path().join("run"), script).expect("a script");
        let arguments = arguments("http://127.0.0.1:1");
        (run(Path::new("/bin/sh"), &arguments, project.path(), until), project)
    }

    const SIX_FILES: &str =
        "mkdir -p work/smooth; for f in 1 2 3 4 5 6; do : > work/smooth/$f; done";

    #[test]
    fn a_pass_is_killed_when_half_of_the_work_is_done() {
        let (ended, project) =
            pass_of(&format!("{SIX_FILES}; while :; do sleep 1; done; : > never"), Until::HalfWay);
        assert!(matches!(ended, Ok(Ended::Killed)), "{ended:?}");
        assert!(!project.path().join("never").exists());
    }

    #[test]
    fn a_pass_to_the_end_is_left_alone() {
        let (ended, project) =
            pass_of(&format!("{SIX_FILES}; echo \"$@\" > arguments"), Until::Done);
        assert!(matches!(ended, Ok(Ended::Done)), "{ended:?}");
        let seen = fs::read_to_string(project.path().join("arguments")).unwrap();
        assert_eq!(seen, "flow.toml -j 2 --set base=http://127.0.0.1:1\n");
    }

    #[test]
    fn a_pass_that_is_too_quick_to_be_killed_is_done() {
        let (ended, _project) = pass_of("exit 0", Until::HalfWay);
        assert!(matches!(ended, Ok(Ended::Done)), "{ended:?}");
    }

    #[test]
    fn a_pass_that_fails_says_how() {
        let (ended, _project) = pass_of("exit 3", Until::Done);
        let error = ended.unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let project = tempfile::tempdir().unwrap();
        let ended = run(Path::new("/no/such/keelboat"), &[], project.path(), Until::Done);
        assert!(ended.unwrap_err().to_string().contains("/no/such/keelboat"));
    }
}
