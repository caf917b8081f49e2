//! The object cache: what comes back is what went in, or nothing.

use std::collections::BTreeSet;
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keelboat_checkpoint::{
    DigestCache, GcPolicy, Inserted, ObjectCache, ObjectError, Restore, Restored, is_executable,
    stamp_of,
};
use keelboat_engine::{Content, Digest, FileStamp, Kind, TreeEntry, TreeNode, tree_digest};

use super::common::{content, folder, read, write};

struct Project {
    folder: tempfile::TempDir,
    digests: Arc<DigestCache>,
    cache: ObjectCache,
}

fn project() -> Project {
    let folder = folder();
    let state = folder.path().join(".keelboat");
    fs::create_dir(&state).expect("a state folder");
    let digests = Arc::new(DigestCache::load(&state));
    let cache = ObjectCache::open(&state, Arc::clone(&digests)).expect("the cache opens");
    Project { folder, digests, cache }
}

impl Project {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Publishes a file and keeps it.
    fn keep(&self, name: &str, text: &str) -> Content {
        write(&self.path(name), text.as_bytes());
        self.cache.insert(&self.path(name), &content(text)).expect("it is kept");
        content(text)
    }

    /// Brings a file or directory back, not executable.
    fn restore(&self, content: Content, name: &str) -> Result<Option<Restored>, ObjectError> {
        self.cache.restore(&Restore { content, executable: false }, &self.path(name))
    }

    /// Changes an object behind the cache's back, unseen: its stamp is a known one.
    fn damage_unseen(&self, path: &Path, digest: Digest) {
        self.damage(path);
        self.digests.remember_own(&stamp_of(&metadata(path)), digest);
    }

    /// Changes an object behind the cache's back.
    fn damage(&self, path: &Path) {
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it can be written");
        let mut bytes = read(path);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        write(path, &bytes);
        assert!(path.starts_with(self.folder.path()));
    }
}

fn metadata(path: &Path) -> Metadata {
    fs::symlink_metadata(path).expect("it is there")
}

fn mode(path: &Path) -> u32 {
    metadata(path).permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode is set");
}

#[test]
fn a_kept_file_shares_its_bytes_and_comes_back() {
    let project = project();
    let kept = project.keep("out.txt", "result");
    let object = project.cache.object_path(&kept.digest).unwrap().unwrap();
    assert_eq!(mode(&object) & 0o222, 0, "nobody can write to it");
    let published = fs::metadata(project.path("out.txt")).unwrap();
    assert_eq!(project.digests.lookup(&stamp_of(&published)), Some(kept.digest));
    assert_eq!(
        project.cache.insert(&project.path("out.txt"), &kept).unwrap(),
        Inserted::AlreadyThere
    );

    fs::remove_file(project.path("out.txt")).unwrap();
    let restored = project.restore(kept, "sub/out.txt");
    assert!(matches!(restored.unwrap(), Some(Restored::Copied | Restored::Reflinked)));
    assert_eq!(read(&project.path("sub/out.txt")), b"result");
    let nothing = project.restore(content("?"), "x");
    assert_eq!(nothing.unwrap(), None);
    assert!(!project.path("x").exists());
    assert_eq!(fs::read_dir(project.path("sub")).unwrap().count(), 1, "nothing is left over");
}

#[test]
fn large_files_come_back_without_a_copy() {
    let project = project();
    let text = "x".repeat(5 << 20);
    let kept = project.keep("large", &text);
    fs::remove_file(project.path("large")).unwrap();
    for _ in 0..2 {
        let restored = project.restore(kept, "large");
        assert!(matches!(restored.unwrap(), Some(Restored::Linked | Restored::Reflinked)));
    }
    assert_eq!(fs::metadata(project.path("large")).unwrap().len(), kept.bytes);
    let beside = fs::read_dir(project.folder.path()).unwrap().count();
    assert_eq!(beside, 2, "nothing is left over");
    let object = project.cache.path_of(&kept.digest);
    let stamp = stamp_of(&fs::metadata(object).unwrap());
    assert_eq!(project.digests.lookup(&stamp), Some(kept.digest), "needs no reading again");
}

#[test]
fn a_file_is_executable_as_recorded_whoever_kept_its_bytes_first() {
    for (text, large) in [("small".to_owned(), false), ("x".repeat(5 << 20), true)] {
        for first in [false, true] {
            let project = project();
            let kept = content(&text);
            for (name, executable) in [("first", first), ("second", !first)] {
                write(&project.path(name), text.as_bytes());
                set_mode(&project.path(name), if executable { 0o755 } else { 0o644 });
                project.cache.insert(&project.path(name), &kept).unwrap();
                assert_eq!(is_executable(&metadata(&project.path(name))), executable);
            }
            for executable in [first, !first, first] {
                let what = Restore { content: kept, executable };
                let restored = project.cache.restore(&what, &project.path("second")).unwrap();
                let place = metadata(&project.path("second"));
                assert_eq!(is_executable(&place), executable, "{restored:?}");
                assert_eq!(read(&project.path("second")), text.as_bytes());
                let is_object = place.ino() == metadata(&project.cache.path_of(&kept.digest)).ino();
                assert!(!is_object || large && executable == first, "{restored:?}");
                assert_eq!(project.digests.lookup(&stamp_of(&place)), Some(kept.digest));
            }
        }
    }
}

#[test]
fn a_private_file_stays_private() {
    for (published, object) in [(0o600, 0o400), (0o640, 0o440), (0o711, 0o511), (0o755, 0o555)] {
        let project = project();
        let out = project.path("out");
        write(&out, b"secret");
        set_mode(&out, published);
        project.cache.insert(&out, &content("secret")).unwrap();
        assert_eq!(mode(&project.cache.path_of(&Digest::of(b"secret"))), object);
        assert_eq!(mode(&out) & !published, 0, "nobody may do more than before");
        fs::remove_file(&out).unwrap();
        let what = Restore { content: content("secret"), executable: object & 0o100 != 0 };
        project.cache.restore(&what, &out).unwrap();
        assert_eq!(mode(&out) & !published, 0, "{:o}, not {published:o}", mode(&out));
        assert_eq!(mode(&out) & 0o700, published & 0o700, "its owner may do the same");
    }
}

#[test]
fn a_file_can_be_moved_in() {
    let project = project();
    for expected in [Inserted::Moved, Inserted::AlreadyThere] {
        write(&project.path("part"), b"download");
        let moved = project.cache.insert_by_move(&project.path("part"), &content("download"));
        assert_eq!(moved.unwrap(), expected);
        assert!(!project.path("part").exists());
    }
    assert!(project.cache.has(&Digest::of(b"download"), Kind::File).unwrap());
}

#[test]
fn what_is_not_as_claimed_is_refused() {
    let project = project();
    write(&project.path("out"), b"other");
    let refused = project.cache.insert(&project.path("out"), &content("result"));
    assert!(matches!(&refused, Err(error @ ObjectError::Mismatch { .. }) if error.blames_source()));
    fs::create_dir(project.path("dir")).unwrap();
    let refused = project.cache.insert(&project.path("dir"), &content("result"));
    assert!(matches!(refused, Err(ObjectError::WrongKind { .. })), "{refused:?}");
    assert_eq!(project.cache.stats().unwrap().objects, 0);
}

#[test]
fn a_damaged_object_is_named_set_aside_and_never_used() {
    let project = project();
    let kept = project.keep("out", "result");
    fs::remove_file(project.path("out")).unwrap();
    project.damage(&project.cache.path_of(&kept.digest));
    let error = project.restore(kept, "out").unwrap_err();
    assert!(!error.blames_source());
    let ObjectError::Damaged { digest, quarantined, .. } = &error else { panic!("{error}") };
    assert_eq!(*digest, kept.digest);
    assert!(quarantined.exists() && error.hint().is_some());
    assert!(!project.path("out").exists());
    assert!(!project.cache.has(&kept.digest, Kind::File).unwrap());
    assert_eq!(project.cache.stats().unwrap().damaged, 1);
    project.keep("out", "result");
    assert!(project.cache.has(&kept.digest, Kind::File).unwrap());
}

#[test]
fn damage_that_no_stamp_tells_of_is_found_by_reading_and_then_forgotten() {
    let project = project();
    let kept = project.keep("out", "result");
    fs::remove_file(project.path("out")).unwrap();
    let object = project.cache.path_of(&kept.digest);
    let keep_and_damage = || {
        project.keep("out", "result");
        fs::remove_file(project.path("out")).unwrap();
        project.damage_unseen(&object, kept.digest);
        assert!(project.cache.has(&kept.digest, Kind::File).unwrap(), "the stamp is believed");
        stamp_of(&metadata(&object))
    };
    let assert_gone = |stamp: &FileStamp, found: Option<ObjectError>| {
        assert!(matches!(found, Some(ObjectError::Damaged { .. })), "{found:?}");
        assert!(!object.exists());
        assert_eq!(project.digests.lookup(stamp), None);
        assert!(!project.cache.has(&kept.digest, Kind::File).unwrap());
    };

    let stamp = keep_and_damage();
    // A reflink does not read the bytes; only where there are none they are seen.
    let restored = project.restore(kept, "back");
    if !matches!(restored, Ok(Some(Restored::Reflinked))) {
        assert_gone(&stamp, restored.err());
        assert!(!project.path("back").exists());
    }

    // Who reads other bytes than a stamp promised says so: then the object is read.
    for kind_of_look in 0..2 {
        let stamp = keep_and_damage();
        project.digests.forget(&stamp);
        let found = match kind_of_look {
            0 => project.cache.object_path(&kept.digest).err(),
            _ => project.cache.has(&kept.digest, Kind::File).err(),
        };
        assert_gone(&stamp, found);
    }

    let stamp = keep_and_damage();
    let report = project.cache.verify().unwrap();
    assert_eq!(report.bad.len(), 1);
    assert!(!object.exists());
    assert_eq!(project.digests.lookup(&stamp), None);
}

#[test]
fn an_object_of_another_size_is_damaged_whatever_its_stamp_promises() {
    let project = project();
    let text = "x".repeat(5 << 20);
    let kept = project.keep("large", &text);
    fs::remove_file(project.path("large")).unwrap();
    let object = project.cache.path_of(&kept.digest);
    set_mode(&object, 0o644);
    write(&object, &text.as_bytes()[1..]);
    let stamp = stamp_of(&metadata(&object));
    project.digests.remember_own(&stamp, kept.digest);
    let refused = project.restore(kept, "large");
    assert!(matches!(refused, Err(ObjectError::Damaged { .. })), "{refused:?}");
    assert!(!object.exists() && !project.path("large").exists());
    assert_eq!(project.digests.lookup(&stamp), None);
}

#[test]
fn a_damaged_part_of_a_directory_is_forgotten_too() {
    let project = project();
    let tree = make_tree(&project.path("tree"));
    project.cache.insert(&project.path("tree"), &tree).unwrap();
    fs::remove_dir_all(project.path("tree")).unwrap();
    let part = project.cache.path_of(&Digest::of(b"two"));
    project.damage_unseen(&part, Digest::of(b"two"));
    let stamp = stamp_of(&metadata(&part));
    let restored = project.restore(tree, "back");
    if !matches!(restored, Ok(Some(_))) {
        assert!(matches!(restored, Err(ObjectError::Damaged { .. })), "{restored:?}");
        assert!(!part.exists() && !project.path("back").exists());
        assert_eq!(project.digests.lookup(&stamp), None);
    }
}

#[test]
fn an_edited_output_that_is_the_object_is_noticed() {
    let project = project();
    let kept = project.keep("out", "result");
    let object = project.cache.path_of(&kept.digest);
    if fs::metadata(&object).unwrap().nlink() > 1 {
        project.damage(&project.path("out"));
        assert!(project.cache.object_path(&kept.digest).is_err());
    }
}

#[test]
fn verify_reads_everything_again() {
    let project = project();
    let good = project.keep("good", "good");
    let bad = project.keep("bad", "bad");
    fs::remove_file(project.path("bad")).unwrap();
    project.damage(&project.cache.path_of(&bad.digest));
    let report = project.cache.verify().unwrap();
    assert_eq!(report.objects, 2);
    assert_eq!(report.bad.iter().map(|bad| bad.digest).collect::<Vec<_>>(), vec![bad.digest]);
    assert_eq!(project.cache.verify().unwrap().bad, vec![]);
    assert!(project.cache.has(&good.digest, Kind::File).unwrap());
}

/// A directory with a file, an executable, a link, an empty folder and a name that is not UTF-8.
fn make_tree(root: &Path) -> Content {
    use std::os::unix::ffi::OsStrExt as _;
    fs::create_dir_all(root.join("a/empty")).expect("folders");
    write(&root.join("a/file"), b"one");
    write(&root.join("a-file"), b"one");
    write(&root.join("run"), b"#!/bin/sh");
    fs::set_permissions(root.join("run"), Permissions::from_mode(0o755)).expect("executable");
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff\n");
    write(&root.join(odd), b"two");
    symlink("../elsewhere", root.join("a/link")).expect("a link");
    let file = |path: &[u8], text: &[u8], executable| TreeEntry {
        path: path.to_vec(),
        node: TreeNode::File { digest: Digest::of(text), executable },
    };
    let other = |path: &[u8], node| TreeEntry { path: path.to_vec(), node };
    let digest = tree_digest(&mut [
        other(b"a", TreeNode::Directory),
        other(b"a/empty", TreeNode::Directory),
        file(b"a/file", b"one", false),
        other(b"a/link", TreeNode::Link { target: b"../elsewhere".to_vec() }),
        file(b"a-file", b"one", false),
        file(b"odd \xff\n", b"two", false),
        file(b"run", b"#!/bin/sh", true),
    ]);
    Content { digest, bytes: 18, kind: Kind::Directory }
}

#[test]
fn a_directory_comes_back_as_it_was() {
    let project = project();
    let tree = make_tree(&project.path("tree"));
    let kept = project.cache.insert(&project.path("tree"), &tree).unwrap();
    assert_eq!(kept, Inserted::Tree { files: 4 });
    fs::remove_dir_all(project.path("tree")).unwrap();
    for _ in 0..2 {
        let back = project.restore(tree, "back");
        assert_eq!(back.unwrap(), Some(Restored::Tree { files: 4 }));
        // Kept again only if the digest of what came back is the same.
        project.cache.insert(&project.path("back"), &tree).unwrap();
        write(&project.path("back/stray"), b"to be gone");
    }
    assert_eq!(fs::read_dir(project.folder.path()).unwrap().count(), 2);
    write(&project.path("file"), b"in the way");
    project.restore(tree, "file").unwrap();
    assert!(project.path("file/run").exists());
}

#[test]
fn a_directory_with_a_lost_or_damaged_part_does_not_come_back() {
    let project = project();
    let tree = make_tree(&project.path("tree"));
    project.cache.insert(&project.path("tree"), &tree).unwrap();
    fs::remove_dir_all(project.path("tree")).unwrap();
    let part = project.cache.path_of(&Digest::of(b"two"));
    project.damage(&part);
    let back = || project.restore(tree, "back");
    assert!(matches!(back(), Err(ObjectError::Damaged { .. })));
    assert_eq!(back().unwrap(), None);
    assert_eq!(project.cache.verify().unwrap().incomplete, vec![tree.digest]);
    let manifest = project.cache.path_of(&tree.digest).with_extension("tree");
    project.damage(&manifest);
    assert!(matches!(back(), Err(ObjectError::Damaged { .. })));
    assert!(!project.path("back").exists() && !manifest.exists());
}

#[test]
fn gc_takes_the_least_recently_used_and_says_what_it_frees() {
    let project = project();
    let texts = ["first ", "second", "third ", "fourth"];
    let kept: Vec<_> = texts.iter().map(|text| project.keep(text, text)).collect();
    for text in &texts[..3] {
        fs::remove_file(project.path(text)).unwrap();
    }
    let shared = fs::metadata(project.cache.path_of(&kept[3].digest)).unwrap().nlink() > 1;
    std::thread::sleep(Duration::from_millis(3));
    project.cache.object_path(&kept[0].digest).unwrap();
    let policy = GcPolicy { bytes_max: Some(6), keep: None, dry_run: true };
    let dry = project.cache.gc(&policy, &BTreeSet::new()).unwrap();
    assert_eq!(project.cache.stats().unwrap().objects, 4);
    let policy = GcPolicy { dry_run: false, ..policy };
    let report = project.cache.gc(&policy, &BTreeSet::new()).unwrap();
    assert_eq!(report, dry);
    if shared {
        assert_eq!((report.removed, report.bytes_freed, report.bytes_shared), (2, 12, 0));
        assert!(project.cache.has(&kept[0].digest, Kind::File).unwrap(), "used last");
        assert!(!project.cache.has(&kept[1].digest, Kind::File).unwrap());
    }
}

#[test]
fn gc_leaves_what_is_in_use_and_frees_nothing_of_outputs() {
    let project = project();
    let tree = make_tree(&project.path("tree"));
    project.cache.insert(&project.path("tree"), &tree).unwrap();
    let file = project.keep("out", "result");
    std::thread::sleep(Duration::from_millis(3));
    let policy = GcPolicy { keep: Some(Duration::ZERO), ..GcPolicy::default() };
    let report = project.cache.gc(&policy, &BTreeSet::from([tree.digest])).unwrap();
    assert_eq!((report.removed, report.kept_in_use), (1, 4), "{report:?}");
    assert_eq!(report.bytes_freed + report.bytes_shared, 6);
    assert!(project.cache.has(&tree.digest, Kind::Directory).unwrap());
    let published = fs::metadata(project.path("out")).unwrap();
    let known = project.digests.lookup(&stamp_of(&published));
    assert_eq!(known, Some(file.digest), "its stamp is carried over");
}

#[test]
fn uses_are_remembered_by_the_next_process() {
    let project = project();
    let old = project.keep("old", "old");
    let new = project.keep("new", "new");
    std::thread::sleep(Duration::from_millis(3));
    for name in ["old", "new"] {
        fs::remove_file(project.path(name)).unwrap();
    }
    project.cache.object_path(&old.digest).unwrap();
    let Project { folder, digests, cache } = project;
    drop(cache);
    let cache = ObjectCache::open(&folder.path().join(".keelboat"), digests).unwrap();
    let policy = GcPolicy { bytes_max: Some(3), ..GcPolicy::default() };
    cache.gc(&policy, &BTreeSet::new()).unwrap();
    assert!(cache.has(&old.digest, Kind::File).unwrap());
    assert!(!cache.has(&new.digest, Kind::File).unwrap());
}
