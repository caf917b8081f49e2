//! Functions that are submitted are called, each once.

use std::sync::Arc;

use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use super::check;
use super::handle::Handle;
use super::workers::Workers;

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
}

#[test]
fn each_job_is_done_once_whoever_sleeps() {
    check(|| {
        let workers = Workers::start(2, &Handle).unwrap();
        let calls = Arc::new(Calls::default());
        let submitters = [[1, 2], [3, 4]].map(|jobs| {
            let (workers, calls) = (workers.clone(), Arc::clone(&calls));
            thread::spawn(move || {
                jobs.map(|job| {
                    let calls = Arc::clone(&calls);
                    workers.submit(move || calls.add(job));
                })
            })
        });
        let mut all = calls.all.lock().unwrap();
        while all.len() < 4 {
            all = calls.another.wait(all).unwrap();
        }
        all.sort_unstable();
        assert_eq!(*all, [1, 2, 3, 4]);
        drop(all);
        for submitter in submitters {
            submitter.join().unwrap();
        }
        workers.end();
    });
}

#[test]
fn threads_end_when_they_are_to_whatever_is_left() {
    check(|| {
        let workers = Workers::start(2, &Handle).unwrap();
        let own = workers.clone();
        let submitter = thread::spawn(move || own.submit(|| {}));
        workers.end();
        submitter.join().unwrap();
    });
}

#[test]
fn a_thread_that_is_lost_is_replaced_until_it_is_back() {
    check(|| {
        let workers = Workers::start(1, &Handle).unwrap();
        let calls = Arc::new(Calls::default());
        let (own, others) = (workers.clone(), Arc::clone(&calls));
        workers.submit(move || {
            // It waits for what only another thread can do.
            let mut all = others.all.lock().unwrap();
            while all.is_empty() {
                all = others.another.wait(all).unwrap();
            }
            drop(all);
            own.come_back();
            others.add(2);
        });
        assert!(workers.replace(&Handle));
        let others = Arc::clone(&calls);
        workers.submit(move || {
            others.all.lock().unwrap().push(1);
            others.another.notify_all();
        });
        let others = Arc::clone(&calls);
        workers.submit(move || others.add(3));
        let mut all = calls.all.lock().unwrap();
        while all.len() < 3 {
            all = calls.another.wait(all).unwrap();
        }
        drop(all);
        workers.end();
    });
}
