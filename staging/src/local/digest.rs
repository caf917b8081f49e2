//! Digests of local files and directory trees, by reading or from memory.
//!
//! Files are read, never mapped: a mapped file that shrinks kills the process.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use keelboat_engine::{
    Content, Digest, Digester, FileStamp, Kind, TreeEntry, TreeNode, tree_digest,
};
use walkdir::WalkDir;

use super::{DigestMemory, LocalError, stamp_of};

/// Bytes read at once.
const BUFFER_BYTES: u64 = 256 << 10;

/// Bytes in a tree from which on its files are hashed by several threads.
const PARALLEL_BYTES_MIN: u64 = 64 << 20;

/// Threads that hash one tree.
const THREADS_MAX: usize = 4;

/// What a path holds. Symbolic links are followed at the path itself, not below it.
///
/// `strict`: read every byte, whatever `memory` says.
///
/// # Errors
/// It is missing, of another kind, cannot be read, changes while it is read, or is a directory
/// with something in it that is neither file, directory nor link.
pub fn digest_path(
    path: &Path,
    kind: Kind,
    memory: &dyn DigestMemory,
    strict: bool,
) -> Result<Content, LocalError> {
    let metadata = path.metadata().map_err(|error| LocalError::io("find", path, error))?;
    check_kind(path, &metadata, kind)?;
    match kind {
        Kind::File => {
            let stamp = stamp_of(&metadata);
            let digest = file_digest(path, &stamp, memory, strict)?;
            Ok(Content { digest, bytes: stamp.size, kind })
        }
        Kind::Directory => digest_tree(path, memory, strict),
    }
}

pub(super) fn check_kind(path: &Path, metadata: &Metadata, kind: Kind) -> Result<(), LocalError> {
    let fits = match kind {
        Kind::File => metadata.is_file(),
        Kind::Directory => metadata.is_dir(),
    };
    if fits {
        return Ok(());
    }
    let found = describe(metadata.file_type());
    Err(LocalError::WrongKind { path: path.to_owned(), found, expected: kind })
}

/// What a path is, with its article.
fn describe(file_type: std::fs::FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_file() {
        "a regular file"
    } else if file_type.is_symlink() {
        "a symbolic link"
    } else if file_type.is_fifo() {
        "a named pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The digest of the file that has this stamp now.
fn file_digest(
    path: &Path,
    stamp: &FileStamp,
    memory: &dyn DigestMemory,
    strict: bool,
) -> Result<Digest, LocalError> {
    if !strict && let Some(digest) = memory.recall(stamp) {
        return Ok(digest);
    }
    let hashed_at = SystemTime::now();
    let (file, opened) = open_regular(path, 0)?;
    let (digest, _) = hash_open_file(&file, &opened, path)?;
    if opened != *stamp {
        return Err(LocalError::Changed { path: path.to_owned() });
    }
    memory.remember(stamp, digest, hashed_at);
    Ok(digest)
}

/// Opens without waiting for the other end of a pipe, and with further `flags`.
pub(super) fn open_regular(path: &Path, flags: i32) -> Result<(File, FileStamp), LocalError> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK | flags);
    let file = options.open(path).map_err(|error| LocalError::io("open", path, error))?;
    let metadata = file.metadata().map_err(|error| LocalError::io("open", path, error))?;
    check_kind(path, &metadata, Kind::File)?;
    Ok((file, stamp_of(&metadata)))
}

/// The digest and length of an open file, which must not change meanwhile.
pub(super) fn hash_open_file(
    file: &File,
    stamp: &FileStamp,
    path: &Path,
) -> Result<(Digest, u64), LocalError> {
    let mut reader = file;
    let mut digester = Digester::new();
    let mut bytes = 0;
    // One byte more than the file has: a small file takes one read, and its end is seen.
    let buffer_bytes = usize::try_from((stamp.size + 1).min(BUFFER_BYTES)).unwrap_or(1 << 18);
    let mut buffer = vec![0; buffer_bytes];
    loop {
        let read = reader.read(&mut buffer).map_err(|error| LocalError::io("read", path, error))?;
        digester.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
        if read == 0 || bytes == stamp.size && read < buffer.len() {
            break;
        }
    }
    let after = file.metadata().map_err(|error| LocalError::io("read", path, error))?;
    if stamp_of(&after) != *stamp || bytes != stamp.size {
        return Err(LocalError::Changed { path: path.to_owned() });
    }
    Ok((digester.finish(), bytes))
}

struct TreeFile {
    path: PathBuf,
    stamp: FileStamp,
    entry: usize,
}

fn digest_tree(
    root: &Path,
    memory: &dyn DigestMemory,
    strict: bool,
) -> Result<Content, LocalError> {
    let (mut entries, files) = list_tree(root)?;
    let digests = hash_files(&files, memory, strict)?;
    for (file, digest) in files.iter().zip(digests) {
        if let Some(TreeNode::File { digest: slot, .. }) =
            entries.get_mut(file.entry).map(|entry| &mut entry.node)
        {
            *slot = digest;
        }
    }
    let bytes = files.iter().map(|file| file.stamp.size).sum();
    Ok(Content { digest: tree_digest(&mut entries), bytes, kind: Kind::Directory })
}

/// All below `root`, with digests of files yet to be filled in.
fn list_tree(root: &Path) -> Result<(Vec<TreeEntry>, Vec<TreeFile>), LocalError> {
    let mut entries = Vec::new();
    let mut files = Vec::new();
    for entry in WalkDir::new(root).min_depth(1) {
        let entry = entry.map_err(|error| walk_error(root, error))?;
        let metadata = entry.metadata().map_err(|error| walk_error(root, error))?;
        let node = if metadata.is_dir() {
            TreeNode::Directory
        } else if metadata.is_file() {
            let stamp = stamp_of(&metadata);
            files.push(TreeFile { path: entry.path().to_owned(), stamp, entry: entries.len() });
            let executable = metadata.permissions().mode() & 0o100 != 0;
            TreeNode::File { digest: Digest::from_bytes([0; 32]), executable }
        } else if metadata.is_symlink() {
            let target = entry.path().read_link();
            let target = target.map_err(|error| LocalError::io("read", entry.path(), error))?;
            TreeNode::Link { target: target.as_os_str().as_bytes().to_vec() }
        } else {
            let found = describe(metadata.file_type());
            return Err(LocalError::Special { path: entry.path().to_owned(), found });
        };
        let below = entry.path().strip_prefix(root).unwrap_or_else(|_| entry.path());
        entries.push(TreeEntry { path: below.as_os_str().as_bytes().to_vec(), node });
    }
    Ok((entries, files))
}

pub(super) fn walk_error(root: &Path, error: walkdir::Error) -> LocalError {
    let path = error.path().unwrap_or(root).to_owned();
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("a loop of links"));
    LocalError::Io { action: "list", path, source }
}

fn hash_files(
    files: &[TreeFile],
    memory: &dyn DigestMemory,
    strict: bool,
) -> Result<Vec<Digest>, LocalError> {
    let hash = |file: &TreeFile| file_digest(&file.path, &file.stamp, memory, strict);
    let bytes: u64 = files.iter().map(|file| file.stamp.size).sum();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    if bytes < PARALLEL_BYTES_MIN || files.len() < 2 || threads < 2 {
        return files.iter().map(hash).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(index) else { return done };
            done.push((index, hash(file)));
        }
    };
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    all.sort_by_key(|(index, _)| *index);
    assert_eq!(all.len(), files.len(), "every file of the tree was hashed once");
    all.into_iter().map(|(_, digest)| digest).collect()
}
