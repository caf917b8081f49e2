//! The port to a key-value store: bytes to bytes in a few tables, with atomic batches.
//!
//! A store is one file's work: [`SledIndex`](super::sled_index) is the one in use, and
//! [`MemoryIndex`] serves whoever may not write (and tests). What a store holds can always be
//! rebuilt from the journals, so its only duty is to fail loudly rather than lie.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::IoError;

/// A named table. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Table {
    /// `format` → the version.
    Meta = b'v',
    /// Memo key → memo entry.
    Memo = b'm',
    /// Task name → its last memo key.
    Names = b'n',
    /// Digest of an address → what it held.
    Sources = b's',
    /// Digest of a value → its bytes.
    Values = b'w',
    /// Memo key → how the task failed.
    Failures = b'f',
    /// Run → up to where its journal is in the store.
    Marks = b'j',
}

/// One entry to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Why the store under the memo store cannot serve.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Another process has it open.
    #[error("the memo store {} is in use by another process", path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
    /// The store reports an error.
    #[error("the memo store {} fails to {doing}: {cause}", path.display())]
    Store {
        /// Its folder.
        path: PathBuf,
        /// What it was to do.
        doing: &'static str,
        /// What it says.
        cause: String,
    },
    /// The store panicked.
    #[error("the memo store {} panicked when it was to {doing}: {cause}", path.display())]
    Panicked {
        /// Its folder.
        path: PathBuf,
        /// What it was to do.
        doing: &'static str,
        /// The panic's message.
        cause: String,
    },
    /// Written by another version of Keelboat.
    #[error("the memo store {} has another format version: expected {expected}", path.display())]
    Version {
        /// Its folder.
        path: PathBuf,
        /// The version that is expected.
        expected: u8,
    },
}

/// What is called with each key and value.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The port. All methods may be called from several threads at once.
pub(crate) trait Index: Send + Sync + std::fmt::Debug {
    /// The value under a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    /// Stores all of these, or none. Not durable before [`flush`](Self::flush).
    fn put_batch(&self, puts: Vec<Put>) -> Result<(), IndexError>;
    /// Removes a key.
    fn remove(&self, table: Table, key: &[u8]) -> Result<(), IndexError>;
    /// Visits all of a table in the order of keys.
    fn iterate(&self, table: Table, visit: &mut Visit<'_>) -> Result<(), IndexError>;
    /// Makes everything durable.
    fn flush(&self) -> Result<(), IndexError>;
}

/// A store in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex(Mutex<Entries>);

type Entries = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl MemoryIndex {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index for MemoryIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.entries().get(&(table, key.to_vec())).cloned())
    }

    fn put_batch(&self, puts: Vec<Put>) -> Result<(), IndexError> {
        self.entries().extend(puts.into_iter().map(|put| ((put.table, put.key), put.value)));
        Ok(())
    }

    fn remove(&self, table: Table, key: &[u8]) -> Result<(), IndexError> {
        self.entries().remove(&(table, key.to_vec()));
        Ok(())
    }

    fn iterate(&self, table: Table, visit: &mut Visit<'_>) -> Result<(), IndexError> {
        let entries = self.entries();
        let of_table = entries.range((table, Vec::new())..).take_while(|((t, _), _)| *t == table);
        for ((_, key), value) in of_table {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }
}
