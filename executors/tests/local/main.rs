//! The local executor, with a real warden and real processes.

mod conformance;
mod death;
mod support;
