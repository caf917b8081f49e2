//! Scratch directories that outlive their attempts, for people to look into: of each task the last
//! one, in a directory of the task's own, and of all tasks no more than so many.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use keelboat_engine::{Failure, KeepScratch};
use keelboat_staging::remove_tree;

use super::attempt::Attempt;
use super::edges::Edges;
use crate::project::file_name_of;

/// Directories that are kept; beyond that the oldest go.
const KEPT_MAX: usize = 1_000;

impl Attempt {
    /// Keeps what it left that failed, and says in the failure where, if that is wanted. Not of one that
    /// was killed because nobody wanted it, nor where somebody is still at work.
    pub(super) fn keep_failed(&self, failure: &mut Failure, edges: &Edges) {
        let is_wanted = self.keep_scratch != KeepScratch::Never && !self.was_killed();
        if !is_wanted || self.occupancy.is_occupied() || !self.keep(edges) {
            return;
        }
        let place = self.kept(edges);
        let shown = place.strip_prefix(edges.project.root()).unwrap_or(&place).display();
        let told = format!("what it left is in {shown}");
        failure.hint = Some(match failure.hint.take() {
            Some(hint) => format!("{hint}; {told}"),
            None => told,
        });
    }

    /// Keeps what it left that ended well, if that is wanted; otherwise what an earlier one left that
    /// failed goes.
    pub(super) fn keep_done(&self, edges: &Edges) {
        match self.keep_scratch {
            KeepScratch::Never => {}
            KeepScratch::Failed => self.discard(&self.kept(edges), edges),
            KeepScratch::Always => {
                self.keep(edges);
            }
        }
    }

    /// Moves its directory to where it is kept, and what was kept of an earlier one to where it
    /// [goes](Self::discard_replaced). Whether it is there now.
    fn keep(&self, edges: &Edges) -> bool {
        if self.scratch.symlink_metadata().is_err() {
            return false;
        }
        let place = self.kept(edges);
        match replace(&self.scratch, &place, &self.replaced()) {
            Ok(()) => true,
            Err(error) => {
                let text = format!(
                    "what {} left cannot be kept in {}: {error}",
                    self.name,
                    place.display()
                );
                edges.warn(text);
                false
            }
        }
    }

    /// Removes what was kept of an earlier attempt and was replaced, and of other tasks what is too
    /// much.
    pub(super) fn discard_replaced(&self, edges: &Edges) {
        if self.keep_scratch == KeepScratch::Never {
            return;
        }
        self.discard(&self.replaced(), edges);
        for old in beyond(&edges.project.kept(), KEPT_MAX) {
            self.discard(&old, edges);
        }
    }

    fn discard(&self, place: &Path, edges: &Edges) {
        if let Err(error) = remove_tree(place) {
            edges.warn(format!("what {} left stays: {error}", self.name));
        }
    }

    fn kept(&self, edges: &Edges) -> PathBuf {
        edges.project.kept().join(file_name_of(&self.name))
    }

    /// Beside its scratch directory: what a crash leaves there is removed.
    fn replaced(&self) -> PathBuf {
        let mut path = self.scratch.clone().into_os_string();
        path.push(".replaced");
        path.into()
    }
}

/// Moves a directory to a place; what is there goes to `aside`.
fn replace(from: &Path, to: &Path, aside: &Path) -> io::Result<()> {
    match std::fs::rename(to, aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder)?;
            }
        }
        moved => moved?,
    }
    std::fs::rename(from, to)?;
    // By this its age is known: of the directory itself the task knows when it changed it.
    std::fs::File::open(to)?.set_modified(SystemTime::now())
}

/// The oldest directories in a folder, beyond so many.
fn beyond(folder: &Path, most: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let dated = entries.filter_map(|entry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        Some((modified.ok()?, entry.path()))
    });
    let mut dated: Vec<(SystemTime, PathBuf)> = dated.collect();
    dated.sort();
    let many = dated.len().saturating_sub(most);
    dated.into_iter().take(many).map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_go_beyond_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (at, name) in (0..).zip(["c", "a", "d", "b"]) {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            let moment = now - Duration::from_secs(100 - at);
            fs::File::open(path).unwrap().set_modified(moment).unwrap();
        }
        let names = |most| {
            let paths = beyond(folder.path(), most).into_iter();
            paths.map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(2), ["c", "a"]);
        assert!(names(4).is_empty() && beyond(&folder.path().join("none"), 0).is_empty());
    }

    #[test]
    fn a_later_one_takes_the_place_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, kept, aside] =
            ["one", "two", "kept/task", "aside"].map(|name| folder.path().join(name));
        for directory in [&one, &two] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), directory.to_str().unwrap()).unwrap();
        }
        replace(&one, &kept, &aside).unwrap();
        replace(&two, &kept, &aside).unwrap();
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), two.to_str().unwrap());
        assert_eq!(fs::read_to_string(aside.join("file")).unwrap(), one.to_str().unwrap());
        replace(&two, &kept, &folder.path().join("other")).unwrap_err();
    }
}
