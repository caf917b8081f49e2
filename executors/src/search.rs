//! Programs by their names.

use std::ffi::OsStr;
use std::path::PathBuf;

use nix::unistd::{AccessFlags, access};

/// Where a program is, by this `PATH`.
pub(crate) fn program_in(name: &str, path: &OsStr) -> Option<PathBuf> {
    let is_program = |place: &PathBuf| place.is_file() && access(place, AccessFlags::X_OK).is_ok();
    let places = std::env::split_paths(path).map(|directory| directory.join(name));
    let found = places.into_iter().find(is_program)?;
    Some(std::path::absolute(&found).unwrap_or(found))
}
