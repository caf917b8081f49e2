//! The warden's end of the socket. It never blocks on writing, so that it always goes on reading:
//! neither side can wait for the other. What is unsent is bounded by the attempts that are begun
//! and not yet reported.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockaddrLike as _, UnixAddr, getsockname, recv, send};

use super::WardenError;
use crate::wire::{self, Hello, Inbox, Report, Request, WireError};

const RECEIVE_BYTES: usize = 64 << 10;

pub(super) struct Channel {
    socket: OwnedFd,
    inbox: Inbox,
    unsent: Vec<u8>,
    buffer: Vec<u8>,
    closed: bool,
}

impl Channel {
    pub(super) fn on_standard_input() -> Result<Self, Errno> {
        let socket = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| error.raw_os_error().map_or(Errno::EBADF, Errno::from_raw))?;
        let address: UnixAddr = getsockname(socket.as_raw_fd())?;
        if address.family() != Some(nix::sys::socket::AddressFamily::Unix) {
            return Err(Errno::EAFNOSUPPORT);
        }
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let buffer = vec![0; RECEIVE_BYTES];
        Ok(Self { socket, inbox: Inbox::default(), unsent: Vec::new(), buffer, closed: false })
    }

    /// Waits for the first message.
    pub(super) fn greeting(&mut self) -> Result<Hello, WardenError> {
        loop {
            match self.next_request()? {
                Some(Request::Hello(hello)) => return Ok(hello),
                Some(_) => return Err(WardenError::NoGreeting),
                None if self.closed => return Err(WardenError::NoGreeting),
                None => {}
            }
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => self.receive(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    pub(super) fn next_request(&mut self) -> Result<Option<Request>, WireError> {
        self.inbox.next()
    }

    /// Takes in what has come, at most one buffer of it.
    pub(super) fn receive(&mut self) {
        match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
            Ok(0) => self.closed = true,
            Ok(length) => self.inbox.push(&self.buffer[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.closed = true,
        }
    }

    /// Queues a report for the next [`flush`](Self::flush).
    pub(super) fn send(&mut self, report: &Report) -> Result<(), WireError> {
        wire::append(report, &mut self.unsent)
    }

    /// Writes what the socket takes, all reports at once.
    pub(super) fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.closed {
            match send(self.socket.as_raw_fd(), &self.unsent, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.closed = true,
            }
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether the engine is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
