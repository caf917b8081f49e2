//! `file:` addresses and plain paths.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keelboat_engine::FileStamp;
use tokio_util::bytes::{Bytes, BytesMut};
use walkdir::WalkDir;

use super::{
    BoxFuture, ByteStream, Condition, Depth, Entry, ListRequest, Metadata, OpenRequest, Opened,
    Protocol, TransferError, Validators,
};
use crate::address::parse;
use crate::local::{LocalError, stamp_of};

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Regular files of this machine.
///
/// Their validator is made of device, inode, size and times, so a file that is written to while it
/// is read is found out at its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileProtocol;

impl Protocol for FileProtocol {
    fn schemes(&self) -> &[&'static str] {
        &["file"]
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let request = request.clone();
            blocking(move || open(&request)).await
        })
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(async move {
            let request = request.clone();
            blocking(move || list(&request)).await
        })
    }
}

fn list(request: &ListRequest) -> Result<Vec<Entry>, TransferError> {
    let root = local_path(&request.address)?;
    let metadata = root.metadata().map_err(|error| io_error("find", &root, error))?;
    if !metadata.is_dir() {
        return Err(TransferError::Refused {
            found: "it is no directory".into(),
            hint: "name a directory; a file is had by `keelboat fetch`".into(),
        });
    }
    let depth = if request.depth == Depth::One { 1 } else { usize::MAX };
    let mut entries = Vec::new();
    for entry in WalkDir::new(&root).min_depth(1).max_depth(depth).sort_by_file_name() {
        let entry = entry.map_err(|error| io_error("list", &root, error.into()))?;
        let below = entry.path().strip_prefix(&root).ok().and_then(Path::to_str);
        let Some(below) = below else {
            return Err(TransferError::Refused {
                found: format!("{} is not UTF-8", entry.path().display()),
                hint: "rename it".into(),
            });
        };
        // What a link leads to; one that leads nowhere is nothing that could be read.
        let Ok(metadata) = entry.path().metadata() else { continue };
        if metadata.is_dir() {
            entries.push(Entry::directory(below));
        } else if metadata.is_file() {
            let stamp = stamp_of(&metadata);
            entries.push(Entry::file(below, Some(stamp.size), validators_of(&stamp)));
        }
    }
    Ok(entries)
}

/// The path that an address names.
///
/// # Errors
/// The address is not of this machine, or not a path at all.
pub(crate) fn local_path(address: &str) -> Result<PathBuf, TransferError> {
    let Some(url) = parse(address) else {
        return Ok(PathBuf::from(address));
    };
    let path = if url.scheme() == "file" { url.to_file_path().ok() } else { None };
    path.ok_or_else(|| TransferError::Refused {
        found: "it is not a path on this machine".into(),
        hint: "write file:///absolute/path or a plain path".into(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(TransferError::Unreachable { found: error.to_string() }))
}

fn open(request: &OpenRequest) -> Result<Opened, TransferError> {
    let path = local_path(&request.address)?;
    let (mut file, stamp) = open_regular(&path)?;
    let validators = validators_of(&stamp);
    let offset = match &request.condition {
        Condition::IfChanged(known) if known.etag == validators.etag => {
            return Ok(Opened::Unchanged);
        }
        Condition::IfSame { known, .. } if known.etag != validators.etag => 0,
        _ if request.offset <= stamp.size => request.offset,
        _ => 0,
    };
    file.seek(SeekFrom::Start(offset)).map_err(|error| io_error("read", &path, error))?;
    let metadata =
        Metadata { length: Some(stamp.size), validators, accepts_ranges: true, media_type: None };
    let stream = Box::new(FileStream(Some(Reader { file, path, stamp })));
    Ok(Opened::Body { metadata, offset, stream })
}

pub(super) fn open_regular(path: &Path) -> Result<(File, FileStamp), TransferError> {
    // Without O_NONBLOCK, opening a fifo that nobody writes to would wait for ever.
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| io_error("open", path, error))?;
    let metadata = file.metadata().map_err(|error| io_error("open", path, error))?;
    if !metadata.is_file() {
        return Err(TransferError::Refused {
            found: "it is not a regular file".into(),
            hint: "only regular files can be transferred".into(),
        });
    }
    Ok((file, stamp_of(&metadata)))
}

fn validators_of(stamp: &FileStamp) -> Validators {
    let FileStamp { device, inode, size, modified_ns, changed_ns } = stamp;
    let etag = format!("\"{device:x}-{inode:x}-{size:x}-{modified_ns:x}-{changed_ns:x}\"");
    Validators { etag: Some(etag), ..Validators::default() }
}

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> TransferError {
    let error = LocalError::io(action, path, source);
    if error.class() == keelboat_engine::FailureClass::InputMissing {
        return TransferError::Missing { found: error.to_string() };
    }
    TransferError::Local { class: error.class(), found: error.to_string(), hint: error.hint() }
}

struct Reader {
    file: File,
    path: PathBuf,
    stamp: FileStamp,
}

impl Reader {
    fn read(&mut self) -> Result<Option<Bytes>, TransferError> {
        let mut buffer = BytesMut::zeroed(PIECE_BYTES);
        let read = self.file.read(&mut buffer).map_err(|e| io_error("read", &self.path, e))?;
        if read > 0 {
            buffer.truncate(read);
            return Ok(Some(buffer.freeze()));
        }
        let metadata = self.file.metadata().map_err(|e| io_error("read", &self.path, e))?;
        if stamp_of(&metadata) == self.stamp {
            return Ok(None);
        }
        Err(TransferError::Changed { found: "it was written to meanwhile".into() })
    }
}

/// `None` while a read is under way; a read that was given up leaves it so.
struct FileStream(Option<Reader>);

impl ByteStream for FileStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let Some(mut reader) = self.0.take() else {
                return Err(TransferError::Unreachable {
                    found: "an earlier read was given up".into(),
                });
            };
            let (reader, piece) = blocking(move || {
                let piece = reader.read();
                Ok((reader, piece))
            })
            .await?;
            self.0 = Some(reader);
            piece
        })
    }
}
