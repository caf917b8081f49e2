//! The object cache: what comes back is what went in, or nothing.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keelboat_checkpoint::{
    DigestCache, GcPolicy, Inserted, ObjectCache, ObjectError, Restored, stamp_of,
};
use keelboat_engine::{Content, Digest, Kind, TreeEntry, TreeNode, tree_digest};

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

#[test]
fn a_kept_file_shares_its_bytes_and_comes_back() {
    let project = project();
    let kept = project.keep("out.txt", "result");
    let object = project.cache.object_path(&kept.digest).unwrap().unwrap();
    let metadata = fs::metadata(&object).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o444);
    let published = fs::metadata(project.path("out.txt")).unwrap();
    assert_eq!(project.digests.lookup(&stamp_of(&published)), Some(kept.digest));
    assert_eq!(
        project.cache.insert(&project.path("out.txt"), &kept).unwrap(),
        Inserted::AlreadyThere
    );

    fs::remove_file(project.path("out.txt")).unwrap();
    let restored = project.cache.restore(&kept.digest, &project.path("sub/out.txt"), Kind::File);
    assert!(matches!(restored.unwrap(), Some(Restored::Copied | Restored::Reflinked)));
    assert_eq!(read(&project.path("sub/out.txt")), b"result");
    let nothing = project.cache.restore(&Digest::of(b"?"), &project.path("x"), Kind::File);
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
        let restored = project.cache.restore(&kept.digest, &project.path("large"), Kind::File);
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
    assert!(matches!(refused, Err(ObjectError::Mismatch { .. })), "{refused:?}");
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
    let error = project.cache.restore(&kept.digest, &project.path("out"), Kind::File).unwrap_err();
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
        let back = project.cache.restore(&tree.digest, &project.path("back"), Kind::Directory);
        assert_eq!(back.unwrap(), Some(Restored::Tree { files: 4 }));
        // Kept again only if the digest of what came back is the same.
        project.cache.insert(&project.path("back"), &tree).unwrap();
        write(&project.path("back/stray"), b"to be gone");
    }
    assert_eq!(fs::read_dir(project.folder.path()).unwrap().count(), 2);
    write(&project.path("file"), b"in the way");
    project.cache.restore(&tree.digest, &project.path("file"), Kind::Directory).unwrap();
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
    let back = || project.cache.restore(&tree.digest, &project.path("back"), Kind::Directory);
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
