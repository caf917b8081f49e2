//! The index and its life: opened when it is first needed, brought up to date from the journals,
//! dropped and rebuilt when it fails, replaced by one in memory when nothing else helps.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keelboat_engine::{Digest, MemoKey};

use super::feed::{self, Fed};
use super::index::{Index, IndexError, MemoryIndex, Table};
use super::learned::Learned;
use super::sled_index::SledIndex;
use super::{CheckReport, MemoError, MemoNotice, RebuildReport, learn_journal, value};
use crate::error::IoError;

/// Notices that nobody fetched, at most.
const NOTICES_MAX: usize = 1000;

/// Where an index is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere: it is filled from the journals.
    Memory,
}

/// The index, when it is open.
#[derive(Debug)]
pub(super) struct Store {
    place: Place,
    runs: PathBuf,
    open: Mutex<Option<Arc<dyn Index>>>,
    /// Held while it is opened, fed or replaced, so that only one thread does so; questions to an
    /// open index go on meanwhile.
    work: Mutex<()>,
    notices: Mutex<Vec<MemoNotice>>,
}

impl Store {
    pub(super) fn on_disk(state_dir: &Path) -> Self {
        Self::new(Place::Folder(state_dir.join("memo")), state_dir)
    }

    pub(super) fn in_memory(state_dir: &Path) -> Self {
        Self::new(Place::Memory, state_dir)
    }

    fn new(place: Place, state_dir: &Path) -> Self {
        let runs = state_dir.join("runs");
        Self {
            place,
            runs,
            open: Mutex::default(),
            work: Mutex::default(),
            notices: Mutex::default(),
        }
    }

    /// Whether there is an index on disk, which may know more than the journals.
    pub(super) fn exists(&self) -> bool {
        matches!(&self.place, Place::Folder(path) if path.exists())
    }

    pub(super) fn is_writable(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    pub(super) fn is_open(&self) -> bool {
        self.slot().is_some()
    }

    /// The value under a key; opens the index first when it is not.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MemoError> {
        let index = self.index()?;
        match index.get(table, key) {
            Ok(value) => Ok(value),
            Err(error) => Ok(self.replace(index, &error.into())?.get(table, key)?),
        }
    }

    /// Opens the index when it is not, and brings it up to date.
    pub(super) fn catch_up(&self) -> Result<(), MemoError> {
        if !self.is_open() {
            return self.index().map(drop);
        }
        let index = self.index()?;
        let working = self.work();
        let fed = feed::catch_up(&*index, &self.runs);
        drop(working);
        match fed {
            Ok(fed) => self.note(fed),
            Err(error) => drop(self.replace(index, &error)?),
        }
        Ok(())
    }

    pub(super) fn rebuild(&self) -> Result<RebuildReport, MemoError> {
        let _working = self.work();
        *self.slot() = None;
        let (index, fed) = self.build_anew()?;
        *self.slot() = Some(index);
        let report = RebuildReport { journals: fed.journals, facts: fed.facts };
        self.note(fed);
        Ok(report)
    }

    /// Reads every entry, and every journal.
    pub(super) fn check(&self) -> Result<CheckReport, MemoError> {
        Ok(self.look()?.1.report())
    }

    /// Removes what is damaged, and reads all journals again when something was amiss.
    pub(super) fn mend(&self) -> Result<CheckReport, MemoError> {
        let (index, found) = self.look()?;
        let report = found.report();
        if !report.is_whole() {
            let _working = self.work();
            found.damaged.iter().try_for_each(|(table, key)| index.remove(*table, key))?;
            self.note(feed::read_all_again(&*index, &self.runs)?);
        }
        Ok(report)
    }

    /// Looks at all there is; an index that cannot be read is replaced first.
    fn look(&self) -> Result<(Arc<dyn Index>, Found), MemoError> {
        let index = self.index()?;
        let (index, mut found) = match Found::in_index(&*index) {
            Ok(found) => (index, found),
            Err(error) => {
                let index = self.replace(index, &error.into())?;
                let found = Found::in_index(&*index)?;
                (index, found)
            }
        };
        let mut learned = Learned::default();
        for (run, path, _) in feed::journals(&self.runs)? {
            match learn_journal(&mut learned, &run, &path, self) {
                // It is passed over, as it is when the index is fed.
                Err(MemoError::Journal(error)) => {
                    let cause = error.to_string();
                    self.notice(MemoNotice::JournalUnreadable { run, cause });
                }
                learned => learned?,
            }
        }
        found.compare(&learned);
        Ok((index, found))
    }

    pub(super) fn notice(&self, notice: MemoNotice) {
        tracing::warn!("{notice}");
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < NOTICES_MAX {
            notices.push(notice);
        }
    }

    pub(super) fn take_notices(&self) -> Vec<MemoNotice> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The index, opened and up to date.
    fn index(&self) -> Result<Arc<dyn Index>, MemoError> {
        if let Some(index) = &*self.slot() {
            return Ok(Arc::clone(index));
        }
        let _working = self.work();
        // Another thread may have opened it meanwhile.
        if let Some(index) = &*self.slot() {
            return Ok(Arc::clone(index));
        }
        let (index, fed) = match self.open_and_feed() {
            // Not ours to drop.
            Err(error @ MemoError::Index(IndexError::InUse { .. })) => {
                self.in_memory_for(&error)?
            }
            Err(error) => self.build_in_place_of(&error)?,
            opened => opened?,
        };
        self.note(fed);
        *self.slot() = Some(Arc::clone(&index));
        Ok(index)
    }

    fn open_and_feed(&self) -> Result<(Arc<dyn Index>, Fed), MemoError> {
        let Place::Folder(path) = &self.place else {
            let index = MemoryIndex::default();
            let fed = feed::catch_up(&index, &self.runs)?;
            return Ok((Arc::new(index), fed));
        };
        let index = SledIndex::open(path)?;
        if !index.has_lost() {
            let fed = feed::catch_up(&index, &self.runs)?;
            return Ok((Arc::new(index), fed));
        }
        let mut fed = feed::read_all_again(&index, &self.runs)?;
        fed.notices.push(MemoNotice::Lost { journals: fed.journals });
        Ok((Arc::new(index), fed))
    }

    /// Drops an index that failed and puts a new one in its place.
    fn replace(
        &self,
        failed: Arc<dyn Index>,
        error: &MemoError,
    ) -> Result<Arc<dyn Index>, MemoError> {
        let _working = self.work();
        let current = self.slot().take();
        if let Some(index) = current.filter(|index| !Arc::ptr_eq(index, &failed)) {
            // Another thread has replaced it meanwhile.
            *self.slot() = Some(Arc::clone(&index));
            return Ok(index);
        }
        drop(failed);
        let (index, fed) = self.build_in_place_of(error)?;
        self.note(fed);
        *self.slot() = Some(Arc::clone(&index));
        Ok(index)
    }

    /// A new index on disk; in memory, when the disk does not let it be.
    fn build_in_place_of(&self, failure: &MemoError) -> Result<(Arc<dyn Index>, Fed), MemoError> {
        match self.build_anew() {
            Ok((index, fed)) => {
                let (cause, journals) = (failure.to_string(), fed.journals);
                self.notice(MemoNotice::Rebuilt { cause, journals });
                Ok((index, fed))
            }
            Err(error) => self.in_memory_for(&error),
        }
    }

    fn in_memory_for(&self, failure: &MemoError) -> Result<(Arc<dyn Index>, Fed), MemoError> {
        self.notice(MemoNotice::InMemory { cause: failure.to_string() });
        let index: Arc<dyn Index> = Arc::new(MemoryIndex::default());
        let fed = feed::catch_up(&*index, &self.runs)?;
        Ok((index, fed))
    }

    fn build_anew(&self) -> Result<(Arc<dyn Index>, Fed), MemoError> {
        if let Place::Folder(path) = &self.place {
            remove(path)?;
        }
        self.open_and_feed()
    }

    fn note(&self, fed: Fed) {
        fed.notices.into_iter().for_each(|notice| self.notice(notice));
    }

    fn work(&self) -> MutexGuard<'_, ()> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<dyn Index>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at the whole index has found.
#[derive(Debug, Default)]
struct Found {
    entries: u64,
    held: BTreeSet<(Table, Vec<u8>)>,
    damaged: Vec<(Table, Vec<u8>)>,
    missing: u64,
}

impl Found {
    fn in_index(index: &dyn Index) -> Result<Self, IndexError> {
        let mut found = Self::default();
        let tables = [
            Table::Memo,
            Table::Names,
            Table::Sources,
            Table::Values,
            Table::Failures,
            Table::Marks,
        ];
        for table in tables {
            index.iterate(table, &mut |key, value| {
                found.entries += 1;
                if is_whole(table, key, value) {
                    found.held.insert((table, key.to_vec()));
                } else {
                    found.damaged.push((table, key.to_vec()));
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }

    fn compare(&mut self, learned: &Learned) {
        let memo = learned.memo.keys().map(|key| (Table::Memo, key.0.as_bytes().to_vec()));
        let sources = learned.sources.keys().map(|url| (Table::Sources, url.as_bytes().to_vec()));
        let values = learned.values.keys().map(|value| (Table::Values, value.as_bytes().to_vec()));
        let failures = learned.failures.keys();
        let failures = failures.map(|key| (Table::Failures, key.0.as_bytes().to_vec()));
        let all = memo.chain(sources).chain(values).chain(failures);
        self.missing = all.filter(|entry| !self.held.contains(entry)).count() as u64;
    }

    fn report(&self) -> CheckReport {
        let text = |(table, key): &(Table, Vec<u8>)| {
            format!("{} {}", table_name(*table), key_text(*table, key))
        };
        let damaged = self.damaged.iter().map(text).collect();
        CheckReport { entries: self.entries, damaged, missing: self.missing }
    }
}

/// Removes what stands where the index should, folder or not.
fn remove(path: &Path) -> Result<(), IoError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|error| IoError::new("remove", path, error))
}

pub(super) const fn table_name(table: Table) -> &'static str {
    match table {
        Table::Meta => "meta",
        Table::Memo => "memo",
        Table::Names => "names",
        Table::Sources => "sources",
        Table::Values => "values",
        Table::Failures => "failures",
        Table::Marks => "marks",
    }
}

/// A key as people can read it.
pub(super) fn key_text(table: Table, key: &[u8]) -> String {
    match (table, digest_of(key)) {
        (Table::Memo | Table::Sources | Table::Values | Table::Failures, Some(digest)) => {
            digest.to_hex()
        }
        _ => String::from_utf8_lossy(key).into_owned(),
    }
}

fn digest_of(key: &[u8]) -> Option<Digest> {
    key.try_into().ok().map(Digest::from_bytes)
}

fn is_whole(table: Table, key: &[u8], value: &[u8]) -> bool {
    let text = std::str::from_utf8(key);
    match table {
        Table::Meta => true,
        Table::Memo => {
            digest_of(key).is_some_and(|key| value::decode_memo(MemoKey(key), value).is_ok())
        }
        Table::Names => text.is_ok_and(|task| value::decode_name(task, value).is_ok()),
        Table::Sources => {
            digest_of(key).is_some_and(|url| value::decode_source(&url, value).is_ok())
        }
        Table::Values => {
            digest_of(key).is_some_and(|digest| value::decode_value(&digest, value).is_ok())
        }
        Table::Failures => {
            digest_of(key).is_some_and(|key| value::decode_failure(MemoKey(key), value).is_ok())
        }
        Table::Marks => text.is_ok_and(|run| value::decode_mark(run, value).is_ok()),
    }
}
