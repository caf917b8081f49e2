//! What must hold after every step, in one function. Its time is linear in the run: for tests.

use super::task::{Counted, Knowledge};
use super::{Core, Phase};
use crate::TaskId;

impl Core {
    /// Panics when the state contradicts itself.
    pub(crate) fn check_invariants(&self) {
        self.transfers.check_invariants();
        self.check_ranks();
        self.check_kept();
        self.check_site_invariants();
        let mut running = 0;
        for task in (0..self.counts.total).map(TaskId) {
            let state = &self.tasks[task.index()];
            let is_launched = matches!(state.phase, Phase::Running(_));
            running += u32::from(is_launched && !self.is_in_line(task));
            self.check_task(task);
        }
        assert_eq!(running, self.counts.running, "running tasks are counted");
        let mut ready = self.ready.tasks();
        assert!(ready.all(|task| self.phase(task) == Phase::Ready), "what is among them is ready");
        let waits = |(_, task): &(_, TaskId)| self.phase(*task) == Phase::Backoff;
        assert!(self.timers.iter().all(waits), "what has a timer waits for its next try");
        self.check_snapshots();
        let mut joining = self.sites.joining.iter();
        let publishing = |task: &TaskId| matches!(self.phase(*task), Phase::Publishing(_));
        assert!(joining.all(publishing), "who waits for another task is being published");
    }

    fn check_task(&self, task: TaskId) {
        let state = &self.tasks[task.index()];
        let node = self.graph.task(task);
        let unknown = node
            .inputs
            .iter()
            .filter(|file| self.files[file.index()].knowledge == Knowledge::Unknown);
        let unknown = super::number(unknown.count());
        if state.phase == Phase::Waiting {
            assert!(state.missing >= unknown, "{task} waits for each unknown input");
            assert!(state.missing > 0, "{task} waits for something");
        }
        if matches!(state.phase, Phase::Running(_) | Phase::Publishing(_) | Phase::Done) {
            assert_eq!(unknown, 0, "{task} started with every input known");
            assert!(state.key().is_some(), "{task} started with a key");
        }
        let counted = match state.counted {
            Counted::No => !state.phase.is_final(),
            Counted::Completed | Counted::Reused => !matches!(state.phase, Phase::Skipped),
            Counted::Failed => state.phase == Phase::Failed,
            Counted::Skipped => state.phase == Phase::Skipped,
        };
        assert!(counted, "{task} is {:?} and counted as {:?}", state.phase, state.counted);
        let is_revived = state.counted != Counted::No && !state.phase.is_final();
        assert_eq!(is_revived, self.reviving.contains(&task), "{task} is done again, or is not");
        let turn = self.turn(task).0;
        let is_ready = |first_time| self.ready.contains(state.kind, (first_time, turn, task));
        let ready = u32::from(is_ready(true)) + u32::from(is_ready(false));
        assert_eq!(u32::from(state.phase == Phase::Ready), ready, "{task} is ready once");
        let due = self.timers.contains(&(state.due, task));
        assert!(state.phase != Phase::Backoff || due || self.stopping(), "{task} wakes up again");
        if let Phase::Fetching(site) = state.phase {
            let waits = node.inputs.iter().filter(|file| self.transfers.waits(**file, site, task));
            let waits: std::collections::BTreeSet<_> = waits.collect();
            assert_eq!(super::number(waits.len()), state.lacking, "{task} waits for what it lacks");
            assert!(state.lacking > 0, "{task} waits for some file");
        }
    }
}
