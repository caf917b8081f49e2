//! The side of this machine: which local paths a collection shows, and a place below them for files
//! that belong elsewhere.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use keelboat_engine::{Digest, Digester, Kind};
use walkdir::WalkDir;

use super::LocalCollection;
use super::address::{Place, is_id};
use super::record::AGE_MAX;
use super::tokens::local;
use crate::local::{sibling, sweep_once};
use crate::protocol::TransferError;

/// Below a mapped directory: what is on its way from or to a path that no collection shows.
const STAGING_DIR: &str = ".keelboat-globus";

/// All mapped directories of this machine.
#[derive(Debug)]
pub(super) struct Ground {
    /// Those whose directories are there.
    collections: Vec<LocalCollection>,
    /// Those whose directories are not, and why: only their addresses are of no use.
    absent: Vec<(LocalCollection, String)>,
}

/// What settings say of a collection of this machine.
const SETTING: &str = "[[globus.collections]] with id = \"11111111-2222-4333-8444-555555555555\", \
                       path = \"/data\" (a directory here) and root = \"/\" (the same on the \
                       collection)";

/// Where Globus reads or writes for an errand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// On this machine.
    pub(super) path: PathBuf,
    /// On the local collection.
    pub(super) place: Place,
    /// Whether it is in the staging directory, and not where the errand wants it.
    pub(super) is_staged: bool,
}

impl Ground {
    /// # Errors
    /// A collection without an id, or without a path.
    pub(super) fn new(collections: &[LocalCollection]) -> Result<Self, TransferError> {
        let mut ground = Self { collections: Vec::new(), absent: Vec::new() };
        for given in collections {
            let refused = |found: String| TransferError::Refused {
                found,
                hint: format!("write into keelboat.toml: {SETTING}"),
            };
            if !is_id(&given.collection) {
                return Err(refused(format!("{:?} is no id of a collection", given.collection)));
            }
            let is_plain = given.path.starts_with('/') && !given.path.split('/').any(|p| p == "..");
            if !is_plain {
                return Err(refused(format!("{:?} is no path on a collection", given.path)));
            }
            let collection = given.collection.to_ascii_lowercase();
            let one = LocalCollection { collection, ..given.clone() };
            match given.root.canonicalize() {
                Ok(root) => ground.collections.push(LocalCollection { root, ..one }),
                Err(error) => ground.absent.push((one, error.to_string())),
            }
        }
        Ok(ground)
    }

    /// Removes what transfers that nobody took up again have left in the staging directories.
    pub(super) fn sweep(&self, now: SystemTime) {
        for one in &self.collections {
            let Ok(entries) = fs::read_dir(one.root.join(STAGING_DIR)) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                let age = modified.ok().and_then(|modified| now.duration_since(modified).ok());
                if age.is_some_and(|age| age > AGE_MAX) {
                    remove(&entry.path());
                }
            }
        }
    }

    /// The local path of a place, if it is of this machine.
    ///
    /// # Errors
    /// It is of this machine, and the directory of its collection is not there.
    pub(super) fn path_of(&self, place: &Place) -> Result<Option<PathBuf>, TransferError> {
        let here = self.collections.iter().map(|one| (one, None));
        let absent = self.absent.iter().map(|(one, cause)| (one, Some(cause)));
        let of_it = here.chain(absent).filter(|(one, _)| one.collection == place.collection);
        let below = of_it.filter_map(|(one, cause)| {
            let rest = place.path.strip_prefix(one.path.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then_some((one, rest, cause))
        });
        match below.max_by_key(|(one, ..)| one.path.len()) {
            None => Ok(None),
            Some((one, rest, None)) => Ok(Some(one.root.join(rest.trim_start_matches('/')))),
            Some((one, _, Some(cause))) => Err(not_there(one, cause)),
        }
    }

    /// Where Globus reads or writes what belongs at `path`, whose directory exists.
    pub(super) fn spot(&self, path: &Path, address: &str) -> Result<Spot, TransferError> {
        if let Some((path, place)) = self.shown(path) {
            return Ok(Spot { path, place, is_staged: false });
        }
        let Some(first) = self.collections.first() else {
            return Err(match self.absent.first() {
                Some((one, cause)) => not_there(one, cause),
                None => TransferError::Refused {
                    found: "there is no Globus collection of this machine to transfer to or from"
                        .into(),
                    hint: format!(
                        "run Globus Connect Personal or Server here, and write into keelboat.toml \
                         what it shows: {SETTING}"
                    ),
                },
            });
        };
        // The same for the same errand in a later life.
        let text = format!("{address}\n{}", path.display());
        let name: String = Digest::of(text.as_bytes()).to_hex().chars().take(32).collect();
        let dir = first.root.join(STAGING_DIR);
        fs::create_dir_all(&dir).map_err(|error| local(&dir, "create", &error))?;
        let above = first.path.trim_end_matches('/');
        let place = Place {
            collection: first.collection.clone(),
            path: format!("{above}/{STAGING_DIR}/{name}"),
        };
        Ok(Spot { path: dir.join(name), place, is_staged: true })
    }

    /// The path without links, and where a collection shows it.
    fn shown(&self, path: &Path) -> Option<(PathBuf, Place)> {
        let path = path.parent()?.canonicalize().ok()?.join(path.file_name()?);
        let below = self.collections.iter().filter_map(|one| {
            let rest = path.strip_prefix(&one.root).ok()?.to_str()?;
            let is_plain = !rest.is_empty() && !rest.contains(char::is_control);
            let place = Place {
                collection: one.collection.clone(),
                path: format!("{}/{rest}", one.path.trim_end_matches('/')),
            };
            is_plain.then_some((one.root.as_os_str().len(), place))
        });
        let (_, place) = below.max_by_key(|(length, _)| *length)?;
        Some((path, place))
    }
}

/// Whether something of this kind is there.
pub(super) fn is_there(path: &Path, kind: Kind) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| match kind {
        Kind::File => metadata.is_file(),
        Kind::Directory => metadata.is_dir(),
    })
}

/// Tells versions of a local file or directory apart, by size, time and inode.
pub(super) fn stamp(path: &Path, kind: Kind) -> Result<String, TransferError> {
    if !is_there(path, kind) {
        return Err(TransferError::Local {
            class: keelboat_engine::FailureClass::Permanent,
            found: format!("there is no {} at {}", kind_name(kind), path.display()),
            hint: "check the path".into(),
        });
    }
    let mut digester = Digester::new();
    for entry in WalkDir::new(path).sort_by_file_name() {
        let walked = entry.and_then(|entry| entry.metadata().map(|metadata| (entry, metadata)));
        let (entry, metadata) =
            walked.map_err(|error| local(path, "read", &io::Error::other(error)))?;
        let (size, inode) = (metadata.size(), metadata.ino());
        let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
        let name = entry.path().display();
        let line = format!("{name}\n{size} {inode} {seconds}.{nanos:09}\n");
        digester.update(line.as_bytes());
    }
    Ok(digester.finish().to_hex())
}

/// Moves what has come to its place, to another file system too.
pub(super) fn move_to(from: &Path, to: &Path) -> Result<(), TransferError> {
    match fs::rename(from, to) {
        // Somebody with the same errand was faster.
        Err(error) if error.kind() == ErrorKind::NotFound && to.symlink_metadata().is_ok() => {
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            copy_to(from, to)?;
            remove(from);
            Ok(())
        }
        other => other.map_err(|error| local(to, "write", &error)),
    }
}

/// Copies a file or a directory, so that nothing shows at `to` before all is there.
pub(super) fn copy_to(from: &Path, to: &Path) -> Result<(), TransferError> {
    if let Some(parent) = to.parent() {
        sweep_once(parent);
    }
    let beside = sibling(to);
    let copied = copy_tree(from, &beside).and_then(|()| fs::rename(&beside, to));
    if copied.is_err() {
        remove(&beside);
    }
    copied.map_err(|error| local(to, "write", &error))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in WalkDir::new(from) {
        let entry = entry.map_err(io::Error::other)?;
        let below = entry.path().strip_prefix(from).map_err(io::Error::other)?;
        let target = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
        let kind = entry.file_type();
        if kind.is_dir() {
            fs::create_dir(&target)?;
        } else if kind.is_file() {
            reflink_copy::reflink_or_copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

pub(super) fn remove(path: &Path) {
    if let Err(error) = crate::local::remove_tree(path) {
        tracing::debug!(path = %path.display(), %error, "it stays");
    }
}

pub(super) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
    }
}

fn not_there(one: &LocalCollection, cause: &str) -> TransferError {
    let (root, collection) = (one.root.display(), &one.collection);
    TransferError::Refused {
        found: format!("the directory {root} of collection {collection} cannot be used: {cause}"),
        hint:
            "make it, or mend `path` of this collection in [[globus.collections]] (keelboat.toml)"
                .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaa-0000-4000-8000-00000000000b";

    fn ground(dir: &Path, path: &str) -> Ground {
        let collection = ID.to_owned();
        let path = path.to_owned();
        Ground::new(&[LocalCollection { collection, root: dir.to_owned(), path }]).unwrap()
    }

    #[test]
    fn local_paths_are_found_on_the_collection_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let ground = ground(&root, "/data/");
        let spot = ground.spot(&root.join("x"), "globus://r/x").unwrap();
        assert_eq!((spot.place.path.as_str(), spot.is_staged), ("/data/x", false));
        assert_eq!(ground.path_of(&spot.place), Ok(Some(root.join("x"))));
        let elsewhere = Place { collection: ID.into(), path: "/database/x".into() };
        assert_eq!(ground.path_of(&elsewhere), Ok(None));
    }

    #[test]
    fn what_no_collection_shows_is_staged_under_a_name_that_stays() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ground = ground(dir.path(), "/");
        let of = |name: &str| ground.spot(&other.path().join(name), "globus://r/x").unwrap();
        assert!(of("a").is_staged && of("a") == of("a") && of("a") != of("b"));
        assert!(of("a").place.path.starts_with("/.keelboat-globus/"));
        std::os::unix::fs::symlink(dir.path(), other.path().join("link")).unwrap();
        assert_eq!(of("link/a").place.path, "/a", "by way of a link");
    }

    #[test]
    fn what_was_left_on_its_way_goes_when_it_is_old() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ground = ground(dir.path(), "/");
        let spot = ground.spot(&other.path().join("a"), "globus://r/x").unwrap();
        fs::write(&spot.path, b"x").unwrap();
        fs::write(dir.path().join("b"), b"x").unwrap();
        ground.sweep(SystemTime::now());
        assert!(spot.path.exists());
        ground.sweep(SystemTime::now() + AGE_MAX * 2);
        assert!(!spot.path.exists() && dir.path().join("b").exists());
    }

    #[test]
    fn without_a_collection_of_this_machine_the_error_says_what_to_do() {
        let ground = Ground::new(&[]).unwrap();
        let error = ground.spot(Path::new("/tmp/x"), "globus://r/x").unwrap_err();
        assert!(error.hint().contains("Globus Connect"), "{error}");
        assert!(error.hint().contains("[[globus.collections]]"), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_fault_of_its_collection_alone() {
        const OTHER: &str = "22222222-2222-4333-8444-555555555555";
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let one = |collection: &str, root: PathBuf| LocalCollection {
            collection: collection.into(),
            root,
            path: "/".into(),
        };
        let gone = one(OTHER, root.join("gone"));
        let ground = Ground::new(&[gone.clone(), one(ID, root.clone())]).unwrap();
        let place = |id: &str| Place { collection: id.into(), path: "/x".into() };
        assert_eq!(ground.path_of(&place(ID)), Ok(Some(root.join("x"))));
        let told = |error: TransferError| format!("{error}; {}", error.hint());
        let error = told(ground.path_of(&place(OTHER)).unwrap_err());
        for part in [OTHER, "/gone", "No such file", "[[globus.collections]]"] {
            assert!(error.contains(part), "{error}");
        }
        let spot = ground.spot(&root.join("x"), "globus://r/x").unwrap();
        assert_eq!(spot.place.collection, ID);
        let alone = Ground::new(&[gone]).unwrap();
        let error = told(alone.spot(&root.join("x"), "globus://r/x").unwrap_err());
        assert!(error.contains("/gone"), "{error}");
    }

    #[test]
    fn stamps_change_with_what_is_below() {
        let dir = tempfile::tempdir().unwrap();
        let of = || stamp(dir.path(), Kind::Directory).unwrap();
        let before = of();
        fs::write(dir.path().join("a"), b"1").unwrap();
        assert_ne!(of(), before);
        assert!(stamp(dir.path(), Kind::File).is_err());
    }
}
