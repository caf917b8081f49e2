//! What `fetch`, `put` and `ls` have in common: the staging layer by itself.

use std::path::Path;
use std::time::Duration;

use keelboat_staging::{
    ConfigError, DeliverError, Fault, FetchError, LocalError, Stager, StagingConfig,
};

use super::exit::Exit;
use super::stop::Stop;
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
            Self::Fetch(error) => exit_of(error.fault),
            Self::Deliver(error) => exit_of(error.fault()),
        }
    }
}

fn exit_of(fault: Fault) -> Exit {
    match fault {
        Fault::Elsewhere => Exit::Failed,
        Fault::Here => Exit::Broken,
        Fault::Asked => Exit::BadInput,
    }
}

/// The longest that transfers which were told to end may take for it.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Threads for the network, which hash what comes; others write it down.
const NETWORK_THREADS_MAX: usize = 2;

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(NETWORK_THREADS_MAX);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// The network, and what moves files over it.
pub(super) struct Session {
    runtime: tokio::runtime::Runtime,
    pub(super) stager: Stager,
    /// Connections that there may be at once.
    pub(super) connections_max: usize,
    stop: Stop,
}

impl Session {
    /// With the settings of this user and of the directory that it is used in.
    pub(super) fn begin(partial_dir: &Path, jobs: Option<u32>) -> Result<Self, MoveError> {
        let settings = Settings::load(Some(Path::new(".")))?;
        let stop = Stop::listen()?;
        let runtime = runtime()?;
        let mut config = settings.staging(partial_dir);
        if let Some(jobs) = jobs {
            config.limits.total_max = jobs.max(1);
            config.limits.per_host_max = jobs.max(1);
        }
        let config = StagingConfig { seed: u64::from(std::process::id()), ..config };
        let connections_max = usize::try_from(config.limits.total_max).unwrap_or(usize::MAX);
        let entered = runtime.enter();
        let stager = Stager::new(config)?;
        drop(entered);
        Ok(Self { runtime, stager, connections_max, stop })
    }

    /// Does it to its end.
    pub(super) fn work<T>(&self, deed: impl Future<Output = T>) -> T {
        self.runtime.block_on(deed)
    }

    /// Does it until it is done, or the user wants it to stop: `None`.
    pub(super) fn until_stopped<T>(&self, deed: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.stop();
        self.work(async move {
            tokio::select! {
                biased;
                done = deed => Some(done),
                () = stop.requested() => None,
            }
        })
    }

    /// Tells whether the user wants it to stop.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Ends all that is under way, and waits until what came of it is written down.
    pub(super) fn end(self) {
        let Self { runtime, stager, .. } = self;
        drop(stager);
        // First the transfers are given up, which tells the threads that write that no more will
        // come; then these are waited for. `shutdown_timeout` does it the other way round.
        let (sender, ended) = std::sync::mpsc::channel::<()>();
        let dropping = std::thread::Builder::new().name("end".to_owned()).spawn(move || {
            drop(runtime);
            drop(sender);
        });
        if let Err(error) = dropping {
            tracing::debug!(%error, "ended at once");
        }
        if ended.recv_timeout(STOP_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::debug!("what writes is not waited for any longer");
        }
    }
}
