//! Directories in the cache: a manifest under the tree digest (`….tree`), and each file as an object.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use keelboat_engine::{Content, Digest, Kind, TreeEntry, TreeNode, tree_digest};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::place::{self, Checked, Sharing};
use super::{Inserted, ObjectCache, ObjectError, Restored, is_executable};
use crate::digests::stamp_of;
use crate::error::IoContext as _;
use crate::files;
use crate::frame::{self, FILE_HEADER_BYTES, FileHeader, Found};

const HEADER_NAME: [u8; 8] = *b"KEELTREE";
const VERSION: u16 = 1;
const FRAME_MAGIC: frame::Magic = [0xB7, b'K', b'T', 1];

/// One entry of a manifest, version 1.
#[derive(Debug, Serialize, Deserialize)]
struct EntryV1<'a> {
    path: &'a [u8],
    node: NodeV1<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
enum NodeV1<'a> {
    Directory,
    File { digest: [u8; 32], executable: bool },
    Link { target: &'a [u8] },
}

impl ObjectCache {
    pub(super) fn insert_tree(
        &self,
        path: &Path,
        content: &Content,
    ) -> Result<Inserted, ObjectError> {
        let mut entries = self.walk(path)?;
        let found = tree_digest(&mut entries);
        if found != content.digest {
            let (path, expected) = (path.to_owned(), content.digest);
            return Err(ObjectError::Mismatch { path, expected, found });
        }
        let mut files = 0;
        for entry in &entries {
            let TreeNode::File { digest, .. } = entry.node else { continue };
            let file = path.join(OsStr::from_bytes(&entry.path));
            // The object's own length counts nowhere; the digest is what is checked.
            self.insert_file(&file, &Content { digest, bytes: 0, kind: Kind::File })?;
            files += 1;
        }
        self.write_manifest(&content.digest, &entries)?;
        Ok(Inserted::Tree { files })
    }

    pub(super) fn restore_tree(
        &self,
        digest: &Digest,
        dest: &Path,
    ) -> Result<Option<Restored>, ObjectError> {
        let Some(entries) = self.manifest(digest)? else { return Ok(None) };
        let temporary = files::fresh_name(files::parent_of(dest));
        let built = self.build_tree(&entries, &temporary, Sharing::Links).and_then(|built| {
            let Some(files) = built else { return Ok(None) };
            place::swap_in(&temporary, dest)?;
            self.remember_files(&entries, dest)?;
            Ok(Some(Restored::Tree { files }))
        });
        files::discard(&temporary);
        built
    }

    /// Makes a directory at a new name that shares nothing with the cache; `false`: it is not there.
    ///
    /// # Errors
    /// When it was damaged, or cannot be written.
    pub fn copy_tree(&self, digest: &Digest, dest: &Path) -> Result<bool, ObjectError> {
        let Some(entries) = self.manifest(digest)? else { return Ok(false) };
        let built = self.build_tree(&entries, dest, Sharing::Never)?;
        self.touch(*digest);
        Ok(built.is_some())
    }

    pub(super) fn has_tree(&self, digest: &Digest) -> Result<bool, ObjectError> {
        let Some(entries) = self.manifest(digest)? else { return Ok(false) };
        for file in files_of(&entries) {
            if self.checked(&file, &self.path_of(&file))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The entries of a directory that the cache knows, checked; `None`: it does not know it.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<Option<Vec<TreeEntry>>, ObjectError> {
        let path = self.manifest_path(digest);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.doing("read", &path)?,
        };
        let mut entries = decode(&bytes).unwrap_or_default();
        if is_safe(&entries) && tree_digest(&mut entries) == *digest {
            return Ok(Some(entries));
        }
        Err(self.quarantine(digest, &path, "its list of files is damaged"))
    }

    pub(super) fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.path_of(digest).with_extension("tree")
    }

    fn walk(&self, root: &Path) -> Result<Vec<TreeEntry>, ObjectError> {
        if !fs::symlink_metadata(root).doing("look at", root)?.is_dir() {
            let (path, expected, found) = (root.to_owned(), "a directory", "something else");
            return Err(ObjectError::WrongKind { path, expected, found });
        }
        let mut entries = Vec::new();
        for entry in WalkDir::new(root).min_depth(1).follow_links(false) {
            let entry = entry.map_err(io::Error::from).doing("walk", root)?;
            let node = self.node(entry.path())?;
            let below = entry.path().strip_prefix(root).unwrap_or_else(|_| entry.path());
            entries.push(TreeEntry { path: below.as_os_str().as_bytes().to_vec(), node });
        }
        Ok(entries)
    }

    fn node(&self, path: &Path) -> Result<TreeNode, ObjectError> {
        let metadata = fs::symlink_metadata(path).doing("look at", path)?;
        if metadata.is_dir() {
            return Ok(TreeNode::Directory);
        }
        if metadata.is_symlink() {
            let target = fs::read_link(path).doing("read the link", path)?;
            return Ok(TreeNode::Link { target: target.into_os_string().as_bytes().to_vec() });
        }
        if !metadata.is_file() {
            let path = path.to_owned();
            let (expected, found) = ("a file, directory or link", "a special file");
            return Err(ObjectError::WrongKind { path, expected, found });
        }
        let known = self.digests.lookup(&stamp_of(&metadata));
        let digest = known.map_or_else(|| place::hash_file(path, &self.digests), Ok)?;
        Ok(TreeNode::File { digest, executable: is_executable(&metadata) })
    }

    /// Builds a directory at a new name; `None`: a file of it is not in the cache any more.
    fn build_tree(
        &self,
        entries: &[TreeEntry],
        root: &Path,
        sharing: Sharing,
    ) -> Result<Option<u64>, ObjectError> {
        fs::create_dir(root).doing("create the folder", root)?;
        let mut files = 0;
        for entry in entries {
            let dest = root.join(OsStr::from_bytes(&entry.path));
            match &entry.node {
                TreeNode::Directory => fs::create_dir(&dest).doing("create the folder", &dest)?,
                TreeNode::Link { target } => {
                    symlink(OsStr::from_bytes(target), &dest).doing("create the link", &dest)?;
                }
                TreeNode::File { digest, executable } => {
                    let path = &self.path_of(digest);
                    let Some(metadata) = self.checked(digest, path)? else { return Ok(None) };
                    let object = Checked { digest: *digest, path, metadata };
                    self.place_copy(&object, &dest, *executable, sharing)?;
                    self.touch(*digest);
                    files += 1;
                }
            }
        }
        Ok(Some(files))
    }

    fn remember_files(&self, entries: &[TreeEntry], root: &Path) -> Result<(), ObjectError> {
        for entry in entries {
            if let TreeNode::File { digest, .. } = entry.node {
                self.remember(&root.join(OsStr::from_bytes(&entry.path)), digest)?;
            }
        }
        Ok(())
    }

    fn write_manifest(&self, digest: &Digest, entries: &[TreeEntry]) -> Result<(), ObjectError> {
        let path = self.manifest_path(digest);
        files::create_folder(files::parent_of(&path))?;
        let temporary = files::fresh_name(files::parent_of(&path));
        let bytes = encode(entries).map_err(io::Error::other).doing("encode", &path)?;
        // Not made durable: after a power cut its checksums tell, and the task runs again.
        let written = files::write_new(&temporary, &bytes)
            .and_then(|()| fs::set_permissions(&temporary, Permissions::from_mode(0o400)))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            files::discard(&temporary);
        }
        Ok(written.doing("write", &path)?)
    }
}

/// The digests of all files of a directory.
pub(super) fn files_of(entries: &[TreeEntry]) -> impl Iterator<Item = Digest> + '_ {
    entries.iter().filter_map(|entry| match entry.node {
        TreeNode::File { digest, .. } => Some(digest),
        TreeNode::Directory | TreeNode::Link { .. } => None,
    })
}

fn encode(entries: &[TreeEntry]) -> Result<Vec<u8>, postcard::Error> {
    let disk: Vec<EntryV1<'_>> = entries.iter().map(EntryV1::from).collect();
    let mut bytes = frame::file_header(HEADER_NAME, VERSION).to_vec();
    frame::push_frame(&mut bytes, FRAME_MAGIC, FILE_HEADER_BYTES as u64, |buffer| {
        postcard::to_io(&disk, buffer).map(|_| ())
    })?;
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Vec<TreeEntry>> {
    if frame::read_file_header(bytes, HEADER_NAME) != FileHeader::Version(VERSION) {
        return None;
    }
    let frames = &bytes[FILE_HEADER_BYTES..];
    let mut entries = None;
    let settled = frame::scan(frames, FRAME_MAGIC, FILE_HEADER_BYTES as u64, |found| {
        if let Found::Frame { payload, .. } = found {
            let disk: Option<Vec<EntryV1<'_>>> = postcard::from_bytes(payload).ok();
            entries = disk.map(|disk| disk.into_iter().map(TreeEntry::from).collect());
        }
    });
    entries.filter(|_| settled == frames.len())
}

/// Whether every path stays below the directory: plain names only, and each below a directory that
/// is listed before it, not below a link.
fn is_safe(entries: &[TreeEntry]) -> bool {
    let mut folders: BTreeSet<&[u8]> = BTreeSet::from([&b""[..]]);
    entries.iter().all(|entry| {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let plain = !entry.path.is_empty()
            && path.components().all(|part| matches!(part, Component::Normal(_)));
        let parent = path.parent().map(|parent| parent.as_os_str().as_bytes());
        let known = parent.is_some_and(|parent| folders.contains(parent));
        if entry.node == TreeNode::Directory {
            folders.insert(&entry.path);
        }
        plain && known
    })
}

impl<'a> From<&'a TreeEntry> for EntryV1<'a> {
    fn from(entry: &'a TreeEntry) -> Self {
        let node = match &entry.node {
            TreeNode::Directory => NodeV1::Directory,
            TreeNode::File { digest, executable } => {
                NodeV1::File { digest: *digest.as_bytes(), executable: *executable }
            }
            TreeNode::Link { target } => NodeV1::Link { target },
        };
        Self { path: &entry.path, node }
    }
}

impl From<EntryV1<'_>> for TreeEntry {
    fn from(disk: EntryV1<'_>) -> Self {
        let node = match disk.node {
            NodeV1::Directory => TreeNode::Directory,
            NodeV1::File { digest, executable } => {
                TreeNode::File { digest: Digest::from_bytes(digest), executable }
            }
            NodeV1::Link { target } => TreeNode::Link { target: target.to_vec() },
        };
        Self { path: disk.path.to_vec(), node }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, node: TreeNode) -> TreeEntry {
        TreeEntry { path: path.into(), node }
    }

    fn file() -> TreeNode {
        TreeNode::File { digest: Digest::of(b"x"), executable: false }
    }

    #[test]
    fn manifests_that_leave_their_directory_are_refused() {
        let link = || TreeNode::Link { target: b"/etc".to_vec() };
        let folder = || TreeNode::Directory;
        for bad in [
            vec![entry("../x", file())],
            vec![entry("/etc/x", file())],
            vec![entry("", file())],
            vec![entry(".", folder())],
            vec![entry("a/x", file())],
            vec![entry("a", link()), entry("a/x", file())],
            vec![entry("a", folder()), entry("a/../../x", file())],
        ] {
            assert!(!is_safe(&bad), "{bad:?}");
        }
        assert!(is_safe(&[entry("a", folder()), entry("a/x", file()), entry("b", link())]));
    }

    #[test]
    fn every_flipped_bit_of_a_manifest_is_noticed() {
        let mut entries = vec![entry("a", TreeNode::Directory), entry("a/x", file())];
        let digest = tree_digest(&mut entries);
        let bytes = encode(&entries).unwrap();
        assert_eq!(decode(&bytes), Some(entries));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = decode(&flipped).map(|mut entries| tree_digest(&mut entries));
            assert_ne!(found, Some(digest), "bit {bit}");
        }
    }
}
