//! Tests against real servers and real file systems.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and say what they skip"
)]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod buckets;
mod conformance;
mod connecting;
mod cuts;
mod fake_ftp;
mod faults;
mod ftp;
mod globus;
mod hostile;
mod in_place;
mod known;
mod local;
mod parallel;
mod queue;
mod resume;
mod sftp;
mod sharing;
mod upload;
mod writes;
