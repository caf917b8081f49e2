//! One engine a project directory.
//!
//! The lock is the kernel's (`flock`): it goes away with its holder, however that died, so taking
//! over needs no command. The file tells who holds it, or who held it last and whether that ended
//! cleanly, with a token by which its left-over processes can be found.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keelboat_engine::Timestamp;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{IoContext as _, IoError};
use crate::files;

/// How long to wait for a holder that has the lock but has not said yet who it is.
const DESCRIPTION_WAIT_MAX: Duration = Duration::from_millis(200);

/// How long somebody may hold the lock who only asks who holds it.
const ASKING_MAX: Duration = Duration::from_millis(50);

/// Why the lock cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another engine is at work.
    #[error(
        "another engine is at work in {}: process {pid} on {host}, started as `{command}`",
        path.display()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Its process id; 0 when it has not said.
        pid: u32,
        /// The name of its machine.
        host: String,
        /// Since when.
        since: Timestamp,
        /// How it was started.
        command: String,
    },
    /// The file system has no locks.
    #[error(
        "the file system of {} does not support locks ({cause}), so two engines could not be kept \
         apart", path.display()
    )]
    Unsupported {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl LockError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Held { .. } => {
                Some("wait for it, look at it with `status`, or stop it; a dead one needs nothing")
            }
            Self::Unsupported { .. } => {
                Some("put the project on a local disk, or mount the file system with locking")
            }
            Self::Io(error) => error.hint(),
        }
    }
}

/// Tokens that are handed on, at most.
const BEHIND_MAX: usize = 32;

/// Who holds the lock, or held it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The name of its machine.
    pub host: String,
    /// Since when it held the lock.
    pub since: Timestamp,
    /// How it was started.
    pub command: String,
    /// What marks its processes.
    pub token: String,
    /// Whether it gave the lock back; otherwise it died with it.
    pub ended: bool,
    /// Tokens of those that had died before it, and whose processes it had not ended yet.
    pub behind: Vec<String>,
}

/// A [`Holder`] as one line of JSON, version 1.
#[derive(Serialize, Deserialize)]
struct HolderV1 {
    version: u32,
    pid: u32,
    host: String,
    since_ms: u64,
    command: String,
    token: String,
    ended: bool,
    #[serde(default)]
    behind: Vec<String>,
}

/// The lock, held until it is dropped or the process dies.
#[derive(Debug)]
pub struct ProjectLock {
    path: PathBuf,
    file: File,
    holder: Holder,
    previous: Option<Holder>,
}

impl ProjectLock {
    /// Takes the lock of a state directory (`.keelboat`), at once or not at all. `command` tells
    /// others who has it; `token` is handed to whoever takes over after a crash.
    ///
    /// # Errors
    /// When another process holds it, when the file system has no locks or cannot be written.
    pub fn acquire(state_dir: &Path, command: &str, token: &str) -> Result<Self, LockError> {
        files::create_folder(state_dir)?;
        let path = state_dir.join("lock");
        let file = files::private().open(&path).doing("open the lock", &path)?;
        // Whoever asks for the `current` holder has the lock for a moment.
        let deadline = Instant::now() + ASKING_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(held(&file, path)),
                Err(TryLockError::Error(error)) => return Err(no_lock(path, error)),
            }
        }
        let previous = read_holder(&file);
        let mut behind = previous.as_ref().map(|dead| dead.behind.clone()).unwrap_or_default();
        behind.extend(previous.iter().filter(|dead| !dead.ended).map(|dead| dead.token.clone()));
        behind.drain(..behind.len().saturating_sub(BEHIND_MAX));
        let holder = Holder {
            pid: std::process::id(),
            host: host_name(),
            since: now(),
            command: command.to_owned(),
            token: token.to_owned(),
            ended: false,
            behind,
        };
        write_holder(&file, &holder).doing("write", &path)?;
        Ok(Self { path, file, holder, previous })
    }

    /// Who held the lock before; `None`: nobody, or what it wrote cannot be read.
    pub fn previous(&self) -> Option<&Holder> {
        self.previous.as_ref()
    }

    /// Tokens of those that died with the lock, and whose processes nobody has ended. They are handed
    /// on until [`settle`](Self::settle): whoever takes over may die over that, too.
    pub fn left_behind(&self) -> &[String] {
        &self.holder.behind
    }

    /// Notes that no process of those that died is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn settle(&mut self) -> Result<(), IoError> {
        if self.holder.behind.is_empty() {
            return Ok(());
        }
        self.holder.behind.clear();
        write_holder(&self.file, &self.holder).doing("write", &self.path)
    }

    /// Who holds the lock of a state directory now; `None`: nobody. For display only: it may be
    /// otherwise a moment later.
    ///
    /// # Errors
    /// When the file system has no locks or cannot be read.
    pub fn current(state_dir: &Path) -> Result<Option<Holder>, LockError> {
        let path = state_dir.join("lock");
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.doing("open the lock", &path)?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(wait_for_holder(&file))),
            Err(TryLockError::Error(error)) => Err(no_lock(path, error)),
        }
    }
}

/// Tells the next holder that all is well.
impl Drop for ProjectLock {
    fn drop(&mut self) {
        self.holder.ended = true;
        if let Err(error) = write_holder(&self.file, &self.holder) {
            tracing::warn!(path = %self.path.display(), %error, "cannot note a clean end");
        }
    }
}

fn held(file: &File, path: PathBuf) -> LockError {
    let Holder { pid, host, since, command, .. } = wait_for_holder(file);
    LockError::Held { path, pid, host, since, command }
}

/// What the holder says of itself; it may have the lock and not have written it yet.
fn wait_for_holder(file: &File) -> Holder {
    let deadline = Instant::now() + DESCRIPTION_WAIT_MAX;
    loop {
        match read_holder(file) {
            Some(holder) if !holder.ended => return holder,
            _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Some(holder) => return holder,
            None => return unknown_holder(),
        }
    }
}

fn unknown_holder() -> Holder {
    let unknown = || "unknown".to_owned();
    let (host, command, token) = (unknown(), unknown(), String::new());
    let (since, behind) = (Timestamp::default(), Vec::new());
    Holder { pid: 0, host, since, command, token, ended: false, behind }
}

fn no_lock(path: PathBuf, error: io::Error) -> LockError {
    let unsupported = [Errno::ENOLCK, Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::EINVAL];
    let errno = error.raw_os_error().map(Errno::from_raw);
    if errno.is_some_and(|errno| unsupported.contains(&errno)) {
        return LockError::Unsupported { path, cause: error.to_string() };
    }
    IoError::new("lock", path, error).into()
}

fn read_holder(file: &File) -> Option<Holder> {
    let mut bytes = vec![0; 16 << 10];
    let mut length = 0;
    while let Ok(read @ 1..) = file.read_at(&mut bytes[length..], length as u64) {
        length += read;
    }
    let line = bytes[..length].split(|byte| *byte == b'\n').next()?;
    let disk: HolderV1 = serde_json::from_slice(line).ok()?;
    let HolderV1 { pid, host, since_ms, command, token, ended, behind, .. } = disk;
    Some(Holder { pid, host, since: Timestamp(since_ms), command, token, ended, behind })
}

/// One write, then the rest of what stood there is cut off: a reader takes the first line.
fn write_holder(file: &File, holder: &Holder) -> io::Result<()> {
    let disk = HolderV1 {
        version: 1,
        pid: holder.pid,
        host: holder.host.clone(),
        since_ms: holder.since.0,
        command: holder.command.chars().take(2000).collect(),
        token: holder.token.clone(),
        ended: holder.ended,
        behind: holder.behind.clone(),
    };
    let mut line = serde_json::to_vec(&disk)?;
    line.push(b'\n');
    file.write_all_at(&line, 0)?;
    file.set_len(line.len() as u64)
}

/// The name of this machine; `unknown` where the kernel does not tell.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
