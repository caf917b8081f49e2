//! Files that are on their way: the bytes so far and what is known of them, so that a transfer
//! goes on after a cut and after a crash.
//!
//! Nothing on disk is trusted unproven: the state holds digests of prefixes, and bytes beyond the
//! longest prefix that still has its digest are thrown away.

pub(crate) mod place;
mod state;
mod sweep;

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keelboat_engine::{Digest, Digester};
use tokio_util::bytes::Bytes;

use crate::local::LocalError;
use crate::protocol::{Metadata, Validators};
use state::{Prefix, State};
pub(crate) use sweep::sweep;
pub use sweep::{PARTIAL_KEPT, abandoned};

/// Bytes after which the state is written again.
const CHECKPOINT_BYTES: u64 = 16 << 20;

/// Time after which the state is written again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Bytes after which the data is brought to the disk: what a power cut may cost.
const SYNC_BYTES: u64 = 256 << 20;

/// How long to wait for another transfer of the same address to let go of its file.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The next bytes of a file.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Over all of the file up to their end, where whoever received them has hashed them; `None`:
    /// whoever writes them does.
    pub(crate) digester: Option<Digester>,
}

/// One file on its way. All methods block.
#[derive(Debug)]
pub(crate) struct Partial {
    /// Locked: whoever else comes takes a file of its own. Made with the first byte, so that those
    /// who wait for their turn hold no open file.
    data: Option<File>,
    data_path: PathBuf,
    state: State,
    position: u64,
    digester: Digester,
    checkpoint_at: (u64, Instant),
    /// Whether there is a file with the state.
    has_state: bool,
    /// Whether the bytes were given away.
    is_taken: bool,
}

impl Partial {
    /// Begins the file of this source, of which nothing is here; `None`: something is.
    pub(crate) fn begin(dir: &Path, source: Digest) -> Option<Self> {
        let data_path = data_path(dir, source);
        let is_new = fs::symlink_metadata(&data_path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        is_new.then(|| Self {
            data: None,
            data_path,
            state: State::new(source),
            position: 0,
            digester: Digester::new(),
            checkpoint_at: (0, Instant::now()),
            has_state: false,
            is_taken: false,
        })
    }

    /// Takes up the file of this source where it was left, or begins it.
    pub(crate) fn open(dir: &Path, source: Digest) -> Result<Self, LocalError> {
        place::make(dir)?;
        let (data, data_path) = open_locked(dir, source)?;
        let state_path = state_path(&data_path);
        let state = State::read(&state_path, source);
        let mut partial = Self {
            data: Some(data),
            data_path,
            has_state: state_path.exists(),
            is_taken: false,
            state: state.unwrap_or_else(|| State::new(source)),
            position: 0,
            digester: Digester::new(),
            checkpoint_at: (0, Instant::now()),
        };
        partial.prove()?;
        Ok(partial)
    }

    /// Whether no file was made for it yet.
    pub(crate) const fn is_unmade(&self) -> bool {
        self.data.is_none()
    }

    /// Makes the file, so that whoever comes later finds it.
    pub(crate) fn make(mut self) -> Result<Self, LocalError> {
        self.data()?;
        Ok(self)
    }

    /// The file, made when there is none.
    fn data(&mut self) -> Result<&mut File, LocalError> {
        if self.data.is_none() {
            let dir = self.data_path.parent().unwrap_or_else(|| Path::new(".")).to_owned();
            place::make(&dir)?;
            let (data, data_path) = open_locked(&dir, self.state.source)?;
            // Somebody else may have begun the same one and let go of it.
            data.set_len(0).map_err(|error| LocalError::io("write", &data_path, error))?;
            self.data_path = data_path;
            self.data = Some(data);
        }
        match &mut self.data {
            Some(data) => Ok(data),
            None => unreachable!("it was made above"),
        }
    }

    /// Bytes that are here and proven.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// What the server said of the file when its bytes began to come.
    pub(crate) const fn validators(&self) -> &Validators {
        &self.state.validators
    }

    /// Bytes of the whole file, when known.
    pub(crate) const fn length(&self) -> Option<u64> {
        self.state.length
    }

    /// Whether all bytes are here, as far as the length was known.
    pub(crate) fn is_complete(&self) -> bool {
        self.position > 0 && self.state.length == Some(self.position)
    }

    /// Whether bytes are missing of those that it is known to have.
    pub(crate) fn lacks(&self) -> bool {
        self.state.length.is_some_and(|length| self.position < length)
    }

    /// Throws the bytes away and begins with another file, or with another version of it.
    pub(crate) fn restart(&mut self, metadata: &Metadata) -> Result<(), LocalError> {
        let source = self.state.source;
        self.state = State::new(source);
        self.state.validators = metadata.validators.clone();
        self.state.length = metadata.length;
        // The state is written with the first checkpoint: small files never need it.
        self.keep(0, Digester::new())
    }

    /// A later answer told the length.
    pub(crate) fn learn_length(&mut self, length: Option<u64>) {
        self.state.length = self.state.length.or(length);
    }

    /// Writes down what comes until `None`, which says that it came to its end; without that, the
    /// transfer was cut or given up, and what is here is kept for the next one. So it is when the
    /// end comes before the length that is known: [`Self::lacks`] tells.
    pub(crate) fn append_all(
        &mut self,
        mut next: impl FnMut() -> Option<Option<Piece>>,
    ) -> Result<(), LocalError> {
        loop {
            match next() {
                Some(Some(piece)) => self.append(piece)?,
                Some(None) if self.lacks() => return self.checkpoint(),
                Some(None) if self.position < CHECKPOINT_BYTES => {
                    self.data()?;
                    self.state.length = Some(self.position);
                    return Ok(());
                }
                Some(None) => {
                    self.state.length = Some(self.position);
                    return self.checkpoint();
                }
                None => return self.checkpoint(),
            }
        }
    }

    fn append(&mut self, piece: Piece) -> Result<(), LocalError> {
        let Piece { bytes, digester } = piece;
        let written = self.data()?.write_all(&bytes);
        written.map_err(|error| LocalError::io("write", &self.data_path, error))?;
        match digester {
            Some(digester) => self.digester = digester,
            None => self.digester.update(&bytes),
        }
        self.position += bytes.len() as u64;
        let (at, when) = self.checkpoint_at;
        if self.position - at >= CHECKPOINT_BYTES || when.elapsed() >= CHECKPOINT_EVERY {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Writes down what is here, so that a crash does not cost it.
    fn checkpoint(&mut self) -> Result<(), LocalError> {
        if self.position == self.state.proven.bytes {
            return Ok(());
        }
        let digest = self.digest();
        self.state.proven = Prefix { bytes: self.position, sha256: digest };
        if self.position - self.state.durable.bytes >= SYNC_BYTES {
            let synced = self.data()?.sync_data();
            synced.map_err(|error| LocalError::io("write", &self.data_path, error))?;
            self.state.durable = self.state.proven.clone();
        }
        self.checkpoint_at = (self.position, Instant::now());
        self.write_state()
    }

    /// What has read the bytes that are here, to go on with.
    pub(crate) fn digester(&self) -> Digester {
        self.digester.clone()
    }

    /// The digest of the bytes that are here.
    pub(crate) fn digest(&self) -> Digest {
        self.digester.clone().finish()
    }

    /// The first bytes, at most 64, to see what kind of file it is.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        let read =
            File::open(&self.data_path).and_then(|file| file.take(64).read_to_end(&mut head));
        if read.is_err() {
            head.clear();
        }
        head
    }

    /// Where the bytes are.
    pub(crate) fn path(&self) -> &Path {
        &self.data_path
    }

    /// Gives the bytes to the caller, under a name of their own.
    pub(crate) fn take(&mut self) -> Result<PathBuf, LocalError> {
        let path = self.claimed_path();
        fs::rename(&self.data_path, &path)
            .map_err(|error| LocalError::io("create", &path, error))?;
        // Nothing is left to be gone on with.
        if self.has_state
            && let Err(error) = fs::remove_file(state_path(&self.data_path))
        {
            tracing::debug!(%error, "the state of a transfer stays");
        }
        self.is_taken = true;
        Ok(path)
    }

    fn claimed_path(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let extension = format!("{}-{number}.{CLAIMED}", std::process::id());
        self.data_path.with_extension(extension)
    }

    /// Gives the bytes a further name, which the caller owns from then on.
    pub(crate) fn claim(&self) -> Result<PathBuf, LocalError> {
        let path = self.claimed_path();
        let linked = fs::hard_link(&self.data_path, &path)
            .or_else(|_| fs::copy(&self.data_path, &path).map(drop));
        linked.map_err(|error| LocalError::io("create", &path, error))?;
        Ok(path)
    }

    /// Removes it.
    pub(crate) fn discard(&self) {
        for path in [&state_path(&self.data_path), &self.data_path] {
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "a partial file stays");
            }
        }
    }

    /// Reads what is here and keeps the longest prefix that has the digest written down for it.
    fn prove(&mut self) -> Result<(), LocalError> {
        let mut kept = (0, Digester::new());
        let mut digester = Digester::new();
        let mut position = 0;
        let mut buffer = vec![0; 1 << 18];
        for prefix in [self.state.durable.clone(), self.state.proven.clone()] {
            while position < prefix.bytes {
                let wanted = usize::try_from(prefix.bytes - position).unwrap_or(usize::MAX);
                let wanted = wanted.min(buffer.len());
                let room = buffer.get_mut(..wanted).unwrap_or_default();
                let read = self.data()?.read(room);
                let read = read.map_err(|error| LocalError::io("read", &self.data_path, error))?;
                if read == 0 {
                    return self.keep(kept.0, kept.1);
                }
                digester.update(buffer.get(..read).unwrap_or_default());
                position += read as u64;
            }
            if prefix.bytes > 0 && digester.clone().finish() == prefix.sha256 {
                kept = (position, digester.clone());
            }
        }
        self.keep(kept.0, kept.1)
    }

    /// Cuts the file off and goes on from there.
    fn keep(&mut self, position: u64, digester: Digester) -> Result<(), LocalError> {
        let cut = self.data.as_mut().map_or(Ok(()), |data| {
            data.set_len(position)?;
            data.seek(SeekFrom::Start(position)).map(drop)
        });
        cut.map_err(|error| LocalError::io("write", &self.data_path, error))?;
        self.position = position;
        self.digester = digester;
        self.checkpoint_at = (position, Instant::now());
        Ok(())
    }

    fn write_state(&mut self) -> Result<(), LocalError> {
        self.has_state = true;
        let path = state_path(&self.data_path);
        let written = self.state.write(&path);
        written.map_err(|error| LocalError::io("write", &path, error))
    }
}

/// What holds no byte is of no use to a later transfer.
impl Drop for Partial {
    fn drop(&mut self) {
        if self.position == 0 && !self.is_taken && self.data.is_some() {
            self.discard();
        }
    }
}

/// The extension of files that were handed over and not yet moved away.
const CLAIMED: &str = "claimed";

fn data_path(dir: &Path, source: Digest) -> PathBuf {
    let mut name = source.to_hex();
    name.push_str(".data");
    dir.join(name)
}

fn state_path(data_path: &Path) -> PathBuf {
    data_path.with_extension("state")
}

/// Opens and locks the file of this source, or one of our own when another process, or a transfer
/// that was just given up, holds it for too long.
fn open_locked(dir: &Path, source: Digest) -> Result<(File, PathBuf), LocalError> {
    let path = data_path(dir, source);
    let end = Instant::now() + LOCK_WAIT;
    loop {
        let file = open_data(&path)?;
        match file.try_lock() {
            // It may have been removed between open and lock.
            Ok(()) if is_at(&file, &path) => return Ok((file, path)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => break,
        }
    }
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{source}-{}-{number}.data", std::process::id());
    let path = dir.join(name);
    Ok((open_data(&path)?, path))
}

fn open_data(path: &Path) -> Result<File, LocalError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    // Whatever a link leads to is not ours to cut off.
    options.custom_flags(libc::O_NOFOLLOW);
    options.open(path).map_err(|error| LocalError::io("create", path, error))
}

fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata().map(|found| (found.dev(), found.ino()));
    let theirs = path.symlink_metadata().map(|found| (found.dev(), found.ino()));
    matches!((ours, theirs), (Ok(ours), Ok(theirs)) if ours == theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_leads_to_is_left_alone() {
        let above = tempfile::tempdir().unwrap();
        let (dir, source) = (above.path().join("partial"), Digest::of(b"x"));
        place::make(&dir).unwrap();
        let elsewhere = above.path().join("precious");
        fs::write(&elsewhere, b"precious").unwrap();
        std::os::unix::fs::symlink(&elsewhere, data_path(&dir, source)).unwrap();
        Partial::open(&dir, source).unwrap_err();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
    }

    #[test]
    fn an_end_before_the_length_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let source = Digest::of(b"x");
        let mut partial = Partial::begin(dir.path(), source).unwrap();
        partial.restart(&Metadata { length: Some(10), ..Metadata::default() }).unwrap();
        let mut end_of = |bytes: &'static [u8]| {
            let mut digester = partial.digester();
            digester.update(bytes);
            let piece = Piece { bytes: Bytes::from_static(bytes), digester: Some(digester) };
            let mut coming = [Some(piece), None].into_iter();
            partial.append_all(|| coming.next()).unwrap();
            (partial.lacks(), partial.is_complete(), partial.length())
        };
        assert_eq!(end_of(b"12345"), (true, false, Some(10)));
        assert_eq!(end_of(b"67890"), (false, true, Some(10)));
        assert_eq!(partial.digest(), Digest::of(b"1234567890"));
    }
}
