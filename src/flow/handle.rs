//! How futures and functions reach the engine's loop.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use keelboat_engine::{AttemptId, Command, Failure, FailureClass, TaskSpec};

use super::argument::{CodecErrorOf, Segment};
use super::cell::{Cell, Ended};
use super::config::OnClose;
use super::error::TaskError;
use super::function::{Body, Left};
use super::guard::Guarded;
use super::inbox::{Inbox, Told};
use super::options::Handler;
use super::tally::Tally;
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
    inbox: Inbox<Request>,
    tally: Tally,
}

/// What the loop is asked for, or told.
pub(crate) enum Request {
    Submit(Box<Submission>),
    Cancel(Arc<Cell>),
    /// A function came to its end.
    Called(Called),
    /// The task has ended whose value is that of this attempt.
    Joined(AttemptId, Ended),
    /// All that is done is to be durable; the cell ends when it is.
    Checkpoint(Arc<Cell>),
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
    /// All but its name, and the names of those that it takes values of or comes after.
    pub(crate) spec: TaskSpec,
    /// How it is called, before it is told apart from others that are called the same.
    pub(crate) name: Arc<str>,
    pub(crate) work: Arc<Work>,
    /// Tasks that are to be done first.
    pub(crate) after: Vec<Arc<Cell>>,
}

/// What a task is made of that the core does not know.
pub(crate) struct Work {
    /// Tasks whose values it is given.
    pub(crate) takes: Vec<Arc<Cell>>,
    /// Tasks that make its inputs, or that are to be done first.
    pub(crate) makers: Vec<Arc<Cell>>,
    /// What is to be done.
    pub(crate) deed: Deed,
    /// What looks at its failures.
    pub(crate) handler: Option<Guarded<Handler>>,
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
    pub(crate) body: Guarded<Arc<dyn Body>>,
    pub(crate) segments: Box<[Segment]>,
    /// Whether it runs in a directory of its own.
    pub(crate) needs_scratch: bool,
}

impl Handle {
    pub(crate) fn new(messages: SyncSender<Message>) -> Self {
        let (inbox, tally) = (Inbox::new(REQUESTS_MAX), Tally::default());
        Self(Arc::new(Shared { messages, inbox, tally }))
    }

    /// A task that cannot be: one that was submitted and has failed.
    pub(crate) fn refuse(&self, name: &Arc<str>, cause: String) -> Arc<Cell> {
        self.tally().submit();
        self.tally().refuse();
        Cell::refusing(name, Failure::new(FailureClass::Permanent, cause))
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
        self.tally().submit();
        if !self.tell(Request::Submit(Box::new(submission))) {
            self.tally().take_back();
            cell.set_name(Arc::clone(&name));
            cell.end(Err(TaskError::failed(&name, closed())));
        }
    }

    pub(crate) fn cancel(&self, cell: &Arc<Cell>) {
        self.tell(Request::Cancel(Arc::clone(cell)));
    }

    /// False: the flow is over.
    pub(crate) fn tell(&self, request: Request) -> bool {
        let waits = matches!(request, Request::Submit(_)) && LOOP.get() != self.address();
        let told = if waits {
            self.0.inbox.tell_when_there_is_room(request)
        } else {
            self.0.inbox.tell(request)
        };
        if told == Told::Unseen {
            // When there is no room, the loop is busy: it looks into the inbox before it waits.
            let _full = self.0.messages.try_send(Message::Program);
        }
        told != Told::Over
    }

    /// What the program asks for.
    pub(crate) fn inbox(&self) -> &Inbox<Request> {
        &self.0.inbox
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.0.tally
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
