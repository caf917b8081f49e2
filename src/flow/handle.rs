//! How futures and functions reach the engine's loop.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use keelboat_engine::{AttemptId, Command, Failure, FailureClass, TaskSpec};

use super::argument::{CodecErrorOf, Segment};
use super::cell::{Cell, Ended};
use super::config::OnClose;
use super::error::TaskError;
use super::function::{Body, Left};
use super::options::Handler;
use super::text::Text;
use crate::driver::Message;

/// Requests that wait for the loop; who submits more waits until it has taken them.
const REQUESTS_MAX: usize = 8_192;

thread_local! {
    /// The loop whose thread this is, as below: nobody else would take what it asks for.
    static LOOP: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };

    /// The flow that this thread belongs to: where it has its requests, or 0.
    static INSIDE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A way to the loop of one flow. Clones are the same way; none of them keeps the flow open.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Shared>);

struct Shared {
    messages: SyncSender<Message>,
    /// Whether there is a request, for those who look without the lock.
    is_filled: AtomicBool,
    /// Whether the loop looks by itself before it sleeps.
    is_watched: AtomicBool,
    inbox: Mutex<Inbox>,
    /// The loop has taken what was there.
    taken: Condvar,
}

#[derive(Default)]
struct Inbox {
    requests: Vec<Request>,
    /// Threads that wait until it is taken.
    waiting: usize,
    is_over: bool,
}

/// What the loop is asked for, or told.
pub(crate) enum Request {
    Submit(Box<Submission>),
    Cancel(Arc<Cell>),
    /// A function came to its end.
    Called(Called),
    /// The task has ended whose value is that of this attempt.
    Joined(AttemptId, Ended),
    /// Nothing further is submitted.
    Close(OnClose),
}

/// How the call of a function ended.
pub(crate) struct Called {
    pub(crate) attempt: AttemptId,
    pub(crate) result: Result<Left, Failure>,
    pub(crate) wall: std::time::Duration,
}

/// A task that is submitted.
pub(crate) struct Submission {
    pub(crate) cell: Arc<Cell>,
    /// All but its name, and the names of those that it takes values of.
    pub(crate) spec: TaskSpec,
    /// How it is called, before it is told apart from others that are called the same.
    pub(crate) name: Arc<str>,
    pub(crate) work: Arc<Work>,
}

/// What a task is made of that the core does not know.
pub(crate) struct Work {
    /// Tasks whose values it is given.
    pub(crate) takes: Vec<Arc<Cell>>,
    /// Tasks that make its inputs.
    pub(crate) makers: Vec<Arc<Cell>>,
    /// What is to be done.
    pub(crate) deed: Deed,
    /// What looks at its failures.
    pub(crate) handler: Option<Handler>,
}

/// What a task does, as far as the core does not know.
pub(crate) enum Deed {
    /// A command: the core knows all of it.
    Command,
    /// A command whose text is made when its values are there.
    Text(Box<Text>),
    Function(FunctionWork),
}

/// Makes the text of a command.
#[derive(Clone)]
pub(crate) struct LateText(pub(crate) Arc<Work>);

impl LateText {
    /// The command, when the values are there.
    pub(crate) fn render(&self) -> Result<Command, Failure> {
        match &self.0.deed {
            Deed::Text(text) => text.render_late(&self.0.takes),
            Deed::Command | Deed::Function(_) => {
                Err(Failure::new(FailureClass::Permanent, "it has no text to be made"))
            }
        }
    }
}

impl fmt::Debug for LateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateText").finish_non_exhaustive()
    }
}

/// A function and what it is called with.
pub(crate) struct FunctionWork {
    pub(crate) body: Arc<dyn Body>,
    pub(crate) segments: Box<[Segment]>,
    /// Whether it runs in a directory of its own.
    pub(crate) needs_scratch: bool,
}

impl Work {
    /// Of a task that is over.
    pub(crate) fn nothing() -> Self {
        Self { takes: Vec::new(), makers: Vec::new(), deed: Deed::Command, handler: None }
    }
}

impl Handle {
    pub(crate) fn new(messages: SyncSender<Message>) -> Self {
        let (is_filled, is_watched) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Shared {
            messages,
            is_filled,
            is_watched,
            inbox: Mutex::default(),
            taken: Condvar::new(),
        }))
    }

    /// This thread belongs to the flow: it must not wait for what the flow does.
    pub(crate) fn enter(&self) {
        INSIDE.set(self.address());
    }

    /// This thread is the one with the loop.
    pub(crate) fn enter_loop(&self) {
        self.enter();
        LOOP.set(self.address());
    }

    /// Whether this thread belongs to the flow.
    pub(crate) fn is_inside(&self) -> bool {
        INSIDE.get() == self.address()
    }

    /// # Errors
    /// A future of this task is used in another flow.
    pub(crate) fn has_to_be(&self, flow: &Self, task: &str) -> Result<(), CodecErrorOf> {
        if Arc::ptr_eq(&self.0, &flow.0) {
            return Ok(());
        }
        Err(format!("{task} is of another flow: wait for it, and give what it has become").into())
    }

    /// The error of somebody who waits for this task on a thread of its own flow.
    pub(crate) fn cannot_wait(&self, task: &Arc<str>) -> Option<TaskError> {
        self.is_inside().then(|| {
            let cause = "a function waits for it and may take the place that it needs to run";
            let failure = Failure::new(FailureClass::Permanent, cause)
                .with_hint("give the future to a task as an argument, or return it from a join");
            TaskError::failed(task, failure)
        })
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(crate) fn submit(&self, submission: Submission) {
        let cell = Arc::clone(&submission.cell);
        let name = Arc::clone(&submission.name);
        if !self.tell(Request::Submit(Box::new(submission))) {
            cell.set_name(Arc::clone(&name));
            cell.end(Err(TaskError::failed(&name, closed())));
        }
    }

    pub(crate) fn cancel(&self, cell: &Arc<Cell>) {
        self.tell(Request::Cancel(Arc::clone(cell)));
    }

    /// False: the flow is over.
    pub(crate) fn tell(&self, request: Request) -> bool {
        let mut inbox = self.inbox();
        if matches!(request, Request::Submit(_)) && LOOP.get() != self.address() {
            while inbox.requests.len() >= REQUESTS_MAX && !inbox.is_over {
                inbox.waiting += 1;
                inbox = self.0.taken.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                inbox.waiting -= 1;
            }
        }
        if inbox.is_over {
            return false;
        }
        let was_empty = inbox.requests.is_empty();
        inbox.requests.push(request);
        self.0.is_filled.store(true, Ordering::SeqCst);
        drop(inbox);
        if was_empty && !self.0.is_watched.load(Ordering::SeqCst) {
            // When there is no room, the loop is busy: it looks into the inbox before it waits.
            let _full = self.0.messages.try_send(Message::Program);
        }
        true
    }

    /// What came since.
    pub(crate) fn take(&self) -> Vec<Request> {
        let mut inbox = self.inbox();
        self.0.is_filled.store(false, Ordering::SeqCst);
        if inbox.waiting > 0 {
            self.0.taken.notify_all();
        }
        std::mem::take(&mut inbox.requests)
    }

    /// Whether anything came since. While this is asked again and again, nobody has to wake the loop.
    pub(crate) fn is_filled(&self) -> bool {
        self.0.is_filled.load(Ordering::SeqCst)
    }

    /// Says whether the loop looks by itself. True: something is there.
    pub(crate) fn set_watched(&self, is_watched: bool) -> bool {
        self.0.is_watched.store(is_watched, Ordering::SeqCst);
        self.is_filled()
    }

    /// Nothing more is taken; what came last is given back.
    pub(crate) fn shut(&self) -> Vec<Request> {
        let mut inbox = self.inbox();
        inbox.is_over = true;
        self.0.taken.notify_all();
        std::mem::take(&mut inbox.requests)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a task that came too late.
pub(crate) fn closed() -> Failure {
    Failure::new(FailureClass::Permanent, "the flow is closed")
        .with_hint("submit tasks before the flow is closed or dropped")
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
