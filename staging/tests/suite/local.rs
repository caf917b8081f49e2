//! Digests, scratch directories, publication and delivery on a real file system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use keelboat_engine::{Content, Digest, FailureClass, FileStamp, Kind, OutputSpec};
use keelboat_staging::{
    Delivered, DigestMemory, Forgetful, LocalError, Placement, PublishError, Scratch, deliver,
    digest_path, publish, remove_tree, stamp_of,
};

use crate::common::{noise, room};

/// Remembers everything it is told.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<FileStamp, Digest>>);

impl DigestMemory for Memory {
    fn recall(&self, stamp: &FileStamp) -> Option<Digest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(stamp).copied()
    }

    fn remember(&self, stamp: &FileStamp, digest: Digest, _hashed_at: SystemTime) {
        self.remember_own(stamp, digest);
    }

    fn remember_own(&self, stamp: &FileStamp, digest: Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*stamp, digest);
    }
}

fn output(name: &str, kind: Kind) -> OutputSpec {
    OutputSpec {
        label: "out".into(),
        path: format!("final/{name}").into(),
        scratch_path: name.into(),
        kind,
        optional: false,
        captures: None,
        deliver_to: None,
    }
}

fn content(bytes: &[u8]) -> Content {
    Content { digest: Digest::of(bytes), bytes: bytes.len() as u64, kind: Kind::File }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
    fs::write(path, bytes).expect("a file");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn digests_come_from_memory_unless_strict() {
    let (dir, memory) = (room(), Memory::default());
    let path = dir.path().join("file");
    write(&path, b"bytes");
    assert_eq!(digest_path(&path, Kind::File, &memory, false).unwrap(), content(b"bytes"));
    memory.remember_own(&stamp_of(&path.metadata().unwrap()), Digest::of(b"wrong"));
    let remembered = digest_path(&path, Kind::File, &memory, false).unwrap();
    assert_eq!(remembered.digest, Digest::of(b"wrong"), "not read");
    assert_eq!(digest_path(&path, Kind::File, &memory, true).unwrap(), content(b"bytes"));
}

#[test]
fn trees_are_digested_with_modes_links_and_odd_names() {
    use std::os::unix::ffi::OsStrExt;
    let dir = room();
    let tree = dir.path().join("tree");
    write(&tree.join("a/b"), b"1");
    write(&tree.join(std::ffi::OsStr::from_bytes(b"not utf-8 \xff\n")), b"2");
    symlink("a/b", tree.join("link")).unwrap();
    let digest = || digest_path(&tree, Kind::Directory, &Forgetful, false).unwrap();
    let before = digest();
    assert_eq!(before.bytes, 2);
    assert_eq!(before, digest());
    mode(&tree.join("a/b"), 0o755);
    let executable = digest();
    assert_ne!(before.digest, executable.digest);
    fs::create_dir(tree.join("empty")).unwrap();
    assert_ne!(executable.digest, digest().digest);
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let error = digest_path(&tree, Kind::Directory, &Forgetful, false).unwrap_err();
    assert!(matches!(error, LocalError::Special { .. }), "{error}");
    assert!(error.to_string().contains("socket is a socket"), "{error}");
}

#[test]
fn large_trees_are_digested_by_threads_to_the_same_end() {
    let dir = room();
    for number in 0..9 {
        write(&dir.path().join(format!("tree/{number}")), &noise(number, 8 << 20));
    }
    let tree = dir.path().join("tree");
    let memory = Memory::default();
    let parallel = digest_path(&tree, Kind::Directory, &memory, false).unwrap();
    // From memory, so by one path through the entries in their order.
    assert_eq!(digest_path(&tree, Kind::Directory, &memory, false).unwrap(), parallel);
    let single = digest_path(&tree.join("7"), Kind::File, &Forgetful, false).unwrap();
    let stamp = stamp_of(&tree.join("7").metadata().unwrap());
    assert_eq!(memory.recall(&stamp), Some(single.digest));
}

#[test]
fn errors_say_what_where_and_what_next() {
    let dir = room();
    let cases = [
        (dir.path().join("missing"), Kind::File, FailureClass::InputMissing, "no such file"),
        (dir.path().to_owned(), Kind::File, FailureClass::Permanent, "is a directory"),
        ("/dev/null".into(), Kind::File, FailureClass::Permanent, "is a device"),
    ];
    for (path, kind, class, said) in cases {
        let failure = digest_path(&path, kind, &Forgetful, false).unwrap_err().failure();
        assert_eq!(failure.class, class);
        assert!(failure.cause.contains(said), "{}", failure.cause);
        assert!(failure.cause.contains(path.to_str().unwrap()), "{}", failure.cause);
        assert!(failure.hint.is_some());
    }
}

#[test]
fn a_task_that_writes_to_its_input_harms_nobody() {
    let dir = room();
    let memory = Memory::default();
    for (size, executable) in [(100, false), (100, true), (5 << 20, false), (5 << 20, true)] {
        let bytes = noise(40, size);
        let source = dir.path().join("source");
        write(&source, &bytes);
        mode(&source, if executable { 0o555 } else { 0o444 });
        let scratch = Scratch::create(dir.path().join("scratch/1")).unwrap();
        let content = content(&bytes);
        let placement = Placement { source: &source, content: &content, name: "in/put" };
        scratch.place_input(&placement, &memory).unwrap();
        let placed = scratch.path().join("in/put");
        assert!(fs::read(&placed).unwrap() == bytes);
        let found = placed.metadata().unwrap();
        assert_eq!(found.mode() & 0o100 != 0, executable);
        assert_eq!(found.mode() & 0o200, 0o200, "a task may write to what is its own");
        assert_eq!(found.nlink(), 1);
        write(&placed, b"overwritten");
        assert!(fs::read(&source).unwrap() == bytes);
        scratch.remove().unwrap();
        fs::remove_file(source).unwrap();
    }
}

#[test]
fn inputs_that_are_not_what_is_known_are_refused() {
    let dir = room();
    let source = dir.path().join("source");
    let scratch = Scratch::create(dir.path().join("scratch")).unwrap();
    for size in [100, 5 << 20] {
        write(&source, &noise(42, size));
        let content = content(b"something else");
        let name = format!("in{size}");
        let placement = Placement { source: &source, content: &content, name: &name };
        let error = scratch.place_input(&placement, &Forgetful).unwrap_err();
        assert!(matches!(error, LocalError::Mismatch { .. }), "{error}");
    }
}

#[test]
fn names_never_lead_out_of_the_scratch_directory() {
    let dir = room();
    let source = dir.path().join("source");
    write(&source, b"x");
    let scratch = Scratch::create(dir.path().join("scratch")).unwrap();
    symlink(dir.path(), scratch.path().join("out")).unwrap();
    let content = content(b"x");
    for name in ["", "..", "../x", "a/../../x", "/x", "./x", "a/", "out/x"] {
        let placement = Placement { source: &source, content: &content, name };
        let error = scratch.place_input(&placement, &Forgetful).unwrap_err();
        assert!(matches!(error, LocalError::Escapes { .. }), "{name:?}: {error}");
    }
    let twice = Placement { source: &source, content: &content, name: "x" };
    scratch.place_input(&twice, &Forgetful).unwrap();
    let error = scratch.place_input(&twice, &Forgetful).unwrap_err();
    assert!(matches!(error, LocalError::Collision { .. }), "{error}");
}

#[test]
fn directories_are_placed_whole_and_without_ways_out() {
    let dir = room();
    let tree = dir.path().join("tree");
    write(&tree.join("sub/file"), b"x");
    mode(&tree.join("sub/file"), 0o755);
    symlink("../sub/file", tree.join("sub/link")).unwrap();
    let place = |name: &str| {
        let content = digest_path(&tree, Kind::Directory, &Forgetful, false).unwrap();
        let scratch = Scratch::create(dir.path().join(name)).unwrap();
        let placement = Placement { source: &tree, content: &content, name: "tree" };
        scratch.place_input(&placement, &Forgetful).map(|()| (scratch, content))
    };
    let (scratch, content) = place("good").unwrap();
    let placed = scratch.path().join("tree");
    let found = digest_path(&placed, Kind::Directory, &Forgetful, false).unwrap();
    assert_eq!(found, content);
    symlink("../../elsewhere", tree.join("sub/bad")).unwrap();
    let error = place("bad").unwrap_err();
    assert!(matches!(error, LocalError::Escapes { .. }), "{error}");
}

#[test]
fn outputs_replace_what_was_there_and_are_remembered() {
    let (dir, memory) = (room(), Memory::default());
    let outputs = [output("a/file", Kind::File), output("tree", Kind::Directory)];
    for round in [b"1", b"2"] {
        let scratch = Scratch::create(dir.path().join("scratch")).unwrap();
        scratch.prepare_outputs(&outputs).unwrap();
        write(&scratch.path().join("a/file"), round);
        write(&scratch.path().join("tree/in"), round);
        let contents = publish(scratch.path(), &outputs, dir.path(), &memory).unwrap();
        assert_eq!(contents[0], Some(content(round)));
        let tree = dir.path().join("final/tree");
        assert_eq!(contents[1], digest_path(&tree, Kind::Directory, &Forgetful, true).ok());
        let published = dir.path().join("final/a/file");
        assert_eq!(fs::read(&published).unwrap(), round);
        let stamp = stamp_of(&published.metadata().unwrap());
        assert_eq!(memory.recall(&stamp), Some(Digest::of(round)));
        scratch.remove().unwrap();
    }
    let left: Vec<_> = fs::read_dir(dir.path().join("final")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn nothing_shows_when_one_output_cannot_be_published() {
    let dir = room();
    let names = ["first", "second", "third"];
    let outputs = names.map(|name| output(name, Kind::File));
    write(&dir.path().join("final/first"), b"old");
    let scratch = Scratch::create(dir.path().join("scratch")).unwrap();
    for name in names {
        write(&scratch.path().join(name), b"new");
    }
    // The last one has no place to go.
    let mut blocked = outputs.clone();
    blocked[2].path = "final/first/below-a-file".into();
    let error = publish(scratch.path(), &blocked, dir.path(), &Forgetful).unwrap_err();
    assert!(matches!(error, PublishError::Local { .. }), "{error}");
    assert_eq!(fs::read(dir.path().join("final/first")).unwrap(), b"old");
    assert!(!dir.path().join("final/second").exists());
    // And when one is missing, nothing is moved at all.
    fs::remove_file(scratch.path().join("third")).unwrap();
    let error = publish(scratch.path(), &outputs, dir.path(), &Forgetful).unwrap_err();
    assert!(matches!(error, PublishError::Missing { .. }), "{error}");
    assert_eq!(error.failure().class, FailureClass::Permanent);
    assert_eq!(fs::read(dir.path().join("final/first")).unwrap(), b"old");
    assert_eq!(fs::read(scratch.path().join("first")).unwrap(), b"new", "it can be looked at");
}

#[test]
fn outputs_cross_file_systems() {
    let shm = Path::new("/dev/shm");
    let dir = room();
    let elsewhere = match tempfile::tempdir_in(shm) {
        Ok(elsewhere) if device(elsewhere.path()) != device(dir.path()) => elsewhere,
        _ => return println!("skipped: /dev/shm is not a file system of its own"),
    };
    let outputs = [output("file", Kind::File), output("tree", Kind::Directory)];
    for round in [b"1", b"2"] {
        let scratch = Scratch::create(elsewhere.path().join("scratch")).unwrap();
        write(&scratch.path().join("file"), round);
        write(&scratch.path().join("tree/in"), round);
        publish(scratch.path(), &outputs, dir.path(), &Forgetful).unwrap();
        assert_eq!(fs::read(dir.path().join("final/file")).unwrap(), round);
        assert_eq!(fs::read(dir.path().join("final/tree/in")).unwrap(), round);
        scratch.remove().unwrap();
    }
    assert_eq!(fs::read_dir(dir.path().join("final")).unwrap().count(), 2, "no temporary names");
}

fn device(path: &Path) -> u64 {
    path.metadata().expect("metadata").dev()
}

#[test]
fn links_among_outputs_become_files_and_never_lead_out() {
    let dir = room();
    let scratch = Scratch::create(dir.path().join("scratch")).unwrap();
    let object = dir.path().join("object");
    write(&object, b"cached");
    fs::hard_link(&object, scratch.path().join("moved-input")).unwrap();
    write(&scratch.path().join("real"), b"real");
    symlink("real", scratch.path().join("inside")).unwrap();
    symlink(&object, scratch.path().join("outside")).unwrap();
    let names = ["moved-input", "inside", "real"];
    let outputs = names.map(|name| output(name, Kind::File));
    publish(scratch.path(), &outputs, dir.path(), &Forgetful).unwrap();
    for (name, bytes) in
        [("moved-input", b"cached".as_slice()), ("inside", b"real"), ("real", b"real")]
    {
        let found = dir.path().join("final").join(name);
        let metadata = found.symlink_metadata().unwrap();
        assert!(metadata.is_file() && metadata.nlink() == 1, "{name}");
        assert_eq!(fs::read(found).unwrap(), bytes);
    }
    let outside = [output("outside", Kind::File)];
    let error = publish(scratch.path(), &outside, dir.path(), &Forgetful).unwrap_err();
    assert!(matches!(error, PublishError::LinkOutside { .. }), "{error}");
}

#[test]
fn an_optional_output_that_is_not_written_leaves_no_old_one() {
    let dir = room();
    write(&dir.path().join("final/maybe"), b"old");
    let scratch = Scratch::create(dir.path().join("scratch")).unwrap();
    let outputs = [OutputSpec { optional: true, ..output("maybe", Kind::File) }];
    for _ in 0..2 {
        let contents = publish(scratch.path(), &outputs, dir.path(), &Forgetful).unwrap();
        assert_eq!(contents, [None]);
        assert_eq!(fs::read_dir(dir.path().join("final")).unwrap().count(), 0);
    }
}

#[test]
fn scratch_directories_go_whatever_their_modes() {
    let dir = room();
    let scratch = Scratch::create(dir.path().join("a/b/scratch")).unwrap();
    write(&scratch.path().join("locked/deep/file"), b"x");
    mode(&scratch.path().join("locked/deep"), 0o500);
    mode(&scratch.path().join("locked"), 0o100);
    let path = scratch.path().to_owned();
    scratch.remove().unwrap();
    assert!(!path.exists());
    remove_tree(&path).unwrap();
    write(&path.join("left by a crash"), b"x");
    let again = Scratch::create(path).unwrap();
    assert_eq!(fs::read_dir(again.path()).unwrap().count(), 0);
}

#[test]
fn deliveries_are_whole_and_not_repeated() {
    let (dir, memory) = (room(), Memory::default());
    let source = dir.path().join("source");
    write(&source, b"result");
    let address = format!("file://{}/to%20deliver/file", dir.path().display());
    let send = |expected| deliver(&source, &content(expected), &address, &memory);
    assert_eq!(send(b"result").unwrap(), Delivered::Copied);
    assert_eq!(fs::read(dir.path().join("to deliver/file")).unwrap(), b"result");
    assert_eq!(send(b"result").unwrap(), Delivered::AlreadyThere);
    let error = send(b"other").unwrap_err();
    assert!(matches!(error, LocalError::Mismatch { .. }), "{error}");
    assert_eq!(fs::read(dir.path().join("to deliver/file")).unwrap(), b"result");
    let error = deliver(&source, &content(b"result"), "file://host/x", &memory).unwrap_err();
    assert!(matches!(error, LocalError::Address { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("to deliver")).unwrap().count(), 1);
}

#[test]
fn an_output_behind_a_link_that_leads_out_is_refused() {
    let dir = room();
    let elsewhere = dir.path().join("elsewhere");
    write(&elsewhere.join("x"), b"somebody's");
    let scratch = Scratch::create(dir.path().join("scratch")).unwrap();
    symlink(&elsewhere, scratch.path().join("out")).unwrap();
    let project = dir.path().join("project");
    let outputs = [output("out/x", Kind::File)];
    let error = publish(scratch.path(), &outputs, &project, &Forgetful).unwrap_err();
    assert!(matches!(error, PublishError::LinkOutside { .. }), "{error}");
    assert_eq!(fs::read(elsewhere.join("x")).unwrap(), b"somebody's");
}
