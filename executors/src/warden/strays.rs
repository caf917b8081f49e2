//! Strays: processes that left their attempt's process group (a daemon, a background job whose
//! parent has gone) and became children of the warden.
//!
//! A stray belongs to the attempt of its process group, of the mark in its environment, or of the
//! files that it has open. One that hides all three may be of any attempt that was running when it
//! was first seen; it is killed when the last of these has ended.

use std::collections::BTreeMap;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp};

use super::attempts::{Attempts, Places};
use crate::wire::Key;
use crate::{mark, procfs};

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Attempt(Key),
    /// One of the attempts up to this place in the order of starts.
    StartedBy(u64),
}

pub(super) struct Strays {
    token: String,
    owners: BTreeMap<i32, Owner>,
}

impl Strays {
    pub(super) fn new(token: String) -> Self {
        Self { token, owners: BTreeMap::new() }
    }

    /// A stray was reaped: its number may be given to another process.
    pub(super) fn forget(&mut self, pid: i32) {
        self.owners.remove(&pid);
    }

    /// Kills strays that belong to no running attempt, and counts them with the ending ones.
    pub(super) fn hunt(&mut self, children: &[i32], attempts: &mut Attempts) {
        for &pid in children {
            if attempts.led_by(pid).is_some() {
                continue;
            }
            let group = getpgid(Some(Pid::from_raw(pid))).map_or(0, Pid::as_raw);
            if attempts.led_by(group).is_some()
                || attempts.is_cleanup(pid)
                || attempts.is_cleanup(group)
            {
                continue;
            }
            let owner = *self
                .owners
                .entry(pid)
                .or_insert_with(|| owner(pid, group, self.token.as_bytes(), attempts));
            if !is_wanted(owner, attempts) {
                slay(pid, group);
                count(owner, attempts);
            }
        }
    }
}

fn is_wanted(owner: Owner, attempts: &Attempts) -> bool {
    match owner {
        Owner::Attempt(key) => attempts.is_running(key),
        Owner::StartedBy(last) => attempts.running().any(|running| running.sequence <= last),
    }
}

fn count(owner: Owner, attempts: &mut Attempts) {
    for ending in &mut attempts.ending {
        let suspect = match owner {
            Owner::Attempt(key) => ending.key == key,
            Owner::StartedBy(last) => ending.sequence <= last,
        };
        ending.strays += usize::from(suspect);
    }
}

fn owner(pid: i32, group: i32, token: &[u8], attempts: &Attempts) -> Owner {
    if let Some(ending) = attempts.ending.iter().find(|ending| ending.group == group) {
        return Owner::Attempt(ending.key);
    }
    if let Some(key) = procfs::mark(pid).and_then(|mark| mark::attempt(&mark, token)) {
        return Owner::Attempt(key);
    }
    let open = procfs::places(pid);
    let works_in = |places: &Places| {
        open.iter().any(|place| place.starts_with(&places.directory) || places.logs.contains(place))
    };
    let running = attempts.running().map(|running| (running.key, &running.places));
    let ending = attempts.ending.iter().map(|ending| (ending.key, &ending.places));
    ending
        .chain(running)
        .find(|(_, places)| works_in(places))
        .map_or_else(|| Owner::StartedBy(attempts.started()), |(key, _)| Owner::Attempt(key))
}

/// Its group too, at one blow, unless it is in the warden's own. Errors: it is gone already.
fn slay(pid: i32, group: i32) {
    if group != 0 && group != getpgrp().as_raw() {
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
}
