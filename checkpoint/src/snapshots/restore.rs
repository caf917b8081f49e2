//! A snapshot out of the store: the newest one that is whole.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use keelboat_engine::Digest;

use super::copy::{self, CopyError};
use super::manifest::{Entry, Manifest, Node};
use super::{DamagedSnapshot, Origin, STATE, SnapshotError, Snapshots, remove_all};
use crate::digests::stamp_of;
use crate::error::{IoContext as _, IoError};
use crate::files;

/// What came of looking for a snapshot.
#[derive(Debug, Default)]
pub struct Restoration {
    /// What is in the directory now, and its bytes; `None`: nothing, there is no whole snapshot.
    pub from: Option<(Origin, u64)>,
    /// Snapshots that could not be used, and are not there any more.
    pub damaged: Vec<DamagedSnapshot>,
}

/// Why a snapshot is not restored.
enum Refusal {
    /// It is not what was saved: another one may be.
    Damaged(String),
    /// There is no room, say: the snapshot is well.
    Failed(IoError),
}

impl Snapshots {
    /// Makes `dest`, which must not exist, with what the newest whole snapshot holds; empty when
    /// there is none. Each byte is compared with its digest. What is torn or damaged is set aside
    /// and named.
    ///
    /// # Errors
    /// When `dest` cannot be written; the snapshots stay as they are.
    pub fn restore(&self, dest: &Path) -> Result<Restoration, SnapshotError> {
        let mut restoration = Restoration::default();
        for number in self.numbers()? {
            if !self.is_sealed(number) {
                // Its maker died before it was whole, and it was left at the start of this engine.
                self.drop_one(number)?;
                continue;
            }
            match self.build(number, dest) {
                Ok(manifest) => {
                    self.touch();
                    let bytes = manifest.bytes();
                    restoration.from = Some((manifest.origin, bytes));
                    return Ok(restoration);
                }
                Err(refusal) => {
                    remove_all(dest)?;
                    match refusal {
                        Refusal::Failed(error) => return Err(error.into()),
                        Refusal::Damaged(what) => {
                            restoration.damaged.push(self.set_aside(number, what)?);
                        }
                    }
                }
            }
        }
        fs::create_dir(dest).doing("create the folder", dest)?;
        Ok(restoration)
    }

    /// Snapshots that are used are not old.
    fn touch(&self) {
        let touched = File::open(&self.folder)
            .and_then(|folder| folder.set_modified(std::time::SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(folder = %self.folder.display(), %error, "it looks older than it is");
        }
    }

    fn build(&self, number: u32, dest: &Path) -> Result<Manifest, Refusal> {
        let manifest = self.manifest(number).map_err(Refusal::Damaged)?;
        let state = self.place(number).join(STATE);
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| Refusal::Failed(IoError::new(doing, path, error))
        };
        fs::create_dir(dest).map_err(failed("create the folder", dest))?;
        for Entry { path, node } in &manifest.entries {
            let place = dest.join(path);
            match node {
                Node::Directory { .. } => {
                    fs::create_dir(&place).map_err(failed("create the folder", &place))?;
                }
                Node::Link { target } => symlink(OsStr::from_bytes(target), &place)
                    .map_err(failed("create the link", &place))?,
                Node::File { digest, bytes, mode, modified } => {
                    bring(&state.join(path), &place, (*digest, *bytes))?;
                    set(&place, *mode, *modified).map_err(failed("write", &place))?;
                    self.remember(&place, *digest).map_err(Refusal::Failed)?;
                }
            }
        }
        // The deepest first: a directory may be one that nobody may write to.
        for Entry { path, node } in manifest.entries.iter().rev() {
            if let Node::Directory { mode } = node {
                let place = dest.join(path);
                let set = fs::set_permissions(&place, Permissions::from_mode(*mode));
                set.map_err(failed("write", &place))?;
            }
        }
        Ok(manifest)
    }

    /// What this process has just written, and what nobody else works with yet.
    fn remember(&self, place: &Path, digest: Digest) -> Result<(), IoError> {
        if let Some(digests) = &self.digests {
            let metadata = fs::symlink_metadata(place).doing("look at", place)?;
            digests.remember_own(&stamp_of(&metadata), digest);
        }
        Ok(())
    }

    fn set_aside(&self, number: u32, what: String) -> Result<DamagedSnapshot, IoError> {
        files::create_folder(&self.damaged)?;
        let key = self.key.0.short();
        let name = format!("checkpoint-{}-{key}-{number}", self.task);
        let free = |at: &u32| !self.damaged.join(format!("{name}.{at}")).exists();
        let at = (1..1000).find(free).unwrap_or_default();
        let quarantined = self.damaged.join(format!("{name}.{at}"));
        let place = self.place(number);
        if let Err(error) = fs::rename(&place, &quarantined) {
            tracing::warn!(%error, "a damaged checkpoint cannot be set aside, and is removed");
            self.drop_one(number)?;
        }
        Ok(DamagedSnapshot { quarantined, what })
    }
}

fn bring(from: &Path, to: &Path, (digest, bytes): (Digest, u64)) -> Result<(), Refusal> {
    let name = from.file_name().unwrap_or_default().to_string_lossy();
    match copy::copy(from, to, &|| false) {
        Ok(taken) if (taken.digest, taken.bytes) == (digest, bytes) => Ok(()),
        Ok(taken) => {
            let found = (taken.bytes, taken.digest.short());
            let expected = (bytes, digest.short());
            Err(Refusal::Damaged(format!(
                "{name} has {} bytes with digest {}, not {} with {}",
                found.0, found.1, expected.0, expected.1
            )))
        }
        Err(CopyError::Source(error)) => Err(Refusal::Damaged(error.to_string())),
        Err(CopyError::Target(error)) => Err(Refusal::Failed(error)),
        Err(CopyError::Ended) => Err(Refusal::Damaged("its copy was given up".to_owned())),
    }
}

/// The time of the last change is old then, and so is told from any that the task makes.
fn set(place: &Path, mode: u32, (seconds, nanos): (i64, u32)) -> io::Result<()> {
    let since = Duration::new(seconds.unsigned_abs(), 0);
    let whole =
        if seconds < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
    let modified = whole.and_then(|whole| whole.checked_add(Duration::new(0, nanos)));
    if let Some(modified) = modified {
        File::open(place)?.set_modified(modified)?;
    }
    fs::set_permissions(place, Permissions::from_mode(mode))
}
