//! Killing what is left when those who should have done it are dead themselves.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp};

use crate::{mark, procfs, sys};

/// How long killed processes may take to go.
const SWEEP_MAX: Duration = Duration::from_secs(10);
/// Between two looks at `/proc`.
const SWEEP_PAUSE: Duration = Duration::from_millis(2);

/// Kills with SIGKILL every process whose environment carries the mark of `token`, wardens
/// included, and waits until they are gone. Never the calling process.
///
/// For the engine that takes over from one that was killed together with its warden. Processes
/// of other users are out of reach. Returns how many were found.
///
/// # Errors
/// `/proc` cannot be read, or processes are still there after ten seconds.
pub fn kill_leftovers(token: &str) -> io::Result<usize> {
    sweep(token, &BTreeSet::new())
}

/// [`kill_leftovers`], and also the calling process's children that are in one of these process groups.
pub(crate) fn sweep(token: &str, groups: &BTreeSet<i32>) -> io::Result<usize> {
    let deadline = Instant::now() + SWEEP_MAX;
    let mut seen = BTreeSet::new();
    loop {
        let left = kill_found(token, groups, &mut seen)?;
        if left.is_empty() {
            return Ok(seen.len());
        }
        if Instant::now() >= deadline {
            let text = format!("processes {left:?} of {token} are still there after SIGKILL");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(SWEEP_PAUSE);
    }
}

/// Looks once, kills what it finds, and reaps what had been found before and is a child by now.
/// Returns those that have still to go.
fn kill_found(
    token: &str,
    groups: &BTreeSet<i32>,
    seen: &mut BTreeSet<i32>,
) -> io::Result<Vec<i32>> {
    let own = Pid::this().as_raw();
    let own_group = getpgrp().as_raw();
    let mut left = Vec::new();
    for pid in procfs::processes()?.into_iter().filter(|&pid| pid != own) {
        let Some(stat) = procfs::stat(pid) else { continue };
        let orphan = stat.parent == own && groups.contains(&stat.group) && stat.group != own_group;
        if stat.zombie {
            if stat.parent == own && (orphan || seen.contains(&pid)) {
                sys::reap(pid);
            }
            continue;
        }
        let marked = || {
            procfs::mark(pid).is_some_and(|mark| mark::bearer(&mark, token.as_bytes()).is_some())
        };
        // The only error is that it is gone already, or another user's, which the deadline shows.
        if orphan {
            killpg(Pid::from_raw(stat.group), Signal::SIGKILL).ok();
        } else if marked() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        } else {
            continue;
        }
        seen.insert(pid);
        left.push(pid);
    }
    Ok(left)
}
