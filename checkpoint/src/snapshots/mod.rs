//! Snapshots of what tasks keep in their checkpoint directories, for their next attempts.
//!
//! A snapshot is a numbered folder, `checkpoints/TASK/KEY/N`: its files lie in `state`, and the
//! `manifest`, which is written last, tells what each of them holds. One without a manifest is none.
//! What is restored is read and compared first, so a torn or damaged one is never handed out; the
//! one before it is, and for that the last two are kept. A file that did not change from one to the
//! next is stored once, as a hard link.
//!
//! Deliberately absent: when to save and what to give up (the engine's decisions), and any memory of
//! which snapshots there are: the folders tell.

mod copy;
mod lease;
mod listing;
mod manifest;
mod restore;
mod save;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keelboat_engine::{MemoKey, Timestamp};

pub use lease::Lease;
pub use restore::Restoration;
pub use save::{Saved, Verdict};

use self::manifest::Manifest;
use crate::digests::DigestCache;
use crate::error::{IoContext as _, IoError};
use crate::files;

/// What a snapshot's folder holds: the files, and what is known of them.
const STATE: &str = "state";
const MANIFEST: &str = "manifest";
/// Which attempt has nothing that is not in this snapshot.
const SETTLED: &str = "settled";

/// Snapshots of one task under one key that are kept.
const KEPT_MAX: usize = 2;

/// For how long snapshots are kept that no attempt has gone on from, nor added to.
pub const CHECKPOINTS_KEPT: Duration = Duration::from_hours(30 * 24);

/// Why something cannot be saved or restored.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A file was written to, each time that it was copied.
    #[error("{} changes faster than it can be copied", path.display())]
    Changing {
        /// The file, or the directory when its files came and went.
        path: PathBuf,
    },
    /// Nobody needs it any more.
    #[error("the attempt ended while it was saved")]
    Ended,
}

impl SnapshotError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io(error) => error.hint(),
            Self::Changing { .. } => Some(
                "let the task write a new file beside the old one and rename it, less often than \
                 a few times a second",
            ),
            Self::Ended => None,
        }
    }
}

/// Whose work a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The run.
    pub run: String,
    /// The task.
    pub task: String,
    /// Which try.
    pub ordinal: u32,
    /// When it was saved.
    pub saved: Timestamp,
}

/// A snapshot that is torn or damaged, and was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedSnapshot {
    /// Where it is now.
    pub quarantined: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// All snapshots of a project.
#[derive(Debug)]
pub struct SnapshotStore {
    root: PathBuf,
    damaged: PathBuf,
    digests: Option<Arc<DigestCache>>,
}

impl SnapshotStore {
    /// The snapshots in a state directory (`.keelboat`). Nothing is made before there is one.
    pub fn at(state_dir: &Path) -> Self {
        let (root, damaged) = (state_dir.join("checkpoints"), state_dir.join("damaged"));
        Self { root, damaged, digests: None }
    }

    /// Remembers here what files hold, so that those are not read again that did not change.
    #[must_use]
    pub fn remembering(mut self, digests: Arc<DigestCache>) -> Self {
        self.digests = Some(digests);
        self
    }

    /// The snapshots of one task under one key. `task` is one plain file name, the same for
    /// each run.
    pub fn of(&self, task: &str, key: MemoKey) -> Snapshots {
        Snapshots {
            folder: self.root.join(task).join(key.0.to_hex()),
            task: task.to_owned(),
            damaged: self.damaged.clone(),
            key,
            digests: self.digests.clone(),
        }
    }

    /// Takes all snapshots of a task away, under whatever key, from one moment to the next. Their
    /// bytes go when what this returns is [removed](Forgotten::remove).
    ///
    /// # Errors
    /// When they cannot be taken away.
    pub fn forget(&self, task: &str) -> Result<Forgotten, IoError> {
        let (place, gone) = (self.root.join(task), files::fresh_name(&self.root));
        match fs::rename(&place, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Forgotten(None)),
            renamed => renamed.doing("remove", &place).map(|()| Forgotten(Some(gone))),
        }
    }

    /// Removes what a process that died was about to remove or to make. No other process may be at
    /// work.
    ///
    /// # Errors
    /// When something cannot be removed or listed.
    pub fn sweep(&self) -> Result<(), IoError> {
        for task in entries(&self.root)? {
            if is_temporary(&task) {
                remove_all(&task)?;
                continue;
            }
            for key in entries(&task)? {
                let mut left = entries(&key)?.into_iter().filter(|path| is_temporary(path));
                left.try_for_each(|path| remove_all(&path))?;
            }
        }
        Ok(())
    }

    /// The folders of keys that nobody used for so long: what is in them may be removed.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn idle(&self, now: SystemTime, keep: Duration) -> Result<Vec<PathBuf>, IoError> {
        let mut idle = Vec::new();
        for task in entries(&self.root)? {
            for key in entries(&task)? {
                let used = fs::symlink_metadata(&key).and_then(|found| found.modified());
                let since = used.ok().and_then(|used| now.duration_since(used).ok());
                if since.is_some_and(|since| since > keep) {
                    idle.push(key);
                }
            }
        }
        Ok(idle)
    }
}

/// Snapshots that are none any more, and still take room.
#[derive(Debug)]
#[must_use = "their bytes are to be removed"]
pub struct Forgotten(Option<PathBuf>);

impl Forgotten {
    /// Gives back their room.
    ///
    /// # Errors
    /// When they cannot be removed; [`SnapshotStore::sweep`] tries again.
    pub fn remove(self) -> Result<(), IoError> {
        self.0.map_or(Ok(()), |path| remove_all(&path))
    }
}

/// The snapshots of one task under one key.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
    task: String,
    damaged: PathBuf,
    key: MemoKey,
    digests: Option<Arc<DigestCache>>,
}

impl Snapshots {
    /// Removes all of them, under this key.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn forget(&self) -> Result<(), IoError> {
        remove_all(&self.folder)
    }

    /// The numbers of all folders, sealed or not, the newest first.
    fn numbers(&self) -> Result<Vec<u32>, IoError> {
        let mut numbers: Vec<u32> = entries(&self.folder)?
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    fn place(&self, number: u32) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn is_sealed(&self, number: u32) -> bool {
        self.place(number).join(MANIFEST).symlink_metadata().is_ok()
    }

    /// The newest one whose manifest is whole.
    fn newest(&self) -> Result<Option<(u32, Manifest)>, IoError> {
        let mut numbers = self.numbers()?.into_iter();
        Ok(numbers.find_map(|number| Some((number, self.manifest(number).ok()?))))
    }

    /// What a manifest says, or why it says nothing.
    fn manifest(&self, number: u32) -> Result<Manifest, String> {
        let path = self.place(number).join(MANIFEST);
        let bytes = fs::read(&path).map_err(|error| format!("{MANIFEST}: {error}"))?;
        let manifest = manifest::decode(&bytes).ok_or("its list of files is damaged")?;
        if manifest.key != self.key {
            return Err("it belongs to another key".to_owned());
        }
        Ok(manifest)
    }

    fn next_number(&self) -> Result<u32, IoError> {
        Ok(self.numbers()?.first().map_or(1, |newest| newest.saturating_add(1)))
    }

    /// All but the last whole ones go.
    fn prune(&self) -> Result<(), IoError> {
        let mut kept = 0;
        for number in self.numbers()? {
            let is_kept = kept < KEPT_MAX && self.is_sealed(number);
            kept += usize::from(is_kept);
            if !is_kept {
                self.drop_one(number)?;
            }
        }
        Ok(())
    }

    fn drop_one(&self, number: u32) -> Result<(), IoError> {
        let (place, gone) = (self.place(number), files::fresh_name(&self.folder));
        fs::rename(&place, &gone).doing("remove", &place)?;
        remove_all(&gone)
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".keelboat-"))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, IoError> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.doing("read the folder", folder)?,
    };
    let paths = listed.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    paths.doing("read the folder", folder)
}

fn remove_all(path: &Path) -> Result<(), IoError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.doing("remove", path),
    }
}
