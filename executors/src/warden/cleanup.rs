//! Commands that remove what an attempt started elsewhere, such as a container of a daemon. Its
//! processes are nobody's children here, so that only who started them can end them.

use std::time::Duration;

use crate::wire::{Begin, Key};

/// How long one may take.
pub(super) const CLEANUP_MAX: Duration = Duration::from_secs(30);

/// One that runs.
#[derive(Debug)]
pub(super) struct Cleanup {
    pub(super) pid: i32,
    /// To be run again when this one is killed.
    pub(super) argv: Vec<String>,
}

/// How it is started: beside the attempt, with its mark, and without a word.
pub(super) fn begin(key: Key, argv: Vec<String>) -> Begin {
    let nowhere = b"/dev/null".to_vec();
    Begin {
        key,
        argv,
        directory: b"/".to_vec(),
        env: Vec::new(),
        stdout: nowhere.clone(),
        stderr: nowhere,
        timeout_ms: None,
        grace_ms: 0,
        memory_max_bytes: None,
        cleanup: Vec::new(),
    }
}
