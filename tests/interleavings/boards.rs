//! Who listens is told all, or how much was missed, and is woken.

use std::future::poll_fn;
use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;

use super::board::{Board, Listener, Next};
use super::check;

/// What was told or missed until the end; items come in their order.
fn listen(mut next: impl FnMut() -> Next<u64>) -> u64 {
    let (mut told, mut last) = (0, 0);
    loop {
        match next() {
            Next::Item(item) => {
                assert!(item > last, "in their order");
                (told, last) = (told + 1, item);
            }
            Next::Missed(missed) => told += missed,
            Next::Over => return told,
        }
    }
}

fn await_next(listener: &Listener<u64>) -> Next<u64> {
    block_on(poll_fn(|context| listener.poll_next(context.waker())))
}

#[test]
fn listeners_are_told_all_that_was_and_the_end() {
    check(|| {
        let board = Arc::new(Board::new());
        let (blocking, awaiting, slow) = (board.listen(8), board.listen(8), board.listen(1));
        let threads = [
            thread::spawn(move || listen(|| blocking.wait_next())),
            thread::spawn(move || listen(|| await_next(&awaiting))),
            thread::spawn(move || listen(|| slow.wait_next())),
        ];
        let own = Arc::clone(&board);
        let late = thread::spawn(move || {
            let late = own.listen(8);
            listen(|| late.wait_next())
        });
        for item in 1..=3 {
            board.tell(&item);
        }
        board.end();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 3);
        }
        assert!(late.join().unwrap() <= 3);
    });
}
