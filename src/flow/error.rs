//! Why a task of a flow has no result.

use std::fmt;
use std::sync::Arc;

use keelboat_engine::{Exit, Failure, FailureClass};

/// Why a future has no value. Clones are cheap.
///
/// A task that could not run because another one failed carries that one's error, and so on to the
/// root: [`causes`](TaskError::causes) walks from there.
///
/// ```
/// # use keelboat::flow::{Config, FailureClass, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// fn read(name: String) -> Result<u64, String> {
///     Err(format!("there is no {name}"))
/// }
/// let number = flow.try_call(read, ("chart",));
/// let double = flow.function(|x: u64| 2 * x).name("double").call((number,));
/// let error = double.wait().unwrap_err();
/// assert!(error.task().starts_with("double["));
/// let [root, last] = &error.causes()[..] else { panic!("two tasks") };
/// assert!(root.to_string().ends_with("failed: there is no chart"));
/// assert!(last.to_string().contains("did not run: it needs read["));
/// assert_eq!(error.class(), FailureClass::Transient);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TaskError(Arc<Inner>);

struct Inner {
    task: Arc<str>,
    kind: Kind,
}

enum Kind {
    Failed(Failure),
    /// It needs a task that has no result.
    Needs(TaskError),
    /// The task that it returns has no result.
    Joined(TaskError),
    /// It is done, but what it left is not what the future stands for.
    Value(String),
}

impl TaskError {
    pub(crate) fn failed(task: &Arc<str>, failure: Failure) -> Self {
        Self(Arc::new(Inner { task: Arc::clone(task), kind: Kind::Failed(failure) }))
    }

    pub(crate) fn needs(task: &Arc<str>, needed: Self) -> Self {
        Self(Arc::new(Inner { task: Arc::clone(task), kind: Kind::Needs(needed) }))
    }

    pub(crate) fn joined(task: &Arc<str>, returned: Self) -> Self {
        Self(Arc::new(Inner { task: Arc::clone(task), kind: Kind::Joined(returned) }))
    }

    pub(crate) fn value(task: &Arc<str>, cause: impl fmt::Display) -> Self {
        Self(Arc::new(Inner { task: Arc::clone(task), kind: Kind::Value(cause.to_string()) }))
    }

    /// The task that has no result.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let fails = flow.function(|| Err::<u64, _>("no")).name("fails").try_call(());
    /// let next = flow.function(|x: u64| x).name("next").call((fails,));
    /// let error = next.wait().unwrap_err();
    /// assert!(error.task().starts_with("next["));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task(&self) -> &str {
        &self.0.task
    }

    /// The errors from the root, the one that began it, to this one.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let fails = flow.function(|| Err::<u64, _>("no")).name("fails").try_call(());
    /// let next = flow.function(|x: u64| x).name("next").call((fails,));
    /// let error = next.wait().unwrap_err();
    /// let causes = error.causes();
    /// assert!(causes[0].task().starts_with("fails"));
    /// assert_eq!(causes.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn causes(&self) -> Vec<Self> {
        let mut causes = vec![self.clone()];
        while let Some(cause) = causes.last().and_then(Self::cause) {
            let cause = cause.clone();
            causes.push(cause);
        }
        causes.reverse();
        causes
    }

    /// The error of another task that it follows from.
    fn cause(&self) -> Option<&Self> {
        match &self.0.kind {
            Kind::Needs(cause) | Kind::Joined(cause) => Some(cause),
            Kind::Failed(_) | Kind::Value(_) => None,
        }
    }

    /// The error that began it: of a task that ran and failed, or was cancelled.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let fails = flow.function(|| Err::<u64, _>("no")).name("fails").try_call(());
    /// let next = flow.function(|x: u64| x).name("next").call((fails,));
    /// let error = next.wait().unwrap_err();
    /// assert!(error.root().task().starts_with("fails"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn root(&self) -> Self {
        let mut root = self;
        while let Some(cause) = root.cause() {
            root = cause;
        }
        root.clone()
    }

    /// Whether somebody did not want the task any more, or one that it needs.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let fails = flow.function(|| Err::<u64, _>("no")).name("fails").try_call(());
    /// let next = flow.function(|x: u64| x).name("next").call((fails,));
    /// let error = next.wait().unwrap_err();
    /// assert!(!error.is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_cancelled(&self) -> bool {
        matches!(&self.root().0.kind, Kind::Failed(failure) if failure.cause == CANCELLED)
    }

    /// What kind of failure it began with.
    ///
    /// ```
    /// # use keelboat::flow::{Config, FailureClass, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let fails = flow.function(|| Err::<u64, _>("no")).name("fails").try_call(());
    /// let next = flow.function(|x: u64| x).name("next").call((fails,));
    /// let error = next.wait().unwrap_err();
    /// assert_eq!(error.class(), FailureClass::Transient);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn class(&self) -> FailureClass {
        match &self.root().0.kind {
            Kind::Failed(failure) => failure.class,
            Kind::Needs(_) | Kind::Joined(_) | Kind::Value(_) => FailureClass::Permanent,
        }
    }

    /// How the command ended that began it, if that was by itself: by an exit code or a signal.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let fails = flow.function(|| Err::<u64, _>("no")).name("fails").try_call(());
    /// let next = flow.function(|x: u64| x).name("next").call((fails,));
    /// let error = next.wait().unwrap_err();
    /// assert_eq!(error.exit(), None, "it was no command");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exit(&self) -> Option<Exit> {
        match &self.root().0.kind {
            Kind::Failed(failure) => failure.exit,
            Kind::Needs(_) | Kind::Joined(_) | Kind::Value(_) => None,
        }
    }

    /// What to do about it, where that is known.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let fails = flow.function(|| Err::<u64, _>("no")).name("fails").try_call(());
    /// let next = flow.function(|x: u64| x).name("next").call((fails,));
    /// let error = next.wait().unwrap_err();
    /// if let Some(hint) = error.hint() {
    ///     println!("{error}: {hint}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hint(&self) -> Option<String> {
        match &self.root().0.kind {
            Kind::Failed(failure) => failure.hint.clone(),
            Kind::Needs(_) | Kind::Joined(_) | Kind::Value(_) => None,
        }
    }
}

/// What the core says of a task that was cancelled.
const CANCELLED: &str = "it was cancelled";

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Failed(failure) => write!(f, "{} failed: {}", self.0.task, failure.cause),
            Kind::Needs(needed) => {
                write!(f, "{} did not run: it needs {}", self.0.task, needed.0.task)
            }
            Kind::Joined(returned) => {
                write!(f, "{} has no value: it returns {}", self.0.task, returned.0.task)
            }
            Kind::Value(cause) => {
                write!(f, "the value of {} is not what is expected: {cause}", self.0.task)
            }
        }
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, cause) in self.causes().into_iter().enumerate() {
            let arrow = if at == 0 { "" } else { "; so " };
            write!(f, "{arrow}{cause}")?;
        }
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TaskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            Kind::Needs(cause) | Kind::Joined(cause) => Some(cause),
            Kind::Failed(_) | Kind::Value(_) => None,
        }
    }
}
