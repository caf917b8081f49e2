//! What is told to all who listen, each of whom takes it when it likes: a bounded queue for each.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// All who listen.
#[derive(Debug)]
pub(crate) struct Board<T>(Mutex<Listeners<T>>);

#[derive(Debug)]
struct Listeners<T> {
    all: Vec<Weak<Queue<T>>>,
    is_over: bool,
}

/// One who listens.
#[derive(Debug)]
pub(crate) struct Listener<T>(Arc<Queue<T>>);

#[derive(Debug)]
struct Queue<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
    items_max: usize,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    /// Items that had to go before they were taken, since it was told of that.
    missed: u64,
    is_over: bool,
    wakers: Vec<Waker>,
}

/// What is next for somebody who listens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    Item(T),
    /// So many items came before the next one and are gone.
    Missed(u64),
    /// Nothing will come any more.
    Over,
}

impl<T: Clone> Board<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Listeners { all: Vec::new(), is_over: false }))
    }

    /// Listens from now on, and keeps no more than so many items.
    pub(crate) fn listen(&self, items_max: usize) -> Listener<T> {
        let mut listeners = self.listeners();
        let (items, wakers) = (VecDeque::new(), Vec::new());
        let inner = Inner { items, missed: 0, is_over: listeners.is_over, wakers };
        let (inner, filled) = (Mutex::new(inner), Condvar::new());
        let queue = Arc::new(Queue { inner, filled, items_max });
        listeners.all.push(Arc::downgrade(&queue));
        Listener(queue)
    }

    /// Tells all who listen. Nobody is waited for: who keeps too many loses the oldest.
    pub(crate) fn tell(&self, item: &T) {
        self.listeners().all.retain(|listener| {
            let Some(queue) = listener.upgrade() else { return false };
            let mut inner = queue.inner();
            if inner.items.len() >= queue.items_max {
                inner.items.pop_front();
                inner.missed += 1;
            }
            inner.items.push_back(item.clone());
            queue.wake(inner);
            true
        });
    }

    /// Nothing will come any more.
    pub(crate) fn end(&self) {
        let mut listeners = self.listeners();
        listeners.is_over = true;
        for queue in listeners.all.drain(..).filter_map(|listener| listener.upgrade()) {
            let mut inner = queue.inner();
            inner.is_over = true;
            queue.wake(inner);
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Listener<T> {
    /// What is next, if it is there.
    pub(crate) fn try_next(&self) -> Option<Next<T>> {
        self.0.inner().next()
    }

    /// What is next, when it is there.
    pub(crate) fn wait_next(&self) -> Next<T> {
        let mut inner = self.0.inner();
        loop {
            if let Some(next) = inner.next() {
                return next;
            }
            inner = self.0.filled.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is next, if it comes within this time.
    pub(crate) fn wait_next_for(&self, span: Duration) -> Option<Next<T>> {
        let begun = Instant::now();
        let mut inner = self.0.inner();
        loop {
            let next = inner.next();
            let left = span.saturating_sub(begun.elapsed());
            if next.is_some() || left.is_zero() {
                return next;
            }
            let waited = self.0.filled.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is next; otherwise the waker is told when something is.
    pub(crate) fn poll_next(&self, waker: &Waker) -> Poll<Next<T>> {
        let mut inner = self.0.inner();
        if let Some(next) = inner.next() {
            return Poll::Ready(next);
        }
        if !inner.wakers.iter().any(|known| known.will_wake(waker)) {
            inner.wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

impl<T> Queue<T> {
    fn wake(&self, mut inner: MutexGuard<'_, Inner<T>>) {
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        self.filled.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn next(&mut self) -> Option<Next<T>> {
        if self.missed > 0 {
            return Some(Next::Missed(std::mem::take(&mut self.missed)));
        }
        let item = self.items.pop_front().map(Next::Item);
        item.or_else(|| self.is_over.then_some(Next::Over))
    }
}
