//! Making files durable: one by one when they are few, their whole file systems when they are many.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::error::{IoContext as _, IoError};
use crate::files::parent_of;

/// More files than this are made durable with their whole file system.
pub(super) const FILES_ONE_BY_ONE_MAX: usize = 8;

/// What the kernel offers; tests put a failing disk in its place.
pub(crate) trait Disk: Send + Sync {
    /// Content, and of the metadata what is needed to read it.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// The entries of a folder.
    fn sync_folder(&self, folder: &File) -> io::Result<()>;
    /// All of the file system that holds `file`.
    fn sync_filesystem(&self, file: &File) -> io::Result<()>;
}

/// The real thing.
#[derive(Debug)]
pub(crate) struct Kernel;

impl Disk for Kernel {
    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_folder(&self, folder: &File) -> io::Result<()> {
        folder.sync_all()
    }

    fn sync_filesystem(&self, file: &File) -> io::Result<()> {
        Ok(nix::unistd::syncfs(file)?)
    }
}

/// What to make durable, in this order: files, folders, file systems.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    files: Vec<(PathBuf, File)>,
    folders: Vec<(PathBuf, File)>,
    filesystems: BTreeMap<u64, (PathBuf, File)>,
}

/// Decides how to make these paths durable. Files that are gone need nothing, nor do repeated ones.
pub(crate) fn plan<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Plan, IoError> {
    let mut paths: Vec<&Path> = paths.collect();
    paths.sort_unstable();
    paths.dedup();
    let mut folders: Vec<&Path> = paths.iter().map(|path| parent_of(path)).collect();
    folders.sort_unstable();
    folders.dedup();
    let mut plan = Plan::default();
    let one_by_one = paths.len() <= FILES_ONE_BY_ONE_MAX;
    if one_by_one {
        for path in paths {
            plan.add_file(path)?;
        }
    }
    for folder in folders {
        plan.add_folder(folder, one_by_one)?;
    }
    Ok(plan)
}

impl Plan {
    fn add_file(&mut self, path: &Path) -> Result<(), IoError> {
        // Not to wait for the other end of a named pipe, and not to follow links out of the way.
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A link, or a file that its owner may not read: its file system as a whole.
            Err(_unreadable) => return self.add_folder(parent_of(path), false),
        };
        let metadata = file.metadata().doing("look at", path)?;
        if metadata.is_dir() {
            self.filesystems.entry(metadata.dev()).or_insert_with(|| (path.to_owned(), file));
        } else if metadata.is_file() {
            self.files.push((path.to_owned(), file));
        }
        Ok(())
    }

    fn add_folder(&mut self, path: &Path, one_by_one: bool) -> Result<(), IoError> {
        let folder = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A folder that may not be listed: its file system, by way of the folder above.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return match path.parent().filter(|above| !above.as_os_str().is_empty()) {
                    Some(above) => self.add_folder(above, false),
                    None => Err(IoError::new("open the folder", path, error)),
                };
            }
            opened => opened.doing("open the folder", path)?,
        };
        if one_by_one {
            self.folders.push((path.to_owned(), folder));
        } else {
            let device = folder.metadata().doing("look at", path)?.dev();
            self.filesystems.entry(device).or_insert_with(|| (path.to_owned(), folder));
        }
        Ok(())
    }

    /// Does it. The first failure ends it: then nothing is known to be durable.
    pub(crate) fn carry_out(&self, disk: &dyn Disk) -> Result<(), IoError> {
        for (path, file) in &self.files {
            disk.sync_data(file).doing("make durable", path)?;
        }
        for (path, folder) in &self.folders {
            disk.sync_folder(folder).doing("make durable the folder", path)?;
        }
        for (path, file) in self.filesystems.values() {
            disk.sync_filesystem(file).doing("make durable the file system of", path)?;
        }
        Ok(())
    }

    pub(super) fn file_syncs(&self) -> u64 {
        (self.files.len() + self.folders.len()) as u64
    }

    pub(super) fn filesystem_syncs(&self) -> u64 {
        self.filesystems.len() as u64
    }
}
