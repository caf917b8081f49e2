//! Functions that are submitted are called, each once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use super::check;
use super::handle::Handle;
use super::workers::{Job, Turn, Workers};

/// What was called.
#[derive(Default)]
struct Calls {
    all: Mutex<Vec<u32>>,
    another: Condvar,
}

impl Calls {
    fn add(&self, job: u32) {
        self.all.lock().unwrap().push(job);
        self.another.notify_all();
    }

    /// All of them, when there are so many.
    fn wait_for(&self, many: usize) -> Vec<u32> {
        let mut all = self.all.lock().unwrap();
        while all.len() < many {
            all = self.another.wait(all).unwrap();
        }
        all.sort_unstable();
        all.clone()
    }
}

fn submit(workers: &Workers, calls: &Arc<Calls>, job: u32) {
    workers.submit(doing(calls, job));
}

fn doing(calls: &Arc<Calls>, job: u32) -> Job {
    let calls = Arc::clone(calls);
    Box::new(move |turn| {
        calls.add(job);
        turn
    })
}

#[test]
fn each_job_is_done_once_whoever_sleeps() {
    check(|| {
        let workers = Workers::start(2, 0, &Handle).unwrap();
        let calls = Arc::new(Calls::default());
        let submitters = [[1, 2], [3, 4]].map(|jobs| {
            let (workers, calls) = (workers.clone(), Arc::clone(&calls));
            thread::spawn(move || jobs.map(|job| submit(&workers, &calls, job)))
        });
        assert_eq!(calls.wait_for(4), [1, 2, 3, 4]);
        for submitter in submitters {
            submitter.join().unwrap();
        }
        workers.end();
    });
}

#[test]
fn each_job_is_done_also_when_a_thread_comes_back_that_was_replaced() {
    check(|| {
        let workers = Workers::start(1, 0, &Handle).unwrap();
        let (calls, replaced) = (Arc::new(Calls::default()), Arc::new(Calls::default()));
        let (own, noted, waits) = (workers.clone(), Arc::clone(&calls), Arc::clone(&replaced));
        workers.submit(Box::new(move |turn| {
            waits.wait_for(1);
            own.come_back();
            noted.add(1);
            turn
        }));
        assert!(workers.replace(&Handle));
        replaced.add(0);
        calls.wait_for(1);
        submit(&workers, &calls, 2);
        assert_eq!(calls.wait_for(2), [1, 2]);
        workers.end();
    });
}

#[test]
fn threads_end_when_they_are_to_whatever_is_left() {
    check(|| {
        let workers = Workers::start(2, 0, &Handle).unwrap();
        let own = workers.clone();
        let submitter = thread::spawn(move || own.submit(Box::new(|turn| turn)));
        workers.end();
        submitter.join().unwrap();
    });
}

#[test]
fn of_a_line_only_so_many_are_at_work() {
    check(|| {
        let workers = Workers::start(2, 2, &Handle).unwrap();
        let (calls, busy) = (Arc::new(Calls::default()), Arc::new(AtomicU32::new(0)));
        let job = |number: u32| -> (u16, Job) {
            let (calls, busy) = (Arc::clone(&calls), Arc::clone(&busy));
            let job = move |turn: Option<Turn>| {
                assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0, "one is at work");
                thread::yield_now();
                busy.fetch_sub(1, Ordering::SeqCst);
                calls.add(number);
                turn
            };
            (1, Box::new(job))
        };
        workers.line_up([job(1), job(2)], &[0, 1]);
        workers.line_up([job(3)], &[0, 1]);
        assert_eq!(calls.wait_for(3), [1, 2, 3]);
        workers.end();
    });
}

#[test]
fn a_line_that_stands_goes_on_when_it_is_told_to() {
    check(|| {
        let workers = Workers::start(2, 1, &Handle).unwrap();
        let calls = Arc::new(Calls::default());
        workers.line_up([(0, doing(&calls, 1)), (0, doing(&calls, 2))], &[0]);
        submit(&workers, &calls, 3);
        calls.wait_for(1);
        workers.line_up([], &[2]);
        assert_eq!(calls.wait_for(3), [1, 2, 3]);
        workers.end();
    });
}

#[test]
fn a_turn_that_somebody_else_gives_back_lets_the_next_one_begin() {
    check(|| {
        let workers = Workers::start(1, 1, &Handle).unwrap();
        let (calls, turns) = (Arc::new(Calls::default()), Arc::new(Mutex::new(Vec::new())));
        let (kept, noted) = (Arc::clone(&turns), Arc::clone(&calls));
        let first: Job = Box::new(move |turn| {
            kept.lock().unwrap().extend(turn);
            noted.add(1);
            None
        });
        workers.line_up([(0, first), (0, doing(&calls, 2))], &[1]);
        calls.wait_for(1);
        drop(turns.lock().unwrap().pop());
        assert_eq!(calls.wait_for(2), [1, 2]);
        workers.end();
    });
}
