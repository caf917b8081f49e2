//! What may be said of a task besides what it does.

use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{
    Env, Failure, FailureKind, KeepScratch, Memoize, MemoryGrowth, Resources, Response,
    RetryPolicy, RetryRule, TaskOptions, no_env,
};

use super::order::Earlier;

/// Whether a result is remembered, and an earlier one used.
///
/// ```
/// # use keelboat::flow::{Cache, Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let now = || std::time::SystemTime::now();
/// let clock = flow.function(now).name("clock").cache(Cache::Off);
/// assert!(clock.call(()).wait()? <= clock.call(()).wait()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cache {
    /// Both.
    #[default]
    On,
    /// Neither: the task runs each time.
    Off,
    /// It runs, and the result is remembered in the place of an earlier one.
    Refresh,
    /// An earlier one is used, and none is remembered.
    ReadOnly,
    /// Both, and of failures too: an exit code of a command (1 to 124), or the error of a function, when no try
    /// is left. The same task then fails at once with it, also in later starts of the program, until what it
    /// is made of changes or another `Cache` is said. What may go away by itself is never remembered: panics,
    /// signals, limits, what was cancelled or lost.
    ///
    /// ```
    /// # use keelboat::flow::{Cache, Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let solve = || Err::<f64, _>("it does not converge");
    /// let solve = flow.function(solve).name("solve").cache(Cache::Failures);
    /// solve.try_call(()).wait().unwrap_err();
    /// let again = solve.try_call(()).wait().unwrap_err(); // was not called
    /// assert!(again.to_string().contains("remembered"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Failures,
}

/// Looks at a failure and says what follows; `None`: what the rules say.
pub(crate) type Handler = Arc<dyn Fn(&Failure) -> Option<Response> + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) cores: Option<u32>,
    pub(crate) memory: u64,
    pub(crate) growth: Option<MemoryGrowth>,
    pub(crate) gpus: u32,
    pub(crate) disk: u64,
    pub(crate) priority: i32,
    pub(crate) executors: Arc<[Arc<str>]>,
    pub(crate) handler: Option<Handler>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Arc<RetryPolicy>>,
    pub(crate) cache: Option<Cache>,
    pub(crate) env: Option<Env>,
    pub(crate) after: Earlier,
    pub(crate) keep_scratch: Option<KeepScratch>,
}

impl Options {
    /// What they say to the engine.
    pub(crate) fn said(&self) -> TaskOptions {
        TaskOptions {
            env: self.env.clone().unwrap_or_else(no_env),
            version: self.version.clone(),
            resources: Resources {
                cores: self.cores.unwrap_or(1),
                memory: self.memory,
                gpus: self.gpus,
                disk: self.disk,
            },
            memory_growth: self.growth,
            priority: self.priority,
            executors: Arc::clone(&self.executors),
            timeout: self.timeout,
            retry: self.retry.clone().unwrap_or_else(RetryPolicy::none),
            memoize: match self.cache.unwrap_or_default() {
                Cache::On => Memoize::On,
                Cache::Off => Memoize::Off,
                Cache::Refresh => Memoize::Refresh,
                Cache::ReadOnly => Memoize::ReadOnly,
                Cache::Failures => Memoize::Failures,
            },
            ..TaskOptions::default()
        }
    }
}

impl Options {
    /// What follows from failures, to be changed.
    pub(crate) fn retry(&mut self) -> &mut RetryPolicy {
        Arc::make_mut(self.retry.get_or_insert_with(RetryPolicy::none))
    }

    /// With a rule more.
    pub(crate) fn add_rule(&mut self, on: FailureKind, then: Response) {
        let retry = self.retry();
        retry.rules = retry.rules.iter().copied().chain([RetryRule { on, then }]).collect();
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The methods by which the builders of tasks take options.
macro_rules! option_methods {
    () => {
        /// A name for logs, errors and `keelboat status`; also part of what a function is known by
        /// in the memo store.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).name("one");
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn name(mut self, name: impl Into<std::sync::Arc<str>>) -> Self {
            self.options.name = Some(name.into());
            self
        }

        /// A version of what is run: another one has other results.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).version("2");
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn version(mut self, version: impl Into<std::sync::Arc<str>>) -> Self {
            self.options.version = Some(version.into());
            self
        }

        /// Cores that it takes while it runs; 1 when not said.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).cores(2);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn cores(mut self, cores: u32) -> Self {
            self.options.cores = Some(cores);
            self
        }

        /// Bytes of memory that it takes while it runs.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).memory(1 << 20);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn memory(mut self, bytes: u64) -> Self {
            self.options.memory = bytes;
            self
        }

        /// What it asks for when it has run out of memory: by this factor more each time, as often as
        /// there is more, and at most so many bytes.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).memory(1 << 20).memory_grows(2.0, Some(1 << 30));
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn memory_grows(mut self, factor: f64, max: Option<u64>) -> Self {
            // As whole thousandths, which every machine counts alike.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let factor = (factor * 1000.0).clamp(1000.0, 1_000_000.0) as u32;
            self.options.growth = Some(keelboat_engine::MemoryGrowth { factor, max });
            self
        }

        /// GPUs that it has for itself while it runs.
        ///
        /// ```no_run
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).gpus(1);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn gpus(mut self, gpus: u32) -> Self {
            self.options.gpus = gpus;
            self
        }

        /// Bytes of the disk that it needs for what it writes.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).disk(1 << 20);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn disk(mut self, bytes: u64) -> Self {
            self.options.disk = bytes;
            self
        }

        /// Of tasks that wait for the same slots those with a higher one go first; 0 when not said.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).priority(10);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn priority(mut self, priority: i32) -> Self {
            self.options.priority = priority;
            self
        }

        /// Has it wait until that is done, although nothing of it is an argument: it is no part of the
        /// memo key. When that fails, this one does not run. Of a file it is the task that makes it.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let warmed = flow.call(|| println!("warming up"), ());
        /// let one = flow.function(|| 1).after(&warmed);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// assert!(warmed.try_get().is_some());
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn after(mut self, earlier: &(impl $crate::flow::Precedes + ?Sized)) -> Self {
            earlier.add_to(&mut self.options.after);
            self
        }

        /// A pool that it may run in, by the name that the settings give it; of several the one that
        /// was named first is preferred.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).executor("local");
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn executor(mut self, label: impl Into<std::sync::Arc<str>>) -> Self {
            let labels = self.options.executors.iter().cloned();
            self.options.executors = labels.chain([label.into()]).collect();
            self
        }

        /// What follows from failures of a kind; of several rules the first that applies.
        ///
        /// ```
        /// # use keelboat::flow::{Config, FailureClass, FailureKind, Flow, Response};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let fails = flow.function(|| Err::<u64, _>("no")).retries(9);
        /// // This one is not tried again.
        /// let fails = fails.on(FailureKind::Class(FailureClass::Transient), Response::Fail);
        /// assert!(fails.try_call(()).wait().is_err());
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn on(
            mut self,
            failures: $crate::flow::FailureKind,
            then: $crate::flow::Response,
        ) -> Self {
            self.options.add_rule(failures, then);
            self
        }

        /// Has a function look at each failure of it, which says what follows and what that costs;
        /// `None`: what the rules say.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow, Response};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let fails = flow.function(|| Err::<u64, _>("for ever")).retries(9);
        /// let fails = fails.on_failure(|failure| {
        ///     failure.cause.contains("for ever").then_some(Response::Fail)
        /// });
        /// assert!(fails.try_call(()).wait().is_err());
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn on_failure(
            mut self,
            handler: impl Fn(&$crate::flow::Failure) -> Option<$crate::flow::Response>
            + Send
            + Sync
            + 'static,
        ) -> Self {
            self.options.handler = Some(std::sync::Arc::new(handler));
            self
        }

        /// The longest that one try may take; of a join, until it has returned its future.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// use std::time::Duration;
        /// let endless = flow.function(async || std::future::pending::<u64>().await);
        /// let short = endless.timeout(Duration::from_millis(5)).call(());
        /// assert!(short.wait().unwrap_err().to_string().contains("timed out"));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn timeout(mut self, span: std::time::Duration) -> Self {
            self.options.timeout = Some(span);
            self
        }

        /// Tries after the first one; 0 when not said.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).retries(3);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn retries(mut self, retries: u32) -> Self {
            self.options.retry().retries = retries;
            self
        }

        /// The wait before the first retry, which is doubled before each one after it, and the
        /// longest wait.
        ///
        /// ```
        /// # use keelboat::flow::{Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// use std::time::Duration;
        /// let (first, longest) = (Duration::from_millis(1), Duration::from_millis(4));
        /// let one = flow.function(|| 1).retries(3).backoff(first, longest);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn backoff(mut self, first: std::time::Duration, longest: std::time::Duration) -> Self {
            self.options.retry().backoff_min = first;
            self.options.retry().backoff_max = longest;
            self
        }

        /// Whether what its tries leave in the directories that they run in stays to be looked into: in
        /// `.keelboat/kept/TASK`, of each task the last one. As [`Config`](crate::flow::Config::keep_scratch)
        /// says, when not said here.
        ///
        /// ```no_run
        /// # use keelboat::flow::{Config, Flow, KeepScratch};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let solved = flow.command("solve --debug-to notes.txt").keep_scratch(KeepScratch::Failed);
        /// if let Err(error) = solved.submit().done().wait() {
        ///     eprintln!("{error}: {}", error.hint().unwrap_or_default()); // what it left is in …
        /// }
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn keep_scratch(mut self, keep: $crate::flow::KeepScratch) -> Self {
            self.options.keep_scratch = Some(keep);
            self
        }

        /// Whether a result is remembered, and an earlier one used.
        ///
        /// ```
        /// # use keelboat::flow::{Cache, Config, Flow};
        /// # let directory = tempfile::tempdir()?;
        /// # let flow = Flow::open(Config::new(directory.path()))?;
        /// let one = flow.function(|| 1).name("one").cache(Cache::Off);
        /// assert_eq!(one.call(()).wait()?, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn cache(mut self, cache: $crate::flow::Cache) -> Self {
            self.options.cache = Some(cache);
            self
        }
    };
}
pub(crate) use option_methods;
