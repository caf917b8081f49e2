//! The edges of one run, in one place: files, memory, network, processes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

use keelboat_checkpoint::{DigestCache, MemoStore, ObjectCache};
use keelboat_engine::{Content, Digest, FileStamp, Kind};
use keelboat_executors::{ExecutorError, LocalExecutor};
use keelboat_staging::{ConfigError, DigestMemory, LocalError, Recycler, Stager, digest_path};

use super::checkpoints::Checkpoints;
use super::late::Late;
use super::logs::Logs;
use super::message::Message;
use super::observe::Board;
use super::pool::Pool;
use super::pools::LocalPool;
use crate::project::{Project, RunDir};

/// From SIGTERM to SIGKILL.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Edges {
    pub(crate) project: Project,
    pub(crate) run: RunDir,
    pub(crate) memo: Arc<MemoStore>,
    pub(crate) objects: ObjectCache,
    pub(crate) digests: Arc<DigestCache>,
    pub(crate) scratch: Recycler,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) logs: Logs,
    /// Made when they are needed: a run with nothing to do needs neither network nor processes.
    pub(crate) late: Late,
    pub(crate) pool: Pool,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) board: Arc<Board>,
    pub(crate) threads: usize,
    /// The slots of this machine.
    pub(crate) pools: Vec<LocalPool>,
    /// Whether results are kept for later.
    pub(crate) remembers: bool,
    /// Read bytes again rather than believe their stamps.
    pub(crate) strict: bool,
    pub(crate) messages: SyncSender<Message>,
    /// Whether anything failed because the disk is full.
    pub(crate) lacked_room: AtomicBool,
}

impl Edges {
    /// Tells the loop. When the loop is gone the run is over, and nobody needs to know.
    pub(crate) fn tell(&self, message: Message) {
        tell(&self.messages, message);
    }

    /// The names of a pool's GPUs of these numbers.
    pub(crate) fn gpus(&self, pool: u16, numbers: &[u32]) -> Vec<String> {
        let names = self.pools.get(usize::from(pool)).map_or(&[][..], |local| &local.gpus);
        numbers.iter().filter_map(|at| names.get(*at as usize)).cloned().collect()
    }

    /// What runs attempts.
    pub(crate) fn executor(&self) -> Result<Arc<LocalExecutor>, ExecutorError> {
        self.late.executor(&self.messages)
    }

    /// What brings remote files, and sends outputs out.
    pub(crate) fn stager(&self) -> Result<Stager, ConfigError> {
        self.late.stager()
    }

    /// Saves what speeds up the next run, and returns what went wrong in doing so.
    pub(crate) fn save(&self) -> Vec<String> {
        self.logs.clear();
        let saved = [
            self.digests.save().map_err(|error| error.to_string()),
            self.objects.save().map_err(|error| error.to_string()),
            self.memo.flush().map_err(|error| error.to_string()),
            self.scratch.clear().map_err(|error| error.to_string()),
        ];
        let errors = saved.into_iter().filter_map(Result::err);
        errors.chain(self.memo.notices().iter().map(ToString::to_string)).collect()
    }

    /// Says something to people. Where the loop itself does, it must not wait for room.
    pub(crate) fn warn(&self, text: String) {
        if let Err(lost) = self.messages.try_send(Message::Warning(text)) {
            tracing::warn!(?lost, "there was no room for a warning");
        }
    }

    pub(crate) fn digest(&self, path: &std::path::Path, kind: Kind) -> Result<Content, LocalError> {
        digest_path(path, kind, &Memory(Arc::clone(&self.digests)), self.strict)
    }
}

pub(crate) fn tell(messages: &SyncSender<Message>, message: Message) {
    if messages.send(message).is_err() {
        tracing::debug!("a report came after the end of the run");
    }
}

/// Joins the digest cache to those who hash files.
pub(crate) struct Memory(pub(crate) Arc<DigestCache>);

impl DigestMemory for Memory {
    fn recall(&self, stamp: &FileStamp) -> Option<Digest> {
        self.0.lookup(stamp)
    }

    fn remember(&self, stamp: &FileStamp, digest: Digest, hashed_at: SystemTime) {
        self.0.remember(stamp, digest, hashed_at);
    }

    fn remember_own(&self, stamp: &FileStamp, digest: Digest) {
        self.0.remember_own(stamp, digest);
    }
}
