//! Who waits for what: errands for the same files share one parcel, parcels of the same route
//! travel in one task, and records of an earlier life are found again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Notify, watch};

use super::document::{Item, Route};
use super::record::Kept;
use crate::fetch::Progress;
use crate::protocol::TransferError;

/// What makes two errands one.
pub(super) type Key = (Route, Item);

/// Parcels of one identity and one route wait together.
pub(super) type QueueKey = (String, Route);

/// The remote address, redacted, and who watches.
pub(super) type Observer = (Arc<str>, Arc<dyn Progress>);

/// How a parcel ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Globus has moved it. `is_fresh`: in this life of the process.
    Arrived { is_fresh: bool },
    /// It will not come.
    Failed(TransferError),
    /// Its task ended for the sake of others, or before this life: it needs another one, which is
    /// its own when that is so.
    Displaced { alone: bool },
}

/// One file or directory that somebody waits for.
pub(super) struct Parcel {
    pub(super) key: Key,
    /// What the local file was, when it is sent.
    pub(super) stamp: Option<String>,
    pub(super) is_alone: bool,
    /// Whether anybody has asked for it in this life.
    was_asked: OnceLock<()>,
    /// Changed under the lock of the board.
    tickets: AtomicUsize,
    observers: Mutex<Vec<Observer>>,
    outcome: watch::Sender<Option<Outcome>>,
    /// Its record, once the task has ended well.
    landed: OnceLock<Arc<Landed>>,
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parcel").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The record of a task that ended well, until all results are taken.
#[derive(Debug)]
pub(super) struct Landed {
    kept: Kept,
    untaken: AtomicUsize,
}

impl Landed {
    pub(super) fn new(kept: Kept) -> Arc<Self> {
        let untaken = AtomicUsize::new(kept.record.document.items.len());
        Arc::new(Self { kept, untaken })
    }

    fn take_one(&self) {
        if self.untaken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.kept.remove();
        }
    }
}

/// What an errand wants of the board.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) key: Key,
    pub(super) stamp: Option<String>,
    pub(super) alone: bool,
    pub(super) observer: Option<Observer>,
}

/// Somebody waits; dropped, nobody of that errand does any more.
#[derive(Debug)]
pub(super) struct Ticket {
    parcel: Arc<Parcel>,
    board: Arc<Board>,
}

/// What is to be done after [`Board::join`].
#[derive(Debug)]
pub(super) enum Joined {
    /// Nothing: it is on its way.
    Waiting(Ticket),
    /// The first one of its queue: somebody has to see to the queue.
    Queued(Ticket, QueueKey),
    /// An earlier life has left a record: its task is to be followed.
    Found(Ticket, Box<Kept>, Vec<Arc<Parcel>>),
}

/// All parcels.
#[derive(Debug, Default)]
pub(super) struct Board {
    state: Mutex<State>,
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    parcels: BTreeMap<Key, Arc<Parcel>>,
    queues: BTreeMap<QueueKey, Vec<Arc<Parcel>>>,
    /// Records of earlier lives that nobody has asked for yet.
    dormant: BTreeMap<Key, PathBuf>,
}

impl Parcel {
    fn new(key: Key, stamp: Option<String>, is_alone: bool) -> Arc<Self> {
        Arc::new(Self {
            key,
            stamp,
            is_alone,
            was_asked: OnceLock::new(),
            tickets: AtomicUsize::new(0),
            observers: Mutex::default(),
            outcome: watch::Sender::new(None),
            landed: OnceLock::new(),
        })
    }

    /// Shows an event to all who watch, each with the address that it knows.
    pub(super) fn tell(&self, show: impl Fn(&str, &dyn Progress)) {
        let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner);
        observers.iter().for_each(|(source, observer)| show(source, observer.as_ref()));
    }

    fn is_awaited(&self) -> bool {
        self.tickets.load(Ordering::Acquire) > 0
    }

    fn has_ended(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Whether this result was waited for since an earlier life, and not handed out yet.
    fn is_inherited(&self) -> bool {
        self.was_asked.get().is_none()
    }
}

impl Ticket {
    pub(super) async fn outcome(&self) -> Outcome {
        let mut outcome = self.parcel.outcome.subscribe();
        let ended = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        // The sender is in the parcel that this holds.
        ended.ok().flatten().unwrap_or(Outcome::Displaced { alone: false })
    }

    pub(super) fn stamp(&self) -> Option<&str> {
        self.parcel.stamp.as_deref()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.board.leave(&self.parcel);
    }
}

impl Board {
    /// Adds what an earlier life has left. What is known already stays.
    pub(super) fn add_dormant(&self, found: impl IntoIterator<Item = (Key, PathBuf)>) {
        let mut state = self.lock();
        for (key, path) in found {
            state.dormant.entry(key).or_insert(path);
        }
    }

    pub(super) fn has_dormant(&self, key: &Key) -> bool {
        self.lock().dormant.contains_key(key)
    }

    /// A place in the parcel of this order: one on its way, one of an earlier life, or a new one.
    pub(super) fn join(self: &Arc<Self>, order: Order, account: &str) -> Joined {
        let mut state = self.lock();
        if let Some(parcel) = state.parcels.get(&order.key)
            && (!parcel.has_ended() || parcel.is_inherited())
        {
            let parcel = Arc::clone(parcel);
            return Joined::Waiting(self.ticket(&parcel, order.observer));
        }
        if let Some(kept) = state.wake(&order.key) {
            let parcels = state.adopt(&kept);
            if let Some(mine) = parcels.iter().find(|parcel| parcel.key == order.key) {
                let ticket = self.ticket(mine, order.observer);
                return Joined::Found(ticket, Box::new(kept), parcels);
            }
        }
        let parcel = Parcel::new(order.key.clone(), order.stamp, order.alone);
        let ticket = self.ticket(&parcel, order.observer);
        let queue = (account.to_owned(), order.key.0.clone());
        state.parcels.insert(order.key, Arc::clone(&parcel));
        if let Some(waiting) = state.queues.get_mut(&queue) {
            waiting.push(parcel);
            return Joined::Waiting(ticket);
        }
        state.queues.insert(queue.clone(), vec![parcel]);
        Joined::Queued(ticket, queue)
    }

    fn ticket(self: &Arc<Self>, parcel: &Arc<Parcel>, observer: Option<Observer>) -> Ticket {
        parcel.tickets.fetch_add(1, Ordering::AcqRel);
        parcel.was_asked.get_or_init(|| ());
        let mut observers = parcel.observers.lock().unwrap_or_else(PoisonError::into_inner);
        observers.extend(observer);
        Ticket { parcel: Arc::clone(parcel), board: Arc::clone(self) }
    }

    fn leave(&self, parcel: &Arc<Parcel>) {
        let mut state = self.lock();
        let was_last = parcel.tickets.fetch_sub(1, Ordering::AcqRel) == 1;
        if was_last && parcel.has_ended() {
            state.forget(parcel);
            if let Some(landed) = parcel.landed.get() {
                landed.take_one();
            }
        }
        drop(state);
        if was_last {
            self.left.notify_waiters();
        }
    }

    /// The parcels for the next task of a queue: up to so many, or one that goes alone. `None`: the
    /// queue is over. Parcels that nobody waits for any more are dropped.
    pub(super) fn take(&self, queue: &QueueKey, items_max: usize) -> Option<Vec<Arc<Parcel>>> {
        let mut state = self.lock();
        let waiting = state.queues.remove(queue).unwrap_or_default();
        let (mut waiting, given_up): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|parcel| parcel.is_awaited());
        for parcel in &given_up {
            state.forget(parcel);
        }
        if waiting.is_empty() {
            return None;
        }
        let mut taken: Vec<Arc<Parcel>> = Vec::new();
        let mut left = Vec::new();
        for parcel in waiting.drain(..) {
            let fits = match taken.first() {
                None => true,
                Some(first) => !first.is_alone && !parcel.is_alone && taken.len() < items_max,
            };
            if fits { taken.push(parcel) } else { left.push(parcel) }
        }
        // The same files make the same document, in whatever order they were asked for.
        taken.sort_by(|one, other| one.key.cmp(&other.key));
        state.queues.insert(queue.clone(), left);
        Some(taken)
    }

    /// Those who wait in a queue.
    pub(super) fn queued(&self, queue: &QueueKey) -> Vec<Arc<Parcel>> {
        self.lock().queues.get(queue).cloned().unwrap_or_default()
    }

    /// Whether nobody waits for any of these.
    pub(super) fn is_given_up(&self, parcels: &[Arc<Parcel>]) -> bool {
        let _state = self.lock();
        !parcels.iter().any(|parcel| parcel.is_awaited())
    }

    /// Wakes up when somebody has left.
    pub(super) fn left(&self) -> tokio::sync::futures::Notified<'_> {
        self.left.notified()
    }

    /// A task has ended. `landed` is its record if results are to be taken.
    pub(super) fn end(
        &self,
        ended: impl IntoIterator<Item = (Arc<Parcel>, Outcome)>,
        landed: Option<&Arc<Landed>>,
    ) {
        let mut state = self.lock();
        for (parcel, outcome) in ended {
            let is_there = matches!(outcome, Outcome::Arrived { .. });
            let awaits = parcel.is_awaited() || parcel.is_inherited();
            parcel.outcome.send_replace(Some(outcome));
            if is_there && awaits {
                if let Some(landed) = landed {
                    parcel.landed.get_or_init(|| Arc::clone(landed));
                }
                continue;
            }
            state.forget(&parcel);
            if let Some(landed) = landed {
                landed.take_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the parcel away, unless another one has its place by now.
    fn forget(&mut self, parcel: &Arc<Parcel>) {
        if self.parcels.get(&parcel.key).is_some_and(|there| Arc::ptr_eq(there, parcel)) {
            self.parcels.remove(&parcel.key);
        }
    }

    /// The record of an earlier life for this key.
    fn wake(&mut self, key: &Key) -> Option<Kept> {
        let path = self.dormant.remove(key)?;
        self.dormant.retain(|_, other| *other != path);
        Kept::take(&path)
    }

    /// A parcel for each item of a record.
    fn adopt(&mut self, kept: &Kept) -> Vec<Arc<Parcel>> {
        let document = &kept.record.document;
        let route = document.route();
        let items = document.items.iter().zip(&kept.record.stamps);
        items
            .map(|(item, stamp)| {
                let parcel = Parcel::new((route.clone(), item.clone()), stamp.clone(), false);
                // What is under way by another task stays so: that one's result is the newer one.
                self.parcels.entry(parcel.key.clone()).or_insert_with(|| Arc::clone(&parcel));
                parcel
            })
            .collect()
    }
}
