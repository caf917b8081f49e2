//! Removing what crashes left: files that were handed over and never moved away, and files that a
//! process took for itself. Partial files that can be gone on with stay.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::local::remove_tree;

/// Younger files may belong to a process of another machine, whose id says nothing here.
const AGE_MIN: Duration = Duration::from_hours(24);

/// Removes old files in `dir` that belong to processes which are gone.
pub(crate) fn sweep(dir: &Path, now: SystemTime) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified
            .is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > AGE_MIN));
        let owner = entry.file_name().to_str().and_then(owner);
        if is_old
            && owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
            && let Err(error) = remove_tree(&entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "an old file stays");
        }
    }
}

/// The process in `DIGEST.PID-N.claimed`, `DIGEST.PID-N.own` or `DIGEST-PID-N.data`.
fn owner(name: &str) -> Option<u32> {
    let name = ["claimed", "data", "state", "own"].iter().find_map(|end| name.strip_suffix(end))?;
    let (rest, number) = name.strip_suffix('.')?.rsplit_once('-')?;
    number.parse::<u64>().ok()?;
    rest.rsplit(['.', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_processes_have_owners() {
        assert_eq!(owner("abc.12-3.claimed"), Some(12));
        assert_eq!(owner("abc-12-3.data"), Some(12));
        assert_eq!(owner("abc.data"), None);
        assert_eq!(owner("abc.state"), None);
    }

    #[test]
    fn old_files_of_the_dead_go_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dead = u32::MAX;
        let names = [
            (format!("a.{dead}-0.claimed"), false),
            (format!("a-{dead}-1.data"), false),
            (format!("a.{dead}-2.own"), false),
            (format!("a.{}-0.claimed", std::process::id()), true),
            ("a.data".to_owned(), true),
        ];
        for (name, _) in &names {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        sweep(dir.path(), SystemTime::now());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5, "too young");
        sweep(dir.path(), SystemTime::now() + AGE_MIN * 2);
        for (name, stays) in &names {
            assert_eq!(dir.path().join(name).exists(), *stays, "{name}");
        }
    }
}
