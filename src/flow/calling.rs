//! Calls of functions: where they run, and how they end when nobody waits for them any more.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keelboat_engine::{AttemptId, Failure, FailureClass, Shortage};
use tokio::task::AbortHandle;
use tracing::{Instrument as _, Span};

use super::argument::assemble;
use super::cell::values_of;
use super::context::{Context, Place};
use super::function::{Call, Course, misfit, panicked};
use super::handle::{Called, Deed, Handle, LateText, Request, Work};
use super::workers::{Job, Turn, Workers};
use crate::driver::reads::Reads;

/// What an attempt is.
#[derive(Debug)]
pub(crate) enum Launch {
    /// The command that its task has.
    Command,
    /// A command whose text is to be made.
    Text(LateText),
    /// A function that needs a directory of its own.
    Call(Calling),
}

/// A call that has not begun.
#[derive(Clone)]
pub(crate) struct Calling {
    pub(super) attempt: AttemptId,
    pub(super) work: Arc<Work>,
    pub(super) handle: Handle,
    pub(super) workers: Workers,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) timeout: Option<Duration>,
    /// Within which it is called.
    pub(super) span: Span,
    pub(super) stop: Arc<Stop>,
}

/// What a function finds where it runs.
#[derive(Default)]
pub(crate) struct Stage {
    /// Its inputs.
    pub(crate) paths: Vec<PathBuf>,
    /// Those of them that it reads where they are.
    pub(crate) reads: Option<Arc<Reads>>,
    pub(crate) context: Option<Context>,
    pub(crate) occupied: Option<Occupied>,
}

/// Tells by its end that a function has returned, or will never begin.
pub(crate) struct Occupied(Option<Box<dyn FnOnce() + Send>>);

impl Occupied {
    pub(crate) fn new(then: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(then)))
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then();
        }
    }
}

/// The end of a call that is not its own.
#[derive(Default)]
pub(crate) struct Stop {
    given_up: AtomicBool,
    /// How an `async` function is ended.
    abort: Mutex<Option<AbortHandle>>,
    /// What ends it when it runs too long.
    timer: Mutex<Option<AbortHandle>>,
    thread: Mutex<Thread>,
    /// That of its line, if it stood in one.
    turn: Mutex<Option<Turn>>,
}

/// The thread of a call, as far as it is busy with it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Thread {
    /// Not yet, or not any more.
    #[default]
    None,
    Busy,
    /// It works on, and another one has taken its place.
    Replaced,
}

impl Stop {
    /// Nobody waits for it any more: one that is not begun never will be, and one that is `async`
    /// ends. Of another one the thread is busy until it returns, so another is begun by `replace`.
    pub(super) fn give_up(&self, replace: impl FnOnce() -> bool) {
        self.given_up.store(true, Ordering::SeqCst);
        self.abort();
        let mut thread = self.thread();
        if *thread == Thread::Busy && replace() {
            *thread = Thread::Replaced;
        }
        drop(thread);
        // The core has given its slots to another one.
        drop(self.take_turn());
    }

    fn take_turn(&self) -> Option<Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn abort(&self) {
        if let Some(abort) = lock(&self.abort).take() {
            abort.abort();
        }
    }

    /// This thread is busy with it from now on.
    ///
    /// # Errors
    /// It was given up before; its turn comes back.
    fn begin(&self, turn: Option<Turn>) -> Result<(), Option<Turn>> {
        let mut thread = self.thread();
        if self.is_given_up() {
            return Err(turn);
        }
        *thread = Thread::Busy;
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
        Ok(())
    }

    /// This thread is free again. Whether another one has its place.
    fn end(&self) -> bool {
        std::mem::take(&mut *self.thread()) == Thread::Replaced
    }

    fn thread(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    /// It is over, in time.
    pub(super) fn end_timer(&self) {
        if let Some(timer) = lock(&self.timer).take() {
            timer.abort();
        }
    }

    fn can_abort(&self, abort: AbortHandle) {
        *lock(&self.abort) = Some(abort);
        // It may have been given up between the look before and this.
        if self.is_given_up() {
            self.abort();
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.end_timer();
    }
}

fn lock(handle: &Mutex<Option<AbortHandle>>) -> MutexGuard<'_, Option<AbortHandle>> {
    handle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calling {
    /// What a function is told that runs there.
    pub(crate) fn context(&self, place: Place) -> Context {
        Context::new(place, Arc::clone(&self.stop))
    }

    /// Begins it, by a thread for calls. Its end is told to the loop.
    pub(crate) fn begin(self, stage: Stage) {
        let workers = self.workers.clone();
        workers.submit(self.job(stage));
    }

    /// What a thread for calls is to do.
    pub(super) fn job(self, stage: Stage) -> Job {
        self.begin_timer();
        let Self { attempt, work, handle, workers: own, runtime, span, stop, .. } = self;
        Box::new(move |turn| {
            if let Err(turn) = stop.begin(turn) {
                return turn;
            }
            let Stage { paths, reads, context, occupied } = stage;
            let begun = Instant::now();
            let read = reads.clone();
            let over = move |handle: &Handle, result| {
                drop(occupied);
                let result = match &read {
                    Some(read) => read.confirm(result),
                    None => result,
                };
                handle.tell(Request::Called(Called { attempt, result, wall: begun.elapsed() }));
            };
            let whole = reads.as_ref().map_or(Ok(()), |reads| reads.check());
            let course = match whole {
                Ok(()) => span.in_scope(|| call(&work, &paths, context.as_ref())),
                Err(failure) => Course::Over(Err(failure)),
            };
            if stop.end() {
                own.come_back();
            }
            match course {
                Course::Over(result) => {
                    over(&handle, result);
                    stop.take_turn()
                }
                Course::Going(going) => {
                    let call = runtime.spawn(going.instrument(span));
                    stop.can_abort(call.abort_handle());
                    runtime.spawn(async move {
                        let result = call.await;
                        let result = result.unwrap_or_else(|error| Err(broken_off(error)));
                        match reads {
                            None => over(&handle, result),
                            // To look at files takes its time.
                            Some(_) => tokio::task::block_in_place(|| over(&handle, result)),
                        }
                        // Whoever is next begins when this end is told.
                        drop(stop.take_turn());
                    });
                    None
                }
            }
        })
    }

    fn begin_timer(&self) {
        let Some(timeout) = self.timeout else { return };
        let (attempt, handle) = (self.attempt, self.handle.clone());
        let timer = self.runtime.spawn(async move {
            tokio::time::sleep(timeout).await;
            handle.tell(Request::Called(timed_out(attempt, timeout)));
        });
        *lock(&self.stop.timer) = Some(timer.abort_handle());
    }
}

impl fmt::Debug for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

fn timed_out(attempt: AttemptId, timeout: Duration) -> Called {
    let cause = format!("timed out after {timeout:?}");
    let failure = Failure::new(FailureClass::OutOfResources, cause)
        .with_hint("give the function a longer timeout, or split its work")
        .with_shortage(Shortage::Time);
    Called { attempt, result: Err(failure), wall: timeout }
}

/// An `async` function that did not come to its end.
fn broken_off(error: tokio::task::JoinError) -> Failure {
    match error.try_into_panic() {
        Ok(panic) => panicked(&*panic),
        Err(error) => Failure::new(FailureClass::Transient, error.to_string()),
    }
}

fn call(work: &Work, paths: &[PathBuf], context: Option<&Context>) -> Course {
    let Deed::Function(function) = &work.deed else {
        let failure = Failure::new(FailureClass::Permanent, "there is no function to call");
        return Course::Over(Err(failure));
    };
    let values = match values_of(&work.takes) {
        Ok(values) => values,
        Err(failure) => return Course::Over(Err(failure)),
    };
    match assemble(&function.segments, &values, paths) {
        Ok(arguments) => function.body.begin(Call { arguments: &arguments, context }),
        Err(error) => Course::Over(Err(misfit(&error))),
    }
}
