//! Runs of programs: a thread with the loop, which lives as long as the flow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use keelboat_engine::core::{Core, History, Options};
use keelboat_engine::{Digest, Digester, Failure, FailureClass};
use keelboat_executors::LocalConfig;
use keelboat_staging::StagingConfig;

use super::hold::Held;
use super::late::Late;
use super::observe::{Observer as _, Start};
use super::open::{self, Identity, Manner, Opened};
use super::pools::{self, LocalPool};
use super::program::Program;
use super::tools::Tools;
use super::{Driver, Report, RunError};
use crate::flow::{Config, EventBoard, Handle, Remember, Side, Spans, Watcher, Workers, panicked};
use crate::project::Project;
use crate::settings::Settings;

/// Threads for functions at most, however many cores the pools are said to have.
const THREADS_MAX: usize = 1024;

/// Short functions that are launched ahead, for each core: enough for the loop to be woken once for
/// many of them.
const AHEAD_PER_CORE: u32 = 16;

/// So many calls of a function in a row have to be short before that.
const AHEAD_AFTER: u32 = 32;

/// A flow whose loop runs.
pub(crate) struct BegunFlow {
    pub(crate) handle: Handle,
    pub(crate) root: Arc<Path>,
    pub(crate) thread: JoinHandle<Result<Report, RunError>>,
}

/// Begins the loop of a flow by a thread of its own.
pub(crate) fn begin(config: &Config, board: Arc<EventBoard>) -> Result<BegunFlow, RunError> {
    let mut watcher = Watcher(board);
    let (opened, handle, root) = open(config, &mut watcher)?;
    let thread = std::thread::Builder::new().name("flow".to_owned());
    let own = handle.clone();
    let thread = thread.spawn(move || {
        own.enter_loop();
        let mut driver = Driver::new(opened, &mut watcher);
        // Whoever waits is told, whatever happens here.
        let result = catch_unwind(AssertUnwindSafe(|| driver.drive()));
        let result = result.unwrap_or_else(|panic| {
            let told = panicked(&*panic).cause;
            Err(RunError::Panicked(told))
        });
        driver.end(result)
    });
    let thread = thread.map_err(RunError::setup("start the thread of the flow"))?;
    Ok(BegunFlow { handle, root, thread })
}

fn open(config: &Config, watcher: &mut Watcher) -> Result<(Opened, Handle, Arc<Path>), RunError> {
    let root = std::path::absolute(&config.directory)
        .map_err(RunError::setup(format!("find {}", config.directory.display())))?;
    std::fs::create_dir_all(&root).map_err(RunError::setup(format!("make {}", root.display())))?;
    let project = Project::at(&root);
    let token = open::new_token();
    let settings = Settings::load(Some(&root))?;
    let (lock, mut remembered) = Held::take(&project, &token, watcher)?.remembered()?;
    let plan = identity(&config.name);
    let remembers = config.remember == Remember::All;
    let last = remembered.last.take().filter(|_| remembers);
    let (run, earlier) = open::choose_run(&project, last, plan, watcher);
    let make = |history: History, seed| Ok(Core::new(Vec::new(), history, options(seed))?);
    let identity = Identity { name: &config.name, file: "", plan, remembers };
    let begun = open::begin(&identity, (run, earlier), make)?;
    open::report_damage(&begun.recovered, watcher);
    if remembers {
        remembered.memo.apply(&begun.started);
    }
    let (run, workflow, resumed) = (begun.run.id(), &*config.name, begun.resumed);
    watcher.started(&Start { run, workflow, resumed, tasks: 0 });
    let pools = for_functions(pools::pools(&settings, config.cores, project.root()));
    let manner = Manner { pools, strict: config.strict, remembers };
    let (messages, inbox) = sync_channel(open::MESSAGES_MAX);
    let handle = Handle::new(messages.clone());
    let workers = Workers::start(threads(&manner), manner.pools.len(), &handle)
        .map_err(RunError::setup("start threads for functions"))?;
    let warden = open::warden()?;
    let own = handle.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(manner.threads().max(2))
        .thread_name("network")
        .on_thread_start(move || own.enter())
        .enable_all()
        .build()
        .map_err(RunError::setup("start the network threads"))?;
    let staging = StagingConfig {
        offline: config.offline,
        strict: config.strict,
        ..settings.staging(project.partial())
    };
    let tools = Tools::new(&settings, &token);
    let late = Late::new(staging, LocalConfig { warden, token }, tools);
    let place = (project, begun.run, &*config.name);
    let edges = match open::connect(manner, place, remembered, late, (&runtime, messages)) {
        Ok(edges) => edges,
        Err(error) => {
            // Whoever opens it may be within a runtime, where none can be waited for.
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let spans = Spans::new(&config.name, edges.run.id());
    let opened = Opened {
        core: begun.core,
        program: Program::Flow(Box::new(Side::new(handle.clone(), workers, spans))),
        dead: open::dead_engines(&begun.recovered),
        edges: Arc::new(edges),
        journal: begun.journal,
        clock: begun.clock,
        durability: config.durability.unwrap_or_else(|| settings.durability()),
        inbox,
        runtime,
        lock,
    };
    Ok((opened, handle, root.into()))
}

/// Of a run whose tasks come while it goes on.
fn options(seed: u64) -> Options {
    let ahead_after = AHEAD_AFTER;
    Options { keep_going: true, open: true, seed, ahead_after, ..Options::default() }
}

/// Functions go wherever commands go.
fn for_functions(mut pools: Vec<LocalPool>) -> Vec<LocalPool> {
    for local in &mut pools {
        local.pool.only = None;
        local.pool.ahead = local.pool.capacity.cores.saturating_mul(AHEAD_PER_CORE);
    }
    pools
}

/// Threads for functions. Tasks that ask for several cores need fewer; what sleeps costs little.
fn threads(manner: &Manner) -> usize {
    let cores = manner.pools.iter().map(|local| u64::from(local.pool.capacity.cores)).sum::<u64>();
    usize::try_from(cores).unwrap_or(usize::MAX).min(THREADS_MAX)
}

/// A run is taken up again by a program whose flow has the same name.
fn identity(name: &str) -> Digest {
    let mut digester = Digester::new();
    digester.update(b"flow\0");
    digester.update(name.as_bytes());
    digester.finish()
}

/// What futures are told that are not over when the run is.
pub(super) fn over(report: &Result<Report, RunError>) -> Failure {
    match report {
        Ok(_) => Failure::new(FailureClass::Permanent, "it was cancelled")
            .with_hint("the flow was closed before the task was done"),
        Err(error) => {
            let cause = format!("the engine could not go on: {error}");
            let failure = Failure::new(FailureClass::InfrastructureLost, cause);
            match error.hint() {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            }
        }
    }
}
