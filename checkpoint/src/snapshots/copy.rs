//! One file, copied with its digest.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use keelboat_engine::{Digest, Digester, FileStamp};

use crate::digests::stamp_of;
use crate::error::{IoContext as _, IoError};
use crate::files;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A copy, or only a look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// What the file held.
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    /// Its stamp, when it was the same before the first byte and after the last one.
    pub(super) stamp: Option<FileStamp>,
}

/// Why a file is not copied, and on which side.
#[derive(Debug)]
pub(super) enum CopyError {
    Source(IoError),
    Target(IoError),
    /// Nobody needs it any more.
    Ended,
}

/// Copies to a new private file. Blocks are shared where the file system can, and then read.
pub(super) fn copy(from: &Path, to: &Path, is_over: &dyn Fn() -> bool) -> Result<Taken, CopyError> {
    let mut source = File::open(from).doing("open", from).map_err(CopyError::Source)?;
    let before = stamp(&source, from).map_err(CopyError::Source)?;
    let taken = if reflink_copy::reflink(from, to).is_ok() {
        let mut target = File::open(to).doing("open", to).map_err(CopyError::Target)?;
        read(&mut target, to, |_| proceed(is_over))
    } else {
        let options =
            OpenOptions::new().write(true).create_new(true).mode(files::FILE_MODE).open(to);
        let mut target = options.doing("create", to).map_err(CopyError::Target)?;
        read(&mut source, from, |bytes| {
            proceed(is_over)?;
            target.write_all(bytes).doing("write", to).map_err(CopyError::Target)
        })
    };
    let same = stamp(&source, from).map_err(CopyError::Source)? == before;
    Ok(Taken { stamp: same.then_some(before), ..taken? })
}

/// What a file holds.
pub(super) fn digest(path: &Path) -> Result<Taken, IoError> {
    let mut file = File::open(path).doing("open", path)?;
    let before = stamp(&file, path)?;
    let taken = read(&mut file, path, |_| Ok(())).map_err(|error| match error {
        CopyError::Source(error) | CopyError::Target(error) => error,
        CopyError::Ended => IoError::new("read", path, std::io::ErrorKind::Interrupted.into()),
    })?;
    let same = stamp(&file, path)? == before;
    Ok(Taken { stamp: same.then_some(before), ..taken })
}

fn proceed(is_over: &dyn Fn() -> bool) -> Result<(), CopyError> {
    if is_over() { Err(CopyError::Ended) } else { Ok(()) }
}

fn stamp(file: &File, path: &Path) -> Result<FileStamp, IoError> {
    Ok(stamp_of(&file.metadata().doing("look at", path)?))
}

fn read(
    source: &mut File,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), CopyError>,
) -> Result<Taken, CopyError> {
    let (mut digester, mut bytes) = (Digester::new(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = source.read(&mut buffer).doing("read", path).map_err(CopyError::Source)?;
        if read == 0 {
            return Ok(Taken { digest: digester.finish(), bytes, stamp: None });
        }
        let part = &buffer[..read];
        digester.update(part);
        each(part)?;
        bytes += read as u64;
    }
}
