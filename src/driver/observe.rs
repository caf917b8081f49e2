//! What people and programs are shown of a run while it goes on.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use keelboat_engine::core::Counts;
use keelboat_engine::{Stamped, TaskName, Timestamp};
use keelboat_staging::{NextTry, Progress, TransferEvent};

use super::edges::Edges;
use super::message::Message;

/// Watches a run. Facts come in their order, and only after they are durable.
pub trait Observer {
    /// The run begins, or goes on after a crash.
    fn started(&mut self, start: &Start<'_>);

    /// Something happened, and will be remembered whatever happens next.
    fn fact(&mut self, fact: &Stamped);

    /// How things stand, some times a second.
    fn progress(&mut self, view: &View<'_>);

    /// Something that people should know, and that stops nothing.
    fn warning(&mut self, text: &str);

    /// A transfer does not move: what it waits for.
    fn waiting(&mut self, text: &str);

    /// Whether [`Observer::progress`] is of any use.
    fn wants_progress(&self) -> bool {
        false
    }
}

/// How a run begins.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The run's name.
    pub run: &'a str,
    /// The workflow's name.
    pub workflow: &'a str,
    /// Whether an engine died over it before.
    pub resumed: bool,
    /// Tasks known so far.
    pub tasks: u32,
}

/// How a run stands.
#[derive(Debug)]
pub struct View<'a> {
    /// How many tasks are in which state.
    pub counts: Counts,
    /// What runs, and since when.
    pub running: &'a BTreeMap<TaskName, Timestamp>,
    /// The present moment.
    pub now: Timestamp,
    /// Transfers under way.
    pub transfers: Vec<TransferView>,
    /// Bytes that came over the network so far.
    pub transferred: u64,
}

/// A transfer under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferView {
    /// The address without secrets.
    pub display: String,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all, when that is known.
    pub total: Option<u64>,
    /// What it waits for, when it does not move.
    pub waits: Option<String>,
}

/// The transfers under way, as their progress reports them.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<Moving, TransferView>>);

/// What a transfer moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moving {
    /// An input, by the number of its file.
    Input(u32),
    /// An output of a task, by their numbers.
    Output(u32, u32),
}

impl Board {
    pub(crate) fn view(&self) -> Vec<TransferView> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn end(&self, transfer: Moving) {
        self.lock().remove(&transfer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Moving, TransferView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports one transfer to the board.
#[derive(Debug)]
pub(crate) struct Reporter {
    board: Arc<Board>,
    transfer: Moving,
    messages: SyncSender<Message>,
}

impl Reporter {
    pub(crate) fn new(edges: &Edges, transfer: Moving, display: String) -> Self {
        let board = Arc::clone(&edges.board);
        let view = TransferView { display, done: 0, total: None, waits: None };
        board.lock().insert(transfer, view);
        Self { board, transfer, messages: edges.messages.clone() }
    }

    /// Progress returns at once: what finds no room is not told.
    fn tell(&self, message: Message) {
        drop(self.messages.try_send(message));
    }
}

impl Progress for Reporter {
    fn on_event(&self, event: &TransferEvent<'_>) {
        let mut board = self.board.lock();
        let Some(view) = board.get_mut(&self.transfer) else { return };
        match event {
            TransferEvent::Opened { source, offset, length } => {
                (*source).clone_into(&mut view.display);
                (view.done, view.total, view.waits) = (*offset, *length, None);
            }
            TransferEvent::Received { position, length } => {
                (view.done, view.total, view.waits) = (*position, *length, None);
            }
            TransferEvent::Waiting { source, cause, wait, next } => {
                let seconds = wait.as_secs_f32();
                let when = match next {
                    Some(NextTry { number, of }) => {
                        format!("try {number} of {of} in {seconds:.1} s")
                    }
                    None => format!("looked at again in {seconds:.1} s"),
                };
                self.tell(Message::Waiting(format!("{when}: {source}: {cause}")));
                view.waits = Some(format!("{when}: {cause}"));
            }
            TransferEvent::Queued { cause, .. } => {
                self.tell(Message::Waiting(format!("{}: {cause}", view.display)));
                view.waits = Some((*cause).to_owned());
            }
            TransferEvent::Abandoned { source, cause } => {
                let text = format!("{source} is given up, the next address is tried: {cause}");
                self.tell(Message::Warning(text));
                view.waits = None;
            }
            _ => {}
        }
    }
}
