//! Snapshots: whole or not at all, the last two, and consistent while somebody writes.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use keelboat_checkpoint::{
    CHECKPOINTS_KEPT, DigestCache, Origin, SnapshotError, SnapshotStore, Snapshots, Verdict,
};
use keelboat_engine::Timestamp;

use super::common::{folder, key, read, write};

const NEVER: &dyn Fn() -> bool = &|| false;

struct Place {
    folder: tempfile::TempDir,
    store: SnapshotStore,
}

impl Place {
    fn new() -> Self {
        let folder = folder();
        let digests = Arc::new(DigestCache::load(folder.path()));
        let store = SnapshotStore::at(folder.path()).remembering(digests);
        Self { folder, store }
    }

    fn of_task(&self) -> Snapshots {
        self.store.of("count", key(1))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the snapshots of [`of_task`](Self::of_task) lie.
    fn lies(&self) -> PathBuf {
        self.path("checkpoints/count").join(key(1).0.to_hex())
    }

    /// A directory with these files.
    fn state(&self, files: &[(&str, &str)]) -> PathBuf {
        let state = self.path("state");
        fs::create_dir(&state).expect("files to test with");
        for (name, text) in files {
            fs::create_dir_all(state.join(name).parent().expect("files to test with"))
                .expect("files to test with");
            write(&state.join(name), text.as_bytes());
        }
        state
    }

    fn save(&self, ordinal: u32, files: &[(&str, &str)]) -> Verdict {
        let state = self.state(files);
        let verdict =
            self.of_task().save_left(&state, origin(ordinal)).expect("files to test with");
        assert!(!state.exists(), "it was moved");
        verdict
    }

    /// What comes back: which attempt saved it, and its files.
    fn restored(&self) -> (Option<u32>, BTreeMap<String, String>) {
        let dest = self.path("dest");
        let restoration = self.of_task().restore(&dest).expect("files to test with");
        let files = files(&dest);
        fs::remove_dir_all(&dest).expect("files to test with");
        (restoration.from.map(|(origin, _)| origin.ordinal), files)
    }
}

fn origin(ordinal: u32) -> Origin {
    let (run, task) = ("run".to_owned(), "count".to_owned());
    Origin { run, task, ordinal, saved: Timestamp(ordinal.into()) }
}

fn files(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)
            .expect("files to test with")
            .map(|entry| entry.expect("an entry"))
        {
            if entry.file_type().expect("files to test with").is_dir() {
                open.push(entry.path());
            } else {
                let name = entry
                    .path()
                    .strip_prefix(root)
                    .expect("files to test with")
                    .display()
                    .to_string();
                files.insert(
                    name,
                    String::from_utf8(read(&entry.path())).expect("files to test with"),
                );
            }
        }
    }
    files
}

fn texts(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn is_saved(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Saved(_))
}

#[test]
fn what_an_attempt_left_comes_back_as_it_was() {
    let place = Place::new();
    let state = place.state(&[("at", "17"), ("deep/er/x", "xyz")]);
    fs::create_dir(state.join("empty")).unwrap();
    symlink("deep/er/x", state.join("link")).unwrap();
    fs::set_permissions(state.join("at"), Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(state.join("deep"), Permissions::from_mode(0o555)).unwrap();
    let moment = SystemTime::UNIX_EPOCH + Duration::new(1_234_567, 890);
    fs::File::open(state.join("at")).unwrap().set_modified(moment).unwrap();
    assert!(is_saved(place.of_task().save_left(&state, origin(3)).unwrap()));

    let dest = place.path("dest");
    let restoration = place.of_task().restore(&dest).unwrap();
    assert_eq!(restoration.from, Some((origin(3), 5)));
    assert_eq!(restoration.damaged, []);
    let link = fs::read_link(dest.join("link")).unwrap();
    assert_eq!(link, Path::new("deep/er/x"));
    assert!(dest.join("empty").is_dir());
    assert_eq!(read(&dest.join("link")), b"xyz");
    let at = dest.join("at").metadata().unwrap();
    assert_eq!((at.mode() & 0o7777, at.modified().unwrap()), (0o751, moment));
    assert_eq!(dest.join("deep").metadata().unwrap().mode() & 0o7777, 0o555);
    // What the task does to its own does nothing to what is kept.
    write(&dest.join("at"), b"garbage");
    fs::remove_dir_all(&dest).unwrap();
    assert_eq!(place.restored().1["at"], "17");
}

#[test]
fn the_last_two_are_kept_and_what_says_nothing_new_is_none() {
    let place = Place::new();
    assert_eq!(place.save(1, &[]), Verdict::Nothing, "nothing was saved yet");
    for ordinal in 1..=4 {
        let text = ordinal.to_string();
        assert!(is_saved(place.save(ordinal, &[("at", &text)])));
    }
    let dest = place.path("dest");
    let from = place.of_task().restore(&dest).unwrap().from;
    assert_eq!(from, Some((origin(4), 1)));
    assert_eq!(place.of_task().save_left(&dest, origin(5)).unwrap(), Verdict::Nothing);
    let mut kept: Vec<_> =
        fs::read_dir(place.lies()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    kept.sort();
    assert_eq!(kept, ["3", "4"]);
    // Who removes what it had begins with nothing the next time, too.
    assert!(is_saved(place.save(6, &[])));
    assert_eq!(place.restored(), (Some(6), BTreeMap::new()));
    let gone = place.path("never-made");
    assert_eq!(place.of_task().save_left(&gone, origin(7)).unwrap(), Verdict::Nothing);
}

#[test]
fn another_key_has_snapshots_of_its_own_and_a_task_that_is_done_has_none() {
    let place = Place::new();
    place.save(1, &[("at", "1")]);
    let (dest, other) = (place.path("dest"), place.store.of("count", key(2)));
    assert_eq!(other.restore(&dest).unwrap().from, None);
    assert_eq!(files(&dest), BTreeMap::new());
    write(&dest.join("at"), b"2");
    assert!(is_saved(other.save_left(&dest, origin(1)).unwrap()));
    assert_eq!(place.restored().0, Some(1), "both are there");
    let forgotten = place.store.forget("count").unwrap();
    assert_eq!(place.restored(), (None, BTreeMap::new()));
    assert_eq!(other.restore(&dest).unwrap().from, None);
    forgotten.remove().unwrap();
    assert_eq!(fs::read_dir(place.path("checkpoints")).unwrap().count(), 0);
    place.store.forget("count").unwrap().remove().unwrap();
}

/// Every file of a snapshot, cut at every length and with a bit of every byte flipped.
#[test]
fn what_is_torn_or_damaged_never_comes_back_and_the_one_before_does() {
    type Damage = fn(&[u8], usize) -> Option<Vec<u8>>;
    let damages: [(&str, Damage); 2] = [
        ("cut", |whole, at| (at < whole.len()).then(|| whole[..at].to_vec())),
        ("flipped", |whole, at| {
            let mut bytes = whole.to_vec();
            *bytes.get_mut(at)? ^= 1 << (at % 8);
            Some(bytes)
        }),
    ];
    let template = Place::new();
    let before = [("at", "one"), ("more", "m")];
    template.save(1, &before);
    template.save(2, &[("at", "two+"), ("more", "n"), ("sub/x", "yz")]);
    let lies = template.lies().join("2");
    for name in ["manifest", "state/at", "state/more", "state/sub/x"] {
        let whole = read(&lies.join(name));
        for (kind, damage) in damages {
            for bytes in (0..).map_while(|at| damage(&whole, at)) {
                let place = Place::new();
                copy_all(&template.path("checkpoints"), &place.path("checkpoints"));
                write(&place.lies().join("2").join(name), &bytes);
                let dest = place.path("dest");
                let restoration = place.of_task().restore(&dest).unwrap();
                let from = restoration.from.map(|(origin, _)| origin.ordinal);
                assert_eq!(from, Some(1), "{name} {kind} to {} bytes", bytes.len());
                assert_eq!(files(&dest), texts(&before));
                assert_eq!(restoration.damaged.len(), 1);
                assert!(restoration.damaged[0].quarantined.is_dir());
                fs::remove_dir_all(&dest).unwrap();
                assert_eq!(place.restored().0, Some(1), "it is not tried again");
            }
        }
    }
    for gone in ["manifest", "state/at", "state/sub/x", "state"] {
        let place = Place::new();
        copy_all(&template.path("checkpoints"), &place.path("checkpoints"));
        let gone = place.lies().join("2").join(gone);
        if gone.is_dir() {
            fs::remove_dir_all(&gone).unwrap();
        } else {
            fs::remove_file(&gone).unwrap();
        }
        assert_eq!(place.restored(), (Some(1), texts(&before)), "{} gone", gone.display());
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("files to test with");
    for entry in
        fs::read_dir(from).expect("files to test with").map(|entry| entry.expect("an entry"))
    {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("files to test with").is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("files to test with");
        }
    }
}

#[test]
fn the_only_one_being_damaged_is_told_and_the_task_begins_with_nothing() {
    let place = Place::new();
    place.save(1, &[("at", "one")]);
    write(&place.lies().join("1/state/at"), b"onE");
    let dest = place.path("dest");
    let restoration = place.of_task().restore(&dest).unwrap();
    assert_eq!(restoration.from, None);
    let what = &restoration.damaged[0].what;
    assert!(what.starts_with("at has 3 bytes with digest"), "{what}");
    assert_eq!(files(&dest), BTreeMap::new());
}

/// The process dies between the move and the manifest; who comes next ends what it began.
#[test]
fn a_move_that_was_cut_is_brought_to_its_end() {
    let place = Place::new();
    place.save(1, &[("at", "1")]);
    let state = place.state(&[("at", "2")]);
    fs::create_dir(place.lies().join("2")).unwrap();
    fs::rename(&state, place.lies().join("2/state")).unwrap();
    assert!(is_saved(place.of_task().save_left(&state, origin(2)).unwrap()));
    assert_eq!(place.restored(), (Some(2), texts(&[("at", "2")])));
    // One that nobody ends is none.
    let state = place.state(&[("at", "3")]);
    fs::create_dir(place.lies().join("3")).unwrap();
    fs::rename(&state, place.lies().join("3/state")).unwrap();
    assert_eq!(place.restored().0, Some(2));
    assert!(!place.lies().join("3").exists());
}

/// The process dies when all is saved, and before it has removed the note that it had to.
#[test]
fn what_was_saved_is_not_taken_for_removed_when_it_is_asked_for_again() {
    let place = Place::new();
    let state = place.path("state");
    place.save(1, &[("at", "1")]);
    place.save(2, &[("at", "2")]);
    let ask_twice = |ordinal| {
        for _ in 0..2 {
            let verdict = place.of_task().save_left(&state, origin(ordinal)).unwrap();
            assert_eq!(verdict, Verdict::Nothing);
            assert_eq!(place.restored(), (Some(2), texts(&[("at", "2")])));
        }
    };
    ask_twice(2);
    // One that has changed nothing.
    let same = Command::new("cp").arg("-a").arg(place.lies().join("2/state")).arg(&state).status();
    assert!(same.unwrap().success());
    ask_twice(3);
    // Another attempt that removed its directory begins anew.
    assert!(is_saved(place.of_task().save_left(&state, origin(4)).unwrap()));
    assert_eq!(place.restored(), (Some(4), texts(&[])));
}

#[test]
fn files_that_did_not_change_are_stored_once_whether_moved_or_copied() {
    let place = Place::new();
    let large = "l".repeat(100_000);
    place.save(1, &[("large", &large), ("at", "1")]);
    let dest = place.path("dest");
    place.of_task().restore(&dest).unwrap();
    write(&dest.join("at"), b"2!");
    let Verdict::Saved(saved) = place.of_task().save_running(&dest, origin(2), NEVER).unwrap()
    else {
        panic!("there is something new")
    };
    assert_eq!((saved.bytes, saved.bytes_new), (100_002, 2));
    write(&dest.join("at"), b"3");
    let Verdict::Saved(saved) = place.of_task().save_left(&dest, origin(2)).unwrap() else {
        panic!("there is something new")
    };
    assert_eq!((saved.bytes, saved.bytes_new), (100_001, 1));
    let inode = |number: u32| {
        let path = place.lies().join(number.to_string()).join("state/large");
        path.metadata().unwrap().ino()
    };
    assert_eq!(inode(2), inode(3));
    assert_eq!(place.restored().1["at"], "3");
    assert_eq!(place.restored().1["large"], large);
}

/// Two files that belong together, and a large one between them so that copying takes its time.
#[test]
fn a_running_task_that_renames_its_files_is_saved_as_it_was_at_one_moment() {
    let place = Place::new();
    let state = place.state(&[("a", "0"), ("z", "0")]);
    write(&state.join("m"), &vec![7; 8 << 20]);
    let done = AtomicBool::new(false);
    let mut seen = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                for name in ["a", "z"] {
                    let new = state.join(format!("{name}.new"));
                    write(&new, number.to_string().as_bytes());
                    fs::rename(new, state.join(name)).unwrap();
                }
                std::thread::sleep(Duration::from_millis(if number % 2 == 0 { 400 } else { 1 }));
                if done.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        for ordinal in 1..=6 {
            // What changes faster than it can be copied is given up, which is right as well.
            let saved = place.of_task().save_running(&state, origin(ordinal), NEVER);
            if matches!(saved, Err(SnapshotError::Changing { .. })) {
                continue;
            }
            saved.unwrap();
            let dest = place.path("dest");
            place.of_task().restore(&dest).unwrap();
            let number = |name: &str| -> u64 {
                String::from_utf8(read(&dest.join(name))).unwrap().parse().unwrap()
            };
            let (a, z) = (number("a"), number("z"));
            assert!(a == z || a == z + 1, "a is {a}, z is {z}: never so at one moment");
            assert!(a >= seen);
            seen = a;
            fs::remove_dir_all(&dest).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(seen > 0, "some were saved");
    assert!(fs::read_dir(place.lies()).unwrap().count() <= 2, "nothing is left over");
}

#[test]
fn what_changes_all_the_time_is_given_up_and_nothing_is_left_of_it() {
    let place = Place::new();
    let state = place.state(&[("log", "")]);
    let done = AtomicBool::new(false);
    let saved = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                write(&state.join("log"), b"again");
            }
        });
        let saved = place.of_task().save_running(&state, origin(1), NEVER);
        done.store(true, Ordering::SeqCst);
        saved
    });
    match saved {
        Err(error @ SnapshotError::Changing { .. }) => {
            assert!(error.to_string().ends_with("log changes faster than it can be copied"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_dir(place.lies()).unwrap().count(), 0);
    assert_eq!(place.restored().0, None);
}

#[test]
fn copying_ends_when_the_attempt_does() {
    let place = Place::new();
    let state = place.state(&[("at", "1")]);
    let saved = place.of_task().save_running(&state, origin(1), &|| true);
    assert!(matches!(saved, Err(SnapshotError::Ended)), "{saved:?}");
    assert_eq!(fs::read_dir(place.lies()).unwrap().count(), 0);
    assert!(is_saved(place.of_task().save_left(&state, origin(1)).unwrap()));
}

#[test]
fn what_nobody_used_for_long_is_swept_and_so_is_what_the_dead_left() {
    let place = Place::new();
    place.save(1, &[("at", "1")]);
    let torn = ["checkpoints/.keelboat-1-1.tmp".into(), place.lies().join(".keelboat-1-2.tmp")];
    let torn: [PathBuf; 2] = torn.map(|path: PathBuf| place.folder.path().join(path));
    for path in &torn {
        fs::create_dir(path).unwrap();
    }
    place.store.sweep().unwrap();
    assert!(torn.iter().all(|path| !path.exists()));
    assert_eq!(place.restored().0, Some(1));
    let now = SystemTime::now();
    assert_eq!(place.store.idle(now, CHECKPOINTS_KEPT).unwrap(), Vec::<PathBuf>::new());
    let later = now + 2 * CHECKPOINTS_KEPT;
    assert_eq!(place.store.idle(later, CHECKPOINTS_KEPT).unwrap(), [place.lies()]);
}
