//! Whoever waits for a task is told how it ended, and all are told the same.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use shuttle::future::block_on;
use shuttle::sync::Mutex;
use shuttle::thread;

use super::cell::{Cell, Ended};
use super::check;
use super::error::TaskError;
use super::outputs::{Made, Output};

/// One output at this path, which is to be sent somewhere.
fn sent(path: &str) -> Made {
    Made { outputs: vec![Output { path: path.into(), deliver_to: Some("s3://bucket/out") }] }
}

fn wait(cell: &Cell) -> Ended {
    block_on(poll_fn(|context| cell.poll(context.waker()).map_or(Poll::Pending, Poll::Ready)))
}

fn wait_for_output(cell: &Cell, path: &str) -> Result<(), TaskError> {
    let poll = |found: Option<_>| found.map_or(Poll::Pending, Poll::Ready);
    block_on(poll_fn(|context| poll(cell.poll_output(path, context.waker()))))
}

#[test]
fn all_who_wait_are_told_what_came_first() {
    check(|| {
        let cell = Cell::new();
        let hooked = Arc::new(Mutex::new(Vec::new()));
        let hook = |hooked: &Arc<Mutex<Vec<Ended>>>| {
            let hooked = Arc::clone(hooked);
            move |ended: &Ended| hooked.lock().unwrap().push(ended.clone())
        };
        cell.when_over(hook(&hooked));
        let waiters = [(), ()].map(|()| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || wait(&cell))
        });
        // It is done, and somebody cancels it.
        let enders = [Ok(Arc::from([7])), Err(TaskError("it was cancelled"))].map(|ended| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || cell.end(ended))
        });
        cell.when_over(hook(&hooked));
        let told = wait(&cell);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), told);
        }
        for ender in enders {
            ender.join().unwrap();
        }
        assert_eq!(*hooked.lock().unwrap(), [told.clone(), told], "each hook once");
    });
}

#[test]
fn an_output_is_there_when_its_task_is_done_and_it_was_sent() {
    check(|| {
        let cell = Cell::making(sent("out"));
        let waiters = ["out", "other"].map(|path| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || wait_for_output(&cell, path))
        });
        let own = Arc::clone(&cell);
        let loop_of_the_flow = thread::spawn(move || {
            own.end(Ok(Arc::from([])));
            own.set_sent("out", Err(TaskError("no bucket")));
        });
        let [out, other] = waiters.map(|waiter| waiter.join().unwrap());
        assert_eq!((out, other), (Err(TaskError("no bucket")), Ok(())));
        loop_of_the_flow.join().unwrap();
    });
}

#[test]
fn who_waits_for_an_output_is_told_when_it_is_given_up() {
    check(|| {
        let cell = Cell::making(sent("out"));
        let own = Arc::clone(&cell);
        let waiter = thread::spawn(move || wait_for_output(&own, "out"));
        let own = Arc::clone(&cell);
        let loop_of_the_flow = thread::spawn(move || {
            own.end(Ok(Arc::from([])));
            own.give_up_sending(&TaskError("the flow is over"));
        });
        assert_eq!(waiter.join().unwrap(), Err(TaskError("the flow is over")));
        loop_of_the_flow.join().unwrap();
    });
}
