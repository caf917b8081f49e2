//! Looks at the memory of attempts that may have only so much of it, and tells which have more.
//!
//! What counts is what the kernel cannot take back: anonymous and shared memory, that of several
//! processes in equal parts. Pages of files do not count. Telling that takes time, so first the
//! resident sets are added up, which are never less.
//!
//! Deliberately absent: limits of the kernel's own. A cgroup needs rights that an engine seldom
//! has, and `RLIMIT_AS` counts what is only reserved.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::attempts::Attempts;
use crate::procfs::{self, Stat};
use crate::wire::Key;

/// Between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A look takes this part of the time at most: on a machine with many processes, looks are rarer.
const SHARE: u32 = 20;

/// An attempt that has more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) key: Key,
    pub(super) used_bytes: u64,
}

/// When it is time to look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    due: Option<Instant>,
}

impl Watch {
    /// The next look; `None`: no attempt that runs has a limit.
    pub(super) fn due(&self, attempts: &Attempts) -> Option<Instant> {
        self.due.filter(|_| attempts.limited() > 0)
    }

    /// An attempt with a limit begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now + PAUSE_MIN, |due| due.min(now + PAUSE_MIN)));
    }

    /// Looks, if it is time to.
    pub(super) fn look(&mut self, now: Instant, attempts: &Attempts) -> Vec<Excess> {
        if self.due(attempts).is_none_or(|due| now < due) {
            return Vec::new();
        }
        let excesses = excesses(attempts);
        let end = Instant::now();
        self.due = Some(end + PAUSE_MIN.max(end.saturating_duration_since(now) * SHARE));
        excesses
    }
}

fn excesses(attempts: &Attempts) -> Vec<Excess> {
    let pids = procfs::processes().unwrap_or_default();
    let processes: BTreeMap<i32, Stat> =
        pids.into_iter().filter_map(|pid| Some((pid, procfs::stat(pid)?))).collect();
    let mut members: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (&pid, stat) in &processes {
        if let Some(leader) = leader_of(pid, stat, &processes, attempts) {
            members.entry(leader).or_default().push(pid);
        }
    }
    let excess = |(leader, pids): (i32, Vec<i32>)| {
        let running = attempts.led_by(leader)?;
        let limit = running.memory_max.filter(|_| running.stop.is_none())?;
        let resident: u64 = pids.iter().map(|pid| processes[pid].resident_bytes).sum();
        if resident <= limit {
            return None;
        }
        let own =
            |pid: &i32| procfs::memory_bytes(*pid).unwrap_or_else(|| processes[pid].resident_bytes);
        let used_bytes = pids.iter().map(own).sum();
        (used_bytes > limit).then_some(Excess { key: running.key, used_bytes })
    };
    members.into_iter().filter_map(excess).collect()
}

/// The leader of the attempt with a limit that a process belongs to, by its group or by those who
/// started it.
fn leader_of(
    pid: i32,
    stat: &Stat,
    processes: &BTreeMap<i32, Stat>,
    attempts: &Attempts,
) -> Option<i32> {
    const DEPTH_MAX: usize = 1_000;
    let (mut pid, mut stat) = (pid, stat);
    for _ in 0..DEPTH_MAX {
        let leader = [pid, stat.group].into_iter().find(|id| attempts.led_by(*id).is_some());
        if let Some(leader) = leader {
            return attempts.led_by(leader)?.memory_max.map(|_| leader);
        }
        pid = stat.parent;
        stat = processes.get(&pid)?;
    }
    None
}
