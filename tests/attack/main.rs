//! Every promise attacked. What is promised, by what it is attacked and what came of it stands in
//! `docs/guarantees.md`.
//!
//! An attack is seeded and says its seed; it has two sizes. `cargo test --test attack -- NAME` is
//! the small one, `KEELBOAT_ATTACK=full` makes it the one for hours. What an attack has found stays
//! as a test with a name beside it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]
#![expect(clippy::print_stdout, reason = "attacks tell their seeds and figures")]

#[path = "../common/chance.rs"]
mod chance;
#[path = "../common/processes.rs"]
#[expect(dead_code, reason = "tests/system uses all of it")]
mod processes;
#[path = "../common/project.rs"]
#[expect(dead_code, reason = "tests/system uses all of it")]
mod project;

#[path = "../common/server.rs"]
#[expect(dead_code, reason = "tests/system uses all of it")]
mod server;

mod bout;
mod crash;
mod edits;
mod failures;
mod journal;
mod model;
mod names;
mod saved;
mod secrets;
mod sources;
mod storage;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = [
        crash::trials(),
        edits::trials(),
        failures::trials(),
        journal::trials(),
        names::trials(),
        secrets::trials(),
        sources::trials(),
        storage::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
