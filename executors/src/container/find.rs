//! Which of the tools is there, and who it makes of us.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{getegid, geteuid};

use super::{ContainerError, ContainerTool, Found, User};
use crate::search::program_in;

/// How long docker may take to tell of its daemon.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// The tool that is wanted, or the first one that is there.
pub(super) fn find(wanted: Option<ContainerTool>, path: &OsStr) -> Result<Found, ContainerError> {
    let tool = match wanted {
        Some(tool) => tool,
        None => ContainerTool::ALL
            .into_iter()
            .find(|tool| program_in(tool.name(), path).is_some())
            .ok_or(ContainerError::NoTool)?,
    };
    let program = program_in(tool.name(), path).ok_or(ContainerError::Missing(tool))?;
    let user = match tool {
        ContainerTool::Apptainer | ContainerTool::Singularity => User::Own,
        ContainerTool::Podman => podman_user(geteuid().as_raw(), getegid().as_raw()),
        ContainerTool::Docker => {
            let told = answer(&program, &["info", "--format", "{{json .SecurityOptions}}"])
                .map_err(|error| ContainerError::NoDaemon(error.to_string()))?;
            docker_user(&told, geteuid().as_raw(), getegid().as_raw())
        }
    };
    Ok(Found { tool, program, user })
}

fn podman_user(user: u32, group: u32) -> User {
    if user == 0 { User::Same { user, group } } else { User::Kept { user, group } }
}

/// By what a daemon tells of how it is secured: one without root has its own user as root inside.
fn docker_user(told: &str, user: u32, group: u32) -> User {
    if told.contains("name=rootless") { User::Root } else { User::Same { user, group } }
}

/// What a program says, in time.
fn answer(program: &Path, arguments: &[&str]) -> io::Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + ANSWER_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            let cause = format!("no answer in {} s", ANSWER_MAX.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, cause));
        }
        std::thread::sleep(PAUSE);
    };
    let mut told = String::new();
    if status.success() {
        child.stdout.take().map_or(Ok(0), |mut out| out.read_to_string(&mut told))?;
        return Ok(told);
    }
    child.stderr.take().map_or(Ok(0), |mut err| err.read_to_string(&mut told))?;
    Err(io::Error::other(told.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn install(directory: &Path, name: &str, script: &str) {
        let place = directory.join(name);
        std::fs::write(&place, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_first_tool_that_is_there_is_taken_unless_another_one_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().as_os_str();
        let none = find(None, path).unwrap_err();
        assert!(matches!(none, ContainerError::NoTool));
        let told = none.failure();
        for name in ["apptainer", "podman", "docker", "install"] {
            assert!(format!("{} {:?}", told.cause, told.hint).contains(name), "{name}");
        }
        install(directory.path(), "docker", "echo '[\"name=rootless\"]'");
        install(directory.path(), "podman", "");
        std::fs::write(directory.path().join("apptainer"), "not executable").unwrap();
        let found = find(None, path).unwrap();
        assert_eq!(
            (found.tool, found.program),
            (ContainerTool::Podman, directory.path().join("podman"))
        );
        let found = find(Some(ContainerTool::Docker), path).unwrap();
        assert_eq!((found.tool, found.user), (ContainerTool::Docker, User::Root));
        let missing = find(Some(ContainerTool::Singularity), path).unwrap_err();
        assert!(matches!(missing, ContainerError::Missing(ContainerTool::Singularity)));
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_told_of_with_its_own_words() {
        let directory = tempfile::tempdir().unwrap();
        install(directory.path(), "docker", "echo 'Cannot connect to the daemon' >&2; exit 1");
        let error = find(None, directory.path().as_os_str()).unwrap_err();
        assert!(error.to_string().contains("Cannot connect to the daemon"), "{error}");
    }

    #[test]
    fn outputs_are_ours() {
        assert_eq!(podman_user(0, 0), User::Same { user: 0, group: 0 });
        assert_eq!(podman_user(7, 8), User::Kept { user: 7, group: 8 });
        assert_eq!(docker_user("[\"name=seccomp\"]", 7, 8), User::Same { user: 7, group: 8 });
    }
}
