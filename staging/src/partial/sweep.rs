//! Finding what nobody goes on with: files that were handed over and never moved away, files that a
//! process took for itself, and transfers that were given up long ago.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::globus::RECORDS_KEPT;
use crate::local::{AGE_MIN, idle_for, is_dead, remove_tree};

/// How long a transfer is kept that nobody goes on with.
pub const PARTIAL_KEPT: Duration = Duration::from_hours(30 * 24);

/// Hexadecimal digits of a digest.
const DIGEST_CHARS: usize = 64;

/// Removes what nobody goes on with.
pub(crate) fn sweep(dir: &Path, now: SystemTime) {
    abandoned(dir, now, PARTIAL_KEPT, |path| {
        if let Err(error) = remove_tree(path) {
            tracing::debug!(path = %path.display(), %error, "an old file stays");
        }
    });
}

/// Shows what in a [directory for files on their way](crate::StagingConfig::partial_dir) nobody
/// goes on with, so that it can be removed: transfers that nothing was added to for as long as
/// `kept` says, and what processes that are gone had taken for themselves.
///
/// What belongs to tasks of Globus stays for as long as their records are promised to, however
/// short `kept` is: without its record a task would be submitted a second time. What another
/// process uses is locked and not shown; what is shown is locked meanwhile. Names that are none of
/// ours are never shown.
pub fn abandoned(partial_dir: &Path, now: SystemTime, kept: Duration, mut each: impl FnMut(&Path)) {
    for path in paths_in(partial_dir) {
        let Some(kind) = path.file_name().and_then(|name| kind_of(name.to_str()?)) else {
            continue;
        };
        let idle_min = match kind {
            Kind::Shared { .. } => kept,
            Kind::Owned { process } if is_dead(process) => AGE_MIN,
            Kind::Owned { .. } => continue,
            Kind::Errand => kept.max(RECORDS_KEPT),
        };
        if idle_for(&path, now).is_none_or(|idle| idle <= idle_min) {
            continue;
        }
        let lock = match kind {
            Kind::Shared { lock } => lock_of(&path.with_extension(lock)),
            Kind::Owned { .. } | Kind::Errand => Lock::None,
        };
        if !matches!(lock, Lock::Taken) {
            each(&path);
        }
    }
    for path in paths_in(&partial_dir.join("globus")) {
        let is_old =
            |path: &Path| idle_for(path, now).is_some_and(|idle| idle > kept.max(RECORDS_KEPT));
        let record = path.with_extension("json");
        let goes = match path.extension().and_then(|end| end.to_str()) {
            Some("json" | "new") => is_old(&path),
            Some("lock") => is_old(&path) && (is_old(&record) || !record.exists()),
            _ => false,
        };
        if goes && !matches!(lock_of(&path.with_extension("lock")), Lock::Taken) {
            each(&path);
        }
    }
}

/// In the order of their names, so that nothing goes before what it locks.
fn paths_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Whose it is.
enum Kind {
    /// That of whoever goes on with it, and locks what has this extension.
    Shared { lock: &'static str },
    /// That of one process.
    Owned { process: u32 },
    /// That of a task of Globus.
    Errand,
}

fn kind_of(name: &str) -> Option<Kind> {
    let (digest, rest) = name.split_at_checked(DIGEST_CHARS)?;
    let is_digest = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_digest {
        return None;
    }
    match rest {
        ".data" | ".state" | ".there" | ".there-new" => Some(Kind::Shared { lock: "data" }),
        ".tree" | ".tree-notes" => Some(Kind::Shared { lock: "tree-notes" }),
        ".errand" => Some(Kind::Errand),
        rest => owner(rest).map(|process| Kind::Owned { process }),
    }
}

/// The process in `.PID-N.claimed`, `.PID-N.own`, or `-PID-N.data` and its state.
fn owner(rest: &str) -> Option<u32> {
    let (numbers, end) = rest.split_at_checked(1)?.1.split_once('.')?;
    let is_ours = match rest.as_bytes().first()? {
        b'.' => matches!(end, "claimed" | "own"),
        b'-' => matches!(end, "data" | "state"),
        _ => false,
    };
    let (process, number) = numbers.split_once('-').filter(|_| is_ours)?;
    number.parse::<u64>().ok()?;
    process.parse().ok()
}

/// Whether somebody uses it.
enum Lock {
    /// There is nothing that could be locked.
    None,
    Ours {
        _held: File,
    },
    Taken,
}

fn lock_of(path: &Path) -> Lock {
    let Ok(file) = File::options().write(true).open(path) else { return Lock::None };
    match file.try_lock() {
        Ok(()) => Lock::Ours { _held: file },
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => Lock::Taken,
    }
}

#[cfg(test)]
mod tests {
    use keelboat_engine::Digest;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn names(dir: &Path, now: SystemTime, kept: Duration) -> Vec<String> {
        let mut found = Vec::new();
        abandoned(dir, now, kept, |path| {
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
            found.push(name.replace(&Digest::of(b"a").to_hex(), "D"));
        });
        found
    }

    /// A directory with one of each that there can be.
    fn full() -> tempfile::TempDir {
        let (dead, alive) = (u32::MAX, std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"a").to_hex();
        for end in [".data", ".state", ".there", ".tree-notes", ".unknown", ".claimed"] {
            fs::write(dir.path().join(format!("{digest}{end}")), b"x").unwrap();
        }
        for end in [".tree", ".errand"] {
            fs::create_dir_all(dir.path().join(format!("{digest}{end}/below"))).unwrap();
        }
        for process in [dead, alive] {
            for name in [".P-0.claimed", "-P-1.data", "-P-1.state", ".P-2.own"] {
                let end = name.replace('P', &process.to_string());
                fs::write(dir.path().join(format!("{digest}{end}")), b"x").unwrap();
            }
        }
        fs::create_dir(dir.path().join("globus")).unwrap();
        for name in ["globus/s.json", "globus/s.lock", "globus/mine.txt", "notes.data", "a.data"] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        dir
    }

    #[test]
    fn what_nobody_goes_on_with_is_found_when_it_is_old() {
        let (dir, now) = (full(), SystemTime::now());
        let kept = PARTIAL_KEPT;
        assert_eq!(names(dir.path(), now, kept), Vec::<String>::new());
        let dead = ["D-P-1.data", "D-P-1.state", "D.P-0.claimed", "D.P-2.own"];
        let dead = dead.map(|name| name.replace('P', &u32::MAX.to_string()));
        assert_eq!(names(dir.path(), now + DAY * 2, kept), dead);
        let mut all = dead.to_vec();
        let shared = ["D.data", "D.state", "D.there", "D.tree", "D.tree-notes"];
        all.extend(shared.map(str::to_owned));
        all.sort();
        let found = names(dir.path(), now + DAY * 29, DAY);
        assert_eq!(sorted(found), all, "what is of Globus is kept as long as was promised");
        all.extend(["D.errand", "globus/s.json", "globus/s.lock"].map(str::to_owned));
        assert_eq!(sorted(names(dir.path(), now + DAY * 31, kept)), sorted(all));
    }

    #[test]
    fn what_is_in_use_is_not_shown() {
        let (dir, later) = (full(), SystemTime::now() + DAY * 31);
        let digest = Digest::of(b"a").to_hex();
        let used = ["data", "tree-notes"].map(|end| {
            let file = File::open(dir.path().join(format!("{digest}.{end}"))).unwrap();
            file.lock().unwrap();
            file
        });
        let record = File::open(dir.path().join("globus/s.lock")).unwrap();
        record.lock().unwrap();
        let found = names(dir.path(), later, PARTIAL_KEPT);
        assert!(
            found.iter().all(|name| name.contains(&u32::MAX.to_string()) || name == "D.errand")
        );
        drop((used, record));
        sweep(dir.path(), later);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left.len(), 2 + 4 + 2 + 1, "unknown, of the living, others', globus: {left:?}");
        assert_eq!(fs::read_dir(dir.path().join("globus")).unwrap().count(), 1);
    }

    fn sorted(mut names: Vec<String>) -> Vec<String> {
        names.sort();
        names
    }
}
