//! How a flow works.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keelboat_engine::KeepScratch;

/// What happens to tasks that are not done when a flow is closed or dropped.
///
/// ```
/// # use keelboat::flow::{Config, Flow, OnClose};
/// # let directory = tempfile::tempdir()?;
/// let flow = Flow::open(Config::new(directory.path()).on_drop(OnClose::Cancel))?;
/// let endless = flow.call(async || std::future::pending::<u64>().await, ());
/// drop(flow);
/// assert!(endless.wait().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnClose {
    /// All of them run to their end.
    #[default]
    Wait,
    /// Those that run come to their end; nothing more is begun.
    Drain,
    /// Those that run are killed; what they saved in checkpoints is kept.
    Cancel,
}

/// What a flow remembers.
///
/// ```
/// # use keelboat::flow::{Config, Flow, Remember};
/// # let directory = tempfile::tempdir()?;
/// let flow = Flow::open(Config::new(directory.path()).remember(Remember::Nothing))?;
/// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remember {
    /// Results, for this program when it is started again and for later ones.
    #[default]
    All,
    /// Nothing: no journal, no memo store. A program that dies begins anew.
    Nothing,
}

/// When results are made to last, beyond what a loss of power takes away.
///
/// What is done is written down at once, whatever this says, so that the death of the program takes
/// none of it. This is about the disk: until it has been told to keep what was written, a loss of power can take
/// it, and the tasks run again.
///
/// ```
/// # use keelboat::flow::{Config, Durability, Flow};
/// # use std::time::Duration;
/// # let directory = tempfile::tempdir()?;
/// let minutely = Durability::Every(Duration::from_mins(1));
/// let flow = Flow::open(Config::new(directory.path()).durability(minutely))?;
/// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
/// flow.checkpoint().wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Some 20 ms after the last time, for all that came since. Nobody waits for it.
    #[default]
    Grouped,
    /// Before anybody has the result: before its future does, and before tasks begin that need it.
    /// A chain of tasks is then as slow as the disk.
    EachTask,
    /// So often.
    Every(Duration),
    /// When the flow ends. [`Flow::checkpoint`](super::Flow::checkpoint) says when else.
    AtClose,
}

/// Where a flow keeps what it remembers, and how it works.
///
/// ```
/// # use keelboat::flow::{Config, Flow, OnClose};
/// # let directory = tempfile::tempdir()?;
/// let config = Config::new(directory.path())
///     .name("nightly")
///     .cores(4)
///     .on_drop(OnClose::Drain)
///     .offline()
///     .strict();
/// let flow = Flow::open(config)?;
/// # drop(flow);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
    pub(crate) cores: Option<u32>,
    pub(crate) remember: Remember,
    pub(crate) durability: Option<Durability>,
    pub(crate) on_drop: OnClose,
    pub(crate) offline: bool,
    pub(crate) strict: bool,
    pub(crate) keep_scratch: KeepScratch,
}

impl Config {
    /// For a project directory: paths of files are relative to it, and `.keelboat/` in it is where
    /// all is remembered. `keelboat.toml` in it has settings, if it is there.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()))?;
    /// assert!(directory.path().join(".keelboat").is_dir());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            name: "flow".to_owned(),
            cores: None,
            remember: Remember::All,
            durability: None,
            on_drop: OnClose::Wait,
            offline: false,
            strict: false,
            keep_scratch: KeepScratch::Never,
        }
    }

    /// For the directory of this settings file (`keelboat.toml`).
    ///
    /// ```
    /// # use keelboat::flow::Config;
    /// # let directory = tempfile::tempdir()?;
    /// # let file = directory.path().join("keelboat.toml");
    /// std::fs::write(&file, "[staging]\nretries = 3\n")?;
    /// let config = Config::from_file(&file)?;
    /// assert!(Config::from_file("other.toml").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// It is not there, or is called something else.
    pub fn from_file(file: impl AsRef<Path>) -> std::io::Result<Self> {
        let file = std::path::absolute(file)?;
        file.metadata()?;
        if file.file_name().is_none_or(|name| name != "keelboat.toml") {
            let found = file.display();
            let text = format!("{found}: settings are read from a file called keelboat.toml");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
        }
        Ok(Self::new(file.parent().unwrap_or_else(|| Path::new("/"))))
    }

    /// The name of the flow, as `keelboat status` shows it. A program that is started again goes on
    /// with the unfinished run of the same name.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()).name("nightly"))?;
    /// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Cores that tasks may use together; all of the machine when not said.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()).cores(2))?;
    /// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cores(mut self, cores: u32) -> Self {
        self.cores = Some(cores.max(1));
        self
    }

    /// What is remembered.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, Remember};
    /// # let directory = tempfile::tempdir()?;
    /// let config = Config::new(directory.path()).remember(Remember::Nothing);
    /// assert_eq!(Flow::open(config)?.call(|| 1, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn remember(mut self, remember: Remember) -> Self {
        self.remember = remember;
        self
    }

    /// When what is remembered is made to last; as `keelboat.toml` says, when not said here.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Durability, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// let config = Config::new(directory.path()).durability(Durability::AtClose);
    /// assert_eq!(Flow::open(config)?.call(|| 1, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// What happens to tasks that are not done when the flow is dropped.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, OnClose};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()).on_drop(OnClose::Cancel))?;
    /// let endless = flow.call(async || std::future::pending::<u64>().await, ());
    /// drop(flow);
    /// assert!(endless.wait().unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn on_drop(mut self, on_drop: OnClose) -> Self {
        self.on_drop = on_drop;
        self
    }

    /// Whether what tasks leave in the directories that they run in stays to be looked into, where a task
    /// does not [say](super::CommandTask::keep_scratch); never when not said.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, KeepScratch};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()).keep_scratch(KeepScratch::Failed))?;
    /// # drop(flow);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn keep_scratch(mut self, keep: KeepScratch) -> Self {
        self.keep_scratch = keep;
        self
    }

    /// Use what is here of remote files, and no network.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()).offline())?;
    /// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Read the bytes of outputs again rather than believe their metadata.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow};
    /// # let directory = tempfile::tempdir()?;
    /// let flow = Flow::open(Config::new(directory.path()).strict())?;
    /// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }
}
