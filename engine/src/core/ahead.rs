//! Short tasks are launched ahead: while their slots are still taken. Whoever launches them lets
//! them wait in line, and begins the first one when an attempt of the same place ends, without
//! asking here. What is in line gets the slots that become free before all others do, so that
//! here and there the same is known of who runs.

use std::ops::Bound;
use std::time::Duration;

use super::site::{Place, PlaceId};
use super::{Action, Core, Course, Phase};
use crate::{Fact, Resources, SiteId, TaskId};

/// What is in line is to be begun in about this time, so that what comes later and is more
/// urgent does not wait for long.
const LINE_TIME_MAX: Duration = Duration::from_millis(1);

/// The longest of the last attempts counts for this many times less with each one after it: a
/// place where one of many is long is no place for being launched ahead.
const FORGETTING: u32 = 8;

impl Place {
    /// How many tasks may be in line.
    fn line_max(&self) -> usize {
        let Some(longest) = self.longest else { return 0 };
        let time = LINE_TIME_MAX.as_nanos() * u128::from(self.pool.capacity.cores);
        let fitting = time / longest.as_nanos().max(1);
        usize::try_from(fitting).unwrap_or(usize::MAX).min(self.pool.ahead as usize)
    }

    /// An attempt of a task that may be launched ahead lasted so long.
    fn learn(&mut self, wall: Duration) {
        let before = self.longest.unwrap_or_default();
        self.longest = Some(wall.max(before.saturating_sub(before / FORGETTING)));
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
        let is_going = self.course == Course::Going;
        if !is_going || place.free.cores > 0 || place.line.len() >= place.line_max() {
            return None;
        }
        let (_, task) = *place.queued.first()?;
        let spec = self.spec(task);
        // Another pool may have slots for it sooner.
        let is_only_here =
            spec.options.executors.len() == 1 || self.sites.pools_of(id.0).nth(1).is_none();
        let may = spec.options.goes_ahead && spec.options.resources == Resources::default();
        (may && is_only_here).then_some(task)
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

    /// An attempt of a task that may be launched ahead has ended.
    pub(super) fn learn_wall(&mut self, task: TaskId, site: SiteId, wall: Duration) {
        if self.spec(task).options.goes_ahead {
            let id = (site, self.pool(task));
            self.sites.all.get_mut(&id).into_iter().for_each(|place| place.learn(wall));
        }
    }
}
