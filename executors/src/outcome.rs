//! From how an attempt ended to what the engine and people are told.

use std::path::Path;
use std::time::Duration;

use keelboat_engine::{Exit, Failure, FailureClass, Shortage, Usage};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::wire::{End, Ended, Obstacle, Used};

/// What a failure text needs to know of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) program: String,
    pub(crate) directory: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) timeout: Option<Duration>,
    /// The memory that it may have, in bytes.
    pub(crate) memory: Option<u64>,
}

/// Of what an attempt asked for: with so much in use it may have been killed for lack of memory.
const NEARLY_ALL: f64 = 0.9;

/// Success, or the failure with its class.
pub(crate) fn result(ended: &Ended, told: &Told) -> Result<(), Failure> {
    use FailureClass::{OutOfResources, Transient};
    match ended.end {
        End::Exited { code: 0 } => Ok(()),
        End::Exited { code } => Err(exited(code, ended, told).with_exit(Exit::Code(code))),
        End::Signaled { signal } => {
            Err(signaled(signal, ended, told).with_exit(Exit::Signal(signal)))
        }
        End::TimedOut => {
            let limit = told.timeout.map_or_else(String::new, |limit| format!(" after {limit:?}"));
            Err(Failure::new(OutOfResources, format!("timed out{limit}"))
                .with_hint("give the task a longer `timeout`, or find out what it waits for")
                .with_shortage(Shortage::Time))
        }
        End::Cancelled => Err(Failure::new(Transient, "was cancelled")),
        End::NotStarted { obstacle, errno } => Err(not_started(obstacle, errno, told)),
        End::Unkillable => Err(Failure::new(
            FailureClass::InfrastructureLost,
            "processes of the attempt are still there after SIGKILL",
        )
        .with_hint("a process that waits for a dead disk or network filesystem cannot be killed")),
        End::OverMemory { used_bytes } => {
            let asked = told.memory.unwrap_or_default();
            Err(out_of_memory(format!(
                "it used {} and asked for {}",
                size(used_bytes),
                size(asked)
            )))
        }
    }
}

fn exited(code: i32, ended: &Ended, told: &Told) -> Failure {
    let shell_signal = Signal::try_from(code - 128).ok().filter(|_| code > 128);
    match (code, shell_signal) {
        (126, _) => Failure::new(FailureClass::Permanent, "command cannot be run (exit 126)")
            .with_hint("make the program executable, and see what standard error says"),
        (127, _) => Failure::new(FailureClass::Permanent, "command not found (exit 127)")
            .with_hint("install the program, or put its directory into PATH"),
        (_, Some(Signal::SIGKILL)) => killed(&format!("exit code {code}"), ended, told)
            .unwrap_or_else(|| told_by_shell(code, Signal::SIGKILL)),
        (_, Some(signal)) => told_by_shell(code, signal),
        _ => Failure::new(FailureClass::Transient, format!("exit code {code}")),
    }
}

fn told_by_shell(code: i32, signal: Signal) -> Failure {
    Failure::new(FailureClass::Transient, format!("exit code {code}")).with_hint(format!(
        "from a shell, exit code {code} means that a command was killed by {}",
        signal.as_str()
    ))
}

fn signaled(signal: i32, ended: &Ended, told: &Told) -> Failure {
    let name = Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned());
    let cause = format!("killed by {name}");
    if signal != libc::SIGKILL {
        return Failure::new(FailureClass::Transient, cause);
    }
    match (killed(&cause, ended, told), ended.kernel_killed) {
        (Some(failure), _) => failure,
        (None, Some(_)) => Failure::new(FailureClass::Transient, cause).with_hint(
            "it was not the kernel for lack of memory: somebody, or a limit of this machine, did it",
        ),
        (None, None) => Failure::new(FailureClass::OutOfResources, cause).with_hint(
            "the kernel does that when memory runs out: see `dmesg`, and let the task ask for more `memory`",
        ),
    }
}

/// SIGKILL that was for lack of memory, by all that is known.
fn killed(what: &str, ended: &Ended, told: &Told) -> Option<Failure> {
    if ended.kernel_killed == Some(true) {
        return Some(out_of_memory(format!("{what}: the kernel ran out of memory")));
    }
    let (peak, asked) = (ended.used.memory_max_bytes, told.memory?);
    #[expect(clippy::cast_precision_loss, reason = "it is nearly so, anyway")]
    let is_near = peak as f64 >= asked as f64 * NEARLY_ALL;
    let text = || format!("{what}: it used {} and asked for {}", size(peak), size(asked));
    is_near.then(|| out_of_memory(text()))
}

fn out_of_memory(cause: String) -> Failure {
    Failure::new(FailureClass::OutOfResources, cause)
        .with_hint(
            "let the task ask for more `memory`, or for more after each time that it runs out: \
             memory = { first = \"2GiB\", max = \"32GiB\" }",
        )
        .with_shortage(Shortage::Memory)
}

/// A size for people.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    let bytes = bytes as f64;
    let (mut number, mut unit) = (bytes / 1024.0, "KiB");
    for larger in ["MiB", "GiB", "TiB"] {
        if number < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, larger);
    }
    format!("{number:.1} {unit}")
}

fn not_started(obstacle: Obstacle, errno: i32, told: &Told) -> Failure {
    let errno = Errno::from_raw(errno);
    let why = errno.desc().to_lowercase();
    let class = match errno {
        Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE => {
            FailureClass::InfrastructureLost
        }
        Errno::ENOSPC | Errno::EDQUOT => FailureClass::OutOfResources,
        _ => FailureClass::Permanent,
    };
    let cause = match obstacle {
        Obstacle::Program => format!("cannot start {:?}: {why}", told.program),
        Obstacle::Directory => {
            format!("cannot enter working directory {:?}: {why}", told.directory)
        }
        Obstacle::Stdout => format!("cannot create log file {:?}: {why}", told.stdout),
        Obstacle::Stderr => format!("cannot create log file {:?}: {why}", told.stderr),
    };
    let mut failure = Failure::new(class, cause);
    failure.shortage = (class == FailureClass::OutOfResources).then_some(Shortage::Disk);
    match hint(obstacle, errno) {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn hint(obstacle: Obstacle, errno: Errno) -> Option<&'static str> {
    Some(match (obstacle, errno) {
        (_, Errno::ENOSPC | Errno::EDQUOT) => "free some space, or raise the quota",
        (_, Errno::EROFS) => "the filesystem is mounted read-only",
        (_, Errno::EMFILE | Errno::ENFILE) => "raise the limit of open files (`ulimit -n`)",
        (_, Errno::EAGAIN) => "raise the limit of processes (`ulimit -u`)",
        (Obstacle::Directory, Errno::ENOENT) => "something removed the attempt's scratch directory",
        (Obstacle::Program, Errno::ENOENT) => {
            "install the program, or put its directory into PATH; a script needs the program of its `#!` line"
        }
        (Obstacle::Program, Errno::EACCES) => "make the program executable (`chmod +x`)",
        (Obstacle::Program, Errno::ENOEXEC) => "a script needs a first line such as `#!/bin/sh`",
        (Obstacle::Program, Errno::E2BIG) => {
            "the command line is too long: pass long lists of names in a file"
        }
        (Obstacle::Program, Errno::EINVAL) => "a command cannot hold a NUL character",
        _ => return None,
    })
}

/// What an attempt used, in the engine's words.
pub(crate) fn usage(used: &Used) -> Usage {
    Usage {
        wall: Duration::from_micros(used.wall_us),
        cpu_user: Duration::from_micros(used.cpu_user_us),
        cpu_system: Duration::from_micros(used.cpu_system_us),
        memory_max: used.memory_max_bytes,
        read: used.read_bytes,
        written: used.written_bytes,
    }
}

/// A path for a failure text.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Key;

    fn told() -> Told {
        Told {
            program: "tool".into(),
            directory: "/s/a b".into(),
            stdout: "/l/t.out".into(),
            stderr: "/l/t.err".into(),
            timeout: Some(Duration::from_secs(2)),
            memory: Some(2 << 30),
        }
    }

    fn ended(end: End) -> Ended {
        let key = Key { task: 0, ordinal: 1 };
        Ended { key, end, used: Used::default(), kernel_killed: None }
    }

    fn text(end: &Ended) -> String {
        let failure = result(end, &told()).unwrap_err();
        format!("{} | {failure} | {}", failure.class, failure.hint.as_deref().unwrap_or("-"))
    }

    #[test]
    fn every_end_has_its_class_and_words() {
        let not_started =
            |obstacle, errno: Errno| End::NotStarted { obstacle, errno: errno as i32 };
        let table = [
            (End::Exited { code: 3 }, "transient | exit code 3 | -"),
            (End::Exited { code: 127 }, "permanent | command not found (exit 127) | install"),
            (End::Exited { code: 126 }, "permanent | command cannot be run (exit 126) | make"),
            (
                End::Exited { code: 137 },
                "transient | exit code 137 | from a shell, exit code 137 means that a command was killed by SIGKILL",
            ),
            (End::Exited { code: 255 }, "transient | exit code 255 | -"),
            (End::Signaled { signal: libc::SIGSEGV }, "transient | killed by SIGSEGV | -"),
            (End::Signaled { signal: 40 }, "transient | killed by signal 40 | -"),
            (
                End::Signaled { signal: libc::SIGKILL },
                "out of resources | killed by SIGKILL | the kernel",
            ),
            (End::TimedOut, "out of resources | timed out after 2s | give"),
            (End::Cancelled, "transient | was cancelled | -"),
            (End::Unkillable, "infrastructure lost | processes of the attempt"),
            (
                not_started(Obstacle::Program, Errno::ENOENT),
                "permanent | cannot start \"tool\": no such file or directory | install",
            ),
            (
                not_started(Obstacle::Program, Errno::EACCES),
                "permanent | cannot start \"tool\": permission denied | make",
            ),
            (
                not_started(Obstacle::Program, Errno::E2BIG),
                "permanent | cannot start \"tool\": argument list too long | the command",
            ),
            (
                not_started(Obstacle::Program, Errno::EAGAIN),
                "infrastructure lost | cannot start \"tool\"",
            ),
            (
                not_started(Obstacle::Directory, Errno::ENOENT),
                "permanent | cannot enter working directory \"/s/a b\": no such file or directory | something",
            ),
            (
                not_started(Obstacle::Stdout, Errno::ENOSPC),
                "out of resources | cannot create log file \"/l/t.out\": no space left on device | free",
            ),
            (
                not_started(Obstacle::Stderr, Errno::EROFS),
                "permanent | cannot create log file \"/l/t.err\": read-only file system | the filesystem",
            ),
        ];
        for (end, expected) in table {
            let end = ended(end);
            assert!(text(&end).starts_with(expected), "{end:?}: {}", text(&end));
        }
        assert_eq!(result(&ended(End::Exited { code: 0 }), &told()), Ok(()));
    }

    #[test]
    fn a_kill_for_lack_of_memory_is_told_from_others() {
        let by_signal = || End::Signaled { signal: libc::SIGKILL };
        let by_shell = || End::Exited { code: 137 };
        let with = |end, kernel_killed, peak| {
            let used = Used { memory_max_bytes: peak, ..Used::default() };
            Ended { used, kernel_killed, ..ended(end) }
        };
        let table = [
            (
                with(by_signal(), Some(true), 0),
                Some(Shortage::Memory),
                "out of resources | killed by SIGKILL: the kernel ran out of memory | let",
            ),
            (
                with(by_shell(), Some(true), 0),
                Some(Shortage::Memory),
                "out of resources | exit code 137: the kernel ran out of memory | let",
            ),
            (
                with(by_shell(), Some(false), 2_000_000_000),
                Some(Shortage::Memory),
                "out of resources | exit code 137: it used 1.9 GiB and asked for 2.0 GiB | let",
            ),
            (
                with(by_signal(), Some(false), 1 << 30),
                None,
                "transient | killed by SIGKILL | it was not the kernel",
            ),
            (
                with(by_shell(), Some(false), 1 << 30),
                None,
                "transient | exit code 137 | from a shell",
            ),
            (with(by_signal(), None, 1 << 30), None, "out of resources | killed by SIGKILL | the"),
            (
                ended(End::OverMemory { used_bytes: 3_328_599_654 }),
                Some(Shortage::Memory),
                "out of resources | it used 3.1 GiB and asked for 2.0 GiB | let",
            ),
        ];
        for (end, shortage, expected) in table {
            assert!(text(&end).starts_with(expected), "{end:?}: {}", text(&end));
            assert_eq!(result(&end, &told()).unwrap_err().shortage, shortage, "{end:?}");
        }
        assert_eq!(size(512), "0.5 KiB");
        assert_eq!(size(3 << 40), "3.0 TiB");
    }
}
