//! One attempt: its scratch directory with the inputs, its launch, and the publication of what
//! it wrote.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keelboat_engine::core::{Core, Event};
use keelboat_engine::{
    AttemptId, AttemptOutcome, Command, Content, Digest, Failure, FailureClass, InputSpec, Kind,
    MemoRecord, OutputRecord, OutputSpec, Source, TaskName, Usage,
};
use keelboat_executors::{Executor as _, LaunchSpec};
use keelboat_staging::{Guard, LocalError, Origin, Placement, publish};

use super::edges::{Edges, GRACE, Memory};
use super::message::Message;
use super::{aside, script, undeclared};
use crate::project::file_name_of;

/// From here on a hard link to an object is cheaper than a copy.
const SHARED_BYTES_MIN: u64 = 4 << 20;

/// All that an attempt needs, apart from the core that decided on it.
#[derive(Debug)]
pub(crate) struct Attempt {
    id: AttemptId,
    pub(crate) name: TaskName,
    command: Command,
    env: Arc<BTreeMap<String, String>>,
    timeout: Option<Duration>,
    inputs: Vec<(InputSpec, Content)>,
    outputs: Vec<OutputSpec>,
    scratch: PathBuf,
    /// Cache files that the task can reach, to be looked at when it is over.
    guards: OnceLock<Vec<Watched>>,
}

/// An object of the cache that a task reaches through a hard link.
#[derive(Debug)]
struct Watched {
    /// The input's name in the scratch directory.
    name: Arc<str>,
    digest: Digest,
    guard: Guard,
}

impl Attempt {
    pub(crate) fn new(core: &Core, id: AttemptId, edges: &Edges) -> Self {
        let node = core.graph().task(id.task);
        let spec = &node.spec;
        let contents = node.inputs.iter().map(|file| core.content(*file));
        let inputs = spec.inputs.iter().zip(contents);
        let inputs = inputs.filter_map(|(input, content)| Some((input.clone(), content?)));
        let directory = format!("{}.{}", file_name_of(&spec.name), id.ordinal);
        Self {
            id,
            name: spec.name.clone(),
            command: spec.command.clone(),
            env: spec.env.clone(),
            timeout: spec.timeout,
            inputs: inputs.collect(),
            outputs: spec.outputs.clone(),
            scratch: edges.project.scratch().join(directory),
            guards: OnceLock::new(),
        }
    }

    /// Makes the scratch directory and hands the attempt to the executor, which reports its end.
    pub(crate) fn launch(&self, edges: &Edges) {
        let prepared = self.prepare(edges);
        let startable = prepared.and_then(|()| script::startable(&self.command, &self.script()));
        let command = match startable {
            Ok(command) => command,
            Err(error) => return self.fail_to_launch(&error, edges),
        };
        let executor = match edges.executor() {
            Ok(executor) => executor,
            Err(error) => {
                let outcome = AttemptOutcome::lost(self.id, error.to_string());
                return edges.tell(Message::Events(vec![Event::AttemptEnded(outcome)]));
            }
        };
        let [stdout, stderr] = edges.logs.prepare(&self.name, self.id.ordinal);
        let mut env = self.env.as_ref().clone();
        env.insert("KEELBOAT_TASK".to_owned(), self.name.to_string());
        env.insert("KEELBOAT_ATTEMPT".to_owned(), self.id.ordinal.to_string());
        executor.begin(LaunchSpec {
            attempt: self.id,
            command,
            directory: self.scratch.clone(),
            env,
            stdout,
            stderr,
            timeout: self.timeout,
            grace: GRACE,
        });
    }

    fn fail_to_launch(&self, error: &LocalError, edges: &Edges) {
        let mut failure = error.failure();
        if failure.class == FailureClass::Transient {
            // An input is not what it was when it was looked at: it is looked at again.
            failure.class = FailureClass::InputMissing;
        }
        let usage = Usage::default();
        let outcome = AttemptOutcome { attempt: self.id, result: Err(failure), usage };
        edges.tell(Message::Events(vec![Event::AttemptEnded(outcome)]));
    }

    /// Where a script lies that is too long for an argument.
    fn script(&self) -> PathBuf {
        let mut path = self.scratch.clone().into_os_string();
        path.push(".script");
        path.into()
    }

    /// Adds to a failure what can be said from outside of the task.
    pub(crate) fn explain(&self, outcome: &mut AttemptOutcome, edges: &Edges) {
        undeclared::hint(outcome, &self.command, &self.inputs, &self.outputs, &edges.project);
    }

    fn prepare(&self, edges: &Edges) -> Result<(), LocalError> {
        let memory = Memory(&edges.digests);
        let scratch = edges.scratch.make(self.scratch.clone(), &self.outputs)?;
        let mut guards = Vec::new();
        for (input, content) in &self.inputs {
            let (source, origin) = source_of(input, content, edges);
            let name = &input.scratch_path;
            let placement = Placement { source: &source, content, name, origin };
            for guard in scratch.place_input(&placement, &memory)? {
                guards.push(Watched { name: name.clone(), digest: content.digest, guard });
            }
        }
        // An attempt is prepared once.
        drop(self.guards.set(guards));
        Ok(())
    }

    /// Moves the outputs to their places, and tells the loop of it.
    pub(crate) fn publish(&self, edges: &Edges) {
        let message = match self.move_outputs(edges) {
            Ok((record, places)) => {
                Message::Published(Event::Published { attempt: self.id, record }, places)
            }
            Err(failure) => {
                Message::Events(vec![Event::PublishFailed { attempt: self.id, failure }])
            }
        };
        edges.tell(message);
        self.clear(edges);
    }

    fn move_outputs(&self, edges: &Edges) -> Result<(MemoRecord, Vec<PathBuf>), Failure> {
        self.check_guards()?;
        let root = edges.project.root();
        let memory = Memory(&edges.digests);
        for output in &self.outputs {
            if edges.project.resolve(&output.path).symlink_metadata().is_ok() {
                let comes =
                    edges.digest(&self.scratch.join(output.scratch_path.as_ref()), output.kind);
                let comes = comes.ok().map(|content| content.digest);
                aside::keep_before_output(edges, &self.name, &output.path, comes)?;
            }
        }
        let contents = publish(&self.scratch, &self.outputs, root, &memory)
            .map_err(|error| error.failure())?;
        let mut record = MemoRecord::default();
        let mut places = Vec::new();
        for (output, content) in self.outputs.iter().zip(contents) {
            if let Some(content) = &content {
                let place = edges.project.resolve(&output.path);
                if let Err(error) = edges.objects.insert(&place, content) {
                    let text = format!("{} is not kept in the object cache: {error}", output.path);
                    edges.tell(Message::Warning(text));
                }
                places.push(place);
            }
            record.outputs.push(OutputRecord { path: output.path.clone(), content });
        }
        Ok((record, places))
    }

    /// An attempt whose input was written to, by itself or by another one that shares it with the
    /// object cache, has failed. Who it was cannot be told, so that another try is fair.
    fn check_guards(&self) -> Result<(), Failure> {
        let watched = self.guards.get().into_iter().flatten();
        match watched.into_iter().find(|watched| !watched.guard.is_intact()) {
            None => Ok(()),
            Some(Watched { name, .. }) => {
                let cause = format!("the input {name} was written to while the task ran");
                let hint = "a task that writes to an input, this one or another one that has it, \
                            must copy it first and write to the copy";
                Err(Failure::new(FailureClass::Transient, cause).with_hint(hint))
            }
        }
    }

    /// Removes the scratch directory, and drops objects that were written to through it.
    pub(crate) fn clear(&self, edges: &Edges) {
        edges.logs.take_back(&self.name, self.id.ordinal);
        script::clear(&self.command, &self.script());
        if let Err(error) = edges.scratch.take_back(&self.scratch, &self.outputs) {
            edges.tell(Message::Warning(format!("a scratch directory is left over: {error}")));
        }
        for watched in self.guards.get().into_iter().flatten() {
            if watched.guard.settle(&Memory(&edges.digests)) {
                continue;
            }
            // Looking at a damaged object sets it aside.
            if let Err(error) = edges.objects.object_path(&watched.digest) {
                edges.tell(Message::Warning(format!("{}: {error}", watched.name)));
            }
        }
    }
}

/// Where the bytes of an input are taken from. What is damaged or gone is found out when it is
/// placed.
fn source_of(input: &InputSpec, content: &Content, edges: &Edges) -> (PathBuf, Origin) {
    let object = edges.objects.path_of(&content.digest);
    // Root is not kept from writing by a file's mode: nothing is shared with its tasks.
    let may_share = !nix::unistd::geteuid().is_root();
    let shared = if may_share { Origin::Object } else { Origin::User };
    match &input.source {
        Source::Urls(_) => (object, shared),
        // A large result of another task need not be copied: the cache has it, read-only.
        Source::Path(_)
            if may_share
                && content.kind == Kind::File
                && content.bytes >= SHARED_BYTES_MIN
                && object.is_file() =>
        {
            (object, shared)
        }
        Source::Path(path) => (edges.project.resolve(path), Origin::User),
    }
}
