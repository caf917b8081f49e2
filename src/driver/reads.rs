//! What functions read in its place: files of the project, which anybody may change meanwhile. A
//! result is that of the files whose digests are in its key, or it is none.

use std::path::Path;
use std::sync::{Arc, Weak};

use keelboat_engine::core::Core;
use keelboat_engine::{Content, Failure, FailureClass, InputSpec, Source, TaskId};
use keelboat_staging::LocalError;

use super::attempt::{distrust, launch_failure};
use super::edges::Edges;

/// Files that a function is given to read.
#[derive(Debug)]
pub(crate) struct Reads {
    inputs: Vec<(InputSpec, Content)>,
    /// A function that never returns must not keep alive what the run needs.
    edges: Weak<Edges>,
}

impl Reads {
    /// `None`: it reads none.
    pub(crate) fn of(core: &Core, task: TaskId, edges: &Arc<Edges>) -> Option<Self> {
        let node = core.graph().task(task);
        let inputs = node.spec.inputs.iter().zip(&node.inputs);
        let inputs = inputs.filter(|(input, _)| matches!(input.source, Source::Path(_)));
        let inputs = inputs.filter_map(|(input, file)| Some((input.clone(), core.content(*file)?)));
        let inputs: Vec<_> = inputs.collect();
        (!inputs.is_empty()).then(|| Self { inputs, edges: Arc::downgrade(edges) })
    }

    /// Whether they hold what they are to hold; a look at each, unless one was touched.
    ///
    /// # Errors
    /// One is gone or holds something else: it is looked at again, and the task with it.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Some(edges) = self.edges.upgrade() else { return Ok(()) };
        self.inputs.iter().try_for_each(|(input, content)| check(input, content, &edges))
    }

    /// The result of a function that has read them.
    pub(crate) fn confirm<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        // That something has changed also explains a failure.
        self.check().and(result)
    }
}

fn check(input: &InputSpec, content: &Content, edges: &Edges) -> Result<(), Failure> {
    let Source::Path(path) = &input.source else { return Ok(()) };
    let place = edges.project.resolve(path);
    match edges.digest(&place, content.kind) {
        Ok(found) if found.digest == content.digest => Ok(()),
        Ok(_) => Err(changed(input, content, (path, &place), edges)),
        Err(LocalError::Changed { .. }) => Err(changed(input, content, (path, &place), edges)),
        Err(error) => Err(launch_failure(&error)),
    }
}

fn changed(
    input: &InputSpec,
    content: &Content,
    (path, place): (&str, &Path),
    edges: &Edges,
) -> Failure {
    distrust(input, content, place, edges);
    let cause = format!("{path}, which a function is given to read, changed before it was done");
    Failure::new(FailureClass::InputMissing, cause).with_hint(
        "let nobody write to a file while tasks that read it wait or run, not even the function itself: \
         it can write to an output, by its Context",
    )
}
