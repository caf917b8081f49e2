//! What a function is told of the try of its task that it is called for.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::calling::Stop;

/// What a function is told of its task: where to write its outputs, what it saved in earlier tries,
/// and which try this is.
///
/// A function whose first parameter is a `Context` is given one; it stands in no call. It has a
/// directory of its own while it runs, in which its outputs are written. They appear at their paths
/// when it has returned a value, all or none, and their futures are had from that of the value:
///
/// ```
/// # use keelboat::flow::{Config, Context, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// fn squares(context: Context, upto: u64) -> std::io::Result<u64> {
///     let table: String = (1..=upto).map(|x| format!("{x},{}\n", x * x)).collect();
///     std::fs::write(context.output("table")?, table)?;
///     Ok(upto)
/// }
/// let rows = flow.function(squares).output("table", "out/squares.csv").try_call((3,));
/// assert_eq!(std::fs::read_to_string(rows.output("table").wait()?)?, "1,1\n2,4\n3,9\n");
/// assert_eq!(rows.wait()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Clones are the same.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    place: Place,
    stop: Arc<Stop>,
}

/// Saves what is in a checkpoint directory.
pub(crate) type Save = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Where a function runs.
pub(crate) struct Place {
    pub(crate) task: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) gpus: Vec<String>,
    pub(crate) scratch: PathBuf,
    /// By label.
    pub(crate) outputs: Vec<(Arc<str>, PathBuf)>,
    pub(crate) checkpoint: Option<(PathBuf, Save)>,
}

/// A function asked for something that its task does not have.
#[derive(Debug, thiserror::Error)]
enum ContextError {
    #[error("the task has no output {label:?}; declare it by `.output({label:?}, \"PATH\")`")]
    NoOutput { label: String },
    #[error("the task has no checkpoint; give it one by `.checkpoint(\"DIRECTORY\")`")]
    NoCheckpoint,
}

impl ContextError {
    fn not_found(self) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, self)
    }
}

impl Context {
    pub(crate) fn new(place: Place, stop: Arc<Stop>) -> Self {
        Self(Arc::new(Inner { place, stop }))
    }

    /// The name of the task, as it stands in logs and errors.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let function = |context: Context| context.task().to_owned();
    /// let told = flow.function(function).name("who").call(()).wait()?;
    /// assert!(told.starts_with("who["));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task(&self) -> &str {
        &self.0.place.task
    }

    /// Which try of the task this is, from 1. Tries of earlier starts of the program count.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let function = |context: Context| context.attempt();
    /// let told = flow.function(function).call(()).wait()?;
    /// assert_eq!(told, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attempt(&self) -> u32 {
        self.0.place.attempt
    }

    /// The GPUs that the task has for itself, by the names or numbers that their driver knows; as many
    /// as [`gpus`](super::FunctionTask::gpus) says.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let function = |context: Context| context.gpus().len();
    /// assert_eq!(flow.function(function).call(()).wait()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn gpus(&self) -> &[String] {
        &self.0.place.gpus
    }

    /// A directory that the function has for itself while it runs.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let function = |context: Context| context.scratch().is_dir();
    /// let told = flow.function(function).call(()).wait()?;
    /// assert!(told);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scratch(&self) -> &Path {
        &self.0.place.scratch
    }

    /// Where the output with this label is to be written; the first one, if several have it. The
    /// directory around it exists.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// fn write(context: Context) -> std::io::Result<()> {
    ///     std::fs::write(context.output("list")?, "1 2 3")
    /// }
    /// flow.function(write).output("list", "list.txt").try_call(()).wait()?;
    /// assert_eq!(std::fs::read_to_string(directory.path().join("list.txt"))?, "1 2 3");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The task has no such output.
    pub fn output(&self, label: &str) -> io::Result<PathBuf> {
        let mut outputs = self.0.place.outputs.iter();
        let found = outputs.find(|(known, _)| &**known == label);
        let missing = || ContextError::NoOutput { label: label.to_owned() }.not_found();
        found.map(|(_, path)| path.clone()).ok_or_else(missing)
    }

    /// The directory with what earlier tries of the task have saved; empty for the first. What is in
    /// it when this try dies, by an error, a panic, its timeout, or with the whole program, is in it
    /// in the next one.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// use std::fs;
    /// use std::time::Duration;
    ///
    /// /// Fails at each tenth number, and goes on from there.
    /// fn count(context: Context, upto: u64) -> std::io::Result<u64> {
    ///     let note = context.checkpoint()?.join("counted");
    ///     let mut counted = fs::read_to_string(&note).map_or(0, |text| text.parse().unwrap_or(0));
    ///     while counted < upto {
    ///         counted += 1;
    ///         // A file that is replaced by another one is never half of it.
    ///         fs::write(note.with_extension("new"), counted.to_string())?;
    ///         fs::rename(note.with_extension("new"), &note)?;
    ///         if counted % 10 == 0 && counted < upto {
    ///             return Err(std::io::Error::other("that was a lot"));
    ///         }
    ///     }
    ///     Ok(u64::from(context.attempt()))
    /// }
    /// let moment = Duration::from_millis(1);
    /// let count = flow.function(count).checkpoint("state/").retries(9).backoff(moment, moment);
    /// assert_eq!(count.try_call((30,)).wait()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The task has no checkpoint.
    pub fn checkpoint(&self) -> io::Result<PathBuf> {
        let checkpoint = self.0.place.checkpoint.as_ref();
        let found = checkpoint.map(|(directory, _)| directory.clone());
        found.ok_or_else(|| ContextError::NoCheckpoint.not_found())
    }

    /// Saves now what is in the checkpoint directory, durably: from then on it also outlives a loss
    /// of power. Not to be called while other threads write there. Blocks for some hundredths of a
    /// second, more for many bytes.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// fn train(context: Context, epochs: u32) -> std::io::Result<u32> {
    ///     for epoch in 1..=epochs {
    ///         std::fs::write(context.checkpoint()?.join("epoch"), epoch.to_string())?;
    ///         context.save()?;
    ///     }
    ///     Ok(epochs)
    /// }
    /// assert_eq!(flow.function(train).checkpoint("state/").try_call((2,)).wait()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The task has no checkpoint, the disk says no, something is written there meanwhile, or nobody
    /// waits for this try any more.
    pub fn save(&self) -> io::Result<()> {
        match &self.0.place.checkpoint {
            Some((_, save)) => save(),
            None => Err(ContextError::NoCheckpoint.not_found()),
        }
    }

    /// Whether nobody waits for this try any more: it was cancelled, or took longer than it may. A
    /// plain function cannot be stopped from outside; one that computes for long does well to ask now
    /// and then, and to return.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Context, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let function = |context: Context| context.is_given_up();
    /// let told = flow.function(function).call(()).wait()?;
    /// assert!(!told);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_given_up(&self) -> bool {
        self.0.stop.is_given_up()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("task", &self.task())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
