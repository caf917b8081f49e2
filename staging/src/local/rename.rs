//! Moving a file or directory into its place and, if need be, back.
//!
//! An old one in that place is exchanged for the new one in a single step, so that at every moment
//! either the old or the new one stands there.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A move that was done and can be undone.
#[derive(Debug)]
pub(super) struct Moved {
    from: PathBuf,
    to: PathBuf,
    old: Old,
}

/// What became of what stood in the place before.
#[derive(Debug)]
enum Old {
    /// Nothing stood there.
    None,
    /// It stands where the new one came from.
    Exchanged,
    /// It stands here.
    Aside(PathBuf),
}

/// Moves `from` to `to`, on one file system.
pub(super) fn move_into_place(from: &Path, to: &Path) -> io::Result<Moved> {
    let moved = |old| Moved { from: from.to_owned(), to: to.to_owned(), old };
    match rename_new(from, to) {
        Ok(()) => return Ok(moved(Old::None)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) if is_unsupported(&error) => {
            if to.symlink_metadata().is_err() {
                fs::rename(from, to)?;
                return Ok(moved(Old::None));
            }
        }
        Err(error) => return Err(error),
    }
    match exchange(from, to) {
        Ok(()) => Ok(moved(Old::Exchanged)),
        Err(error) if is_unsupported(&error) => {
            let aside = aside_of(from);
            fs::rename(to, &aside)?;
            match fs::rename(from, to) {
                Ok(()) => Ok(moved(Old::Aside(aside))),
                Err(error) => {
                    fs::rename(&aside, to)?;
                    Err(error)
                }
            }
        }
        Err(error) => Err(error),
    }
}

/// Moves what stands at `to`, if anything, to `aside`, where nothing stands.
pub(super) fn move_away(to: &Path, aside: &Path) -> io::Result<Option<Moved>> {
    match fs::rename(to, aside) {
        Ok(()) => {
            let (from, old) = (aside.to_owned(), Old::Aside(aside.to_owned()));
            Ok(Some(Moved { from, to: to.to_owned(), old }))
        }
        Err(_) if to.symlink_metadata().is_err() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Moved {
    /// Puts the old one back, or removes the new one where there was none.
    pub(super) fn undo(&self) -> io::Result<()> {
        match &self.old {
            Old::None => fs::rename(&self.to, &self.from),
            Old::Exchanged => exchange(&self.from, &self.to),
            Old::Aside(aside) if *aside == self.from => fs::rename(aside, &self.to),
            Old::Aside(aside) => {
                fs::rename(&self.to, &self.from)?;
                fs::rename(aside, &self.to)
            }
        }
    }

    /// Where what stood in the place before stands now.
    pub(super) fn old(&self) -> Option<&Path> {
        match &self.old {
            Old::None => None,
            Old::Exchanged => Some(&self.from),
            Old::Aside(aside) => Some(aside),
        }
    }
}

fn aside_of(from: &Path) -> PathBuf {
    let mut name = from.as_os_str().to_owned();
    name.push(".keelboat-old");
    name.into()
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
        || error.kind() == ErrorKind::Unsupported
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    rename_with(from, to, nix::fcntl::RenameFlags::RENAME_NOREPLACE)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn exchange(from: &Path, to: &Path) -> io::Result<()> {
    rename_with(from, to, nix::fcntl::RenameFlags::RENAME_EXCHANGE)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn rename_with(from: &Path, to: &Path, flags: nix::fcntl::RenameFlags) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, renameat2};
    renameat2(AT_FDCWD, from, AT_FDCWD, to, flags).map_err(io::Error::from)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn exchange(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
