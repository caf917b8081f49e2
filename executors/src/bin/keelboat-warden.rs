//! The warden as a program of its own, for tests and for users of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    keelboat_executors::warden_main()
}
