//! Killing what is left when those who should have done it are dead themselves.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getsid};

use crate::procfs::Stat;
use crate::{mark, procfs, sys};

/// How long killed processes may take to go.
const SWEEP_MAX: Duration = Duration::from_secs(10);
/// Between two looks at `/proc`.
const SWEEP_PAUSE: Duration = Duration::from_millis(2);

/// Kills with SIGKILL every process whose environment carries the mark of `token`, wardens
/// included, and all that is in the session of a marked one; waits until they are gone. Never the
/// calling process.
///
/// For the engine that takes over from one that was killed together with its warden. Processes
/// of other users are out of reach. Returns how many were seen; those that died together with
/// one of them are not counted.
///
/// # Errors
/// `/proc` cannot be read, or processes are still there after ten seconds.
pub fn kill_leftovers(token: &str) -> io::Result<usize> {
    Sweep::new(token).run()
}

/// [`kill_leftovers`], with all that is in the session of a warden that has died. It must not have
/// been reaped: as long as it is there, its number is not given to another session.
pub(crate) fn kill_behind_warden(token: &str, warden: i32) -> io::Result<usize> {
    let mut sweep = Sweep::new(token);
    sweep.sessions.insert(warden);
    sweep.spared.insert(warden);
    sweep.run()
}

struct Sweep<'a> {
    token: &'a [u8],
    /// Sessions that wardens and tasks made. No process can enter a session from outside.
    sessions: BTreeSet<i32>,
    spared: BTreeSet<i32>,
    seen: BTreeSet<i32>,
}

impl<'a> Sweep<'a> {
    fn new(token: &'a str) -> Self {
        Self {
            token: token.as_bytes(),
            sessions: BTreeSet::new(),
            spared: BTreeSet::from([Pid::this().as_raw()]),
            seen: BTreeSet::new(),
        }
    }

    /// Looks and kills until nothing is found.
    fn run(mut self) -> io::Result<usize> {
        let deadline = Instant::now() + SWEEP_MAX;
        loop {
            let left = self.look()?;
            if left.is_empty() {
                return Ok(self.seen.len());
            }
            if Instant::now() >= deadline {
                let text = format!("processes {left:?} are still there after SIGKILL");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            thread::sleep(SWEEP_PAUSE);
        }
    }

    /// Kills what it finds, and reaps what it found before and is a child by now. Returns those
    /// that have still to go.
    fn look(&mut self) -> io::Result<Vec<i32>> {
        let mut left = Vec::new();
        for pid in procfs::processes()? {
            let Some(stat) = procfs::stat(pid).filter(|_| !self.spared.contains(&pid)) else {
                continue;
            };
            if stat.zombie {
                let known = self.seen.contains(&pid) || self.sessions.contains(&stat.session);
                if known && stat.parent == Pid::this().as_raw() {
                    sys::reap(pid);
                }
            } else if self.kill(pid, stat) {
                self.seen.insert(pid);
                left.push(pid);
            }
        }
        Ok(left)
    }

    /// Whether it is a process to kill. Failures to kill show at the deadline.
    fn kill(&mut self, pid: i32, stat: Stat) -> bool {
        if self.sessions.contains(&stat.session) {
            // The whole group at one blow, which it cannot outrun by forking.
            killpg(Pid::from_raw(stat.group), Signal::SIGKILL).ok();
            return true;
        }
        let Some(mark) = procfs::mark(pid) else { return false };
        let Some(bearer) = mark::bearer(&mark, self.token) else { return false };
        // A warden that has just started may still be in the session of its engine; and the
        // caller may itself be below a task.
        if bearer != mark::WARDEN && Some(stat.session) != own_session() {
            self.sessions.insert(stat.session);
        }
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        true
    }
}

fn own_session() -> Option<i32> {
    getsid(None).ok().map(Pid::as_raw)
}
