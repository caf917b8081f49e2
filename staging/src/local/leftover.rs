//! What processes that are gone have left under names of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use walkdir::WalkDir;

use super::remove_tree;

/// Younger files may belong to a process of another machine, whose id says nothing here.
pub(crate) const AGE_MIN: Duration = Duration::from_hours(24);

/// Directories that are remembered as looked through.
const SWEPT_MAX: usize = 10_000;

/// Whether no process of this machine has this id.
pub(crate) fn is_dead(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

/// For how long nothing at or below a path was written; `None`: nobody knows.
pub(crate) fn idle_for(path: &Path, now: SystemTime) -> Option<Duration> {
    let entries = WalkDir::new(path).into_iter().filter_map(Result::ok);
    let last = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()?;
    now.duration_since(last).ok()
}

/// Removes what was on its way into a directory when its process died. Each directory is looked
/// through once in the life of this process: others may be at work later, none has died before.
pub(crate) fn sweep_once(directory: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let is_first = {
        let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.len() >= SWEPT_MAX {
            swept.clear();
        }
        swept.insert(directory.to_owned())
    };
    if is_first {
        sweep(directory, SystemTime::now());
    }
}

fn sweep(directory: &Path, now: SystemTime) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let owner = entry.file_name().to_str().and_then(owner);
        if owner.is_some_and(is_dead)
            && idle_for(&entry.path(), now).is_some_and(|idle| idle > AGE_MIN)
            && let Err(error) = remove_tree(&entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "an old file stays");
        }
    }
}

/// The process in `.NAME.keelboat-PID-N`, see [`sibling`](super::sibling).
fn owner(name: &str) -> Option<u32> {
    let (_, numbers) = name.strip_prefix('.')?.rsplit_once(".keelboat-")?;
    let (process, number) = numbers.split_once('-')?;
    number.parse::<u64>().ok()?;
    process.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_goes_when_it_is_old_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (dead, alive) = (u32::MAX, std::process::id());
        let names = [
            (format!(".a.keelboat-{dead}-0"), false),
            (format!(".a b.keelboat-{dead}-17"), false),
            (format!(".a.keelboat-{alive}-0"), true),
            (format!(".a.keelboat-{dead}"), true),
            (format!(".a.keelboat-{dead}-0.keelboat-old"), true),
            (format!("a.keelboat-{dead}-0"), true),
            (".a.keelboat-0123456789ab".to_owned(), true),
            ("a".to_owned(), true),
        ];
        for (name, _) in &names {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("x"), b"x").unwrap();
        }
        sweep(dir.path(), SystemTime::now());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), names.len(), "too young");
        sweep(dir.path(), SystemTime::now() + AGE_MIN * 2);
        for (name, stays) in &names {
            assert_eq!(dir.path().join(name).exists(), *stays, "{name}");
        }
    }
}
