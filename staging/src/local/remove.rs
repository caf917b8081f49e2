//! Removing directories, whatever tasks did to their modes.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walkdir::WalkDir;

use super::LocalError;

/// Removes what stands at `path`: a directory with all in it, a file, a link, or nothing.
///
/// # Errors
/// Something in it cannot be removed even after its directory was made writable.
pub fn remove_tree(path: &Path) -> Result<(), LocalError> {
    let removed = match fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => remove_filled(path),
        Err(error) if error.kind() == ErrorKind::NotADirectory => fs::remove_file(path),
        other => other,
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(LocalError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn remove_filled(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            make_writable(path);
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Gives every directory below back to its owner. Parents come before their children, so that
/// those can be listed.
fn make_writable(path: &Path) {
    for entry in WalkDir::new(path).into_iter().filter_map(Result::ok) {
        if entry.file_type().is_dir()
            && let Err(error) = fs::set_permissions(entry.path(), Permissions::from_mode(0o700))
        {
            tracing::debug!(path = %entry.path().display(), %error, "cannot change a mode");
        }
    }
}
