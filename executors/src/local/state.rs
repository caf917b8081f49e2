//! What is begun and not yet ended, and what the warden is still to be told.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{AttemptId, AttemptOutcome, Command, Failure, FailureClass, TaskId, Usage};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use super::too_long;
use crate::LaunchSpec;
use crate::outcome::{self, Told};
use crate::wire::{self, Begin, End, Ended, Key, Obstacle, Request};

/// The way to the warden.
#[derive(Debug)]
enum Way {
    Open(Arc<UnixStream>),
    /// The warden has died, and the next one is not there yet.
    Interrupted,
    /// Wardens died too often.
    GivenUp,
    /// The listener is over.
    Over,
}

#[derive(Debug)]
struct Live {
    told: Told,
    grace: Duration,
}

#[derive(Debug)]
pub(super) struct State {
    way: Way,
    live: BTreeMap<AttemptId, Live>,
    /// The highest ordinal begun of each task.
    begun: BTreeMap<TaskId, u32>,
    /// Frames that the socket has not taken.
    unsent: Vec<u8>,
    /// Outcomes that did not come from the warden, for the listener to tell.
    decided: Vec<AttemptOutcome>,
    closing: bool,
}

impl State {
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        Self {
            way: Way::Open(socket),
            live: BTreeMap::new(),
            begun: BTreeMap::new(),
            unsent: Vec::new(),
            decided: Vec::new(),
            closing: false,
        }
    }

    /// Takes up an attempt. Whether the listener has something to do for it.
    pub(super) fn begin(&mut self, spec: &LaunchSpec) -> bool {
        let attempt = spec.attempt;
        let highest = self.begun.entry(attempt.task).or_insert(0);
        if attempt.ordinal <= *highest {
            return false;
        }
        *highest = attempt.ordinal;
        if let Some(failure) = self.refusal() {
            let result = Err(failure);
            self.decided.push(AttemptOutcome { attempt, result, usage: Usage::default() });
            return true;
        }
        let begin = begin_of(spec);
        let told = told_of(spec, &begin);
        let was_idle = self.unsent.is_empty();
        self.live.insert(attempt, Live { told, grace: spec.grace });
        match wire::append(&Request::Begin(begin), &mut self.unsent) {
            Ok(()) => was_idle && !self.flush(),
            Err(error) => {
                let obstacle = Obstacle::Program;
                let end = End::NotStarted { obstacle, errno: too_long(&error) as i32 };
                let (key, used) = (attempt.into(), wire::Used::default());
                let ended = Ended { key, end, used, kernel_killed: None };
                let outcome = self.ended(&ended);
                self.decided.extend(outcome);
                true
            }
        }
    }

    fn refusal(&self) -> Option<Failure> {
        match self.way {
            _ if self.closing => {
                Some(Failure::new(FailureClass::InfrastructureLost, "the engine is shutting down"))
            }
            Way::Over => {
                Some(Failure::new(FailureClass::InfrastructureLost, "the executor has ended"))
            }
            Way::GivenUp => Some(
                Failure::new(
                    FailureClass::Permanent,
                    "the process that starts tasks (kb-warden) died too often",
                )
                .with_hint("find out what kills it: see `dmesg` and the limits of this machine"),
            ),
            Way::Open(_) | Way::Interrupted => None,
        }
    }

    /// Asks for the end of an attempt. Whether the listener has something to do for it.
    pub(super) fn kill(&mut self, attempt: AttemptId) -> bool {
        if !self.live.contains_key(&attempt) {
            return false;
        }
        let was_idle = self.unsent.is_empty();
        // Never too long: two numbers.
        wire::append(&Request::Kill(Key::from(attempt)), &mut self.unsent).ok();
        was_idle && !self.flush()
    }

    /// Kills all and takes up nothing more. Returns the longest grace.
    pub(super) fn close(&mut self) -> Duration {
        let live: Vec<_> = self.live.keys().copied().collect();
        if !self.closing {
            self.closing = true;
            for attempt in live {
                self.kill(attempt);
            }
        }
        self.live.values().map(|live| live.grace).max().unwrap_or_default()
    }

    /// Writes what the socket takes. Whether all is written, or will be by whoever reconnects.
    pub(super) fn flush(&mut self) -> bool {
        let Way::Open(socket) = &self.way else { return true };
        let mut sent = 0;
        while sent < self.unsent.len() {
            match send(socket.as_raw_fd(), &self.unsent[sent..], MsgFlags::MSG_NOSIGNAL) {
                Ok(more) => sent += more,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                // The warden is gone: the listener hears of it, and ends what is live.
                Err(_) => sent = self.unsent.len(),
            }
        }
        self.unsent.drain(..sent);
        self.unsent.is_empty()
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The outcome of an attempt, the first time that its end is told.
    pub(super) fn ended(&mut self, ended: &Ended) -> Option<AttemptOutcome> {
        let attempt = AttemptId::from(ended.key);
        let live = self.live.remove(&attempt)?;
        let result = outcome::result(ended, &live.told);
        Some(AttemptOutcome { attempt, result, usage: outcome::usage(&ended.used) })
    }

    pub(super) fn take_decided(&mut self) -> Vec<AttemptOutcome> {
        std::mem::take(&mut self.decided)
    }

    /// The warden has died. Returns the attempts that it had taken up or would have: all are lost.
    pub(super) fn interrupt(&mut self) -> Vec<AttemptId> {
        self.way = Way::Interrupted;
        self.unsent.clear();
        std::mem::take(&mut self.live).into_keys().collect()
    }

    /// A new warden is there.
    pub(super) fn reconnect(&mut self, socket: Arc<UnixStream>) {
        self.way = Way::Open(socket);
        self.flush();
    }

    /// There will be no new warden: what was begun meanwhile is refused.
    pub(super) fn give_up(&mut self) {
        self.way = Way::GivenUp;
        self.unsent.clear();
        if let Some(failure) = self.refusal() {
            for attempt in std::mem::take(&mut self.live).into_keys() {
                let result = Err(failure.clone());
                self.decided.push(AttemptOutcome { attempt, result, usage: Usage::default() });
            }
        }
    }

    /// Lets the warden believe that the engine is gone.
    pub(super) fn hang_up(&self) {
        if let Way::Open(socket) = &self.way {
            // The only error is that it is closed already.
            socket.shutdown(Shutdown::Both).ok();
        }
    }

    /// Closing, and nothing is left to wait for.
    pub(super) fn is_done(&self) -> bool {
        self.closing && self.live.is_empty() && self.decided.is_empty()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(super) fn set_over(&mut self) {
        self.way = Way::Over;
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.way, Way::Over)
    }
}

fn begin_of(spec: &LaunchSpec) -> Begin {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let argv = match &spec.command {
        Command::Shell { shell, script } => {
            shell.iter().cloned().chain([script.to_string()]).collect()
        }
        Command::Argv(argv) => argv.to_vec(),
        // No process can be made of it; the warden says so.
        Command::Template { .. } | Command::Function { .. } => Vec::new(),
    };
    Begin {
        key: spec.attempt.into(),
        argv,
        directory: spec.directory.as_os_str().as_bytes().to_vec(),
        env: spec.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        stdout: spec.stdout.as_os_str().as_bytes().to_vec(),
        stderr: spec.stderr.as_os_str().as_bytes().to_vec(),
        timeout_ms: spec.timeout.map(millis),
        grace_ms: millis(spec.grace),
        memory_max_bytes: spec.memory,
        cleanup: spec.cleanup.clone(),
    }
}

fn told_of(spec: &LaunchSpec, begin: &Begin) -> Told {
    Told {
        program: begin.argv.first().cloned().unwrap_or_default(),
        directory: outcome::shown(&spec.directory),
        stdout: outcome::shown(&spec.stdout),
        stderr: outcome::shown(&spec.stderr),
        timeout: spec.timeout,
        memory: spec.memory,
    }
}
