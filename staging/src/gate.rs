//! The gate that all transfers of a [`Stager`](crate::Stager) go through: the queue of the engine,
//! driven by the clock of tokio. What is decided is decided there.

mod permit;
mod turn;
mod urgency;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use keelboat_engine::Timestamp;
use keelboat_engine::queue::{
    Elsewhere, QueueLimits, Request, Reserved, RoomId, TicketId, TransferQueue, Wait,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use permit::Pace;
pub use permit::Permit;
pub use turn::Turn;
pub(crate) use urgency::Urgency;

use crate::address::Address;
use crate::protocol::TransferError;

/// Those who wait look up so often why, and say so when it is not for a moment.
const LOOK: Duration = Duration::from_secs(1);

/// Hosts whose last trouble is remembered.
const TROUBLES_MAX: usize = 256;

/// What is kept on the disk, counts as room, and can be had again.
pub(crate) trait Spare: Send + Sync {
    /// Gives up some of it; `false`: there is none.
    fn give_up(&self) -> bool;
}

/// Shared by all protocols of a stager. Clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    begun: Instant,
    /// How long one transfer waits for a host that is down or asked to be left alone, unless its
    /// turn says otherwise.
    patience: Duration,
    space_max: Option<u64>,
    /// Goes when room is lacking for longer than a moment.
    spare: OnceLock<Weak<dyn Spare>>,
    state: Mutex<State>,
}

struct State {
    queue: TransferQueue,
    waiting: BTreeMap<TicketId, oneshot::Sender<()>>,
    /// What hosts said last that do not answer.
    troubles: BTreeMap<Arc<str>, TransferError>,
}

impl Gate {
    /// With nobody in it. `patience` is how long one transfer waits for a host that is down or
    /// asked to be left alone, unless its retry budget ends before.
    pub fn new(limits: QueueLimits, patience: Duration) -> Self {
        let space_max = limits.space_max;
        let queue = TransferQueue::new(limits);
        let state = State { queue, waiting: BTreeMap::new(), troubles: BTreeMap::new() };
        let (begun, state) = (Instant::now(), Mutex::new(state));
        Self(Arc::new(Shared { begun, patience, space_max, spare: OnceLock::new(), state }))
    }

    /// Who has something to give up when transfers lack room. Only the first one is heard.
    pub(crate) fn may_spare(&self, spare: Weak<dyn Spare>) {
        self.0.spare.get_or_init(|| spare);
    }

    /// Waits for a connection to the host of this address; with room for so many bytes in all,
    /// when that is given.
    ///
    /// # Errors
    /// The host was down, or was to be left alone, for longer than the transfer may wait for it.
    pub(crate) async fn enter(
        &self,
        address: &Address,
        turn: &Turn,
        bytes: Option<u64>,
    ) -> Result<Permit, TransferError> {
        let host = address.host();
        let mut urgency = turn.urgency().watch();
        let request = Request {
            host: Arc::clone(host),
            scheme: Arc::clone(address.scheme()),
            priority: urgency.take(),
            // Who has room already goes before those who wait for the same room.
            room: turn.within_room().or_else(|| turn.room()).map(|room| (room, bytes.unwrap_or(0))),
        };
        let (sender, mut started) = oneshot::channel();
        let ticket = {
            let mut state = self.lock();
            let ticket = state.queue.request(self.now(), request);
            state.waiting.insert(ticket, sender);
            ticket
        };
        // From here on its place is given back however this ends.
        let permit = Permit::new(self.clone(), ticket, Arc::clone(host));
        self.pump();
        if bytes.is_some() {
            turn.keep_room(self);
        }
        let mut patience = Patience::new(self, turn);
        while let Some((wait, pause)) = patience.look(ticket, host)? {
            let woken = tokio::select! {
                biased;
                _ = &mut started => Woken::Started,
                priority = urgency.next() => Woken::Raised(priority),
                () = tokio::time::sleep(pause) => Woken::Looking,
            };
            patience.waited(wait);
            match woken {
                Woken::Started => break,
                Woken::Raised(priority) => self.lock().queue.raise(ticket, priority),
                Woken::Looking if matches!(wait, Wait::Room { .. }) => self.make_room(),
                Woken::Looking => {}
            }
            self.pump();
        }
        Ok(permit)
    }

    /// Waits until there is room for all bytes of something that takes many transfers; they come
    /// from the host of this address. Nobody goes beyond the bound before it has given it back.
    ///
    /// # Errors
    /// It is more than all of the room, or the host was down for too long.
    pub(crate) async fn enter_room(
        &self,
        address: &Address,
        turn: &Turn,
        bytes: u64,
    ) -> Result<(), TransferError> {
        let Some(max) = self.0.space_max else { return Ok(()) };
        if bytes > max {
            return Err(self.too_large(bytes));
        }
        let permit = self.enter(address, turn, Some(bytes)).await?;
        self.fill(turn);
        drop(permit);
        Ok(())
    }

    /// Whether there is a bound on the room.
    pub(crate) fn is_bounded(&self) -> bool {
        self.0.space_max.is_some()
    }

    /// One more connection to a host that somebody has one with already, if nobody else waits for
    /// it.
    pub fn enter_also(&self, address: &Address) -> Option<Permit> {
        let (host, scheme) = (address.host(), address.scheme());
        let ticket = self.lock().queue.request_extra(self.now(), host, scheme)?;
        Some(Permit::new(self.clone(), ticket, Arc::clone(host)))
    }

    /// Room for so many bytes of one transfer in all, at once or not at all.
    pub(crate) fn reserve(&self, turn: &Turn, bytes: u64) -> Reserved {
        let Some(room) = turn.room().filter(|_| self.0.space_max.is_some()) else {
            return Reserved::Yes;
        };
        let reserved = self.lock().queue.reserve(room, bytes);
        if reserved == Reserved::Yes {
            turn.keep_room(self);
        }
        reserved
    }

    /// So many bytes of a transfer are there, of which nobody knew how many would come.
    pub(crate) fn occupy(&self, turn: &Turn, bytes: u64) {
        if let Some(room) = turn.room().filter(|_| self.0.space_max.is_some()) {
            self.lock().queue.occupy(room, bytes);
            turn.keep_room(self);
        }
    }

    /// All bytes of a transfer are here, and about to be somebody else's matter.
    pub(crate) fn fill(&self, turn: &Turn) {
        if let Some(room) = turn.room() {
            self.lock().queue.fill(room);
        }
    }

    /// How many bytes have to go elsewhere so that one can start who waits for nothing but room.
    pub(crate) fn room_lacking(&self) -> Option<u64> {
        self.lock().queue.room_lacking(self.now())
    }

    /// Has given up what can be had again, as long as somebody waits for nothing but room.
    fn make_room(&self) {
        let Some(spare) = self.0.spare.get().and_then(Weak::upgrade) else { return };
        while self.room_lacking().is_some() && spare.give_up() {}
    }

    fn grant(&self, ticket: TicketId, bytes: u64) -> Duration {
        let now = self.now();
        self.lock().queue.grant(now, ticket, bytes)
    }

    fn release(&self, room: RoomId) {
        self.lock().queue.release(room);
        self.pump();
    }

    /// What else counts against the bound on room.
    pub(crate) fn set_elsewhere(&self, elsewhere: Elsewhere) {
        self.lock().queue.set_elsewhere(elsewhere);
        self.pump();
    }

    pub(crate) fn too_large(&self, bytes: u64) -> TransferError {
        TransferError::TooLarge { bytes, space_max: self.0.space_max.unwrap_or(u64::MAX) }
    }

    /// Lets in those whose turn it is.
    fn pump(&self) {
        let now = self.now();
        let mut state = self.lock();
        let mut started = Vec::new();
        state.queue.start(now, &mut started);
        for ticket in started {
            // Whoever has gone meanwhile gives the place back when its permit is dropped.
            if let Some(sender) = state.waiting.remove(&ticket)
                && sender.send(()).is_err()
            {
                tracing::trace!("a transfer was given up when its turn came");
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(1).after(self.0.begun.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let (under_way, queued) = (state.queue.under_way(), state.queue.queued());
        f.debug_struct("Gate")
            .field("under_way", &under_way)
            .field("queued", &queued)
            .finish_non_exhaustive()
    }
}

/// Why one who waits goes on.
enum Woken {
    Started,
    Raised(u8),
    Looking,
}

/// How long one who waits will go on, and what it has said.
struct Patience<'a> {
    gate: &'a Gate,
    turn: &'a Turn,
    until: Instant,
    began: Instant,
    since: Instant,
    said: Option<std::mem::Discriminant<Wait>>,
}

impl<'a> Patience<'a> {
    fn new(gate: &'a Gate, turn: &'a Turn) -> Self {
        let now = Instant::now();
        let until = turn.deadline().unwrap_or(now + gate.0.patience);
        Self { gate, turn, until, began: now, since: now, said: None }
    }

    /// Why it waits, and for how long until the next look; `None`: its turn has come.
    fn look(
        &mut self,
        ticket: TicketId,
        host: &str,
    ) -> Result<Option<(Wait, Duration)>, TransferError> {
        let now = self.gate.now();
        let (wait, trouble) = {
            let state = self.gate.lock();
            let Some(wait) = state.queue.waiting(now, ticket) else { return Ok(None) };
            (wait, state.troubles.get(host).cloned())
        };
        self.since = Instant::now();
        let left = self.until.saturating_duration_since(self.since);
        let mut pause = LOOK;
        if let Wait::Down { until, .. } | Wait::Asked { until } = wait {
            let due = until.since(now);
            if left.is_zero() || matches!(wait, Wait::Asked { .. }) && due > left {
                return Err(words::given_up(wait, host, now, trouble));
            }
            if !due.is_zero() {
                pause = pause.min(due);
            }
            pause = pause.min(left);
        }
        self.say(wait, host, now, trouble.as_ref());
        Ok(Some((wait, pause.max(Duration::from_millis(1)))))
    }

    fn say(&mut self, wait: Wait, host: &str, now: Timestamp, trouble: Option<&TransferError>) {
        let kind = std::mem::discriminant(&wait);
        let is_news = self.said != Some(kind);
        let left_alone = matches!(wait, Wait::Down { .. } | Wait::Asked { .. });
        if is_news && (left_alone || self.began.elapsed() >= LOOK) {
            self.said = Some(kind);
            self.turn.tell(&words::waits(wait, host, now, trouble));
        }
    }

    /// Time that passed while others had their turn is no fault of the host.
    fn waited(&mut self, wait: Wait) {
        if !matches!(wait, Wait::Down { .. } | Wait::Asked { .. }) {
            let span = self.since.elapsed();
            self.until += span;
            self.turn.excuse(span);
        }
    }
}
