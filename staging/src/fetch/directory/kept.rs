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
    /// Goes with this, where somebody else is at the same directory.
    _own: Option<[Own; 2]>,
}

#[derive(Debug)]
struct Now {
    /// Locked against others, also of this process.
    notes: File,
    digests: BTreeMap<FileStamp, Digest>,
    paths: std::collections::BTreeSet<String>,
}

impl Kept {
    /// Takes up the directory of this source where it was left, or begins it. When somebody else is
    /// at it, one of our own.
    pub(super) fn open(dir: &Path, source: Digest) -> Result<Self, LocalError> {
        place::make(dir)?;
        let mut root = dir.join(format!("{source}.tree"));
        let mut notes_path = root.with_extension("tree-notes");
        let mut notes = open_notes(&notes_path)?;
        let mut own = None;
        if notes.try_lock().is_err() {
            let (tree, list) = (Own::name(dir, &source)?, Own::name(dir, &source)?);
            tree.path().clone_into(&mut root);
            list.path().clone_into(&mut notes_path);
            notes = open_notes(&notes_path)?;
            own = Some([tree, list]);
        }
        make_directory(&root)?;
        let before = take_up(&mut notes, &notes_path)?;
        let now = Now { notes, digests: BTreeMap::new(), paths: Default::default() };
        Ok(Self { root, notes_path, before, now: Mutex::new(now), _own: own })
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

/// The notes that are whole. A line that was being written when the process died is none, whatever
/// is in it, and the next one begins after it.
fn take_up(notes: &mut File, path: &Path) -> Result<BTreeMap<String, Note>, LocalError> {
    let failed = |error| LocalError::io("read", path, error);
    let bytes = fs::read(path).map_err(failed)?;
    if bytes.last().is_some_and(|last| *last != b'\n') {
        notes.write_all(b"\n").map_err(failed)?;
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    let before = lines.filter_map(|line| serde_json::from_slice::<Note>(line).ok());
    Ok(before.map(|note| (note.path.clone(), note)).collect())
}

fn open_notes(path: &Path) -> Result<File, LocalError> {
    let mut options = File::options();
    options.append(true).create(true);
    options.open(path).map_err(|error| LocalError::io("create", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Validators;

    const SOURCE: Digest = Digest::from_bytes([7; 32]);

    fn add(kept: &Kept, dir: &Path, name: &str) {
        let from = dir.join("came");
        fs::write(&from, name).unwrap();
        kept.add(&from, Came { entry: entry(name), sha256: Digest::of(name.as_bytes()) }).unwrap();
    }

    fn entry(name: &str) -> Entry {
        let validators = Validators { etag: Some("\"1\"".into()), ..Validators::default() };
        Entry::file(name, Some(name.len() as u64), validators)
    }

    #[test]
    fn a_torn_note_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["one", "tw\u{f6}", "three"];
        let mut notes_path = PathBuf::new();
        for (at, name) in names.iter().enumerate() {
            let kept = Kept::open(dir.path(), SOURCE).unwrap();
            let there: Vec<_> = names.iter().map(|name| kept.has(&entry(name))).collect();
            assert_eq!(there, (0..names.len()).map(|there| there < at).collect::<Vec<_>>());
            add(&kept, dir.path(), name);
            notes_path = kept.notes_path.clone();
            // The first byte of two of one character, and no end of the line.
            let mut notes = File::options().append(true).open(&notes_path).unwrap();
            notes.write_all(b"{\"version\":1,\"path\":\"t\xC3").unwrap();
        }
        assert!(notes_path.starts_with(dir.path()));
    }

    #[test]
    fn each_who_is_at_one_directory_has_a_tree_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..4).map(|_| Kept::open(dir.path(), SOURCE).unwrap()).collect();
        for (at, kept) in all.iter().enumerate() {
            add(kept, dir.path(), &format!("file {at}"));
        }
        for (at, kept) in all.into_iter().enumerate() {
            let own = Own::name(dir.path(), &SOURCE).unwrap();
            let (own, _) = kept.finish(own).unwrap();
            let found = fs::read_dir(own.path()).unwrap().map(|entry| entry.unwrap().file_name());
            assert_eq!(found.collect::<Vec<_>>(), [format!("file {at}").as_str()]);
        }
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "nothing is left of those that ended");
    }
}
