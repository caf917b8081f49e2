//! Futures: values and files that will be there.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::cell::{Cell, Ended, TaskState};
use super::error::TaskError;
use super::handle::Handle;
use super::outputs::output_of;
use super::pause::pause_until;
use super::value::{self, Step};

/// The value that a task will have. Cheap to clone; await it in any runtime, or [`wait`](Self::wait)
/// for it in blocking code.
///
/// Pass it as an argument to [`Flow::call`](super::Flow::call) without waiting: that call then runs
/// when the value is there. A future that is dropped does not end its task.
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let three = flow.call(|x: u64| x + 1, (2,));
/// let six = flow.call(|x: u64| x * 2, (&three,));
/// assert_eq!(six.wait()?, 6);
/// assert_eq!(three.wait()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Future<T> {
    cell: Arc<Cell>,
    steps: Arc<[Step]>,
    handle: Handle,
    of: PhantomData<fn() -> T>,
}

impl<T> Future<T> {
    pub(crate) fn new(cell: Arc<Cell>, handle: Handle) -> Self {
        Self { cell, steps: Arc::default(), handle, of: PhantomData }
    }

    pub(crate) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn steps(&self) -> &Arc<[Step]> {
        &self.steps
    }

    /// Where its task stands.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, TaskState};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let one = flow.call(|| 1, ());
    /// one.wait()?;
    /// assert_eq!(one.state(), TaskState::Done);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn state(&self) -> TaskState {
        self.cell.state()
    }

    /// The name of its task, as it stands in logs and errors.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let one = flow.function(|| 1).name("one").call(());
    /// one.wait()?;
    /// assert!(one.task().starts_with("one["));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task(&self) -> Arc<str> {
        self.cell.name()
    }

    /// Says that nobody wants the value any more. The task ends as cancelled, unless it is done;
    /// those that need it do not run.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let endless = flow.call(async || std::future::pending::<u64>().await, ());
    /// let next = flow.call(|x: u64| x, (&endless,));
    /// endless.cancel();
    /// assert!(next.wait().unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) {
        self.handle.cancel(&self.cell);
    }

    /// The output of its task with this label; the first one, if several have it.
    ///
    /// One that was not declared is a future that fails.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// fn greet(context: Context, whom: String) -> std::io::Result<()> {
    ///     std::fs::write(context.output("letter")?, format!("Dear {whom},\n"))
    /// }
    /// let greeted = flow.function(greet).output("letter", "letter.txt").try_call(("Ada",));
    /// assert_eq!(std::fs::read_to_string(greeted.output("letter").wait()?)?, "Dear Ada,\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn output(&self, label: &str) -> FileFuture {
        output_of(&self.cell, label, &self.handle)
    }

    /// A field of the value: of a struct, or of a map with texts as keys. Does not wait; what is not
    /// there is an error of whoever asks for it.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, Future};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// # use std::collections::BTreeMap;
    /// let scores = flow.call(|| BTreeMap::from([("ada".to_owned(), 3), ("grace".to_owned(), 4)]), ());
    /// let ada: Future<u64> = scores.field("ada");
    /// assert_eq!(ada.wait()?, 3);
    /// assert!(scores.field::<u64>("alan").wait().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn field<U>(&self, name: &str) -> Future<U> {
        self.part(Step::Field(name.into()))
    }

    /// An item of the value, which is a list or a tuple, from 0. Does not wait.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, Future};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let pair = flow.call(|| (7, "seven".to_owned()), ());
    /// let name: Future<String> = pair.index(1);
    /// assert_eq!(name.wait()?, "seven");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn index<U>(&self, index: usize) -> Future<U> {
        self.part(Step::Index(index))
    }

    fn part<U>(&self, step: Step) -> Future<U> {
        Future {
            cell: Arc::clone(&self.cell),
            steps: self.steps.iter().cloned().chain([step]).collect(),
            handle: self.handle.clone(),
            of: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Future<T> {
    /// The value, if it is there; `None`: not yet.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let future = flow.call(|| 1, ());
    /// match future.try_get() {
    ///     Some(result) => println!("it is {}", result?),
    ///     None => println!("not yet"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_get(&self) -> Option<Result<T, TaskError>> {
        self.cell.ended().map(|ended| self.read(&ended))
    }

    /// Blocks until the value is there. Not for code that runs in an async runtime.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The task has no value.
    pub fn wait(&self) -> Result<T, TaskError> {
        let found = block(None, |waker| self.poll_inside(waker));
        self.read(&found.unwrap_or_else(|| Err(self.odd("it never ended"))))
    }

    /// Blocks until the value is there, at most for so long; `None`: it was not. The task goes on.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// # use std::time::Duration;
    /// let endless = flow.call(async || std::future::pending::<u64>().await, ());
    /// assert!(endless.wait_for(Duration::from_millis(5)).is_none());
    /// endless.cancel();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for(&self, span: Duration) -> Option<Result<T, TaskError>> {
        let found = block(Instant::now().checked_add(span), |waker| self.poll_inside(waker));
        found.map(|ended| self.read(&ended))
    }

    /// How it ended, or that it cannot be waited for here.
    fn poll_inside(&self, waker: &Waker) -> Option<Ended> {
        let found = self.cell.poll(waker);
        found.or_else(|| self.handle.cannot_wait(&self.cell.name()).map(Err))
    }

    fn read(&self, ended: &Ended) -> Result<T, TaskError> {
        let bytes = ended.as_ref().map_err(Clone::clone)?;
        let part = value::part(bytes, &self.steps);
        part.and_then(value::decode).map_err(|error| self.odd(error))
    }

    fn odd(&self, cause: impl fmt::Display) -> TaskError {
        TaskError::value(&self.cell.name(), cause)
    }
}

impl<T: DeserializeOwned> std::future::Future for Future<T> {
    type Output = Result<T, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_inside(context.waker()) {
            Some(ended) => Poll::Ready(self.read(&ended)),
            None => Poll::Pending,
        }
    }
}

impl<T> Clone for Future<T> {
    fn clone(&self) -> Self {
        Self {
            cell: Arc::clone(&self.cell),
            steps: Arc::clone(&self.steps),
            handle: self.handle.clone(),
            of: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Future")
            .field("task", &self.task())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// An output of a task: a file or directory that will be in its place, and where it is sent if it
/// is to be sent somewhere. Its value is the path.
///
/// ```no_run
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # use std::path::PathBuf;
/// fn size(path: PathBuf) -> std::io::Result<u64> {
///     Ok(path.metadata()?.len())
/// }
/// let made = flow.command("seq 1000 > {{ outputs.list }}").output("list", "list.txt").submit();
/// let list = made.output("list");
/// let bytes = flow.try_call(size, (&list,));
/// println!("{} has {} bytes", list.path().display(), bytes.wait()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FileFuture {
    cell: Arc<Cell>,
    /// As the engine knows it.
    path: Arc<str>,
    place: Arc<Path>,
    kind: keelboat_engine::Kind,
    handle: Handle,
}

impl FileFuture {
    pub(crate) fn new(
        cell: Arc<Cell>,
        (path, place): (Arc<str>, Arc<Path>),
        kind: keelboat_engine::Kind,
        handle: Handle,
    ) -> Self {
        Self { cell, path, place, kind, handle }
    }

    pub(crate) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    pub(crate) fn engine_path(&self) -> &Arc<str> {
        &self.path
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What came of it, or that it cannot be waited for here.
    fn poll_inside(&self, waker: &Waker) -> Option<Result<(), TaskError>> {
        let found = self.cell.poll_output(&self.path, waker);
        found.or_else(|| self.handle.cannot_wait(&self.cell.name()).map(Err))
    }

    pub(crate) fn kind(&self) -> keelboat_engine::Kind {
        self.kind
    }

    /// Where it will be.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let made = flow.command("seq 9 > {{ outputs.list }}").output("list", "list.txt").submit();
    /// assert!(made.output("list").path().ends_with("list.txt"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// Where its task stands.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow, TaskState};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let made = flow.command("seq 9 > {{ outputs.list }}").output("list", "list.txt").submit();
    /// let list = made.output("list");
    /// list.wait()?;
    /// assert_eq!(list.state(), TaskState::Done);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn state(&self) -> TaskState {
        self.cell.state()
    }

    /// Says that nobody wants it any more: as [`Future::cancel`].
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let made = flow.command("seq 9 > {{ outputs.list }}").output("list", "list.txt").submit();
    /// made.output("list").cancel();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) {
        self.handle.cancel(&self.cell);
    }

    /// Blocks until the file is in its place. Not for code that runs in an async runtime.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let made = flow.command("seq 9 > {{ outputs.list }}").output("list", "list.txt").submit();
    /// println!("{}", std::fs::read_to_string(made.output("list").wait()?)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The task failed, or the file could not be sent where it was to go.
    pub fn wait(&self) -> Result<PathBuf, TaskError> {
        let never = || Err(TaskError::value(&self.cell.name(), "it never ended"));
        let found = block(None, |waker| self.poll_inside(waker));
        found.unwrap_or_else(never).map(|()| self.place.to_path_buf())
    }

    /// Blocks until the file is in its place, at most for so long; `None`: it was not. The task goes on.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// # use std::time::Duration;
    /// let made = flow.command("sleep 60; seq 9 > {{ outputs.list }}").output("list", "list.txt").submit();
    /// match made.output("list").wait_for(Duration::from_secs(5)) {
    ///     Some(place) => println!("it is at {}", place?.display()),
    ///     None => println!("not yet"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for(&self, span: Duration) -> Option<Result<PathBuf, TaskError>> {
        let until = Instant::now().checked_add(span);
        let found = block(until, |waker| self.poll_inside(waker));
        found.map(|found| found.map(|()| self.place.to_path_buf()))
    }
}

impl std::future::Future for FileFuture {
    type Output = Result<PathBuf, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_inside(context.waker()) {
            Some(found) => Poll::Ready(found.map(|()| self.place.to_path_buf())),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for FileFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileFuture")
            .field("path", &self.place)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
}

/// Wakes a thread that waits.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks until `poll` finds something, or the moment has come.
pub(crate) fn block<F>(
    until: Option<Instant>,
    mut poll: impl FnMut(&Waker) -> Option<F>,
) -> Option<F> {
    let mut early = None;
    if pause_until(|| {
        early = poll(Waker::noop());
        early.is_some()
    }) {
        return early;
    }
    // The same for all waits of a thread: whoever waits again and again is one watcher.
    let waker = WAKER.with(Waker::clone);
    loop {
        if let Some(found) = poll(&waker) {
            return Some(found);
        }
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => std::thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => std::thread::park_timeout(left),
        }
    }
}
