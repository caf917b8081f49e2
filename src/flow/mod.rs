#![doc = include_str!("guide.md")]

mod argument;
mod board;
mod call;
mod calling;
mod cell;
mod command;
mod config;
mod context;
mod ends;
mod error;
mod events;
mod file;
mod function;
mod future;
mod guard;
mod handle;
mod inbox;
mod join;
mod options;
mod order;
mod outputs;
mod pause;
mod side;
mod spans;
mod sync;
mod tally;
mod text;
mod value;
mod workers;

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

pub use argument::{Argument, Arguments, Awaited, CommandArgument, LateArgument, Plain, Text};
pub use call::FunctionTask;
pub use cell::TaskState;
pub use command::{CommandRun, CommandTask, Readable};
pub use config::{Config, Durability, OnClose, Remember};
pub use context::Context;
pub use error::TaskError;
pub use events::{Events, Lagged};
pub use file::File;
pub use function::{Async, Direct, Function, JoinFunction, TryFunction, Value};
pub use future::{FileFuture, Future};
pub use join::{Completed, all, any, as_completed};
pub use options::Cache;
pub use order::Precedes;
pub use tally::TaskCounts;

pub use crate::driver::{Report, RunError};
pub use keelboat_engine::{
    Exit, Fact, Failure, FailureClass, FailureKind, KeepScratch, Ranks, Response, Shortage,
    Stamped, TaskOptions,
};

#[doc(hidden)]
pub use argument::{CodecErrorOf, Lowering};
#[doc(hidden)]
pub use command::ReadOf;
#[doc(hidden)]
pub use function::{Begun, Call};
#[doc(hidden)]
pub use order::Earlier;

pub(crate) use calling::{Calling, Launch, Occupied, Stage};
pub(crate) use cell::Cell;
pub(crate) use context::Place;
pub(crate) use events::{Board as EventBoard, Watcher};
pub(crate) use function::panicked;
pub(crate) use handle::Handle;
pub(crate) use pause::pause_until;
pub(crate) use side::{Side, TakenIn, UNIT, published};
pub(crate) use spans::Spans;
pub(crate) use workers::Workers;

use crate::driver;
use crate::recent::Recent;
use crate::workflow::free;

/// A workflow that forms as the program goes on.
///
/// Functions and commands become tasks, and each gives a [`Future`] or [`FileFuture`] at once. A task
/// begins when all that it was given is there. Results are remembered: a program that is started
/// again after it was killed goes on where it was.
///
/// ```
/// use keelboat::flow::{Config, Flow, Future};
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
/// fn sum(numbers: Vec<u64>) -> u64 {
///     numbers.iter().sum()
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let flow = Flow::open(Config::new(directory))?;
/// let squares: Vec<Future<u64>> = (1..=3).map(|x| flow.call(square, (x,))).collect();
/// let total = flow.call(sum, (squares,));
/// assert_eq!(total.wait()?, 14);
/// flow.close()?;
/// # Ok(())
/// # }
/// ```
///
/// Clones are the same flow, which ends when all of them are dropped: it waits then for all tasks,
/// unless [`Config::on_drop`] says otherwise. Inside of a function nobody waits: a clone that is
/// dropped there only closes the flow, if it was the last.
#[derive(Clone)]
pub struct Flow(Arc<Open>);

struct Open {
    handle: Handle,
    root: Arc<Path>,
    paths: Arc<free::Project>,
    config: Config,
    build: OnceLock<Arc<str>>,
    start: Arc<str>,
    /// By their names, the functions that were called by no other name.
    functions: Mutex<HashMap<&'static str, TypeId>>,
    /// What very many tasks have alike.
    names: Mutex<Recent<str>>,
    options: Mutex<Recent<TaskOptions>>,
    events: Arc<events::Board>,
    thread: Mutex<Option<JoinHandle<Result<Report, RunError>>>>,
}

impl Flow {
    /// Opens a flow: takes the project directory, and goes on with the run that a program of the
    /// same name has left unfinished.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()).name("harvest"))?;
    /// let second = Flow::open(Config::new(directory.path()));
    /// assert!(second.is_err(), "one at a time");
    /// # drop(flow);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Another engine is at work in the directory, it cannot be written, or `keelboat.toml` in it is
    /// wrong.
    pub fn open(config: Config) -> Result<Self, RunError> {
        let events = Arc::new(events::Board::new());
        let opened = driver::begin_flow(&config, Arc::clone(&events))?;
        let driver::BegunFlow { handle, root, thread } = opened;
        let paths = Arc::new(free::Project::new(&root));
        let (build, thread) = (OnceLock::new(), Mutex::new(Some(thread)));
        let now = std::time::SystemTime::now();
        let start = format!("process {} {now:?}", std::process::id()).into();
        Ok(Self(Arc::new(Open {
            handle,
            root,
            paths,
            config,
            build,
            start,
            functions: Mutex::default(),
            names: Mutex::default(),
            options: Mutex::default(),
            events,
            thread,
        })))
    }

    /// A file or directory that tasks read: a path of the project, or an address.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// # use std::path::PathBuf;
    /// # std::fs::write(directory.path().join("reads.txt"), "acgt")?;
    /// fn length(path: PathBuf) -> std::io::Result<u64> {
    ///     Ok(path.metadata()?.len())
    /// }
    /// let reads = flow.file("reads.txt");
    /// assert_eq!(flow.try_call(length, (reads,)).wait()?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn file(&self, address: &str) -> File {
        File::new(address, &self.0.paths)
    }

    /// What [`keelboat::task`](crate::task) makes: a function whose path in the program is this.
    #[doc(hidden)]
    pub fn task<F: Clone>(&self, function: F, path: &'static str) -> FunctionTask<'_, F> {
        self.function(function).at(path)
    }

    /// Calls a function, now or when its arguments are there, and returns the future of its value.
    ///
    /// It may be `async`. Its arguments are a tuple, with a value, a [`Future`], a [`File`] or a
    /// [`FileFuture`] for each parameter; see [`Argument`]. A panic is a failure of the task. Results
    /// are remembered by the function's name, the program's build (or the
    /// [version](FunctionTask::version)), and the arguments. Of two functions that have one name, as those
    /// in two blocks of one body may, only the first can be called without a
    /// [name](FunctionTask::name) of its own.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// fn add(a: u64, b: u64) -> u64 {
    ///     a + b
    /// }
    /// let three = flow.call(add, (1, 2));
    /// let six = flow.call(add, (&three, 3));
    /// let seven = flow.call(async |x: u64| x + 1, (six,));
    /// assert_eq!(seven.wait()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call<F, P, R, M, A, N>(&self, function: F, arguments: A) -> Future<R>
    where
        F: Function<P, R, M> + Clone,
        R: Value,
        A: Arguments<P, N>,
    {
        self.function(function).call(arguments)
    }

    /// Calls a function that returns a `Result`; an `Err` is a failure of the task.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// fn parse(text: String) -> Result<i64, std::num::ParseIntError> {
    ///     text.trim().parse()
    /// }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// assert_eq!(flow.try_call(parse, ("42",)).wait()?, 42);
    /// let error = flow.try_call(parse, ("many",)).wait().unwrap_err();
    /// assert!(error.to_string().contains("invalid digit"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_call<F, P, R, M, A, N>(&self, function: F, arguments: A) -> Future<R>
    where
        F: TryFunction<P, R, M> + Clone,
        R: Value,
        A: Arguments<P, N>,
    {
        self.function(function).try_call(arguments)
    }

    /// Calls a function that submits further tasks and returns the future of one of them, whose value
    /// becomes its own: for recursion, loops until something holds, and lists known only at run time.
    /// While it waits for that task it holds no slot.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// fn fib(flow: &Flow, n: u64) -> keelboat::flow::Future<u64> {
    ///     let own = flow.clone();
    ///     let step = move |n: u64| match n {
    ///         0 | 1 => own.call(|n: u64| n, (n,)),
    ///         _ => own.call(|a: u64, b: u64| a + b, (fib(&own, n - 1), fib(&own, n - 2))),
    ///     };
    ///     flow.join(step, (n,))
    /// }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// assert_eq!(fib(&flow, 7).wait()?, 13);
    /// # Ok(())
    /// # }
    /// ```
    pub fn join<F, P, R, M, A, N>(&self, function: F, arguments: A) -> Future<R>
    where
        F: JoinFunction<P, R, M> + Clone,
        R: Value,
        A: Arguments<P, N>,
    {
        self.function(function).join(arguments)
    }

    /// A function to be called with options: a name, a version, cores, retries.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// fn length(text: String) -> usize {
    ///     text.len()
    /// }
    /// let length = flow.function(length).version("1").retries(2);
    /// assert_eq!(length.call(("reads",)).wait()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn function<F: Clone>(&self, function: F) -> FunctionTask<'_, F> {
        FunctionTask::new(self, function)
    }

    /// A script for the shell, which sees its inputs and outputs as in a workflow file.
    ///
    /// The program has to begin with [`init`](crate::init) for commands to run.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let sorted = flow
    ///     .command("sort {{ inputs.words }} | uniq > {{ outputs.sorted }}")
    ///     .input("words", "words.txt")
    ///     .output("sorted", "sorted.txt")
    ///     .submit();
    /// println!("{}", sorted.output("sorted").wait()?.display());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn command(&self, script: &str) -> CommandTask<'_> {
        CommandTask::script(self, script)
    }

    /// A program and its arguments, without a shell.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let copied = flow
    ///     .program(["cp", "{{ inputs.from }}", "{{ outputs.to }}"])
    ///     .input("from", "https://host/reads.fq.gz")
    ///     .output("to", "reads.fq.gz")
    ///     .submit();
    /// copied.done().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn program<W: Into<String>>(&self, argv: impl IntoIterator<Item = W>) -> CommandTask<'_> {
        CommandTask::argv(self, argv.into_iter().map(Into::into).collect())
    }

    /// How many tasks are in which state, for displays of progress: at the price of a lock, as often as
    /// wanted.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// flow.call(|x: u64| x, (1,)).wait()?;
    /// let counts = flow.counts();
    /// println!("{} done, {} running, {} to do", counts.done, counts.running, counts.waiting + counts.ready);
    /// assert_eq!((counts.total, counts.ended()), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn counts(&self) -> TaskCounts {
        self.0.handle.tally().counts()
    }

    /// Has all that is done be made to last, and gives a future that is there when it is: then no loss of
    /// power makes any of it run again. See [`Durability`] for when that happens by itself.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Durability, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()).durability(Durability::AtClose))?;
    /// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
    /// flow.checkpoint().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint(&self) -> Future<()> {
        let cell = Cell::new();
        cell.set_name("a checkpoint of the flow".into());
        if !self.0.handle.tell(handle::Request::Checkpoint(Arc::clone(&cell))) {
            cell.end(Err(TaskError::failed(&cell.name(), handle::closed())));
        }
        Future::new(cell, self.0.handle.clone())
    }

    /// What happens from now on, for whoever wants to watch.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Fact, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let events = flow.events();
    /// flow.call(|| 1, ()).wait()?;
    /// flow.close()?;
    /// let mut completed = 0;
    /// while let Some(event) = events.wait_next() {
    ///     completed += u32::from(matches!(event?.fact, Fact::Completed { .. }));
    /// }
    /// assert_eq!(completed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn events(&self) -> Events {
        self.0.events.subscribe()
    }

    /// Waits for all tasks, and ends the flow. Submitting to what is left of it (by clones) gives
    /// futures that fail.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// flow.call(|x: u64| x, (1,));
    /// let report = flow.close()?;
    /// assert_eq!(report.counts.completed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The engine could not go on: the journal cannot be written. That tasks have failed is none: the
    /// report tells of it.
    pub fn close(self) -> Result<Report, RunError> {
        self.close_by(OnClose::Wait)
    }

    /// Ends the flow in this way.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, OnClose};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let endless = flow.call(async || std::future::pending::<u64>().await, ());
    /// flow.close_by(OnClose::Cancel)?;
    /// assert!(endless.wait().unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_by(self, how: OnClose) -> Result<Report, RunError> {
        self.0.handle.tell(handle::Request::Close(how));
        if self.0.handle.is_inside() {
            return Err(RunError::Inside);
        }
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread.map(JoinHandle::join) {
            Some(Ok(report)) => report,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(RunError::EdgesGone),
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    pub(crate) fn root(&self) -> Arc<Path> {
        Arc::clone(&self.0.root)
    }

    pub(crate) fn paths(&self) -> &free::Project {
        &self.0.paths
    }

    /// What the configuration says where a task does not.
    pub(crate) fn keeps_scratch(&self) -> KeepScratch {
        self.0.config.keep_scratch
    }

    pub(crate) fn remembers(&self) -> bool {
        self.0.config.remember == Remember::All
    }

    /// Whether no other function than this one was called that has this name.
    pub(crate) fn is_only(&self, name: &'static str, function: TypeId) -> bool {
        let mut functions = self.0.functions.lock().unwrap_or_else(PoisonError::into_inner);
        *functions.entry(name).or_insert(function) == function
    }

    /// The name of a function, which takes room once for all its calls.
    pub(crate) fn share_name(&self, name: String) -> Arc<str> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner).shared(name)
    }

    /// What is said of a task, which takes room once for all of which the same is said.
    pub(crate) fn share_options(&self, options: TaskOptions) -> Arc<TaskOptions> {
        self.0.options.lock().unwrap_or_else(PoisonError::into_inner).shared(options)
    }

    /// What functions without a version are told apart by: the program's own file.
    pub(crate) fn build(&self) -> Arc<str> {
        let build = self.0.build.get_or_init(|| {
            let own = std::env::current_exe().ok();
            let digest = own.and_then(|own| {
                let kind = keelboat_engine::Kind::File;
                let forgetful = &keelboat_staging::Forgetful;
                keelboat_staging::digest_path(&own, kind, forgetful, false).ok()
            });
            // Of a program that cannot be read nothing is known: each start of it is another one.
            let unknown = || Arc::clone(&self.0.start);
            digest.map_or_else(unknown, |content| format!("build {}", content.digest).into())
        });
        Arc::clone(build)
    }

    /// What functions without a name are told apart by from those of other starts of the program,
    /// also where the run goes on that such a start left.
    pub(crate) fn start(&self) -> Arc<str> {
        Arc::clone(&self.0.start)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A program that panics has no use for what it would wait for.
        let how = if std::thread::panicking() { OnClose::Cancel } else { self.config.on_drop };
        self.handle.tell(handle::Request::Close(how));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.handle.is_inside() {
            return;
        }
        match thread.map(JoinHandle::join) {
            Some(Ok(Err(error))) => tracing::error!(%error, "a flow ended badly"),
            Some(Err(_)) => tracing::error!("a flow ended by a fault of Keelboat"),
            Some(Ok(Ok(_))) | None => {}
        }
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("directory", &self.0.root).finish_non_exhaustive()
    }
}
