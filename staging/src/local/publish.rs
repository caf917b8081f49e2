//! Moving what a task wrote to its final places: all or none.
//!
//! A crash in the middle leaves at each path the old or the new file, whole. The completion of
//! the task is recorded only after this, so the task runs again and publishes again.
//!
//! Deliberately absent: fsync of outputs on the scratch directory's own file system. A power cut
//! may lose what was published shortly before; its digest then tells, and the task runs again.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use keelboat_engine::{Content, Kind, OutputSpec};
use walkdir::WalkDir;

use super::digest::walk_error;
use super::leftover::sweep_once;
use super::output::inspect;
use super::place::{copy, place_tree};
use super::rename::{Moved, move_away, move_into_place};
use super::{DigestMemory, LocalError, PublishError, remove_tree, stamp_of};

/// Moves the outputs from `scratch` to their paths, relative to `project`, and says what each
/// holds (`None`: optional, and not written; an old one at its path is then removed).
///
/// What stood at the paths is in `scratch` or removed afterwards. Modes are left as they are.
///
/// # Errors
/// An output is missing, of the wrong kind, a link out of the scratch directory, or cannot be
/// read or moved. Then every path holds what it held before.
pub fn publish(
    scratch: &Path,
    outputs: &[OutputSpec],
    project: &Path,
    memory: &dyn DigestMemory,
) -> Result<Vec<Option<Content>>, PublishError> {
    let contents = outputs.iter().map(|output| inspect(scratch, output));
    let contents = contents.collect::<Result<Vec<_>, _>>()?;
    let mut moves = Vec::with_capacity(outputs.len());
    for (output, content) in outputs.iter().zip(&contents) {
        let from = scratch.join(&*output.scratch_path);
        let to = project.join(&*output.path);
        let moved = match content {
            Some(_) => put(&from, &to).map(Some),
            None => take_away(&to),
        };
        match moved {
            Ok(moved) => moves.extend(moved),
            Err(source) => {
                undo(&moves);
                return Err(PublishError::Local { label: output.label.to_string(), source });
            }
        }
    }
    for old in moves.iter().filter_map(Moved::old).filter(|old| !old.starts_with(scratch)) {
        if let Err(error) = remove_tree(old) {
            tracing::warn!(%error, "what an output replaced cannot be removed");
        }
    }
    remember(outputs, &contents, project, memory);
    Ok(contents)
}

fn undo(moves: &[Moved]) {
    for moved in moves.iter().rev() {
        if let Err(error) = moved.undo() {
            tracing::error!(?moved, %error, "a published output cannot be taken back");
        }
    }
}

/// A rename alters the stamp, so it is taken at the final path.
fn remember(
    outputs: &[OutputSpec],
    contents: &[Option<Content>],
    project: &Path,
    memory: &dyn DigestMemory,
) {
    for (output, content) in outputs.iter().zip(contents) {
        if let Some(Content { digest, kind: Kind::File, .. }) = content
            && let Ok(metadata) = project.join(&*output.path).symlink_metadata()
        {
            memory.remember_own(&stamp_of(&metadata), *digest);
        }
    }
}

/// Directories are mostly there, so they are made only when the move finds them missing.
fn put(from: &Path, to: &Path) -> Result<Moved, LocalError> {
    let moved = match move_into_place(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)
                    .map_err(|error| LocalError::io("create", parent, error))?;
            }
            move_into_place(from, to)
        }
        other => other,
    };
    match moved {
        Ok(moved) => Ok(moved),
        Err(error) if error.kind() == ErrorKind::CrossesDevices => put_across(from, to),
        Err(error) => Err(LocalError::io("move an output to", to, error)),
    }
}

/// Beside its path, since the scratch directory may be on another file system.
fn take_away(to: &Path) -> Result<Option<Moved>, LocalError> {
    if to.symlink_metadata().is_err() {
        return Ok(None);
    }
    move_away(to, &sibling(to)).map_err(|error| LocalError::io("remove", to, error))
}

/// To another file system: a durable copy beside the final path, then a rename.
fn put_across(from: &Path, to: &Path) -> Result<Moved, LocalError> {
    if let Some(parent) = to.parent() {
        sweep_once(parent);
    }
    let beside = sibling(to);
    let copied = copy_durably(from, &beside).and_then(|()| {
        move_into_place(&beside, to).map_err(|error| LocalError::io("move an output to", to, error))
    });
    if copied.is_err()
        && let Err(error) = remove_tree(&beside)
    {
        // What went wrong first is what people need to know.
        tracing::debug!(%error, "an unfinished copy stays");
    }
    copied
}

/// Copies a file or directory and brings it to the disk.
pub(super) fn copy_durably(from: &Path, to: &Path) -> Result<(), LocalError> {
    let metadata = from.symlink_metadata().map_err(|error| LocalError::io("find", from, error))?;
    if metadata.is_dir() {
        place_tree(from, to)?;
    } else {
        copy(from, to)?;
    }
    for entry in WalkDir::new(to) {
        let entry = entry.map_err(|error| walk_error(to, error))?;
        if !entry.file_type().is_symlink() {
            File::open(entry.path())
                .and_then(|file| file.sync_all())
                .map_err(|error| LocalError::io("write", entry.path(), error))?;
        }
    }
    Ok(())
}

/// A hidden name beside a path, used by nobody else.
pub(crate) fn sibling(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".keelboat-{}-{number}", std::process::id()));
    path.with_file_name(name)
}
