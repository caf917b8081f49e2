//! The object cache: files and directories by the digest of what they hold.
//!
//! Objects share their bytes with published outputs where the file system allows it (reflink, else
//! hard link), are read-only, and are checked before each use: by stamp when the digest cache knows
//! the file, else by reading it. A damaged one is moved to `damaged/`, named, and never used.
//!
//! Deliberately absent: what is worth keeping (the caller decides, see [`ObjectCache::gc`]) and
//! links into scratch directories.

mod evict;
mod place;
mod recency;
mod tree;
mod upkeep;

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keelboat_engine::{Content, Digest, Kind};

pub use upkeep::{BadObject, CacheStats, GcPolicy, GcReport, VerifyReport};

use self::recency::Recency;
use crate::digests::{DigestCache, stamp_of};
use crate::error::{IoContext as _, IoError};
use crate::files;

/// Larger files are restored by hard link where reflinks are not possible, smaller ones copied.
pub const COPY_BYTES_MAX: u64 = 4 << 20;

/// Why an object cannot be kept or had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The object is not what its name says. It is not in the cache any more.
    #[error(
        "the object {digest} was damaged and is set aside as {}: {what}", quarantined.display()
    )]
    Damaged {
        /// What it should have been.
        digest: Digest,
        /// Where it is now.
        quarantined: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What is to be kept does not hold what the caller says.
    #[error("{} does not hold what was recorded: expected {expected}, found {found}", path.display())]
    Mismatch {
        /// The file or directory.
        path: PathBuf,
        /// What was recorded.
        expected: Digest,
        /// What it holds.
        found: Digest,
    },
    /// Neither file, directory nor link, or not the kind that was declared.
    #[error("{} is {found}: expected {expected}", path.display())]
    WrongKind {
        /// What is there.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// A file was written to while it was read.
    #[error("{} changed while it was read", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
}

impl ObjectError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io(error) => error.hint(),
            Self::Damaged { .. } => {
                Some("nothing is lost: the task runs again; check the disk if this happens often")
            }
            Self::Mismatch { .. } | Self::Changing { .. } => {
                Some("something writes to an output after its task has ended: find out what")
            }
            Self::WrongKind { .. } => Some("outputs are regular files, directories or links"),
        }
    }

    /// Whether what was to be kept is not what the caller said, or does not stay so. Then the cache
    /// is well, but the file must not be taken for a result.
    pub const fn blames_source(&self) -> bool {
        match self {
            Self::Mismatch { .. } | Self::WrongKind { .. } | Self::Changing { .. } => true,
            Self::Io(_) | Self::Damaged { .. } => false,
        }
    }
}

/// How something came into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It was there, and whole.
    AlreadyThere,
    /// A reflink: shares the bytes, not the file.
    Reflinked,
    /// A hard link: shares the file, which is read-only now.
    Linked,
    /// A copy.
    Copied,
    /// Moved.
    Moved,
    /// A directory of this many files.
    Tree {
        /// How many files.
        files: u64,
    },
}

/// What is to come back, as it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restore {
    /// What it held.
    pub content: Content,
    /// Whether a file could be [executed](is_executable). Objects are shared by all files with the
    /// same bytes, so they cannot tell; directories know it of each of their files.
    pub executable: bool,
}

/// How something came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// A reflink.
    Reflinked,
    /// A hard link to the object: read-only.
    Linked,
    /// A copy.
    Copied,
    /// A directory of this many files.
    Tree {
        /// How many files.
        files: u64,
    },
}

/// The object cache of one project. Call it from any thread.
#[derive(Debug)]
pub struct ObjectCache {
    root: PathBuf,
    damaged: PathBuf,
    digests: Arc<DigestCache>,
    recency: Mutex<Recency>,
    /// Until the file system refuses one.
    try_reflink: AtomicBool,
}

impl ObjectCache {
    /// Opens the cache in a state directory (`.keelboat`), and makes its folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(state_dir: &Path, digests: Arc<DigestCache>) -> Result<Self, IoError> {
        let root = state_dir.join("objects");
        files::create_folder(&root)?;
        Ok(Self {
            recency: Mutex::new(Recency::at(root.join("used"))),
            damaged: state_dir.join("damaged"),
            root,
            digests,
            try_reflink: AtomicBool::new(true),
        })
    }

    /// Keeps what `path` holds, which the caller knows to be `content`; this is checked by stamp or
    /// by reading. A file that can only be hard-linked becomes read-only.
    ///
    /// # Errors
    /// When `path` holds something else or cannot be read, or the cache cannot be written.
    pub fn insert(&self, path: &Path, content: &Content) -> Result<Inserted, ObjectError> {
        let inserted = match content.kind {
            Kind::File => self.insert_file(path, content)?,
            Kind::Directory => self.insert_tree(path, content)?,
        };
        self.touch(content.digest);
        Ok(inserted)
    }

    /// Keeps a file by moving it into the cache. When the object is there already, the file is
    /// removed.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_by_move(&self, path: &Path, content: &Content) -> Result<Inserted, ObjectError> {
        let inserted = match content.kind {
            Kind::File => self.move_file(path, content)?,
            Kind::Directory => {
                let inserted = self.insert_tree(path, content)?;
                fs::remove_dir_all(path).doing("remove", path)?;
                inserted
            }
        };
        self.touch(content.digest);
        Ok(inserted)
    }

    /// Puts an object in its place, whole or not at all, and makes the folders above it. What
    /// stood there is replaced. `None`: the cache does not have it.
    ///
    /// # Errors
    /// When the object was damaged, or `dest` cannot be written.
    pub fn restore(&self, what: &Restore, dest: &Path) -> Result<Option<Restored>, ObjectError> {
        let parent = files::parent_of(dest);
        fs::create_dir_all(parent).doing("create the folder", parent)?;
        let restored = match what.content.kind {
            Kind::File => self.restore_file(what, dest)?,
            Kind::Directory => self.restore_tree(&what.content.digest, dest)?,
        };
        if restored.is_some() {
            self.touch(what.content.digest);
        }
        Ok(restored)
    }

    /// Where a file object stands, checked. `None`: the cache does not have it. Whoever makes a hard
    /// link to it should [carry](DigestCache::carry) its digest over.
    ///
    /// # Errors
    /// When the object was damaged, or cannot be read.
    pub fn object_path(&self, digest: &Digest) -> Result<Option<PathBuf>, ObjectError> {
        let path = self.path_of(digest);
        if self.checked(digest, &path)?.is_none() {
            return Ok(None);
        }
        self.touch(*digest);
        Ok(Some(path))
    }

    /// Where a file object with this digest stands or would stand; nothing is looked at.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        let (shard, name) = hex.split_at(2);
        self.root.join(shard).join(name)
    }

    /// Whether the cache has all of it. Checks stamps and manifests.
    ///
    /// # Errors
    /// When it was damaged, or cannot be read.
    pub fn has(&self, digest: &Digest, kind: Kind) -> Result<bool, ObjectError> {
        match kind {
            Kind::File => Ok(self.checked(digest, &self.path_of(digest))?.is_some()),
            Kind::Directory => self.has_tree(digest),
        }
    }

    /// Notes on disk which objects were used, for a later [`gc`](Self::gc).
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn save(&self) -> Result<(), IoError> {
        self.recency().save()
    }

    /// The metadata of a file object that is whole; `None`: it is not there.
    fn checked(&self, digest: &Digest, path: &Path) -> Result<Option<Metadata>, ObjectError> {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.doing("look at", path)?,
        };
        if !metadata.is_file() {
            return Err(self.quarantine(digest, path, "it is not a regular file"));
        }
        if self.digests.lookup(&stamp_of(&metadata)) == Some(*digest) {
            return Ok(Some(metadata));
        }
        let found = place::hash_file(path, &self.digests)?;
        if found == *digest {
            return Ok(Some(metadata));
        }
        Err(self.quarantine(digest, path, &format!("it holds {found}")))
    }

    /// Moves a damaged object out of the way; when that fails too, removes it. What its stamp
    /// promised is forgotten: the file may be a published output, too.
    fn quarantine(&self, digest: &Digest, path: &Path, what: &str) -> ObjectError {
        let quarantined = self.move_aside(digest, path, what);
        ObjectError::Damaged { digest: *digest, quarantined, what: what.to_owned() }
    }

    fn move_aside(&self, digest: &Digest, path: &Path, what: &str) -> PathBuf {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            self.digests.forget(&stamp_of(&metadata));
        }
        let name = digest.to_hex();
        let mut quarantined = self.damaged.join(&name);
        for number in 1..1000 {
            if fs::symlink_metadata(&quarantined).is_err() {
                break;
            }
            quarantined = self.damaged.join(format!("{name}.{number}"));
        }
        let moved = files::create_folder(&self.damaged)
            .and_then(|()| fs::rename(path, &quarantined).doing("set aside", path));
        if let Err(error) = moved {
            tracing::error!(%digest, %error, "a damaged object cannot be set aside");
            files::discard(path);
        }
        tracing::warn!(%digest, what, quarantined = %quarantined.display(), "damaged object");
        quarantined
    }

    fn touch(&self, digest: Digest) {
        self.recency().touch(digest);
    }

    fn recency(&self) -> MutexGuard<'_, Recency> {
        self.recency.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Saves as well as it can.
impl Drop for ObjectCache {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "cannot note which objects were used");
        }
    }
}

/// Whether this is a regular file that its owner can execute: what records say of an output.
pub fn is_executable(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o100 != 0
}
