//! Why tasks cannot be added to a graph.

use std::sync::Arc;

use crate::TaskName;

/// Why tasks cannot be added to a graph. Nothing was added then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Two tasks with one name.
    #[error("two tasks are named {name}: expected each name once")]
    DuplicateTask {
        /// The name.
        name: TaskName,
    },
    /// Two outputs with one path.
    #[error("{path} is written by {first} and by {second}: expected one writer for each path")]
    DuplicateOutput {
        /// The path.
        path: Arc<str>,
        /// The task that had it first.
        first: TaskName,
        /// The other one.
        second: TaskName,
    },
    /// An output inside another task's directory output, or around it.
    #[error(
        "{inner} (written by {inner_task}) lies in the directory {outer} (written by {outer_task}): \
             expected outputs apart from each other"
    )]
    NestedOutput {
        /// The output inside.
        inner: Arc<str>,
        /// Its task.
        inner_task: TaskName,
        /// The directory.
        outer: Arc<str>,
        /// Its task.
        outer_task: TaskName,
    },
    /// A new task writes what an older one already reads as a source file.
    #[error("{path} is written by {writer}, but {reader} was already reading it as a source file")]
    LateWriter {
        /// The path.
        path: Arc<str>,
        /// The new task.
        writer: TaskName,
        /// The older task.
        reader: TaskName,
    },
    /// A task waits for itself.
    #[error("tasks wait for each other in a circle: {}", circle(.tasks))]
    Cycle {
        /// The tasks, each waiting for the next, and the last one for the first.
        tasks: Vec<TaskName>,
    },
    /// `after` names a task that there is not.
    #[error("{task} is to come after {name}, which is no task")]
    UnknownTask {
        /// The task that says `after`.
        task: TaskName,
        /// The name that it says.
        name: TaskName,
    },
}

fn circle(tasks: &[TaskName]) -> String {
    let names = tasks.iter().chain(tasks.first()).map(AsRef::as_ref);
    names.collect::<Vec<_>>().join(" -> ")
}
