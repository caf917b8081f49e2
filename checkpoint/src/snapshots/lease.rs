//! What an attempt is about to leave, written beside its scratch directory before it begins: should
//! its engine be killed, the next one finds what it has to save, and under which key.

use std::fs;
use std::io;
use std::path::Path;

use keelboat_engine::{MemoKey, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Origin, SnapshotStore, Snapshots};
use crate::error::{IoContext as _, IoError};
use crate::files;

/// Where the kernel tells which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What an attempt leaves when it dies with its engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The folder of its task among the snapshots, as for [`SnapshotStore::of`].
    pub folder: String,
    /// The key under which it runs.
    pub key: MemoKey,
    /// Its directory, relative to the scratch directory.
    pub directory: String,
    /// The attempt, and when it began.
    pub origin: Origin,
    boot: String,
}

/// A [`Lease`] as one line of JSON, version 1.
#[derive(Serialize, Deserialize)]
struct LeaseV1 {
    version: u32,
    folder: String,
    key: String,
    directory: String,
    run: String,
    task: String,
    ordinal: u32,
    began_ms: u64,
    boot: String,
}

impl Lease {
    /// Of an attempt on this machine, as it runs now.
    pub fn new(folder: String, key: MemoKey, directory: String, origin: Origin) -> Self {
        Self { folder, key, directory, origin, boot: boot() }
    }

    /// Writes it. It need not outlast the machine: what an attempt left then is not believed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), IoError> {
        let Origin { run, task, ordinal, saved } = self.origin.clone();
        let (key, began_ms) = (self.key.0.to_hex(), saved.0);
        let Self { folder, directory, boot, .. } = self.clone();
        let disk =
            LeaseV1 { version: 1, folder, key, directory, run, task, ordinal, began_ms, boot };
        let text = serde_json::to_vec(&disk).map_err(io::Error::other);
        let temporary = files::fresh_name(files::parent_of(path));
        let written = text.and_then(|text| files::write_new(&temporary, &text));
        written.and_then(|()| fs::rename(&temporary, path)).doing("write", path)
    }

    /// Reads it; `None`: it is torn, damaged, or of another version.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>, IoError> {
        let text = fs::read(path).doing("read", path)?;
        let disk: Option<LeaseV1> = serde_json::from_slice(&text).ok();
        let Some(disk) = disk.filter(|disk| disk.version == 1) else { return Ok(None) };
        let Ok(digest) = disk.key.parse() else { return Ok(None) };
        let saved = Timestamp(disk.began_ms);
        let LeaseV1 { folder, directory, run, task, ordinal, boot, .. } = disk;
        let origin = Origin { run, task, ordinal, saved };
        Ok(Some(Self { folder, key: MemoKey(digest), directory, origin, boot }))
    }

    /// Whether the machine has not been started anew since. If it was, files that were written
    /// last may be torn, and nothing tells which.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == boot()
    }

    /// The snapshots that it adds to.
    pub fn snapshots(&self, store: &SnapshotStore) -> Snapshots {
        store.of(&self.folder, self.key)
    }
}

/// Where the kernel does not tell, all starts are one.
fn boot() -> String {
    let boot = fs::read_to_string(BOOT_ID);
    boot.map(|boot| boot.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use keelboat_engine::Digest;

    use super::*;

    fn lease() -> Lease {
        let origin = Origin {
            run: "run".into(),
            task: "count[n=\u{e9}]".into(),
            ordinal: 3,
            saved: Timestamp(17),
        };
        let key = MemoKey(Digest::of(b"key"));
        Lease::new("count.abc".into(), key, "state/deep".into(), origin)
    }

    #[test]
    fn it_is_read_as_it_was_written_and_not_when_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.1.checkpoint");
        lease().write(&path).unwrap();
        assert_eq!(Lease::read(&path).unwrap(), Some(lease()));
        assert!(lease().is_of_this_boot());
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(Lease::read(&path).unwrap(), None, "{length} bytes");
        }
    }

    #[test]
    fn one_of_an_earlier_start_of_the_machine_is_told() {
        let before = Lease { boot: "another".into(), ..lease() };
        assert!(!before.is_of_this_boot());
    }
}
