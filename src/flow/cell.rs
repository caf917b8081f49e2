//! What is known of one task, shared by its futures and the engine's loop.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use keelboat_engine::{Failure, FailureClass};

use super::error::TaskError;
use super::outputs::Made;
use super::sync::{Mutex, MutexGuard, PoisonError};

/// Where a task stands.
///
/// ```
/// # use keelboat::flow::{Config, Flow, TaskState};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let future = flow.call(|| 1, ());
/// future.wait()?;
/// assert_eq!(future.state(), TaskState::Done);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// It waits: for others, for files, for a place to run, or for its next try.
    Pending,
    /// It runs.
    Running,
    /// It is done: its value and its outputs are there.
    Done,
    /// It failed for good, was cancelled, or needs a task that has no result.
    Failed,
}

/// How a task ended: with the encoding of its value.
pub(crate) type Ended = Result<Arc<[u8]>, TaskError>;

type Hook = Box<dyn FnOnce(&Ended) + Send>;

/// One task.
#[derive(Default)]
pub(crate) struct Cell {
    name: OnceLock<Arc<str>>,
    /// Its outputs, if it has any.
    made: Option<Box<Made>>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Whether the engine has a task of it. One that was refused has none, whatever its name.
    is_taken_in: bool,
    is_running: bool,
    ended: Option<Ended>,
    /// Outputs that are to be sent somewhere, by path, and what came of it.
    sent: BTreeMap<Arc<str>, Sent>,
    watchers: Vec<Watcher>,
}

/// What came of an output that is to be sent; `None`: nobody knows yet.
type Sent = Option<Result<(), TaskError>>;

/// Somebody who is told of what happens to a task.
enum Watcher {
    Waker(Waker),
    /// Called when it is over.
    Hook(Hook),
}

impl Cell {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// For a task with outputs, some of which may be sent somewhere.
    pub(crate) fn making(made: Made) -> Arc<Self> {
        if made.outputs.is_empty() {
            return Self::new();
        }
        let sent = made.outputs.iter().filter(|output| output.deliver_to.is_some());
        let sent = sent.map(|output| (Arc::clone(&output.path), None)).collect();
        let inner = Mutex::new(Inner { sent, ..Inner::default() });
        Arc::new(Self { made: Some(Box::new(made)), inner, ..Self::default() })
    }

    pub(crate) fn made(&self) -> Option<&Made> {
        self.made.as_deref()
    }

    /// Its name, once the engine has taken it in.
    pub(crate) fn name(&self) -> Arc<str> {
        self.name.get().cloned().unwrap_or_else(|| Arc::from("a task that was not begun"))
    }

    pub(crate) fn set_name(&self, name: Arc<str>) {
        self.name.get_or_init(|| name);
    }

    pub(crate) fn set_taken_in(&self) {
        self.inner().is_taken_in = true;
    }

    /// Why the engine has no task of it, if it was refused.
    pub(crate) fn refused(&self) -> Option<TaskError> {
        let inner = self.inner();
        inner.ended.clone().filter(|_| !inner.is_taken_in)?.err()
    }

    pub(crate) fn state(&self) -> TaskState {
        let inner = self.inner();
        match &inner.ended {
            Some(Ok(_)) => TaskState::Done,
            Some(Err(_)) => TaskState::Failed,
            None if inner.is_running => TaskState::Running,
            None => TaskState::Pending,
        }
    }

    pub(crate) fn set_running(&self, is_running: bool) {
        self.inner().is_running = is_running;
    }

    /// It is over. What counts is how it ended first.
    pub(crate) fn end(&self, ended: Ended) {
        let mut inner = self.inner();
        if inner.ended.is_some() {
            return;
        }
        if let Err(error) = &ended {
            inner.give_up_sending(error);
        }
        let watchers = std::mem::take(&mut inner.watchers);
        let ended = inner.ended.insert(ended).clone();
        drop(inner);
        for watcher in watchers {
            match watcher {
                Watcher::Waker(waker) => waker.wake(),
                Watcher::Hook(hook) => hook(&ended),
            }
        }
    }

    /// An output was sent where it was to go, or could not be.
    pub(crate) fn set_sent(&self, path: &str, result: Result<(), TaskError>) {
        let mut inner = self.inner();
        if let Some(sent) = inner.sent.get_mut(path) {
            *sent = Some(result);
        }
        let wakers = inner.wakers();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nothing more is sent.
    pub(crate) fn give_up_sending(&self, error: &TaskError) {
        let mut inner = self.inner();
        inner.give_up_sending(error);
        let wakers = inner.wakers();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.inner().ended.clone()
    }

    /// How it ended; otherwise the waker is told when it has.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<Ended> {
        let mut inner = self.inner();
        if inner.ended.is_none() {
            inner.wait(waker);
        }
        inner.ended.clone()
    }

    /// What came of the output at this path: it is in its place, and sent if it was to be.
    pub(crate) fn poll_output(&self, path: &str, waker: &Waker) -> Option<Result<(), TaskError>> {
        let mut inner = self.inner();
        let found = match (&inner.ended, inner.sent.get(path)) {
            (None, _) | (Some(Ok(_)), Some(None)) => None,
            (Some(Ok(_)), Some(Some(sent))) => Some(sent.clone()),
            (Some(Ok(_)), None) => Some(Ok(())),
            (Some(Err(error)), _) => Some(Err(error.clone())),
        };
        if found.is_none() {
            inner.wait(waker);
        }
        found
    }

    /// Calls the hook when it is over: at once if it is.
    pub(crate) fn when_over(&self, hook: impl FnOnce(&Ended) + Send + 'static) {
        let mut inner = self.inner();
        match inner.ended.clone() {
            None => inner.watchers.push(Watcher::Hook(Box::new(hook))),
            Some(ended) => {
                drop(inner);
                hook(&ended);
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The values of tasks that are done.
pub(crate) fn values_of(cells: &[Arc<Cell>]) -> Result<Vec<Arc<[u8]>>, Failure> {
    let value = |cell: &Arc<Cell>| {
        let missing = || Err(TaskError::value(&cell.name(), "it is not there"));
        cell.ended().unwrap_or_else(missing)
    };
    let values: Result<_, TaskError> = cells.iter().map(value).collect();
    values.map_err(|error| Failure::new(FailureClass::Permanent, error.to_string()))
}

impl Inner {
    fn wait(&mut self, waker: &Waker) {
        let is_this = |watcher: &Watcher| match watcher {
            Watcher::Waker(known) => known.will_wake(waker),
            Watcher::Hook(_) => false,
        };
        if !self.watchers.iter().any(is_this) {
            self.watchers.push(Watcher::Waker(waker.clone()));
        }
    }

    /// All that wait to look again; hooks stay until it is over.
    fn wakers(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for watcher in std::mem::take(&mut self.watchers) {
            match watcher {
                Watcher::Waker(waker) => wakers.push(waker),
                Watcher::Hook(_) => self.watchers.push(watcher),
            }
        }
        wakers
    }

    fn give_up_sending(&mut self, error: &TaskError) {
        for sent in self.sent.values_mut() {
            sent.get_or_insert_with(|| Err(error.clone()));
        }
    }
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cell").field("name", &self.name()).finish_non_exhaustive()
    }
}
