//! Functions that are launched ahead wait in lines of their pools. Whoever has the lines begins as
//! many as the core says are at work.

use std::collections::VecDeque;
use std::time::Duration;

use super::marks::Mark;
use super::world::{Attempt, Deed, World};
use crate::core::Core;
use crate::{AttemptId, Command, Digest, Resources, SiteId, TaskName, TaskSpec, Usage};

/// Some functions may go ahead, and name the pool of theirs: decided by their names, so that all
/// else of a plan stays as it is.
pub(super) fn may_go_ahead(spec: &mut TaskSpec, pool: &str) {
    let is_small =
        spec.options.resources == Resources::default() && spec.options.checkpoint.is_none();
    if is_small && !Digest::of(spec.name.as_bytes()).as_bytes()[0].is_multiple_of(4) {
        let options = spec.options_mut();
        options.goes_ahead = true;
        options.executors = [pool.into()].into();
        if let Command::Function { name, .. } = &mut spec.command {
            *name = "short".into();
        }
    }
}

/// Most are short.
pub(super) fn usage(name: &TaskName) -> Usage {
    let long = Digest::of(name.as_bytes()).as_bytes()[1].is_multiple_of(8);
    let wall = if long { Duration::from_micros(1_500) } else { Duration::from_micros(30) };
    Usage { wall, ..Usage::default() }
}

impl World<'_> {
    /// What was launched begins, or waits in line.
    pub(super) fn begin_or_line_up(&mut self, id: AttemptId, core: &Core) {
        let place = (SiteId::HOME, core.pool(id.task));
        if core.is_in_line(id.task) {
            self.marks.hit(Mark::LaunchedAhead);
            self.lines.entry(place).or_default().push_back(id);
        } else {
            self.begin(id);
        }
    }

    fn begin(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.begun = true;
            self.later((10, 150), Deed::End(id));
        }
    }

    /// Those in line begin, as far as there are slots for them.
    pub(super) fn begin_in_line(&mut self, core: &Core) {
        for place in self.lines.keys().copied().collect::<Vec<_>>() {
            while self.at_work(place) < core.at_work(place.0, place.1) {
                let Some(next) = self.lines.get_mut(&place).and_then(VecDeque::pop_front) else {
                    break;
                };
                if self.attempts.get(&next).is_some_and(|attempt| !attempt.killed) {
                    self.begin(next);
                }
            }
        }
    }

    fn at_work(&self, place: (SiteId, u16)) -> usize {
        let is_at_work = |attempt: &&Attempt| {
            let is_there = (attempt.site, attempt.pool) == place;
            is_there && attempt.spec.options.goes_ahead && attempt.begun && !attempt.publishing
        };
        self.attempts.values().filter(is_at_work).count()
    }

    /// The core gives slots to one in line.
    pub(super) fn admit(&mut self, task: &TaskName, ordinal: u32, core: &Core) {
        let Some(task) = core.graph().find(task) else { return };
        let id = AttemptId { task, ordinal };
        let Some(attempt) = self.attempts.get(&id) else { return };
        let (site, pool, held) = (attempt.site, attempt.pool, core.held(task));
        if attempt.held != Resources::NONE || held == Resources::NONE {
            return;
        }
        let here = self.attempts.values().filter(|a| (a.site, a.pool) == (site, pool));
        let running = here.filter(|a| !a.publishing);
        let all = running.fold(held, |all, attempt| all.and(attempt.held));
        let capacity = self.pools[&site][usize::from(pool)].capacity;
        assert!(all.fits(capacity), "{held:?} for {id:?} make {all:?} of {capacity:?}");
        self.marks.hit(Mark::AdmittedFromLine);
        self.attempts.get_mut(&id).expect("it is there").held = held;
    }
}
