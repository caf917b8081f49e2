//! The transfer planner: which file goes where, from where, and when.
//!
//! One transfer for one file and site, however many tasks want it. A bounded number is under way.
//! The rest waits: what is the last missing file of a task goes first, then what most tasks lack,
//! then what was wanted first. A host has only a share of those under way, so that hosts which do not
//! answer are not all that is asked. While nothing else is wanted, remote inputs of tasks that are ready
//! and have no place yet are brought ahead.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::line::{From, HostId, Key, Line, Use};
use super::lookup::Lookup;
use super::task::Knowledge;
use super::{Action, Core, Phase, StageFrom};
use crate::{Failure, FailureClass, FileId, SiteId, Source, TaskId};

/// Transfers that are asked for at one time; the rest waits here.
pub(super) const TRANSFERS_MAX: usize = 512;

/// A host has at most one of so many parts of what is left for all: 102 of 512 when it is alone.
const LEFT_FOR_ONE: usize = 4;

/// Tasks that are looked at to know the use of one file.
const LOOKED_AT_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Transfers {
    wanted: BTreeMap<(FileId, SiteId), Want>,
    line: Line,
    under_way: usize,
    max: usize,
    /// How many of them take from each site.
    loads: BTreeMap<SiteId, usize>,
    /// How many of them take from each host that was ever wanted.
    hosts: Vec<usize>,
    host_ids: Lookup<Arc<str>, HostId>,
}

#[derive(Debug, Default)]
struct Want {
    /// Tasks that have a place at the site and lack the file.
    waiting: Vec<TaskId>,
    stage: Stage,
    /// The host that has it.
    from: From,
    /// Tries that failed and were made again, since the bytes were last given up somewhere.
    failures: u32,
    /// What it takes was written anew since it began: it can bring what was there before, or a part
    /// of either.
    outdated: bool,
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
    /// At most so many of them under way, if somebody says how many.
    pub(super) fn new(max: Option<u32>) -> Self {
        let max = max.map_or(TRANSFERS_MAX, |max| max.max(1) as usize);
        let (wanted, line, loads, hosts, host_ids) = Default::default();
        Self { wanted, line, under_way: 0, max, loads, hosts, host_ids }
    }

    /// Whether a transfer can be asked for now.
    pub(super) fn can_start(&self) -> bool {
        self.under_way < self.max && self.line.can_start(|from| self.may_start(from))
    }

    /// Whether more could be under way than anybody needs now.
    fn has_spare(&self) -> bool {
        self.under_way < self.max && !self.can_start()
    }

    /// A host may have a part of what the others have left, so that there is always something left
    /// for one more.
    fn may_start(&self, from: From) -> bool {
        let left = self.max.saturating_sub(self.under_way);
        from.is_none_or(|host| self.hosts[host.0 as usize] < (left / LEFT_FOR_ONE).max(1))
    }

    fn pop(&mut self) -> Option<(Key, Use)> {
        let mut line = std::mem::take(&mut self.line);
        let popped = line.pop(|from| self.may_start(from));
        self.line = line;
        popped
    }

    /// The number of the host of a file at these addresses.
    fn host(&mut self, source: &Source) -> From {
        let Source::Urls(urls) = source else { return None };
        let host: Arc<str> = host_of(urls.first()?)?.into();
        if let Some(id) = self.host_ids.get(&host) {
            return Some(*id);
        }
        let id = HostId(super::number(self.hosts.len()));
        self.hosts.push(0);
        self.host_ids.insert(host, id);
        Some(id)
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
        self.ended(want.stage, want.from);
        want.waiting
    }

    /// Whether a file is on its way to the engine's own machine, or will be.
    pub(super) fn is_wanted(&self, file: FileId) -> bool {
        self.wanted.contains_key(&(file, SiteId::HOME))
    }

    /// Whether a task waits for this file at this site.
    pub(super) fn waits(&self, file: FileId, site: SiteId, task: TaskId) -> bool {
        self.wanted.get(&(file, site)).is_some_and(|want| want.waiting.contains(&task))
    }

    /// A file was written anew: what is under way of it is not believed when it ends.
    pub(super) fn outdate(&mut self, file: FileId) {
        let all = (file, SiteId(0))..=(file, SiteId(u16::MAX));
        for (_, want) in self.wanted.range_mut(all) {
            want.outdated = matches!(want.stage, Stage::UnderWay(_));
        }
    }

    /// Whether what this transfer takes was written anew since it began.
    pub(super) fn is_outdated(&self, file: FileId, site: SiteId) -> bool {
        self.wanted.get(&(file, site)).is_some_and(|want| want.outdated)
    }

    fn begun(&mut self, file: FileId, site: SiteId, from: StageFrom) {
        self.set_stage(file, site, Stage::UnderWay(from));
        self.under_way += 1;
        match from {
            StageFrom::Site(source) => *self.loads.entry(source).or_default() += 1,
            StageFrom::Origin => {
                let host = self.wanted.get(&(file, site)).and_then(|want| want.from);
                if let Some(host) = host {
                    self.hosts[host.0 as usize] += 1;
                }
            }
        }
    }

    fn ended(&mut self, stage: Stage, host: From) {
        let Stage::UnderWay(from) = stage else { return };
        self.under_way -= 1;
        match from {
            StageFrom::Site(source) => {
                if let Some(load) = self.loads.get_mut(&source) {
                    *load -= 1;
                }
            }
            StageFrom::Origin => {
                if let Some(host) = host {
                    self.hosts[host.0 as usize] -= 1;
                }
            }
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
                let (waiting, from) = (std::mem::take(&mut want.waiting), want.from);
                *want = Want { waiting, from, ..Want::default() };
                self.line.push(*key, from);
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
        let host = self.wanted.get(&(file, site)).and_then(|want| want.from);
        self.ended(Stage::UnderWay(from), host);
        if let Some(want) = self.wanted.get_mut(&(file, site)) {
            (want.stage, want.outdated) = (Stage::Queued, false);
        }
        self.line.push((file, site), host);
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
        self.line.retain(|(_, to)| to != site);
        self.loads.remove(&site);
    }

    /// Transfers from this site that are under way.
    fn load(&self, site: SiteId) -> usize {
        self.loads.get(&site).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn ranked(&self) -> impl Iterator<Item = (Key, Use)> {
        self.line.ranked()
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let under_way =
            self.wanted.values().filter(|want| matches!(want.stage, Stage::UnderWay(_)));
        assert_eq!(under_way.count(), self.under_way, "transfers under way are counted");
        let mut outdated = self.wanted.values().filter(|want| want.outdated);
        let is_under_way = outdated.all(|want| matches!(want.stage, Stage::UnderWay(_)));
        assert!(is_under_way, "only what has begun is outdated");
        assert!(self.under_way <= self.max, "transfers under way are bounded");
        let from_hosts = self
            .wanted
            .values()
            .filter(|want| want.from.is_some() && want.stage == Stage::UnderWay(StageFrom::Origin));
        assert_eq!(
            from_hosts.count(),
            self.hosts.iter().sum::<usize>(),
            "shares of hosts are counted"
        );
        self.line.check_invariants();
        let from_sites: usize = self.loads.values().sum();
        let site = |want: &&Want| matches!(want.stage, Stage::UnderWay(StageFrom::Site(_)));
        assert_eq!(self.wanted.values().filter(site).count(), from_sites, "loads are counted");
        let queued = self.wanted.values().filter(|want| want.stage == Stage::Queued).count();
        assert_eq!(queued, self.line.len(), "each queued transfer is in the queue once");
    }
}

impl Core {
    /// A file is needed at a site: by a task that has its place there, or only to be known.
    pub(super) fn want(&mut self, file: FileId, site: SiteId, task: Option<TaskId>) {
        let from = self.transfers.host(&self.graph.file(file).source);
        let line = &mut self.transfers.line;
        let want = self.transfers.wanted.entry((file, site)).or_insert_with(|| {
            line.push((file, site), from);
            Want { from, ..Want::default() }
        });
        want.waiting.extend(task);
        let waiting = u32::from(task.is_some());
        let urgency = task.map(|task| self.graph.task(task).spec.options.priority);
        line.raise((file, site), Use { urgency, unblocks: 0, waiting });
    }

    /// A task lacks one thing only: if that is a file that is to be brought, it is worth more.
    pub(super) fn raise_last(&mut self, task: TaskId) {
        let state = &self.tasks[task.index()];
        let (missing, site) = match state.phase {
            Phase::Waiting => (state.missing, SiteId::HOME),
            Phase::Fetching(site) => (state.lacking, site),
            _ => return,
        };
        if missing != 1 {
            return;
        }
        let mut inputs = self.graph.task(task).inputs.iter().copied();
        let last = inputs.find(|file| match state.phase {
            Phase::Waiting => self.files[file.index()].knowledge == Knowledge::Unknown,
            // It can be there by other ways meanwhile, which shows when its turn comes.
            _ => self.transfers.waits(*file, site, task),
        });
        if let Some(file) = last {
            let urgency = Some(self.spec(task).options.priority);
            let more = Use { urgency, unblocks: 1, waiting: 0 };
            self.transfers.line.raise((file, site), more);
        }
    }

    /// What a transfer is good for now. Of very many who wait some are enough to know that.
    fn use_of(&self, (file, site): Key) -> Use {
        let placed = self.transfers.wanted.get(&(file, site)).map_or(&[][..], |want| &want.waiting);
        let placed = placed.iter().map(|task| (*task, self.tasks[task.index()].lacking));
        let is_unknown = self.files[file.index()].knowledge == Knowledge::Unknown;
        let readers = self.graph.readers(file).filter(|_| site == SiteId::HOME);
        let unplaced = readers.take(LOOKED_AT_MAX).filter_map(|reader| {
            let state = &self.tasks[reader.task.index()];
            let missing = match state.phase {
                Phase::Waiting if is_unknown => state.missing,
                Phase::Ready => u32::MAX,
                _ => return None,
            };
            Some((reader.task, missing))
        });
        let mut found = Use::default();
        for (task, missing) in placed.take(LOOKED_AT_MAX).chain(unplaced) {
            found.urgency = found.urgency.max(Some(self.spec(task).options.priority));
            found.unblocks += u32::from(missing == 1);
            found.waiting += 1;
        }
        found
    }

    /// Whether transfers wait only because their hosts have their shares.
    #[cfg(test)]
    pub(crate) fn hosts_are_at_their_shares(&self) -> bool {
        let Transfers { line, under_way, max, .. } = &self.transfers;
        line.len() > 0 && under_way < max && !self.transfers.can_start()
    }

    /// Whether it is known what a file holds, so that anything else is an error.
    #[cfg(test)]
    pub(crate) fn is_settled(&self, file: FileId) -> bool {
        self.content(file).is_some() && !self.files[file.index()].unsettled
    }

    #[cfg(test)]
    pub(crate) fn transfers_queued(&self) -> usize {
        self.transfers.line.len()
    }

    /// Nothing that is all that a task lacks is ranked as if it were not.
    #[cfg(test)]
    pub(super) fn check_ranks(&self) {
        for (key, ranked) in self.transfers.ranked() {
            let unblocks = self.use_of(key).unblocks;
            assert!(ranked.unblocks >= unblocks, "{key:?} unblocks {unblocks}, not {ranked:?}");
        }
    }

    fn rank_fresh(&mut self) {
        while let Some(fresh) = self.transfers.line.pop_fresh() {
            let its_use = self.use_of(fresh.key);
            self.transfers.line.rank(fresh, its_use);
        }
    }

    /// While tasks compute and nothing else is wanted, brings what others will need that are ready
    /// and have no place yet. Where there are several sites nobody knows yet which will need it.
    pub(super) fn prefetch(&mut self) {
        while self.transfers.has_spare() && self.sites.is_only_home() {
            let Some((_, task)) = self.ahead.pop_first() else { return };
            if self.phase(task) != Phase::Ready {
                continue;
            }
            let is_remote = |file: &FileId| {
                let node = self.graph.file(*file);
                let given_up = self.files[file.index()].given_up.is_some();
                matches!(node.source, Source::Urls(_)) && node.producer.is_none() && !given_up
            };
            let files: Vec<FileId> =
                self.lacking(task, SiteId::HOME).filter(|file| is_remote(file)).collect();
            for file in files {
                self.want(file, SiteId::HOME, None);
            }
        }
    }

    pub(super) fn start_transfers(&mut self, actions: &mut Vec<Action>) {
        while self.transfers.can_start() {
            self.rank_fresh();
            let Some(((file, site), its_use)) = self.transfers.pop() else { return };
            match self.choose_source(file, site) {
                Take::Here => {
                    for task in self.transfers.complete(file, site) {
                        self.on_input_arrived(task, site);
                    }
                }
                Take::From(from) => {
                    self.transfers.begun(file, site, from);
                    let priority = its_use.priority();
                    actions.push(Action::Stage { file, site, from, priority });
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

    /// A transfer has ended, well or not, whose file was written anew meanwhile. It is made again for
    /// those who need what is there now.
    pub(super) fn on_outdated_ended(&mut self, file: FileId, site: SiteId) {
        let state = &self.files[file.index()];
        let is_unknown = state.unsettled || state.knowledge == Knowledge::Unknown;
        let want = self.transfers.wanted.get(&(file, site));
        let is_needed = want.is_some_and(|want| !want.waiting.is_empty());
        if is_needed || is_unknown && site == SiteId::HOME {
            self.transfers.start_over(file, site);
        } else {
            self.transfers.complete(file, site);
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
        if self.transfers.is_outdated(file, site) {
            return self.on_outdated_ended(file, site);
        }
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
        self.give_up_on((file, site), failure, waiting, actions);
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

/// The host, the bucket or the collection of an address, also of an archive's; none: it is here.
fn host_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://").filter(|_| !url.starts_with("data:"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
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

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn hosts_are_told_by_addresses() {
        let hosts = [
            ("http://Host:81/a/b?c@d", Some("host:81")),
            ("https://user:pass@host/a@b", Some("host")),
            ("zip:https://host/a.zip!/b", Some("host")),
            ("s3://bucket", Some("bucket")),
            ("http://[::1]:80#x", Some("[::1]:80")),
            ("file:///a/b", None),
            ("/a/b", None),
            ("data:text/plain,http://host/", None),
        ];
        for (url, host) in hosts {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }
}
