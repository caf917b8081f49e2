//! What a program gives away and forgets: its end must not stop a thread of ours.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Something of the program's. A panic while it is dropped is told, and ends there.
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self(Some(inner))
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let inner = self.0.take();
        // Nobody sees what it leaves half done: it is dropped for good.
        if catch_unwind(AssertUnwindSafe(|| drop(inner))).is_err() {
            tracing::error!("a value that a function had captured panicked when it was dropped");
        }
    }
}
