//! The explanation of a task as programs are told of it.

use keelboat_engine::core::Graph;
use keelboat_engine::{Failure, Reason, Reuse, RunOutcome, TaskName};
use serde::Serialize;

use super::find::Found;
use crate::cli::past::{
    AttemptEnd, AttemptPicture, Life, Past, Picture, Standing, TaskPicture, rfc3339,
};

/// All that is known of why a task ran or did not.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    pub(super) task: TaskName,
    pub(super) run: String,
    pub(super) state: Told,
    /// How the run ended, when it did.
    pub(super) run_outcome: Option<&'static str>,
    /// Why it ran, the last time in this run.
    pub(super) reasons: Vec<ReasonReport>,
    pub(super) attempts: Vec<AttemptReport>,
    /// How an earlier result came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reuse: Option<&'static str>,
    /// Where an earlier result comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) made_by: Option<Maker>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<FailureReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) skipped_because: Option<Because>,
    /// Tasks that it waits for, of a task that did not start.
    pub(super) waits_for: Vec<Blocker>,
    /// Tasks that failed in the run, of a task that did not start.
    pub(super) failed_tasks: Vec<TaskName>,
    pub(super) outputs: Vec<OutputReport>,
}

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    Completed,
    Reused,
    Failed,
    Skipped,
    Running,
    /// It ran when the engine died.
    Interrupted,
    /// It failed, and will be tried again.
    Retrying,
    NotStarted,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum ReasonReport {
    FirstRun,
    Changed { part: String, old: Option<String>, new: Option<String> },
    Forced,
    CacheOff,
    OutputMissing { path: String },
    OutputChanged { path: String },
    RecordLost,
    ResultLost,
}

#[derive(Debug, Serialize)]
pub(super) struct AttemptReport {
    ordinal: u32,
    started: String,
    end: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureReport>,
}

/// A failure; its class is one of the words of [`keelboat_engine::FailureClass`].
#[derive(Debug, Clone, Serialize)]
pub(super) struct FailureReport(pub(super) Failure);

#[derive(Debug, Serialize)]
pub(super) struct Maker {
    pub(super) run: String,
    pub(super) task: TaskName,
}

#[derive(Debug, Serialize)]
pub(super) struct Because {
    pub(super) task: TaskName,
    /// `failed` or `was skipped`.
    #[serde(skip)]
    pub(super) what: &'static str,
    pub(super) failure: Option<FailureReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct Blocker {
    pub(super) task: TaskName,
    pub(super) state: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct OutputReport {
    path: String,
    sha256: Option<String>,
    bytes: Option<u64>,
}

impl Explanation {
    pub(super) fn of(past: &Past, found: &Found) -> Self {
        let (run, task) = (&found.run, found.picture());
        let state = told(found);
        let last = task.attempts.last();
        let made_before = task.result.as_ref().filter(|made| !made.here);
        let skipped_because = task.skipped.as_ref().map(|name| {
            let failed = run.picture.tasks.get(name);
            let failure = failed.and_then(|task| task.failure.clone()).map(FailureReport);
            let is_skipped = failed.is_some_and(|task| task.skipped.is_some());
            let what = if is_skipped { "was skipped" } else { "failed" };
            Because { task: name.clone(), what, failure }
        });
        Self {
            task: found.task.clone(),
            run: run.dir.id().to_owned(),
            state,
            run_outcome: run.picture.outcome.map(outcome_in_words),
            reasons: last
                .map(|last| last.reasons.iter().map(Into::into).collect())
                .unwrap_or_default(),
            attempts: task.attempts.iter().map(Into::into).collect(),
            reuse: task.reuse.map(|reuse| match reuse {
                Reuse::InPlace => "in_place",
                Reuse::Restored => "restored",
            }),
            made_by: made_before.and_then(|made| {
                let (run, task) = past.maker(&made.key)?;
                Some(Maker { run: run.dir.id().to_owned(), task })
            }),
            failure: task.failure.clone().map(FailureReport),
            skipped_because: skipped_because.filter(|_| state == Told::Skipped),
            waits_for: if state == Told::NotStarted { blockers(found) } else { Vec::new() },
            failed_tasks: if state == Told::NotStarted { failed(&run.picture) } else { Vec::new() },
            outputs: task
                .result
                .iter()
                .flat_map(|made| &made.record.outputs)
                .map(Into::into)
                .collect(),
        }
    }
}

fn told(found: &Found) -> Told {
    let task = found.picture();
    match task.standing() {
        Standing::Completed => Told::Completed,
        Standing::Reused => Told::Reused,
        Standing::Failed => Told::Failed,
        Standing::Skipped => Told::Skipped,
        Standing::Running if found.run.life == Life::Live => Told::Running,
        Standing::Running => Told::Interrupted,
        Standing::Waiting => match task.attempts.last().map(|last| &last.end) {
            None => Told::NotStarted,
            Some(AttemptEnd::Lost) => Told::Interrupted,
            Some(_) => Told::Retrying,
        },
    }
}

const fn outcome_in_words(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Succeeded => "succeeded",
        RunOutcome::Failed => "failed",
        RunOutcome::Cancelled => "cancelled",
    }
}

/// The tasks that a task needs, as the workflow file says, and that are not done.
fn blockers(found: &Found) -> Vec<Blocker> {
    let mut graph = Graph::default();
    if graph.add(found.tasks.clone()).is_err() {
        return Vec::new();
    }
    let Some(task) = graph.find(&found.task) else { return Vec::new() };
    let node = graph.task(task);
    let makers = node.inputs.iter().filter_map(|file| graph.file(*file).producer);
    let before = node.spec.after.iter().filter_map(|name| graph.find(name));
    let mut names: Vec<_> =
        makers.chain(before).map(|task| graph.task(task).spec.name.clone()).collect();
    names.sort();
    names.dedup();
    let not_done = |name: TaskName| {
        let standing = found.run.picture.tasks.get(&name).map(TaskPicture::standing);
        let state = match standing {
            Some(Standing::Completed | Standing::Reused) => return None,
            Some(Standing::Running) if found.run.life == Life::Live => "runs",
            Some(Standing::Running) => "was running when the engine died",
            Some(Standing::Failed) => "failed",
            Some(Standing::Skipped) => "was skipped",
            Some(Standing::Waiting) => "is to be tried again",
            None => "has not started",
        };
        Some(Blocker { task: name, state })
    };
    names.into_iter().filter_map(not_done).collect()
}

fn failed(run: &Picture) -> Vec<TaskName> {
    let failed = run.tasks.iter().filter(|(_, task)| task.failure.is_some());
    failed.map(|(name, _)| name.clone()).collect()
}

impl From<&Reason> for ReasonReport {
    fn from(reason: &Reason) -> Self {
        match reason {
            Reason::FirstRun => Self::FirstRun,
            Reason::Changed(change) => {
                let change = change.clone();
                Self::Changed { part: change.part, old: change.old, new: change.new }
            }
            Reason::Forced => Self::Forced,
            Reason::CacheOff => Self::CacheOff,
            Reason::OutputMissing { path } => Self::OutputMissing { path: path.to_string() },
            Reason::OutputChanged { path } => Self::OutputChanged { path: path.to_string() },
            Reason::RecordLost => Self::RecordLost,
            Reason::ResultLost => Self::ResultLost,
        }
    }
}

impl From<&AttemptPicture> for AttemptReport {
    fn from(attempt: &AttemptPicture) -> Self {
        let (end, failure) = match &attempt.end {
            AttemptEnd::Open => ("open", None),
            AttemptEnd::Lost => ("lost", None),
            AttemptEnd::Completed { .. } => ("completed", None),
            AttemptEnd::Failed { failure, .. } => ("failed", Some(FailureReport(failure.clone()))),
        };
        let took = attempt.took().map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let started = rfc3339(attempt.started);
        Self { ordinal: attempt.ordinal, started, end, took_ms: took, failure }
    }
}

impl From<&keelboat_engine::OutputRecord> for OutputReport {
    fn from(output: &keelboat_engine::OutputRecord) -> Self {
        Self {
            path: output.path.to_string(),
            sha256: output.content.map(|content| content.digest.to_hex()),
            bytes: output.content.map(|content| content.bytes),
        }
    }
}
