//! Why a file could not be fetched.

use std::sync::Arc;

use keelboat_engine::{Digest, Failure, FailureClass};

use crate::local::LocalError;
use crate::protocol::{Fault, TransferError};

/// A [`Stager`](crate::Stager) cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot set up HTTP: {cause}")]
pub struct ConfigError {
    pub(super) cause: String,
}

/// No address gave the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct FetchError {
    /// Class, cause and hint. Addresses in it are redacted.
    pub failure: Failure,
    /// Bytes that came over the network all the same.
    pub transferred: u64,
    /// Where the trouble is.
    pub fault: Fault,
}

impl FetchError {
    pub(super) fn new(
        class: FailureClass,
        cause: impl Into<String>,
        hint: impl Into<String>,
        transferred: u64,
    ) -> Self {
        let failure = Failure::new(class, cause).with_hint(hint);
        Self { failure, transferred, fault: Fault::Elsewhere }
    }

    /// What every address answered, in one error. Network trouble wins, since it may go away.
    pub(super) fn of(doing: &str, mut sources: Vec<(String, Arc<Lost>)>) -> Self {
        let transferred = sources.iter().map(|(_, lost)| lost.transferred).sum();
        let causes: Vec<String> = sources
            .iter()
            .map(|(shown, lost)| format!("cannot {doing} {shown}: {}", lost.error))
            .collect();
        sources.sort_by_key(|(_, lost)| match lost.error.class() {
            FailureClass::OutOfResources => 0,
            FailureClass::Transient => 1,
            FailureClass::Permanent => 2,
            _ => 3,
        });
        match sources.first() {
            Some((_, lost)) => {
                let (class, hint) = (lost.error.class(), lost.error.hint());
                let error = Self::new(class, causes.join("; "), hint, transferred);
                Self { fault: lost.error.fault(), ..error }
            }
            None => Self::new(
                FailureClass::Permanent,
                "no address was given to fetch from",
                "give at least one URL",
                transferred,
            ),
        }
    }
}

/// A transfer that ended badly.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) error: SourceError,
    /// Bytes that came over the network all the same.
    pub(super) transferred: u64,
}

impl Lost {
    /// Whether a further try would end the same way.
    pub(super) fn is_final(&self) -> bool {
        self.error.class() != FailureClass::Transient
    }
}

/// Why one address did not give the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("{error}{}", tries_in_words(*tries))]
    Transfer { error: TransferError, tries: u32 },
    #[error("expected SHA-256 {expected}, found {found} in {bytes} bytes, twice")]
    Mismatch { expected: Digest, found: Digest, bytes: u64, is_web_page: bool },
    #[error("{path}: {}", lost.error)]
    Inner { path: String, lost: Arc<Lost> },
    #[error(transparent)]
    Local(#[from] LocalError),
}

impl From<TransferError> for SourceError {
    fn from(error: TransferError) -> Self {
        Self::Transfer { error, tries: 1 }
    }
}

impl SourceError {
    pub(super) fn class(&self) -> FailureClass {
        match self {
            Self::Transfer { error, .. } => error.class(),
            Self::Mismatch { .. } => FailureClass::Permanent,
            Self::Inner { lost, .. } => lost.error.class(),
            Self::Local(error) => match error.class() {
                // What is missing here is not the input.
                FailureClass::InputMissing => FailureClass::Permanent,
                class => class,
            },
        }
    }

    pub(super) fn hint(&self) -> String {
        match self {
            Self::Transfer { error, .. } => error.hint(),
            Self::Mismatch { is_web_page: true, .. } => {
                "the server sends a web page instead of the file, perhaps to log in: open the \
                 address in a browser"
                    .into()
            }
            Self::Mismatch { .. } => {
                "the file is another one now: if that is intended, correct `sha256`".into()
            }
            Self::Inner { lost, .. } => lost.error.hint(),
            Self::Local(error) => error.hint(),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Transfer { error, .. } => error.fault(),
            Self::Mismatch { .. } => Fault::Elsewhere,
            Self::Inner { lost, .. } => lost.error.fault(),
            // What changes while it is read is nobody's fault for long.
            Self::Local(error) if error.class() == FailureClass::Transient => Fault::Elsewhere,
            Self::Local(_) => Fault::Here,
        }
    }

    /// Whether the trouble is on this machine, and so the same for every mirror.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Inner { lost, .. } => lost.error.is_local(),
            _ => false,
        }
    }
}

fn tries_in_words(tries: u32) -> String {
    if tries > 1 { format!(" (the last of {tries} tries without progress)") } else { String::new() }
}
