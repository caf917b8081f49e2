//! What threads meet at. The tests in `tests/interleavings` put others in their places, which try
//! the orders in which threads can run.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
pub(crate) use std::thread::Builder;
