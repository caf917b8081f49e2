//! Attempts as processes of this machine, through a warden.
//!
//! One thread listens to the warden and tells the sink; messages to the warden are written by
//! whoever calls, without blocking. Deliberately absent: a queue. What is buffered is bounded by
//! the attempts that the engine has begun and not yet seen end.

mod link;
mod listener;
mod state;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use keelboat_engine::AttemptId;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;

use crate::wire::WireError;
use crate::{Executor, LaunchSpec, Sink, mark};
use link::Link;
use listener::Listener;
use state::State;

/// How long the end of all attempts may take beyond their grace.
const SHUTDOWN_EXTRA: Duration = Duration::from_secs(5);

/// How the warden is started: a program that calls [`warden_main`](crate::warden_main).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WardenCommand {
    /// The program, usually the engine's own binary.
    pub program: PathBuf,
    /// Arguments that make it a warden. Without the word "keelboat", so that a `pkill -f` for the
    /// engine leaves the warden alive to clean up.
    pub args: Vec<OsString>,
}

/// How a [`LocalExecutor`] is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalConfig {
    /// The program of the warden.
    pub warden: WardenCommand,
    /// Names this executor in the environment of each process that it starts, for
    /// [`kill_leftovers`](crate::kill_leftovers): ASCII letters, digits, `-`, `_` and `.`.
    pub token: String,
}

/// Why a [`LocalExecutor`] does not start.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The token cannot stand in a mark.
    #[error(
        "token {token:?} cannot be used: expected 1 to 128 ASCII letters, digits, `-`, `_` or `.`"
    )]
    Token {
        /// What was given.
        token: String,
    },
    /// The warden's program does not run.
    #[error("cannot start the warden {program:?}: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The program runs, but does not answer like a warden.
    #[error(
        "the warden {program:?} does not answer: {reason}; expected a program that calls `warden_main`"
    )]
    Answer {
        /// The program.
        program: PathBuf,
        /// What came instead.
        reason: String,
    },
    /// A resource of the system is missing.
    #[error("cannot set up the local executor: {0}")]
    System(#[from] io::Error),
}

impl From<Errno> for ExecutorError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Runs attempts as processes of this machine; when it dies, they do.
///
/// Starting one makes the calling process a child subreaper: orphans below it become its children.
#[derive(Debug)]
pub struct LocalExecutor {
    shared: Arc<Shared>,
    listener: ThreadId,
}

/// What callers and the listening thread share.
struct Shared {
    state: Mutex<State>,
    /// Signalled when an attempt ends, and when the listener is over.
    changed: Condvar,
    /// Wakes the listener.
    wake: EventFd,
    sink: Arc<dyn Sink>,
}

impl LocalExecutor {
    /// Starts the warden and waits for its answer, at most ten seconds.
    ///
    /// # Errors
    /// The token is not usable, the warden does not start, or it does not answer.
    pub fn start(config: LocalConfig, sink: Arc<dyn Sink>) -> Result<Self, ExecutorError> {
        if !mark::is_token(&config.token) {
            return Err(ExecutorError::Token { token: config.token });
        }
        prctl::set_child_subreaper(true)?;
        let link = Link::start(&config)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(link.socket())),
            changed: Condvar::new(),
            wake: EventFd::from_value_and_flags(0, flags)?,
            sink,
        });
        let listener = Listener::new(Arc::clone(&shared), config, link);
        let thread = thread::Builder::new()
            .name("local-executor".to_owned())
            .spawn(move || listener.run())?;
        Ok(Self { shared, listener: thread.thread().id() })
    }

    /// Waits until a condition on the state holds; `false` when it does not in time.
    fn wait_until(&self, deadline: Instant, holds: fn(&State) -> bool) -> bool {
        let mut state = self.shared.state();
        while !holds(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let wait = self.shared.changed.wait_timeout(state, left);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    /// A panic elsewhere leaves the state usable: nothing in it is changed in two steps.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // The only error is that the counter is full: then the listener is being woken already.
        self.wake.write(1).ok();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Executor for LocalExecutor {
    fn begin(&self, spec: LaunchSpec) {
        let needs_listener = self.shared.state().begin(&spec);
        if needs_listener {
            self.shared.wake();
        }
    }

    fn kill(&self, attempt: AttemptId) {
        let needs_listener = self.shared.state().kill(attempt);
        if needs_listener {
            self.shared.wake();
        }
    }

    fn shutdown(&self) {
        let grace = self.shared.state().close();
        self.shared.wake();
        if thread::current().id() == self.listener {
            return; // Called by the sink: the listener cannot wait for itself.
        }
        let deadline = Instant::now() + grace + SHUTDOWN_EXTRA;
        if !self.wait_until(deadline, State::is_over) {
            // The warden takes the end of the socket for the end of the engine.
            self.shared.state().hang_up();
            self.wait_until(Instant::now() + SHUTDOWN_EXTRA, State::is_over);
        }
    }
}

impl Drop for LocalExecutor {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Why messages of an attempt cannot be sent: they are longer than any command line may be.
fn too_long(error: &WireError) -> Errno {
    match error {
        WireError::TooLong { .. } => Errno::E2BIG,
        WireError::Version { .. } | WireError::Malformed(_) => Errno::EINVAL,
    }
}
