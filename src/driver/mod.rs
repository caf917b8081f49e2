//! The driver: one loop that feeds the core with what the edges report and has the edges do what
//! the core asks for. Whatever is remembered is written to the journal before it is acted on.

mod aside;
mod attempt;
mod bound;
mod called;
mod checkpoints;
mod clock;
mod deliver;
mod durable;
mod edges;
mod error;
mod flow;
mod flushing;
mod hold;
mod kept;
mod late;
mod launching;
mod logs;
mod message;
mod observe;
mod open;
mod plan;
mod pool;
mod pools;
mod program;
pub(crate) mod reads;
mod recall;
mod room;
mod saving;
mod script;
mod stage;
mod strays;
mod targets;
mod tools;
mod undeclared;
pub(crate) mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use keelboat_checkpoint::Journal;
use keelboat_engine::core::{Action, Core, Counts, Event, Recall, StageFrom, Urgency};
use keelboat_engine::{
    AttemptId, AttemptOutcome, Content, Fact, Failure, FileId, Memoize, Reuse, RunOutcome, SiteId,
    Stamped, TaskId, TaskName, Timestamp,
};

pub use error::RunError;
pub use observe::{Observer, Start, TransferView, View};
pub(crate) use open::{WARDEN_COMMAND, has_warden, is_unfinished, turn_off_if_warden};
pub use plan::{Plan, Verdict, plan};
pub(crate) use pools::labels_of;
pub use targets::means;

use self::attempt::Attempt;
use self::bound::Bound;
use self::clock::Clock;
use self::durable::Durable;
pub(crate) use self::edges::Edges;
pub(crate) use self::flow::{BegunFlow, begin as begin_flow};
pub(crate) use self::message::Message;
use self::message::Missed;
use self::program::Program;
use crate::flow::pause_until;

/// Events that are taken in before their actions are carried out.
const EVENTS_BATCH_MAX: usize = 4_096;

/// The longest sleep of the loop.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// How often people are shown how things stand.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// What to run, and how.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The workflow file.
    pub workflow: PathBuf,
    /// Parameters set from outside.
    pub set: Vec<(String, String)>,
    /// Tasks, declarations or outputs that are asked for; all when empty.
    pub targets: Vec<String>,
    /// Cores to use; all of the machine when not given.
    pub jobs: Option<u32>,
    /// After a failure, go on with what does not depend on it.
    pub keep_going: bool,
    /// Read the bytes of outputs again rather than believe their metadata.
    pub strict: bool,
    /// Use what the object cache has of remote files, and no network.
    pub offline: bool,
    /// Tasks or declarations to run although they have a result.
    pub force: Vec<String>,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The run's name.
    pub run: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Tasks by state.
    pub counts: Counts,
    /// Reused tasks of which the object cache had to bring back an output.
    pub restored: u64,
    /// Bytes that came over the network.
    pub transferred: u64,
    /// Whether it failed and something had found no room on the disk.
    pub lacked_room: bool,
    /// Time from start to end.
    pub wall: Duration,
}

/// Runs a workflow to its end, or goes on with a run over which an engine died.
pub fn run(options: &RunOptions, observer: &mut dyn Observer) -> Result<Report, RunError> {
    let opened = open::open(options, observer)?;
    let mut driver = Driver::new(opened, observer);
    let result = driver.drive();
    driver.end(result)
}

struct Driver<'a> {
    /// Goes first, so that nobody waits to tell a loop that is gone.
    inbox: Receiver<Message>,
    core: Core,
    program: Program,
    /// Engines that died over this run.
    dead: BTreeSet<u32>,
    edges: Arc<Edges>,
    /// `None`: nothing is remembered.
    journal: Option<Journal>,
    clock: Clock,
    observer: &'a mut dyn Observer,
    attempts: BTreeMap<AttemptId, Arc<Attempt>>,
    /// Those that saved checkpoints and whose outputs are in their places: they go when that is
    /// durable.
    succeeded: BTreeMap<TaskId, Arc<Attempt>>,
    running: BTreeMap<TaskName, Timestamp>,
    durable: Durable,
    bound: Bound,
    transferred: u64,
    restored: u64,
    outcome: Option<RunOutcome>,
    shown: Instant,
    /// Ends with the driver: network and signals.
    _runtime: tokio::runtime::Runtime,
    _lock: keelboat_checkpoint::ProjectLock,
}

impl<'a> Driver<'a> {
    fn new(opened: open::Opened, observer: &'a mut dyn Observer) -> Self {
        Self {
            inbox: opened.inbox,
            core: opened.core,
            program: opened.program,
            dead: opened.dead,
            edges: opened.edges,
            journal: opened.journal,
            clock: opened.clock,
            observer,
            attempts: BTreeMap::new(),
            succeeded: BTreeMap::new(),
            running: BTreeMap::new(),
            durable: Durable::new(opened.durability),
            bound: Bound::default(),
            transferred: 0,
            restored: 0,
            outcome: None,
            shown: Instant::now(),
            _runtime: opened.runtime,
            _lock: opened.lock,
        }
    }

    /// Ends all that is under way, however the run went.
    fn end(mut self, result: Result<RunOutcome, RunError>) -> Result<Report, RunError> {
        self.close();
        let result =
            result.and_then(|outcome| self.program.check_targets(&self.core).map(|()| outcome));
        let report = result.map(|outcome| Report {
            run: self.edges.run.id().to_owned(),
            outcome,
            counts: self.counts(),
            restored: self.restored,
            transferred: self.transferred,
            lacked_room: outcome == RunOutcome::Failed
                && self.edges.lacked_room.load(Ordering::Relaxed),
            wall: self.clock.elapsed(),
        });
        if let Program::Flow(side) = &mut self.program {
            let failure = flow::over(&report);
            self.durable.give_up(&failure);
            side.shut(&failure);
        }
        if self.journal.is_none()
            && let Err(error) = self.edges.run.remove()
        {
            tracing::debug!(%error, "the directory of a run that is not remembered stays");
        }
        self.drop_aside();
        report
    }

    /// All tasks, those that were refused among the failed ones.
    fn counts(&self) -> Counts {
        let counts = self.core.counts();
        let Program::Flow(side) = &self.program else { return counts };
        let refused = side.refused();
        let (total, failed) = (counts.total, counts.failed);
        let (total, failed) = (total.saturating_add(refused), failed.saturating_add(refused));
        Counts { total, failed, ..counts }
    }

    fn drive(&mut self) -> Result<RunOutcome, RunError> {
        let mut actions = Vec::new();
        let now = self.clock.now();
        let pools = self.edges.pools.iter().map(|local| local.pool.clone()).collect();
        self.core.resume(now, &mut actions);
        self.core.step(now, Event::SiteJoined { site: SiteId::HOME, pools }, &mut actions);
        loop {
            self.carry_out(&mut actions)?;
            if let Some(outcome) = self.outcome {
                self.finish()?;
                return Ok(outcome);
            }
            self.make_room(&mut actions)?;
            self.flush_if_due()?;
            self.show_progress();
            self.take_in(&mut actions)?;
        }
    }

    /// Waits for messages and feeds the core with them.
    fn take_in(&mut self, actions: &mut Vec<Action>) -> Result<(), RunError> {
        let next = self.early().map_or_else(|| self.inbox.recv_timeout(self.wait()), Ok);
        match next {
            Ok(message) => self.on_message(message, actions)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(RunError::EdgesGone),
        }
        for _ in 0..EVENTS_BATCH_MAX {
            let Ok(message) = self.inbox.try_recv() else { break };
            self.on_message(message, actions)?;
        }
        self.take_requests(actions);
        let now = self.clock.now();
        if self.core.next_deadline().is_some_and(|due| due <= now) {
            self.core.step(now, Event::TimePassed, actions);
        }
        Ok(())
    }

    /// What comes within a moment: to sleep and to be woken takes longer than a small function.
    fn early(&self) -> Option<Message> {
        let Program::Flow(side) = &self.program else { return None };
        let mut early = None;
        side.set_watched(true);
        pause_until(|| {
            early = self.inbox.try_recv().ok();
            early.is_some() || side.is_awaited()
        });
        let is_awaited = side.set_watched(false);
        early.or_else(|| is_awaited.then_some(Message::Program))
    }

    /// What the program asked for; also when there was no room for a message of it.
    fn take_requests(&mut self, actions: &mut Vec<Action>) {
        let Program::Flow(side) = &mut self.program else { return };
        let taken = side.take_in(&mut self.core, self.clock.now(), &self.edges);
        self.durable.add_places(taken.places);
        self.durable.add_checkpoints(taken.checkpoints);
        actions.extend(taken.actions);
        for event in taken.events {
            self.feed(event, actions);
        }
    }

    fn wait(&self) -> Duration {
        let mut wait = WAIT_MAX;
        if let Some(due) = self.core.next_deadline() {
            wait = wait.min(due.since(self.clock.now()));
        }
        if let Some(due) = self.durable.due_in() {
            wait = wait.min(due);
        }
        if let Some(period) = self.room_period() {
            wait = wait.min(period);
        }
        if self.observer.wants_progress() {
            wait = wait.min(PROGRESS_PERIOD);
        }
        wait
    }

    fn on_message(&mut self, message: Message, actions: &mut Vec<Action>) -> Result<(), RunError> {
        match message {
            Message::Events(events) => {
                for event in events {
                    self.feed(event, actions);
                }
            }
            Message::Missed(missed) => {
                for miss in missed {
                    let event = self.explain(miss);
                    self.feed(event, actions);
                }
            }
            Message::Fetched(fetched, object, room) => {
                let (fact, event) = *fetched;
                self.durable.add_places(vec![object]);
                self.bound.rooms.push(room);
                if let Fact::Fetched { transferred, .. } = &fact {
                    self.transferred += transferred;
                }
                actions.push(Action::Record(fact));
                self.feed(event, actions);
            }
            Message::Published(event, places) => {
                self.durable.add_places(places);
                self.feed(event, actions);
            }
            Message::Flushed(number, result) => {
                result?;
                let seen = self.durable.end(number);
                self.show(seen);
            }
            Message::Stop(urgency) => {
                if urgency == Urgency::Drain {
                    let running = self.running.len();
                    let text = format!(
                        "nothing more is begun; tasks that still run: {running} \
                         (interrupt again to stop them)"
                    );
                    self.observer.warning(&text);
                }
                self.feed(Event::StopRequested { urgency }, actions);
            }
            // Looked at when all messages are taken in.
            Message::Program => {}
            Message::Warning(text) => self.observer.warning(&text),
            Message::Waiting(text) => self.observer.waiting(&text),
        }
        Ok(())
    }

    fn feed(&mut self, mut event: Event, actions: &mut Vec<Action>) {
        if self.is_saved_first(&event) {
            return;
        }
        if room::look(&mut event, &self.edges.project) {
            self.edges.lacked_room.store(true, Ordering::Relaxed);
        }
        if let Event::AttemptEnded(outcome) = &mut event
            && let Some(attempt) = self.attempts.get(&outcome.attempt)
        {
            attempt.explain(outcome, &self.edges);
        }
        if let Program::Flow(side) = &self.program
            && let Some((task, failure)) = failure_in(&mut event)
        {
            side.respond(task, failure);
        }
        if let Event::AttemptEnded(outcome) = &event
            && let Some(attempt) = self.attempts.get(&outcome.attempt)
        {
            self.running.remove(&attempt.name);
            if outcome.result.is_err() {
                self.clear(outcome.attempt);
            }
        }
        self.core.step(self.clock.now(), event, actions);
    }

    /// Why a task has to run, from what it was made of the last time.
    fn explain(&self, miss: Missed) -> Event {
        let Missed { task, key, damage, before } = miss;
        let reasons = recall::reasons(&self.core, task, key, damage, before);
        let verdict = Recall::Miss { reasons };
        Event::Recalled { task, key, verdict }
    }

    /// Writes down all facts, then does the rest.
    fn carry_out(&mut self, actions: &mut Vec<Action>) -> Result<(), RunError> {
        // Carrying out an action can bring further actions: a graph that grows.
        while !actions.is_empty() {
            let at = self.clock.now();
            let mut facts = Vec::new();
            let mut requests = Vec::new();
            for action in actions.drain(..) {
                match action {
                    Action::Record(fact) => facts.push(Stamped { at, fact }),
                    request => requests.push(request),
                }
            }
            self.write_down(facts)?;
            self.request(requests, actions);
        }
        if let Program::Flow(side) = &mut self.program {
            side.line_up(&self.core, self.edges.pools.len());
        }
        Ok(())
    }

    fn write_down(&mut self, facts: Vec<Stamped>) -> Result<(), RunError> {
        if facts.is_empty() {
            return Ok(());
        }
        if let Some(journal) = &mut self.journal {
            journal.append(&facts)?;
        }
        for stamped in &facts {
            if self.edges.remembers {
                self.edges.memo.apply(stamped);
            }
            let restored = matches!(stamped.fact, Fact::Reused { reuse: Reuse::Restored, .. });
            self.restored += u64::from(restored);
        }
        let goes_first = self.durable.goes_first(&facts);
        if goes_first {
            self.durable.add_facts(facts.clone());
            self.flush_now()?;
        }
        if let Program::Flow(side) = &mut self.program {
            side.on_facts(&self.core, &facts, &self.edges);
        }
        if !goes_first {
            self.durable.add_facts(facts);
        }
        Ok(())
    }

    fn request(&mut self, requests: Vec<Action>, actions: &mut Vec<Action>) {
        let mut queries = Vec::new();
        let mut wanted = Vec::new();
        let mut evicted = Vec::new();
        for request in requests {
            match request {
                Action::Stage { file, from, priority, .. } => {
                    wanted.push(stage::Wanted { priority, ..self.wanted(file, from) });
                }
                Action::Evict { file } => evicted.push(file),
                Action::Recall { task, key, known } => {
                    if let Program::Flow(side) = &self.program {
                        side.on_ready(&self.core, task);
                    }
                    let name = self.core.spec(task).name.clone();
                    let takes_failures = self.core.spec(task).options.memoize == Memoize::Failures;
                    queries.push(recall::Query { task, name, key, known, takes_failures });
                }
                Action::Launch { attempt, .. } => self.launch(attempt),
                Action::Kill { attempt } => self.kill(attempt, actions),
                Action::Publish { attempt } => self.publish(attempt, actions),
                Action::Expand { task } => {
                    let event = self.program.expand(&self.core, task, &self.edges);
                    self.feed(event, actions);
                }
                Action::Deliver { task, output, content } => {
                    self.durable.add_delivery(task, output, content);
                }
                Action::Snapshot { attempt } => self.snapshot(attempt),
                Action::ForgetCheckpoints { task } => self.durable.add_forgotten(task),
                Action::Finish { outcome } => self.outcome = Some(outcome),
                Action::Record(_) => unreachable!("facts were written down first"),
            }
        }
        if !evicted.is_empty() {
            self.evict(&evicted);
        }
        if !queries.is_empty() {
            recall::submit(&self.edges, queries);
        }
        if !wanted.is_empty() {
            stage::begin(&self.edges, wanted);
        }
    }

    fn wanted(&self, file: FileId, from: StageFrom) -> stage::Wanted {
        debug_assert_eq!(from, StageFrom::Origin, "there is one site");
        let node = self.core.graph().file(file);
        let (source, priority) = (node.source.clone(), 0);
        stage::Wanted { file, source, kind: node.kind, sha256: node.sha256, priority }
    }

    fn deliver(&self, task: TaskId, output: u32, content: Content) {
        let spec = &self.core.spec(task).outputs[output as usize];
        let Some(address) = spec.deliver_to.clone() else { return };
        let place = self.edges.project.resolve(&spec.path);
        let outgoing = deliver::Outgoing { task, output, place, content, address };
        deliver::begin(&self.edges, outgoing);
    }

    fn show_progress(&mut self) {
        if !self.observer.wants_progress() || self.shown.elapsed() < PROGRESS_PERIOD {
            return;
        }
        self.shown = Instant::now();
        let view = View {
            counts: self.counts(),
            running: &self.running,
            now: self.clock.now(),
            transfers: self.edges.board.view(),
            transferred: self.transferred,
        };
        self.observer.progress(&view);
    }

    /// Nothing can change the outcome any more, but people should still be warned.
    fn empty_inbox(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            if let Message::Warning(text) = message {
                self.observer.warning(&text);
            }
        }
    }

    /// Frees a large graph by a thread of its own, so that nobody waits for that. The lock and the
    /// network end here.
    fn drop_aside(self) {
        let large = (self.core, self.program, self.edges, self.journal);
        let dropping = std::thread::Builder::new().name("drop".to_owned());
        if let Err(error) = dropping.spawn(move || drop(large)) {
            tracing::debug!(%error, "freed at once");
        }
    }

    /// Ends processes and saves what may be saved, however the run ended.
    fn close(&mut self) {
        // The ends of what is still running must find room in the channel.
        while self.inbox.try_recv().is_ok() {}
        self.edges.late.shutdown();
        for error in self.edges.save() {
            self.observer.warning(&error);
        }
    }
}

/// The failure of an attempt that is told of.
fn failure_in(event: &mut Event) -> Option<(TaskId, &mut Failure)> {
    match event {
        Event::AttemptEnded(AttemptOutcome { attempt, result: Err(failure), .. })
        | Event::PublishFailed { attempt, failure } => Some((attempt.task, failure)),
        _ => None,
    }
}
