//! Places: the pools of slots that sites have, who waits there and who runs. The pools of one
//! site share its files.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::event::Pool;
use super::ready::Kind;
use crate::{Resources, SiteId, TaskId};

/// A site and one of its pools.
pub(super) type PlaceId = (SiteId, u16);

/// The highest priority first, then by number.
pub(super) type Turn = (Reverse<i32>, TaskId);

#[derive(Debug, Default)]
pub(super) struct Sites {
    pub(super) all: BTreeMap<PlaceId, Place>,
    /// Places at which something can have become possible to launch.
    pub(super) stirred: BTreeSet<PlaceId>,
    pub(super) publishing: usize,
    /// Tasks that were launched ahead and wait for their slots.
    pub(super) in_line: usize,
    /// Those of them that wait for other tasks.
    pub(super) joining: BTreeSet<TaskId>,
    /// Numbers of the GPUs that tasks hold.
    gpus: BTreeMap<TaskId, Vec<u32>>,
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) pool: Pool,
    pub(super) free: Resources,
    gpus_taken: BTreeSet<u32>,
    /// Tasks with a place that do not run yet, so that inputs come while others compute; with what
    /// they ask for, since what other sites have may change meanwhile.
    pub(super) placed: BTreeMap<TaskId, Resources>,
    /// Those of them that have all inputs.
    pub(super) queued: BTreeSet<Turn>,
    /// Those that were launched ahead, in the order in which they get slots.
    pub(super) line: VecDeque<TaskId>,
    /// With the slots that they hold: as many as they asked for or there are.
    pub(super) running: BTreeMap<TaskId, Resources>,
    pub(super) publishing: BTreeSet<TaskId>,
    /// Launches past the head of the queue since it last fitted.
    pub(super) passed: u32,
}

impl Place {
    fn new(pool: Pool) -> Self {
        Self {
            free: pool.capacity,
            pool,
            gpus_taken: BTreeSet::new(),
            placed: BTreeMap::new(),
            queued: BTreeSet::new(),
            line: VecDeque::new(),
            running: BTreeMap::new(),
            publishing: BTreeSet::new(),
            passed: 0,
        }
    }

    /// A pool without cores runs nothing: its site only holds files.
    pub(super) const fn runs(&self) -> bool {
        self.pool.capacity.cores > 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.runs() && self.placed.len() < 4 + 4 * self.pool.capacity.cores as usize
    }

    /// What a task takes of this place: no more cores than there are, so that a task which asks
    /// for more runs alone.
    pub(super) fn share(&self, wanted: Resources) -> Resources {
        Resources { cores: wanted.cores.min(self.pool.capacity.cores), ..wanted }
    }

    /// Whether a task could run here, if nothing else did.
    pub(super) fn is_able(&self, wanted: Resources) -> bool {
        self.runs() && self.share(wanted).fits(self.pool.capacity)
    }

    /// Whether a task that has its place here could run now.
    pub(super) fn has_slots(&self, task: TaskId) -> bool {
        self.placed.get(&task).is_some_and(|wanted| self.fits(*wanted))
    }

    pub(super) fn fits(&self, wanted: Resources) -> bool {
        self.share(wanted).fits(self.free)
    }

    pub(super) fn busy(&self) -> usize {
        self.placed.len() + self.line.len() + self.running.len()
    }

    /// Takes the lowest numbers that nobody has.
    fn take_gpus(&mut self, count: u32) -> Vec<u32> {
        let free = (0..).filter(|number| !self.gpus_taken.contains(number));
        let numbers: Vec<u32> = free.take(count as usize).collect();
        self.gpus_taken.extend(&numbers);
        numbers
    }
}

impl Sites {
    pub(super) fn join(&mut self, site: SiteId, pools: Vec<Pool>) {
        for (at, pool) in (0..).zip(pools) {
            self.all.entry((site, at)).or_insert_with(|| Place::new(pool));
        }
    }

    /// Takes out a site that is lost.
    pub(super) fn remove(&mut self, site: SiteId) -> Vec<Place> {
        let ids: Vec<PlaceId> = self.pools_of(site).map(|(id, _)| *id).collect();
        let places: Vec<Place> = ids.iter().filter_map(|id| self.all.remove(id)).collect();
        for task in places.iter().flat_map(|place| place.running.keys()) {
            self.gpus.remove(task);
        }
        self.in_line -= places.iter().map(|place| place.line.len()).sum::<usize>();
        places
    }

    pub(super) fn pools_of(&self, site: SiteId) -> impl Iterator<Item = (&PlaceId, &Place)> {
        self.all.range((site, 0)..=(site, u16::MAX))
    }

    pub(super) const fn any_publishing(&self) -> bool {
        self.publishing > 0
    }

    /// Whether any of them comes to its end without others.
    pub(super) fn any_moving(&self) -> bool {
        self.publishing > self.joining.len()
    }

    /// All that was launched and has not ended.
    pub(super) fn launched(&self) -> impl Iterator<Item = TaskId> {
        self.running().chain(self.in_line())
    }

    pub(super) fn in_line(&self) -> impl Iterator<Item = TaskId> {
        self.all.values().flat_map(|place| place.line.iter().copied())
    }

    fn running(&self) -> impl Iterator<Item = TaskId> {
        self.all.values().flat_map(|place| place.running.keys().copied())
    }

    /// Whether there is no place but the engine's own machine.
    pub(super) fn is_only_home(&self) -> bool {
        self.all.keys().all(|(site, _)| *site == SiteId::HOME)
    }

    /// The places where tasks of this kind can run, if they are small enough.
    pub(super) fn open_to(&self, kind: &Kind) -> impl Iterator<Item = (PlaceId, &Place)> {
        let open = self.all.iter().filter(|(_, place)| place.runs() && kind.admits(&place.pool));
        open.map(|(id, place)| (*id, place))
    }

    /// The most memory that a place for this kind has which has all of this, too.
    pub(super) fn memory_max(&self, kind: &Kind, wanted: Resources) -> Option<u64> {
        let able = self.open_to(kind).filter(|(_, place)| place.is_able(wanted));
        able.map(|(_, place)| place.pool.capacity.memory).max()
    }

    /// Gives a task that has its place there its slots.
    pub(super) fn take(&mut self, id: PlaceId, turn: Turn) {
        let (_, task) = turn;
        let Some(place) = self.all.get_mut(&id) else { return };
        let Some(asks) = place.placed.remove(&task) else { return };
        let share = place.share(asks);
        place.queued.remove(&turn);
        place.running.insert(task, share);
        place.free = place.free.less(share);
        if share.gpus > 0 {
            self.gpus.insert(task, place.take_gpus(share.gpus));
        }
    }

    /// Puts a task in line that has its place there.
    pub(super) fn line_up(&mut self, id: PlaceId, turn: Turn) {
        let Some(place) = self.all.get_mut(&id) else { return };
        if place.placed.remove(&turn.1).is_some() {
            place.queued.remove(&turn);
            place.line.push_back(turn.1);
            self.in_line += 1;
        }
    }

    /// The first in line gets its slots, if there are any.
    pub(super) fn admit_first(&mut self, id: PlaceId) -> Option<TaskId> {
        let place = self.all.get_mut(&id)?;
        let share = Resources::default();
        if !share.fits(place.free) {
            return None;
        }
        let task = place.line.pop_front()?;
        place.running.insert(task, share);
        place.free = place.free.less(share);
        self.in_line -= 1;
        Some(task)
    }

    /// Takes a task out of the line. Whether it was there.
    pub(super) fn leave_line(&mut self, id: PlaceId, task: TaskId) -> bool {
        let Some(place) = self.all.get_mut(&id) else { return false };
        let Some(at) = place.line.iter().position(|other| *other == task) else { return false };
        place.line.remove(at);
        self.stirred.insert(id);
        self.in_line -= 1;
        true
    }

    /// Takes them back.
    pub(super) fn give_back(&mut self, id: PlaceId, task: TaskId) {
        let gpus = self.gpus.remove(&task).unwrap_or_default();
        let Some(place) = self.all.get_mut(&id) else { return };
        let Some(held) = place.running.remove(&task) else { return };
        self.stirred.insert(id);
        place.free = place.free.and(held);
        place.gpus_taken.retain(|number| !gpus.contains(number));
    }

    pub(super) fn gpus(&self, task: TaskId) -> &[u32] {
        self.gpus.get(&task).map_or(&[], Vec::as_slice)
    }

    #[cfg(test)]
    pub(super) fn check_gpus(&self) {
        for (id, place) in &self.all {
            let held = place.running.keys().flat_map(|task| self.gpus(*task));
            let numbers: Vec<u32> = held.copied().collect();
            let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
            assert_eq!(distinct.len(), numbers.len(), "no two tasks share a GPU of {id:?}");
            assert_eq!(distinct, place.gpus_taken, "GPUs of {id:?} that are taken are held");
            let most = place.pool.capacity.gpus;
            assert!(distinct.iter().all(|number| *number < most), "{id:?} has {most} GPUs");
        }
        let running: BTreeSet<TaskId> = self.running().collect();
        assert!(self.gpus.keys().all(|task| running.contains(task)), "who holds GPUs runs");
    }
}
