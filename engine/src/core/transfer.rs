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
}

#[derive(Debug, Default)]
struct Want {
    /// Tasks that have a place at the site and lack the file.
    waiting: Vec<TaskId>,
    stage: Stage,
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
    /// Ends a transfer; `None` when there is none under way.
    pub(super) fn arrived(&mut self, file: FileId, site: SiteId) -> Option<Vec<TaskId>> {
        let Stage::UnderWay(_) = self.wanted.get(&(file, site))?.stage else { return None };
        self.under_way -= 1;
        self.wanted.remove(&(file, site)).map(|want| want.waiting)
    }

    /// The file is somewhere again: those who wait for it may go on.
    pub(super) fn retry_parked(&mut self, file: FileId) {
        let all = (file, SiteId(0))..=(file, SiteId(u16::MAX));
        for (key, want) in self.wanted.range_mut(all) {
            if want.stage == Stage::Parked {
                want.stage = Stage::Queued;
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

    fn again(&mut self, file: FileId, site: SiteId) {
        if let Some(want) = self.wanted.get_mut(&(file, site))
            && let Stage::UnderWay(_) = want.stage
        {
            want.stage = Stage::Queued;
            self.under_way -= 1;
            self.queue.push_back((file, site));
        }
    }

    /// Transfers to a lost site end; those from it start again elsewhere.
    fn on_site_lost(&mut self, site: SiteId) {
        let to = |key: &(FileId, SiteId)| key.1 == site;
        for (_, want) in self.wanted.iter().filter(|(key, _)| to(key)) {
            self.under_way -= usize::from(matches!(want.stage, Stage::UnderWay(_)));
        }
        self.wanted.retain(|key, _| !to(key));
        self.queue.retain(|key| !to(key));
        let from_it = |want: &Want| want.stage == Stage::UnderWay(StageFrom::Site(site));
        let broken = self.wanted.iter().filter(|(_, want)| from_it(want)).map(|(key, _)| *key);
        for (file, site) in broken.collect::<Vec<_>>() {
            self.again(file, site);
        }
    }

    /// Transfers from this site that are under way.
    fn load(&self, site: SiteId) -> usize {
        let from_it = |want: &&Want| want.stage == Stage::UnderWay(StageFrom::Site(site));
        self.wanted.values().filter(from_it).count()
    }

    pub(super) fn check_invariants(&self) {
        let under_way =
            self.wanted.values().filter(|want| matches!(want.stage, Stage::UnderWay(_)));
        assert_eq!(under_way.count(), self.under_way, "transfers under way are counted");
        assert!(self.under_way <= TRANSFERS_MAX, "transfers under way are bounded");
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
        while self.transfers.under_way < TRANSFERS_MAX {
            let Some((file, site)) = self.transfers.queue.pop_front() else { return };
            let from = self.choose_source(file, site);
            let stage = from.map_or(Stage::Parked, Stage::UnderWay);
            if let Some(want) = self.transfers.wanted.get_mut(&(file, site)) {
                want.stage = stage;
            }
            match (from, self.graph.file(file).producer) {
                (Some(from), _) => {
                    self.transfers.under_way += 1;
                    actions.push(Action::Stage { file, site, from });
                }
                (None, Some(producer)) if self.revive(producer, actions) => {}
                (None, Some(producer)) => {
                    for waiting in self.transfers.abandon(file) {
                        self.fail_without_input(waiting, producer, actions);
                    }
                }
                (None, None) => unreachable!("a file that no task writes has an origin"),
            }
        }
    }

    /// Where to take a file from; `None` when it must be made again first.
    fn choose_source(&self, file: FileId, site: SiteId) -> Option<StageFrom> {
        let node = self.graph.file(file);
        let replicas = self.files[file.index()].replicas.iter().filter(|replica| **replica != site);
        let nearest = replicas.min_by_key(|replica| (self.transfers.load(**replica), **replica));
        match nearest {
            Some(replica) => Some(StageFrom::Site(*replica)),
            None if node.producer.is_none() || node.inside_output => Some(StageFrom::Origin),
            None => None,
        }
    }

    pub(super) fn on_stage_failed(
        &mut self,
        file: FileId,
        site: SiteId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        let Some(want) = self.transfers.wanted.get(&(file, site)) else { return };
        let Stage::UnderWay(from) = want.stage else { return };
        let state = &mut self.files[file.index()];
        state.failures += 1;
        if let StageFrom::Site(source) = from
            && failure.class == FailureClass::InputMissing
        {
            state.replicas.retain(|replica| *replica != source);
        }
        let may_go_away = match failure.class {
            FailureClass::Transient | FailureClass::InfrastructureLost => true,
            FailureClass::InputMissing => matches!(from, StageFrom::Site(_)),
            FailureClass::Permanent | FailureClass::OutOfResources => false,
        };
        if may_go_away && state.failures <= self.options.stage_retries {
            return self.transfers.again(file, site);
        }
        let waiting = self.transfers.arrived(file, site).unwrap_or_default();
        self.give_up_on(file, failure, waiting, actions);
    }

    pub(super) fn forget_transfers_of(&mut self, site: SiteId) {
        self.transfers.on_site_lost(site);
    }
}

/// A source in words: its path or its first address (without user information and query).
pub(super) fn describe(source: &Source) -> String {
    match source {
        Source::Path(path) => path.to_string(),
        Source::Urls(urls) => urls.first().map(|url| without_secrets(url)).unwrap_or_default(),
    }
}

fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        None => url.to_owned(),
    }
}
