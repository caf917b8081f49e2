//! The scratch directory of one attempt: a place of its own, made before and removed after it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use keelboat_engine::OutputSpec;

use super::{DigestMemory, LocalError, Placement, place, remove_tree};

/// A scratch directory.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// Makes it, empty. What stands there is what a crash left, and is removed.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(root: PathBuf) -> Result<Self, LocalError> {
        let error = |error| LocalError::io("create", &root, error);
        match fs::create_dir(&root) {
            Ok(()) => {}
            Err(found) if found.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&root).map_err(error)?;
            }
            Err(found) if found.kind() == ErrorKind::AlreadyExists => {
                remove_tree(&root)?;
                fs::create_dir(&root).map_err(error)?;
            }
            Err(found) => return Err(error(found)),
        }
        Ok(Self { root })
    }

    /// One that is there, empty but for directories.
    pub(super) fn adopt(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Makes an input appear under its declared name, as a file of the task's own.
    ///
    /// # Errors
    /// The source cannot be read or does not hold the content; the name leads out of the scratch
    /// directory or is taken; the disk is full.
    pub fn place_input(
        &self,
        placement: &Placement<'_>,
        memory: &dyn DigestMemory,
    ) -> Result<(), LocalError> {
        let destination = self.inside(placement.name)?;
        place::place(placement, &destination, memory)
    }

    /// Where an input is to appear under its declared name; nothing is there yet.
    ///
    /// # Errors
    /// The name leads out of the scratch directory or is taken.
    pub fn room_for(&self, name: &str) -> Result<PathBuf, LocalError> {
        let destination = self.inside(name)?;
        match destination.symlink_metadata() {
            Ok(_) => Err(LocalError::Collision { name: name.to_owned() }),
            Err(_) => Ok(destination),
        }
    }

    /// Makes the directories that the outputs are to be written in.
    ///
    /// # Errors
    /// A name leads out of the scratch directory, or a directory cannot be made.
    pub fn prepare_outputs(&self, outputs: &[OutputSpec]) -> Result<(), LocalError> {
        outputs.iter().try_for_each(|output| self.inside(&output.scratch_path).map(drop))
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(self) -> Result<(), LocalError> {
        remove_tree(&self.root)
    }

    /// The path of a name in here, whose directories exist from now on.
    fn inside(&self, name: &str) -> Result<PathBuf, LocalError> {
        let escapes = || LocalError::Escapes { name: name.to_owned() };
        let relative = Path::new(name);
        let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || name.ends_with('/') || name.contains('\0') || !is_plain {
            return Err(escapes());
        }
        let mut path = self.root.clone();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            path.push(part);
            if let Err(error) = fs::create_dir(&path) {
                // An input placed before may be a link that leads elsewhere.
                let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
                match error.kind() {
                    ErrorKind::AlreadyExists if is_directory => {}
                    ErrorKind::AlreadyExists => return Err(escapes()),
                    _ => return Err(LocalError::io("create", &path, error)),
                }
            }
        }
        Ok(self.root.join(relative))
    }
}
