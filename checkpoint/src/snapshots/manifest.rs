//! What a snapshot holds, as its manifest says, version 1: a file header and one frame.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use keelboat_engine::{Digest, MemoKey, Timestamp};
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::frame::{self, FILE_HEADER_BYTES, FileHeader, Found};

const HEADER_NAME: [u8; 8] = *b"KEELSNAP";
const VERSION: u16 = 1;
const FRAME_MAGIC: frame::Magic = [0xB7, b'K', b'S', 1];

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) key: MemoKey,
    pub(super) origin: Origin,
    /// Each directory before what is in it, by path.
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative, of plain names.
    pub(super) path: PathBuf,
    pub(super) node: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory { mode: u32 },
    File { digest: Digest, bytes: u64, mode: u32, modified: (i64, u32) },
    Link { target: Vec<u8> },
}

impl Manifest {
    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.iter().map(Entry::bytes).sum()
    }

    /// The digest of the file at this path.
    pub(super) fn digest_at(&self, path: &Path) -> Option<Digest> {
        let at = self.entries.binary_search_by(|entry| entry.path.as_path().cmp(path)).ok()?;
        match self.entries[at].node {
            Node::File { digest, .. } => Some(digest),
            Node::Directory { .. } | Node::Link { .. } => None,
        }
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        match self.node {
            Node::File { bytes, .. } => bytes,
            Node::Directory { .. } | Node::Link { .. } => 0,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct ManifestV1<'a> {
    key: [u8; 32],
    run: &'a str,
    task: &'a str,
    ordinal: u32,
    saved_ms: u64,
    #[serde(borrow)]
    entries: Vec<EntryV1<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryV1<'a> {
    path: &'a [u8],
    #[serde(borrow)]
    node: NodeV1<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
enum NodeV1<'a> {
    Directory { mode: u32 },
    File { digest: [u8; 32], bytes: u64, mode: u32, modified: (i64, u32) },
    Link { target: &'a [u8] },
}

pub(super) fn encode(manifest: &Manifest) -> Result<Vec<u8>, postcard::Error> {
    let disk = ManifestV1 {
        key: *manifest.key.0.as_bytes(),
        run: &manifest.origin.run,
        task: &manifest.origin.task,
        ordinal: manifest.origin.ordinal,
        saved_ms: manifest.origin.saved.0,
        entries: manifest.entries.iter().map(EntryV1::from).collect(),
    };
    let mut bytes = frame::file_header(HEADER_NAME, VERSION).to_vec();
    frame::push_frame(&mut bytes, FRAME_MAGIC, FILE_HEADER_BYTES as u64, |buffer| {
        postcard::to_io(&disk, buffer).map(|_| ())
    })?;
    Ok(bytes)
}

/// `None`: it is torn, damaged, of another version, or leads out of its directory.
pub(super) fn decode(bytes: &[u8]) -> Option<Manifest> {
    if frame::read_file_header(bytes, HEADER_NAME) != FileHeader::Version(VERSION) {
        return None;
    }
    let frames = bytes.get(FILE_HEADER_BYTES..)?;
    let mut manifest = None;
    let settled = frame::scan(frames, FRAME_MAGIC, FILE_HEADER_BYTES as u64, |found| {
        if let Found::Frame { payload, .. } = found {
            manifest = postcard::from_bytes::<ManifestV1<'_>>(payload).ok().map(Manifest::from);
        }
    });
    let whole = settled == frames.len();
    manifest.filter(|manifest: &Manifest| whole && is_safe(&manifest.entries))
}

/// Whether every path stays below the directory, and below directories that stand before it.
fn is_safe(entries: &[Entry]) -> bool {
    let is_sorted = entries.is_sorted_by(|a, b| a.path < b.path);
    is_sorted
        && entries.iter().all(|entry| {
            let mut parts = entry.path.components();
            let is_plain = parts.all(|part| matches!(part, Component::Normal(_)));
            let is_named = !entry.path.as_os_str().is_empty();
            let above = entry.path.parent().unwrap_or_else(|| Path::new(""));
            let at = entries.binary_search_by(|other| other.path.as_path().cmp(above));
            let is_below = above.as_os_str().is_empty()
                || at.is_ok_and(|at| matches!(entries[at].node, Node::Directory { .. }));
            is_plain && is_named && is_below
        })
}

impl From<ManifestV1<'_>> for Manifest {
    fn from(disk: ManifestV1<'_>) -> Self {
        Self {
            key: MemoKey(Digest::from_bytes(disk.key)),
            origin: Origin {
                run: disk.run.to_owned(),
                task: disk.task.to_owned(),
                ordinal: disk.ordinal,
                saved: Timestamp(disk.saved_ms),
            },
            entries: disk.entries.into_iter().map(Entry::from).collect(),
        }
    }
}

impl<'a> From<&'a Entry> for EntryV1<'a> {
    fn from(entry: &'a Entry) -> Self {
        let node = match &entry.node {
            Node::Directory { mode } => NodeV1::Directory { mode: *mode },
            Node::File { digest, bytes, mode, modified } => NodeV1::File {
                digest: *digest.as_bytes(),
                bytes: *bytes,
                mode: *mode,
                modified: *modified,
            },
            Node::Link { target } => NodeV1::Link { target },
        };
        Self { path: entry.path.as_os_str().as_bytes(), node }
    }
}

impl From<EntryV1<'_>> for Entry {
    fn from(disk: EntryV1<'_>) -> Self {
        let node = match disk.node {
            NodeV1::Directory { mode } => Node::Directory { mode },
            NodeV1::File { digest, bytes, mode, modified } => {
                Node::File { digest: Digest::from_bytes(digest), bytes, mode, modified }
            }
            NodeV1::Link { target } => Node::Link { target: target.to_vec() },
        };
        Self { path: PathBuf::from(OsStr::from_bytes(disk.path)), node }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/snapshot-v1.bin");

    fn entry(path: &str, node: Node) -> Entry {
        Entry { path: path.into(), node }
    }

    fn file() -> Node {
        let digest = Digest::of(b"x");
        Node::File { digest, bytes: 1, mode: 0o640, modified: (1_700_000_000, 5) }
    }

    fn manifest(entries: Vec<Entry>) -> Manifest {
        let origin = Origin {
            run: "20261122-100000-000-17".into(),
            task: "count[n=\u{e9}]".into(),
            ordinal: 3,
            saved: Timestamp(1_700_000_000_123),
        };
        Manifest { key: MemoKey(Digest::of(b"key")), origin, entries }
    }

    fn one_of_each() -> Manifest {
        let target = b"a/x".to_vec();
        manifest(vec![
            entry("a", Node::Directory { mode: 0o750 }),
            entry("a/x", file()),
            entry("l", Node::Link { target }),
        ])
    }

    #[test]
    fn version_1_is_read_and_written_to_the_byte() {
        let golden = std::fs::read(GOLDEN).unwrap();
        assert_eq!(decode(&golden), Some(one_of_each()));
        assert_eq!(encode(&one_of_each()).unwrap(), golden);
    }

    #[test]
    #[ignore = "writes the golden file of a new version"]
    fn write_golden() {
        let path = Path::new(GOLDEN);
        assert!(!path.exists(), "a golden file is never replaced");
        std::fs::write(path, encode(&one_of_each()).unwrap()).unwrap();
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&one_of_each()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn paths_that_leave_their_directory_are_refused() {
        let directory = || Node::Directory { mode: 0o700 };
        let link = || Node::Link { target: b"/etc".to_vec() };
        for bad in [
            vec![entry("../x", file())],
            vec![entry("/etc/x", file())],
            vec![entry("", file())],
            vec![entry("a/x", file())],
            vec![entry("a", link()), entry("a/x", file())],
            vec![entry("b", directory()), entry("a", file())],
            vec![entry("a", file()), entry("a", file())],
        ] {
            assert_eq!(decode(&encode(&manifest(bad.clone())).unwrap()), None, "{bad:?}");
        }
    }
}
