//! Tests against real servers and real file systems.

#[path = "../common/mod.rs"]
mod common;

mod conformance;
mod faults;
mod local;
mod resume;
mod sharing;
