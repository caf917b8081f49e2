//! Commands as tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use keelboat_engine::{InputSpec, Ranks, Stream, TaskOptions, TaskSpec};

use super::Flow;
use super::argument::{CommandArgument, Lowering};
use super::call::inputs_of;
use super::cell::Cell;
use super::file::File;
use super::future::{FileFuture, Future};
use super::guard::Guarded;
use super::handle::{Deed, Submission, Work};
use super::options::{Options, option_methods};
use super::outputs::{Made, Writes, output_methods, output_of};
use super::text::{Given, Text};
use crate::workflow::free::{self, Place, Template};

/// A command that is being put together. [`submit`](Self::submit) makes it a task.
///
/// Its text sees `{{ inputs.LABEL }}`, `{{ outputs.LABEL }}` and what [`arg`](Self::arg) gave it, as
/// in a workflow file: values are quoted for the shell.
///
/// ```no_run
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # use std::time::Duration;
/// let aligned = flow
///     .command("align -t 4 {{ flags }} {{ inputs.reads }} > {{ outputs.bam }}")
///     .arg("flags", ["--seed", "7"])
///     .env("LC_ALL", "C")
///     .input("reads", flow.file("ftp://host/reads.fq.gz").or_from("https://mirror/reads.fq.gz"))
///     .output("bam", "out/reads.bam")
///     .to("s3://bucket/reads.bam")
///     .name("align")
///     .cores(4)
///     .memory(4 << 30)
///     .timeout(Duration::from_hours(2))
///     .retries(3)
///     .submit();
/// aligned.output("bam").wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before it is submitted"]
pub struct CommandTask<'f> {
    flow: &'f Flow,
    template: Template,
    inputs: Vec<(Arc<str>, Read)>,
    given: Given,
    writes: Writes,
    container: Option<String>,
    ranks: Option<Ranks>,
    /// Names of values and variables that make no difference.
    ignored: BTreeSet<String>,
    options: Options,
}

/// What a command reads.
#[derive(Debug)]
enum Read {
    File(File),
    Output(FileFuture),
}

/// Something that a command can read: a [`File`], an output of a task, or a path or address.
///
/// ```no_run
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let sorted = flow.command("sort {{ inputs.a }} > {{ outputs.b }}").input("a", "words.txt");
/// let sorted = sorted.output("b", "sorted.txt").submit();
/// let both = flow
///     .command("cat {{ inputs.all }} > {{ outputs.both }}")
///     .input("all", sorted.output("b"))
///     .input("all", flow.file("sftp://host/more.txt"))
///     .output("both", "both.txt")
///     .submit();
/// both.done().wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Readable {
    #[doc(hidden)]
    fn reads(self, flow: &Flow) -> ReadOf;
}

/// What is read.
#[doc(hidden)]
#[derive(Debug)]
pub struct ReadOf(Read);

impl Readable for File {
    fn reads(self, _: &Flow) -> ReadOf {
        ReadOf(Read::File(self))
    }
}

impl Readable for FileFuture {
    fn reads(self, _: &Flow) -> ReadOf {
        ReadOf(Read::Output(self))
    }
}

impl Readable for &FileFuture {
    fn reads(self, _: &Flow) -> ReadOf {
        ReadOf(Read::Output(self.clone()))
    }
}

impl Readable for &str {
    fn reads(self, flow: &Flow) -> ReadOf {
        ReadOf(Read::File(flow.file(self)))
    }
}

impl<'f> CommandTask<'f> {
    pub(crate) fn script(flow: &'f Flow, script: &str) -> Self {
        Self::new(flow, Template::Script(script.to_owned()))
    }

    pub(crate) fn argv(flow: &'f Flow, argv: Vec<String>) -> Self {
        Self::new(flow, Template::Argv(argv))
    }

    fn new(flow: &'f Flow, template: Template) -> Self {
        let (inputs, given) = (Vec::new(), Given::new(flow.handle().clone()));
        let (writes, options) = (Writes::default(), Options::default());
        let (container, ranks, ignored) = (None, None, BTreeSet::new());
        Self { flow, template, inputs, given, writes, container, ranks, ignored, options }
    }

    option_methods!();
    output_methods!();

    /// A file that it reads; several of one label are a list.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let size = flow.command("wc -c < {{ inputs.reads }}").input("reads", "https://host/reads.fq");
    /// size.submit().done().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn input(mut self, label: &str, file: impl Readable) -> Self {
        let ReadOf(read) = file.reads(self.flow);
        self.inputs.push((label.into(), read));
        self
    }

    /// A value that the text of the command sees under this name: any that is `Serialize`, a
    /// [`Future`], a file, or a collection of these; see [`CommandArgument`]. The command then
    /// waits for it, and its text is made when all values are there.
    ///
    /// Texts and numbers are words, and of a list each item is one; a struct or map is JSON as a
    /// whole, and its fields have names. The text must ask for each value that it is given.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// # use std::collections::BTreeMap;
    /// fn settings() -> BTreeMap<String, f64> {
    ///     BTreeMap::from([("gain".to_owned(), 1.5), ("offset".to_owned(), 0.2)])
    /// }
    /// let settings = flow.call(settings, ());
    /// let seeds = [1, 2].map(|seed| flow.call(|seed: u64| 7 * seed, (seed,)));
    /// let run = flow
    ///     .command("simulate --gain {{ settings.gain }} --seeds {{ seeds }} > {{ outputs.table }}")
    ///     .arg("settings", settings)
    ///     .arg("seeds", seeds)
    ///     .output("table", "table.csv")
    ///     .submit();
    /// # let _ = run;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn arg<M>(mut self, name: &str, value: impl CommandArgument<M>) -> Self {
        self.given.add(name, value);
        self
    }

    /// An image that the command runs in, by apptainer, podman or docker, whichever is there; part
    /// of the memo key. With its digest (`name@sha256:…`) it is the same image for ever.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let release = flow
    ///     .command("cat /etc/alpine-release > {{ outputs.release }}")
    ///     .container("docker.io/library/alpine:3.20")
    ///     .output("release", "release.txt")
    ///     .submit();
    /// release.output("release").wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn container(mut self, image: &str) -> Self {
        self.container = Some(image.to_owned());
        self
    }

    /// Makes it an MPI program of so many processes, each of which has [`cores`](Self::cores); part of
    /// the memo key. A program is started by `mpirun`, `mpiexec` or `srun`, whichever is there; a
    /// script starts it itself, by `$KEELBOAT_MPI_PREFIX`.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow, Ranks};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let heat = flow
    ///     .command("$KEELBOAT_MPI_PREFIX heat --steps 100 > {{ outputs.field }}")
    ///     .mpi(Ranks::new(8))
    ///     .output("field", "field.txt")
    ///     .submit();
    /// heat.output("field").wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mpi(mut self, ranks: Ranks) -> Self {
        self.ranks = Some(ranks);
        self
    }

    /// Values that were given by [`arg`](Self::arg), and variables, that make no difference to what is
    /// written: they are no part of the memo key.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let sorted = flow
    ///     .command("sort --parallel {{ threads }} {{ inputs.words }} > {{ outputs.sorted }}")
    ///     .arg("threads", 8)
    ///     .env("TMPDIR", "/fast")
    ///     .ignore(["threads", "TMPDIR"])
    ///     .input("words", "words.txt")
    ///     .output("sorted", "sorted.txt")
    ///     .submit();
    /// sorted.output("sorted").wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ignore<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.ignored.extend(names.into_iter().map(str::to_owned));
        self
    }

    /// Makes what it prints on its standard output a file, which appears at this path when the task is
    /// done, as its other outputs do: `output("stdout")`. `keelboat log` shows it too.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let listed = flow.program(["ls", "-l", "/"]).stdout("out/root.txt").submit();
    /// let lines = flow.command("wc -l < {{ inputs.list }} > {{ outputs.lines }}");
    /// let lines = lines.input("list", listed.output("stdout")).output("lines", "out/lines.txt");
    /// lines.submit().done().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stdout(mut self, path: &str) -> Self {
        self.writes.capture(Stream::Stdout, path);
        self
    }

    /// The same of its standard error: `output("stderr")`.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let built = flow.program(["make", "-C", "tools"]).stderr("out/warnings.txt").submit();
    /// println!("{}", std::fs::read_to_string(built.output("stderr").wait()?)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stderr(mut self, path: &str) -> Self {
        self.writes.capture(Stream::Stderr, path);
        self
    }

    /// A variable of the environment; part of the memo key.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let sorted = flow
    ///     .command("sort {{ inputs.words }} > {{ outputs.sorted }}")
    ///     .input("words", "words.txt")
    ///     .output("sorted", "sorted.txt")
    ///     .env("LC_ALL", "C")
    ///     .submit();
    /// sorted.done().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        let env = Arc::make_mut(self.options.env.get_or_insert_default());
        env.insert(name.to_owned(), value.into());
        self
    }

    /// Makes it a task, which runs when its inputs are there. A mistake in it is an error of the
    /// task.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let greeted = flow.command("echo hello > {{ outputs.text }}").output("text", "hello.txt").submit();
    /// println!("{}", greeted.output("text").wait()?.display());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "its outputs are to be had from here"]
    pub fn submit(self) -> CommandRun {
        let flow = self.flow;
        let name: Arc<str> = self.options.name.clone().unwrap_or_else(|| self.first_word().into());
        let handler = self.options.handler.clone().map(Guarded::new);
        let prepared = self.prepare();
        let cell = match prepared {
            Ok((spec, work, after)) => {
                let outputs = spec.outputs.clone();
                let cell = Cell::making(Made { outputs, root: flow.root() });
                let work = Arc::new(Work { handler, ..work });
                let submitted = Arc::clone(&cell);
                flow.handle().submit(Submission { cell: submitted, spec, name, work, after });
                cell
            }
            Err(cause) => flow.handle().refuse(&name, cause),
        };
        CommandRun { cell, handle: flow.handle().clone() }
    }

    fn first_word(&self) -> String {
        let text = match &self.template {
            Template::Script(script) => script.as_str(),
            Template::Argv(argv) => argv.first().map_or("", String::as_str),
        };
        let word = text.split_whitespace().next().unwrap_or("command");
        let word = word.rsplit('/').next().unwrap_or(word);
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if plain && !word.is_empty() { word.to_owned() } else { "command".to_owned() }
    }

    /// The task, and those that are to be done first.
    fn prepare(self) -> Result<(TaskSpec, Work, Vec<Arc<Cell>>), String> {
        if !crate::driver::has_warden() {
            return Err(
                "commands cannot be started by this program: call `keelboat::init()` first \
                        in `main`"
                    .to_owned(),
            );
        }
        let container = self.container.as_deref().map(free::container).transpose()?;
        let place = if container.is_some() { Place::Container } else { Place::Here };
        let mut scope = free::Scope { place, ..free::Scope::default() };
        let (lowering, arguments) = self.given.into_parts()?;
        let (mut inputs, mut makers) = (inputs_of(&lowering), Vec::new());
        let paths = inputs.iter().map(|input| PathBuf::from(&*input.scratch_path)).collect();
        let Lowering { takes, inputs: files, .. } = lowering;
        makers.extend(files.into_iter().filter_map(|file| file.maker));
        for (label, read) in self.inputs {
            let (source, sha256, kind) = match read {
                Read::File(file) => {
                    let source = file.source().map_err(|error| error.to_string())?;
                    (source, file.digest().map_err(|error| error.to_string())?, file.kind())
                }
                Read::Output(output) => {
                    let input = output.as_input(self.flow.handle());
                    let input = input.map_err(|error| error.to_string())?;
                    makers.extend(input.maker);
                    (input.source, input.sha256, input.kind)
                }
            };
            let scratch_path = free::scratch_of(&source, &label);
            scope.inputs.push((Arc::clone(&label), Arc::clone(&scratch_path)));
            inputs.push(InputSpec { label, scratch_path, source, sha256, kind, optional: false });
        }
        let outputs = self.writes.outputs(self.flow.paths())?;
        let written = outputs.iter().filter(|output| output.captures.is_none());
        let written =
            written.map(|output| (Arc::clone(&output.label), Arc::clone(&output.scratch_path)));
        scope.outputs.extend(written);
        let names = inputs.iter().map(|input| Arc::clone(&input.scratch_path));
        let names = names.chain(outputs.iter().map(|output| Arc::clone(&output.scratch_path)));
        let names: Vec<Arc<str>> = names.collect();
        let text = Text { template: self.template, scope, arguments, paths };
        text.check()?;
        check_ignored(&self.ignored, &text, self.options.env.as_deref())?;
        let ignores_values = text.gives_any_of(&self.ignored);
        let mut uncounted = text.uncounted(&self.ignored, &inputs);
        let (command, deed) = if takes.is_empty() && !ignores_values {
            (text.render(&[])?, Deed::Command)
        } else {
            if takes.is_empty() {
                // What is wrong with it is to be told now.
                text.render(&[])?;
            }
            (text.unrendered(&self.ignored), Deed::Text(Box::new(text)))
        };
        let mut options = self.options.said();
        let is_variable = |name: &&String| options.env.contains_key(*name);
        uncounted.env = self.ignored.iter().filter(is_variable).cloned().collect();
        options.uncounted = uncounted.shared();
        options.container = container;
        let keep = self.options.keep_scratch;
        options.keep_scratch = keep.unwrap_or_else(|| self.flow.keeps_scratch());
        options.checkpoint = self.writes.checkpoint(&names)?;
        if let Some(ranks) = self.ranks {
            start_ranks(&mut options, ranks)?;
        }
        let options = self.flow.share_options(options);
        let spec = TaskSpec { inputs, outputs, options, ..TaskSpec::new("", command) };
        let after = self.options.after.of(self.flow.handle()).map_err(|error| error.to_string())?;
        makers.extend(after.iter().cloned());
        Ok((spec, Work { takes, makers, deed, handler: None }, after))
    }
}

/// Each name that is to be ignored is that of something.
fn check_ignored(
    ignored: &BTreeSet<String>,
    text: &Text,
    env: Option<&BTreeMap<String, String>>,
) -> Result<(), String> {
    let is_variable = |name: &str| env.is_some_and(|env| env.contains_key(name));
    match ignored.iter().find(|name| !text.gives(name) && !is_variable(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "it is to ignore {name:?}, which is neither a value that it is given nor a variable"
        )),
    }
}

/// Makes it so many processes, each with its cores.
fn start_ranks(options: &mut TaskOptions, ranks: Ranks) -> Result<(), String> {
    let ranks = Ranks::of(Some(ranks.nodes), None, Some(ranks.per_node))?;
    options.ranks = Some(ranks.on_this_machine()?);
    let cores = &mut options.resources.cores;
    *cores = cores.saturating_mul(ranks.total());
    Ok(())
}

/// A command that was submitted.
///
/// ```no_run
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let made = flow.command("date > {{ outputs.now }}").output("now", "now.txt").submit();
/// println!("it will be at {}", made.output("now").path().display());
/// made.done().wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CommandRun {
    cell: Arc<Cell>,
    handle: super::handle::Handle,
}

impl CommandRun {
    /// The output with this label; the first one, if several have it.
    ///
    /// One that was not declared is a future that fails.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let made = flow.command("seq 9 > {{ outputs.list }}").output("list", "list.txt").submit();
    /// println!("{}", made.output("list").wait()?.display());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn output(&self, label: &str) -> FileFuture {
        output_of(&self.cell, label, &self.handle)
    }

    /// Its end, for tasks without outputs.
    ///
    /// ```no_run
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// flow.command("make -C tools install").submit().done().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn done(&self) -> Future<()> {
        Future::new(Arc::clone(&self.cell), self.handle.clone())
    }
}
