//! What is in a directory at one moment: names, modes, stamps.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use keelboat_engine::FileStamp;

use crate::digests::stamp_of;
use crate::error::{IoContext as _, IoError};

/// One thing in a directory, at any depth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Relative.
    pub(super) path: PathBuf,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Directory {
        mode: u32,
    },
    File {
        mode: u32,
        /// Seconds and nanoseconds since 1970.
        modified: (i64, u32),
        stamp: FileStamp,
    },
    Link {
        target: Vec<u8>,
    },
}

/// Whether somebody works in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Its task runs: things come and go, and modes are left alone.
    Shared,
    /// Nobody: what its task made unreadable is made readable.
    Ours,
}

/// All that is in a directory, each directory before what is in it, by name. Sockets, pipes and
/// devices are left out.
pub(super) fn list(root: &Path, access: Access) -> Result<Vec<Listed>, IoError> {
    let mut listed = Vec::new();
    // Paths of directories that are to be read, the next one last.
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let place = root.join(&directory);
        if access == Access::Ours {
            let metadata = fs::symlink_metadata(&place).doing("look at", &place)?;
            make_usable(&place, &metadata, 0o700)?;
        }
        let names = fs::read_dir(&place)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let mut names: Vec<_> =
            names_that_are_there(names, access).doing("read the folder", &place)?;
        names.sort();
        for name in names {
            let path = directory.join(name);
            if let Some(what) = look(&root.join(&path), access)? {
                if matches!(what, What::Directory { .. }) {
                    open.push(path.clone());
                }
                listed.push(Listed { path, what });
            }
        }
    }
    // A directory stands before what is in it, since its path is the beginning of theirs.
    listed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listed)
}

/// A directory that is gone has nothing in it, if its task may have removed it.
fn names_that_are_there<T>(names: io::Result<Vec<T>>, access: Access) -> io::Result<Vec<T>> {
    match names {
        Err(error) if error.kind() == io::ErrorKind::NotFound && access == Access::Shared => {
            Ok(Vec::new())
        }
        names => names,
    }
}

fn look(path: &Path, access: Access) -> Result<Option<What>, IoError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.doing("look at", path)?,
    };
    let mode = metadata.mode() & 0o7777;
    if metadata.is_dir() {
        return Ok(Some(What::Directory { mode }));
    }
    if metadata.is_symlink() {
        return Ok(match fs::read_link(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            target => {
                let target = target.doing("read the link", path)?;
                Some(What::Link { target: target.as_os_str().as_bytes().to_vec() })
            }
        });
    }
    if !metadata.is_file() {
        return Ok(None);
    }
    if access == Access::Ours {
        make_usable(path, &metadata, 0o400)?;
    }
    let nanos = u32::try_from(metadata.mtime_nsec()).unwrap_or_default();
    let modified = (metadata.mtime(), nanos);
    Ok(Some(What::File { mode, modified, stamp: stamp_of(&metadata) }))
}

/// Adds what of `needed` is missing from a mode.
fn make_usable(path: &Path, metadata: &Metadata, needed: u32) -> Result<(), IoError> {
    let mode = metadata.mode() & 0o7777;
    if mode & needed == needed {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode | needed)).doing("make readable", path)
}
