//! What a run is of: a workflow file, or a program that submits tasks while it runs.

use std::collections::BTreeMap;

use keelboat_engine::core::{Core, Event};
use keelboat_engine::{Digest, Failure, FailureClass, TaskId};

use super::edges::Edges;
use super::{RunError, open, targets};
use crate::flow::Side;
use crate::workflow::Workflow;

/// Where tasks come from.
pub(crate) enum Program {
    /// A workflow file.
    File(Box<FromFile>),
    /// A program.
    Flow(Box<Side>),
}

/// A workflow file and what is asked of it.
pub(crate) struct FromFile {
    pub(super) workflow: Workflow,
    pub(super) targets: Vec<String>,
    pub(super) force: Vec<String>,
}

impl Program {
    /// Reads a task's output for new tasks.
    pub(super) fn expand(&mut self, core: &Core, by: TaskId, edges: &Edges) -> Event {
        match self {
            Self::File(file) => file.expand(core, by, edges),
            Self::Flow(_) => Event::Grown { by, tasks: Vec::new() },
        }
    }

    /// A target that could only be found when the graph had grown must be there at the end.
    pub(super) fn check_targets(&self, core: &Core) -> Result<(), RunError> {
        match self {
            Self::File(file) => file.check_targets(core),
            Self::Flow(_) => Ok(()),
        }
    }
}

impl FromFile {
    fn expand(&mut self, core: &Core, by: TaskId, edges: &Edges) -> Event {
        let name = core.spec(by).name.clone();
        let project = edges.project.clone();
        let node = core.graph().task(by);
        let outputs = node.spec.outputs.iter().zip(&node.outputs);
        let wrote: BTreeMap<String, Option<Digest>> = outputs
            .map(|(output, file)| {
                let content = core.content(*file);
                (output.path.to_string(), content.map(|content| content.digest))
            })
            .collect();
        let mut read = |path: &str| {
            let bytes = std::fs::read(project.resolve(path))?;
            let expected = wrote.get(path).copied().flatten();
            if expected.is_some_and(|expected| expected != Digest::of(&bytes)) {
                return Err(std::io::Error::other("it is not what the task wrote any more"));
            }
            Ok(bytes)
        };
        match self.workflow.grow(&name, &mut read) {
            Ok(tasks) => {
                let mut tasks = targets::select(tasks, &self.targets, true);
                targets::force(&mut tasks, &self.force);
                Event::Grown { by, tasks }
            }
            Err(errors) => {
                let cause = format!("no tasks can be made of what it wrote: {errors}");
                Event::GrowFailed { by, failure: Failure::new(FailureClass::Permanent, cause) }
            }
        }
    }

    fn check_targets(&self, core: &Core) -> Result<(), RunError> {
        if core.counts().ended() < core.counts().total {
            return Ok(());
        }
        let tasks = core.graph().tasks();
        let found = |target: &str| tasks.iter().any(|task| targets::means(target, &task.spec));
        match self.targets.iter().chain(&self.force).find(|target| !found(target)) {
            None => Ok(()),
            Some(target) => Err(open::unknown_target(&self.workflow, &[], target)),
        }
    }
}
