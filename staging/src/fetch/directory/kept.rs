//! A directory on its way, and the notes on which of its files have come. Version 1: lines of JSON,
//! each believed only when the file beside it still has the digest that it tells.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use keelboat_engine::{Content, Digest, FileStamp, Kind};
use serde::{Deserialize, Serialize};

use super::super::arrived::Own;
use super::{below, make_directory};
use crate::local::{DigestMemory, Forgetful, LocalError, digest_path, remove_tree, stamp_of};
use crate::partial::place;
use crate::protocol::Entry;

/// A file that has come.
pub(super) struct Came {
    pub(super) entry: Entry,
    pub(super) sha256: Digest,
}

/// One line of notes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    path: String,
    length: Option<u64>,
    etag: Option<String>,
    last_modified: Option<String>,
    sha256: Digest,
}

const VERSION: u32 = 1;

impl Note {
    /// Whether the listing still says what it said when the file came, and says enough.
    fn is_of(&self, entry: &Entry) -> bool {
        let validators = &entry.validators;
        self.version == VERSION
            && !validators.is_empty()
            && self.length == entry.length
            && self.etag == validators.etag
            && self.last_modified == validators.last_modified
    }
}

/// The files so far.
#[derive(Debug)]
pub(super) struct Kept {
    root: PathBuf,
    notes_path: PathBuf,
    before: BTreeMap<String, Note>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    /// Locked against other processes.
    notes: File,
    digests: BTreeMap<FileStamp, Digest>,
    paths: std::collections::BTreeSet<String>,
}

impl Kept {
    /// Takes up the directory of this source where it was left, or begins it. When another process
    /// is at it, one of our own.
    pub(super) fn open(dir: &Path, source: Digest) -> Result<Self, LocalError> {
        place::make(dir)?;
        let mut root = dir.join(format!("{source}.tree"));
        let mut notes_path = root.with_extension("tree-notes");
        let mut notes = open_notes(&notes_path)?;
        if notes.try_lock().is_err() {
            // Names that are swept when this process is gone.
            let mine = |number| format!("{source}.{}-{number}.own", std::process::id());
            root = dir.join(mine("0"));
            notes_path = dir.join(mine("1"));
            remove_tree(&root)?;
            remove_tree(&notes_path)?;
            notes = open_notes(&notes_path)?;
        }
        make_directory(&root)?;
        let text = fs::read_to_string(&notes_path).unwrap_or_default();
        // A line that was being written when the process died is no note.
        let before = text.lines().filter_map(|line| serde_json::from_str::<Note>(line).ok());
        let before = before.map(|note| (note.path.clone(), note)).collect();
        let now = Now { notes, digests: BTreeMap::new(), paths: Default::default() };
        Ok(Self { root, notes_path, before, now: Mutex::new(now) })
    }

    pub(super) fn make_directory(&self, path: &str) -> Result<(), LocalError> {
        self.lock().paths.insert(path.to_owned());
        make_directory(&below(&self.root, path))
    }

    /// Whether a file came before, and is the one that the listing tells of. Reads it.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        let Some(note) = self.before.get(&entry.path).filter(|note| note.is_of(entry)) else {
            return false;
        };
        let path = below(&self.root, &entry.path);
        let found = digest_path(&path, Kind::File, &Forgetful, true);
        let is_whole = found.is_ok_and(|found| found.digest == note.sha256);
        if is_whole {
            self.remember(&path, &entry.path, note.sha256);
        }
        is_whole
    }

    /// Moves a file that came to its place.
    pub(super) fn add(&self, from: &Path, came: Came) -> Result<(), LocalError> {
        let Came { entry, sha256 } = came;
        let to = below(&self.root, &entry.path);
        if let Some(parent) = to.parent() {
            make_directory(parent)?;
        }
        fs::rename(from, &to).map_err(|error| LocalError::io("write", &to, error))?;
        self.remember(&to, &entry.path, sha256);
        let note = Note {
            version: VERSION,
            path: entry.path,
            length: entry.length,
            etag: entry.validators.etag,
            last_modified: entry.validators.last_modified,
            sha256,
        };
        let line = serde_json::to_string(&note).map_err(std::io::Error::other);
        let written = line.and_then(|line| writeln!(self.lock().notes, "{line}"));
        written.map_err(|error| LocalError::io("write", &self.notes_path, error))
    }

    /// All is here: what the directory holds, under the name that is given.
    pub(super) fn finish(&self, own: Own) -> Result<(Own, Content), LocalError> {
        self.remove_strangers()?;
        let content = digest_path(&self.root, Kind::Directory, self, false)?;
        fs::rename(&self.root, own.path())
            .map_err(|error| LocalError::io("write", own.path(), error))?;
        if let Err(error) = fs::remove_file(&self.notes_path) {
            tracing::debug!(%error, "the notes of a directory stay");
        }
        Ok((own, content))
    }

    /// Files of an earlier listing that are not in this one.
    fn remove_strangers(&self) -> Result<(), LocalError> {
        let now = self.lock();
        let is_known = |path: &str| {
            now.paths.contains(path)
                || now.paths.range(format!("{path}/")..).next().is_some_and(|next| {
                    next.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
                })
        };
        let mut walk = walkdir::WalkDir::new(&self.root).min_depth(1).into_iter();
        while let Some(entry) = walk.next() {
            let entry = entry.map_err(|error| LocalError::io("list", &self.root, error.into()))?;
            let path = entry.path().strip_prefix(&self.root).ok().and_then(Path::to_str);
            if path.is_some_and(&is_known) {
                continue;
            }
            if entry.file_type().is_dir() {
                walk.skip_current_dir();
            }
            remove_tree(entry.path())?;
        }
        Ok(())
    }

    fn remember(&self, at: &Path, path: &str, sha256: Digest) {
        let mut now = self.lock();
        now.paths.insert(path.to_owned());
        if let Ok(metadata) = at.symlink_metadata() {
            now.digests.insert(stamp_of(&metadata), sha256);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files are hashed as they come.
impl DigestMemory for Kept {
    fn recall(&self, stamp: &FileStamp) -> Option<Digest> {
        self.lock().digests.get(stamp).copied()
    }

    fn remember(&self, _stamp: &FileStamp, _digest: Digest, _hashed_at: SystemTime) {}

    fn remember_own(&self, _stamp: &FileStamp, _digest: Digest) {}
}

fn open_notes(path: &Path) -> Result<File, LocalError> {
    let mut options = File::options();
    options.append(true).create(true);
    options.open(path).map_err(|error| LocalError::io("create", path, error))
}
