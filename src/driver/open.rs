//! From options to a run: the workflow, the lock, what an earlier engine left, and the edges.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use keelboat_checkpoint::{Journal, ObjectCache, ProjectLock, Recovered, host_name};
use keelboat_engine::core::{Core, GraphError, History, Options as CoreOptions, Urgency};
use keelboat_engine::{Digest, Digester, Fact, RunOutcome, Stamped, TaskSpec};
use keelboat_executors::{LocalConfig, WardenCommand};
use keelboat_staging::{Recycler, StagingConfig};

use super::checkpoints::Checkpoints;
use super::clock::Clock;
use super::edges::{Edges, tell};
use super::hold::{Held, Remembered};
use super::late::Late;
use super::logs::Logs;
use super::message::Message;
use super::observe::{Board, Observer, Start};
use super::pools::{self, LOCAL, LocalPool};
use super::program::{FromFile, Program};
use super::tools::Tools;
use super::{RunError, RunOptions, targets};
use crate::flow::Durability;
use crate::project::{Project, RunDir};
use crate::settings::Settings;
use crate::workflow::{LoadOptions, Workflow};

/// Messages that wait for the loop; an edge that has more waits itself.
pub(super) const MESSAGES_MAX: usize = 1_024;

/// The hidden subcommand under which this program is its own warden.
pub(crate) const WARDEN_COMMAND: &str = "kb-warden";

pub(super) struct Opened {
    pub(super) core: Core,
    pub(super) program: Program,
    /// Process ids of the engines that died over this run.
    pub(super) dead: BTreeSet<u32>,
    pub(super) edges: Arc<Edges>,
    pub(super) journal: Option<Journal>,
    pub(super) clock: Clock,
    pub(super) durability: Durability,
    pub(super) inbox: Receiver<Message>,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) lock: ProjectLock,
}

pub(super) fn open(options: &RunOptions, observer: &mut dyn Observer) -> Result<Opened, RunError> {
    let project = Project::of_workflow(&options.workflow)
        .map_err(RunError::setup("find the directory of the workflow file"))?;
    let token = new_token();
    let settings = Settings::load(Some(project.root()))?;
    // A project that was never run gets no state directory before its workflow is understood.
    let known = project.state().is_dir();
    let early = known.then(|| Held::take(&project, &token, observer)).transpose()?;
    let (workflow, tasks) = load(options, &project, &settings)?;
    for problem in workflow.warnings() {
        observer.warning(&problem.located());
    }
    let held = match early {
        Some(held) => held,
        None => Held::take(&project, &token, observer)?,
    };
    let pools = pools::pools(&settings, options.jobs, project.root());
    warn_of_odd_tasks(&workflow, &tasks, &pools, observer);
    let plan = plan_identity(&workflow, options);
    let (lock, mut remembered) = held.remembered()?;
    let (run, earlier) = choose_run(&project, remembered.last.take(), plan, observer);
    let core_options = CoreOptions { keep_going: options.keep_going, ..CoreOptions::default() };
    let make =
        |history, seed| core(&workflow, tasks, history, CoreOptions { seed, ..core_options });
    let file = options.workflow.file_name().unwrap_or_default().to_string_lossy();
    let identity = Identity { name: workflow.name(), file: &file, plan, remembers: true };
    let begun = begin(&identity, (run, earlier), make)?;
    report_damage(&begun.recovered, observer);
    remembered.memo.apply(&begun.started);
    observer.started(&Start {
        run: begun.run.id(),
        workflow: workflow.name(),
        resumed: begun.resumed,
        tasks: begun.core.counts().total,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("network")
        .enable_all()
        .build()
        .map_err(RunError::setup("start the network threads"))?;
    let (messages, inbox) = sync_channel(MESSAGES_MAX);
    watch_signals(&runtime, messages.clone());
    let staging = StagingConfig {
        offline: options.offline,
        strict: options.strict,
        ..settings.staging(project.partial())
    };
    let tools = Tools::new(&settings, &token);
    let late = Late::new(staging, LocalConfig { warden: warden()?, token }, tools);
    let manner = Manner { pools, strict: options.strict, remembers: true };
    let place = (project, begun.run, workflow.name());
    let edges = connect(manner, place, remembered, late, (&runtime, messages))?;
    let (targets, force) = (options.targets.clone(), options.force.clone());
    Ok(Opened {
        core: begun.core,
        program: Program::File(Box::new(FromFile { workflow, targets, force })),
        dead: dead_engines(&begun.recovered),
        edges: Arc::new(edges),
        journal: begun.journal,
        clock: begun.clock,
        durability: settings.durability(),
        inbox,
        runtime,
        lock,
    })
}

/// What is no mistake, and yet hardly meant.
fn warn_of_odd_tasks(
    workflow: &Workflow,
    tasks: &[TaskSpec],
    pools: &[LocalPool],
    observer: &mut dyn Observer,
) {
    if tasks.is_empty() && workflow.is_complete() {
        observer.warning("the workflow has no tasks: there is nothing to do");
    }
    let cores = |task: &TaskSpec| {
        let may = |pool: &&LocalPool| {
            let label = &pool.pool.label;
            task.options.executors.contains(label)
                || task.options.executors.is_empty() && **label == *LOCAL
        };
        pools.iter().filter(may).map(|local| local.pool.capacity.cores).max().unwrap_or(u32::MAX)
    };
    let mut larger = tasks.iter().filter(|task| task.options.resources.cores > cores(task));
    if let Some(first) = larger.next() {
        let cores = cores(first);
        let others = larger.count();
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        observer.warning(&format!(
            "{}{more} asks for {} cores, and {cores} may be used: it runs alone, on {cores}",
            first.name, first.options.resources.cores
        ));
    }
}

/// A run with its journal open and the core at the point where the journal ends.
pub(super) struct Begun {
    pub(super) run: RunDir,
    /// `None`: nothing is remembered.
    pub(super) journal: Option<Journal>,
    pub(super) core: Core,
    pub(super) clock: Clock,
    pub(super) started: Stamped,
    pub(super) resumed: bool,
    pub(super) recovered: Recovered,
}

/// What a run is known by.
pub(super) struct Identity<'a> {
    pub(super) name: &'a str,
    /// The workflow file.
    pub(super) file: &'a str,
    /// What must be the same for it to be taken up again.
    pub(super) plan: Digest,
    /// Whether anything of it is remembered.
    pub(super) remembers: bool,
}

/// Begins a run.
pub(super) fn begin(
    identity: &Identity<'_>,
    (run, earlier): (RunDir, Option<Recovered>),
    make: impl FnOnce(History, u64) -> Result<Core, RunError>,
) -> Result<Begun, RunError> {
    let resumed = earlier.is_some();
    let facts = earlier.map(|recovered| recovered.facts).unwrap_or_default();
    let mut history = History::default();
    for stamped in &facts {
        history.apply(&stamped.fact);
    }
    let clock = Clock::start(facts.last().map(|last| last.at).unwrap_or_default());
    // A graph that cannot be is found out before there is a run of it.
    let core = make(history, clock.now().0)?;

    run.prepare().map_err(RunError::setup(format!("make a directory for run {}", run.id())))?;
    let fact = Fact::EngineStarted {
        pid: std::process::id(),
        host: host_name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        workflow: identity.name.to_owned(),
        plan: identity.plan,
        file: identity.file.to_owned(),
    };
    let started = Stamped { at: clock.now(), fact };
    let mut recovered = Recovered::default();
    let mut journal = None;
    if identity.remembers {
        let (mut opened, found) = Journal::create_or_open(&run.journal())?;
        opened.append(std::slice::from_ref(&started))?;
        (journal, recovered) = (Some(opened), found);
    }
    Ok(Begun { run, journal, core, clock, started, resumed, recovered })
}

/// How a run works.
pub(super) struct Manner {
    /// The slots of this machine, those of most tasks first.
    pub(super) pools: Vec<LocalPool>,
    pub(super) strict: bool,
    pub(super) remembers: bool,
}

impl Manner {
    /// Cores of the pool that most tasks run in.
    pub(super) fn threads(&self) -> usize {
        let cores = self.pools.first().map_or(1, |local| local.pool.capacity.cores);
        usize::try_from(cores).unwrap_or(1)
    }
}

pub(super) fn connect(
    manner: Manner,
    (project, run, workflow): (Project, RunDir, &str),
    Remembered { memo, digests, .. }: Remembered,
    late: Late,
    (runtime, messages): (&tokio::runtime::Runtime, SyncSender<Message>),
) -> Result<Edges, RunError> {
    let threads = manner.threads();
    let recycler = Recycler::new(project.scratch());
    let checkpoints = Checkpoints::open(&project, workflow, Arc::clone(&digests));
    Ok(Edges {
        checkpoints: checkpoints.map_err(RunError::setup("start a thread"))?,
        memo,
        objects: ObjectCache::open(&project.state(), Arc::clone(&digests))?,
        digests,
        scratch: recycler.map_err(|error| RunError::Scratch(error.into()))?,
        logs: Logs::new(run.clone()),
        late,
        pool: super::pool::Pool::start(threads.clamp(2, 16))
            .map_err(RunError::setup("start threads for file work"))?,
        runtime: runtime.handle().clone(),
        board: Arc::new(Board::default()),
        threads,
        pools: manner.pools,
        remembers: manner.remembers,
        strict: manner.strict,
        run,
        messages,
        project,
        lacked_room: AtomicBool::new(false),
    })
}

/// The workflow and its tasks, those that are asked for.
pub(crate) fn load(
    options: &RunOptions,
    project: &Project,
    settings: &Settings,
) -> Result<(Workflow, Vec<TaskSpec>), RunError> {
    let load = LoadOptions {
        set: options.set.clone(),
        project_dir: project.root().to_path_buf(),
        executors: pools::labels(settings),
    };
    let mut workflow = Workflow::load(&options.workflow, &load)?;
    let mut tasks = workflow.take_tasks();
    let unknown_yet = |name: &str| {
        workflow.declarations().any(|family| family.name == name && family.tasks.is_none())
    };
    let mut generators = false;
    for target in options.targets.iter().chain(&options.force) {
        if tasks.iter().any(|task| targets::means(target, task)) {
            continue;
        }
        let declaration = target.split('[').next().unwrap_or_default();
        // What will be there is known at the end; then it is looked at again.
        let may_come =
            unknown_yet(declaration) || (!workflow.is_complete() && target.contains(['/', '.']));
        if !may_come {
            return Err(unknown_target(&workflow, &tasks, target));
        }
        generators = true;
    }
    targets::force(&mut tasks, &options.force);
    Ok((workflow, targets::select(tasks, &options.targets, generators)))
}

pub(super) fn unknown_target(workflow: &Workflow, tasks: &[TaskSpec], target: &str) -> RunError {
    let declaration = target.split('[').next().unwrap_or_default();
    let instances = tasks.iter().map(|task| task.name.as_ref());
    let instances = instances.filter(|name| name.split('[').next() == Some(declaration));
    let nearest = crate::workflow::near::nearest(target, instances).map(ToOwned::to_owned);
    let nearest = nearest.or_else(|| workflow.nearest(target));
    RunError::UnknownTarget { target: target.to_owned(), nearest }
}

/// The core of these tasks, when they make a graph.
pub(super) fn core(
    workflow: &Workflow,
    tasks: Vec<TaskSpec>,
    history: History,
    options: CoreOptions,
) -> Result<Core, RunError> {
    Core::new(tasks, history, options).map_err(|error| match error {
        GraphError::Cycle { tasks } => workflow.circle(&tasks).into(),
        other => other.into(),
    })
}

/// What must be the same for a run to be taken up again: the workflow and what is asked of it.
fn plan_identity(workflow: &Workflow, options: &RunOptions) -> Digest {
    let mut digester = Digester::new();
    digester.update(workflow.identity().as_bytes());
    for list in [&options.targets, &options.force] {
        digester.update(&(list.len() as u64).to_le_bytes());
        for text in list {
            digester.update(Digest::of(text.as_bytes()).as_bytes());
        }
    }
    digester.finish()
}

/// What the processes of an engine are known by. Who ends kills all that carry its token, so no two
/// engines may have one: neither of two processes with one number, nor of one process in one moment.
pub(super) fn new_token() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let moment = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("kb-{}-{moment}-{number}", std::process::id())
}

/// Process ids of the engines that were at this run before.
pub(super) fn dead_engines(recovered: &Recovered) -> BTreeSet<u32> {
    let pids = recovered.facts.iter().filter_map(|stamped| match &stamped.fact {
        Fact::EngineStarted { pid, .. } => Some(*pid),
        _ => None,
    });
    pids.filter(|pid| *pid != std::process::id()).collect()
}

/// The newest run and what happened in it, when an engine died over just this plan or was stopped;
/// otherwise a new one.
pub(super) fn choose_run(
    project: &Project,
    last: Option<(RunDir, Recovered)>,
    plan: Digest,
    observer: &mut dyn Observer,
) -> (RunDir, Option<Recovered>) {
    if let Some((run, recovered)) = last {
        let same = recovered.facts.iter().rev().find_map(|stamped| match &stamped.fact {
            Fact::EngineStarted { plan: before, .. } => Some(*before == plan),
            _ => None,
        });
        if same == Some(true) && is_unfinished(&recovered) {
            return (run, Some(recovered));
        }
        // Of a journal that is taken up again this is told when it is opened for writing.
        for damage in &recovered.damaged {
            observer.warning(&format!("the journal of run {} has a {damage}", run.id()));
        }
    }
    (project.new_run(&jiff::Zoned::now()), None)
}

/// Whether a run died, or was stopped: its last engine did not come to the end of it.
pub(crate) fn is_unfinished(recovered: &Recovered) -> bool {
    let end = recovered.facts.iter().rev().find_map(|stamped| match stamped.fact {
        Fact::RunEnded { outcome } => Some(outcome == RunOutcome::Cancelled),
        Fact::EngineStarted { .. } => Some(true),
        _ => None,
    });
    end.unwrap_or(false)
}

pub(super) fn report_damage(recovered: &Recovered, observer: &mut dyn Observer) {
    if let Some(torn) = &recovered.torn {
        observer.warning(&format!(
            "the journal ended in the middle of a record: {} bytes at offset {} were cut off",
            torn.bytes, torn.offset
        ));
    }
    for damage in &recovered.damaged {
        observer
            .warning(&format!("the journal is damaged and what is damaged is not used: {damage}"));
    }
}

/// Whether this program turns off when it is started as a warden.
static TURNS_OFF: AtomicBool = AtomicBool::new(false);

/// Becomes the warden, and never returns, when this process was started as one.
pub(crate) fn turn_off_if_warden() {
    TURNS_OFF.store(true, Ordering::Relaxed);
    if std::env::args_os().nth(1).is_some_and(|first| first == WARDEN_COMMAND) {
        let code = i32::from(!keelboat_executors::warden());
        #[expect(clippy::exit, reason = "the program's own `main` must not go on")]
        std::process::exit(code);
    }
}

/// Whether commands can be run by a program that is not `keelboat` itself.
pub(crate) fn has_warden() -> bool {
    TURNS_OFF.load(Ordering::Relaxed) || std::env::var_os("KEELBOAT_WARDEN").is_some()
}

pub(super) fn warden() -> Result<WardenCommand, RunError> {
    let program = match std::env::var_os("KEELBOAT_WARDEN") {
        Some(program) => return Ok(WardenCommand { program: program.into(), args: Vec::new() }),
        None => std::env::current_exe().map_err(RunError::setup("find this program's own file"))?,
    };
    Ok(WardenCommand { program, args: vec![WARDEN_COMMAND.into()] })
}

/// First an interrupt drains, then it stops; a termination stops at once.
fn watch_signals(runtime: &tokio::runtime::Runtime, messages: SyncSender<Message>) {
    use tokio::signal::unix::{SignalKind, signal};
    runtime.spawn(async move {
        let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            tell(&messages, Message::Warning("signals cannot be caught".to_owned()));
            return;
        };
        let mut urgency = Urgency::Drain;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => urgency = Urgency::Now,
            }
            tell(&messages, Message::Stop(urgency));
            urgency = Urgency::Now;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_of_one_moment_have_tokens_of_their_own() {
        let tokens: BTreeSet<String> = (0..1000).map(|_| new_token()).collect();
        assert_eq!(tokens.len(), 1000);
    }
}
