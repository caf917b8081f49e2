//! One attempt: its scratch directory with the inputs, its launch, and the publication of what
//! it wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keelboat_checkpoint::is_executable;
use keelboat_engine::core::{Core, Event};
use keelboat_engine::{
    AttemptId, AttemptOutcome, Command, Content, Digest, Exit, Failure, FailureClass, InputSpec,
    KeepScratch, Kind, MemoRecord, OutputRecord, OutputSpec, Ranks, Resources, Source, TaskName,
    Usage,
};
use keelboat_executors::{Executor as _, LaunchSpec, container_hint};
use keelboat_staging::{LocalError, Placement, Scratch, capture, publish};

use super::called::Occupancy;
use super::checkpoints::Checkpoint;
use super::edges::{Edges, GRACE, Memory};
use super::message::Message;
use super::reads::Reads;
use super::tools::Tools;
use super::{aside, checkpoints, script, undeclared};
use crate::flow::Launch;
use crate::project::file_name_of;

/// By these the libraries of Nvidia and AMD know which GPUs a task has.
const GPU_VARIABLES: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

/// All that an attempt needs, apart from the core that decided on it.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(super) id: AttemptId,
    pub(crate) name: TaskName,
    command: Command,
    /// What is launched in truth.
    launch: Launch,
    /// The image that it runs in.
    container: Option<Arc<str>>,
    /// Of how many processes it consists that talk by MPI.
    ranks: Option<Ranks>,
    env: Arc<BTreeMap<String, String>>,
    timeout: Option<Duration>,
    /// Slots that it has.
    slots: Resources,
    /// The GPUs that it has, as their driver knows them.
    pub(super) gpus: Vec<String>,
    inputs: Vec<(InputSpec, Content)>,
    /// What a function reads in its place.
    pub(super) reads: Option<Arc<Reads>>,
    /// Where a function finds its inputs.
    pub(super) paths: Vec<PathBuf>,
    pub(super) outputs: Vec<OutputSpec>,
    pub(super) scratch: PathBuf,
    pub(super) checkpoint: Option<Checkpoint>,
    /// Whether what is in its scratch directory is kept.
    pub(super) keep_scratch: KeepScratch,
    /// Somebody wants it to end, perhaps before it has begun.
    killed: AtomicBool,
    /// Whether a function may be at work in its scratch directory.
    pub(super) occupancy: Occupancy,
}

impl Attempt {
    pub(crate) fn new(core: &Core, id: AttemptId, launch: Launch, edges: &Arc<Edges>) -> Self {
        let node = core.graph().task(id.task);
        let spec = &node.spec;
        let contents = node.inputs.iter().map(|file| core.content(*file));
        let inputs = spec.inputs.iter().zip(contents);
        let is_placed = |input: &InputSpec| !reads_in_place(&launch, input);
        let inputs = inputs.filter(|(input, _)| is_placed(input));
        let inputs = inputs.filter_map(|(input, content)| Some((input.clone(), content?)));
        // Of another run there may be a function at work that was given up.
        let directory = format!("{}.{}.{}", file_name_of(&spec.name), id.ordinal, edges.run.id());
        let scratch = edges.project.scratch().join(directory);
        Self {
            id,
            name: spec.name.clone(),
            command: spec.command.clone(),
            container: spec.options.container.clone(),
            ranks: spec.options.ranks,
            env: spec.options.env.clone(),
            timeout: spec.options.timeout,
            slots: core.held(id.task),
            gpus: edges.gpus(core.pool(id.task), core.gpus(id.task)),
            inputs: inputs.collect(),
            reads: reads_of(core, id, &launch, edges),
            paths: paths_of(&launch, &spec.inputs, &scratch, edges),
            outputs: spec.outputs.clone(),
            checkpoint: Checkpoint::new(core, id, &scratch),
            keep_scratch: spec.options.keep_scratch,
            scratch,
            killed: AtomicBool::new(false),
            occupancy: Occupancy::of(&launch),
            launch,
        }
    }

    /// Makes the scratch directory and hands the attempt to the executor, which reports its end.
    pub(crate) fn launch(self: &Arc<Self>, edges: &Arc<Edges>) {
        match &self.launch {
            Launch::Call(calling) => self.call(calling, edges),
            Launch::Command | Launch::Text(_) => self.launch_command(edges),
        }
    }

    fn launch_command(&self, edges: &Edges) {
        let launchable = self.startable(edges);
        let launchable = launchable.and_then(|command| self.launchable(command, edges));
        let spec = match launchable.and_then(|spec| self.begin_checkpoint(edges, spec)) {
            Ok(spec) => spec,
            Err(failure) => return self.fail_to_launch(failure, edges),
        };
        if self.killed.load(Ordering::SeqCst) {
            let failure = Failure::new(FailureClass::Transient, "it was cancelled");
            let usage = Usage::default();
            let outcome = AttemptOutcome { attempt: self.id, result: Err(failure), usage };
            return edges.tell(Message::Events(vec![Event::AttemptEnded(outcome)]));
        }
        let executor = match edges.executor() {
            Ok(executor) => executor,
            Err(error) => {
                let outcome = AttemptOutcome::lost(self.id, error.to_string());
                return edges.tell(Message::Events(vec![Event::AttemptEnded(outcome)]));
            }
        };
        executor.begin(spec);
        // Somebody may have killed it between the look above and its begin.
        if self.killed.load(Ordering::SeqCst) {
            executor.kill(self.id);
        }
    }

    /// What the executor is told, in a container when the task is to run in one.
    fn launchable(&self, command: Command, edges: &Edges) -> Result<LaunchSpec, Failure> {
        let [stdout, stderr] = edges.logs.prepare(&self.name, self.id.ordinal);
        let mut env = self.env.as_ref().clone();
        env.insert("KEELBOAT_TASK".to_owned(), self.name.to_string());
        env.insert("KEELBOAT_ATTEMPT".to_owned(), self.id.ordinal.to_string());
        env.insert("KEELBOAT_CORES".to_owned(), self.slots.cores.to_string());
        if let Some(memory) = self.memory() {
            env.insert("KEELBOAT_MEMORY".to_owned(), memory.to_string());
        }
        if self.slots.gpus > 0 {
            for variable in GPU_VARIABLES {
                env.insert(variable.to_owned(), self.gpus.join(","));
            }
        }
        if let Some(checkpoint) = &self.checkpoint {
            let place = checkpoint.place().to_string_lossy().into_owned();
            env.insert("KEELBOAT_CHECKPOINT_DIR".to_owned(), place);
        }
        let tools = &edges.late.tools;
        let command = match self.ranks {
            Some(ranks) => self.started_by_mpi(ranks, command, tools, &mut env)?,
            None => command,
        };
        let spec = LaunchSpec {
            attempt: self.id,
            command,
            directory: self.scratch.clone(),
            env,
            stdout,
            stderr,
            timeout: self.timeout,
            memory: self.memory(),
            grace: GRACE,
            cleanup: Vec::new(),
        };
        let Some(image) = &self.container else { return Ok(spec) };
        if let Some(warning) = tools.warning(image) {
            edges.tell(Message::Warning(warning));
        }
        let script = self.script();
        let beside: &[PathBuf] = if script.is_file() { &[script] } else { &[] };
        tools.contain(image, spec, beside)
    }

    /// A program is started by the launcher; a script is told of it.
    fn started_by_mpi(
        &self,
        ranks: Ranks,
        command: Command,
        tools: &Tools,
        env: &mut BTreeMap<String, String>,
    ) -> Result<Command, Failure> {
        let prefix = tools.mpi_prefix(ranks, self.slots.cores, self.container.as_ref())?;
        let told = [
            ("KEELBOAT_MPI_PREFIX", prefix.join(" ")),
            ("KEELBOAT_NODES", ranks.nodes.to_string()),
            ("KEELBOAT_RANKS", ranks.total().to_string()),
            ("KEELBOAT_RANKS_PER_NODE", ranks.per_node.to_string()),
        ];
        env.extend(told.map(|(name, value)| (name.to_owned(), value)));
        let is_script = matches!(
            self.command,
            Command::Shell { .. } | Command::Template { shell: Some(_), .. }
        );
        Ok(match command {
            Command::Argv(argv) if !is_script => {
                Command::Argv(prefix.into_iter().chain(argv.iter().cloned()).collect())
            }
            other => other,
        })
    }

    /// Makes its scratch directory, and its command as it can be started there.
    fn startable(&self, edges: &Edges) -> Result<Command, Failure> {
        let command = match &self.launch {
            Launch::Text(text) => text.render()?,
            Launch::Command | Launch::Call(_) => self.command.clone(),
        };
        self.prepare(edges)?;
        script::startable(command, &self.script()).map_err(|error| launch_failure(&error))
    }

    /// Ends it, whether it has begun or is still being prepared. False: it is a call that has begun.
    pub(crate) fn kill(&self, edges: &Edges) -> bool {
        if let Launch::Call(_) = self.launch {
            return self.occupancy.forbid();
        }
        self.killed.store(true, Ordering::SeqCst);
        edges.late.kill(self.id);
        true
    }

    /// The bytes of memory that it may use, when it asks for a number.
    fn memory(&self) -> Option<u64> {
        Some(self.slots.memory).filter(|memory| *memory > 0)
    }

    pub(super) fn fail_to_launch(&self, failure: Failure, edges: &Edges) {
        let usage = Usage::default();
        let outcome = AttemptOutcome { attempt: self.id, result: Err(failure), usage };
        edges.tell(Message::Events(vec![Event::AttemptEnded(outcome)]));
    }

    /// Last of all before the launch: what is in its directory from now on is the task's.
    pub(super) fn begin_checkpoint<T>(&self, edges: &Edges, launchable: T) -> Result<T, Failure> {
        let checkpoint = self.checkpoint.as_ref();
        checkpoint.map_or(Ok(()), |checkpoint| checkpoint.begin(&self.scratch, edges))?;
        Ok(launchable)
    }

    /// Where a script lies that is too long for an argument.
    fn script(&self) -> PathBuf {
        let mut path = self.scratch.clone().into_os_string();
        path.push(".script");
        path.into()
    }

    /// Adds to a failure what can be said from outside of the task.
    pub(crate) fn explain(&self, outcome: &mut AttemptOutcome, edges: &Edges) {
        if let (Some(image), Err(failure)) = (&self.container, &mut outcome.result)
            && let Some(Exit::Code(code)) = failure.exit
            && let Some(hint) = container_hint(image, code)
        {
            failure.hint = Some(hint);
        }
        undeclared::hint(outcome, &self.command, &self.inputs, &self.outputs, &edges.project);
        if let Err(failure) = &mut outcome.result {
            self.keep_failed(failure, edges);
        }
    }

    /// Makes its scratch directory, with the inputs.
    pub(super) fn prepare(&self, edges: &Edges) -> Result<(), Failure> {
        self.place_all(edges).map_err(|error| launch_failure(&error))
    }

    fn place_all(&self, edges: &Edges) -> Result<(), LocalError> {
        let memory = Memory(Arc::clone(&edges.digests));
        let scratch = edges.scratch.make(self.scratch.clone(), &self.outputs)?;
        if let Some(checkpoint) = &self.checkpoint {
            scratch.room_for(checkpoint.name())?;
        }
        for (input, content) in &self.inputs {
            if let (Source::Urls(_), Kind::Directory) = (&input.source, content.kind) {
                place_tree(&scratch, input, content, edges)?;
                continue;
            }
            let source = source_of(input, content, edges);
            let name = &input.scratch_path;
            let placement = Placement { source: &source, content, name };
            if let Err(error) = scratch.place_input(&placement, &memory) {
                distrust(input, content, &source, edges);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Moves the outputs to their places, and tells the loop of it; with the value of a function,
    /// if it could be kept.
    pub(crate) fn publish(&self, value: Result<Option<Digest>, Failure>, edges: &Edges) {
        let published = value.and_then(|value| Ok((value, self.move_outputs(edges)?)));
        match published {
            Ok((value, (record, places))) => {
                let record = MemoRecord { value, ..record };
                let event = Event::Published { attempt: self.id, record };
                edges.tell(Message::Published(event, places));
                if self.checkpoint.is_some() {
                    // It is cleared when the record is durable: until then it may run again.
                    return;
                }
                self.keep_done(edges);
            }
            Err(failure) => {
                let event = Event::PublishFailed { attempt: self.id, failure };
                self.save_left(event, edges);
            }
        }
        self.clear(edges);
    }

    fn move_outputs(&self, edges: &Edges) -> Result<(MemoRecord, Vec<PathBuf>), Failure> {
        let root = edges.project.root();
        let memory = Memory(Arc::clone(&edges.digests));
        self.capture(edges)?;
        self.keep_what_is_replaced(edges)?;
        let contents = publish(&self.scratch, &self.outputs, root, &memory)
            .map_err(|error| error.failure())?;
        let mut record = MemoRecord::default();
        let mut places = Vec::new();
        for (output, content) in self.outputs.iter().zip(contents) {
            let mut executable = false;
            if let Some(content) = &content {
                let place = edges.project.resolve(&output.path);
                let published = place.symlink_metadata();
                executable = published.is_ok_and(|metadata| is_executable(&metadata));
                keep_object(edges, &output.path, &place, content)?;
                places.push(place);
            }
            record.outputs.push(OutputRecord { path: output.path.clone(), content, executable });
        }
        Ok((record, places))
    }

    /// What it printed is put where its outputs are, as far as it is one.
    fn capture(&self, edges: &Edges) -> Result<(), Failure> {
        for output in &self.outputs {
            if let Some(stream) = output.captures {
                let log = edges.logs.of(&self.name, self.id.ordinal, stream);
                capture(&self.scratch, output, stream, &log).map_err(|error| error.failure())?;
            }
        }
        Ok(())
    }

    /// Nothing is moved aside for a task that did not write all of its outputs.
    fn keep_what_is_replaced(&self, edges: &Edges) -> Result<(), Failure> {
        let written = |output: &OutputSpec| self.scratch.join(output.scratch_path.as_ref());
        let is_there = |output: &OutputSpec| written(output).symlink_metadata().is_ok();
        if !self.outputs.iter().all(|output| output.optional || is_there(output)) {
            return Ok(());
        }
        for output in &self.outputs {
            if edges.project.resolve(&output.path).symlink_metadata().is_ok() {
                let comes = edges.digest(&written(output), output.kind).ok();
                let comes = comes.map(|content| content.digest);
                aside::keep_before_output(edges, &output.path, comes)?;
            }
        }
        Ok(())
    }

    /// Whether somebody wanted it to end, before it had begun or as a command.
    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// Removes the scratch directory, when nobody is at work there any more.
    pub(crate) fn clear(&self, edges: &Edges) {
        if !self.occupancy.put_off_clearing() {
            self.remove(edges);
        }
    }

    /// Removes the scratch directory, in which nobody is at work.
    pub(super) fn remove(&self, edges: &Edges) {
        self.discard_replaced(edges);
        edges.logs.take_back(&self.name, self.id.ordinal);
        script::clear(&self.command, &self.script());
        if self.checkpoint.is_some() {
            checkpoints::clear(&self.scratch);
        }
        if let Err(error) = edges.scratch.take_back(&self.scratch, &self.outputs) {
            edges.tell(Message::Warning(format!("a scratch directory is left over: {error}")));
        }
    }
}

/// Functions are trusted not to write to files of the project that they are given to read.
fn reads_in_place(launch: &Launch, input: &InputSpec) -> bool {
    matches!((launch, &input.source), (Launch::Call(_), Source::Path(_)))
}

/// Of a function; commands have copies.
fn reads_of(core: &Core, id: AttemptId, launch: &Launch, edges: &Arc<Edges>) -> Option<Arc<Reads>> {
    let Launch::Call(_) = launch else { return None };
    Reads::of(core, id.task, edges).map(Arc::new)
}

/// Where a function finds its inputs; commands know.
fn paths_of(launch: &Launch, inputs: &[InputSpec], scratch: &Path, edges: &Edges) -> Vec<PathBuf> {
    let Launch::Call(_) = launch else { return Vec::new() };
    let path = |input: &InputSpec| match &input.source {
        Source::Path(path) => edges.project.resolve(path),
        Source::Urls(_) => scratch.join(&*input.scratch_path),
    };
    inputs.iter().map(path).collect()
}

/// Why an attempt is not launched.
pub(super) fn launch_failure(error: &LocalError) -> Failure {
    let mut failure = error.failure();
    if failure.class == FailureClass::Transient {
        // An input is not what it was when it was looked at: it is looked at again.
        failure.class = FailureClass::InputMissing;
    }
    failure
}

/// Keeps an output in the object cache. That it cannot be kept is no failure of the task; that it
/// changes meanwhile is.
fn keep_object(edges: &Edges, path: &str, place: &Path, content: &Content) -> Result<(), Failure> {
    match edges.objects.insert(place, content) {
        Ok(_) => Ok(()),
        Err(error) if error.blames_source() => {
            let cause = format!("{path} changed while it was published");
            Err(Failure::new(FailureClass::Transient, cause)
                .with_hint("let every process of the task end before the task does"))
        }
        Err(error) => {
            let text = format!("{path} is not kept in the object cache: {error}");
            edges.tell(Message::Warning(text));
            Ok(())
        }
    }
}

/// Where the bytes of an input are taken from. They are shared with nobody: what a task does to
/// its inputs harms neither the object cache nor a file of the project.
fn source_of(input: &InputSpec, content: &Content, edges: &Edges) -> PathBuf {
    match &input.source {
        Source::Urls(_) => edges.objects.path_of(&content.digest),
        Source::Path(path) => edges.project.resolve(path),
    }
}

/// A directory that came from elsewhere is in the object cache file by file.
fn place_tree(
    scratch: &Scratch,
    input: &InputSpec,
    content: &Content,
    edges: &Edges,
) -> Result<(), LocalError> {
    let destination = scratch.room_for(&input.scratch_path)?;
    let copied = edges.objects.copy_tree(&content.digest, &destination);
    let is_there = copied.unwrap_or_else(|error| {
        edges.tell(Message::Warning(format!("{}: {error}", input.scratch_path)));
        false
    });
    // It is brought again then.
    if is_there { Ok(()) } else { Err(LocalError::Changed { path: destination }) }
}

/// An input is not what it was said to be: what is remembered of it is forgotten, so that it is read
/// again, and an object that is damaged is set aside.
pub(super) fn distrust(input: &InputSpec, content: &Content, source: &Path, edges: &Edges) {
    if let Ok(metadata) = source.symlink_metadata() {
        edges.digests.forget(&keelboat_staging::stamp_of(&metadata));
    }
    if let Source::Urls(_) = input.source
        && let Err(error) = edges.objects.object_path(&content.digest)
    {
        edges.tell(Message::Warning(format!("{}: {error}", input.scratch_path)));
    }
}
