//! What stands where an output belongs, and is not known from the object cache, is somebody's: it
//! is moved aside, never lost.

use std::io;
use std::path::{Path, PathBuf};

use keelboat_engine::{Digest, Failure, FailureClass, Kind};

use super::edges::Edges;
use super::message::Message;

/// Files that are kept from one path in one run.
const KEPT_MAX: u32 = 1_000;

/// Moves aside what stands at the path of an output, unless the object cache has it too, or it
/// holds what will stand there.
pub(super) fn keep_before_output(
    edges: &Edges,
    path: &str,
    comes: Option<Digest>,
) -> Result<(), Failure> {
    let place = edges.project.resolve(path);
    let Ok(metadata) = place.symlink_metadata() else { return Ok(()) };
    let kind = if metadata.is_dir() { Kind::Directory } else { Kind::File };
    let found = edges.digest(&place, kind).ok().map(|content| content.digest);
    let kept_already = found.is_some_and(|found| {
        Some(found) == comes || edges.objects.has(&found, kind).unwrap_or(false)
    });
    if kept_already { Ok(()) } else { keep(edges, path, &place) }
}

fn keep(edges: &Edges, path: &str, place: &Path) -> Result<(), Failure> {
    let kept = move_aside(edges, path, place).map_err(|error| {
        let cause = format!(
            "{path} holds something that no task made, and that cannot be moved aside: {error}"
        );
        Failure::new(FailureClass::Permanent, cause).with_hint("move it away yourself")
    })?;
    let shown = kept.strip_prefix(edges.project.root()).unwrap_or(&kept).display();
    let text = format!(
        "{path} held something that no task made; it is kept as {shown} \
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
