//! Placement: which task runs where. A ready task first gets a place, its inputs are brought
//! there, and when all are there and slots are free, it is launched.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::site::{Place, PlaceId, Turn};
use super::task::Knowledge;
use super::{Action, Core, Course, Phase};
use crate::{Failure, FailureClass, FileId, Resources, SiteId, TaskId};

/// A task at the head of a place's queue that does not fit is passed by at most so many others.
const PASSED_MAX: u32 = 16;

/// Ready tasks that find no place with room are passed by at most so many others of their kind in
/// one step.
const READY_PASSED_MAX: u32 = 64;

impl Core {
    /// Gives places to ready tasks, the most urgent first, as long as there is room. Tasks whose
    /// result was lost need no room: those that hold it may be waiting for them.
    pub(super) fn place_ready(&mut self, actions: &mut Vec<Action>) {
        if self.ready.is_empty() {
            return;
        }
        let mut walk = self.ready.walk();
        while self.course == Course::Going {
            let next = self.ready.next(&walk, READY_PASSED_MAX, |kind, (first_time, ..)| {
                !first_time || self.sites.open_to(kind).any(|(_, place)| place.has_room())
            });
            let Some((kind, rank)) = next else { return };
            let (first_time, _, task) = rank;
            let wanted = self.wanted(task);
            if let Some(failure) = self.too_large(task, wanted) {
                self.fail(task, failure, actions);
            } else if let Some(id) = self.choose_place(task, wanted, first_time) {
                self.ready.remove(kind, rank);
                self.tasks[task.index()].pool = id.1;
                self.at(id).placed.insert(task, wanted);
                self.fetch(task, id.0, actions);
            } else {
                walk.pass(kind, rank);
            }
        }
    }

    /// What a task's next attempt takes: more memory after each time that it ran out.
    fn wanted(&self, task: TaskId) -> Resources {
        let (spec, state) = (self.spec(task), &self.tasks[task.index()]);
        let mut wanted = spec.options.resources;
        if let Some(growth) = spec.options.memory_growth.as_ref().filter(|_| state.shortages > 0) {
            let largest = self.sites.memory_max(self.ready.kind(state.kind), wanted);
            let largest = largest.unwrap_or(u64::MAX);
            wanted.memory = growth.grown(wanted.memory, state.shortages, largest);
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
        let place = self.place(task);
        let held = place.and_then(|place| place.running.get(&task));
        held.copied().unwrap_or(Resources::NONE)
    }

    /// The place that a task has.
    fn place(&self, task: TaskId) -> Option<&Place> {
        let site = self.phase(task).site()?;
        self.sites.all.get(&(site, self.pool(task)))
    }

    /// The numbers of the GPUs that a task holds which runs; each is below what its pool has.
    pub fn gpus(&self, task: TaskId) -> &[u32] {
        self.sites.gpus(task)
    }

    /// The pool of its site in which a task has its place, as a number in the site's list.
    pub fn pool(&self, task: TaskId) -> u16 {
        self.tasks[task.index()].pool
    }

    /// Why no place that there is could ever run a task, if that is so.
    fn too_large(&self, task: TaskId, wanted: Resources) -> Option<Failure> {
        let kind = self.ready.kind(self.tasks[task.index()].kind);
        let mut open = self.sites.open_to(kind).peekable();
        open.peek()?;
        let mut most = Resources::NONE;
        for (_, place) in open {
            if place.is_able(wanted) {
                return None;
            }
            most = most.largest(place.pool.capacity);
        }
        Some(too_large(wanted, most))
    }

    /// Of several that a task names the first that is free; then the place with the most of its
    /// input bytes, then the least busy one.
    fn choose_place(&self, task: TaskId, wanted: Resources, needs_room: bool) -> Option<PlaceId> {
        let kind = self.ready.kind(self.tasks[task.index()].kind);
        let able = self
            .sites
            .open_to(kind)
            .filter(|(_, place)| (place.has_room() || !needs_room) && place.is_able(wanted));
        let mut able = able.peekable();
        let only = able.next()?;
        if able.peek().is_none() {
            return Some(only.0);
        }
        let has_choice = kind.labels.len() > 1;
        std::iter::once(only)
            .chain(able)
            .max_by_key(|(id, place)| {
                let whole = wanted.cores <= place.pool.capacity.cores;
                let free = place.fits(wanted);
                let choice = has_choice.then(|| (free, kind.preference(&place.pool)));
                let near = self.bytes_at(task, id.0);
                (whole, choice, near, free, Reverse((place.busy(), *id)))
            })
            .map(|(id, _)| id)
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
        let (turn, id) = (self.turn(task), (site, self.pool(task)));
        self.at(id).queued.insert(turn);
        self.sites.stirred.insert(id);
        let kind = self.ready.kind(self.tasks[task.index()].kind);
        if kind.labels.len() > 1 {
            // A pool that has nothing to do may take it over.
            let pools: Vec<PlaceId> = self.sites.pools_of(site).map(|(id, _)| *id).collect();
            self.sites.stirred.extend(pools);
        }
    }

    pub(super) fn turn(&self, task: TaskId) -> Turn {
        (Reverse(self.spec(task).options.priority), task)
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

    /// Launches what has its inputs and fits, in turn; what does not fit is passed by others
    /// for a while, and then waited for. Whether any was launched.
    pub(super) fn launch_queued(&mut self, actions: &mut Vec<Action>) -> bool {
        let mut launched = false;
        self.admit_from_line(actions);
        while let Some(id) = self.sites.stirred.pop_first() {
            let mut skipped = 0;
            while let Some(task) = self
                .next_to_launch(id, &mut skipped)
                .or_else(|| self.take_over(id))
                .or_else(|| self.next_ahead(id))
            {
                // Inputs can have been lost since they came.
                if self.lacking(task, id.0).next().is_none() {
                    self.launch(task, id, actions);
                    launched = true;
                } else {
                    let turn = self.turn(task);
                    self.at(id).queued.remove(&turn);
                    self.fetch(task, id.0, actions);
                }
            }
        }
        launched
    }

    fn next_to_launch(&mut self, id: PlaceId, skipped: &mut usize) -> Option<TaskId> {
        let place = self.sites.all.get(&id)?;
        if place.free.cores == 0 || self.course != Course::Going {
            return None;
        }
        let fitting =
            place.queued.iter().skip(*skipped).position(|(_, task)| place.has_slots(*task))?;
        let at = *skipped + fitting;
        let (_, task) = *place.queued.iter().nth(at)?;
        *skipped = at;
        if at == 0 {
            self.at(id).passed = 0;
        } else if place.passed >= PASSED_MAX {
            return None;
        } else {
            self.at(id).passed += 1;
        }
        Some(task)
    }

    /// A pool with nothing in its queue takes over what waits for slots of another one of its site,
    /// if that may run here too.
    fn take_over(&mut self, id: PlaceId) -> Option<TaskId> {
        let place = self.sites.all.get(&id)?;
        if place.free.cores == 0 || !place.queued.is_empty() || self.course != Course::Going {
            return None;
        }
        let may_run = |task: TaskId, asks: Resources| {
            let kind = self.ready.kind(self.tasks[task.index()].kind);
            kind.admits(&place.pool) && place.fits(asks)
        };
        let others = self.sites.pools_of(id.0).filter(|(other, _)| **other != id);
        let first = |(other, waits): (&PlaceId, &Place)| {
            let turn = waits.queued.iter().find(|(_, task)| {
                let asks = waits.placed.get(task);
                !waits.has_slots(*task) && asks.is_some_and(|asks| may_run(*task, *asks))
            })?;
            Some((*turn, *other))
        };
        let (turn, from) = others.filter_map(first).min()?;
        let task = turn.1;
        let before = self.at(from);
        let asks = before.placed.remove(&task)?;
        before.queued.remove(&turn);
        // What waited behind it may be possible there now.
        self.sites.stirred.insert(from);
        self.tasks[task.index()].pool = id.1;
        let place = self.at(id);
        place.placed.insert(task, asks);
        place.queued.insert(turn);
        Some(task)
    }

    fn launch(&mut self, task: TaskId, id: PlaceId, actions: &mut Vec<Action>) {
        let (site, turn) = (id.0, self.turn(task));
        let has_slots = self.sites.all.get(&id).is_some_and(|place| place.has_slots(task));
        if has_slots {
            self.sites.take(id, turn);
            self.counts.running += 1;
        } else {
            self.sites.line_up(id, turn);
        }
        self.forget_read_before(task);
        let state = &mut self.tasks[task.index()];
        state.phase = Phase::Running(site);
        state.ordinal += 1;
        let attempt = state.attempt(task);
        self.watch_checkpoints(task);
        if has_slots {
            self.tell_of_begin(task, actions);
        }
        actions.push(Action::Launch { attempt, site });
    }

    /// A task that ran keeps its place, but not its slots, while its outputs are moved.
    pub(super) fn begin_publishing(&mut self, task: TaskId, site: SiteId) {
        self.leave(task);
        self.tasks[task.index()].phase = Phase::Publishing(site);
        let id = (site, self.pool(task));
        self.at(id).publishing.insert(task);
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
        let id = phase.site().map(|site| (site, self.pool(task)));
        match phase {
            Phase::Recalling => {
                self.recalling.remove(&task);
            }
            Phase::Ready => {
                let (turn, kind) = (self.turn(task), self.tasks[task.index()].kind);
                for first_time in [true, false] {
                    self.ready.remove(kind, (first_time, turn.0, task));
                }
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
            Phase::Running(_) if id.is_some_and(|id| self.sites.leave_line(id, task)) => {}
            Phase::Running(_) => {
                self.counts.running -= 1;
                self.snapshots.pause(task);
                if let Some(id) = id {
                    self.sites.give_back(id, task);
                }
            }
            // A head of the queue that is gone may have been what others waited behind.
            Phase::Queued(_) => self.sites.stirred.extend(id),
            Phase::Publishing(_) => {
                self.sites.publishing -= 1;
                self.sites.joining.remove(&task);
            }
            _ => {}
        }
        let turn = self.turn(task);
        if let Some(place) = id.and_then(|id| self.sites.all.get_mut(&id)) {
            place.placed.remove(&task);
            place.queued.remove(&turn);
            place.running.remove(&task);
            place.publishing.remove(&task);
        }
    }

    pub(super) fn on_site_lost(&mut self, site: SiteId, cause: &str, actions: &mut Vec<Action>) {
        let lost = self.sites.remove(site);
        if lost.is_empty() {
            return;
        }
        self.transfers.on_site_lost(site);
        for file in &mut self.files {
            file.replicas.retain(|replica| *replica != site);
        }
        let placed: BTreeSet<TaskId> = lost.iter().flat_map(|p| p.placed.keys()).copied().collect();
        for task in placed {
            self.leave(task);
            self.make_ready(task);
        }
        let running: BTreeSet<TaskId> =
            lost.iter().flat_map(|p| p.running.keys()).copied().collect();
        let publishing: BTreeSet<TaskId> =
            lost.iter().flat_map(|p| &p.publishing).copied().collect();
        let in_line: BTreeSet<TaskId> = lost.iter().flat_map(|p| &p.line).copied().collect();
        for task in in_line {
            // It had not begun.
            self.tasks[task.index()].phase = Phase::Waiting;
            self.make_ready(task);
        }
        for task in running.into_iter().chain(publishing) {
            let cause = format!("site {site} was lost: {cause}");
            let failure = Failure::new(FailureClass::InfrastructureLost, cause);
            self.on_attempt_failed(task, failure, Default::default(), actions);
        }
    }

    fn at(&mut self, id: PlaceId) -> &mut Place {
        self.sites.all.get_mut(&id).expect("tasks have places only at sites that are there")
    }

    #[cfg(test)]
    pub(super) fn check_site_invariants(&self) {
        self.sites.check_gpus();
        for (id, place) in &self.sites.all {
            let all = place.running.values().copied().fold(place.free, Resources::and);
            assert_eq!(all, place.pool.capacity, "slots of {id:?} add up");
            for (_, task) in &place.queued {
                assert!(place.placed.contains_key(task), "{task} is queued where it has its place");
            }
            for (task, asks) in &place.placed {
                assert!(place.is_able(*asks), "{task} can run at {id:?}");
                let kind = self.ready.kind(self.tasks[task.index()].kind);
                assert!(kind.admits(&place.pool), "{task} may run at {id:?}");
                let phase = self.phase(*task);
                let queued = place.queued.contains(&self.turn(*task));
                let expected = if queued { Phase::Queued(id.0) } else { Phase::Fetching(id.0) };
                assert_eq!(phase, expected, "{task} has a place at {id:?}");
            }
            let waiting = place.placed.keys().chain(place.running.keys()).chain(&place.line);
            for task in waiting.chain(&place.publishing) {
                assert_eq!(self.pool(*task), id.1, "{task} knows its pool");
            }
            for task in place.running.keys().chain(&place.line) {
                assert_eq!(self.phase(*task), Phase::Running(id.0), "{task} runs at {id:?}");
            }
            for task in &place.line {
                assert!(!place.running.contains_key(task), "{task} is in line or runs");
                assert_eq!(place.free.cores, 0, "{task} waits in line for slots of {id:?}");
                assert!(self.spec(*task).options.goes_ahead, "{task} may be launched ahead");
            }
            for task in &place.publishing {
                assert_eq!(self.phase(*task), Phase::Publishing(id.0), "{task} publishes there");
            }
        }
    }
}

/// Says of what there is not enough at any place, if it is one thing.
fn too_large(wanted: Resources, most: Resources) -> Failure {
    let lacks = [
        (wanted.memory > most.memory, "memory", mebibytes(wanted.memory, most.memory, "memory")),
        (
            wanted.gpus > most.gpus,
            "gpus",
            format!("{} GPUs, and {}", wanted.gpus, largest(most.gpus)),
        ),
        (wanted.disk > most.disk, "disk", mebibytes(wanted.disk, most.disk, "disk")),
    ];
    let lacking = lacks.into_iter().find(|(lacks, ..)| *lacks);
    let key = lacking.as_ref().map_or("memory", |(_, key, _)| *key);
    let cause = lacking.map_or_else(
        || "no one site has as much memory, disk and GPUs as it asks for".to_owned(),
        |(_, _, text)| format!("it asks for {text}"),
    );
    Failure::new(FailureClass::OutOfResources, cause)
        .with_hint(format!("lower `{key}` of the task, or run it where there is more"))
}

fn mebibytes(wanted: u64, most: u64, what: &str) -> String {
    let largest = largest(format_args!("{} MiB", most >> 20));
    format!("{} MiB of {what}, and {largest}", wanted >> 20)
}

fn largest(most: impl std::fmt::Display) -> String {
    format!("the largest site has {most}")
}
