//! What the loop has to do with what attempts leave: checkpoints are saved in time and given up in
//! time, and scratch directories go.

use std::sync::Arc;

use keelboat_engine::core::Event;
use keelboat_engine::{AttemptId, TaskId};

use super::Driver;
use super::attempt::Attempt;

impl Driver<'_> {
    /// What a failed attempt left is saved before anything follows from its end. Where outputs could
    /// not be published, it was.
    pub(super) fn is_saved_first(&mut self, event: &Event) -> bool {
        if let Event::PublishFailed { attempt, .. } = event {
            self.succeeded.remove(&attempt.task);
        }
        let Event::AttemptEnded(outcome) = event else { return false };
        let Some(attempt) = self.attempts.get(&outcome.attempt) else { return false };
        let Some(checkpoint) = &attempt.checkpoint else { return false };
        checkpoint.end();
        if outcome.result.is_ok() || !checkpoint.take_left() {
            return false;
        }
        let (attempt, edges) = (Arc::clone(attempt), Arc::clone(&self.edges));
        let ended = event.clone();
        self.edges.pool.submit(move || attempt.save_left(ended, &edges));
        true
    }

    pub(super) fn snapshot(&self, attempt: AttemptId) {
        let Some(attempt) = self.attempts.get(&attempt).map(Arc::clone) else { return };
        let edges = Arc::clone(&self.edges);
        self.edges.checkpoints.pool.submit(move || {
            if let Some(checkpoint) = &attempt.checkpoint {
                checkpoint.save_running(&edges);
            }
        });
    }

    /// Until the record of an attempt that succeeded is durable, its task may have to run again, and
    /// then goes on from what it has in its directory.
    pub(super) fn keep_if_it_saves(&mut self, id: AttemptId, attempt: &Arc<Attempt>) {
        if attempt.checkpoint.is_some() {
            self.succeeded.insert(id.task, Arc::clone(attempt));
        }
    }

    /// Tasks are done, durably, and what they saved goes.
    pub(super) fn forget(&mut self, tasks: Vec<TaskId>) {
        for task in tasks {
            let rest = self.edges.checkpoints.forget(&self.core.spec(task).name);
            let attempt = self.succeeded.remove(&task);
            let edges = Arc::clone(&self.edges);
            self.edges.pool.submit(move || {
                rest();
                if let Some(attempt) = attempt {
                    attempt.keep_done(&edges);
                    attempt.clear(&edges);
                }
            });
        }
    }

    /// An attempt is over for good: its scratch directory goes away.
    pub(super) fn clear(&mut self, attempt: AttemptId) {
        if let Some(attempt) = self.attempts.remove(&attempt) {
            let edges = Arc::clone(&self.edges);
            self.edges.pool.submit(move || attempt.clear(&edges));
        }
    }

    /// Removes what the threads that nobody waits for have not come to. No attempt is left.
    pub(super) fn clear_scratch(&self) {
        let entries = std::fs::read_dir(self.edges.project.scratch());
        for entry in entries.into_iter().flatten().flatten() {
            if let Err(error) = keelboat_staging::remove_tree(&entry.path()) {
                tracing::debug!(%error, "a scratch directory stays until the next run");
            }
        }
    }
}
