//! What `fetch`, `put` and `ls` have in common: the staging layer by itself.

use std::path::Path;

use keelboat_engine::FailureClass;
use keelboat_staging::{ConfigError, DeliverError, FetchError, LocalError, Stager, StagingConfig};

use super::exit::Exit;
use crate::{Settings, SettingsError};

/// Why files were not moved.
#[derive(Debug, thiserror::Error)]
pub(super) enum MoveError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot start the network: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("cannot look at the file that is there: {0}")]
    Look(#[from] LocalError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Deliver(#[from] DeliverError),
}

impl MoveError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Settings(error) => Some(error.hint()),
            Self::Look(error) => Some(error.hint()),
            Self::Fetch(error) => error.failure.hint.clone(),
            Self::Deliver(error) => error.failure().hint,
            Self::Config(_) | Self::Runtime(_) => None,
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) => Exit::BadInput,
            Self::Config(_) | Self::Runtime(_) | Self::Look(_) => Exit::Broken,
            Self::Fetch(error) => exit_of(error.failure.class),
            Self::Deliver(error) => exit_of(error.failure().class),
        }
    }
}

fn exit_of(class: FailureClass) -> Exit {
    match class {
        FailureClass::OutOfResources => Exit::Broken,
        _ => Exit::Failed,
    }
}

/// The network, and what moves files over it.
pub(super) struct Session {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) stager: Stager,
}

impl Session {
    /// With the settings of this user and of the directory that it is used in.
    pub(super) fn begin(partial_dir: &Path, jobs: Option<u32>) -> Result<Self, MoveError> {
        let settings = Settings::load(Some(Path::new(".")))?;
        // One thread for the network, others for disks and digests: handing many small files from
        // thread to thread costs more than it brings.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut config = settings.staging(partial_dir);
        if let Some(jobs) = jobs {
            config.limits.total_max = jobs.max(1);
            config.limits.per_host_max = jobs.max(1);
        }
        let config = StagingConfig { seed: u64::from(std::process::id()), ..config };
        let entered = runtime.enter();
        let stager = Stager::new(config)?;
        drop(entered);
        Ok(Self { runtime, stager })
    }
}
