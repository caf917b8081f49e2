//! The thread that hears from the warden, tells the sink, and replaces a warden that dies.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use keelboat_engine::AttemptOutcome;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use super::link::Link;
use super::{LocalConfig, Shared};
use crate::wire::{Inbox, Report, WireError};

/// How many wardens may die in the life of an executor.
const WARDEN_RESTARTS_MAX: u32 = 10;
const RECEIVE_BYTES: usize = 64 << 10;

/// Why the listener stops hearing from a warden.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("it ended")]
    Ended,
    #[error("its socket failed: {0}")]
    Socket(#[from] Errno),
    #[error("it talks nonsense: {0}")]
    Wire(#[from] WireError),
    #[error("it is no longer needed")]
    Done,
}

pub(super) struct Listener {
    shared: Arc<Shared>,
    config: LocalConfig,
    link: Option<Link>,
    restarts: u32,
}

impl Listener {
    pub(super) fn new(shared: Arc<Shared>, config: LocalConfig, link: Link) -> Self {
        Self { shared, config, link: Some(link), restarts: 0 }
    }

    /// Listens until the executor is shut down and nothing is live.
    pub(super) fn run(mut self) {
        while !self.shared.state().is_done() {
            match self.link.take() {
                Some(link) => self.serve(link),
                None => self.refuse(),
            }
        }
        if let Some(link) = self.link.take() {
            link.end(&self.config.token);
        }
        self.shared.state().set_over();
        self.shared.changed.notify_all();
    }

    /// Hears one warden out, cleans up behind it, and starts the next one.
    fn serve(&mut self, link: Link) {
        let silence = match self.listen(&link) {
            Ok(()) | Err(Silence::Done) => {
                link.end(&self.config.token);
                return;
            }
            Err(silence) => silence,
        };
        tracing::warn!(%silence, "the process that starts tasks has died");
        let lost = self.shared.state().interrupt();
        link.end(&self.config.token);
        let cause = format!("the process that starts tasks (kb-warden) died: {silence}");
        for attempt in lost {
            self.tell(AttemptOutcome::lost(attempt, cause.as_str()));
        }
        self.restart();
    }

    fn restart(&mut self) {
        let closing = self.shared.state().is_closing();
        while !closing && self.restarts < WARDEN_RESTARTS_MAX {
            self.restarts += 1;
            match Link::start(&self.config) {
                Ok(link) => {
                    self.shared.state().reconnect(link.socket());
                    self.link = Some(link);
                    return;
                }
                Err(error) => tracing::error!(%error, "cannot start another one"),
            }
        }
        self.shared.state().give_up();
    }

    /// Without a warden there is nothing but to refuse, until the executor is shut down.
    fn refuse(&self) {
        self.tell_decided();
        if self.shared.state().is_done() {
            return;
        }
        let mut fds = [PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is a wait that ended.
        poll(&mut fds, PollTimeout::NONE).ok();
        self.shared.wake.read().ok();
    }

    fn listen(&self, link: &Link) -> Result<(), Silence> {
        let socket = link.socket();
        let mut inbox = Inbox::default();
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            self.tell_decided();
            let (unsent, done) = {
                let state = self.shared.state();
                (state.has_unsent(), state.is_done())
            };
            if done {
                return Err(Silence::Done);
            }
            let out = if unsent { PollFlags::POLLOUT } else { PollFlags::empty() };
            let mut fds = [
                PollFd::new(socket.as_fd(), PollFlags::POLLIN | out),
                PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let events = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
            let (from_socket, from_wake) = (events(&fds[0]), events(&fds[1]));
            if !from_wake.is_empty() {
                // Empty when another wake was read with this one.
                self.shared.wake.read().ok();
            }
            if from_socket.contains(PollFlags::POLLOUT) {
                self.shared.state().flush();
            }
            if !(from_socket - PollFlags::POLLOUT).is_empty() {
                match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(0) => return Err(Silence::Ended),
                    Ok(length) => self.hear(&buffer[..length], &mut inbox)?,
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
    }

    fn hear(&self, bytes: &[u8], inbox: &mut Inbox) -> Result<(), WireError> {
        inbox.push(bytes);
        while let Some(report) = inbox.next::<Report>()? {
            let Report::Ended(ended) = report else { continue };
            let outcome = self.shared.state().ended(&ended);
            if let Some(outcome) = outcome {
                self.tell(outcome);
            }
        }
        Ok(())
    }

    fn tell_decided(&self) {
        let decided = self.shared.state().take_decided();
        for outcome in decided {
            self.tell(outcome);
        }
    }

    fn tell(&self, outcome: AttemptOutcome) {
        self.shared.sink.ended(outcome);
    }
}
