//! The world around the core under virtual time: which bytes truly are where, what is asked of
//! the edges, and what comes of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::ahead;
use super::chance::Chance;
use super::checkpoints::{Forgetting, Saved, Saving};
use super::gate::Gate;
use super::marks::{Mark, Marks};
use super::model::{content, inner, written};
use super::plan::{
    FINAL, FREE, Fate, Growth, HALF, NOT_FOUND, Plan, SKIPS, SourceFate, held_name, node,
    source_digest, source_name,
};
use crate::core::{Core, Event, FileNode, Pool, Recall, StageFrom, Urgency};
use crate::queue::TicketId;
use crate::{
    AttemptId, AttemptOutcome, CheckpointOrigin, Content, Digest, Exit, Failure, FailureClass,
    FileId, Kind, MemoKey, MemoRecord, Memoize, OutputRecord, Reason, Resources, Response, Reuse,
    Shortage, SiteId, TaskId, TaskName, TaskSpec, Timestamp,
};

/// Something that is under way outside of the core, or will happen to it.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    Join(SiteId, Vec<Pool>),
    Die(SiteId),
    Stage {
        file: FileId,
        site: SiteId,
        from: StageFrom,
        /// What was there when it began to be read, if that counts.
        begun: Option<Content>,
    },
    Recall {
        task: TaskId,
        key: MemoKey,
        known: Option<MemoRecord>,
    },
    End(AttemptId),
    Publish(AttemptId),
    Snapshot(AttemptId),
    Restored(AttemptId, CheckpointOrigin),
    /// The end of an attempt, when what it left is saved.
    Report(AttemptId, Event),
    Expand(TaskId),
    Deliver(TaskId, u32, Content),
    /// One that goes through the queue of transfers, and has a connection.
    Through(TicketId),
    Again(Event),
    Stop(Urgency),
    Cancel,
    /// The program submits tasks; it submits no more; it does not wait for the task of a join.
    Submit(Vec<TaskSpec>),
    Close,
    GiveUp(AttemptId, FailureClass),
    Edit,
    WantRoom,
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) spec: TaskSpec,
    pub(super) site: SiteId,
    pub(super) pool: u16,
    /// Slots that it holds.
    pub(super) held: Resources,
    pub(super) gpus: Vec<u32>,
    pub(super) key: MemoKey,
    pub(super) killed: bool,
    /// Those that were launched ahead have to wait first.
    pub(super) begun: bool,
    pub(super) publishing: bool,
    pub(super) saving: Saving,
}

impl Attempt {
    pub(super) fn new(id: AttemptId, site: SiteId, key: MemoKey, core: &Core) -> Self {
        Self {
            spec: core.spec(id.task).clone(),
            site,
            pool: core.pool(id.task),
            held: core.held(id.task),
            gpus: core.gpus(id.task).to_vec(),
            key,
            killed: false,
            begun: false,
            publishing: false,
            saving: Saving::default(),
        }
    }
}

#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) chance: Chance,
    pub(super) marks: &'a mut Marks,
    /// Whether each step is told, to be read when it fails.
    pub(super) is_told: bool,
    pub(super) now: Timestamp,
    pub(super) pending: BTreeMap<(Timestamp, u64), Deed>,
    deeds: u64,
    pub(super) gate: Gate,
    pub(super) rooms_made: u64,
    pub(super) versions: BTreeMap<String, u32>,
    /// What each site that is there holds, by path or address.
    pub(super) held: BTreeMap<SiteId, BTreeMap<String, Content>>,
    /// The slots of each site that is there.
    pub(super) pools: BTreeMap<SiteId, Vec<Pool>>,
    /// Tasks that waited for slots after the last step, and where.
    pub(super) queued: BTreeMap<TaskId, (SiteId, u16)>,
    pub(super) next_site: u16,
    pub(super) objects: BTreeSet<Digest>,
    pub(super) memo: BTreeMap<MemoKey, MemoRecord>,
    pub(super) attempts: BTreeMap<AttemptId, Attempt>,
    /// Those of them that wait for slots where they were launched.
    pub(super) lines: BTreeMap<(SiteId, u16), VecDeque<AttemptId>>,
    /// Checkpoints, by task and key.
    pub(super) saved: BTreeMap<(TaskName, MemoKey), Saved>,
    pub(super) forgetting: Vec<Forgetting>,
    /// Chance for what befalls checkpoints, so that they leave the rest of a plan as it is.
    pub(super) chance_to_save: Chance,
    /// Chance for what a program does.
    pub(super) chance_of_program: Chance,
    /// Attempts of joins, with the tasks that they wait for.
    pub(super) joining: BTreeMap<AttemptId, TaskName>,
    /// How tasks ended first in the life of this engine, with their values.
    pub(super) cells: BTreeMap<TaskName, Result<Option<Digest>, ()>>,
    /// Values that are kept.
    pub(super) values: BTreeSet<Digest>,
    /// Engines that are gone.
    pub(super) lives: u32,
    /// How often a task failed of itself.
    failed: BTreeMap<TaskName, u32>,
    /// How often something else was the matter with it.
    disturbed: BTreeMap<TaskName, u32>,
    stage_failures: BTreeMap<(String, SiteId), u32>,
    pub(super) delivery_failures: BTreeMap<String, u32>,
    /// What is at the addresses of outputs, by their paths.
    pub(super) delivered: BTreeMap<String, Content>,
    /// Outputs that were reported missing or damaged somewhere, rightly or not.
    pub(super) doubted: BTreeSet<String>,
    /// What had to go from the engine's own machine to make room, and has not come again.
    evicted: BTreeSet<String>,
}

impl<'a> World<'a> {
    pub(super) fn new(plan: &'a Plan, seed: u64, marks: &'a mut Marks) -> Self {
        let mut chance = Chance::new(seed ^ 0x5eed);
        let gate = Gate::new(&mut chance);
        Self {
            plan,
            chance,
            marks,
            is_told: false,
            now: Timestamp(1_000),
            pending: BTreeMap::new(),
            deeds: 0,
            gate,
            rooms_made: 0,
            versions: BTreeMap::new(),
            held: BTreeMap::from([(SiteId::HOME, BTreeMap::new())]),
            pools: BTreeMap::new(),
            queued: BTreeMap::new(),
            next_site: 1,
            objects: BTreeSet::new(),
            memo: BTreeMap::new(),
            attempts: BTreeMap::new(),
            lines: BTreeMap::new(),
            saved: BTreeMap::new(),
            forgetting: Vec::new(),
            chance_to_save: Chance::new(seed ^ 0xcafe),
            chance_of_program: Chance::new(seed ^ 0xf00d),
            joining: BTreeMap::new(),
            cells: BTreeMap::new(),
            values: BTreeSet::new(),
            lives: 0,
            failed: BTreeMap::new(),
            disturbed: BTreeMap::new(),
            stage_failures: BTreeMap::new(),
            delivery_failures: BTreeMap::new(),
            delivered: BTreeMap::new(),
            doubted: BTreeSet::new(),
            evicted: BTreeSet::new(),
        }
    }

    pub(super) fn tell(&self, what: &str, it: &dyn std::fmt::Debug) {
        if self.is_told {
            eprintln!("{:>6} {what} {it:?}", self.now.0);
        }
    }

    pub(super) fn later(&mut self, ms: (u64, u64), deed: Deed) {
        let slow = if self.chance.one_in(12) { 5 } else { 1 };
        let wait = self.chance.span(ms.0, ms.1) * slow;
        self.after(wait, deed);
    }

    pub(super) fn after(&mut self, wait: u64, deed: Deed) {
        self.deeds += 1;
        self.pending.insert((Timestamp(self.now.0 + wait), self.deeds), deed);
    }

    /// Whether something else may befall a task once more.
    fn disturb(&mut self, task: &TaskName, one_in: usize) -> bool {
        let count = self.disturbed.entry(task.clone()).or_default();
        let so = *count < 4 && self.chance.one_in(one_in);
        *count += u32::from(so);
        so
    }

    /// What a site truly has under a name.
    pub(super) fn actual(&self, site: SiteId, name: &str) -> Option<Content> {
        let held = self.held.get(&site)?;
        held.get(name).copied().or_else(|| {
            let around = held.get(name.strip_suffix("/inner")?)?;
            // Not each time that a directory is written, all is in it.
            let is_there = !self.plan.restless || around.digest.as_bytes()[1] >= 64;
            is_there.then(|| inner(*around, name))
        })
    }

    fn put(&mut self, site: SiteId, name: &str, what: Content) {
        let held = self.held.get_mut(&site).unwrap();
        held.remove(&format!("{name}/inner"));
        held.insert(name.to_owned(), what);
    }

    /// Whether a result could be had at home without running.
    pub(super) fn is_whole(&self, record: &MemoRecord) -> bool {
        let has_value = record.value.is_none_or(|value| self.values.contains(&value));
        has_value
            && record.outputs.iter().all(|output| match output.content {
                None => true,
                Some(what) => {
                    self.held[&SiteId::HOME].get(output.path.as_ref()) == Some(&what)
                        || self.objects.contains(&what.digest)
                }
            })
    }

    /// Carries out what was under way; what comes of it, if anything is reported.
    pub(super) fn carry_out(&mut self, deed: Deed, core: &Core) -> Option<Event> {
        match deed {
            Deed::Join(site, pools) => {
                self.marks.hit_if(core.counts().running > 0, Mark::SiteJoinedLate);
                self.held.entry(site).or_default();
                self.pools.insert(site, pools.clone());
                Some(Event::SiteJoined { site, pools })
            }
            Deed::Die(site) => self.die(site),
            Deed::Stage { file, site, from, begun } => self.stage(core, (file, site), from, begun),
            Deed::Recall { task, key, known } => {
                let verdict = self.recall(core.spec(task), key, known);
                Some(Event::Recalled { task, key, verdict })
            }
            Deed::End(attempt) => self.end(attempt),
            Deed::Publish(attempt) => self.publish(attempt),
            Deed::Snapshot(attempt) => self.snapshot(attempt),
            Deed::Restored(attempt, from) => self.restored(attempt, from),
            Deed::Report(attempt, ended) => self.report(attempt, ended),
            Deed::Expand(by) => Some(match &self.plan.growth[&core.spec(by).name] {
                Growth::Tasks(tasks) | Growth::Bad(tasks) => {
                    Event::Grown { by, tasks: tasks.clone() }
                }
                Growth::Fails => {
                    self.marks.hit(Mark::GrowthFailed);
                    Event::GrowFailed { by, failure: failure(FailureClass::Permanent, "no list") }
                }
            }),
            Deed::Deliver(task, output, content) => Some(self.deliver(core, task, output, content)),
            Deed::Through(ticket) => self.go_through(ticket, core),
            Deed::Again(event) => Some(event),
            Deed::Stop(urgency) => {
                self.give_up_joins();
                Some(Event::StopRequested { urgency })
            }
            Deed::Cancel => self.cancel(core),
            Deed::Submit(_) => unreachable!("the life of the engine submits"),
            Deed::Close => {
                let ended = core.counts().ended() == core.counts().total;
                self.marks.hit(if ended { Mark::ClosedAfterAll } else { Mark::ClosedBefore });
                Some(Event::Closed)
            }
            Deed::GiveUp(attempt, class) => self.give_up_join(attempt, class),
            Deed::Edit => {
                self.edit();
                Some(Event::TimePassed)
            }
            Deed::WantRoom => Some(Event::RoomWanted { bytes: self.chance.span(1, 600) }),
        }
    }

    /// Somebody changes a source that nobody declared the digest of.
    pub(super) fn edit(&mut self) {
        let changing =
            |name: &&String| name.starts_with("in/") || name.ends_with(['1', '3', '5', '7', '9']);
        let names: Vec<String> = self.plan.sources.keys().filter(changing).cloned().collect();
        if !names.is_empty() {
            let name = names[self.chance.below(names.len())].clone();
            *self.versions.entry(name).or_default() += 1;
        }
    }

    /// The bytes of a remote file go from the engine's own machine.
    pub(super) fn evict(&mut self, name: String) {
        let held = self.held.get_mut(&SiteId::HOME).unwrap();
        assert!(held.remove(&name).is_some() || self.doubted.contains(&name), "{name} was here");
        self.marks.hit(Mark::Evicted);
        self.evicted.insert(name);
    }

    fn die(&mut self, site: SiteId) -> Option<Event> {
        let lost = self.held.remove(&site)?;
        self.pools.remove(&site)?;
        let only = |name: &&String| !self.held.values().any(|held| held.contains_key(*name));
        let produced = |name: &&String| name.starts_with("o/");
        let only_there = lost.keys().filter(produced).any(|name| only(&name));
        self.marks.hit_if(only_there, Mark::SiteLostWithOnlyReplica);
        self.doubted.extend(lost.into_keys());
        let at_site = self.attempts.values().filter(|attempt| attempt.site == site);
        let (publishing, running): (Vec<_>, Vec<_>) = at_site.partition(|a| a.publishing);
        self.marks.hit_if(!running.is_empty(), Mark::SiteLostWithRunning);
        self.marks.hit_if(!publishing.is_empty(), Mark::SiteLostWithPublishing);
        self.attempts.retain(|_, attempt| attempt.site != site);
        if self.chance.one_in(2) {
            let again = SiteId(self.next_site);
            self.next_site += 1;
            self.later((10, 300), Deed::Join(again, vec![node(2, 6)]));
        }
        Some(Event::SiteLost { site, cause: "power".to_owned() })
    }

    /// What a task wrote is either read when the transfer begins, whatever is written in its place
    /// meanwhile, or when it ends.
    pub(super) fn begin_reading(
        &mut self,
        node: &FileNode,
        site: SiteId,
        from: StageFrom,
    ) -> Option<Content> {
        let source = match from {
            StageFrom::Site(source) => source,
            StageFrom::Origin => site,
        };
        let name = held_name(&node.source, node.sha256);
        // What is rewritten while it is read is rare, and is to be seen.
        let at_its_begin = self.plan.restless && name.ends_with("/inner") || self.chance.one_in(2);
        (node.producer.is_some() && at_its_begin).then(|| self.actual(source, &name))?
    }

    fn stage(
        &mut self,
        core: &Core,
        (file, site): (FileId, SiteId),
        from: StageFrom,
        begun: Option<Content>,
    ) -> Option<Event> {
        self.held.get(&site)?;
        if let StageFrom::Site(source) = from {
            // Whoever dies is reported as dead; its transfers are not.
            self.held.get(&source)?;
        }
        let node = core.graph().file(file);
        let name = source_name(&node.source);
        let kept_as = held_name(&node.source, node.sha256);
        let fail = |class, cause: &str| {
            Some(Event::StageFailed { file, site, failure: failure(class, cause) })
        };
        let tries = self.stage_failures.entry((kept_as.clone(), site)).or_default();
        if *tries < self.plan.options.stage_retries && self.chance.one_in(5) {
            *tries += 1;
            self.marks.hit(Mark::TransferRetried);
            return fail(FailureClass::Transient, "connection reset");
        }
        *tries = 0;
        let there = match (from, node.producer) {
            (StageFrom::Site(source), _) => {
                self.marks.hit(Mark::TransferFromSite);
                let there = self.actual(source, &kept_as);
                self.marks.hit_if(there.is_none(), Mark::TransferSourceGone);
                there
            }
            (StageFrom::Origin, Some(_)) => self.actual(SiteId::HOME, &name),
            (StageFrom::Origin, None) => match self.plan.sources[&name] {
                SourceFate::Broken => return fail(FailureClass::Permanent, "403"),
                SourceFate::Missing => {
                    self.marks.hit(Mark::SourceMissing);
                    None
                }
                SourceFate::Good => self.at_source(&name, node.kind),
            },
        };
        let Some(now) = there else {
            let is_there =
                |dir: &str| from == StageFrom::Origin && self.held[&site].contains_key(dir);
            let left_out = name.strip_suffix("/inner").is_some_and(is_there);
            self.marks.hit_if(left_out && core.content(file).is_some(), Mark::NotInDirectoryAgain);
            return fail(FailureClass::InputMissing, "404");
        };
        let what = begun.unwrap_or(now);
        let in_directory = name.ends_with("/inner");
        self.marks.hit_if(what != now && in_directory, Mark::ReadWhileDirectoryRewritten);
        // Damage can be told only from what is known. What lies in a directory that was written
        // anew is not, until the first transfer tells it; that this one is whole, those who move
        // bytes between sites have to see to.
        if core.is_settled(file)
            && from != StageFrom::Origin
            && self.disturb(&name.as_str().into(), 30)
        {
            self.marks.hit(Mark::TransferDamaged);
            self.doubted.insert(name.trim_end_matches("/inner").to_owned());
            let damaged = content(Digest::of(b"damaged"), what.kind);
            return Some(Event::Staged { file, site, content: damaged });
        }
        let wrong = node.sha256.is_some_and(|declared| declared != what.digest);
        self.marks.hit_if(node.sha256.is_some() && !wrong, Mark::DeclaredDigestBrought);
        self.marks.hit_if(wrong, Mark::DeclaredDigestWrong);
        // What a task wrote here is looked at where it is.
        if from != StageFrom::Origin || node.producer.is_none() {
            self.put(site, &kept_as, what);
        }
        let again = site == SiteId::HOME && self.evicted.remove(&kept_as);
        self.marks.hit_if(again, Mark::FetchedAgainAfterEviction);
        Some(Event::Staged { file, site, content: what })
    }

    /// What there is at a source now.
    pub(super) fn at_source(&self, name: &str, kind: Kind) -> Option<Content> {
        let is_good = self.plan.sources[name] == SourceFate::Good;
        let version = self.versions.get(name).copied().unwrap_or(0);
        is_good.then(|| content(source_digest(name, version), kind))
    }

    fn recall(&mut self, spec: &TaskSpec, key: MemoKey, known: Option<MemoRecord>) -> Recall {
        self.marks.hit_if(
            known.is_some() && spec.options.memoize == Memoize::Off,
            Mark::RecalledKnownOfUncached,
        );
        self.marks.hit_if(
            known.is_some() && spec.options.memoize == Memoize::Refresh,
            Mark::RecalledKnownOfForced,
        );
        let is_own = known.is_some() && !self.memo.contains_key(&key);
        let is_read_only = spec.options.memoize == Memoize::ReadOnly;
        self.marks.hit_if(is_own && is_read_only, Mark::RecalledKnownOfReadOnly);
        let remembered = match spec.options.memoize {
            Memoize::On | Memoize::ReadOnly | Memoize::Failures => {
                self.memo.get(&key).cloned().or(known)
            }
            Memoize::Off | Memoize::Refresh => known,
        };
        let Some(record) = remembered else {
            self.marks.hit(Mark::MissedAtFirst);
            return Recall::Miss { reasons: vec![Reason::FirstRun] };
        };
        if !self.is_whole(&record) {
            self.marks.hit(Mark::MissedDamaged);
            return Recall::Miss { reasons: vec![Reason::RecordLost] };
        }
        let mut reuse = Reuse::InPlace;
        for output in &record.outputs {
            assert_eq!(*output, left(&output.path, output.content), "the record is whole");
            let Some(what) = output.content else { continue };
            if self.held[&SiteId::HOME].get(output.path.as_ref()) != Some(&what) {
                reuse = Reuse::Restored;
                self.put(SiteId::HOME, &output.path, what);
            }
        }
        let mark = match reuse {
            Reuse::InPlace => Mark::RecalledInPlace,
            Reuse::Restored => Mark::RecalledRestored,
        };
        self.marks.hit(mark);
        Recall::Hit { record, reuse }
    }

    fn end(&mut self, id: AttemptId) -> Option<Event> {
        let attempt = self.attempts.get(&id).filter(|attempt| !attempt.saving.ending)?;
        let (name, site, killed) = (attempt.spec.name.clone(), attempt.site, attempt.killed);
        let (spec, inputs) = (attempt.spec.clone(), attempt.spec.inputs.clone());
        let missing_one_in = if self.plan.restless { 4 } else { 15 };
        let needs = self.plan.needs.get(&name).copied().unwrap_or(0);
        let failure = if killed {
            self.marks.hit(Mark::KilledAttempt);
            self.marks.hit_if(!attempt.begun, Mark::KilledInLine);
            Some(failure(FailureClass::Transient, "killed"))
        } else if attempt.held.memory < needs {
            self.marks.hit(Mark::RanOutOfMemory);
            let failure = failure(FailureClass::OutOfResources, "it used more");
            Some(failure.with_shortage(Shortage::Memory))
        } else if self.disturb(&name, 12) {
            Some(failure(FailureClass::InfrastructureLost, "worker died"))
        } else if !inputs.is_empty() && self.disturb(&name, missing_one_in) {
            let sources = inputs.iter().map(|input| held_name(&input.source, input.sha256));
            let names: Vec<String> = sources.collect();
            let gone = names[self.chance.below(names.len())].clone();
            if self.chance.one_in(2)
                && let Some(held) = self.held.get_mut(&site)
            {
                held.remove(&gone);
                held.remove(gone.trim_end_matches("/inner"));
            }
            let bare = names.iter().map(|name| name.trim_end_matches("/inner").to_owned());
            self.doubted.extend(bare);
            Some(failure(FailureClass::InputMissing, "no such file"))
        } else {
            self.own_failure(&spec)
        };
        let failure = failure.map(|mut failure| {
            if let Some(program) = &self.plan.program {
                program.look_at(&name, &mut failure);
                self.marks.hit_if(failure.response == Some(Response::Skip), Mark::HandlerSkips);
            }
            failure
        });
        let failed = failure.is_some();
        let result = failure.map_or(Ok(()), Err);
        let ended = AttemptOutcome { attempt: id, result, usage: ahead::usage(&name) };
        let ended = Event::AttemptEnded(ended);
        if failed {
            return Some(self.fail(id, ended));
        }
        self.attempts.get_mut(&id)?.publishing = true;
        Some(ended)
    }

    fn own_failure(&mut self, spec: &TaskSpec) -> Option<Failure> {
        let name = &spec.name;
        let is_handled = self.plan.program.as_ref().is_some_and(|program| program.handles(name));
        let has_rules = is_handled || !spec.options.retry.rules.is_empty();
        let failed = self.failed.entry(name.clone()).or_default();
        let (class, code) = match self.plan.fates[name] {
            Fate::Good | Fate::Unpublishable => return None,
            Fate::Transient(times) if *failed >= times => return None,
            Fate::Permanent => (FailureClass::Permanent, 1),
            Fate::FailsAtOnce => (FailureClass::Transient, FINAL),
            Fate::Skips => (FailureClass::Transient, SKIPS),
            _ if *failed % 2 == 1 => (FailureClass::OutOfResources, 1),
            _ if has_rules && *failed % 4 == 2 => (FailureClass::Permanent, NOT_FOUND),
            _ => (FailureClass::Transient, [1, HALF, FREE][self.chance.below(3)]),
        };
        *failed += 1;
        Some(failure(class, "exit status 1").with_exit(Exit::Code(code)))
    }

    fn publish(&mut self, id: AttemptId) -> Option<Event> {
        let name = self.attempts.get(&id)?.spec.name.clone();
        let failure = if self.plan.fates[&name] == Fate::Unpublishable {
            self.marks.hit(Mark::FailedToPublish);
            Some(failure(FailureClass::Permanent, "an output was not written"))
        } else if self.disturb(&name, 20) {
            Some(failure(FailureClass::InfrastructureLost, "disk gone"))
        } else {
            None
        };
        if let Some(failure) = failure {
            return Some(self.fail(id, Event::PublishFailed { attempt: id, failure }));
        }
        let salt = if self.plan.restless { id.ordinal } else { 0 };
        let value = match self.value(id, salt) {
            Ok(value) => value,
            Err(failure) => {
                return Some(self.fail(id, Event::PublishFailed { attempt: id, failure }));
            }
        };
        let attempt = self.attempts.remove(&id)?;
        let (spec, site) = (attempt.spec, attempt.site);
        let cached = !self.chance.one_in(3);
        let mut record = MemoRecord { value, ..MemoRecord::default() };
        for (at, output) in spec.outputs.iter().enumerate() {
            let what = written(&spec, attempt.key, at, salt);
            if let Some(what) = what {
                self.put(site, &output.path, what);
                self.doubted.remove(output.path.as_ref());
                if cached {
                    self.objects.insert(what.digest);
                }
            }
            record.outputs.push(left(&output.path, what));
        }
        Some(Event::Published { attempt: id, record })
    }
}

/// What is recorded of an output; whether it can be executed follows from what it holds.
fn left(path: &Arc<str>, content: Option<Content>) -> OutputRecord {
    let executable = content.is_some_and(|content| content.digest.as_bytes()[0] % 2 == 1);
    OutputRecord { path: path.clone(), content, executable }
}

pub(super) fn failure(class: FailureClass, cause: &str) -> Failure {
    Failure::new(class, cause)
}
