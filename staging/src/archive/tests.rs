use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use ::tar::{Builder, EntryType, Header};
use ::zip::ZipWriter;
use ::zip::write::SimpleFileOptions;
use keelboat_engine::FailureClass;

use super::*;
use crate::protocol::{Depth, Entry};

/// One member: its name as it stands in the archive, and what it is.
enum Put<'a> {
    File(&'a str, &'a [u8]),
    Program(&'a str, &'a [u8]),
    Directory(&'a str),
    Link(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    Pipe(&'a str),
}
use Put::{Directory, File as Plain, HardLink, Link, Pipe, Program};

fn tar_of(members: &[Put<'_>]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for member in members {
        let (name, kind, mode, link, bytes): (_, _, _, _, &[u8]) = match member {
            Plain(name, bytes) => (name, EntryType::Regular, 0o644, "", bytes),
            Program(name, bytes) => (name, EntryType::Regular, 0o755, "", bytes),
            Directory(name) => (name, EntryType::Directory, 0o755, "", b""),
            Link(name, to) => (name, EntryType::Symlink, 0o777, to, b""),
            HardLink(name, to) => (name, EntryType::Link, 0o644, to, b""),
            Pipe(name) => (name, EntryType::Fifo, 0o644, "", b""),
        };
        let mut header = Header::new_ustar();
        // Names as nobody should write them, too.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn zip_of(members: &[Put<'_>]) -> Vec<u8> {
    let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for member in members {
        match member {
            Plain(name, bytes) => {
                zip.start_file(*name, options).unwrap();
                zip.write_all(bytes).unwrap();
            }
            Program(name, bytes) => {
                zip.start_file(*name, options.unix_permissions(0o755)).unwrap();
                zip.write_all(bytes).unwrap();
            }
            Directory(name) => zip.add_directory(*name, options).unwrap(),
            Link(name, to) => zip.add_symlink(*name, *to, options).unwrap(),
            HardLink(..) | Pipe(_) => panic!("there are none in zip archives"),
        }
    }
    zip.finish().unwrap().into_inner()
}

struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn extract(
        &self,
        format: &str,
        bytes: &[u8],
        member: &str,
        kind: Kind,
    ) -> Result<PathBuf, TransferError> {
        let (archive, to) = (self.path("archive"), self.path("inner/to"));
        if to.symlink_metadata().is_ok() {
            crate::remove_tree(&to).unwrap();
        }
        fs::create_dir_all(self.path("inner")).unwrap();
        fs::write(&archive, bytes).unwrap();
        let wanted = Wanted { member, kind, to: &to };
        extract(&archive, format, &[wanted], 1 << 20).remove(0)?;
        Ok(to)
    }

    /// Nothing but the archive and what it was to be unpacked to.
    fn assert_nothing_escaped(&self) {
        let names = |path: PathBuf| -> Vec<_> {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names(self.path("")).len(), 2);
        assert!(names(self.path("inner")).len() <= 1);
    }
}

fn usual() -> Vec<Put<'static>> {
    vec![
        Directory("top/"),
        Plain("top/a b.txt", b"first"),
        Program("top/run.sh", b"#!/bin/sh"),
        Plain("top/deep/er/x", b"deep"),
        Link("top/link", "deep/er/x"),
        Plain("other", b"other"),
    ]
}

fn read(path: PathBuf) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn assert_usual(format: &str, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let room = Room::new();
    let to = room.extract(format, bytes, "top/a b.txt", Kind::File).unwrap();
    assert_eq!(read(to), b"first");
    let to = room.extract(format, bytes, "top/link", Kind::File).unwrap();
    assert_eq!(read(to), b"deep", "a link is followed");
    let to = room.extract(format, bytes, "top", Kind::Directory).unwrap();
    assert_eq!(read(to.join("deep/er/x")), b"deep");
    assert_eq!(read(to.join("link")), b"deep");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 4);
    assert_eq!(to.join("run.sh").metadata().unwrap().permissions().mode() & 0o777, 0o755);
    let to = room.extract(format, bytes, "", Kind::Directory).unwrap();
    assert_eq!(read(to.join("other")), b"other");
    let class = |member, kind| room.extract(format, bytes, member, kind).unwrap_err().class();
    assert_eq!(class("none", Kind::File), FailureClass::InputMissing);
    assert_eq!(class("none", Kind::Directory), FailureClass::InputMissing);
    assert_eq!(class("top", Kind::File), FailureClass::Permanent, "a directory");
    assert_eq!(class("other", Kind::Directory), FailureClass::Permanent, "a file");
    assert_eq!(class("top/../other", Kind::File), FailureClass::InputMissing);
    room.assert_nothing_escaped();
}

#[test]
fn members_of_zip_archives_are_found() {
    assert_usual("zip", &zip_of(&usual()));
}

#[test]
fn members_of_tar_archives_are_found_however_compressed() {
    let plain = tar_of(&usual());
    assert_usual("tar", &plain);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).unwrap();
    assert_usual("tar", &gz.finish().unwrap());
    assert_usual("tar", &zstd::encode_all(&*plain, 1).unwrap());
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    assert_usual("tar", &xz.finish().unwrap());
    let mut bz2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz2.write_all(&plain).unwrap();
    assert_usual("tar", &bz2.finish().unwrap());
}

#[test]
fn nothing_is_written_outside() {
    let hostile: [&[Put<'_>]; 9] = [
        &[Plain("../escaped", b"x")],
        &[Plain("/tmp/keelboat-escaped", b"x")],
        &[Plain("a/../../escaped", b"x")],
        &[Link("a", "/etc"), Plain("b", b"x")],
        &[Link("a", "../.."), Plain("b", b"x")],
        &[Link("a", "."), Link("b", "a/../.."), Plain("c", b"x")],
        &[Link("a", ".."), Plain("a/escaped", b"x")],
        &[Link("a", "."), Link("a/b", "..")],
        &[Link("d/a", "../.."), Plain("d/x", b"x")],
    ];
    for (at, members) in hostile.iter().enumerate() {
        for (format, bytes) in [("tar", tar_of(members)), ("zip", zip_of(members))] {
            let room = Room::new();
            let extracted = room.extract(format, &bytes, "", Kind::Directory);
            assert!(extracted.is_err(), "{format} {at}");
            room.assert_nothing_escaped();
        }
    }
    for members in [
        &[HardLink("a", "/etc/passwd")][..],
        &[HardLink("a", "../archive")],
        &[HardLink("a", "never")],
        &[Pipe("a")],
    ] {
        let room = Room::new();
        assert!(room.extract("tar", &tar_of(members), "", Kind::Directory).is_err());
        room.assert_nothing_escaped();
    }
}

#[test]
fn a_later_member_takes_the_place_of_an_earlier_one() {
    let room = Room::new();
    let bytes = tar_of(&[
        Plain("a", b"old"),
        HardLink("same", "a"),
        Link("l", "a"),
        Plain("l", b"file"),
        Plain("./a", b"new"),
    ]);
    let to = room.extract("tar", &bytes, "", Kind::Directory).unwrap();
    assert_eq!(read(to.join("a")), b"new");
    assert_eq!(read(to.join("same")), b"old");
    assert_eq!(read(to.join("l")), b"file");
    let to = room.extract("tar", &bytes, "a", Kind::File).unwrap();
    assert_eq!(read(to), b"new");
}

#[test]
fn members_that_lie_beside_each_other_come_in_one_pass() {
    for (format, bytes) in [("tar", tar_of(&usual())), ("zip", zip_of(&usual()))] {
        let room = Room::new();
        let archive = room.path("archive");
        fs::write(&archive, &bytes).unwrap();
        let passes = |members: &[(&str, Kind)]| {
            let paths: Vec<_> = (0..members.len()).map(|at| room.path(&format!("{at}"))).collect();
            let wanted: Vec<_> = members
                .iter()
                .zip(&paths)
                .map(|((member, kind), to)| {
                    if to.symlink_metadata().is_ok() {
                        crate::remove_tree(to).unwrap();
                    }
                    Wanted { member, kind: *kind, to }
                })
                .collect();
            let mut passes = 0;
            let results = unpack(&wanted, 1 << 20, |targets| {
                passes += 1;
                if format == "zip" {
                    zip::read(&archive, targets)
                } else {
                    tar::read(&archive, targets)
                }
            });
            let failed: Vec<_> = results.iter().map(Result::is_err).collect();
            (passes, failed, paths)
        };
        let (count, failed, paths) = passes(&[
            ("top/deep", Kind::Directory),
            ("top/a b.txt", Kind::File),
            ("none", Kind::File),
            ("other", Kind::File),
            ("top/run.sh", Kind::Directory),
        ]);
        assert_eq!((count, failed), (1, vec![false, false, true, false, true]));
        assert_eq!(read(paths[0].join("er/x")), b"deep");
        assert_eq!(
            (read(paths[1].clone()), read(paths[3].clone())),
            (b"first".into(), b"other".into())
        );
        let (count, failed, paths) =
            passes(&[("top", Kind::Directory), ("top/link", Kind::File), ("", Kind::Directory)]);
        assert_eq!((count, failed), (4, vec![false; 3]), "below each other, and a link");
        assert_eq!(read(paths[0].join("a b.txt")), b"first");
        assert_eq!(read(paths[1].clone()), b"deep");
        assert_eq!(read(paths[2].join("top/run.sh")), b"#!/bin/sh");
    }
}

#[test]
fn links_in_a_circle_end() {
    let room = Room::new();
    let bytes = tar_of(&[Link("a", "b"), Link("b", "a")]);
    let error = room.extract("tar", &bytes, "a", Kind::File).unwrap_err();
    assert_eq!(error.class(), FailureClass::InputMissing);
}

#[test]
fn damage_is_found() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gz.write_all(&tar_of(&usual())).unwrap();
    let whole = gz.finish().unwrap();
    let room = Room::new();
    let cut = room.extract("tar", &whole[..whole.len() - 9], "other", Kind::File);
    assert_eq!(cut.unwrap_err().class(), FailureClass::Permanent);
    let mut flipped = whole;
    flipped[600] ^= 1;
    let flipped = room.extract("tar", &flipped, "other", Kind::File);
    assert_eq!(flipped.unwrap_err().class(), FailureClass::Permanent);
    let mut zip = zip_of(&[Plain("a", b"contents of a stored file")]);
    let at = zip.windows(8).position(|window| window == b"contents");
    if let Some(at) = at {
        zip[at] ^= 1;
        assert!(room.extract("zip", &zip, "a", Kind::File).is_err());
    }
    assert!(room.extract("zip", b"<html>not found</html>", "a", Kind::File).is_err());
}

#[test]
fn a_bomb_is_no_danger() {
    let room = Room::new();
    let zeros = vec![0; 4 << 20];
    let few = vec![0; 400 << 10];
    for bytes in [
        zip_of(&[Plain("a", &zeros)]),
        zstd::encode_all(&*tar_of(&[Plain("a", &zeros)]), 1).unwrap(),
        tar_of(&[Plain("a", &few), HardLink("b", "a"), HardLink("c", "b")]),
    ] {
        let format = if bytes.starts_with(b"PK") { "zip" } else { "tar" };
        let error = room.extract(format, &bytes, "", Kind::Directory).unwrap_err();
        assert!(error.to_string().contains("more bytes than"), "{error}");
        assert!(error.hint().contains("unpacked_max"), "{}", error.hint());
    }
}

#[test]
fn members_are_listed_with_the_directories_that_nobody_names() {
    let members = [
        Directory("all/"),
        Plain("all/a", b"one"),
        Plain("./all/deep/er/b", b"four"),
        Link("all/link", "a"),
        Plain("other", b""),
        Plain("all/a", b"three"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    fs::write(&path, tar_of(&members)).unwrap();
    let listed = |member: &str, depth| -> Vec<(String, Option<u64>)> {
        let entries = list(&path, "tar", member, depth).unwrap();
        let shown = |entry: Entry| match entry.kind {
            Kind::Directory => (format!("{}/", entry.path), None),
            Kind::File => (entry.path, entry.length),
        };
        entries.into_iter().map(shown).collect()
    };
    let entry = |name: &str, length| (name.to_owned(), length);
    assert_eq!(listed("", Depth::One), [entry("all/", None), entry("other", Some(0))]);
    let all = [
        entry("a", Some(5)),
        entry("deep/", None),
        entry("deep/er/", None),
        entry("deep/er/b", Some(4)),
        entry("link", None),
    ];
    assert_eq!(listed("all", Depth::All), all);
    assert_eq!(listed("all/deep/er/b", Depth::One), [entry("b", Some(4))]);
    let missing = list(&path, "tar", "nothing", Depth::One).unwrap_err();
    assert!(matches!(missing, TransferError::Missing { .. }), "{missing}");
    fs::write(&path, tar_of(&[Plain("../x", b"x")])).unwrap();
    let escaping = list(&path, "tar", "", Depth::One).unwrap_err();
    assert!(escaping.to_string().contains("leads out of it"), "{escaping}");
}
