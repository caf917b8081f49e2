//! The transfer planner: which file goes where, from where, and when.
//!
//! One transfer for one file and site, however many tasks want it. A bounded number is under way;
//! the rest waits in the order in which it was wanted.

use std::collections::{BTreeMap, VecDeque};

use super::{Action, Core, StageFrom};
use crate::{Failure, FailureClass, FileId, SiteId, Source, TaskId};

/// Transfers that are asked for at one time; the rest waits here.
pub(super) const TRANSFERS_MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Transfers {
    wanted: BTreeMap<(FileId, SiteId), Want>,
    queue: VecDeque<(FileId, SiteId)>,
    under_way: usize,
    /// How many of them take from each site.
    loads: BTreeMap<SiteId, usize>,
}

#[derive(Debug, Default)]
struct Want {
    /// Tasks that have a place at the site and lack the file.
    waiting: Vec<TaskId>,
    stage: Stage,
    /// Tries that failed and were made again, since the bytes were last given up somewhere.
    failures: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Queued,
    /// Waits until the file's task has run again.
    Parked,
    UnderWay(StageFrom),
}

impl Transfers {
    /// Whether a transfer can be asked for now.
    pub(super) fn can_start(&self) -> bool {
        !self.queue.is_empty() && self.under_way < TRANSFERS_MAX
    }

    /// Where a transfer takes the file from, if it is under way.
    pub(super) fn under_way_from(&self, file: FileId, site: SiteId) -> Option<StageFrom> {
        match self.wanted.get(&(file, site))?.stage {
            Stage::UnderWay(from) => Some(from),
            Stage::Queued | Stage::Parked => None,
        }
    }

    /// Ends a transfer, well or not; returns the tasks that waited for it.
    pub(super) fn complete(&mut self, file: FileId, site: SiteId) -> Vec<TaskId> {
        let Some(want) = self.wanted.remove(&(file, site)) else { return Vec::new() };
        self.ended(want.stage);
        want.waiting
    }

    /// Whether a task waits for this file at this site.
    #[cfg(test)]
    pub(super) fn waits(&self, file: FileId, site: SiteId, task: TaskId) -> bool {
        self.wanted.get(&(file, site)).is_some_and(|want| want.waiting.contains(&task))
    }

    fn begun(&mut self, file: FileId, site: SiteId, from: StageFrom) {
        self.set_stage(file, site, Stage::UnderWay(from));
        self.under_way += 1;
        if let StageFrom::Site(source) = from {
            *self.loads.entry(source).or_default() += 1;
        }
    }

    fn ended(&mut self, stage: Stage) {
        let Stage::UnderWay(from) = stage else { return };
        self.under_way -= 1;
        if let StageFrom::Site(source) = from
            && let Some(load) = self.loads.get_mut(&source)
        {
            *load -= 1;
        }
    }

    fn set_stage(&mut self, file: FileId, site: SiteId, stage: Stage) {
        if let Some(want) = self.wanted.get_mut(&(file, site)) {
            want.stage = stage;
        }
    }

    /// The file is somewhere again: those who wait for it may go on.
    pub(super) fn retry_parked(&mut self, file: FileId) {
        let all = (file, SiteId(0))..=(file, SiteId(u16::MAX));
        for (key, want) in self.wanted.range_mut(all) {
            if want.stage == Stage::Parked {
                *want = Want { waiting: std::mem::take(&mut want.waiting), ..Want::default() };
                self.queue.push_back(*key);
            }
        }
    }

    /// A file will never be anywhere again; returns the tasks that waited for it.
    pub(super) fn abandon(&mut self, file: FileId) -> Vec<TaskId> {
        let all = (file, SiteId(0))..=(file, SiteId(u16::MAX));
        let parked = self.wanted.range(all).filter(|(_, want)| want.stage == Stage::Parked);
        let parked: Vec<_> = parked.map(|(key, _)| *key).collect();
        let wants = parked.iter().filter_map(|key| self.wanted.remove(key));
        wants.flat_map(|want| want.waiting).collect()
    }

    /// A task does not wait for this any more; the transfer itself goes on.
    pub(super) fn forget_waiter(&mut self, file: FileId, site: SiteId, task: TaskId) {
        if let Some(want) = self.wanted.get_mut(&(file, site)) {
            want.waiting.retain(|waiting| *waiting != task);
        }
    }

    /// Puts a transfer that is under way back into the queue.
    fn again(&mut self, file: FileId, site: SiteId) {
        let Some(from) = self.under_way_from(file, site) else { return };
        self.ended(Stage::UnderWay(from));
        self.set_stage(file, site, Stage::Queued);
        self.queue.push_back((file, site));
    }

    /// The same, where its source is believed no more: the next one has all of its tries. This
    /// ends, since each time there is one source less.
    pub(super) fn start_over(&mut self, file: FileId, site: SiteId) {
        self.again(file, site);
        if let Some(want) = self.wanted.get_mut(&(file, site)) {
            want.failures = 0;
        }
    }

    /// Transfers to a lost site end; those from it start again elsewhere.
    pub(super) fn on_site_lost(&mut self, site: SiteId) {
        let from_it = |want: &Want| want.stage == Stage::UnderWay(StageFrom::Site(site));
        let touched = self.wanted.iter().filter(|(key, want)| key.1 == site || from_it(want));
        for (file, to) in touched.map(|(key, _)| *key).collect::<Vec<_>>() {
            if to == site {
                self.complete(file, to);
            } else {
                self.start_over(file, to);
            }
        }
        self.queue.retain(|(_, to)| *to != site);
        self.loads.remove(&site);
    }

    /// Transfers from this site that are under way.
    fn load(&self, site: SiteId) -> usize {
        self.loads.get(&site).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let under_way =
            self.wanted.values().filter(|want| matches!(want.stage, Stage::UnderWay(_)));
        assert_eq!(under_way.count(), self.under_way, "transfers under way are counted");
        assert!(self.under_way <= TRANSFERS_MAX, "transfers under way are bounded");
        let from_sites: usize = self.loads.values().sum();
        let site = |want: &&Want| matches!(want.stage, Stage::UnderWay(StageFrom::Site(_)));
        assert_eq!(self.wanted.values().filter(site).count(), from_sites, "loads are counted");
        let queued = self.wanted.values().filter(|want| want.stage == Stage::Queued).count();
        assert_eq!(queued, self.queue.len(), "each queued transfer is in the queue once");
    }
}

impl Core {
    /// A file is needed at a site: by a task that has its place there, or only to be known.
    pub(super) fn want(&mut self, file: FileId, site: SiteId, task: Option<TaskId>) {
        let queue = &mut self.transfers.queue;
        let want = self.transfers.wanted.entry((file, site)).or_insert_with(|| {
            queue.push_back((file, site));
            Want::default()
        });
        want.waiting.extend(task);
    }

    pub(super) fn start_transfers(&mut self, actions: &mut Vec<Action>) {
        while self.transfers.can_start() {
            let Some((file, site)) = self.transfers.queue.pop_front() else { return };
            match self.choose_source(file, site) {
                Take::Here => {
                    for task in self.transfers.complete(file, site) {
                        self.on_input_arrived(task, site);
                    }
                }
                Take::From(from) => {
                    self.transfers.begun(file, site, from);
                    actions.push(Action::Stage { file, site, from });
                }
                Take::MadeAgainBy(producer) => {
                    self.transfers.set_stage(file, site, Stage::Parked);
                    if !self.revive(producer, actions) {
                        self.fail_waiters(producer, actions);
                    }
                }
            }
        }
    }

    /// Where to take a file from: from the site with the fewest transfers from it.
    fn choose_source(&self, file: FileId, site: SiteId) -> Take {
        let node = self.graph.file(file);
        let replicas = &self.files[file.index()].replicas;
        if replicas.contains(&site) {
            return Take::Here;
        }
        let nearest = |replicas: &[SiteId]| {
            replicas.iter().copied().min_by_key(|replica| (self.transfers.load(*replica), *replica))
        };
        if let Some(replica) = nearest(replicas) {
            return Take::From(StageFrom::Site(replica));
        }
        let Some(producer) = node.producer else { return Take::From(StageFrom::Origin) };
        let around = node.outer.map(|outer| self.files[outer.index()].replicas.as_slice());
        match around {
            Some(around) if site == SiteId::HOME && around.contains(&site) => {
                Take::From(StageFrom::Origin)
            }
            Some(around) => nearest(around)
                .map_or(Take::MadeAgainBy(producer), |at| Take::From(StageFrom::Site(at))),
            None => Take::MadeAgainBy(producer),
        }
    }

    pub(super) fn on_stage_failed(
        &mut self,
        file: FileId,
        site: SiteId,
        failure: &Failure,
        actions: &mut Vec<Action>,
    ) {
        use FailureClass as Class;
        let Some(from) = self.transfers.under_way_from(file, site) else { return };
        if failure.class == Class::InputMissing && self.forget_missing(file, from) {
            return self.transfers.start_over(file, site);
        }
        if matches!(failure.class, Class::Transient | Class::InfrastructureLost)
            && let Some(want) = self.transfers.wanted.get_mut(&(file, site))
            && want.failures < self.options.stage_retries
        {
            want.failures += 1;
            return self.transfers.again(file, site);
        }
        let waiting = self.transfers.complete(file, site);
        self.give_up_on(file, failure, waiting, actions);
    }
}

/// Where a file is to be had.
enum Take {
    /// It is there already.
    Here,
    From(StageFrom),
    /// Nowhere, until this task is done again.
    MadeAgainBy(TaskId),
}

/// A source in words: its path or its first address (without user information and query).
pub(super) fn describe(source: &Source) -> String {
    match source {
        Source::Path(path) => path.to_string(),
        Source::Urls(urls) => urls.first().map(|url| without_secrets(url)).unwrap_or_default(),
    }
}

/// An address without user information, query and fragment.
pub(super) fn without_secrets(url: &str) -> String {
    if url.starts_with("data:") {
        return "data:...".to_owned();
    }
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            // What is no host may be half of a password: a `#` in it cuts the address there.
            let port = host.rsplit_once(':').map_or("", |(_, port)| port);
            if !port.bytes().all(|byte| byte.is_ascii_digit()) && !host.starts_with('[') {
                return format!("{scheme}://...");
            }
            format!("{scheme}://{host}/{path}")
        }
        None => url.to_owned(),
    }
}
