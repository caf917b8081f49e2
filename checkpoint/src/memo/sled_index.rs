//! The store under the memo store: sled 0.34, with what it leaves undone done here.
//!
//! Its `flush` does not make anything durable on Linux: the file is synced here after it. A kill
//! while it opens leaves a `snap.*.generating` file after which it never opens again: that is
//! removed first. It may panic on damage: panics become errors. All tables live in one tree, told
//! apart by the first byte of the key, since only a batch for one tree is atomic.
//!
//! Where its log is damaged, it opens without a word with what stands before that place, which may
//! be nothing. So batches are numbered, and a file beside its own, the seal, has the number of the
//! last one that was flushed: who finds a lower one in the store knows that batches are lost.

use std::fs::{self, File, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::index::{Index, IndexError, Put, Table, Visit};
use super::value;
use crate::error::{IoContext as _, IoError};
use crate::files;

/// Version of tables and values, kept in the store.
const FORMAT: u8 = 1;
/// Bytes of pages that sled keeps in memory, by its own count.
const CACHE_BYTES: u64 = 64 << 20;
/// The file with the number of the last batch that was flushed.
const SEAL: &str = "seal";
/// sled's threads may hold its lock a little longer than the last handle lives.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);

/// An open sled.
#[derive(Debug)]
pub(crate) struct SledIndex {
    path: PathBuf,
    db: sled::Db,
    /// The number of the last batch.
    batches: AtomicU64,
    lost: bool,
}

impl SledIndex {
    /// Opens the store, or makes an empty one.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let is_new = !path.exists();
        files::create_folder(path)?;
        remove_half_made_snapshots(path)?;
        let config =
            sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let deadline = Instant::now() + LOCK_WAIT_MAX;
        let db = loop {
            match guarded(path, "open", || config.open()) {
                Err(IndexError::Store { cause, .. })
                    if cause.contains("could not acquire lock") =>
                {
                    if Instant::now() > deadline {
                        return Err(IndexError::InUse { path: path.to_owned() });
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                opened => break opened?,
            }
        };
        let mut index = Self { path: path.to_owned(), db, batches: AtomicU64::new(0), lost: false };
        index.check_batches()?;
        index.check_format()?;
        if index.lost {
            // With the number of the seal: it is told once.
            index.put_batch(Vec::new())?;
        }
        make_private(path)?;
        if is_new {
            index.flush()?;
            files::sync_folder(path)?;
            files::sync_folder(files::parent_of(path))?;
        }
        Ok(index)
    }

    /// Whether it held more when it was last flushed.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost
    }

    fn check_batches(&mut self) -> Result<(), IndexError> {
        let held = self.get(Table::Meta, value::BATCHES_KEY)?;
        let held = held.and_then(|value| value::decode_batches(&value).ok()).unwrap_or(0);
        let seal = self.path.join(SEAL);
        let sealed = match fs::read(&seal) {
            // A store of before there were seals.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(0),
            bytes => value::decode_batches(&bytes.doing("read", &seal)?).ok(),
        };
        self.lost = sealed.is_none_or(|sealed| sealed > held);
        self.batches = AtomicU64::new(held.max(sealed.unwrap_or(0)));
        Ok(())
    }

    fn check_format(&self) -> Result<(), IndexError> {
        match self.get(Table::Meta, b"format")?.as_deref() {
            Some([FORMAT]) => Ok(()),
            None if guarded(&self.path, "count", || Ok(self.db.is_empty()))? => {
                let (key, value) = (b"format".to_vec(), vec![FORMAT]);
                self.put_batch(vec![Put { table: Table::Meta, key, value }])
            }
            _ => Err(IndexError::Version { path: self.path.clone(), expected: FORMAT }),
        }
    }
}

impl Index for SledIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let value = guarded(&self.path, "read", || self.db.get(store_key(table, key)))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn put_batch(&self, puts: Vec<Put>) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for put in puts {
            batch.insert(store_key(put.table, &put.key), put.value);
        }
        let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(number) = value::encode_batches(number) {
            batch.insert(store_key(Table::Meta, value::BATCHES_KEY), number);
        }
        guarded(&self.path, "write", || self.db.apply_batch(batch))
    }

    fn remove(&self, table: Table, key: &[u8]) -> Result<(), IndexError> {
        guarded(&self.path, "remove", || self.db.remove(store_key(table, key)))?;
        Ok(())
    }

    fn iterate(&self, table: Table, visit: &mut Visit<'_>) -> Result<(), IndexError> {
        guarded(&self.path, "iterate", || {
            for entry in self.db.scan_prefix([table as u8]) {
                let (key, value) = entry?;
                if visit(&key[1..], &value) == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), IndexError> {
        let flushed = self.batches.load(Ordering::Relaxed);
        guarded(&self.path, "flush", || self.db.flush())?;
        let file = self.path.join("db");
        File::open(&file).and_then(|db| db.sync_data()).doing("make durable", &file)?;
        if let Some(number) = value::encode_batches(flushed) {
            files::replace(&self.path.join(SEAL), &number)?;
        }
        Ok(make_private(&self.path)?)
    }
}

fn store_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(table as u8);
    bytes.extend_from_slice(key);
    bytes
}

/// Runs a call of sled's; its panics become errors.
fn guarded<T>(
    path: &Path,
    doing: &'static str,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            Err(IndexError::Store { path: path.to_owned(), doing, cause: error.to_string() })
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let cause = text.unwrap_or("no message").to_owned();
            Err(IndexError::Panicked { path: path.to_owned(), doing, cause })
        }
    }
}

fn remove_half_made_snapshots(path: &Path) -> Result<(), IndexError> {
    for entry in fs::read_dir(path).doing("read the folder", path)? {
        let file = entry.doing("read the folder", path)?.path();
        if file.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&file).doing("remove", &file)?;
        }
    }
    Ok(())
}

/// Its files are made as the umask says.
fn make_private(path: &Path) -> Result<(), IoError> {
    for entry in fs::read_dir(path).doing("read the folder", path)? {
        let entry = entry.doing("read the folder", path)?;
        let (path, metadata) = (entry.path(), entry.metadata());
        let metadata = match metadata {
            // A temporary file of its own.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            metadata => metadata.doing("look at", &path)?,
        };
        let mode = if metadata.is_dir() { files::FOLDER_MODE } else { files::FILE_MODE };
        if metadata.permissions().mode() & 0o777 != mode {
            fs::set_permissions(&path, Permissions::from_mode(mode))
                .doing("make private", &path)?;
        }
    }
    Ok(())
}
