//! Threads that call functions.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::handle::Handle;
use super::pause::pause_until;
use super::sync::{
    AtomicBool, AtomicUsize, Builder, Condvar, Mutex, MutexGuard, Ordering, PoisonError,
};

type Job = Box<dyn FnOnce() + Send>;

/// Threads that were given up and go on, for which there are others.
const LOST_MAX: usize = 256;

/// A fixed number of threads with one queue. The queue is as long as the core lets tasks run at one
/// time. Threads are not waited for at the end: nobody can stop a function that does not return.
/// Another one takes the place of a thread that was given up.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Jobs in the queue, for those who look at it without its lock.
    length: AtomicUsize,
    /// Whether a thread looks for the next job before it sleeps; one is enough.
    is_watched: AtomicBool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    /// Threads in whose places there are others.
    lost: usize,
    /// Of these, those that are back: so many threads have to end.
    back: usize,
    is_over: bool,
}

impl Workers {
    pub(crate) fn start(threads: usize, handle: &Handle) -> std::io::Result<Self> {
        let workers = Self(Arc::new(Shared::default()));
        (0..threads).try_for_each(|at| workers.begin(format!("call-{at}"), handle))?;
        Ok(workers)
    }

    fn begin(&self, name: String, handle: &Handle) -> std::io::Result<()> {
        let (own, handle) = (self.clone(), handle.clone());
        let thread = Builder::new().name(name).spawn(move || {
            handle.enter();
            own.work();
        });
        thread.map(drop)
    }

    /// Begins a thread in the place of one that nobody waits for. False: there is none to be had.
    pub(crate) fn replace(&self, handle: &Handle) -> bool {
        let mut queue = self.queue();
        if queue.lost >= LOST_MAX || queue.is_over {
            return false;
        }
        queue.lost += 1;
        drop(queue);
        let begun = self.begin("call-again".to_owned(), handle);
        if begun.is_err() {
            self.queue().lost -= 1;
        }
        begun.is_ok()
    }

    /// A thread is back that another one has replaced: one of all ends when it is free.
    pub(crate) fn come_back(&self) {
        let mut queue = self.queue();
        queue.lost -= 1;
        queue.back += 1;
    }

    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue();
        queue.jobs.push_back(Box::new(job));
        let length = queue.jobs.len();
        self.0.length.store(length, Ordering::SeqCst);
        // Who watches takes one; each further one needs somebody to be woken.
        let watching = usize::from(self.0.is_watched.load(Ordering::SeqCst));
        let is_awaited = queue.idle > 0 && length > watching;
        drop(queue);
        if is_awaited {
            self.0.filled.notify_one();
        }
    }

    /// What is not begun is dropped; the threads end when they are free.
    pub(crate) fn end(&self) {
        let mut queue = self.queue();
        queue.is_over = true;
        let left = std::mem::take(&mut queue.jobs);
        drop(queue);
        drop(left);
        self.0.filled.notify_all();
    }

    fn work(&self) {
        let mut queue = self.queue();
        loop {
            if queue.is_over {
                return;
            }
            if queue.back > 0 {
                queue.back -= 1;
                // What came while this thread watched is another one's: nobody was woken for it.
                let is_awaited = queue.idle > 0 && !queue.jobs.is_empty();
                drop(queue);
                if is_awaited {
                    self.0.filled.notify_one();
                }
                return;
            }
            if let Some(job) = queue.jobs.pop_front() {
                self.0.length.store(queue.jobs.len(), Ordering::SeqCst);
                drop(queue);
                // What a function had captured may panic when it is dropped.
                let _told = catch_unwind(AssertUnwindSafe(job));
                if self.0.length.load(Ordering::SeqCst) == 0 {
                    self.watch();
                }
                queue = self.queue();
                continue;
            }
            queue.idle += 1;
            queue = self.0.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// Looks for the next job for a moment: it mostly comes sooner than a thread can be woken.
    fn watch(&self) {
        if self.0.is_watched.swap(true, Ordering::SeqCst) {
            return;
        }
        pause_until(|| self.0.length.load(Ordering::SeqCst) > 0);
        self.0.is_watched.store(false, Ordering::SeqCst);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}
