//! Unfinished copies beside outputs, as engines leave them that are killed while they copy.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use keelboat_engine::TaskId;
use keelboat_engine::core::Core;
use keelboat_staging::remove_tree;

use crate::project::Project;

/// What stands before the process id in names of unfinished copies.
const MARK: &str = ".keelboat-";

/// Removes what engines with these process ids left beside the outputs of all tasks.
pub(super) fn remove(core: &Core, project: &Project, dead: &BTreeSet<u32>) {
    if dead.is_empty() {
        return;
    }
    let mut directories = BTreeSet::new();
    for task in (0..core.counts().total).map(TaskId) {
        for output in &core.spec(task).outputs {
            directories.extend(project.resolve(&output.path).parent().map(PathBuf::from));
        }
    }
    let entries = directories.into_iter().filter_map(|directory| std::fs::read_dir(directory).ok());
    for entry in entries.flatten().flatten() {
        if maker(&entry.file_name()).is_some_and(|maker| dead.contains(&maker))
            && let Err(error) = remove_tree(&entry.path())
        {
            tracing::debug!(%error, "an unfinished copy stays");
        }
    }
}

/// The process that gave this name to an unfinished copy.
fn maker(name: &OsStr) -> Option<u32> {
    let name = name.to_str().filter(|name| name.starts_with('.'))?;
    let (_, rest) = name.rsplit_once(MARK)?;
    let (maker, _) = rest.split_once('-')?;
    maker.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_unfinished_copies_have_a_maker() {
        let names = [
            ".a.txt.keelboat-17-3",
            ".keelboat-17-3.tmp",
            "a.keelboat-17-3",
            ".keelboat",
            ".keelboat-x-1",
        ];
        let makers = names.map(|name| maker(OsStr::new(name)));
        assert_eq!(makers, [Some(17), Some(17), None, None, None]);
    }
}
