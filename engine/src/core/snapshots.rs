//! Checkpoints of tasks: when a running one is saved, and when what was saved is not needed any more.
//!
//! Deliberately absent: which checkpoint an attempt goes on from. That is whichever whole one lies
//! under the task's key, and only who reads the bytes can tell that it is whole.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
use super::Phase;
use super::{Action, Core};
use crate::{AttemptId, CheckpointOrigin, Fact, Memoize, TaskId, Timestamp};

/// The attempts that save checkpoints, and the next moments at which they are to be saved.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    watches: BTreeMap<TaskId, Watch>,
    due: BTreeSet<(Timestamp, TaskId)>,
}

/// What is known of the checkpoints of one attempt.
#[derive(Debug, Default)]
struct Watch {
    next: Next,
    /// The last one that was reported as saved.
    number: u32,
    restored: bool,
}

/// When an attempt is to be saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    /// Only when it ends.
    #[default]
    AtItsEnd,
    /// Not before.
    Due(Timestamp),
    /// It is being saved.
    UnderWay,
}

impl Snapshots {
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// An attempt does not run any more, and is saved at its end only.
    pub(super) fn pause(&mut self, task: TaskId) {
        let Some(watch) = self.watches.get_mut(&task) else { return };
        if let Next::Due(due) = std::mem::take(&mut watch.next) {
            self.due.remove(&(due, task));
        }
    }

    /// An attempt is over.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.pause(task);
        self.watches.remove(&task);
    }
}

impl Core {
    /// Whether an attempt is to begin without what attempts of earlier runs have saved: the first
    /// one of a run with `--force`. What this run saves, it uses.
    pub fn begins_anew(&self, attempt: AttemptId) -> bool {
        attempt.ordinal == 1 && self.spec(attempt.task).options.memoize == Memoize::Refresh
    }

    /// An attempt was launched.
    pub(super) fn watch_checkpoints(&mut self, task: TaskId) {
        if self.spec(task).options.checkpoint.is_some() {
            self.snapshots.watches.insert(task, Watch::default());
            self.schedule_snapshot(task);
        }
    }

    /// The next one is due when so much time has passed since the end of the last one, so that
    /// a large one that takes long leaves the task time to compute.
    fn schedule_snapshot(&mut self, task: TaskId) {
        let every =
            self.spec(task).options.checkpoint.as_ref().and_then(|checkpoint| checkpoint.every);
        let due = every.map(|every| self.now.after(every));
        if let (Some(watch), Some(due)) = (self.snapshots.watches.get_mut(&task), due) {
            watch.next = Next::Due(due);
            self.snapshots.due.insert((due, task));
        }
    }

    pub(super) fn ask_for_snapshots(&mut self, actions: &mut Vec<Action>) {
        while let Some((due, task)) = self.snapshots.due.first().copied() {
            if due > self.now {
                return;
            }
            self.snapshots.due.pop_first();
            if let Some(watch) = self.snapshots.watches.get_mut(&task) {
                watch.next = Next::UnderWay;
                actions.push(Action::Snapshot { attempt: self.tasks[task.index()].attempt(task) });
            }
        }
    }

    pub(super) fn on_checkpoint_saved(
        &mut self,
        attempt: AttemptId,
        number: u32,
        bytes: u64,
        actions: &mut Vec<Action>,
    ) {
        if self.current(attempt).is_none() {
            return;
        }
        let Some(watch) = self.snapshots.watches.get_mut(&attempt.task) else { return };
        if number <= watch.number {
            return;
        }
        watch.number = number;
        let task = self.spec(attempt.task).name.clone();
        super::record(Fact::CheckpointSaved { task, ordinal: attempt.ordinal, bytes }, actions);
        self.on_snapshot_ended(attempt.task);
    }

    pub(super) fn on_checkpoint_not_saved(&mut self, attempt: AttemptId) {
        if self.current(attempt).is_some() {
            self.on_snapshot_ended(attempt.task);
        }
    }

    fn on_snapshot_ended(&mut self, task: TaskId) {
        let watch = self.snapshots.watches.get(&task);
        if watch.is_some_and(|watch| watch.next == Next::UnderWay) {
            self.schedule_snapshot(task);
        }
    }

    pub(super) fn on_checkpoint_restored(
        &mut self,
        attempt: AttemptId,
        from: CheckpointOrigin,
        actions: &mut Vec<Action>,
    ) {
        if self.current(attempt).is_none() {
            return;
        }
        let Some(watch) = self.snapshots.watches.get_mut(&attempt.task) else { return };
        if std::mem::replace(&mut watch.restored, true) {
            return;
        }
        let task = self.spec(attempt.task).name.clone();
        super::record(Fact::CheckpointRestored { task, ordinal: attempt.ordinal, from }, actions);
    }

    /// A task is done, now or by an earlier result: nobody goes on from what it saved.
    pub(super) fn forget_checkpoints(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        if self.spec(task).options.checkpoint.is_some() {
            self.snapshots.forget(task);
            actions.push(Action::ForgetCheckpoints { task });
        }
    }

    /// Panics when what is known of checkpoints contradicts the state of their tasks.
    #[cfg(test)]
    pub(super) fn check_snapshots(&self) {
        for (task, watch) in &self.snapshots.watches {
            let phase = self.phase(*task);
            let is_running = matches!(phase, Phase::Running(_));
            assert!(
                is_running || matches!(phase, Phase::Publishing(_)),
                "{task} is watched while an attempt of it is there"
            );
            assert!(self.spec(*task).options.checkpoint.is_some(), "{task} has a checkpoint");
            let is_timed =
                matches!(watch.next, Next::Due(due) if self.snapshots.due.contains(&(due, *task)));
            assert_eq!(is_timed, matches!(watch.next, Next::Due(_)), "{task} has its moment");
            let every = self.spec(*task).options.checkpoint.as_ref().and_then(|spec| spec.every);
            let wanted = is_running && every.is_some();
            assert_eq!(wanted, watch.next != Next::AtItsEnd, "{task} is saved while it runs");
        }
        let timed = self.snapshots.watches.values().filter(|w| matches!(w.next, Next::Due(_)));
        assert_eq!(timed.count(), self.snapshots.due.len(), "every moment belongs to an attempt");
    }
}
