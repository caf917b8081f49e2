//! Why a run cannot begin, or cannot go on.

use keelboat_checkpoint::{IoError, JournalError, LockError, MemoError};
use keelboat_engine::core::GraphError;
use keelboat_staging::LocalError;

use crate::workflow::WorkflowErrors;

/// Why a run ended without an outcome. Whatever was recorded before stays recorded.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The workflow file says something that cannot be.
    #[error(transparent)]
    Workflow(#[from] WorkflowErrors),
    /// The tasks do not make a graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A target means nothing.
    #[error("no task, declaration or output is called {target:?}{}", near(.nearest.as_ref()))]
    UnknownTarget {
        /// What was asked for.
        target: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// Another engine is at work here, or the lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal cannot be written: nothing may go on without it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The memo store cannot be used.
    #[error(transparent)]
    Memo(#[from] MemoError),
    /// Scratch directories cannot be made.
    #[error(transparent)]
    Scratch(Box<LocalError>),
    /// The object cache cannot be used.
    #[error(transparent)]
    ObjectCache(#[from] IoError),
    /// A directory or thread of the engine's own cannot be made.
    #[error("cannot {doing}: {source}")]
    Setup {
        /// What was tried.
        doing: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] crate::SettingsError),
    /// A function of a flow asked for the end of that flow, and cannot wait for it.
    #[error("a flow is closed, but not waited for by a function of its own")]
    Inside,
    /// The engine's loop panicked.
    #[error("the engine's loop came to an end by a panic; this is a fault of Keelboat: {0}")]
    Panicked(String),
    /// All edges have gone: a fault of the engine.
    #[error("nothing can report to the engine any more; this is a fault of Keelboat")]
    EdgesGone,
}

/// As programs show it whose `main` returns it.
impl std::fmt::Debug for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

fn near(nearest: Option<&String>) -> String {
    nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

impl RunError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.hint().map(ToOwned::to_owned),
            Self::Scratch(error) => Some(error.hint()),
            Self::Settings(error) => Some(error.hint()),
            Self::Journal(error) => error.hint().map(ToOwned::to_owned),
            Self::Setup { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Some("make room on the disk; then the same command goes on".to_owned())
                }
                std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                    Some("the directory of the workflow file must be writable".to_owned())
                }
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn setup(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Setup { doing, source }
    }
}
