//! The program `keelboat`.

use std::process::ExitCode;

/// A workflow of 100,000 tasks is millions of small texts: they are a tenth of what planning costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keelboat::cli::main()
}
