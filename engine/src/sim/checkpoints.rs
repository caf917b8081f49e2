//! What attempts save for the next ones: how far each of them came, and how much of that is kept.

use std::time::Duration;

use super::marks::Mark;
use super::oracle::Oracle;
use super::world::{Attempt, Deed, World};
use crate::core::{Core, Event, Phase};
use crate::{
    AttemptId, CheckpointOrigin, CheckpointSpec, Digest, Fact, FailureClass, MemoKey, TaskName,
    TaskSpec,
};

/// What was saved under one key of a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saved {
    /// How far the attempts came that worked on it, one after the other.
    progress: u32,
    ordinal: u32,
    /// By an engine of how many before it.
    life: u32,
}

/// What a task that is done has saved, until the facts before it are durable.
#[derive(Debug)]
pub(super) struct Forgetting {
    task: TaskName,
    facts: usize,
}

/// What an attempt of a task that saves checkpoints is about.
#[derive(Debug, Default)]
pub(super) struct Saving {
    progress: u32,
    /// Checkpoints of it that were reported.
    number: u32,
    /// Since when it was not saved; in milliseconds.
    since: u64,
    under_way: bool,
    /// It has ended, and what it left is being saved.
    pub(super) ending: bool,
}

/// Some tasks save checkpoints, some of these from time to time.
pub(super) fn of_task(seed: u64, spec: &TaskSpec) -> Option<CheckpointSpec> {
    let coin = Digest::of(format!("checkpoint {seed} {}", spec.name).as_bytes());
    let [has, timed, every, ..] = *coin.as_bytes();
    let period = Duration::from_millis(20 + u64::from(every % 64));
    let every = (timed < 128).then_some(period);
    (has < 100).then(|| CheckpointSpec { directory: "state".into(), every })
}

fn every(attempt: &Attempt) -> Option<u64> {
    let every = attempt.spec.options.checkpoint.as_ref()?.every?;
    Some(u64::try_from(every.as_millis()).unwrap())
}

impl World<'_> {
    /// An attempt begins: with what was saved under its key, if anything was.
    pub(super) fn restore(&mut self, id: AttemptId, attempt: &mut Attempt) {
        if attempt.spec.options.checkpoint.is_none() {
            return;
        }
        attempt.saving.since = self.now.0;
        let name = &attempt.spec.name;
        let other = self.saved.keys().any(|(task, key)| task == name && *key != attempt.key);
        let Some(saved) = self.saved.get(&(name.clone(), attempt.key)).copied() else {
            self.marks.hit_if(other, Mark::CheckpointOfAnotherKey);
            return;
        };
        attempt.saving.progress = saved.progress;
        let of_this = saved.life == self.lives;
        let mark = if of_this { Mark::RestoredOnRetry } else { Mark::RestoredByNextEngine };
        self.marks.hit(mark);
        self.marks.hit_if(!of_this && self.plan.program.is_some(), Mark::RestoredInProgram);
        let run = (!of_this).then(|| format!("life {}", saved.life).into());
        let from = CheckpointOrigin { run, ordinal: saved.ordinal, saved: self.now, bytes: 1 };
        self.after(0, Deed::Restored(id, from));
    }

    pub(super) fn restored(&self, attempt: AttemptId, from: CheckpointOrigin) -> Option<Event> {
        self.attempts.get(&attempt)?;
        Some(Event::CheckpointRestored { attempt, from })
    }

    /// An attempt is to be saved while it runs.
    pub(super) fn begin_snapshot(&mut self, id: AttemptId) {
        let now = self.now.0;
        let attempt = self.attempts.get_mut(&id).expect("only what runs is saved");
        let saving = &mut attempt.saving;
        assert!(!saving.under_way, "one checkpoint of an attempt at a time");
        saving.under_way = true;
        let (waited, every) = (now - saving.since, every(attempt));
        assert_eq!(Some(waited), every, "{} is saved as often as it says", attempt.spec.name);
        let wait = self.chance_to_save.span(1, 40);
        self.after(wait, Deed::Snapshot(id));
    }

    /// Whether every attempt that is to be saved by now is being saved.
    pub(super) fn check_snapshots(&self) {
        for attempt in self.attempts.values() {
            let saving = &attempt.saving;
            let busy = saving.under_way || saving.ending || attempt.publishing;
            if let Some(every) = every(attempt).filter(|_| !busy) {
                let waited = self.now.0 - saving.since;
                assert!(waited < every, "{} waited {waited} ms", attempt.spec.name);
            }
        }
    }

    pub(super) fn snapshot(&mut self, id: AttemptId) -> Option<Event> {
        let given_up = self.chance_to_save.one_in(5);
        let attempt = self.attempts.get_mut(&id)?;
        attempt.saving.under_way = false;
        attempt.saving.since = self.now.0;
        if given_up {
            self.marks.hit(Mark::SnapshotGivenUp);
            return Some(Event::CheckpointNotSaved { attempt: id });
        }
        self.marks.hit(Mark::Snapshotted);
        Some(self.save(id))
    }

    /// What a failed attempt left is saved, and then its end is reported.
    fn save_at_end(&mut self, id: AttemptId, ended: Event) -> Event {
        let wait = self.chance_to_save.span(0, 3);
        self.after(wait, Deed::Report(id, ended));
        self.attempts.get_mut(&id).expect("it ran").saving.ending = true;
        self.marks.hit(Mark::SavedAtEnd);
        self.marks.hit_if(self.attempts[&id].killed, Mark::SavedWhenKilled);
        self.save(id)
    }

    /// An attempt failed, to run or to be published. One that lacked an input has not begun, and has
    /// nothing to save.
    pub(super) fn fail(&mut self, id: AttemptId, ended: Event) -> Event {
        let has_begun = match &ended {
            Event::AttemptEnded(outcome) => {
                let failure = outcome.result.as_ref().err();
                failure.is_none_or(|failure| failure.class != FailureClass::InputMissing)
            }
            _ => true,
        };
        if has_begun && self.attempts[&id].spec.options.checkpoint.is_some() {
            return self.save_at_end(id, ended);
        }
        self.attempts.remove(&id);
        ended
    }

    pub(super) fn report(&mut self, attempt: AttemptId, ended: Event) -> Option<Event> {
        self.attempts.remove(&attempt).map(|_| ended)
    }

    fn save(&mut self, id: AttemptId) -> Event {
        let life = self.lives;
        let attempt = self.attempts.get_mut(&id).expect("it ran");
        attempt.saving.number += 1;
        let number = attempt.saving.number;
        let (place, saved) = advance(attempt, id.ordinal, life);
        self.saved.insert(place, saved);
        Event::CheckpointSaved { attempt: id, number, bytes: 1 }
    }

    /// What was not forgotten before the engine died is there for the next one.
    pub(super) fn lose_forgetting(&mut self) {
        self.marks.hit_if(!self.forgetting.is_empty(), Mark::CrashedBeforeForgetting);
        self.forgetting.clear();
    }

    /// An engine is gone. What its attempts left is saved by the next one, if they ended with
    /// nothing worse.
    pub(super) fn save_left_behind(&mut self) {
        let life = self.lives;
        self.lives += 1;
        let mut attempts = std::mem::take(&mut self.attempts);
        for (id, attempt) in &mut attempts {
            if attempt.spec.options.checkpoint.is_some() && self.chance_to_save.one_in(2) {
                let (place, saved) = advance(attempt, id.ordinal, life);
                self.saved.insert(place, saved);
                self.marks.hit(Mark::SavedByNextEngine);
            }
        }
    }
}

fn advance(attempt: &mut Attempt, ordinal: u32, life: u32) -> ((TaskName, MemoKey), Saved) {
    attempt.saving.progress += 1;
    let progress = attempt.saving.progress;
    ((attempt.spec.name.clone(), attempt.key), Saved { progress, ordinal, life })
}

impl Oracle {
    /// Each report is recorded, once.
    pub(super) fn check_saved(&mut self, task: &TaskName, ordinal: u32, world: &World<'_>) {
        let of_task = |(id, attempt): (&AttemptId, &Attempt)| {
            let same = attempt.spec.name == *task && id.ordinal == ordinal;
            same.then_some(attempt.saving.number)
        };
        let reported = world.attempts.iter().find_map(of_task);
        let number = self.saved.entry((task.clone(), ordinal)).or_default();
        *number += 1;
        assert_eq!(reported, Some(*number), "{task}.{ordinal} is recorded as saved");
    }

    pub(super) fn check_restored(&mut self, task: &TaskName, ordinal: u32) {
        let is_first = self.restored.insert((task.clone(), ordinal));
        assert!(is_first, "{task}.{ordinal} is recorded once as going on");
    }

    /// A task is done, and what it saved is not needed any more.
    pub(super) fn on_forget(&mut self, task: &TaskName, world: &mut World<'_>, core: &Core) {
        let id = core.graph().find(task).expect("a task of the plan");
        assert_eq!(core.phase(id), Phase::Done, "{task} is done");
        world.forgetting.push(Forgetting { task: task.clone(), facts: self.journal.len() });
        self.forget_durable(world);
    }

    /// Removes what is not needed by those who are done for good.
    pub(super) fn forget_durable(&self, world: &mut World<'_>) {
        let (durable, _) = self.journal.split_at(self.flushed);
        let due = world.forgetting.extract_if(.., |forgetting| forgetting.facts <= self.flushed);
        for Forgetting { task: done, .. } in due.collect::<Vec<_>>() {
            let is_done = |fact: &Fact| match fact {
                Fact::Completed { task, .. } | Fact::Reused { task, .. } => *task == done,
                _ => false,
            };
            assert!(durable.iter().any(is_done), "{done} is done before its checkpoints go");
            let before = world.saved.len();
            world.saved.retain(|(task, _), _| *task != done);
            world.marks.hit_if(world.saved.len() < before, Mark::CheckpointForgotten);
        }
    }

    /// A run is over, and with it all that it waited for. Of what is done, nothing is kept.
    pub(super) fn check_forgotten(&mut self, world: &mut World<'_>, core: &Core) {
        self.flushed = self.journal.len();
        self.forget_durable(world);
        for (task, _) in world.saved.keys() {
            let id = core.graph().find(task);
            assert!(
                id.is_none_or(|id| core.phase(id) != Phase::Done),
                "what {task} saved is kept although it is done"
            );
        }
    }
}
