//! A directory into the store: moved there when its attempt is over, copied while it runs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keelboat_engine::{Digest, FileStamp};

use super::copy::{self, CopyError};
use super::listing::{Access, Listed, What, list};
use super::manifest::{self, Entry, Manifest, Node};
use super::{MANIFEST, Origin, SETTLED, STATE, SnapshotError, Snapshots, remove_all};
use crate::digests::CLOCK_TICK_MAX;
use crate::error::{IoContext as _, IoError};
use crate::files;
use crate::journal::durable;

/// How often a directory that changes is looked at again.
const PASSES_MAX: u32 = 8;

/// The first wait between two looks; doubled up to the longest.
const PAUSE_MIN: Duration = CLOCK_TICK_MAX;
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// A snapshot that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of those that the snapshot before does not have.
    pub bytes_new: u64,
}

/// Whether there was something to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is saved.
    Saved(Saved),
    /// There is nothing, or just what the newest snapshot holds.
    Nothing,
}

/// The snapshot before, whose files can be shared.
type Before = Option<(u32, Manifest)>;

/// Files that are in a snapshot in the making, each as it was for long enough before.
type Copied = BTreeMap<PathBuf, (FileStamp, Digest)>;

impl Snapshots {
    /// Saves what an attempt has left that is over, by moving the directory. When that was begun
    /// before, and its process died over it, it is brought to its end.
    ///
    /// # Errors
    /// When it cannot be moved, read, or made durable.
    pub fn save_left(&self, state: &Path, origin: Origin) -> Result<Verdict, SnapshotError> {
        let before = self.newest()?;
        let number = match self.move_in(state)? {
            Some(number) => number,
            None if state.symlink_metadata().is_ok() => {
                // On another file system.
                let saved = self.save_running(state, origin, &|| false)?;
                remove_all(state)?;
                return Ok(saved);
            }
            // It was saved, and its process died before whoever asked could take note of it.
            None if self.is_settled(&before, &origin) => return Ok(Verdict::Nothing),
            // A task that has removed its directory begins anew.
            None if before.is_some() => self.make_empty()?,
            None => return Ok(Verdict::Nothing),
        };
        let place = self.place(number);
        let entries = self.entries_of(&place.join(STATE))?;
        let is_news = match &before {
            Some((_, before)) => before.entries != entries,
            None => !entries.is_empty(),
        };
        if !is_news {
            if let Some((newest, _)) = &before {
                settle(&self.place(*newest), &origin)?;
            }
            self.drop_one(number)?;
            return Ok(Verdict::Nothing);
        }
        settle(&place, &origin)?;
        let manifest = Manifest { key: self.key, origin, entries };
        let bytes_new = self.share(&manifest, &place, &before)?;
        seal(&place, &manifest)?;
        files::sync_folder(&self.folder)?;
        self.prune()?;
        Ok(Verdict::Saved(Saved { bytes: manifest.bytes(), bytes_new }))
    }

    /// Whether the newest snapshot says that all of this attempt is in it.
    fn is_settled(&self, newest: &Before, origin: &Origin) -> bool {
        let Some((newest, _)) = newest else { return false };
        let said = fs::read_to_string(self.place(*newest).join(SETTLED));
        said.is_ok_and(|said| said == settled(origin))
    }

    /// Saves what an attempt that runs has in its directory, as it all was at one moment: what
    /// changes while it is copied is copied again. `is_over` is asked from time to time.
    ///
    /// # Errors
    /// When it changes all the time, cannot be copied or made durable, or when it is over.
    pub fn save_running(
        &self,
        state: &Path,
        origin: Origin,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Verdict, SnapshotError> {
        let before = self.newest()?;
        files::create_folder(&self.folder)?;
        let temporary = files::fresh_name(&self.folder);
        let saved = self.copy_whole(state, &temporary, (origin, before), is_over);
        if temporary.symlink_metadata().is_ok() {
            remove_all(&temporary)?;
        }
        saved
    }

    fn copy_whole(
        &self,
        state: &Path,
        temporary: &Path,
        (origin, before): (Origin, Before),
        is_over: &dyn Fn() -> bool,
    ) -> Result<Verdict, SnapshotError> {
        let target = temporary.join(STATE);
        files::create_folder(&target)?;
        let pass = Pass { snapshots: self, state, target: &target, before: &before, is_over };
        let (listed, copied) = pass.until_it_holds_still()?;
        let entries: Vec<Entry> =
            entries(listed, |path| copied.get(path).map(|(_, digest)| *digest));
        let is_news = match &before {
            Some((_, before)) => before.entries != entries,
            None => !entries.is_empty(),
        };
        if !is_news {
            return Ok(Verdict::Nothing);
        }
        let manifest = Manifest { key: self.key, origin, entries };
        let bytes_new = self.share(&manifest, temporary, &before)?;
        seal(temporary, &manifest)?;
        if is_over() {
            return Err(SnapshotError::Ended);
        }
        let place = self.place(self.next_number()?);
        fs::rename(temporary, &place).doing("put in its place", &place)?;
        files::sync_folder(&self.folder)?;
        self.prune()?;
        Ok(Verdict::Saved(Saved { bytes: manifest.bytes(), bytes_new }))
    }

    /// Moves a directory in, or finds one that was. `None`: neither can be done.
    fn move_in(&self, state: &Path) -> Result<Option<u32>, IoError> {
        let is_there = state.symlink_metadata().is_ok_and(|found| found.is_dir());
        if !is_there {
            let newest = self.numbers()?.first().copied();
            let moved =
                |number: &u32| !self.is_sealed(*number) && self.place(*number).join(STATE).is_dir();
            return Ok(newest.filter(moved));
        }
        files::create_folder(&self.folder)?;
        let number = self.next_number()?;
        let place = self.place(number);
        files::create_folder(&place)?;
        match fs::rename(state, place.join(STATE)) {
            Ok(()) => Ok(Some(number)),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.drop_one(number)?;
                Ok(None)
            }
            Err(error) => Err(IoError::new("move to the checkpoints", state, error)),
        }
    }

    fn make_empty(&self) -> Result<u32, IoError> {
        let number = self.next_number()?;
        files::create_folder(&self.place(number).join(STATE))?;
        Ok(number)
    }

    /// What is in a directory that nobody works in. Files whose stamps are known are not read.
    fn entries_of(&self, state: &Path) -> Result<Vec<Entry>, SnapshotError> {
        let listed = list(state, Access::Ours)?;
        let mut digests = BTreeMap::new();
        for Listed { path, what } in &listed {
            let What::File { stamp, .. } = what else { continue };
            let known = self.known(stamp);
            let digest = known.map_or_else(|| digest_of(&state.join(path)), Ok)?;
            digests.insert(path.clone(), digest);
        }
        Ok(entries(listed, |path| digests.get(path).copied()))
    }

    fn known(&self, stamp: &FileStamp) -> Option<Digest> {
        self.digests.as_ref()?.lookup(stamp)
    }

    /// Where the snapshot before has a file with this digest under this path.
    fn twin(&self, before: &Before, path: &Path, digest: Digest) -> Option<PathBuf> {
        let (number, before) = before.as_ref()?;
        let same = before.digest_at(path) == Some(digest);
        same.then(|| self.place(*number).join(STATE).join(path))
    }

    /// Stores files once that the snapshot before has, too; returns the bytes of the others.
    fn share(&self, manifest: &Manifest, place: &Path, before: &Before) -> Result<u64, IoError> {
        let mut bytes_new = 0;
        for entry in &manifest.entries {
            let Node::File { digest, bytes, .. } = entry.node else { continue };
            let own = place.join(STATE).join(&entry.path);
            match self.twin(before, &entry.path, digest) {
                Some(twin) => link_over(&twin, &own)?,
                None => bytes_new += bytes,
            }
        }
        Ok(bytes_new)
    }
}

/// Makes all durable, then the manifest: from now on it is a snapshot.
/// Notes in a snapshot that all that an attempt has left is in it.
fn settle(place: &Path, origin: &Origin) -> Result<(), IoError> {
    let path = place.join(SETTLED);
    files::write_new(&path, settled(origin).as_bytes()).doing("write", &path)
}

fn settled(origin: &Origin) -> String {
    format!("{} {}\n", origin.run, origin.ordinal)
}

fn seal(place: &Path, manifest: &Manifest) -> Result<(), IoError> {
    let state = place.join(STATE);
    let files = manifest.entries.iter().filter(|entry| matches!(entry.node, Node::File { .. }));
    let files: Vec<PathBuf> = files.map(|entry| state.join(&entry.path)).collect();
    let plan = durable::plan(files.iter().map(PathBuf::as_path))?;
    plan.carry_out(&durable::Kernel)?;
    let directories = manifest.entries.iter();
    let directories = directories.filter(|entry| matches!(entry.node, Node::Directory { .. }));
    for directory in directories {
        files::sync_folder(&state.join(&directory.path))?;
    }
    files::sync_folder(&state)?;
    let bytes = manifest::encode(manifest).map_err(io::Error::other);
    let bytes = bytes.doing("encode", place)?;
    files::replace(&place.join(MANIFEST), &bytes)?;
    files::sync_folder(place)
}

/// Copying a directory in which somebody works.
struct Pass<'a> {
    snapshots: &'a Snapshots,
    state: &'a Path,
    target: &'a Path,
    before: &'a Before,
    is_over: &'a dyn Fn() -> bool,
}

impl Pass<'_> {
    /// Copies what is new, until two looks find the same and all of that is copied. All files were
    /// as they are in the copy at the moment between the last file and the second look.
    fn until_it_holds_still(&self) -> Result<(Vec<Listed>, Copied), SnapshotError> {
        let mut copied = Copied::new();
        let mut pause = PAUSE_MIN;
        let mut changing = self.state.to_owned();
        let mut listed = list(self.state, Access::Shared)?;
        for _ in 0..PASSES_MAX {
            let unsettled = self.copy_new(&listed, &mut copied)?;
            let again = list(self.state, Access::Shared)?;
            match unsettled {
                None if again == listed => return Ok((listed, copied)),
                Some(path) => changing = self.state.join(path),
                None => self.state.clone_into(&mut changing),
            }
            remove_gone(self.target, &listed, &again, &mut copied)?;
            listed = again;
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(SnapshotError::Changing { path: changing })
    }

    /// Copies what is not there yet as it is; returns a file that changes, if one does.
    fn copy_new(
        &self,
        listed: &[Listed],
        copied: &mut Copied,
    ) -> Result<Option<PathBuf>, SnapshotError> {
        let mut unsettled = None;
        for Listed { path, what } in listed {
            if (self.is_over)() {
                return Err(SnapshotError::Ended);
            }
            let target = self.target.join(path);
            match what {
                What::Directory { .. } => make_directory(&target)?,
                What::Link { target: leads_to } => {
                    remove_file(&target)?;
                    symlink(OsStr::from_bytes(leads_to), &target)
                        .doing("create the link", &target)?;
                }
                What::File { stamp, .. } if is_in(copied, path, stamp) => {}
                What::File { stamp, .. } => {
                    remove_file(&target)?;
                    let digest = self.take(path, stamp)?;
                    if digest.is_none() {
                        unsettled = Some(path.clone());
                    }
                    copied.extend(digest.map(|digest| (path.clone(), (*stamp, digest))));
                }
            }
        }
        Ok(unsettled)
    }

    /// Copies one file; `None`: it was written to meanwhile, or may be within the same tick of the
    /// clock, unseen.
    fn take(&self, path: &Path, stamp: &FileStamp) -> Result<Option<Digest>, SnapshotError> {
        let begun = SystemTime::now();
        if !is_settled(stamp, begun) {
            return Ok(None);
        }
        let (source, target) = (self.state.join(path), self.target.join(path));
        if let Some(digest) = self.snapshots.known(stamp)
            && let Some(twin) = self.snapshots.twin(self.before, path, digest)
            && fs::hard_link(twin, &target).is_ok()
        {
            return Ok(Some(digest));
        }
        let taken = match copy::copy(&source, &target, self.is_over) {
            Err(CopyError::Source(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(CopyError::Source(error) | CopyError::Target(error)) => return Err(error.into()),
            Err(CopyError::Ended) => return Err(SnapshotError::Ended),
            Ok(taken) => taken,
        };
        if taken.stamp != Some(*stamp) {
            return Ok(None);
        }
        if let Some(digests) = &self.snapshots.digests {
            digests.remember(stamp, taken.digest, begun);
        }
        Ok(Some(taken.digest))
    }
}

fn is_in(copied: &Copied, path: &Path, stamp: &FileStamp) -> bool {
    copied.get(path).is_some_and(|(before, _)| before == stamp)
}

fn make_directory(path: &Path) -> Result<(), IoError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.doing("create the folder", path),
    }
}

fn digest_of(path: &Path) -> Result<Digest, SnapshotError> {
    let taken = copy::digest(path)?;
    let is_stable = taken.stamp.is_some();
    is_stable.then_some(taken.digest).ok_or_else(|| SnapshotError::Changing { path: path.into() })
}

/// Whether the clock has moved on since a file was changed, so that a change to come is seen. A
/// file of a machine whose clock is ahead tells nothing of that.
fn is_settled(stamp: &FileStamp, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ns = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
    (now_ns - stamp.changed_ns).unsigned_abs() >= CLOCK_TICK_MAX.as_nanos()
}

/// Removes from a copy what is not there any more, or is something else.
fn remove_gone(
    target: &Path,
    before: &[Listed],
    now: &[Listed],
    copied: &mut Copied,
) -> Result<(), IoError> {
    let kinds: BTreeMap<&Path, _> = now
        .iter()
        .map(|listed| (listed.path.as_path(), std::mem::discriminant(&listed.what)))
        .collect();
    for Listed { path, what } in before.iter().rev() {
        if kinds.get(path.as_path()) == Some(&std::mem::discriminant(what)) {
            continue;
        }
        copied.remove(path);
        let place = target.join(path);
        match what {
            What::Directory { .. } => remove_all(&place)?,
            What::File { .. } | What::Link { .. } => remove_file(&place)?,
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), IoError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.doing("remove", path),
    }
}

/// Puts a link to `twin` in the place of `own`, which holds the same. Where there can be no link,
/// `own` stays.
fn link_over(twin: &Path, own: &Path) -> Result<(), IoError> {
    let temporary = files::fresh_name(files::parent_of(own));
    if fs::hard_link(twin, &temporary).is_err() {
        return Ok(());
    }
    let linked = fs::rename(&temporary, own).doing("make", own);
    // When both were one file already, the rename did nothing.
    remove_file(&temporary)?;
    linked
}

/// What is known of a directory's files, where their digests are.
fn entries(listed: Vec<Listed>, digest: impl Fn(&Path) -> Option<Digest>) -> Vec<Entry> {
    let entry = |Listed { path, what }| {
        let node = match what {
            What::Directory { mode } => Node::Directory { mode },
            What::Link { target } => Node::Link { target },
            What::File { mode, modified, stamp } => {
                Node::File { digest: digest(&path)?, bytes: stamp.size, mode, modified }
            }
        };
        Some(Entry { path, node })
    };
    listed.into_iter().filter_map(entry).collect()
}
