//! What a journal says of a run, folded task by task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keelboat_checkpoint::{Damage, Recovered};
use keelboat_engine::{
    CheckpointOrigin, Fact, Failure, MemoKey, MemoRecord, Reason, Reuse, RunOutcome, Stamped,
    TaskName, Timestamp, Usage,
};

/// One run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Picture {
    /// The engine that took it up last.
    pub(crate) engine: Option<Engine>,
    /// How many engines took it up: more than one after a crash.
    pub(crate) engines: u32,
    /// When the first engine took it up.
    pub(crate) started: Option<Timestamp>,
    /// The last moment in the journal.
    pub(crate) last: Option<Timestamp>,
    /// Tasks in the graph.
    pub(crate) total: u64,
    /// Tasks of which something is known.
    pub(crate) tasks: BTreeMap<TaskName, TaskPicture>,
    /// Remote files that came.
    pub(crate) fetched: u64,
    /// Bytes that came over the network for them.
    pub(crate) transferred: u64,
    /// How it ended; `None`: not yet.
    pub(crate) outcome: Option<RunOutcome>,
    /// Stretches of the journal that cannot be read.
    pub(crate) damaged: Vec<Damage>,
}

/// Who works on a run.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) pid: u32,
    pub(crate) host: String,
    pub(crate) version: String,
    pub(crate) workflow: String,
    /// Empty: a program that is a workflow by itself.
    pub(crate) file: String,
}

/// One task of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskPicture {
    pub(crate) attempts: Vec<AttemptPicture>,
    /// The result that it has, made in this run or before.
    pub(crate) result: Option<Made>,
    /// How the result was found again: at all, or after a crash.
    pub(crate) reuse: Option<Reuse>,
    /// Why it has no result, or why its result could not be used.
    pub(crate) failure: Option<Failure>,
    /// The task whose failure kept it from running.
    pub(crate) skipped: Option<TaskName>,
    /// Copies of outputs: path and address.
    pub(crate) delivered: Vec<(Arc<str>, String)>,
    /// Outputs that are still to be copied, by path.
    pub(crate) owed: BTreeMap<Arc<str>, Owed>,
}

/// A copy of an output that is not at its address yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owed {
    /// The address without secrets.
    pub(crate) to: String,
    /// Why the engine gave it up.
    pub(crate) failure: Option<Failure>,
}

/// A result.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) key: MemoKey,
    pub(crate) record: MemoRecord,
    /// Whether the task ran for it in this run.
    pub(crate) here: bool,
}

/// One try.
#[derive(Debug, Clone)]
pub(crate) struct AttemptPicture {
    pub(crate) ordinal: u32,
    pub(crate) started: Timestamp,
    pub(crate) reasons: Vec<Reason>,
    /// The checkpoint that it went on from.
    pub(crate) from: Option<CheckpointOrigin>,
    /// When it was saved last, and how many bytes that was.
    pub(crate) saved: Option<(Timestamp, u64)>,
    pub(crate) end: AttemptEnd,
}

/// How a try ended.
#[derive(Debug, Clone)]
pub(crate) enum AttemptEnd {
    /// Not yet.
    Open,
    /// Its engine died first.
    Lost,
    /// Well.
    Completed { at: Timestamp, usage: Usage },
    /// Badly.
    Failed { at: Timestamp, failure: Failure, usage: Usage, cost: u32 },
}

impl AttemptPicture {
    /// How long it took, where that is known.
    pub(crate) fn took(&self) -> Option<Duration> {
        match &self.end {
            AttemptEnd::Open | AttemptEnd::Lost => None,
            AttemptEnd::Completed { at, usage } | AttemptEnd::Failed { at, usage, .. } => {
                let measured = !usage.wall.is_zero();
                Some(if measured { usage.wall } else { at.since(self.started) })
            }
        }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It ran in this run, and has a result.
    Completed,
    /// It has the result of an earlier run.
    Reused,
    /// It has none.
    Failed,
    /// It will have none, since another task has none, or since it says so itself.
    Skipped,
    /// An attempt is under way, as far as the journal knows.
    Running,
    /// It was tried, and is to be tried again.
    Waiting,
}

impl TaskPicture {
    pub(crate) fn standing(&self) -> Standing {
        match (&self.result, &self.failure, &self.skipped) {
            (Some(made), _, _) if made.here => Standing::Completed,
            (Some(_), _, _) => Standing::Reused,
            (None, Some(_), _) => Standing::Failed,
            (None, None, Some(_)) => Standing::Skipped,
            _ if self.open().is_some() => Standing::Running,
            _ => Standing::Waiting,
        }
    }

    fn attempt(&mut self, ordinal: u32) -> Option<&mut AttemptPicture> {
        self.attempts.iter_mut().rev().find(|attempt| attempt.ordinal == ordinal)
    }

    /// The attempt that is under way.
    pub(crate) fn open(&self) -> Option<&AttemptPicture> {
        self.attempts.last().filter(|attempt| matches!(attempt.end, AttemptEnd::Open))
    }
}

impl Picture {
    /// Whether it is the run of a program, and not of a workflow file.
    pub(crate) fn is_of_program(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.file.is_empty())
    }

    pub(crate) fn of(recovered: Recovered) -> Self {
        let mut picture = Self { damaged: recovered.damaged, ..Self::default() };
        for stamped in recovered.facts {
            picture.started = picture.started.or(Some(stamped.at));
            picture.last = picture.last.max(Some(stamped.at));
            picture.apply(stamped);
        }
        picture
    }

    /// From the first moment to the last one that is known.
    pub(crate) fn span(&self, now: Option<Timestamp>) -> Duration {
        let (started, last) = (self.started.unwrap_or_default(), self.last.unwrap_or_default());
        now.unwrap_or(last).since(started)
    }

    /// The task that ran in this run for the result with this key.
    pub(crate) fn maker(&self, key: &MemoKey) -> Option<&TaskName> {
        let made_it = |task: &TaskPicture| {
            task.result.as_ref().is_some_and(|made| made.here && made.key == *key)
        };
        self.tasks.iter().find(|(_, task)| made_it(task)).map(|(name, _)| name)
    }

    /// The task that ran in this run and wrote this path.
    pub(crate) fn writer(&self, path: &str) -> Option<&TaskName> {
        let wrote = |task: &TaskPicture| {
            let made = task.result.as_ref().filter(|made| made.here);
            made.is_some_and(|made| made.record.outputs.iter().any(|output| *output.path == *path))
        };
        self.tasks.iter().find(|(_, task)| wrote(task)).map(|(name, _)| name)
    }

    fn apply(&mut self, Stamped { at, fact }: Stamped) {
        match fact {
            Fact::EngineStarted { pid, host, version, workflow, file, plan: _ } => {
                self.engine = Some(Engine { pid, host, version, workflow, file });
                self.outcome = None;
                self.engines += 1;
                self.take_up();
            }
            Fact::Planned { tasks } => self.total = tasks,
            Fact::Fetched { transferred, .. } => {
                self.fetched += 1;
                self.transferred += transferred;
            }
            Fact::AttemptStarted { task, ordinal, reasons } => {
                let end = AttemptEnd::Open;
                let task = self.of_task(task);
                // A result that was lost is made again.
                task.result = None;
                let (started, from, saved) = (at, None, None);
                task.attempts.push(AttemptPicture { ordinal, started, reasons, from, saved, end });
            }
            Fact::AttemptFailed { task, ordinal, failure, usage, cost } => {
                self.end(task, ordinal, AttemptEnd::Failed { at, failure, usage, cost });
            }
            Fact::Completed { task, ordinal, key, record, usage, parts: _, memoized: _ } => {
                let task = self.end(task, ordinal, AttemptEnd::Completed { at, usage });
                task.result = Some(Made { key, record, here: true });
                task.reuse = None;
            }
            Fact::Reused { task, key, record, reuse, memoized: _ } => {
                let task = self.of_task(task);
                task.reuse = Some(reuse);
                // After a crash a task finds what it made itself.
                if task.result.as_ref().is_none_or(|made| made.key != key) {
                    task.result = Some(Made { key, record, here: false });
                }
            }
            Fact::Delivered { task, path, display, content: _ } => {
                let task = self.of_task(task);
                task.owed.remove(&path);
                task.delivered.push((path, display));
            }
            Fact::Value { .. } | Fact::FailureKept { .. } => {}
            Fact::Failed { task, failure } => self.of_task(task).failure = Some(failure),
            Fact::Skipped { task, because } => self.of_task(task).skipped = Some(because),
            Fact::RunEnded { outcome } => self.outcome = Some(outcome),
            Fact::Owed { task, path, display } => {
                self.of_task(task).owed.insert(path, Owed { to: display, failure: None });
            }
            Fact::Undelivered { task, path, display, failure } => {
                let owed = Owed { to: display, failure: Some(failure) };
                self.of_task(task).owed.insert(path, owed);
            }
            Fact::CheckpointSaved { task, ordinal, bytes } => {
                if let Some(attempt) = self.attempt(task, ordinal) {
                    attempt.saved = Some((at, bytes));
                }
            }
            Fact::CheckpointRestored { task, ordinal, from } => {
                if let Some(attempt) = self.attempt(task, ordinal) {
                    attempt.from = Some(from);
                }
            }
        }
    }

    /// A new engine: what ran was lost with the old one, and what failed is tried again.
    fn take_up(&mut self) {
        for task in self.tasks.values_mut() {
            task.failure = None;
            task.skipped = None;
            task.owed.values_mut().for_each(|owed| owed.failure = None);
            for attempt in &mut task.attempts {
                if matches!(attempt.end, AttemptEnd::Open) {
                    attempt.end = AttemptEnd::Lost;
                }
            }
        }
    }

    fn end(&mut self, task: TaskName, ordinal: u32, end: AttemptEnd) -> &mut TaskPicture {
        let task = self.of_task(task);
        if let Some(attempt) = task.attempt(ordinal) {
            attempt.end = end;
        }
        task
    }

    fn attempt(&mut self, task: TaskName, ordinal: u32) -> Option<&mut AttemptPicture> {
        self.of_task(task).attempt(ordinal)
    }

    fn of_task(&mut self, task: TaskName) -> &mut TaskPicture {
        self.tasks.entry(task).or_default()
    }
}

#[cfg(test)]
mod tests {
    use keelboat_engine::{Digest, FailureClass};

    use super::*;

    fn picture(facts: Vec<Fact>) -> Picture {
        let facts = (1..).zip(facts).map(|(at, fact)| Stamped { at: Timestamp(at), fact });
        Picture::of(Recovered { facts: facts.collect(), ..Recovered::default() })
    }

    fn engine() -> Fact {
        Fact::EngineStarted {
            pid: 1,
            host: "h".into(),
            version: "0".into(),
            workflow: "w".into(),
            plan: Digest::of(b""),
            file: "flow.toml".into(),
        }
    }

    fn started(task: &str, ordinal: u32) -> Fact {
        Fact::AttemptStarted { task: task.into(), ordinal, reasons: vec![Reason::FirstRun] }
    }

    fn completed(task: &str, ordinal: u32) -> Fact {
        Fact::Completed {
            task: task.into(),
            ordinal,
            key: MemoKey(Digest::of(task.as_bytes())),
            parts: Vec::new(),
            record: MemoRecord::default(),
            usage: Usage::default(),
            memoized: true,
        }
    }

    fn reused(task: &str) -> Fact {
        let key = MemoKey(Digest::of(task.as_bytes()));
        let record = MemoRecord::default();
        let reuse = Reuse::InPlace;
        Fact::Reused { task: task.into(), key, record, reuse, memoized: true }
    }

    fn failed(task: &str) -> Fact {
        let failure = Failure::new(FailureClass::Permanent, "no");
        Fact::Failed { task: task.into(), failure }
    }

    #[test]
    fn a_task_that_ran_before_a_crash_still_ran_in_this_run() {
        let picture = picture(vec![
            engine(),
            started("a", 1),
            completed("a", 1),
            started("b", 1),
            engine(),
            reused("a"),
            reused("c"),
            started("b", 2),
        ]);
        let standing = |task: &str| picture.tasks[task].standing();
        assert_eq!(standing("a"), Standing::Completed);
        assert_eq!(standing("b"), Standing::Running);
        assert_eq!(standing("c"), Standing::Reused);
        let [first, second] = &picture.tasks["b"].attempts[..] else { panic!("two attempts") };
        assert!(matches!(first.end, AttemptEnd::Lost), "{first:?}");
        assert!(matches!(second.end, AttemptEnd::Open), "{second:?}");
        assert_eq!(picture.engines, 2);
    }

    #[test]
    fn what_failed_is_open_again_when_a_new_engine_takes_up_the_run() {
        let skipped = Fact::Skipped { task: "b".into(), because: "a".into() };
        let mut facts = vec![engine(), started("a", 1), failed("a"), skipped];
        assert_eq!(picture(facts.clone()).tasks["b"].standing(), Standing::Skipped);
        facts.push(engine());
        let picture = picture(facts);
        assert_eq!(picture.tasks["a"].standing(), Standing::Waiting);
        assert_eq!(picture.tasks["b"].standing(), Standing::Waiting);
    }
}
