//! A warden and the way to it: its process, the socket, the ledger.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{ExecutorError, LocalConfig};
use crate::mark::{self, MARK_VARIABLE};
use crate::wire::{self, Hello, Inbox, Report, Request};

/// How long a warden may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a warden may take to end when its engine has hung up.
const END_MAX: Duration = Duration::from_secs(5);
const END_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Link {
    socket: Arc<UnixStream>,
    ledger: File,
    warden: Child,
}

impl Link {
    /// Starts a warden and waits for its answer.
    pub(super) fn start(config: &LocalConfig) -> Result<Self, ExecutorError> {
        let program = &config.warden.program;
        let (socket, theirs) = UnixStream::pair()?;
        let ledger = File::from(memfd_create(c"ledger", MFdFlags::MFD_CLOEXEC)?);
        let inherited = std::env::var_os(MARK_VARIABLE);
        let mark_prefix = mark::prefix(inherited.as_deref(), &config.token);
        let own_mark = [mark_prefix.as_slice(), b"warden"].concat();
        let warden = Command::new(program)
            .args(&config.warden.args)
            .arg0("kb-warden")
            .env(MARK_VARIABLE, String::from_utf8_lossy(&own_mark).as_ref())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(ledger.try_clone()?))
            .spawn()
            .map_err(|source| ExecutorError::Start { program: program.clone(), source })?;
        let link = Self { socket: Arc::new(socket), ledger, warden };
        let hello = Hello { token: config.token.clone(), mark_prefix };
        match link.greet(hello) {
            Ok(()) => Ok(link),
            Err(error) => {
                link.end();
                Err(ExecutorError::Answer { program: program.clone(), reason: error.to_string() })
            }
        }
    }

    fn greet(&self, hello: Hello) -> io::Result<()> {
        let mut frame = Vec::new();
        wire::append(&Request::Hello(hello), &mut frame).map_err(io::Error::other)?;
        let mut socket = self.socket.as_ref();
        socket.write_all(&frame)?;
        let deadline = Instant::now() + ANSWER_MAX;
        let mut inbox = Inbox::default();
        let mut buffer = [0; 256];
        loop {
            match inbox.next::<Report>().map_err(io::Error::other)? {
                Some(Report::Ready) => break,
                Some(_) => return Err(io::Error::other("it answered something else")),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            match socket.read(&mut buffer)? {
                0 => return Err(io::Error::other("it ended at once")),
                length => inbox.push(&buffer[..length]),
            }
        }
        socket.set_nonblocking(true)
    }

    pub(super) fn socket(&self) -> Arc<UnixStream> {
        Arc::clone(&self.socket)
    }

    /// Hangs up and waits until the warden is gone, if need be by force. Returns the leaders that
    /// it had not yet reaped.
    pub(super) fn end(mut self) -> BTreeSet<i32> {
        // Errors: the socket is closed already, the warden gone already.
        self.socket.shutdown(Shutdown::Both).ok();
        let deadline = Instant::now() + END_MAX;
        while let Ok(None) = self.warden.try_wait() {
            if Instant::now() >= deadline {
                self.warden.kill().ok();
                self.warden.wait().ok();
                break;
            }
            std::thread::sleep(END_PAUSE);
        }
        self.leaders()
    }

    fn leaders(&self) -> BTreeSet<i32> {
        let mut leaders = BTreeSet::new();
        let mut entry = [0; 4];
        let mut offset = 0;
        while self.ledger.read_exact_at(&mut entry, offset).is_ok() {
            leaders.extend(Some(i32::from_ne_bytes(entry)).filter(|&pid| pid != 0));
            offset += 4;
        }
        leaders
    }
}
