//! What was submitted, on disk before it is: one file for each task, so that a later life of this
//! process finds its task again. Version 1, JSON.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::document::{Document, Item};
use super::tokens::local;
use crate::private;
use crate::protocol::TransferError;

const VERSION: u32 = 1;

/// After this long nobody asks for the results any more.
pub(crate) const AGE_MAX: Duration = Duration::from_hours(30 * 24);

/// One submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// Known when Globus has answered.
    pub(super) task_id: Option<String>,
    /// What the local files of sent items were, one for each item.
    pub(super) stamps: Vec<Option<String>>,
    /// What was submitted, or was about to be.
    pub(super) document: Document,
}

/// A record that no other process uses while this lives.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    pub(super) record: Record,
    _lock: File,
}

impl Record {
    /// Of what will be submitted.
    pub(super) const fn new(document: Document, stamps: Vec<Option<String>>) -> Self {
        Self { version: VERSION, task_id: None, stamps, document }
    }

    fn read(path: &Path) -> Option<Self> {
        let text = fs::read(path).ok()?;
        match serde_json::from_slice::<Self>(&text) {
            Ok(record)
                if record.version == VERSION
                    && record.stamps.len() == record.document.items.len() =>
            {
                Some(record)
            }
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a record of a Globus task is not used");
                None
            }
        }
    }
}

impl Kept {
    /// Puts a record on the disk, under the submission id.
    ///
    /// # Errors
    /// It cannot be made durable: then nothing may be submitted.
    pub(super) fn create(dir: &Path, record: Record) -> Result<Self, TransferError> {
        let path = dir.join(format!("{}.json", record.document.submission_id));
        let failed = |error: io::Error| local(&path, "write", &error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let lock = lock(&path).map_err(failed)?;
        let lock = lock.ok_or_else(|| failed(io::Error::other("another process holds it")))?;
        let kept = Self { path: path.clone(), record, _lock: lock };
        kept.write().map_err(failed)?;
        Ok(kept)
    }

    /// Takes a record that is there; `None`: it is gone, or another process has it.
    pub(super) fn take(path: &Path) -> Option<Self> {
        let lock = lock(path).ok().flatten()?;
        // Read under the lock: whoever had it may have changed or removed it.
        let Some(record) = Record::read(path) else {
            remove(&lock_path(path));
            return None;
        };
        Some(Self { path: path.to_owned(), record, _lock: lock })
    }

    /// Adds the task.
    pub(super) fn set_task(&mut self, task_id: &str) -> Result<(), TransferError> {
        self.record.task_id = Some(task_id.to_owned());
        self.write().map_err(|error| local(&self.path, "write", &error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The results were taken, or there will be none.
    pub(super) fn remove(&self) {
        remove(&self.path);
        remove(&lock_path(&self.path));
    }

    /// Written beside, brought to the disk, renamed, and the name brought to the disk.
    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.record).map_err(io::Error::other)?;
        let beside = self.path.with_extension("new");
        let mut file = private::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        File::open(dir)?.sync_all()
    }
}

/// All records that may be taken, each with what its task moves. Old ones are removed.
pub(super) fn scan(dir: &Path, now: SystemTime) -> Vec<(PathBuf, Vec<Item>, Document)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > AGE_MAX) {
            sweep(&path);
        } else if path.extension().is_some_and(|end| end == "json")
            && let Some(record) = Record::read(&path)
        {
            found.push((path, record.document.items.clone(), record.document));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn sweep(path: &Path) {
    match path.extension().and_then(|end| end.to_str()) {
        Some("json") => {
            if let Ok(Some(_lock)) = lock(path) {
                remove(path);
                remove(&lock_path(path));
            }
        }
        // A process that died before it had written its record.
        Some("lock") if !path.with_extension("json").exists() => {
            if let Ok(Some(_lock)) = lock(path) {
                remove(path);
            }
        }
        Some("new") => remove(path),
        _ => {}
    }
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// `None`: another process has it. A lock ends with its process, however that ends.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().write(true).create(true).truncate(false).open(lock_path(path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(path = %path.display(), %error, "a file stays");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use keelboat_engine::Kind;

    use super::*;
    use crate::globus::document::Route;

    /// Version 1 as it was first written. It stays readable; a change needs a new version.
    const GOLDEN_1: &str = concat!(
        r#"{"version":1,"task_id":"t-1","stamps":[null,"4 99"],"document":"#,
        r#"{"DATA_TYPE":"transfer","submission_id":"s-1","source_endpoint":"a","#,
        r#""destination_endpoint":"b","label":"keelboat 2 items e25901dcca9f335c","#,
        r#""deadline":"2026-11-22T12:00:00Z","sync_level":3,"verify_checksum":true,"#,
        r#""skip_source_errors":true,"fail_on_quota_errors":true,"notify_on_succeeded":false,"#,
        r#""notify_on_failed":false,"notify_on_inactive":false,"DATA":["#,
        r#"{"DATA_TYPE":"transfer_item","source_path":"/x","destination_path":"/y","recursive":false},"#,
        r#"{"DATA_TYPE":"transfer_item","source_path":"/d","destination_path":"/e","recursive":true}]}}"#,
    );

    fn record() -> Record {
        let route = Route { source: "a".into(), destination: "b".into() };
        let items = vec![
            Item::new("/x".into(), "/y".into(), Kind::File),
            Item::new("/d".into(), "/e".into(), Kind::Directory),
        ];
        let deadline = "2026-11-22T12:00:00Z".parse().unwrap();
        let document = Document::new("s-1".into(), &route, deadline, items);
        Record::new(document, vec![None, Some("4 99".into())])
    }

    #[test]
    fn version_1_is_written_and_read_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::create(dir.path(), record()).unwrap();
        kept.set_task("t-1").unwrap();
        let path = kept.path().to_owned();
        assert_eq!(fs::read_to_string(&path).unwrap(), GOLDEN_1);
        fs::write(&path, GOLDEN_1).unwrap();
        assert_eq!(Record::read(&path), Some(kept.record.clone()));
        fs::write(&path, GOLDEN_1.replace("\"version\":1", "\"version\":2")).unwrap();
        assert_eq!(Record::read(&path), None, "of a later version");
    }

    #[test]
    fn one_process_at_a_time_has_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::create(dir.path(), record()).unwrap();
        let path = kept.path().to_owned();
        assert!(Kept::take(&path).is_none());
        drop(kept);
        let kept = Kept::take(&path).unwrap();
        assert_eq!(kept.record, record());
        kept.remove();
        drop(kept);
        assert!(Kept::take(&path).is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn old_records_go() {
        let dir = tempfile::tempdir().unwrap();
        drop(Kept::create(dir.path(), record()).unwrap());
        fs::write(dir.path().join("never-written.lock"), b"").unwrap();
        assert_eq!(scan(dir.path(), SystemTime::now()).len(), 1);
        assert!(scan(dir.path(), SystemTime::now() + AGE_MAX * 2).is_empty());
        assert!(scan(dir.path(), SystemTime::now()).is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "locks go with their records");
    }
}
