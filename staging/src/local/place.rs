//! Making an input appear in a scratch directory so that a task which writes to it harms nobody.
//!
//! A reflink where the file system can, a copy elsewhere; never a link. A hard link would be
//! cheaper, but a mode does not keep the owner or root from writing through it, and to find that
//! out costs reading as much as a copy does.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path};

use keelboat_engine::{Content, Digest, Kind};
use walkdir::WalkDir;

use super::digest::{check_kind, digest_path, walk_error};
use super::{DigestMemory, LocalError};

/// Up to here bytes are copied through memory.
const COPY_BYTES_MAX: u64 = 4 << 20;

/// One input on its way into a scratch directory.
#[derive(Debug, Clone, Copy)]
pub struct Placement<'a> {
    /// Where its bytes are.
    pub source: &'a Path,
    /// What they are known to be.
    pub content: &'a Content,
    /// The name under which they appear, relative to the scratch directory.
    pub name: &'a str,
}

pub(super) fn place(
    placement: &Placement<'_>,
    destination: &Path,
    memory: &dyn DigestMemory,
) -> Result<(), LocalError> {
    let Placement { source, content, name } = *placement;
    let metadata = source.metadata().map_err(|error| LocalError::io("find", source, error))?;
    check_kind(source, &metadata, content.kind)?;
    let taken = |error: LocalError| match &error {
        LocalError::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
            LocalError::Collision { name: name.to_owned() }
        }
        _ => error,
    };
    match content.kind {
        Kind::File => place_file(placement, &metadata, destination, memory).map_err(taken),
        Kind::Directory => {
            place_tree(source, destination).map_err(taken)?;
            // From memory, mostly: proves that nothing changed up to the end of the copying.
            let now = digest_path(source, Kind::Directory, memory, false)?;
            check_digest(source, content.digest, now.digest)
        }
    }
}

fn place_file(
    placement: &Placement<'_>,
    metadata: &Metadata,
    destination: &Path,
    memory: &dyn DigestMemory,
) -> Result<(), LocalError> {
    let Placement { source, content, .. } = *placement;
    if metadata.size() <= COPY_BYTES_MAX {
        return copy_small(source, metadata, destination, content.digest);
    }
    if !try_reflink(source, metadata, destination)? {
        copy(source, destination)?;
    }
    let mode = Permissions::from_mode(mode_of_input(metadata));
    fs::set_permissions(destination, mode)
        .map_err(|error| LocalError::io("write", destination, error))?;
    let now = digest_path(source, Kind::File, memory, false)?;
    check_digest(source, content.digest, now.digest)
}

/// The mode of a copy: what the source may be used for, and writable, since it is the task's own.
fn mode_of_input(metadata: &Metadata) -> u32 {
    (metadata.mode() & 0o777) | 0o200
}

fn check_digest(path: &Path, expected: Digest, found: Digest) -> Result<(), LocalError> {
    if expected == found {
        return Ok(());
    }
    Err(LocalError::Mismatch { path: path.to_owned(), expected, found })
}

/// Copies through memory, which proves the digest of the very bytes that are written.
fn copy_small(
    source: &Path,
    metadata: &Metadata,
    destination: &Path,
    expected: Digest,
) -> Result<(), LocalError> {
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.size() + 1).unwrap_or_default());
    let file = File::open(source).map_err(|error| LocalError::io("open", source, error))?;
    let limited = file.take(COPY_BYTES_MAX + 1).read_to_end(&mut bytes);
    limited.map_err(|error| LocalError::io("read", source, error))?;
    check_digest(source, expected, Digest::of(&bytes))?;
    let mut options = File::options();
    options.write(true).create_new(true).mode(mode_of_input(metadata));
    let written = options.open(destination).and_then(|mut file| file.write_all(&bytes));
    written.map_err(|error| LocalError::io("write", destination, error))
}

/// Whether the file system made a copy that shares its blocks.
pub(super) fn try_reflink(
    source: &Path,
    metadata: &Metadata,
    destination: &Path,
) -> Result<bool, LocalError> {
    match reflink_copy::reflink(source, destination) {
        Ok(()) => {
            let permissions = metadata.permissions();
            fs::set_permissions(destination, permissions)
                .map_err(|error| LocalError::io("write", destination, error))?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(LocalError::io("write", destination, error))
        }
        Err(_) => Ok(false),
    }
}

/// Copies a file with its mode, inside the kernel. The destination must not exist.
pub(super) fn copy(source: &Path, destination: &Path) -> Result<(), LocalError> {
    if destination.symlink_metadata().is_ok() {
        let error = io::Error::from(ErrorKind::AlreadyExists);
        return Err(LocalError::io("write", destination, error));
    }
    fs::copy(source, destination).map_err(|error| LocalError::io("copy", source, error))?;
    Ok(())
}

/// Copies a directory; never links, so that nothing in it needs a guard.
pub(crate) fn place_tree(source: &Path, destination: &Path) -> Result<(), LocalError> {
    for entry in WalkDir::new(source).follow_root_links(true) {
        let entry = entry.map_err(|error| walk_error(source, error))?;
        let below = entry.path().strip_prefix(source).unwrap_or_else(|_| entry.path());
        let target = if below.as_os_str().is_empty() {
            destination.to_owned()
        } else {
            destination.join(below)
        };
        let metadata = match entry.depth() {
            0 => entry.path().metadata().map_err(|error| LocalError::io("find", source, error))?,
            _ => entry.metadata().map_err(|error| walk_error(source, error))?,
        };
        if metadata.is_dir() {
            fs::create_dir(&target).map_err(|error| LocalError::io("create", &target, error))?;
        } else if metadata.is_symlink() {
            place_symlink(entry.path(), below, &target)?;
        } else if metadata.is_file() {
            let reflinked =
                metadata.size() > COPY_BYTES_MAX && try_reflink(entry.path(), &metadata, &target)?;
            if !reflinked {
                copy(entry.path(), &target)?;
            }
        }
    }
    Ok(())
}

/// A link is kept as it is; what it leads to must be part of the directory, since only that was
/// verified.
fn place_symlink(link: &Path, below: &Path, target: &Path) -> Result<(), LocalError> {
    let to = fs::read_link(link).map_err(|error| LocalError::io("read", link, error))?;
    if !leads_inside(below.components().count() - 1, &to) {
        let name = format!("{} -> {}", link.display(), to.display());
        return Err(LocalError::Escapes { name });
    }
    std::os::unix::fs::symlink(&to, target).map_err(|error| LocalError::io("create", target, error))
}

/// Whether a link in a directory `depth` levels below the root of a tree leads to what is in the
/// tree. `..` may stand only at its beginning: after another part it may go up from where a further
/// link leads.
pub(crate) fn leads_inside(depth: usize, target: &Path) -> bool {
    let mut up = 0;
    let mut down = false;
    target.components().all(|part| match part {
        Component::Normal(_) => {
            down = true;
            true
        }
        Component::CurDir => true,
        Component::ParentDir => {
            up += 1;
            !down && up <= depth
        }
        Component::RootDir | Component::Prefix(_) => false,
    })
}
