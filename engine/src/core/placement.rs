//! Placement: which task runs where. A ready task first gets a place, its inputs are brought
//! there, and when all are there and slots are free, it is launched.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Core, Phase};
use crate::{Fact, Failure, FailureClass, Resources, SiteId, TaskId};

/// A task at the head of a site's queue that does not fit is passed by at most so many others.
const PASSED_MAX: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Sites(BTreeMap<SiteId, Site>);

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
        self.placed.len() < 4 + 4 * self.capacity.cores as usize
    }

    /// What a task takes of this site: no more cores than there are, so that a task which asks
    /// for more runs alone.
    fn share(&self, wanted: Resources) -> Resources {
        Resources { cores: wanted.cores.min(self.capacity.cores), memory: wanted.memory }
    }

    fn fits(&self, wanted: Resources) -> bool {
        let share = self.share(wanted);
        share.cores <= self.free.cores && share.memory <= self.free.memory
    }

    fn busy(&self) -> usize {
        self.placed.len() + self.running.len()
    }
}

impl Sites {
    pub(super) fn join(&mut self, site: SiteId, capacity: Resources) {
        self.0.entry(site).or_insert_with(|| Site::new(capacity));
    }

    pub(super) fn any_publishing(&self) -> bool {
        self.0.values().any(|site| !site.publishing.is_empty())
    }

    pub(super) fn running(&self) -> impl Iterator<Item = TaskId> {
        self.0.values().flat_map(|site| site.running.iter().copied())
    }
}

impl Core {
    /// Gives places to ready tasks, first come first served, as long as sites have room.
    pub(super) fn place_ready(&mut self, actions: &mut Vec<Action>) {
        while self.sites.0.values().any(Site::has_room) {
            let Some(task) = self.ready.pop_first() else { return };
            let wanted = self.spec(task).resources;
            let memory_max = self.sites.0.values().map(|site| site.capacity.memory).max();
            if memory_max.is_some_and(|max| wanted.memory > max) {
                self.fail(task, too_large(wanted, memory_max.unwrap_or(0)), actions);
                continue;
            }
            match self.choose_site(task) {
                Some(site) => self.place(task, site),
                None => {
                    self.ready.insert(task);
                    return;
                }
            }
        }
    }

    /// The site with the most of a task's input bytes, then the least busy one.
    fn choose_site(&self, task: TaskId) -> Option<SiteId> {
        let wanted = self.spec(task).resources;
        let able = self
            .sites
            .0
            .iter()
            .filter(|(_, site)| site.has_room() && wanted.memory <= site.capacity.memory);
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

    fn place(&mut self, task: TaskId, site: SiteId) {
        let mut lacking = BTreeSet::new();
        for file in &self.graph.task(task).inputs {
            if self.content(*file).is_some() && !self.files[file.index()].replicas.contains(&site) {
                lacking.insert(*file);
            }
        }
        for file in &lacking {
            self.want(*file, site, Some(task));
        }
        let state = &mut self.tasks[task.index()];
        state.lacking = super::number(lacking.len());
        state.phase = Phase::Fetching(site);
        self.at(site).placed.insert(task);
        if lacking.is_empty() {
            self.queue(task, site);
        }
    }

    fn queue(&mut self, task: TaskId, site: SiteId) {
        self.tasks[task.index()].phase = Phase::Queued(site);
        self.at(site).queued.insert(task);
    }

    /// One of the files that a placed task lacks is there.
    pub(super) fn on_input_arrived(&mut self, task: TaskId, site: SiteId) {
        if self.phase(task) != Phase::Fetching(site) {
            return;
        }
        let state = &mut self.tasks[task.index()];
        state.lacking -= 1;
        if state.lacking == 0 {
            self.queue(task, site);
        }
    }

    /// Launches what has its inputs and fits, in order; what does not fit is passed by others
    /// for a while, and then waited for.
    pub(super) fn launch_queued(&mut self, actions: &mut Vec<Action>) {
        let sites: Vec<SiteId> = self.sites.0.keys().copied().collect();
        for site in sites {
            let mut skipped = 0;
            while let Some(task) = self.next_to_launch(site, &mut skipped) {
                self.launch(task, site, actions);
            }
        }
    }

    fn next_to_launch(&mut self, id: SiteId, skipped: &mut usize) -> Option<TaskId> {
        let site = &self.sites.0[&id];
        if site.free.cores == 0 {
            return None;
        }
        let fitting = site
            .queued
            .iter()
            .skip(*skipped)
            .position(|task| site.fits(self.spec(*task).resources))?;
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
        let wanted = self.spec(task).resources;
        let place = self.at(site);
        let share = place.share(wanted);
        place.placed.remove(&task);
        place.queued.remove(&task);
        place.running.insert(task);
        place.free.cores -= share.cores;
        place.free.memory -= share.memory;
        self.counts.running += 1;
        let state = &mut self.tasks[task.index()];
        state.phase = Phase::Running(site);
        state.ordinal += 1;
        state.cores_held = share.cores;
        let attempt = state.attempt(task);
        let reasons = state.reasons.clone();
        let fact = Fact::AttemptStarted {
            task: self.spec(task).name.clone(),
            ordinal: attempt.ordinal,
            reasons,
        };
        self.record(fact, actions);
        actions.push(Action::Launch { attempt, site });
    }

    /// A task that ran keeps its place, but not its slots, while its outputs are moved.
    pub(super) fn begin_publishing(&mut self, task: TaskId, site: SiteId) {
        self.leave(task);
        self.tasks[task.index()].phase = Phase::Publishing(site);
        self.at(site).publishing.insert(task);
    }

    /// Takes a task out of every queue and gives back its slots; its next phase is the caller's.
    pub(super) fn leave(&mut self, task: TaskId) {
        let phase = self.phase(task);
        match phase {
            Phase::Ready => {
                self.ready.remove(&task);
            }
            Phase::Backoff => self.timers.retain(|(_, waiting)| *waiting != task),
            Phase::Fetching(site) => {
                for at in 0..self.graph.task(task).inputs.len() {
                    let file = self.graph.task(task).inputs[at];
                    self.transfers.forget_waiter(file, site, task);
                }
            }
            Phase::Running(site) => {
                self.counts.running -= 1;
                let memory = self.spec(task).resources.memory;
                let cores = std::mem::take(&mut self.tasks[task.index()].cores_held);
                if let Some(place) = self.sites.0.get_mut(&site) {
                    place.free.cores += cores;
                    place.free.memory += memory;
                }
            }
            _ => {}
        }
        if let Some(place) = phase.site().and_then(|site| self.sites.0.get_mut(&site)) {
            place.placed.remove(&task);
            place.queued.remove(&task);
            place.running.remove(&task);
            place.publishing.remove(&task);
        }
    }

    pub(super) fn on_site_lost(&mut self, site: SiteId, cause: &str, actions: &mut Vec<Action>) {
        let Some(lost) = self.sites.0.remove(&site) else { return };
        self.forget_transfers_of(site);
        for file in &mut self.files {
            file.replicas.retain(|replica| *replica != site);
        }
        for task in lost.placed {
            self.leave(task);
            self.tasks[task.index()].phase = Phase::Ready;
            self.ready.insert(task);
        }
        for task in lost.running.into_iter().chain(lost.publishing) {
            let cause = format!("site {site} was lost: {cause}");
            let failure = Failure::new(FailureClass::InfrastructureLost, cause);
            self.on_attempt_failed(task, failure, Default::default(), actions);
        }
    }

    fn at(&mut self, site: SiteId) -> &mut Site {
        self.sites.0.get_mut(&site).expect("tasks have places only at sites that are there")
    }

    pub(super) fn check_site_invariants(&self) {
        for (id, site) in &self.sites.0 {
            let cores: u32 =
                site.running.iter().map(|task| self.tasks[task.index()].cores_held).sum();
            assert_eq!(cores + site.free.cores, site.capacity.cores, "slots of {id} add up");
            let memory: u64 =
                site.running.iter().map(|task| self.spec(*task).resources.memory).sum();
            assert_eq!(memory + site.free.memory, site.capacity.memory, "memory of {id} adds up");
            assert!(
                site.queued.is_subset(&site.placed),
                "what is queued at {id} has a place there"
            );
            for task in &site.placed {
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
