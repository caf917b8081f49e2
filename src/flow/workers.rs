//! Threads that call functions.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::handle::Handle;
use super::pause::pause_until;
use super::sync::{
    AtomicBool, AtomicUsize, Builder, Condvar, Mutex, MutexGuard, Ordering, PoisonError,
};

/// What a thread is to do. What stands in a line has a turn while it is at it, and gives it back.
pub(crate) type Job = Box<dyn FnOnce(Option<Turn>) -> Option<Turn> + Send>;

/// Threads that were given up and go on, for which there are others.
const LOST_MAX: usize = 256;

/// A fixed number of threads. What the core lets run at one time is in one queue; what it launches
/// ahead stands in lines, of which only so many are at work at one time. Threads are not waited for at the end: nobody can stop a function that does not return.
/// Another one takes the place of a thread that was given up.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Jobs that a thread could begin, for those who look at it without its lock.
    length: AtomicUsize,
    /// Whether a thread looks for the next job before it sleeps; one is enough.
    is_watched: AtomicBool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// By the number of the pool.
    lines: Vec<Line>,
    idle: usize,
    /// Threads in whose places there are others.
    lost: usize,
    /// Of these, those that are back: so many threads have to end.
    back: usize,
    is_over: bool,
}

/// Jobs of which only so many are at work at one time.
#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    at_work: usize,
    at_work_max: usize,
}

impl Line {
    fn ready(&self) -> usize {
        self.jobs.len().min(self.at_work_max.saturating_sub(self.at_work))
    }
}

impl Queue {
    /// How many threads could be busy with what is there.
    fn ready(&self) -> usize {
        self.jobs.len() + self.lines.iter().map(Line::ready).sum::<usize>()
    }

    /// The next job, and its line if it stood in one.
    fn next(&mut self) -> Option<(Job, Option<usize>)> {
        if let Some(job) = self.jobs.pop_front() {
            return Some((job, None));
        }
        let at = self.lines.iter().position(|line| line.ready() > 0)?;
        let line = &mut self.lines[at];
        line.at_work += 1;
        Some((line.jobs.pop_front()?, Some(at)))
    }
}

/// One of those of a line that are at work. When it is dropped the next one may begin.
pub(crate) struct Turn {
    workers: Workers,
    line: usize,
    is_over: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            let mut queue = self.workers.queue();
            queue.lines[self.line].at_work -= 1;
            self.workers.call_up(queue);
        }
    }
}

impl Workers {
    /// So many threads, and so many lines.
    pub(crate) fn start(threads: usize, lines: usize, handle: &Handle) -> std::io::Result<Self> {
        let workers = Self(Arc::new(Shared::default()));
        workers.queue().lines.resize_with(lines, Line::default);
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

    pub(crate) fn submit(&self, job: Job) {
        let mut queue = self.queue();
        queue.jobs.push_back(job);
        self.call_up(queue);
    }

    /// Puts jobs into their lines, and says how many of each line may be at work from now on.
    pub(crate) fn line_up(
        &self,
        jobs: impl IntoIterator<Item = (u16, Job)>,
        at_work_max: &[usize],
    ) {
        let mut queue = self.queue();
        for (line, most) in queue.lines.iter_mut().zip(at_work_max) {
            line.at_work_max = *most;
        }
        for (line, job) in jobs {
            queue.lines[usize::from(line)].jobs.push_back(job);
        }
        self.call_up(queue);
    }

    /// Wakes threads for what can be begun.
    fn call_up(&self, queue: MutexGuard<'_, Queue>) {
        let ready = queue.ready();
        self.0.length.store(ready, Ordering::SeqCst);
        // Who watches takes one; each further one needs somebody to be woken.
        let watching = usize::from(self.0.is_watched.load(Ordering::SeqCst));
        let awaited = queue.idle.min(ready.saturating_sub(watching));
        drop(queue);
        for _ in 0..awaited {
            self.0.filled.notify_one();
        }
    }

    /// What is not begun is dropped; the threads end when they are free.
    pub(crate) fn end(&self) {
        let mut queue = self.queue();
        queue.is_over = true;
        let left = std::mem::take(&mut queue.jobs);
        let in_line: Vec<_> =
            queue.lines.iter_mut().map(|line| std::mem::take(&mut line.jobs)).collect();
        drop(queue);
        drop((left, in_line));
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
                return self.call_up(queue);
            }
            if let Some((job, line)) = queue.next() {
                self.0.length.store(queue.ready(), Ordering::SeqCst);
                drop(queue);
                let turn = line.map(|line| Turn { workers: self.clone(), line, is_over: false });
                // What a function had captured may panic when it is dropped.
                let left = catch_unwind(AssertUnwindSafe(|| job(turn)));
                queue = self.after(left.ok().flatten());
                continue;
            }
            queue.idle += 1;
            queue = self.0.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// This thread is free. If it has a turn it takes the next of its line, and nobody is woken.
    fn after(&self, turn: Option<Turn>) -> MutexGuard<'_, Queue> {
        if let Some(mut turn) = turn {
            turn.is_over = true;
            let mut queue = self.queue();
            queue.lines[turn.line].at_work -= 1;
            let ready = queue.ready();
            self.0.length.store(ready, Ordering::SeqCst);
            if ready > 0 {
                return queue;
            }
        }
        if self.0.length.load(Ordering::SeqCst) == 0 {
            self.watch();
        }
        self.queue()
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
