//! Full disks: a task on one fails and can hardly say why, since its log has no room either.

use std::path::Path;

use keelboat_engine::core::Event;
use keelboat_engine::{AttemptOutcome, FailureClass};
use nix::sys::statvfs::statvfs;

use crate::project::Project;

/// A disk with less is full, in bytes.
const ROOM_MIN: u64 = 64 << 10;

/// Tells of a full disk where a task just says that it failed. Returns whether what happened did so
/// because the disk is full.
pub(super) fn look(event: &mut Event, project: &Project) -> bool {
    match event {
        Event::AttemptEnded(outcome) if outcome.result.is_err() => {
            let scratch = &project.scratch();
            explain(outcome, scratch);
            let failure = outcome.result.as_ref().err();
            failure.is_some_and(|failure| failure.class == FailureClass::OutOfResources)
                && is_full(scratch)
        }
        Event::PublishFailed { failure, .. } => failure.class == FailureClass::OutOfResources,
        _ => false,
    }
}

fn explain(outcome: &mut AttemptOutcome, scratch: &Path) {
    let Err(failure) = &mut outcome.result else { return };
    if failure.class != FailureClass::Transient || !is_full(scratch) {
        return;
    }
    failure.class = FailureClass::OutOfResources;
    failure.cause.push_str(", and the disk is full");
    let place = scratch.display();
    failure.hint =
        Some(format!("make room on the disk that holds {place}; then the same command goes on"));
}

/// Whether there are no blocks, or no inodes. Some file systems do not count inodes.
fn is_full(path: &Path) -> bool {
    statvfs(path).is_ok_and(|found| {
        let room = found.blocks_available().saturating_mul(found.fragment_size());
        room < ROOM_MIN || (found.files() > 0 && found.files_available() == 0)
    })
}
