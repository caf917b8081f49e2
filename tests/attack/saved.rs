//! What a project was, to begin again from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::project::Project;

/// A copy of all that a project holds.
#[derive(Debug)]
pub(crate) struct Saved {
    copy: TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Saved {
    /// Copies a project in which nothing runs. Links between its files stay links.
    pub(crate) fn of(project: &Project) -> Self {
        let copy = tempfile::Builder::new().prefix("keelboat-saved-").tempdir();
        let copy = copy.expect("a directory");
        copy_all(&project.path(""), &copy.path().join("project"));
        Self { copy, files: project.files("") }
    }

    /// Makes the project what it was, with other inodes.
    pub(crate) fn put_back(&self, project: &Project) {
        std::fs::remove_dir_all(project.path("")).expect("it can be removed");
        copy_all(&self.copy.path().join("project"), &project.path(""));
    }

    /// What was below a directory.
    pub(crate) fn files(&self, directory: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let below = self.files.iter().filter(|(path, _)| path.starts_with(directory));
        below.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    }
}

fn copy_all(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.expect("cp").success(), "cannot copy {}", from.display());
}
