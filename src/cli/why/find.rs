//! Which run tells most about a task: the one that is asked about, or the last one that knows it.

use std::sync::LazyLock;

use keelboat_engine::{RunOutcome, TaskName, TaskSpec};

use crate::cli::past::{Past, PastError, Run, TaskPicture, meant, unknown_task};
use crate::workflow::Workflow;

static NOTHING_KNOWN: LazyLock<TaskPicture> = LazyLock::new(TaskPicture::default);

/// A task in a run.
pub(super) struct Found {
    pub(super) run: Run,
    pub(super) task: TaskName,
    /// The tasks of the workflow file, when the run says nothing of the task.
    pub(super) tasks: Vec<TaskSpec>,
    /// A newer run that did not come to the task.
    pub(super) passed: Option<String>,
}

impl Found {
    /// What the run says of the task.
    pub(super) fn picture(&self) -> &TaskPicture {
        self.run.picture.tasks.get(&self.task).unwrap_or(&NOTHING_KNOWN)
    }
}

pub(super) fn find(past: &Past, name: &str) -> Result<Found, PastError> {
    let run = past.chosen()?;
    if let Some(task) = meant(name, run.picture.tasks.keys())? {
        return Ok(Found { run, task, tasks: Vec::new(), passed: None });
    }
    let mut workflow = past.workflow(&run);
    let tasks = workflow.as_mut().map(Workflow::take_tasks).unwrap_or_default();
    let declared = meant(name, tasks.iter().map(|task| &task.name))?;
    // A run that succeeded came to all that it was asked for; an older one may tell more.
    let succeeded = run.picture.outcome == Some(RunOutcome::Succeeded);
    if (declared.is_none() || succeeded)
        && !past.is_named()
        && let Some((older, task)) = find_older(past, name)?
    {
        let passed = Some(run.dir.id().to_owned());
        return Ok(Found { run: older, task, tasks: Vec::new(), passed });
    }
    let Some(task) = declared else {
        let known = run.picture.tasks.keys().chain(tasks.iter().map(|task| &task.name));
        return Err(unknown_task(name, known));
    };
    Ok(Found { run, task, tasks, passed: None })
}

fn find_older(past: &Past, name: &str) -> Result<Option<(Run, TaskName)>, PastError> {
    for run in past.older() {
        if let Some(task) = meant(name, run.picture.tasks.keys())? {
            return Ok(Some((run, task)));
        }
    }
    Ok(None)
}
