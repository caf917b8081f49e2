//! The digest cache: which file, as its metadata describes it, has which digest.
//!
//! It makes checking 10,000 unchanged files a matter of 10,000 `stat` calls. One entry for each
//! inode: a file that changed replaces what was known of it. The file on disk is only ever a help:
//! what is damaged in it is dropped, and the files are hashed again.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keelboat_engine::{Digest, FileStamp};

use crate::error::{IoContext as _, IoError};
use crate::files;
use crate::frame;
use crate::journal::Damage;

const HEADER_NAME: [u8; 8] = *b"KEELDIGS";
const VERSION: u16 = 1;
const FRAME_MAGIC: frame::Magic = [0xB7, b'K', b'D', 1];
/// Bytes of one entry.
const ENTRY_BYTES: usize = 88;
/// Entries in one frame.
const FRAME_ENTRIES: usize = 512;
/// More entries than this are kept only when this process used them.
const ENTRIES_MAX: usize = 1 << 20;

/// A file that was changed this short before it was hashed may change again within the same tick
/// of the clock that stamps it, unseen.
pub const CLOCK_TICK_MAX: Duration = Duration::from_millis(20);

/// What a file's metadata says. Equal stamps, equal bytes, within the limits told at
/// [`DigestCache::remember`].
pub fn stamp_of(metadata: &Metadata) -> FileStamp {
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    FileStamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// The cache. All of it is in memory; [`save`](Self::save) writes what is new.
#[derive(Debug)]
pub struct DigestCache {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<(u64, u64), Entry>,
    /// Inodes whose entries are not on disk yet.
    unsaved: Vec<(u64, u64)>,
    /// Entries in the file, overtaken ones too.
    on_disk: usize,
    /// The file's length when it can be appended to; `None`: it has to be written anew.
    append_at: Option<u64>,
    /// Something was forgotten that may still stand in the file.
    forgot: bool,
    /// What of the file could not be used.
    damaged: Vec<Damage>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    stamp: FileStamp,
    digest: Digest,
    used: bool,
}

impl DigestCache {
    /// Loads `digests` from the state directory (`.keelboat`). What is damaged in it is dropped
    /// with a warning; when the file cannot be read at all, the cache starts empty.
    pub fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("digests");
        let state = match fs::read(&path) {
            Ok(bytes) => State::from_bytes(&bytes, &path),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read digest cache");
                }
                State::default()
            }
        };
        Self { path, state: Mutex::new(state) }
    }

    /// The digest of the file with this stamp, if it is known.
    pub fn lookup(&self, stamp: &FileStamp) -> Option<Digest> {
        let mut state = self.state();
        let entry = state.entries.get_mut(&(stamp.device, stamp.inode))?;
        if entry.stamp != *stamp {
            return None;
        }
        entry.used = true;
        Some(entry.digest)
    }

    /// Remembers the digest of a file. `stamp` was taken before the first byte was read, at
    /// `hashed_at`, and found the same after the last one. Not remembered when the file had changed
    /// less than [`CLOCK_TICK_MAX`] before: it might have changed again without a trace.
    pub fn remember(&self, stamp: &FileStamp, digest: Digest, hashed_at: SystemTime) {
        let since_epoch = hashed_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let hashed_ns = i128::try_from(since_epoch.as_nanos()).unwrap_or(i128::MAX);
        let tick_ns = i128::try_from(CLOCK_TICK_MAX.as_nanos()).unwrap_or(i128::MAX);
        let changed_ns = stamp.modified_ns.max(stamp.changed_ns);
        if changed_ns.saturating_add(tick_ns) < hashed_ns {
            self.remember_own(stamp, digest);
        }
    }

    /// Remembers the digest of a file that this process wrote and nobody else writes to: one it has
    /// just published or put into the object cache.
    pub fn remember_own(&self, stamp: &FileStamp, digest: Digest) {
        let mut state = self.state();
        let inode = (stamp.device, stamp.inode);
        let entry = Entry { stamp: *stamp, digest, used: true };
        let before = state.entries.insert(inode, entry);
        if before.is_none_or(|old| old.stamp != *stamp || old.digest != digest) {
            state.unsaved.push(inode);
        }
    }

    /// Carries the digest over a change of this process's own making that left the bytes alone: a
    /// link made or removed, a mode changed. `false`: the digest was not known, or size or
    /// modification time differ, so that it was no such change.
    pub fn carry(&self, before: &FileStamp, after: &FileStamp) -> bool {
        let only_changed = FileStamp { changed_ns: before.changed_ns, ..*after } == *before;
        let Some(digest) = self.lookup(before).filter(|_| only_changed) else { return false };
        self.remember_own(after, digest);
        true
    }

    /// Forgets what this stamp promised: the bytes turned out to be others. What is known of the
    /// same file under another stamp stays. It is also gone from the file after the next
    /// [`save`](Self::save).
    pub fn forget(&self, stamp: &FileStamp) {
        let mut state = self.state();
        let inode = (stamp.device, stamp.inode);
        if state.entries.get(&inode).is_some_and(|entry| entry.stamp == *stamp) {
            state.entries.remove(&inode);
            state.forgot = true;
        }
    }

    /// What of the file was damaged, and dropped. It is gone when the file is next written.
    pub fn damaged(&self) -> Vec<Damage> {
        self.state().damaged.clone()
    }

    /// How many files are known.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes what is new: appended, or everything anew when half of the file is outdated or
    /// something was forgotten. A crash in the middle costs only what is new.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> Result<(), IoError> {
        let mut state = self.state();
        if state.unsaved.is_empty() && !state.forgot && state.damaged.is_empty() {
            return Ok(());
        }
        let outdated = state.on_disk + state.unsaved.len() > 2 * state.entries.len() + 1024;
        match state.append_at {
            Some(offset) if !outdated && !state.forgot && state.entries.len() <= ENTRIES_MAX => {
                state.append(&self.path, offset)
            }
            _ => state.write_anew(&self.path),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Saves as well as it can.
impl Drop for DigestCache {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "the digest cache is not saved: files will be hashed again");
        }
    }
}

impl State {
    fn from_bytes(bytes: &[u8], path: &Path) -> Self {
        let mut state = Self::default();
        let header = frame::file_header(HEADER_NAME, VERSION);
        let damaged =
            frame::read_file(bytes, header, FRAME_MAGIC, |payload| state.add_frame(payload));
        for damage in &damaged {
            tracing::warn!(path = %path.display(), %damage, "digest cache: dropped");
        }
        state.append_at = damaged.is_empty().then_some(bytes.len() as u64);
        state.damaged = damaged;
        state
    }

    fn add_frame(&mut self, payload: &[u8]) {
        for bytes in payload.as_chunks::<ENTRY_BYTES>().0 {
            let entry = decode_entry(bytes);
            self.entries.insert((entry.stamp.device, entry.stamp.inode), entry);
            self.on_disk += 1;
        }
    }

    fn append(&mut self, path: &Path, offset: u64) -> Result<(), IoError> {
        self.unsaved.sort_unstable();
        self.unsaved.dedup();
        let mut buffer = Vec::with_capacity(self.unsaved.len() * (ENTRY_BYTES + 1));
        let new = self.unsaved.iter().filter_map(|inode| self.entries.get(inode)).copied();
        push_entries(&mut buffer, offset, new);
        let appended = append_at(path, offset, &buffer);
        // After a failure nobody knows what stands there: write it all anew next time.
        self.append_at = appended.is_ok().then_some(offset + buffer.len() as u64);
        appended.doing("append to", path)?;
        self.on_disk += self.unsaved.len();
        self.unsaved.clear();
        Ok(())
    }

    fn write_anew(&mut self, path: &Path) -> Result<(), IoError> {
        if self.entries.len() > ENTRIES_MAX {
            self.entries.retain(|_, entry| entry.used);
        }
        let mut buffer = frame::file_header(HEADER_NAME, VERSION).to_vec();
        push_entries(&mut buffer, 0, self.entries.values().copied());
        files::replace(path, &buffer)?;
        self.append_at = Some(buffer.len() as u64);
        self.damaged.clear();
        self.on_disk = self.entries.len();
        self.unsaved.clear();
        self.forgot = false;
        Ok(())
    }
}

/// Fails when the file is not as long as it was: somebody else wrote to it.
fn append_at(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    if file.metadata()?.len() != offset {
        return Err(io::Error::other("another process wrote to it"));
    }
    file.write_all(bytes)
}

/// Appends frames; `offset` is where the buffer starts in the file.
fn push_entries(buffer: &mut Vec<u8>, offset: u64, entries: impl Iterator<Item = Entry>) {
    let mut entries = entries.peekable();
    while entries.peek().is_some() {
        let place = offset + buffer.len() as u64;
        let pushed = frame::push_frame(buffer, FRAME_MAGIC, place, |buffer| {
            for entry in entries.by_ref().take(FRAME_ENTRIES) {
                encode_entry(&entry, buffer);
            }
            Ok::<_, std::convert::Infallible>(())
        });
        match pushed {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
}

/// Device, inode and size (u64 each), modified and changed (i128, nanoseconds since 1970), digest;
/// all little-endian.
fn encode_entry(entry: &Entry, buffer: &mut Vec<u8>) {
    let FileStamp { device, inode, size, modified_ns, changed_ns } = entry.stamp;
    for number in [device, inode, size] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    for moment in [modified_ns, changed_ns] {
        buffer.extend_from_slice(&moment.to_le_bytes());
    }
    buffer.extend_from_slice(entry.digest.as_bytes());
}

fn decode_entry(bytes: &[u8; ENTRY_BYTES]) -> Entry {
    let stamp = FileStamp {
        device: u64::from_le_bytes(field(bytes, 0)),
        inode: u64::from_le_bytes(field(bytes, 8)),
        size: u64::from_le_bytes(field(bytes, 16)),
        modified_ns: i128::from_le_bytes(field(bytes, 24)),
        changed_ns: i128::from_le_bytes(field(bytes, 40)),
    };
    Entry { stamp, digest: Digest::from_bytes(field(bytes, 56)), used: false }
}

fn field<const N: usize>(bytes: &[u8; ENTRY_BYTES], from: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[from..from + N]);
    field
}
