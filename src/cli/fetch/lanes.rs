//! Those who fetch many files: each asks for one file after the other.
//!
//! A task for each file, and a word to whoever waits for all of them, would cost more than a small
//! file does. So there are as many tasks as files are asked for at once, and what came is looked at
//! when it is worth while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;

use keelboat_staging::Stager;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::standing::{self, Met, Standing};
use super::{Problem, Watch, Wish};

/// Files that are asked for at once for each connection that there may be: the next one stands ready
/// when one has come, and a host that is slow keeps only some of them. Who waits takes up memory,
/// and room in the processor's cache.
const PER_CONNECTION: usize = 2;

/// Files that are asked for at once, whatever the number of connections.
const AT_ONCE_MAX: usize = 256;

/// Files that came and were not looked at; while there are as many, no further one is asked for.
const HEAP_MAX: usize = 1024;

/// So many of them are worth a look.
pub(super) const WORTH_A_LOOK: usize = HEAP_MAX / 2;

/// A wish that was looked into.
pub(super) type Wanted = (Arc<Wish>, Standing);

/// A wish that was met, or was not.
pub(super) type Answer = (Arc<Wish>, Result<Met, Problem>);

/// What all of them share.
pub(super) struct Lanes {
    rest: Mutex<vec::IntoIter<Wanted>>,
    heap: Mutex<Vec<Answer>>,
    room: Semaphore,
    worth_a_look: Notify,
}

impl Lanes {
    /// For these.
    pub(super) fn new(wanted: Vec<Wanted>) -> Arc<Self> {
        Arc::new(Self {
            rest: Mutex::new(wanted.into_iter()),
            heap: Mutex::default(),
            room: Semaphore::new(HEAP_MAX),
            worth_a_look: Notify::new(),
        })
    }

    /// Begins. When all of these have ended, so has everything that was wanted.
    pub(super) fn begin(
        self: &Arc<Self>,
        stager: &Stager,
        connections_max: usize,
        watch: &Arc<Watch>,
    ) -> JoinSet<()> {
        let at_once = connections_max.saturating_mul(PER_CONNECTION).clamp(1, AT_ONCE_MAX);
        let lanes = at_once.min(lock(&self.rest).len());
        let lane = |_| Arc::clone(self).run(stager.clone(), Arc::clone(watch));
        (0..lanes).map(lane).collect()
    }

    async fn run(self: Arc<Self>, stager: Stager, watch: Arc<Watch>) {
        while let Ok(room) = self.room.acquire().await {
            let Some((wish, standing)) = lock(&self.rest).next() else { return };
            let met = standing::meet(&stager, &wish, standing, &watch).await;
            room.forget();
            let is_news = !matches!(met, Ok(Met::Came(_)));
            let mut heap = lock(&self.heap);
            heap.push((wish, met));
            if is_news || heap.len() >= WORTH_A_LOOK {
                drop(heap);
                self.worth_a_look.notify_one();
            }
        }
    }

    /// Waits until there are answers that should be looked at.
    pub(super) async fn worth_a_look(&self) {
        self.worth_a_look.notified().await;
    }

    /// The answers so far.
    pub(super) fn take(&self) -> Vec<Answer> {
        let heap = std::mem::take(&mut *lock(&self.heap));
        self.room.add_permits(heap.len());
        heap
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
