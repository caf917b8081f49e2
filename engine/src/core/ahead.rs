//! Short tasks are launched ahead: while their slots are still taken. Whoever launches them lets
//! them wait in line, and begins the first one when an attempt of the same place ends, without
//! asking here. What is in line gets the slots that become free before all others do, so that
//! here and there the same is known of who runs.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::site::PlaceId;
use super::{Action, Core, Course, Phase};
use crate::{Command, Fact, Resources, SiteId, TaskId, TaskSpec};

/// What is in line is to be begun in about this time, so that what comes later and is more
/// urgent does not wait for long.
const LINE_TIME_MAX: Duration = Duration::from_millis(1);

/// The longest of a function's last attempts counts for this part less with each one after it.
const FORGETTING: u32 = 8;

/// How long the functions last that may be launched ahead.
#[derive(Debug, Default)]
pub(super) struct Functions {
    by_name: BTreeMap<Arc<str>, u32>,
    seen: Vec<Seen>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// Attempts in a row that were short.
    short: u32,
    longest: Duration,
}

impl Functions {
    /// The number of the function that a task calls, if it may be launched ahead.
    pub(super) fn number_of(&mut self, spec: &TaskSpec) -> Option<u32> {
        let Command::Function { name, .. } = &spec.command else { return None };
        if !spec.options.goes_ahead || spec.options.resources != Resources::default() {
            return None;
        }
        if let Some(known) = self.by_name.get(name) {
            return Some(*known);
        }
        let number = super::number(self.seen.len());
        self.seen.push(Seen::default());
        self.by_name.insert(Arc::clone(name), number);
        Some(number)
    }

    /// How long the next call may last, when so many before it were short.
    fn expected(&self, function: u32, after: u32) -> Option<Duration> {
        let seen = self.seen.get(function as usize)?;
        (seen.short >= after).then_some(seen.longest)
    }

    /// An attempt lasted so long.
    fn learn(&mut self, function: u32, wall: Duration) {
        let Some(seen) = self.seen.get_mut(function as usize) else { return };
        seen.short = if wall > LINE_TIME_MAX { 0 } else { seen.short.saturating_add(1) };
        seen.longest = wall.max(seen.longest.saturating_sub(seen.longest / FORGETTING));
    }
}

impl Core {
    /// Whether a task was launched ahead and still waits for its slots.
    pub fn is_in_line(&self, task: TaskId) -> bool {
        let place = self.phase(task).site().and_then(|site| {
            let id = (site, self.pool(task));
            self.sites.all.get(&id)
        });
        matches!(self.phase(task), Phase::Running(_))
            && place.is_some_and(|place| place.line.contains(&task))
    }

    /// How many tasks of a pool have slots that may be launched ahead: as many of them may be at
    /// work at one time.
    pub fn at_work(&self, site: SiteId, pool: u16) -> usize {
        let Some(place) = self.sites.all.get(&(site, pool)) else { return 0 };
        place.running.keys().filter(|task| self.spec(**task).options.goes_ahead).count()
    }

    /// The next task to be launched ahead, if that is to be.
    pub(super) fn next_ahead(&self, id: PlaceId) -> Option<TaskId> {
        let place = self.sites.all.get(&id)?;
        let is_full = place.line.len() >= place.pool.ahead as usize;
        if self.course != Course::Going || place.free.cores > 0 || is_full {
            return None;
        }
        let (_, task) = *place.queued.first()?;
        let all = place.line.iter().copied().chain([task]);
        let mut expected = Duration::ZERO;
        for task in all {
            expected = expected.saturating_add(self.expected(task)?);
        }
        let is_short = expected <= LINE_TIME_MAX.saturating_mul(place.pool.capacity.cores);
        // Another pool may have slots for it sooner.
        let labels = self.spec(task).options.executors.len();
        let is_only_here = labels == 1 || self.sites.pools_of(id.0).nth(1).is_none();
        (is_short && is_only_here).then_some(task)
    }

    /// How long a call may last, if that is known well enough for its task to be launched ahead.
    fn expected(&self, task: TaskId) -> Option<Duration> {
        let function = self.tasks[task.index()].function?;
        self.functions.expected(function, self.options.ahead_after)
    }

    /// Gives slots that became free to tasks in line, in their order.
    pub(super) fn admit_from_line(&mut self, actions: &mut Vec<Action>) {
        if self.sites.in_line == 0 {
            return;
        }
        let mut next = self.sites.stirred.first().copied();
        while let Some(id) = next {
            while let Some(task) = self.sites.admit_first(id) {
                self.counts.running += 1;
                self.tell_of_begin(task, actions);
            }
            let behind = (Bound::Excluded(id), Bound::Unbounded);
            next = self.sites.stirred.range(behind).next().copied();
        }
    }

    /// The attempt of a task has begun.
    pub(super) fn tell_of_begin(&self, task: TaskId, actions: &mut Vec<Action>) {
        let state = &self.tasks[task.index()];
        let fact = Fact::AttemptStarted {
            task: self.spec(task).name.clone(),
            ordinal: state.ordinal,
            reasons: state.reasons.clone(),
        };
        super::record(fact, actions);
    }

    /// An attempt has ended.
    pub(super) fn learn_wall(&mut self, task: TaskId, wall: Duration) {
        if let Some(function) = self.tasks[task.index()].function {
            self.functions.learn(function, wall);
        }
    }
}
