//! What can go wrong in one try of one transfer.

use std::time::Duration;

use keelboat_engine::FailureClass;

/// What to do about a server that no certificate vouches for.
pub(super) const HINT_CERTIFICATES: &str = "name the file with the certificates that vouch for \
     this server: certificates = \"/etc/ssl/own-ca.pem\" in [staging] of keelboat.toml, or \
     SSL_CERT_FILE";

/// Where trouble is, for programs that end with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// At the other end, or on the way there.
    Elsewhere,
    /// On this machine: no room, no permission.
    Here,
    /// In what was asked for, or in the settings.
    Asked,
}

/// Why one try ended. The texts are fragments without the address; whoever reports them adds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// There is no such file.
    #[error("there is no such file ({found})")]
    Missing {
        /// What was answered.
        found: String,
    },
    /// The file is there for others.
    #[error("access was refused ({found})")]
    Forbidden {
        /// What was answered.
        found: String,
    },
    /// The server, or the protocol here, will never serve this.
    #[error("{found}")]
    Refused {
        /// What was answered.
        found: String,
        /// What to do about it.
        hint: String,
    },
    /// The server cannot serve this now.
    #[error("the server cannot serve it now ({found})")]
    Busy {
        /// What was answered.
        found: String,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// No connection, or one that broke before the first byte.
    #[error("the connection failed ({found})")]
    Unreachable {
        /// What the network said.
        found: String,
    },
    /// Nothing came for too long.
    #[error("nothing came for {} s {phase}", waited.as_secs_f32())]
    Stalled {
        /// How long.
        waited: Duration,
        /// In which phase: `before the first byte`, `after byte 10`.
        phase: String,
    },
    /// Bytes come, but so few that it would have no end.
    #[error("only {bytes} bytes came in {} s", waited.as_secs_f32())]
    Slow {
        /// How many.
        bytes: u64,
        /// In which time, as far as it was waited for the other side.
        waited: Duration,
    },
    /// The stream ended too early.
    #[error("the connection ended at byte {received} of {}", expected.map_or_else(|| "?".to_owned(), |n| n.to_string()))]
    Cut {
        /// Offset at which it ended.
        received: u64,
        /// Bytes of the whole file, when known.
        expected: Option<u64>,
    },
    /// More came than was announced.
    #[error("more than the announced {expected} bytes came")]
    TooLong {
        /// Bytes of the whole file as announced.
        expected: u64,
    },
    /// The file is another one than the one of which bytes have come already.
    #[error("the file changed while it was read ({found})")]
    Changed {
        /// What was expected and what was found.
        found: String,
    },
    /// An answer that the protocol does not allow; bytes that came before cannot be built on.
    #[error("the answer makes no sense: {found}")]
    Malformed {
        /// What was expected and what was found.
        found: String,
    },
    /// Something else is where it is to be.
    #[error("{found} stands there")]
    Occupied {
        /// What, in words.
        found: String,
        /// What to do about it.
        hint: String,
    },
    /// It is larger than all files on their way may be together.
    #[error("it has {bytes} bytes, and all transfers together may have {space_max}")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The bound of the settings.
        space_max: u64,
    },
    /// The trouble is on this side: the file system that bytes are read from or written to.
    #[error("{found}")]
    Local {
        /// Its class.
        class: FailureClass,
        /// What happened.
        found: String,
        /// What to do about it.
        hint: String,
    },
}

impl TransferError {
    /// Directories cannot be listed over this scheme.
    pub(crate) fn cannot_list(scheme: &str) -> Self {
        Self::Refused {
            found: format!("directories cannot be listed over {scheme}:"),
            hint: "name each file, or use an archive (`tar:URL!/directory`)".into(),
        }
    }

    /// Files cannot be written over this scheme.
    pub(crate) fn cannot_write(scheme: &str) -> Self {
        Self::Refused {
            found: format!("files cannot be written over {scheme}:"),
            hint: "use a path, or an address of another scheme".into(),
        }
    }

    /// The class of a transfer that ends with this.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Missing { .. } => FailureClass::InputMissing,
            Self::Forbidden { .. } | Self::Refused { .. } | Self::Occupied { .. } => {
                FailureClass::Permanent
            }
            Self::Local { class, .. } => *class,
            Self::TooLarge { .. } => FailureClass::OutOfResources,
            _ => FailureClass::Transient,
        }
    }

    /// Where the trouble is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLarge { .. } | Self::Occupied { .. } => Fault::Asked,
            Self::Local { class: FailureClass::OutOfResources, .. } => Fault::Here,
            _ => Fault::Elsewhere,
        }
    }

    /// Whether another try at the same address may end differently.
    pub fn is_retryable(&self) -> bool {
        self.class() == FailureClass::Transient
    }

    /// Whether the bytes that came so far must be thrown away.
    pub fn spoils_partial(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::Changed { .. } | Self::Malformed { .. })
    }

    /// How long the server asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { .. } => "check the address; the file may have been moved".into(),
            Self::Forbidden { .. } => "check the credentials for this address".into(),
            Self::Refused { hint, .. } | Self::Local { hint, .. } | Self::Occupied { hint, .. } => {
                hint.clone()
            }
            Self::TooLarge { .. } => "raise `staging.space_max`".into(),
            Self::Busy { .. } => "run the same command again later, or add a mirror".into(),
            Self::Slow { .. } => {
                "check the network, add a mirror, or lower `staging.rate_min`".into()
            }
            Self::Unreachable { .. } | Self::Stalled { .. } | Self::Cut { .. } => {
                "check the network and the proxy settings; the same command goes on where this \
                 one stopped"
                    .into()
            }
            Self::TooLong { .. } | Self::Changed { .. } | Self::Malformed { .. } => {
                "the file may be being replaced at its source; run the same command again later, \
                 and declare its `sha256`"
                    .into()
            }
        }
    }
}
