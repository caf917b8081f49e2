//! Scratch directories that are empty again, kept for the next attempts.
//!
//! Making and removing directories is a large part of what a small task costs: file systems such as
//! ext4 avoid the inodes of what was removed lately, and search longer and longer for others.
//!
//! A directory is kept only as it was made: nothing in it but the directories that the outputs
//! were to be written in, all with the mode that they were made with.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keelboat_engine::OutputSpec;

use super::{LocalError, Scratch, remove_tree};

/// Directories that are kept; further ones are removed.
const KEPT_MAX: usize = 64;

/// The directories inside, sorted: relative, each after the one around it.
type Shape = Vec<String>;

/// Makes scratch directories, and takes them back.
#[derive(Debug)]
pub struct Recycler {
    folder: PathBuf,
    mode: u32,
    kept: Mutex<BTreeMap<Shape, Vec<PathBuf>>>,
    number: AtomicU64,
}

impl Recycler {
    /// For scratch directories in this folder, which exists.
    ///
    /// # Errors
    /// Directories cannot be made in it.
    pub fn new(folder: PathBuf) -> Result<Self, LocalError> {
        let probe = folder.join("kept-0");
        let scratch = Scratch::create(probe.clone())?;
        let metadata = probe.symlink_metadata();
        let mode = metadata.map_err(|error| LocalError::io("look at", &probe, error))?;
        scratch.remove()?;
        Ok(Self {
            folder,
            mode: mode.permissions().mode(),
            kept: Mutex::default(),
            number: AtomicU64::new(1),
        })
    }

    /// An empty scratch directory, with the directories that these outputs are to be written in.
    ///
    /// # Errors
    /// As [`Scratch::create`] and [`Scratch::prepare_outputs`].
    pub fn make(&self, root: PathBuf, outputs: &[OutputSpec]) -> Result<Scratch, LocalError> {
        let kept = self.lock().get_mut(&shape_of(outputs)).and_then(Vec::pop);
        if let Some(kept) = kept
            && fs::rename(&kept, &root).is_ok()
        {
            return Ok(Scratch::adopt(root));
        }
        let scratch = Scratch::create(root)?;
        scratch.prepare_outputs(outputs)?;
        Ok(scratch)
    }

    /// Takes a scratch directory back: what is left in it is removed, and it is kept or removed.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn take_back(&self, root: &Path, outputs: &[OutputSpec]) -> Result<(), LocalError> {
        let shape = shape_of(outputs);
        let full = self.lock().values().map(Vec::len).sum::<usize>() >= KEPT_MAX;
        let as_made = !full && self.empty(root, "", &shape).unwrap_or(false);
        if !as_made {
            return remove_tree(root);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let place = self.folder.join(format!("kept-{number}"));
        if fs::rename(root, &place).is_err() {
            return remove_tree(root);
        }
        self.lock().entry(shape).or_default().push(place);
        Ok(())
    }

    /// Removes what is kept.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(&self) -> Result<(), LocalError> {
        let kept = std::mem::take(&mut *self.lock());
        kept.into_values().flatten().try_for_each(|kept| remove_tree(&kept))
    }

    /// Removes the files in a directory; true when it is as it was made then.
    fn empty(&self, directory: &Path, relative: &str, shape: &Shape) -> io::Result<bool> {
        if directory.symlink_metadata()?.permissions().mode() != self.mode {
            return Ok(false);
        }
        let mut inside = 0;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            let Ok(name) = entry.file_name().into_string() else { return Ok(false) };
            let name = if relative.is_empty() { name } else { format!("{relative}/{name}") };
            let known = shape.binary_search(&name).is_ok();
            if !known || !self.empty(&entry.path(), &name, shape)? {
                return Ok(false);
            }
            inside += 1;
        }
        let expected = shape.iter().filter(|path| parent(path) == relative).count();
        Ok(inside == expected)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Shape, Vec<PathBuf>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All directories around the outputs.
fn shape_of(outputs: &[OutputSpec]) -> Shape {
    let mut shape = Shape::new();
    for output in outputs {
        let mut path = parent(&output.scratch_path);
        while !path.is_empty() {
            shape.push(path.to_owned());
            path = parent(path);
        }
    }
    shape.sort();
    shape.dedup();
    shape
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use keelboat_engine::Kind;

    use super::*;

    fn output(path: &str) -> OutputSpec {
        OutputSpec {
            label: path.into(),
            path: path.into(),
            scratch_path: path.into(),
            kind: Kind::File,
            optional: false,
            captures: None,
            deliver_to: None,
        }
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).expect("a folder").count()
    }

    #[test]
    fn what_is_as_it_was_made_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let recycler = Recycler::new(folder.path().to_owned()).unwrap();
        let outputs = [output("o/a/x"), output("o/y")];
        let first = folder.path().join("first");
        recycler.make(first.clone(), &outputs).unwrap();
        fs::write(first.join("o/left-over"), "x").unwrap();
        recycler.take_back(&first, &outputs).unwrap();
        assert_eq!(entries(folder.path()), 1);
        let second = folder.path().join("second");
        recycler.make(second.clone(), &outputs).unwrap();
        assert_eq!(entries(folder.path()), 1, "the kept one was used");
        assert!(second.join("o/a").is_dir() && !second.join("o/left-over").exists());
    }

    #[test]
    fn another_shape_gets_another_directory() {
        let folder = tempfile::tempdir().unwrap();
        let recycler = Recycler::new(folder.path().to_owned()).unwrap();
        let first = folder.path().join("first");
        recycler.make(first.clone(), &[output("o/x")]).unwrap();
        recycler.take_back(&first, &[output("o/x")]).unwrap();
        let second = folder.path().join("second");
        recycler.make(second.clone(), &[output("x")]).unwrap();
        assert!(!second.join("o").exists());
        assert_eq!(entries(folder.path()), 2);
    }

    #[test]
    fn what_a_task_changed_is_not_kept() {
        let outputs = [output("o/x")];
        let spoil: [fn(&Path); 3] = [
            |root| fs::create_dir(root.join("more")).expect("a directory"),
            |root| fs::remove_dir(root.join("o")).expect("removed"),
            |root| {
                let mode = fs::Permissions::from_mode(0o700);
                fs::set_permissions(root.join("o"), mode).expect("another mode");
            },
        ];
        for change in spoil {
            let folder = tempfile::tempdir().unwrap();
            let recycler = Recycler::new(folder.path().to_owned()).unwrap();
            let root = folder.path().join("task");
            recycler.make(root.clone(), &outputs).unwrap();
            change(&root);
            recycler.take_back(&root, &outputs).unwrap();
            assert_eq!(entries(folder.path()), 0);
        }
    }
}
