//! What may be said of a task besides what it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{Command, Memoize, Resources, RetryPolicy, TaskSpec};

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
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) cores: Option<u32>,
    pub(crate) memory: u64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) cache: Option<Cache>,
    pub(crate) env: BTreeMap<String, String>,
}

impl Options {
    /// A task with these options and nothing else.
    pub(crate) fn spec(&self, command: Command) -> TaskSpec {
        TaskSpec {
            env: Arc::new(self.env.clone()),
            version: self.version.clone(),
            resources: Resources {
                cores: self.cores.unwrap_or(1),
                memory: self.memory,
                ..Resources::NONE
            },
            timeout: self.timeout,
            retry: self.retry.clone(),
            memoize: match self.cache.unwrap_or_default() {
                Cache::On => Memoize::On,
                Cache::Off => Memoize::Off,
                Cache::Refresh => Memoize::Refresh,
            },
            ..TaskSpec::new("", command)
        }
    }
}

/// The methods by which the builders of tasks take options.
macro_rules! option_methods {
    () => {
        /// A name for logs, errors and `keelboat status`; also part of what a function is known by
        /// in the memo store.
        pub fn name(mut self, name: impl Into<std::sync::Arc<str>>) -> Self {
            self.options.name = Some(name.into());
            self
        }

        /// A version of what is run: another one has other results.
        pub fn version(mut self, version: impl Into<std::sync::Arc<str>>) -> Self {
            self.options.version = Some(version.into());
            self
        }

        /// Cores that it takes while it runs; 1 when not said.
        pub fn cores(mut self, cores: u32) -> Self {
            self.options.cores = Some(cores);
            self
        }

        /// Bytes of memory that it takes while it runs.
        pub fn memory(mut self, bytes: u64) -> Self {
            self.options.memory = bytes;
            self
        }

        /// The longest that one try may take.
        pub fn timeout(mut self, span: std::time::Duration) -> Self {
            self.options.timeout = Some(span);
            self
        }

        /// Tries after the first one; 0 when not said.
        pub fn retries(mut self, retries: u32) -> Self {
            self.options.retry.retries = retries;
            self
        }

        /// The wait before the first retry, which is doubled before each one after it, and the
        /// longest wait.
        pub fn backoff(mut self, first: std::time::Duration, longest: std::time::Duration) -> Self {
            self.options.retry.backoff_min = first;
            self.options.retry.backoff_max = longest;
            self
        }

        /// Whether a result is remembered, and an earlier one used.
        pub fn cache(mut self, cache: $crate::flow::Cache) -> Self {
            self.options.cache = Some(cache);
            self
        }
    };
}
pub(crate) use option_methods;
