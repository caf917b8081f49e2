//! Edges that are made when they are needed first: the network and the processes.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keelboat_engine::{AttemptId, AttemptOutcome, core::Event};
use keelboat_executors::{Executor as _, ExecutorError, LocalConfig, LocalExecutor, Sink};
use keelboat_staging::{ConfigError, Stager, StagingConfig};

use super::edges::tell;
use super::message::Message;
use super::tools::Tools;

#[derive(Debug)]
pub(crate) struct Late {
    staging_config: StagingConfig,
    local_config: LocalConfig,
    pub(super) tools: Tools,
    stager: Mutex<Option<Stager>>,
    executor: Mutex<Option<Arc<LocalExecutor>>>,
}

impl Late {
    pub(crate) fn new(
        staging_config: StagingConfig,
        local_config: LocalConfig,
        tools: Tools,
    ) -> Self {
        let (stager, executor) = (Mutex::default(), Mutex::default());
        Self { staging_config, local_config, tools, stager, executor }
    }

    /// What brings remote files and sends outputs out; inside the runtime.
    pub(crate) fn stager(&self) -> Result<Stager, ConfigError> {
        let mut stager = lock(&self.stager);
        if let Some(stager) = &*stager {
            return Ok(stager.clone());
        }
        let made = Stager::new(self.staging_config.clone())?;
        *stager = Some(made.clone());
        Ok(made)
    }

    /// What moves files, if a bound is set on their room, and if anything was moved yet.
    pub(crate) fn bounded_stager(&self) -> Option<Stager> {
        self.staging_config.limits.space_max?;
        lock(&self.stager).clone()
    }

    /// What runs attempts; ends are told to the loop.
    pub(crate) fn executor(
        &self,
        messages: &SyncSender<Message>,
    ) -> Result<Arc<LocalExecutor>, ExecutorError> {
        let mut executor = lock(&self.executor);
        if let Some(executor) = &*executor {
            return Ok(Arc::clone(executor));
        }
        let sink = Arc::new(ToLoop(messages.clone()));
        let made = Arc::new(LocalExecutor::start(self.local_config.clone(), sink)?);
        *executor = Some(Arc::clone(&made));
        Ok(made)
    }

    pub(crate) fn kill(&self, attempt: AttemptId) {
        if let Some(executor) = &*lock(&self.executor) {
            executor.kill(attempt);
        }
    }

    pub(crate) fn shutdown(&self) {
        if let Some(executor) = &*lock(&self.executor) {
            executor.shutdown();
        }
    }
}

fn lock<T>(late: &Mutex<T>) -> MutexGuard<'_, T> {
    late.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings ends of attempts to the loop.
struct ToLoop(SyncSender<Message>);

impl Sink for ToLoop {
    fn ended(&self, outcome: AttemptOutcome) {
        tell(&self.0, Message::Events(vec![Event::AttemptEnded(outcome)]));
    }
}
