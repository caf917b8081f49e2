//! Looking at what a task left at one declared output, in its scratch directory.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keelboat_engine::{Content, Kind, OutputSpec, Stream};
use walkdir::WalkDir;

use super::digest::{check_kind, digest_path, hash_open_file, open_regular, walk_error};
use super::place::{copy, place_tree};
use super::{Forgetful, LocalError, PublishError};

/// The content of an output that is ready to be moved; `None`: optional, and not there.
///
/// Whatever shares its bytes with another name (a link to an input, say) was replaced by a copy:
/// a published file must not be one that the cache or another task can reach.
pub(super) fn inspect(
    scratch: &Path,
    output: &OutputSpec,
) -> Result<Option<Content>, PublishError> {
    let path = scratch.join(&*output.scratch_path);
    let label = || output.label.to_string();
    let local = |source| PublishError::Local { label: label(), source };
    check_way(scratch, output)?;
    if output.kind == Kind::File
        && let Ok((file, stamp)) = open_regular(&path, libc::O_NOFOLLOW)
        && file.metadata().is_ok_and(|found| found.nlink() == 1)
    {
        let (digest, bytes) = hash_open_file(&file, &stamp, &path).map_err(local)?;
        return Ok(Some(Content { digest, bytes, kind: Kind::File }));
    }
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let missing = || PublishError::Missing {
                label: label(),
                scratch_path: output.scratch_path.to_string(),
            };
            return if output.optional { Ok(None) } else { Err(missing()) };
        }
        Err(error) => return Err(local(LocalError::io("find", &path, error))),
    };
    if metadata.is_symlink() {
        resolve(scratch, &path, output)?;
    } else {
        check_kind(&path, &metadata, output.kind).map_err(local)?;
        detach(&path).map_err(local)?;
    }
    digest_path(&path, output.kind, &Forgetful, true).map(Some).map_err(local)
}

/// Makes what a command printed, as it stands in its log, an output in its scratch directory.
///
/// # Errors
/// Something stands in its place, the way there leads out of the scratch directory, or it cannot be
/// written.
pub fn capture(
    scratch: &Path,
    output: &OutputSpec,
    stream: Stream,
    log: &Path,
) -> Result<(), PublishError> {
    check_way(scratch, output)?;
    let path = scratch.join(&*output.scratch_path);
    let local = |action, path: &Path, error| {
        let source = LocalError::io(action, path, error);
        PublishError::Local { label: output.label.to_string(), source }
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| local("create", parent, error))?;
    }
    let mut printed = File::open(log).map_err(|error| local("open", log, error))?;
    let mut file = match File::create_new(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let scratch_path = output.scratch_path.to_string();
            return Err(PublishError::Written { scratch_path, stream: stream.name() });
        }
        Err(error) => return Err(local("create", &path, error)),
    };
    io::copy(&mut printed, &mut file).map_err(|error| local("write", &path, error))?;
    Ok(())
}

/// A directory on the way to an output that is a link leads to what the task does not own.
fn check_way(scratch: &Path, output: &OutputSpec) -> Result<(), PublishError> {
    let mut way = scratch.to_path_buf();
    let directories = Path::new(&*output.scratch_path).parent();
    for part in directories.into_iter().flat_map(Path::components) {
        way.push(part);
        if way.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            let target = fs::read_link(&way).unwrap_or_default();
            return Err(PublishError::LinkOutside {
                label: output.label.to_string(),
                scratch_path: output.scratch_path.to_string(),
                target: target.display().to_string(),
            });
        }
    }
    Ok(())
}

/// Replaces a symbolic link by a copy of what it leads to, inside of the scratch directory.
fn resolve(scratch: &Path, path: &Path, output: &OutputSpec) -> Result<(), PublishError> {
    let local = |source| PublishError::Local { label: output.label.to_string(), source };
    let io = |error| local(LocalError::io("resolve", path, error));
    let target = path.canonicalize().map_err(io)?;
    if !target.starts_with(scratch.canonicalize().map_err(io)?) {
        return Err(PublishError::LinkOutside {
            label: output.label.to_string(),
            scratch_path: output.scratch_path.to_string(),
            target: target.display().to_string(),
        });
    }
    let metadata = target.metadata().map_err(io)?;
    check_kind(&target, &metadata, output.kind).map_err(local)?;
    let copied = copy_of(path);
    match output.kind {
        Kind::File => copy(&target, &copied),
        Kind::Directory => place_tree(&target, &copied),
    }
    .map_err(local)?;
    fs::remove_file(path).and_then(|()| fs::rename(&copied, path)).map_err(io)
}

/// Replaces every file that has further hard links by a copy.
fn detach(path: &Path) -> Result<(), LocalError> {
    for entry in WalkDir::new(path) {
        let entry = entry.map_err(|error| walk_error(path, error))?;
        let metadata = entry.metadata().map_err(|error| walk_error(path, error))?;
        if metadata.is_file() && metadata.nlink() > 1 {
            let copied = copy_of(entry.path());
            copy(entry.path(), &copied)?;
            fs::rename(&copied, entry.path())
                .map_err(|error| LocalError::io("copy", entry.path(), error))?;
        }
    }
    Ok(())
}

fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".keelboat-copy");
    name.into()
}
