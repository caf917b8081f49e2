//! Placement: which task runs where. A ready task first gets a place, its inputs are brought
//! there, and when all are there and slots are free, it is launched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::task::Knowledge;
use super::{Action, Core, Course, Phase};
use crate::{Fact, Failure, FailureClass, FileId, Resources, SiteId, TaskId};

/// A task at the head of a site's queue that does not fit is passed by at most so many others.
const PASSED_MAX: u32 = 16;

/// Ready tasks that find no site with room are passed by at most so many others in one step.
const READY_PASSED_MAX: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct Sites {
    all: BTreeMap<SiteId, Site>,
    /// Sites at which something can have become possible to launch.
    stirred: BTreeSet<SiteId>,
    publishing: usize,
}

#[derive(Debug)]
struct Site {
    capacity: Resources,
    free: Resources,
    /// Tasks with a place that do not run yet, so that inputs come while others compute.
    placed: BTreeSet<TaskId>,
    /// Those of them that have all inputs.
    queued: BTreeSet<TaskId>,
    running: BTreeSet<TaskId>,
    publishing: BTreeSet<TaskId>,
    /// Launches past the head of the queue since it last fitted.
    passed: u32,
}

impl Site {
    fn new(capacity: Resources) -> Self {
        Self {
            capacity,
            free: capacity,
            placed: BTreeSet::new(),
            queued: BTreeSet::new(),
            running: BTreeSet::new(),
            publishing: BTreeSet::new(),
            passed: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.capacity.cores > 0 && self.placed.len() < 4 + 4 * self.capacity.cores as usize
    }

    /// What a task takes of this site: no more cores than there are, so that a task which asks
    /// for more runs alone.
    fn share(&self, wanted: Resources) -> Resources {
        Resources { cores: wanted.cores.min(self.capacity.cores), ..wanted }
    }

    fn fits(&self, wanted: Resources) -> bool {
        self.share(wanted).fits(self.free)
    }

    fn busy(&self) -> usize {
        self.placed.len() + self.running.len()
    }
}

impl Sites {
    pub(super) fn join(&mut self, site: SiteId, capacity: Resources) {
        self.all.entry(site).or_insert_with(|| Site::new(capacity));
    }

    pub(super) const fn any_publishing(&self) -> bool {
        self.publishing > 0
    }

    pub(super) fn running(&self) -> impl Iterator<Item = TaskId> {
        self.all.values().flat_map(|site| site.running.iter().copied())
    }

    /// Whether there is no place but the engine's own machine.
    pub(super) fn is_only_home(&self) -> bool {
        self.all.keys().all(|site| *site == SiteId::HOME)
    }

    /// Sites without cores hold files and run nothing.
    fn memory_max(&self) -> Option<u64> {
        let able = self.all.values().filter(|site| site.capacity.cores > 0);
        able.map(|site| site.capacity.memory).max()
    }
}

impl Core {
    /// Gives places to ready tasks, first come first served, as long as sites have room. Tasks
    /// whose result was lost need no room: those that hold it may be waiting for them.
    pub(super) fn place_ready(&mut self, actions: &mut Vec<Action>) {
        let mut passed = 0;
        let mut from = Bound::Unbounded;
        while passed < READY_PASSED_MAX && self.course == Course::Going {
            let next = self.ready.range((from, Bound::Unbounded)).next().copied();
            let Some((first_time, task)) = next else { return };
            if first_time && !self.sites.all.values().any(Site::has_room) {
                return;
            }
            let wanted = self.wanted(task);
            let memory_max = self.sites.memory_max();
            if let Some(max) = memory_max.filter(|max| wanted.memory > *max) {
                self.fail(task, too_large(wanted, max), actions);
            } else if let Some(site) = self.choose_site(task, wanted, first_time) {
                self.ready.remove(&(first_time, task));
                self.tasks[task.index()].asks = wanted;
                self.at(site).placed.insert(task);
                self.fetch(task, site, actions);
            } else {
                passed += 1;
                from = Bound::Excluded((first_time, task));
            }
        }
    }

    /// What a task's next attempt takes: more memory after each time that it ran out.
    fn wanted(&self, task: TaskId) -> Resources {
        let (spec, times) = (self.spec(task), self.tasks[task.index()].shortages);
        let mut wanted = spec.resources;
        if let Some(growth) = spec.memory_growth.filter(|_| times > 0) {
            let largest = self.sites.memory_max().unwrap_or(u64::MAX);
            wanted.memory = growth.grown(wanted.memory, times, largest);
        }
        wanted
    }

    /// A task ran out of memory. Whether it asks for more the next time.
    pub(super) fn grow(&mut self, task: TaskId) -> bool {
        let before = self.wanted(task);
        self.tasks[task.index()].shortages += 1;
        self.wanted(task).memory > before.memory
    }

    /// What a task that runs holds of its site's slots, as many as it asked for or the site has.
    pub fn held(&self, task: TaskId) -> Resources {
        self.tasks[task.index()].held
    }

    /// The site with the most of a task's input bytes, then the least busy one.
    fn choose_site(&self, task: TaskId, wanted: Resources, needs_room: bool) -> Option<SiteId> {
        let able = self.sites.all.iter().filter(|(_, site)| {
            site.capacity.cores > 0
                && (site.has_room() || !needs_room)
                && wanted.memory <= site.capacity.memory
        });
        let mut able = able.peekable();
        let only = able.next()?;
        if able.peek().is_none() {
            return Some(*only.0);
        }
        std::iter::once(only)
            .chain(able)
            .max_by_key(|(id, site)| {
                let whole = wanted.cores <= site.capacity.cores;
                let free = site.fits(wanted);
                let near = self.bytes_at(task, **id);
                (whole, near, free, std::cmp::Reverse((site.busy(), **id)))
            })
            .map(|(id, _)| *id)
    }

    fn bytes_at(&self, task: TaskId, site: SiteId) -> u64 {
        let here = self
            .graph
            .task(task)
            .inputs
            .iter()
            .filter(|file| self.files[file.index()].replicas.contains(&site));
        here.filter_map(|file| self.content(*file)).map(|content| content.bytes).sum()
    }

    /// Has brought to a task's place what is not there, and queues the task when all is.
    fn fetch(&mut self, task: TaskId, site: SiteId, actions: &mut Vec<Action>) {
        let lacking: BTreeSet<FileId> = self.lacking(task, site).collect();
        self.tasks[task.index()].phase = Phase::Fetching(site);
        let given_up = lacking.iter().find_map(|file| {
            let state = &self.files[file.index()];
            state.given_up.as_ref().filter(|_| state.replicas.is_empty())
        });
        if let Some(failure) = given_up.cloned() {
            return self.fail(task, failure.as_ref().clone(), actions);
        }
        for file in &lacking {
            self.want(*file, site, Some(task));
        }
        self.tasks[task.index()].lacking = super::number(lacking.len());
        if lacking.is_empty() {
            return self.queue(task, site);
        }
        self.raise_last(task);
    }

    /// The inputs of a task that are not at this site.
    pub(super) fn lacking(&self, task: TaskId, site: SiteId) -> impl Iterator<Item = FileId> {
        let inputs = self.graph.task(task).inputs.iter().copied();
        inputs.filter(move |file| {
            let state = &self.files[file.index()];
            matches!(state.knowledge, Knowledge::Content(_)) && !state.replicas.contains(&site)
        })
    }

    fn queue(&mut self, task: TaskId, site: SiteId) {
        self.tasks[task.index()].phase = Phase::Queued(site);
        self.at(site).queued.insert(task);
        self.sites.stirred.insert(site);
    }

    /// One of the files that a placed task lacks is there.
    pub(super) fn on_input_arrived(&mut self, task: TaskId, site: SiteId) {
        if self.phase(task) != Phase::Fetching(site) {
            return;
        }
        let state = &mut self.tasks[task.index()];
        state.lacking -= 1;
        if state.lacking == 0 {
            return self.queue(task, site);
        }
        self.raise_last(task);
    }

    /// Launches what has its inputs and fits, in order; what does not fit is passed by others
    /// for a while, and then waited for. Whether any was launched.
    pub(super) fn launch_queued(&mut self, actions: &mut Vec<Action>) -> bool {
        let mut launched = false;
        while let Some(site) = self.sites.stirred.pop_first() {
            let mut skipped = 0;
            while let Some(task) = self.next_to_launch(site, &mut skipped) {
                // Inputs can have been lost since they came.
                if self.lacking(task, site).next().is_none() {
                    self.launch(task, site, actions);
                    launched = true;
                } else {
                    self.at(site).queued.remove(&task);
                    self.fetch(task, site, actions);
                }
            }
        }
        launched
    }

    fn next_to_launch(&mut self, id: SiteId, skipped: &mut usize) -> Option<TaskId> {
        let site = self.sites.all.get(&id)?;
        if site.free.cores == 0 || self.course != Course::Going {
            return None;
        }
        let fitting = site
            .queued
            .iter()
            .skip(*skipped)
            .position(|task| site.fits(self.tasks[task.index()].asks))?;
        let at = *skipped + fitting;
        let task = *site.queued.iter().nth(at)?;
        *skipped = at;
        if at == 0 {
            self.at(id).passed = 0;
        } else if site.passed >= PASSED_MAX {
            return None;
        } else {
            self.at(id).passed += 1;
        }
        Some(task)
    }

    fn launch(&mut self, task: TaskId, site: SiteId, actions: &mut Vec<Action>) {
        let asks = self.tasks[task.index()].asks;
        let place = self.at(site);
        let share = place.share(asks);
        place.placed.remove(&task);
        place.queued.remove(&task);
        place.running.insert(task);
        place.free = place.free.less(share);
        self.counts.running += 1;
        self.forget_read_before(task);
        let state = &mut self.tasks[task.index()];
        state.phase = Phase::Running(site);
        state.ordinal += 1;
        state.held = share;
        let attempt = state.attempt(task);
        let reasons = state.reasons.clone();
        let fact = Fact::AttemptStarted {
            task: self.spec(task).name.clone(),
            ordinal: attempt.ordinal,
            reasons,
        };
        super::record(fact, actions);
        actions.push(Action::Launch { attempt, site });
    }

    /// A task that ran keeps its place, but not its slots, while its outputs are moved.
    pub(super) fn begin_publishing(&mut self, task: TaskId, site: SiteId) {
        self.leave(task);
        self.tasks[task.index()].phase = Phase::Publishing(site);
        self.at(site).publishing.insert(task);
        self.sites.publishing += 1;
    }

    /// Whether the inputs of a task's latest attempt hold other bytes by now; asked once.
    pub(super) fn forget_read_before(&mut self, task: TaskId) -> bool {
        let all = (task, FileId(0))..=(task, FileId(u32::MAX));
        let stale: Vec<_> = self.read_before.range(all).map(|(key, _)| *key).collect();
        for key in &stale {
            self.read_before.remove(key);
        }
        !stale.is_empty()
    }

    /// Takes a task out of every queue and gives back its slots; its next phase is the caller's.
    pub(super) fn leave(&mut self, task: TaskId) {
        let phase = self.phase(task);
        match phase {
            Phase::Recalling => {
                self.recalling.remove(&task);
            }
            Phase::Ready => {
                self.ready.remove(&(true, task));
                self.ready.remove(&(false, task));
            }
            Phase::Backoff => {
                self.timers.remove(&(self.tasks[task.index()].due, task));
            }
            Phase::Fetching(site) => {
                for at in 0..self.graph.task(task).inputs.len() {
                    let file = self.graph.task(task).inputs[at];
                    self.transfers.forget_waiter(file, site, task);
                }
            }
            Phase::Running(site) => {
                self.counts.running -= 1;
                let held = std::mem::replace(&mut self.tasks[task.index()].held, Resources::NONE);
                if let Some(place) = self.sites.all.get_mut(&site) {
                    self.sites.stirred.insert(site);
                    place.free = place.free.and(held);
                }
            }
            // A head of the queue that is gone may have been what others waited behind.
            Phase::Queued(site) => {
                self.sites.stirred.insert(site);
            }
            Phase::Publishing(_) => self.sites.publishing -= 1,
            _ => {}
        }
        if let Some(place) = phase.site().and_then(|site| self.sites.all.get_mut(&site)) {
            place.placed.remove(&task);
            place.queued.remove(&task);
            place.running.remove(&task);
            place.publishing.remove(&task);
        }
    }

    pub(super) fn on_site_lost(&mut self, site: SiteId, cause: &str, actions: &mut Vec<Action>) {
        let Some(lost) = self.sites.all.remove(&site) else { return };
        self.transfers.on_site_lost(site);
        for file in &mut self.files {
            file.replicas.retain(|replica| *replica != site);
        }
        for task in lost.placed {
            self.leave(task);
            self.make_ready(task);
        }
        for task in lost.running.into_iter().chain(lost.publishing) {
            let cause = format!("site {site} was lost: {cause}");
            let failure = Failure::new(FailureClass::InfrastructureLost, cause);
            self.on_attempt_failed(task, failure, Default::default(), actions);
        }
    }

    fn at(&mut self, site: SiteId) -> &mut Site {
        self.sites.all.get_mut(&site).expect("tasks have places only at sites that are there")
    }

    #[cfg(test)]
    pub(super) fn check_site_invariants(&self) {
        for (id, site) in &self.sites.all {
            let running = site.running.iter().map(|task| self.held(*task));
            let all = running.fold(site.free, Resources::and);
            assert_eq!(all, site.capacity, "slots of {id} add up");
            assert!(
                site.queued.is_subset(&site.placed),
                "what is queued at {id} has a place there"
            );
            for task in &site.placed {
                let share = site.share(self.tasks[task.index()].asks);
                assert!(share.fits(site.capacity), "{task} can be launched at {id}");
                let phase = self.phase(*task);
                let queued = site.queued.contains(task);
                let expected = if queued { Phase::Queued(*id) } else { Phase::Fetching(*id) };
                assert_eq!(phase, expected, "{task} has a place at {id}");
            }
            for task in &site.running {
                assert_eq!(self.phase(*task), Phase::Running(*id), "{task} runs at {id}");
            }
            for task in &site.publishing {
                assert_eq!(self.phase(*task), Phase::Publishing(*id), "{task} publishes at {id}");
            }
        }
    }
}

fn too_large(wanted: Resources, memory_max: u64) -> Failure {
    let cause = format!(
        "it asks for {} MiB of memory, and the largest site has {} MiB",
        wanted.memory >> 20,
        memory_max >> 20
    );
    Failure::new(FailureClass::OutOfResources, cause)
        .with_hint("lower `memory` of the task, or run it where there is more")
}
