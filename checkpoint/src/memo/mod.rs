//! The memo store: which computation left what, under which key.
//!
//! Opening it reads the newest journals into memory and nothing else, so that a run with nothing to
//! do never waits for the index on disk. The index (sled, behind a port) is opened at the first
//! question that memory cannot answer, or by a thread of its own when there is enough to write. It
//! is fed from the journals only and rebuilt from them whenever it is missing, damaged or of
//! another version; when even that fails, an index in memory takes its place.
//!
//! Deliberately absent: whether outputs are still there. A record is a claim to be verified.

mod feed;
mod index;
mod learned;
mod sled_index;
mod store;
#[cfg(test)]
mod tests;
mod value;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use keelboat_engine::{Content, Digest, Failure, KeyPart, MemoKey, MemoRecord, Stamped, Timestamp};

pub use index::IndexError;

use self::index::Table;
use self::learned::{Learned, teaches};
use self::store::Store;
use self::value::DamagedValue;
use crate::error::IoError;
use crate::journal::{Damage, JournalError, JournalReader, Recovered};

/// Journals are read into memory at opening while they have, together, at most so many bytes.
const OVERLAY_BYTES_MAX: u64 = 256 << 20;
/// More journals than the newest one are read only up to so many bytes: it has to be quick.
const OVERLAY_BYTES_QUICK: u64 = 1 << 20;
/// So many facts are left to the journal before the index is opened to take them.
const FEED_AFTER_FACTS: usize = 256;

/// What an address held when it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRecord {
    /// What came.
    pub content: Content,
    /// The server's ETag.
    pub etag: Option<String>,
    /// The server's Last-Modified.
    pub last_modified: Option<String>,
    /// When.
    pub fetched_at: Timestamp,
}

/// How a task failed, which would fail so again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureRecord {
    /// What went wrong.
    pub failure: Failure,
    /// When.
    pub failed_at: Timestamp,
}

/// Why the memo store cannot answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MemoError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The index fails, also after it was rebuilt.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl MemoError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io(error) | Self::Index(IndexError::Io(error)) => error.hint(),
            Self::Journal(error) => error.hint(),
            Self::Index(IndexError::InUse { .. }) => {
                Some("another Keelboat has it open: ask again when that has ended")
            }
            Self::Index(_) => Some("remove the folder .keelboat/memo: it is rebuilt from journals"),
        }
    }
}

/// Something that was wrong and was dealt with; for the log and for people.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MemoNotice {
    /// The index failed and was dropped and rebuilt.
    #[error("the memo store was dropped and rebuilt from {journals} journals: {cause}")]
    Rebuilt {
        /// What was wrong.
        cause: String,
        /// How many journals it was rebuilt from.
        journals: u64,
    },
    /// The index had lost entries.
    #[error(
        "the memo store had lost entries, by damage to its files: what {journals} journals tell of \
         them is in it again"
    )]
    Lost {
        /// How many journals were read.
        journals: u64,
    },
    /// The index cannot be used at all; one in memory serves instead.
    #[error("the memo store on disk cannot be used, this process keeps it in memory: {cause}")]
    InMemory {
        /// What was wrong.
        cause: String,
    },
    /// A value failed its checksum and counts as absent.
    #[error("a damaged entry in table {table} of the memo store is ignored: {key}")]
    DamagedValue {
        /// Which table.
        table: &'static str,
        /// Its key.
        key: String,
    },
    /// A journal has a damaged stretch.
    #[error("the journal of run {run} has a {damage}")]
    JournalDamaged {
        /// The run.
        run: String,
        /// Where.
        damage: Damage,
    },
    /// A journal cannot be read.
    #[error("the journal of run {run} is passed over: {cause}")]
    JournalUnreadable {
        /// The run.
        run: String,
        /// Why.
        cause: String,
    },
}

/// What [`MemoStore::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Entries that were looked at.
    pub entries: u64,
    /// Those that fail their checksum, as `table key`.
    pub damaged: Vec<String>,
    /// Results and sources that journals have and the index has not.
    pub missing: u64,
}

impl CheckReport {
    /// Whether nothing is amiss.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.missing == 0
    }
}

/// What [`MemoStore::rebuild`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Journals read.
    pub journals: u64,
    /// Facts read from them.
    pub facts: u64,
}

/// The memo store of one project. Call it from any thread.
#[derive(Debug)]
pub struct MemoStore {
    learned: RwLock<Learned>,
    /// Whether memory holds all there is, so that a miss is final.
    complete: bool,
    store: Arc<Store>,
    /// Facts that the index should get.
    pending: Mutex<usize>,
    feeder: Mutex<Option<JoinHandle<()>>>,
}

impl MemoStore {
    /// Opens the memo store of a state directory (`.keelboat`). Reads the newest journals below
    /// `runs/` (runs must be named so that later ones sort later) and does not open the index.
    /// The caller holds the [project lock](crate::ProjectLock).
    ///
    /// # Errors
    /// When `runs/` or a journal in it cannot be read. Damage is no error: see
    /// [`notices`](Self::notices).
    pub fn open(state_dir: &Path) -> Result<Self, MemoError> {
        Self::load(Store::on_disk(state_dir), state_dir, None)
    }

    /// As [`open`](Self::open), for a caller who has already read the journal of the run `run`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(state_dir: &Path, run: &str, facts: &[Stamped]) -> Result<Self, MemoError> {
        Self::load(Store::on_disk(state_dir), state_dir, Some((run, facts)))
    }

    /// Opens it for looking only, without the project lock, beside a live engine: never touches the
    /// index on disk, but reads all journals into memory when it has to.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_read_only(state_dir: &Path) -> Result<Self, MemoError> {
        Self::load(Store::in_memory(state_dir), state_dir, None)
    }

    fn load(
        store: Store,
        state_dir: &Path,
        known: Option<(&str, &[Stamped])>,
    ) -> Result<Self, MemoError> {
        let runs = state_dir.join("runs");
        let journals = feed::journals(&runs)?;
        let chosen = newest(&journals);
        let mut learned = Learned::default();
        for (run, path, _) in &journals[chosen..] {
            if let Some((_, facts)) = known.filter(|(known, _)| known == run) {
                let taught = facts.iter().filter(|stamped| teaches(&stamped.fact));
                learned.learn_all(taught.cloned());
            } else if let Err(error) = learn_journal(&mut learned, run, path, &store) {
                let cause = error.to_string();
                store.notice(MemoNotice::JournalUnreadable { run: run.clone(), cause });
            }
        }
        let complete = chosen == 0 && !store.exists();
        Ok(Self {
            learned: RwLock::new(learned),
            complete,
            store: Arc::new(store),
            pending: Mutex::new(0),
            feeder: Mutex::new(None),
        })
    }

    /// What a computation left, if it is known. Whether it is still there is not looked at.
    ///
    /// # Errors
    /// When the index fails and cannot be rebuilt either.
    pub fn lookup(&self, key: &MemoKey) -> Result<Option<MemoRecord>, MemoError> {
        if let Some((_, entry)) = self.learned().memo.get(key) {
            return Ok(Some(entry.record.clone()));
        }
        let entry = self.stored_entry(key)?;
        Ok(entry.map(|entry| entry.record))
    }

    /// How a computation failed, if that was to be remembered. It may have succeeded since, which is for
    /// [`lookup`](Self::lookup) to tell.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn failure(&self, key: &MemoKey) -> Result<Option<FailureRecord>, MemoError> {
        if let Some((_, record)) = self.learned().failures.get(key) {
            return Ok(Some(record.clone()));
        }
        self.stored(Table::Failures, key.0.as_bytes(), |value| value::decode_failure(*key, value))
    }

    /// The last key of a task, and what it was made of (empty when that is not known any more).
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn last_parts(&self, task: &str) -> Result<Option<(MemoKey, Vec<KeyPart>)>, MemoError> {
        let known = self.learned().names.get(task).copied();
        let stored =
            || self.stored(Table::Names, task.as_bytes(), |value| value::decode_name(task, value));
        let Some(key) = known.map_or_else(stored, |key| Ok(Some(key)))? else { return Ok(None) };
        let in_memory = self.learned().memo.get(&key).and_then(|(_, entry)| entry.parts.clone());
        if let Some(parts) = in_memory {
            return Ok(Some((key, parts)));
        }
        let entry = self.stored_entry(&key)?;
        Ok(Some((key, entry.and_then(|entry| entry.parts).unwrap_or_default())))
    }

    /// What an address held, by the digest of the address.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn source(&self, url: &Digest) -> Result<Option<SourceRecord>, MemoError> {
        if let Some(source) = self.learned().sources.get(url) {
            return Ok(Some(source.clone()));
        }
        self.stored(Table::Sources, url.as_bytes(), |value| value::decode_source(url, value))
    }

    /// The value with this digest, proven.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn value(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, MemoError> {
        if let Some(value) = self.learned().values.get(digest) {
            return Ok(Some(Arc::clone(value)));
        }
        self.stored(Table::Values, digest.as_bytes(), |value| {
            value::decode_value(digest, value).map(Arc::from)
        })
    }

    /// Takes in a fact that was appended to a journal below `runs/`. Returns at once: the index is
    /// fed from the journal by a thread of its own, when there is enough.
    pub fn apply(&self, stamped: &Stamped) {
        if !teaches(&stamped.fact) {
            return;
        }
        let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        let to_be_fed = learned.learn(stamped.clone());
        drop(learned);
        if to_be_fed {
            self.count_pending();
        }
    }

    /// What was wrong and was dealt with since the last call.
    pub fn notices(&self) -> Vec<MemoNotice> {
        self.store.take_notices()
    }

    /// Brings the index up to date when it is open, or when there is much to write, and makes it
    /// durable. What it does not hold, the journals do.
    ///
    /// # Errors
    /// When the index fails and cannot be rebuilt either.
    pub fn flush(&self) -> Result<(), MemoError> {
        if let Some(feeder) = self.feeder().take() {
            join(feeder);
        }
        let mut pending = self.pending();
        if self.store.is_open() || *pending >= FEED_AFTER_FACTS {
            self.store.catch_up()?;
            *pending = 0;
        }
        Ok(())
    }

    /// [`flush`](Self::flush), then the end. Without it nothing is lost either.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(self) -> Result<(), MemoError> {
        self.flush()
    }

    /// Looks at each entry of the index, and at what the journals have beside it.
    ///
    /// # Errors
    /// When the index fails and cannot be rebuilt either.
    pub fn check(&self) -> Result<CheckReport, MemoError> {
        self.store.check()
    }

    /// Removes damaged entries from the index and brings to it what journals tell, also of runs
    /// that it knows. Returns what was amiss.
    ///
    /// # Errors
    /// When the index fails and cannot be rebuilt either.
    pub fn mend(&self) -> Result<CheckReport, MemoError> {
        self.store.mend()
    }

    /// Drops the index and builds it anew from the journals.
    ///
    /// # Errors
    /// When the new one cannot be built.
    pub fn rebuild(&self) -> Result<RebuildReport, MemoError> {
        self.store.rebuild()
    }

    fn stored_entry(&self, key: &MemoKey) -> Result<Option<value::MemoEntry>, MemoError> {
        self.stored(Table::Memo, key.0.as_bytes(), |value| value::decode_memo(*key, value))
    }

    /// What the index holds under a key; a damaged value is named and counts as absent.
    fn stored<T>(
        &self,
        table: Table,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, DamagedValue>,
    ) -> Result<Option<T>, MemoError> {
        if self.complete {
            return Ok(None);
        }
        let Some(value) = self.store.get(table, key)? else { return Ok(None) };
        let decoded = decode(&value).ok();
        if decoded.is_none() {
            let (table, key) = (store::table_name(table), store::key_text(table, key));
            self.store.notice(MemoNotice::DamagedValue { table, key });
        }
        Ok(decoded)
    }

    fn count_pending(&self) {
        let mut pending = self.pending();
        *pending += 1;
        if *pending < FEED_AFTER_FACTS || !self.store.is_writable() {
            return;
        }
        let mut feeder = self.feeder();
        if feeder.as_ref().is_some_and(|feeder| !feeder.is_finished()) {
            return;
        }
        let store = Arc::clone(&self.store);
        let feed = move || {
            if let Err(error) = store.catch_up() {
                tracing::warn!(%error, "the memo store is behind: it will catch up from journals");
            }
        };
        match std::thread::Builder::new().name("memo-feed".into()).spawn(feed) {
            Ok(thread) => {
                *pending = 0;
                *feeder = Some(thread);
            }
            Err(error) => tracing::warn!(%error, "cannot start the thread of the memo store"),
        }
    }

    fn learned(&self) -> std::sync::RwLockReadGuard<'_, Learned> {
        self.learned.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, usize> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feeder(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.feeder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MemoStore {
    fn drop(&mut self) {
        if let Some(feeder) = self.feeder().take() {
            join(feeder);
        }
    }
}

fn join(feeder: JoinHandle<()>) {
    if feeder.join().is_err() {
        tracing::error!("the thread of the memo store panicked");
    }
}

/// Where the journals start that are read into memory: the newest, and older ones while all are
/// short.
fn newest(journals: &[(String, PathBuf, u64)]) -> usize {
    let mut taken = 0;
    let mut first = journals.len();
    for (_, _, bytes) in journals.iter().rev() {
        if taken >= OVERLAY_BYTES_QUICK || taken + bytes > OVERLAY_BYTES_MAX {
            break;
        }
        taken += bytes;
        first -= 1;
    }
    first
}

fn learn_journal(
    learned: &mut Learned,
    run: &str,
    path: &Path,
    store: &Store,
) -> Result<(), MemoError> {
    let mut reader = JournalReader::open(path)?;
    let mut more = true;
    while more {
        let mut batch = Recovered::default();
        more = reader.poll_into(&mut batch)?;
        for damage in batch.damaged {
            store.notice(MemoNotice::JournalDamaged { run: run.to_owned(), damage });
        }
        learned.learn_all(batch.facts);
    }
    Ok(())
}
