//! Files and folders that only their owner may look into, and names that appear whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{IoContext as _, IoError};

/// The mode of folders: what a workflow reads and writes may be nobody else's business.
pub(crate) const FOLDER_MODE: u32 = 0o700;
/// The mode of files that are written again.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Makes a folder and those above it, each private. One that exists is left as it is.
pub(crate) fn create_folder(path: &Path) -> Result<(), IoError> {
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
    made.doing("create the folder", path)
}

/// Options for a private file that is read and written, created when it is not there.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    options
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), IoError> {
    File::open(path).and_then(|folder| folder.sync_all()).doing("make durable the folder", path)
}

/// The folder that holds a path.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name in `folder` that nobody else uses: of this process, and never given twice by it.
pub(crate) fn fresh_name(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(".keelboat-{}-{number}.tmp", std::process::id()))
}

/// Replaces a file by these bytes: readers see the old or the new ones, also after a power cut.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), IoError> {
    let temporary = fresh_name(parent_of(path));
    let written = write_open(&temporary, bytes).and_then(|file| {
        file.sync_data()?;
        fs::rename(&temporary, path)?;
        Ok(())
    });
    if written.is_err() {
        discard(&temporary);
    }
    written.doing("write", path)
}

/// Writes a private file; it is not durable.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_open(path, bytes).map(drop)
}

fn write_open(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = private().truncate(true).open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Removes what is not needed any more; that it cannot be removed is worth a line in the log only.
pub(crate) fn discard(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a temporary file");
        }
        _ => {}
    }
}
