//! What one transfer brings along to the gate.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keelboat_engine::queue::RoomId;
use tokio::time::Instant;

use super::{Gate, Urgency};

/// How urgent a transfer is, how long it waits, who wants to know why, and its room on the disk.
///
/// One for all tries of a transfer; clones are the same one. With the last of them the room is
/// given back.
#[derive(Clone)]
pub struct Turn(Arc<Inner>);

/// Is told what a transfer waits for.
pub(crate) type Listener = Box<dyn Fn(&str) + Send + Sync>;

struct Inner {
    urgency: Urgency,
    room: Option<RoomId>,
    /// Whose room its bytes take that has none of its own.
    within: Option<RoomId>,
    listener: Option<Listener>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    deadline: Option<Instant>,
    excused: Duration,
    /// Where there is room for it.
    room_at: Option<Gate>,
}

impl Turn {
    /// Of this urgency (more is sooner), for bytes that are not kept.
    pub fn new(priority: u8) -> Self {
        let (urgency, state) = (Urgency::new(priority), Mutex::default());
        Self(Arc::new(Inner { urgency, room: None, within: None, listener: None, state }))
    }

    /// For bytes that are kept on the disk as long as this is; somebody is told what it waits for,
    /// when that takes more than a moment.
    pub(crate) fn with_room(urgency: Urgency, listener: Listener) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let room = Some(RoomId(NEXT.fetch_add(1, Ordering::Relaxed)));
        let (listener, state) = (Some(listener), Mutex::default());
        Self(Arc::new(Inner { urgency, room, within: None, listener, state }))
    }

    /// The same, for bytes that there is room for already, in that of another turn.
    pub(crate) fn within(room: RoomId, urgency: Urgency, listener: Listener) -> Self {
        let (listener, state) = (Some(listener), Mutex::default());
        Self(Arc::new(Inner { urgency, room: None, within: Some(room), listener, state }))
    }

    /// A host that does not answer is waited for until then.
    pub(crate) fn set_deadline(&self, deadline: Option<std::time::Instant>) {
        self.0.lock().deadline = deadline.map(Instant::from_std);
    }

    /// How long it waited for others since this was asked last: no fault of any host.
    pub(crate) fn take_excused(&self) -> Duration {
        std::mem::take(&mut self.0.lock().excused)
    }

    pub(super) fn urgency(&self) -> &Urgency {
        &self.0.urgency
    }

    pub(super) fn within_room(&self) -> Option<RoomId> {
        self.0.within
    }

    pub(crate) fn room(&self) -> Option<RoomId> {
        self.0.room
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.lock().deadline
    }

    pub(super) fn excuse(&self, span: Duration) {
        self.0.lock().excused += span;
    }

    pub(super) fn tell(&self, cause: &str) {
        if let Some(listener) = &self.0.listener {
            listener(cause);
        }
    }

    /// All of its bytes are here, and are about to be somebody else's matter.
    pub(crate) fn fill(&self) {
        let gate = self.0.lock().room_at.clone();
        if let Some(gate) = gate {
            gate.fill(self);
        }
    }

    /// It has room there, to be given back.
    pub(super) fn keep_room(&self, gate: &Gate) {
        self.0.lock().room_at.get_or_insert_with(|| gate.clone());
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let gate = self.lock().room_at.take();
        if let Some((gate, room)) = gate.zip(self.room) {
            gate.release(room);
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("priority", &self.0.urgency.now()).finish_non_exhaustive()
    }
}
