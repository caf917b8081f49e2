//! The library: programs that are workflows.
//!
//! A program of its own, since a program that runs commands begins with `keelboat::init`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]
#![expect(clippy::async_yields_async, reason = "that is what a join is")]
#![expect(clippy::needless_pass_by_value, reason = "functions are given values")]

mod calls;
mod commands;
mod durability;
mod failures;
mod files;
mod observing;
mod options;
mod order;
mod reading;
mod resuming;
mod scratch;
mod spans;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use keelboat::flow::{Config, Flow};
use libtest_mimic::{Arguments, Trial};

/// Long enough for a loaded machine.
const SOON: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    keelboat::init();
    let child = resuming::run_if_child().or_else(files::run_if_child);
    if let Some(code) = child.or_else(durability::run_if_child) {
        return code;
    }
    spans::listen();
    let arguments = Arguments::from_args();
    let trials = [
        calls::trials(),
        commands::trials(),
        durability::trials(),
        failures::trials(),
        files::trials(),
        observing::trials(),
        options::trials(),
        order::trials(),
        reading::trials(),
        resuming::trials(),
        scratch::trials(),
        spans::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

/// A test that fails by a panic.
fn trial(name: &'static str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// Fails when that does not hold in time.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A flow in a directory of its own.
struct Case {
    flow: Flow,
    directory: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let flow = Flow::open(change(Config::new(directory.path()).cores(2))).expect("a flow");
        Self { flow, directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path().join(path), text).expect("a file");
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path().join(path)).expect("a file")
    }
}
