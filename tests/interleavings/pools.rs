//! Functions that are submitted are called, each once.

use std::sync::Arc;

use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use super::check;
use super::handle::Handle;
use super::workers::Workers;

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
    let calls = Arc::clone(calls);
    workers.submit(move || calls.add(job));
}

#[test]
fn each_job_is_done_once_whoever_sleeps() {
    check(|| {
        let workers = Workers::start(2, &Handle).unwrap();
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
        let workers = Workers::start(1, &Handle).unwrap();
        let (calls, replaced) = (Arc::new(Calls::default()), Arc::new(Calls::default()));
        let (own, noted, waits) = (workers.clone(), Arc::clone(&calls), Arc::clone(&replaced));
        workers.submit(move || {
            waits.wait_for(1);
            own.come_back();
            noted.add(1);
        });
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
        let workers = Workers::start(2, &Handle).unwrap();
        let own = workers.clone();
        let submitter = thread::spawn(move || own.submit(|| {}));
        workers.end();
        submitter.join().unwrap();
    });
}
