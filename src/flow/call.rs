//! Calling functions.

use std::any::TypeId;
use std::sync::Arc;

use keelboat_engine::{Command, InputSpec, Memoize, Resources, Source, TaskOptions, TaskSpec};

use super::Flow;
use super::argument::{Arguments, CodecErrorOf, Lowering};
use super::cell::Cell;
use super::function::{Bare, Begun, Body, Call, Function, JoinFunction, TryFunction};
use super::function::{Value, name_of};
use super::future::Future;
use super::guard::Guarded;
use super::handle::{Deed, FunctionWork, Submission, Work};
use super::options::{Options, option_methods};
use super::outputs::{Made, Writes, output_methods};
use crate::workflow::free;

/// A function with options, ready to be called any number of times.
///
/// ```
/// # use keelboat::flow::{Cache, Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # use std::time::Duration;
/// fn simulate(seed: u64) -> Result<u64, String> {
///     seed.checked_mul(3).ok_or_else(|| "the seed is too large".to_owned())
/// }
/// let simulate = flow
///     .function(simulate)
///     .name("simulate")
///     .version("2.1")
///     .cores(1)
///     .memory(256 << 20)
///     .timeout(Duration::from_mins(5))
///     .retries(3)
///     .backoff(Duration::from_millis(10), Duration::from_secs(1))
///     .cache(Cache::On);
/// let tripled = [1, 2, 3].map(|seed| simulate.try_call((seed,)));
/// for (seed, tripled) in (1..).zip(tripled) {
///     assert_eq!(tripled.wait()?, 3 * seed);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before it is called"]
pub struct FunctionTask<'f, F> {
    flow: &'f Flow,
    function: F,
    writes: Writes,
    /// Positions of arguments that make no difference.
    ignored: Arc<[usize]>,
    /// Its path in the program, where its type does not tell.
    path: Option<&'static str>,
    options: Options,
}

/// What a function does besides returning a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Plain,
    /// It may write files, by what its context tells it.
    InContext,
    /// It leaves that to another task.
    Join,
}

const fn kind(takes_context: bool) -> Kind {
    if takes_context { Kind::InContext } else { Kind::Plain }
}

impl<'f, F: Clone> FunctionTask<'f, F> {
    pub(crate) fn new(flow: &'f Flow, function: F) -> Self {
        let (writes, options) = (Writes::default(), Options::default());
        Self { flow, function, writes, ignored: Arc::default(), path: None, options }
    }

    pub(crate) fn at(self, path: &'static str) -> Self {
        Self { path: Some(path), ..self }
    }

    option_methods!();
    output_methods!();

    /// Arguments that make no difference to the value, by their positions from 0 on: they are no part of
    /// the memo key, nor are the values and files that they stand for.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// fn sum(numbers: Vec<u64>, threads: u32) -> u64 {
    ///     assert_eq!(threads, 4, "it runs once");
    ///     numbers.iter().sum()
    /// }
    /// let sum = flow.function(sum).ignore([1]);
    /// assert_eq!(sum.call((vec![1, 2], 4)).wait()?, 3);
    /// assert_eq!(sum.call((vec![1, 2], 8)).wait()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ignore(mut self, positions: impl IntoIterator<Item = usize>) -> Self {
        self.ignored = positions.into_iter().collect();
        self
    }

    /// Calls it with these arguments; see [`Flow::call`].
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let double = flow.function(|x: u64| 2 * x).name("double");
    /// assert_eq!(double.call((double.call((1,)),)).wait()?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call<P, R, M, A, N>(&self, arguments: A) -> Future<R>
    where
        F: Function<P, R, M>,
        R: Value,
        A: Arguments<P, N>,
    {
        let function = self.function.clone();
        let begin = move |call: Call<'_>| function.begin(call);
        self.submit("call", kind(F::TAKES_CONTEXT), begin, arguments)
    }

    /// Calls it with these arguments; see [`Flow::try_call`].
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let read = flow.function(|at: u64| at.checked_sub(1).ok_or("none before")).retries(1);
    /// assert_eq!(read.try_call((1,)).wait()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_call<P, R, M, A, N>(&self, arguments: A) -> Future<R>
    where
        F: TryFunction<P, R, M>,
        R: Value,
        A: Arguments<P, N>,
    {
        let function = self.function.clone();
        let begin = move |call: Call<'_>| function.begin(call);
        self.submit("try_call", kind(F::TAKES_CONTEXT), begin, arguments)
    }

    /// Calls it with these arguments; see [`Flow::join`].
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let own = flow.clone();
    /// let longest = move |words: Vec<String>| {
    ///     let lengths = words.into_iter().map(|word| own.call(|word: String| word.len(), (word,)));
    ///     own.call(|lengths: Vec<usize>| lengths.into_iter().max(), (lengths.collect::<Vec<_>>(),))
    /// };
    /// let words = vec!["keel".to_owned(), "boat".to_owned()];
    /// assert_eq!(flow.function(longest).name("longest").join((words,)).wait()?, Some(4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join<P, R, M, A, N>(&self, arguments: A) -> Future<R>
    where
        F: JoinFunction<P, R, M>,
        R: Value,
        A: Arguments<P, N>,
    {
        let function = self.function.clone();
        let begin = move |call: Call<'_>| function.begin(call);
        self.submit("join", Kind::Join, begin, arguments)
    }

    /// By this method: what one leaves of a function is none of the values of another.
    fn submit<P, R, A, N>(
        &self,
        method: &str,
        kind: Kind,
        begin: impl Fn(Call<'_>) -> Begun + Send + Sync + 'static,
        arguments: A,
    ) -> Future<R>
    where
        F: 'static,
        A: Arguments<P, N>,
    {
        let own_name = self.path.or_else(name_of::<F>);
        let name: Arc<str> = match (&self.options.name, own_name) {
            (Some(name), _) => Arc::clone(name),
            (None, Some(name)) => short(name).into(),
            (None, None) => "closure".into(),
        };
        let mut lowering =
            Lowering::new(self.flow.handle().clone()).ignoring(Arc::clone(&self.ignored));
        if let Err(error) = arguments.lower(&mut lowering) {
            return self.refused(&name, &error);
        }
        let body = Guarded::new(Arc::new(Bare(begin)) as Arc<dyn Body>);
        let identity = match self.identity(own_name) {
            Ok(identity) => identity,
            Err(error) => return self.refused(&name, &error.into()),
        };
        // What cannot be told from other functions has no results of its own.
        let is_known = identity.is_some();
        let identity = format!("{method} {}", identity.as_deref().unwrap_or("closure"));
        let identity = self.flow.share_name(identity);
        let command = Command::Function { name: identity, arguments: lowering.digest() };
        let mut spec = TaskSpec::new(Arc::clone(&name), command);
        spec.inputs = inputs_of(&lowering);
        let mut options = self.said(is_known);
        options.uncounted = lowering.uncounted(&spec.inputs).shared();
        if let Err(error) = self.add_writes(kind, &mut spec, &mut options) {
            return self.refused(&name, &error.into());
        }
        let (segments, takes, inputs) = lowering.into_parts();
        let is_remote = |input: &InputSpec| matches!(input.source, Source::Urls(_));
        let needs_scratch = kind == Kind::InContext || spec.inputs.iter().any(is_remote);
        let is_small = options.resources == Resources::default() && options.timeout.is_none();
        // Closures without a name are many functions: how long one lasts says nothing of another.
        options.goes_ahead = is_small && is_known && !needs_scratch;
        spec.options = self.flow.share_options(options);
        let after = match self.options.after.of(self.flow.handle()) {
            Ok(after) => after,
            Err(error) => return self.refused(&name, &error),
        };
        let makers = inputs.into_iter().filter_map(|input| input.maker);
        let makers = makers.chain(after.iter().cloned()).collect();
        let deed = Deed::Function(FunctionWork { body, segments, needs_scratch });
        let handler = self.options.handler.clone().map(Guarded::new);
        let work = Arc::new(Work { takes, makers, deed, handler });
        let cell = Cell::making(Made { outputs: spec.outputs.clone(), root: self.flow.root() });
        let future = Future::new(Arc::clone(&cell), self.flow.handle().clone());
        self.flow.handle().submit(Submission { cell, spec, name, work, after });
        future
    }

    /// What is said of each call.
    fn said(&self, is_known: bool) -> TaskOptions {
        let mut options = self.options.said();
        let keep = self.options.keep_scratch;
        options.keep_scratch = keep.unwrap_or_else(|| self.flow.keeps_scratch());
        if !is_known {
            options.memoize = Memoize::Off;
            options.version = Some(self.flow.start());
        } else if options.version.is_none() && self.is_left_to_others() {
            options.version = Some(self.flow.build());
        }
        options
    }

    /// By what it is told apart from other functions; `None`: by nothing.
    fn identity(&self, own_name: Option<&'static str>) -> Result<Option<Arc<str>>, String>
    where
        F: 'static,
    {
        match (&self.options.name, own_name) {
            (Some(name), _) => Ok(Some(Arc::clone(name))),
            // A path is given where the type is one of many functions.
            (None, Some(own))
                if self.path.is_some() || self.flow.is_only(own, TypeId::of::<F>()) =>
            {
                Ok(Some(own.into()))
            }
            (None, Some(own)) => Err(format!(
                "two functions are called `{own}`; give one of them another name by `.name(…)`"
            )),
            (None, None) => Ok(None),
        }
    }

    /// Whether another build of the program may find what it leaves.
    fn is_left_to_others(&self) -> bool {
        self.flow.remembers() || self.writes.keeps_checkpoint()
    }

    fn add_writes(
        &self,
        kind: Kind,
        spec: &mut TaskSpec,
        options: &mut TaskOptions,
    ) -> Result<(), String> {
        match kind {
            _ if self.writes.is_nothing() => return Ok(()),
            Kind::InContext => {}
            Kind::Plain => {
                return Err("it has an output or a checkpoint, and is not told where: its first \
                            parameter has to be a `Context`"
                    .to_owned());
            }
            Kind::Join => {
                return Err(
                    "a join has no output or checkpoint of its own: give it to a task that \
                            it submits"
                        .to_owned(),
                );
            }
        }
        spec.outputs = self.writes.outputs(self.flow.paths())?;
        let inputs = spec.inputs.iter().map(|input| &input.scratch_path);
        let names = inputs.chain(spec.outputs.iter().map(|output| &output.scratch_path));
        let names: Vec<Arc<str>> = names.cloned().collect();
        options.checkpoint = self.writes.checkpoint(&names)?;
        Ok(())
    }

    fn refused<R>(&self, name: &Arc<str>, error: &CodecErrorOf) -> Future<R> {
        let cause = format!("it cannot be called: {error}");
        let cell = self.flow.handle().refuse(name, cause);
        Future::new(cell, self.flow.handle().clone())
    }
}

/// Files among the arguments, each with a name that tells which one it is.
pub(super) fn inputs_of(lowering: &Lowering) -> Vec<InputSpec> {
    let spec = |(at, input): (usize, &super::argument::Input)| {
        let label: Arc<str> = at.to_string().into();
        InputSpec {
            scratch_path: format!("{at}/{}", free::scratch_of(&input.source, &label)).into(),
            label,
            source: input.source.clone(),
            sha256: input.sha256,
            kind: input.kind,
            optional: false,
        }
    };
    lowering.inputs.iter().enumerate().map(spec).collect()
}

/// The last part of the path of a function.
fn short(name: &str) -> &str {
    let plain = name.split('<').next().unwrap_or(name);
    plain.rsplit("::").next().unwrap_or(plain)
}
