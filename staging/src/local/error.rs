//! What can go wrong with local files, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use keelboat_engine::{Digest, Failure, FailureClass, Kind};

/// Trouble with a local file or directory.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The system refused.
    #[error("cannot {action} {}: {}", path.display(), reason(source))]
    Io {
        /// What was tried: `open`, `read`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It was written to while its digest was computed, or since.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It is not what it was declared to be.
    #[error("{} is {found}, expected a {}", path.display(), kind_name(*expected))]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What is there, with its article.
        found: &'static str,
        /// What was declared.
        expected: Kind,
    },
    /// Something in a directory is neither file, directory nor symbolic link.
    #[error("{} is {found}: it cannot be part of a directory of data", path.display())]
    Special {
        /// The path.
        path: PathBuf,
        /// What is there, with its article.
        found: &'static str,
    },
    /// Others could put something among the files on their way.
    #[error("cannot keep files on their way in {}: it {found}", path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// What is the matter with it.
        found: &'static str,
    },
    /// A name that would lead out of the scratch directory.
    #[error("{name:?} leads out of the scratch directory")]
    Escapes {
        /// The name.
        name: String,
    },
    /// Two inputs would appear under one name.
    #[error("two inputs would appear as {name:?}")]
    Collision {
        /// The name.
        name: String,
    },
    /// The bytes are not those that are known to belong there.
    #[error("{} does not hold what is known of it: expected {}, found {}", path.display(), expected.short(), found.short())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The digest that it should have.
        expected: Digest,
        /// The digest that it has.
        found: Digest,
    },
    /// An address to which nothing can be copied from here.
    #[error("cannot deliver to {address}: {cause}")]
    Address {
        /// The address, without secrets.
        address: String,
        /// Why not.
        cause: String,
    },
}

impl LocalError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// For the machine.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Io { source, .. } => class_of(source),
            Self::Changed { .. } | Self::Mismatch { .. } => FailureClass::Transient,
            _ => FailureClass::Permanent,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { source, .. } => hint_of(source).into(),
            Self::Changed { .. } => "let whatever writes to it finish first".into(),
            Self::WrongKind { .. } => "declare it as what it is, or correct the path".into(),
            Self::Special { .. } => "remove it, or keep it outside of the directory".into(),
            Self::Exposed { .. } => {
                "remove it (what it holds comes again), or choose another place".into()
            }
            Self::Escapes { .. } => "use a relative name without `..`".into(),
            Self::Collision { .. } => "give one of them another name with `as = \"…\"`".into(),
            Self::Mismatch { .. } => {
                "the file changed or was damaged; the same command makes or fetches it again".into()
            }
            Self::Address { .. } => "write file:///absolute/path or a plain path".into(),
        }
    }

    /// The whole, for reports.
    pub fn failure(&self) -> Failure {
        Failure::new(self.class(), self.to_string()).with_hint(self.hint())
    }
}

fn class_of(error: &io::Error) -> FailureClass {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => FailureClass::InputMissing,
        Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
            FailureClass::OutOfResources
        }
        Some(libc::EIO | libc::EINTR | libc::EAGAIN | libc::ESTALE | libc::ETIMEDOUT) => {
            FailureClass::Transient
        }
        _ => FailureClass::Permanent,
    }
}

fn hint_of(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "check the path; relative paths start at the project directory",
        Some(libc::ENOTDIR) => "a file stands where the path needs a directory",
        Some(libc::ENOSPC) => "free some space on this file system",
        Some(libc::EDQUOT) => "free some space: the quota on this file system is used up",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit on open files (`ulimit -n`)",
        Some(libc::EROFS) => "the file system is read-only: choose a place that can be written",
        Some(libc::EACCES | libc::EPERM) => "check the permissions of the file and its directories",
        Some(libc::EIO) => "the disk reports an error: look at the system log",
        Some(libc::ELOOP) => "a symbolic link leads in a circle",
        Some(libc::ENAMETOOLONG) => "use a shorter name",
        Some(libc::ESTALE) => "the network file system lost the file: try again",
        _ => "see the system's message",
    }
}

/// The system's message without the number that `io::Error` appends.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text.chars().take(end).flat_map(char::to_lowercase).collect(),
        None => text,
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "regular file",
        Kind::Directory => "directory",
    }
}

/// Why outputs were not published. None of them shows.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A task succeeded without writing what it declares.
    #[error("the task ended well but did not write its output {label} ({scratch_path})")]
    Missing {
        /// The output's name in the workflow file.
        label: String,
        /// Where it should have been, relative to the scratch directory.
        scratch_path: String,
    },
    /// An output is a symbolic link out of the scratch directory.
    #[error(
        "the output {label} ({scratch_path}) is a symbolic link to {target}, outside of the scratch directory"
    )]
    LinkOutside {
        /// The output's name in the workflow file.
        label: String,
        /// Where it is, relative to the scratch directory.
        scratch_path: String,
        /// Where it points.
        target: String,
    },
    /// A task wrote by itself what is to hold what it prints.
    #[error("the task itself wrote {scratch_path}, where {stream} is kept for it")]
    Written {
        /// Where, relative to the scratch directory.
        scratch_path: String,
        /// What is kept: `stdout` or `stderr`.
        stream: &'static str,
    },
    /// An output cannot be read or moved.
    #[error("cannot publish the output {label}: {source}")]
    Local {
        /// The output's name in the workflow file.
        label: String,
        /// Why.
        source: LocalError,
    },
}

impl PublishError {
    /// The whole, for reports.
    pub fn failure(&self) -> Failure {
        let (class, hint) = match self {
            Self::Missing { .. } => (
                FailureClass::Permanent,
                "write it at {{ outputs.… }}, or declare it `optional = true`".to_owned(),
            ),
            Self::LinkOutside { .. } => {
                (FailureClass::Permanent, "copy the file instead of linking to it".to_owned())
            }
            Self::Written { stream, .. } => (
                FailureClass::Permanent,
                format!("print to {stream} alone, or declare an output of another path"),
            ),
            Self::Local { source, .. } => match source.class() {
                // The outputs themselves were there a moment ago.
                FailureClass::InputMissing => (FailureClass::Permanent, source.hint()),
                class => (class, source.hint()),
            },
        };
        Failure::new(class, self.to_string()).with_hint(hint)
    }
}
