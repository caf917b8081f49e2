//! What stands where an output belongs, and was not made by the task that writes it, is somebody's:
//! it is moved aside, never lost.

use std::io;
use std::path::{Path, PathBuf};

use keelboat_engine::{Content, Digest, Failure, FailureClass, Kind};

use super::edges::Edges;
use super::message::Message;

/// Files that are kept from one path in one run.
const KEPT_MAX: u32 = 1_000;

/// Moves aside what stands at the path of a task's output, unless the task made it, or it holds
/// what will stand there.
pub(super) fn keep_before_output(
    edges: &Edges,
    task: &str,
    path: &str,
    comes: Option<Digest>,
) -> Result<(), Failure> {
    let place = edges.project.resolve(path);
    if let Some(found) = found_at(edges, &place)
        && Some(found) != comes.map(Some)
        && Some(found) != made(edges, task, path).map(Some)
    {
        keep(edges, path, &place)?;
    }
    Ok(())
}

/// Moves aside what stands where an output is restored.
pub(super) fn keep_before_restoring(edges: &Edges, path: &str) -> Result<(), Failure> {
    let place = edges.project.resolve(path);
    if place.symlink_metadata().is_err() {
        return Ok(());
    }
    keep(edges, path, &place)
}

/// What stands at a place: nothing, something that can be read, or something else.
fn found_at(edges: &Edges, place: &Path) -> Option<Option<Digest>> {
    let metadata = place.symlink_metadata().ok()?;
    let kind = if metadata.is_dir() { Kind::Directory } else { Kind::File };
    Some(edges.digest(place, kind).ok().map(|content| content.digest))
}

/// What the last result of a task had at this path.
fn made(edges: &Edges, task: &str, path: &str) -> Option<Digest> {
    let (key, _) = edges.memo.last_parts(task).ok().flatten()?;
    let record = edges.memo.lookup(&key).ok().flatten()?;
    let output = record.outputs.into_iter().find(|output| *output.path == *path)?;
    output.content.map(|content: Content| content.digest)
}

fn keep(edges: &Edges, path: &str, place: &Path) -> Result<(), Failure> {
    let kept = move_aside(edges, path, place).map_err(|error| {
        let cause = format!(
            "{path} is there already, was not made by this task, and cannot be moved aside: {error}"
        );
        Failure::new(FailureClass::Permanent, cause).with_hint("move it away yourself")
    })?;
    let shown = kept.strip_prefix(edges.project.root()).unwrap_or(&kept).display();
    let text = format!(
        "{path} held something that its task did not make; it is kept as {shown} \
         (removed with the run by `cache gc`)"
    );
    edges.tell(Message::Warning(text));
    Ok(())
}

fn move_aside(edges: &Edges, path: &str, place: &Path) -> io::Result<PathBuf> {
    let first = edges.run.replaced(path);
    if let Some(parent) = first.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let kept = unused(&first)?;
    match std::fs::rename(place, &kept) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            // An output of another disk stays on that disk.
            let mut name = place.file_name().unwrap_or_default().to_os_string();
            name.push(format!(".replaced-{}", edges.run.id()));
            let kept = unused(&place.with_file_name(name))?;
            std::fs::rename(place, &kept).map(|()| kept)
        }
        moved => moved.map(|()| kept),
    }
}

fn unused(first: &Path) -> io::Result<PathBuf> {
    let numbered = (2..KEPT_MAX).map(|number| {
        let mut name = first.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{number}"));
        first.with_file_name(name)
    });
    let mut candidates = std::iter::once(first.to_path_buf()).chain(numbered);
    candidates
        .find(|candidate| candidate.symlink_metadata().is_err())
        .ok_or_else(|| io::Error::other("too many are kept already"))
}
