//! Threads that call functions.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads with one queue. The queue is as long as the core lets tasks run at one
/// time. Threads are not waited for at the end: nobody can stop a function that does not return.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    is_over: bool,
}

impl Workers {
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let shared = Shared { queue: Mutex::default(), filled: Condvar::new() };
        let workers = Self(Arc::new(shared));
        for at in 0..threads {
            let own = workers.clone();
            std::thread::Builder::new().name(format!("call-{at}")).spawn(move || own.work())?;
        }
        Ok(workers)
    }

    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue();
        queue.jobs.push_back(Box::new(job));
        let is_awaited = queue.idle > 0;
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
        super::set_inside();
        let mut queue = self.queue();
        loop {
            if queue.is_over {
                return;
            }
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = self.queue();
                continue;
            }
            queue.idle += 1;
            queue = self.0.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
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
