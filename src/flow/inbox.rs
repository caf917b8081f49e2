//! Requests on their way to the loop. It takes in all of them at once, and is not woken for each:
//! only for the first one, and not while it looks by itself.

use super::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, PoisonError};

/// Requests that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Inbox<R> {
    /// Whether there is a request, for those who look without the lock.
    is_filled: AtomicBool,
    /// Whether the loop looks by itself before it sleeps.
    is_watched: AtomicBool,
    inner: Mutex<Inner<R>>,
    /// The loop has taken what was there.
    taken: Condvar,
    requests_max: usize,
}

#[derive(Debug)]
struct Inner<R> {
    requests: Vec<R>,
    /// Threads that wait until it is taken.
    waiting: usize,
    is_over: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// The loop is over: nobody will take it.
    Over,
    /// The loop sees it by itself.
    Seen,
    /// The loop may sleep: somebody has to wake it.
    Unseen,
}

impl<R> Inbox<R> {
    /// With room for so many of those that can wait for room.
    pub(crate) fn new(requests_max: usize) -> Self {
        let inner = Mutex::new(Inner { requests: Vec::new(), waiting: 0, is_over: false });
        let (is_filled, is_watched) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { is_filled, is_watched, inner, taken: Condvar::new(), requests_max }
    }

    pub(crate) fn tell(&self, request: R) -> Told {
        self.add(self.inner(), request)
    }

    /// The same; where too many wait already, when the loop has taken them. Not for the loop itself.
    pub(crate) fn tell_when_there_is_room(&self, request: R) -> Told {
        let mut inner = self.inner();
        while inner.requests.len() >= self.requests_max && !inner.is_over {
            inner.waiting += 1;
            inner = self.taken.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.waiting -= 1;
        }
        self.add(inner, request)
    }

    fn add(&self, mut inner: MutexGuard<'_, Inner<R>>, request: R) -> Told {
        if inner.is_over {
            return Told::Over;
        }
        let was_empty = inner.requests.is_empty();
        inner.requests.push(request);
        self.is_filled.store(true, Ordering::SeqCst);
        drop(inner);
        if was_empty && !self.is_watched.load(Ordering::SeqCst) {
            return Told::Unseen;
        }
        Told::Seen
    }

    /// What came since.
    pub(crate) fn take(&self) -> Vec<R> {
        let mut inner = self.inner();
        self.is_filled.store(false, Ordering::SeqCst);
        if inner.waiting > 0 {
            self.taken.notify_all();
        }
        std::mem::take(&mut inner.requests)
    }

    /// Whether anything came since. While this is asked again and again, nobody has to wake the loop.
    pub(crate) fn is_filled(&self) -> bool {
        self.is_filled.load(Ordering::SeqCst)
    }

    /// Says whether the loop looks by itself. True: something is there.
    pub(crate) fn set_watched(&self, is_watched: bool) -> bool {
        self.is_watched.store(is_watched, Ordering::SeqCst);
        self.is_filled()
    }

    /// Nothing more is taken; what came last is given back.
    pub(crate) fn shut(&self) -> Vec<R> {
        let mut inner = self.inner();
        inner.is_over = true;
        self.taken.notify_all();
        std::mem::take(&mut inner.requests)
    }

    fn inner(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
