//! The attempts that the warden answers for: running ones by process id, and those whose leader
//! has ended while others of their processes may not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::killpg;
use nix::unistd::Pid;

use super::cleanup::Cleanup;
use crate::procfs;
use crate::wire::{Begin, End, Key, Used};

/// Why an attempt is made to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    TimedOut,
    Cancelled,
    OverMemory { used_bytes: u64 },
}

/// An attempt whose leader runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) key: Key,
    pub(super) began: Instant,
    /// Its place in the order of starts.
    pub(super) sequence: u64,
    pub(super) stop: Option<Stop>,
    pub(super) places: Places,
    pub(super) memory_max: Option<u64>,
    /// Processes that the kernel had killed for lack of memory when it began.
    pub(super) oom_kills: Option<u64>,
    /// What is run after it, unless it succeeds.
    pub(super) cleanup: Vec<String>,
    grace: Duration,
    deadline: Option<Instant>,
}

/// Where an attempt works: whoever has a file open there belongs to it.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) directory: PathBuf,
    pub(super) logs: [PathBuf; 2],
}

/// An attempt whose leader has ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) key: Key,
    pub(super) group: i32,
    pub(super) sequence: u64,
    pub(super) places: Places,
    pub(super) end: End,
    pub(super) used: Used,
    pub(super) kernel_killed: Option<bool>,
    pub(super) since: Instant,
    /// How many strays of it were seen at the last look.
    pub(super) strays: usize,
    /// What removes what it started elsewhere, while that runs.
    pub(super) cleanup: Option<Cleanup>,
}

impl Ending {
    /// Whether its process group still has members.
    pub(super) fn group_is_there(&self) -> bool {
        killpg(Pid::from_raw(self.group), None).is_ok()
    }
}

pub(super) struct Attempts {
    running: BTreeMap<i32, Running>,
    leaders: BTreeMap<Key, i32>,
    deadlines: BTreeSet<(Instant, Key)>,
    started: u64,
    /// How many of those that run may have only so much memory.
    limited: usize,
    pub(super) ending: Vec<Ending>,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            running: BTreeMap::new(),
            leaders: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            started: 0,
            limited: 0,
            ending: Vec::new(),
        }
    }

    pub(super) fn knows(&self, key: Key) -> bool {
        self.leaders.contains_key(&key) || self.ending.iter().any(|ending| ending.key == key)
    }

    /// The running attempt that this process leads.
    pub(super) fn led_by(&self, pid: i32) -> Option<&Running> {
        self.running.get(&pid)
    }

    /// All running attempts, by process id.
    pub(super) fn running(&self) -> impl Iterator<Item = &Running> {
        self.running.values()
    }

    /// Whether this process removes what an attempt left.
    pub(super) fn is_cleanup(&self, pid: i32) -> bool {
        let mut cleanups = self.ending.iter().filter_map(|ending| ending.cleanup.as_ref());
        cleanups.any(|cleanup| cleanup.pid == pid)
    }

    /// This process was reaped, which may have been a cleanup: what is left has its time from now on.
    pub(super) fn reaped(&mut self, pid: i32, now: Instant) {
        for ending in &mut self.ending {
            if ending.cleanup.as_ref().is_some_and(|cleanup| cleanup.pid == pid) {
                (ending.cleanup, ending.since) = (None, now);
            }
        }
    }

    /// The cleanups of all attempts that are not over.
    pub(super) fn cleanups(&mut self) -> Vec<(Key, Vec<String>)> {
        let running = self.running.values_mut();
        let running = running.map(|running| (running.key, std::mem::take(&mut running.cleanup)));
        let begun = self.ending.iter_mut();
        let begun = begun.filter_map(|ending| Some((ending.key, ending.cleanup.take()?.argv)));
        running.chain(begun).filter(|(_, argv)| !argv.is_empty()).collect()
    }

    pub(super) fn is_running(&self, key: Key) -> bool {
        self.leaders.contains_key(&key)
    }

    pub(super) fn started(&self) -> u64 {
        self.started
    }

    pub(super) fn limited(&self) -> usize {
        self.limited
    }

    pub(super) fn insert(&mut self, pid: i32, begin: &Begin, now: Instant, oom_kills: Option<u64>) {
        self.started += 1;
        self.limited += usize::from(begin.memory_max_bytes.is_some());
        let limit = begin.timeout_ms.map(Duration::from_millis);
        let deadline = limit.and_then(|limit| now.checked_add(limit));
        self.deadlines.extend(deadline.map(|deadline| (deadline, begin.key)));
        self.leaders.insert(begin.key, pid);
        let path = |bytes: &[u8]| procfs::path(bytes).to_path_buf();
        let running = Running {
            key: begin.key,
            began: now,
            sequence: self.started,
            stop: None,
            places: Places {
                directory: path(&begin.directory),
                logs: [path(&begin.stdout), path(&begin.stderr)],
            },
            memory_max: begin.memory_max_bytes,
            oom_kills,
            cleanup: begin.cleanup.clone(),
            grace: Duration::from_millis(begin.grace_ms),
            deadline,
        };
        self.running.insert(pid, running);
    }

    /// Takes out the attempt that this process led.
    pub(super) fn remove(&mut self, pid: i32) -> Option<Running> {
        let running = self.running.remove(&pid)?;
        self.leaders.remove(&running.key);
        self.limited -= usize::from(running.memory_max.is_some());
        if let Some(deadline) = running.deadline {
            self.deadlines.remove(&(deadline, running.key));
        }
        Some(running)
    }

    /// Notes that an attempt is made to stop, and when its grace is over. `None`: it is not
    /// running, or is being stopped already.
    pub(super) fn stop(&mut self, key: Key, why: Stop, now: Instant) -> Option<Pid> {
        let pid = *self.leaders.get(&key)?;
        let running = self.running.get_mut(&pid).filter(|running| running.stop.is_none())?;
        running.stop = Some(why);
        if let Some(deadline) = running.deadline.take() {
            self.deadlines.remove(&(deadline, key));
        }
        running.deadline = now.checked_add(running.grace);
        self.deadlines.extend(running.deadline.map(|deadline| (deadline, key)));
        Some(Pid::from_raw(pid))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// An attempt whose deadline has passed: its key, its leader, and whether it was being stopped.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Key, Pid, bool)> {
        let (deadline, key) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.deadlines.remove(&(deadline, key));
        let pid = *self.leaders.get(&key)?;
        let running = self.running.get_mut(&pid)?;
        running.deadline = None;
        Some((key, Pid::from_raw(pid), running.stop.is_some()))
    }
}
