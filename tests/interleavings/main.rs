//! What threads of a flow meet at, in thousands of the orders in which they can run.
//!
//! The modules are those of the library. Their locks, condition variables and threads are shuttle's here, which
//! chooses at each of them who goes on, and finds waits that nobody ends. A failure prints a schedule:
//! `shuttle::replay` runs it again. So many orders are tried: `KEELBOAT_ORDERS=100000 cargo test --test interleavings`.

#![expect(dead_code, unreachable_pub, reason = "the modules are used in part")]
#![expect(clippy::unwrap_used, reason = "these are tests")]

#[path = "../../src/flow/board.rs"]
mod board;
#[path = "../../src/flow/cell.rs"]
mod cell;
#[path = "../../src/flow/inbox.rs"]
mod inbox;
#[path = "../../src/flow/workers.rs"]
mod workers;

mod boards;
mod cells;
mod inboxes;
mod pools;

/// In the places of what the modules are made of.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread::Builder;
    pub(crate) use std::sync::PoisonError;
}

mod pause {
    /// Looks twice: there is no time here.
    pub(crate) fn pause_until(mut holds: impl FnMut() -> bool) -> bool {
        let is_so = holds();
        shuttle::thread::yield_now();
        is_so || holds()
    }
}

mod handle {
    #[derive(Clone)]
    pub(crate) struct Handle;

    impl Handle {
        #[expect(clippy::unused_self, reason = "as that of the library")]
        pub(crate) fn enter(&self) {}
    }
}

mod outputs {
    pub(crate) struct Made {
        pub(crate) outputs: Vec<Output>,
    }

    pub(crate) struct Output {
        pub(crate) path: std::sync::Arc<str>,
        pub(crate) deliver_to: Option<&'static str>,
    }
}

mod error {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct TaskError(pub(crate) &'static str);

    impl TaskError {
        pub(crate) fn value(_: &str, cause: &'static str) -> Self {
            Self(cause)
        }
    }

    impl std::fmt::Display for TaskError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
}

/// Tries a model in many orders: at random, and with few changes from one thread to another, which finds
/// what needs one of them at a bad moment.
fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    let orders = std::env::var("KEELBOAT_ORDERS").ok();
    let orders = orders.map_or(1_500, |orders| orders.parse().unwrap());
    shuttle::check_random(model.clone(), orders);
    shuttle::check_pct(model, orders, 3);
}
