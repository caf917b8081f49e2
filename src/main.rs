//! The program `keelboat`.

use std::process::ExitCode;

fn main() -> ExitCode {
    keelboat::cli::main()
}
