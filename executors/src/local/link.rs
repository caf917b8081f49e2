//! A warden and the way to it: its process and the socket.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ExecutorError, LocalConfig};
use crate::mark::{self, MARK_VARIABLE};
use crate::wire::{self, Hello, Inbox, Report, Request};
use crate::{leftovers, procfs};

/// How long a warden may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a warden may take to end when its engine has hung up.
const END_MAX: Duration = Duration::from_secs(5);
const END_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Link {
    socket: Arc<UnixStream>,
    warden: Child,
}

impl Link {
    /// Starts a warden and waits for its answer.
    pub(super) fn start(config: &LocalConfig) -> Result<Self, ExecutorError> {
        let program = &config.warden.program;
        let (socket, theirs) = UnixStream::pair()?;
        let inherited = std::env::var_os(MARK_VARIABLE);
        let mark_prefix = mark::prefix(inherited.as_deref(), &config.token);
        let own_mark = [mark_prefix.as_slice(), mark::WARDEN].concat();
        let warden = Command::new(program)
            .args(&config.warden.args)
            .arg0("kb-warden")
            .env(MARK_VARIABLE, String::from_utf8_lossy(&own_mark).as_ref())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|source| ExecutorError::Start { program: program.clone(), source })?;
        let link = Self { socket: Arc::new(socket), warden };
        let hello = Hello { token: config.token.clone(), mark_prefix };
        match link.greet(hello) {
            Ok(()) => Ok(link),
            Err(error) => {
                link.end(&config.token);
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

    /// Hangs up, waits until the warden is gone, if need be by force, and kills what it left.
    pub(super) fn end(mut self, token: &str) {
        // Errors: the socket is closed already.
        self.socket.shutdown(Shutdown::Both).ok();
        let pid = i32::try_from(self.warden.id()).unwrap_or(0);
        if !ends_in_time(pid) {
            tracing::warn!("the process that starts tasks does not end: killing it");
            // Error: it has ended meanwhile.
            self.warden.kill().ok();
            ends_in_time(pid);
        }
        if let Err(error) = leftovers::kill_behind_warden(token, pid) {
            tracing::error!(%error, "processes of tasks may be left over");
        }
        match self.warden.try_wait() {
            Ok(Some(_)) => {}
            Ok(None) => tracing::error!("the process that starts tasks cannot be killed"),
            Err(error) => tracing::warn!(%error, "cannot reap the process that starts tasks"),
        }
    }
}

/// Waits until a child has ended, without reaping it: its number is still needed.
fn ends_in_time(pid: i32) -> bool {
    let deadline = Instant::now() + END_MAX;
    while procfs::stat(pid).is_some_and(|stat| !stat.zombie) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(END_PAUSE);
    }
    true
}
