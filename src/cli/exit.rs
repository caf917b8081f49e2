//! Exit codes, as `docs/command-line.md` lists them.

use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was asked for is done.
    Success = 0,
    /// A task or a transfer failed.
    Failed = 1,
    /// The arguments or the workflow file say something that cannot be.
    BadInput = 2,
    /// Another engine is at work in the project directory.
    Busy = 3,
    /// The engine cannot work: no room on the disk, no permission, no processes.
    Broken = 4,
    /// Something that was to be verified is damaged.
    Damaged = 5,
    /// Stopped by Ctrl-C or SIGTERM; the same command goes on.
    Interrupted = 130,
}

impl Exit {
    /// Of several things that went wrong, the one by which the program ends: what is wrong with this
    /// machine before what failed elsewhere, and that before what was asked for.
    pub(crate) fn or(self, other: Self) -> Self {
        let weight = |exit: Self| match exit {
            Self::Broken => 2,
            Self::Failed => 1,
            _ => 0,
        };
        if weight(self) >= weight(other) { self } else { other }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
