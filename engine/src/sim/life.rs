//! One engine's life, from its start to the end of the run, to a stop, or to its crash; and what
//! is left of it for the next one.

use super::gate::Gate;
use super::marks::Mark;
use super::model::Model;
use super::oracle::Oracle;
use super::plan::{Growth, held_name, source_name};
use super::room::{Shelf, Unread};
use super::world::{Attempt, Deed, World};
use crate::core::{Action, Core, Event, History, Phase, Recall, StageFrom, Urgency};
use crate::{AttemptId, Fact, FileId, RunOutcome, SiteId, Source, TaskId, TaskSpec, Timestamp};

/// More steps than any of these runs needs: beyond, it goes in circles.
const STEPS_MAX: u32 = 30_000;

/// How an engine's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Over(RunOutcome),
    Crashed,
}

/// What happens next to an engine.
enum Happening {
    Event(Event),
    /// The program submits tasks.
    Submission(Vec<TaskSpec>),
}

pub(super) struct Life<'w, 'a> {
    pub(super) world: &'w mut World<'a>,
    pub(super) oracle: &'w mut Oracle,
    pub(super) model: &'w Model<'a>,
    /// After so many steps the engine crashes.
    pub(super) crash_at: Option<u32>,
}

impl Life<'_, '_> {
    pub(super) fn live(mut self) -> End {
        let mut history = History::default();
        self.oracle.journal.iter().for_each(|fact| history.apply(fact));
        let resumed = !history.is_empty();
        let again = |fact: &Fact| matches!(fact, Fact::AttemptFailed { cost: 1.., .. });
        let remembered = self.oracle.journal.iter().any(again);
        self.world.marks.hit_if(remembered, Mark::FailuresRememberedAfterCrash);
        let plan = self.world.plan;
        let known = if plan.program.is_none() { plan.tasks.clone() } else { Vec::new() };
        let mut core = Core::new(known, history, plan.options).unwrap();
        self.world.gate = Gate::new(&mut self.world.chance);
        self.schedule();
        let mut actions = Vec::new();
        let mut shelf = Shelf::default();
        core.resume(self.world.now, &mut actions);
        for (at, node) in core.graph().tasks().iter().enumerate() {
            let files = node.inputs.iter().chain(&node.outputs);
            let files = files.map(|file| (*file, source_name(&core.graph().file(*file).source)));
            let files: Vec<_> = files.collect();
            self.world.tell("task", &(at, &node.spec.name, node.spec.options.memoize, files));
        }
        for steps in 0..STEPS_MAX {
            core.check_invariants();
            let crash = self.crash_at == Some(steps);
            if let Some(end) = self.perform(&mut core, &mut actions, crash) {
                return end;
            }
            self.observe(&core, resumed);
            let event = match self.next(&core) {
                Happening::Event(event) => event,
                Happening::Submission(batch) => {
                    self.submit(&mut core, batch, &mut actions);
                    continue;
                }
            };
            self.world.tell("event", &event);
            let unread = Unread::before(&event, &core);
            core.step(self.world.now, event.clone(), &mut actions);
            unread.check(&actions, &shelf, self.world, &core);
            shelf.check(&event, &actions, &core);
            let overdue = core.next_deadline().filter(|due| *due <= self.world.now);
            assert_eq!(overdue, None, "whoever sleeps until the deadline makes no idle rounds");
            self.check_duplicate(&mut core, &event, &mut actions);
        }
        panic!("no end after {STEPS_MAX} steps; {}", waiting(&core));
    }

    /// What will happen to the engine's surroundings.
    fn schedule(&mut self) {
        let world = &mut *self.world;
        world.pools.clear();
        world.queued.clear();
        world.lines.clear();
        world.begin_program();
        for (at, pools) in world.plan.sites.iter().enumerate() {
            let site = if at == 0 { SiteId::HOME } else { SiteId(world.next_site) };
            world.next_site += u16::from(at > 0);
            // The engine's own machine is there first.
            let late = at > 0 && world.chance.one_in(3);
            let when =
                if late { (50, 400) } else { (u64::from(at > 0) * 6, u64::from(at > 0) * 9) };
            world.later(when, Deed::Join(site, pools.clone()));
            if at > 0 && world.chance.one_in(2) {
                world.later((60, 900), Deed::Die(site));
            }
        }
        if world.chance.one_in(6) {
            let urgency = if world.chance.one_in(2) { Urgency::Drain } else { Urgency::Now };
            world.later((10, 900), Deed::Stop(urgency));
            if world.chance.one_in(2) {
                world.later((10, 900), Deed::Stop(Urgency::Now));
            }
        }
        if self.oracle.cancels {
            for _ in 0..if world.plan.program.is_some() { 6 } else { 1 } {
                world.later((5, 600), Deed::Cancel);
            }
        }
        if world.chance.one_in(3) {
            for _ in 0..8 {
                world.later((5, 900), Deed::WantRoom);
            }
        }
        if world.plan.restless {
            for _ in 0..4 {
                world.later((5, 900), Deed::Edit);
            }
        }
    }

    fn next(&mut self, core: &Core) -> Happening {
        loop {
            if let Some(event) = self.world.pump(core) {
                return Happening::Event(event);
            }
            let next = self.world.pending.first_key_value().map(|((at, _), _)| *at);
            let deadline = core.next_deadline().map(|due| due.max(self.world.now));
            let turn = self.world.gate.next_deadline(self.world.now);
            match (next, deadline) {
                (next, deadline)
                    if let Some(due) = turn
                        && next.is_none_or(|at| due < at)
                        && deadline.is_none_or(|at| due < at) =>
                {
                    self.world.now = due;
                    continue;
                }
                (None, None) => {
                    let turns = self.world.gate.waits(self.world.now);
                    panic!("nothing will happen any more; {}; {turns:?}", waiting(core));
                }
                (next, Some(due)) if next.is_none_or(|at| due < at) => {
                    self.world.now = due;
                    return Happening::Event(Event::TimePassed);
                }
                _ => {}
            }
            let ((at, _), deed) = self.world.pending.pop_first().unwrap();
            self.world.now = at;
            if let Deed::Submit(batch) = deed {
                return Happening::Submission(batch);
            }
            let late = matches!(deed, Deed::Again(_));
            let Some(event) = self.world.carry_out(deed, core) else { continue };
            self.note(core, &event, late);
            return Happening::Event(event);
        }
    }

    /// Marks what an event meets.
    fn note(&mut self, core: &Core, event: &Event, late: bool) {
        let phases: Vec<Phase> = (0..core.counts().total).map(|t| core.phase(TaskId(t))).collect();
        let any = |wanted: fn(&Phase) -> bool| phases.iter().any(wanted);
        let marks = &mut *self.world.marks;
        match event {
            Event::StopRequested { urgency } => {
                self.oracle.stopped = true;
                marks.hit_if(*urgency == Urgency::Drain, Mark::Drained);
                marks.hit_if(*urgency == Urgency::Now, Mark::StoppedNow);
                marks.hit_if(
                    any(|p| matches!(p, Phase::Publishing(_))),
                    Mark::StoppedWhilePublishing,
                );
                marks.hit_if(any(|p| *p == Phase::Recalling), Mark::StoppedWhileRecalling);
            }
            Event::TaskCancelled { task } if !core.phase(*task).is_final() => {
                self.oracle.cancelled.insert(core.spec(*task).name.clone());
                let publishing = matches!(core.phase(*task), Phase::Publishing(_));
                marks.hit_if(publishing, Mark::CancelledWhilePublishing);
            }
            Event::Recalled { task, key, verdict: Recall::Miss { .. } }
                if core.phase(*task) == Phase::Recalling && core.key(*task) == Some(*key) =>
            {
                self.oracle.on_missed(&core.spec(*task).name, *key, self.world);
            }
            Event::SiteLost { site, .. } => {
                let fetching = phases.contains(&Phase::Fetching(*site));
                marks.hit_if(fetching, Mark::SiteLostWithFetching);
            }
            Event::Staged { file, content, .. } => {
                let changed = core.content(*file).is_some_and(|c| c.digest != content.digest);
                let readers = core.graph().tasks().iter().zip(&phases);
                let readers = readers.filter(|(node, _)| node.inputs.contains(file));
                for (_, phase) in readers.filter(|_| changed && self.world.plan.restless) {
                    match phase {
                        Phase::Running(_) => marks.hit(Mark::ContentChangedForRunning),
                        Phase::Ready | Phase::Queued(_) | Phase::Fetching(_) | Phase::Backoff => {
                            marks.hit(Mark::ContentChangedForWaiting);
                        }
                        _ => {}
                    }
                }
            }
            Event::AttemptEnded(outcome) if late => {
                let ran_again = matches!(core.phase(outcome.attempt.task), Phase::Running(_));
                marks.hit_if(ran_again, Mark::LateEventOfEarlierAttempt);
            }
            _ => {}
        }
    }

    /// Marks how things stand after a step.
    fn observe(&mut self, core: &Core, resumed: bool) {
        let sites = !self.world.pools.is_empty();
        let at_shares = core.hosts_are_at_their_shares();
        self.world.marks.hit_if(at_shares, Mark::HostsAtTheirShares);
        self.world.check_snapshots();
        self.world.end_joins();
        self.world.begin_in_line(core);
        for (at, node) in core.graph().tasks().iter().enumerate() {
            let phase = core.phase(TaskId(u32::try_from(at).unwrap()));
            let marks = &mut *self.world.marks;
            marks.hit_if(matches!(phase, Phase::Queued(_)), Mark::Contention);
            let task = TaskId(u32::try_from(at).unwrap());
            match phase {
                Phase::Queued(site) => self.world.queued.insert(task, (site, core.pool(task))),
                _ => self.world.queued.remove(&task),
            };
            marks.hit_if(phase == Phase::Ready && sites, Mark::NoRoom);
            if resumed && phase == Phase::Done {
                let delivered = |fact: &Fact| match fact {
                    Fact::Delivered { task, .. } => *task == node.spec.name,
                    _ => false,
                };
                let has_address = node.spec.outputs.iter().any(|o| o.deliver_to.is_some());
                if has_address && self.oracle.journal.iter().any(delivered) {
                    marks.hit(Mark::NotDeliveredTwice);
                }
            }
        }
    }

    /// Every event can come twice: at once or, where it names an attempt, much later.
    fn check_duplicate(&mut self, core: &mut Core, event: &Event, actions: &mut Vec<Action>) {
        let attempt = matches!(
            event,
            Event::AttemptEnded(_) | Event::Published { .. } | Event::PublishFailed { .. }
        );
        if attempt && self.world.chance.one_in(6) {
            self.world.later((1, 300), Deed::Again(event.clone()));
        }
        // A transfer or a delivery has no number: those who report on it drop duplicates.
        let again = actions.iter().any(|action| match action {
            Action::Stage { .. } => {
                matches!(event, Event::StageFailed { .. } | Event::Staged { .. })
            }
            Action::Deliver { .. } => {
                matches!(event, Event::DeliverFailed { .. } | Event::Delivered { .. })
            }
            _ => false,
        });
        let asked = matches!(
            event,
            Event::StopRequested { .. } | Event::TaskCancelled { .. } | Event::RoomWanted { .. }
        );
        if again || asked || !self.world.chance.one_in(4) {
            return;
        }
        let before = (actions.len(), core.counts());
        core.step(self.world.now, event.clone(), actions);
        assert_eq!(before, (actions.len(), core.counts()), "twice is harmless: {event:?}");
        self.world.marks.hit(Mark::DuplicateDropped);
    }

    /// Does what the core asks for. An engine that crashes does only some of it.
    fn perform(&mut self, core: &mut Core, actions: &mut Vec<Action>, crash: bool) -> Option<End> {
        let until = if crash { self.world.chance.below(actions.len() + 1) } else { actions.len() };
        self.world.marks.hit_if(crash && until < actions.len(), Mark::CrashedAmongActions);
        for action in actions.drain(..).take(until) {
            if let Some(outcome) = self.act(core, action) {
                self.oracle.check_end(outcome, self.world, core, self.model);
                Oracle::check_addresses(outcome, self.world, core);
                self.oracle.check_forgotten(self.world, core);
                return Some(End::Over(outcome));
            }
        }
        if crash {
            self.crash(core);
            return Some(End::Crashed);
        }
        None
    }

    fn act(&mut self, core: &Core, action: Action) -> Option<RunOutcome> {
        self.world.tell("  ", &action);
        match action {
            Action::Record(fact) => self.oracle.on_fact(&fact, self.world, core),
            Action::Stage { file, site, from, priority } => {
                let readers = |site: Phase| {
                    let nodes = core.graph().tasks().iter().zip(0..);
                    nodes.filter(move |(node, t)| {
                        node.inputs.contains(&file) && core.phase(TaskId(*t)) == site
                    })
                };
                let many = readers(Phase::Fetching(site)).count() > 1;
                self.world.marks.hit_if(many, Mark::TransferForMany);
                let is_last = core.transfers_queued() > 0 && priority >= 16;
                self.world.marks.hit_if(is_last, Mark::LastMissingFirst);
                let ahead = readers(Phase::Ready).count() > 0 && core.content(file).is_some();
                let ahead = ahead && readers(Phase::Fetching(site)).count() == 0;
                self.world.marks.hit_if(ahead, Mark::Prefetched);
                self.stage(core, (file, site), from, priority);
            }
            Action::Evict { file } => {
                let node = core.graph().file(file);
                self.world.evict(held_name(&node.source, node.sha256));
            }
            Action::Recall { task, key, known } => {
                let name = &core.spec(task).name;
                let revived = self.world.doubted.contains(name.as_ref());
                self.world.marks.hit_if(revived, Mark::ResultRevived);
                // A second recall in one life is that of a result that is needed again.
                self.world.doubted.insert(name.to_string());
                self.world.later((1, 12), Deed::Recall { task, key, known });
            }
            Action::Launch { attempt, site } => self.launch(core, attempt, site),
            Action::Kill { attempt } => {
                if let Some(running) = self.world.attempts.get_mut(&attempt) {
                    running.killed = true;
                    self.world.later((0, 5), Deed::End(attempt));
                }
            }
            Action::Publish { attempt } => {
                let name = &core.spec(attempt.task).name;
                self.world.begin_publishing(attempt, name, self.oracle.stopped);
            }
            Action::Expand { task } => {
                let grows =
                    matches!(self.world.plan.growth[&core.spec(task).name], Growth::Tasks(_));
                let marks = &mut *self.world.marks;
                marks.hit_if(grows, Mark::Grown);
                marks.hit_if(grows && self.oracle.flushed > 0, Mark::GrownAfterCrash);
                marks.hit_if(grows && core.counts().failed > 0, Mark::GrownUnderFailure);
                self.world.later((1, 40), Deed::Expand(task));
            }
            Action::Deliver { task, output, content } => {
                self.oracle.check_delivery((task, output), content, self.world, core);
                // They can last so long that the task is done again meanwhile.
                let deed = Deed::Deliver(task, output, content);
                if self.world.plan.restless {
                    self.world.later((100, 2_000), deed);
                } else {
                    self.world.enter("s3:bucket", 0, None, deed);
                }
            }
            Action::Snapshot { attempt } => self.world.begin_snapshot(attempt),
            Action::ForgetCheckpoints { task } => {
                let name = core.spec(task).name.clone();
                self.oracle.on_forget(&name, self.world, core);
            }
            Action::Finish { outcome } => return Some(outcome),
        }
        None
    }

    fn launch(&mut self, core: &Core, attempt: AttemptId, site: SiteId) {
        let key = self.oracle.check_launch(attempt, site, self.world, core, self.model);
        let mut running = Attempt::new(attempt, site, key, core);
        self.world.restore(attempt, &mut running);
        self.world.attempts.insert(attempt, running);
        self.world.begin_or_line_up(attempt, core);
    }

    /// What comes from a host goes through the queue, with its room if it comes here.
    fn stage(&mut self, core: &Core, to: (FileId, SiteId), from: StageFrom, priority: u8) {
        let ((file, site), node) = (to, core.graph().file(to.0));
        let begun = self.world.begin_reading(node, site, from);
        let deed = Deed::Stage { file, site, from, begun };
        let Source::Urls(urls) = node.source.clone() else {
            // It can last so long that its task is done again meanwhile.
            let is_long = self.world.plan.restless && begun.is_some();
            return self.world.later(if is_long { (100, 2_000) } else { (1, 60) }, deed);
        };
        let name = source_name(&node.source);
        let host = match from {
            StageFrom::Origin => urls[0].split('/').nth(2).unwrap_or_default().to_owned(),
            StageFrom::Site(source) => source.to_string(),
        };
        let bytes = match from {
            StageFrom::Origin => self.world.at_source(&name, node.kind),
            StageFrom::Site(_) => core.content(file),
        };
        let bytes = bytes.filter(|_| site == SiteId::HOME).map(|content| content.bytes);
        self.world.enter(&host, priority, bytes, deed);
    }

    fn crash(&mut self, core: &Core) {
        self.world.tell("crash", &core.counts());
        for task in (0..core.counts().total).map(TaskId) {
            let mark = match core.phase(task) {
                Phase::Recalling => Mark::CrashedWhileRecalling,
                Phase::Fetching(_) => Mark::CrashedWhileFetching,
                Phase::Queued(_) => Mark::CrashedWhileQueued,
                Phase::Running(_) => Mark::CrashedWhileRunning,
                Phase::Publishing(_) => Mark::CrashedWhilePublishing,
                Phase::Backoff => Mark::CrashedInBackoff,
                _ => continue,
            };
            self.world.marks.hit(mark);
        }
        let deeds = || self.world.pending.values().chain(self.world.gate.deeds());
        let expanding = deeds().any(|deed| matches!(deed, Deed::Expand(_)));
        let delivering = deeds().any(|deed| matches!(deed, Deed::Deliver(..)));
        self.world.marks.hit_if(expanding, Mark::CrashedWhileExpanding);
        self.world.marks.hit_if(delivering, Mark::CrashedWhileDelivering);
        if self.world.chance.one_in(2) {
            let lost = self.oracle.journal.len() - self.oracle.flushed;
            let kept = self.oracle.flushed + self.world.chance.below(lost + 1);
            let power_cut = kept < self.oracle.journal.len();
            self.world.marks.hit_if(power_cut, Mark::PowerCutLostFacts);
            self.oracle.journal.truncate(kept);
        }
        self.world.lose_forgetting();
    }
}

/// What is left of the world when an engine is gone: its machine, without what ran on it and
/// without other sites, and sometimes with damage.
pub(super) fn after_life(world: &mut World<'_>) {
    world.pending.clear();
    world.save_left_behind();
    world.pools.clear();
    let lost: Vec<String> = world
        .held
        .iter()
        .filter(|(site, _)| **site != SiteId::HOME)
        .flat_map(|(_, held)| held.keys().cloned())
        .collect();
    world.doubted.retain(|name| name.starts_with("o/"));
    world.doubted.extend(lost);
    world.held.retain(|site, _| *site == SiteId::HOME);
    world.now = Timestamp(world.now.0 + 1_000);
    let places: Vec<String> = world.held[&SiteId::HOME].keys().cloned().collect();
    if !places.is_empty() && world.chance.one_in(3) {
        let at = places[world.chance.below(places.len())].clone();
        world.held.get_mut(&SiteId::HOME).unwrap().remove(&at);
        world.doubted.insert(at);
    }
    if world.chance.one_in(4) {
        let gone = world.objects.iter().nth(world.chance.below(world.objects.len().max(1)));
        if let Some(gone) = gone.copied() {
            world.objects.remove(&gone);
            let outputs = world.plan.all().into_iter().flat_map(|spec| &spec.outputs);
            world.doubted.extend(outputs.map(|output| output.path.to_string()));
        }
    }
    if world.chance.one_in(4) {
        let key = world.memo.keys().nth(world.chance.below(world.memo.len().max(1))).copied();
        if let Some(key) = key {
            world.memo.remove(&key);
        }
    }
    if world.chance_of_program.one_in(3) {
        let gone = world.chance_of_program.below(world.values.len().max(1));
        if let Some(gone) = world.values.iter().nth(gone).copied() {
            world.values.remove(&gone);
            world.marks.hit(Mark::ValueLost);
        }
    }
    if world.chance.one_in(4) {
        world.edit();
    }
}

fn waiting(core: &Core) -> String {
    let nodes = core.graph().tasks().iter().zip(0..);
    let lines = nodes.filter_map(|(node, at)| {
        let task = TaskId(at);
        let phase = core.phase(task);
        let wait = core.waits_for(task).unwrap_or_default();
        let inputs: Vec<_> =
            node.inputs.iter().map(|f| source_name(&core.graph().file(*f).source)).collect();
        (!phase.is_final()).then(|| format!("{} {phase:?}: {wait} {inputs:?}", node.spec.name))
    });
    lines.collect::<Vec<_>>().join("\n")
}
