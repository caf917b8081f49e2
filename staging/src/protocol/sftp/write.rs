//! Writing: many requests under way, in order, and a look at the file afterwards.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio_util::bytes::{Bytes, BytesMut};

use super::address::parent;
use super::answer::{expect_ok, no_space, refusal};
use super::read::{AHEAD_BYTES_MAX, AHEAD_REQUESTS_MAX};
use super::session::Session;
use super::version::Version;
use super::wire::{self, Attributes, Extension, Mode, Reply, Request};
use crate::local::LocalError;
use crate::protocol::{PutRequest, TransferError};

/// Bytes read from the disk at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Whoever may execute a file here may do so there; the server's mask applies.
const EXECUTABLE: u32 = 0o777;
const EXECUTE_BITS: u32 = 0o111;

/// Writes a file, and says which version of it is there now.
pub(super) async fn put(
    session: &mut Session,
    path: &[u8],
    request: &PutRequest,
) -> Result<Version, TransferError> {
    let source = request.source.clone();
    let (file, is_executable) = blocking(move || open_source(&source)).await?;
    let offset = if request.resume { resume_at(session, path, request).await? } else { 0 };
    let mode = if offset > 0 { Mode::Continue } else { Mode::Truncate };
    let permissions = is_executable.then_some(EXECUTABLE);
    let handle = match session.open(path, mode, permissions).await {
        Err(TransferError::Missing { .. }) => {
            make_parents(session, path).await?;
            session.open(path, mode, permissions).await?
        }
        opened => opened?,
    };
    request.sent.begin_at(offset);
    let (open, ahead) = (Vec::new(), 0);
    let mut sending = Sending { session, handle: &handle, request, open, ahead, end: offset };
    if let Err(error) = sending.send_all(file, offset).await {
        return Err(sending.explain(error, path).await);
    }
    finish(session, &handle, request, is_executable).await
}

fn open_source(path: &Path) -> Result<(File, bool), TransferError> {
    let opened = File::open(path).and_then(|file| {
        let mode = file.metadata()?.permissions().mode();
        Ok((file, mode & EXECUTE_BITS != 0))
    });
    opened.map_err(|error| local_error(path, error))
}

/// Where to go on in what an earlier try left: where nothing is confirmed, a little before its end,
/// since a server may write what was under way in any order.
async fn resume_at(
    session: &mut Session,
    path: &[u8],
    request: &PutRequest,
) -> Result<u64, TransferError> {
    match session.attributes(Request::stat(path)).await {
        Ok(Attributes { size: Some(size), .. }) if size <= request.content.bytes => {
            Ok(size.saturating_sub(AHEAD_BYTES_MAX).max(request.sent.confirmed().min(size)))
        }
        Ok(_) | Err(TransferError::Missing { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Makes the directories above a path.
pub(super) async fn make_parents(session: &mut Session, path: &[u8]) -> Result<(), TransferError> {
    let mut missing = Vec::new();
    let mut above = parent(path);
    while let Some(directory) = above {
        match session.attributes(Request::stat(directory)).await {
            Ok(attributes) if attributes.is_directory() => break,
            Ok(_) => {
                return Err(TransferError::Refused {
                    found: "a directory above it is a file".into(),
                    hint: "choose another address, or remove that file".into(),
                });
            }
            Err(TransferError::Missing { .. }) => missing.push(directory),
            Err(error) => return Err(error),
        }
        above = parent(directory);
    }
    for directory in missing.into_iter().rev() {
        let reply = session.call(Request::mkdir(directory)).await?;
        // Somebody else may have made it meanwhile.
        if let Err(error) = expect_ok(reply)
            && !session.attributes(Request::stat(directory)).await?.is_directory()
        {
            return Err(error);
        }
    }
    Ok(())
}

/// A file that is being written.
struct Sending<'a> {
    session: &'a mut Session,
    handle: &'a [u8],
    request: &'a PutRequest,
    /// Requests under way, with the offset and the number of the bytes that each holds.
    open: Vec<(u32, u64, u64)>,
    /// Bytes under way.
    ahead: u64,
    /// The byte after the last one under way, or the first one that the server did not take.
    end: u64,
}

impl Sending<'_> {
    async fn send_all(&mut self, file: File, mut offset: u64) -> Result<(), TransferError> {
        let expected = self.request.content.bytes;
        let path = self.request.source.clone();
        let mut file = seek(file, offset, &path)?;
        loop {
            let here = path.clone();
            let (returned, block) = blocking(move || read_block(file, &here)).await?;
            file = returned;
            if block.is_empty() {
                break;
            }
            for piece in block.chunks(usize::try_from(self.session.write_max).unwrap_or(1)) {
                self.make_room(piece.len() as u64).await?;
                let request = Request::write(self.handle, offset, piece);
                let id = self.session.send(request).await?;
                self.open.push((id, offset, piece.len() as u64));
                self.ahead += piece.len() as u64;
                offset += piece.len() as u64;
                self.end = offset;
                if let Some(hold) = self.request.sent.hold(piece.len() as u64) {
                    hold.await;
                }
            }
        }
        while !self.open.is_empty() {
            self.confirm_one().await?;
        }
        if offset == expected { Ok(()) } else { Err(source_changed(offset, expected)) }
    }

    async fn make_room(&mut self, bytes: u64) -> Result<(), TransferError> {
        while self.open.len() >= AHEAD_REQUESTS_MAX
            || (self.ahead > 0 && self.ahead + bytes > AHEAD_BYTES_MAX)
        {
            self.confirm_one().await?;
        }
        Ok(())
    }

    async fn confirm_one(&mut self) -> Result<(), TransferError> {
        let (id, reply) = self.session.receive().await?;
        let index = self.open.iter().position(|(open, ..)| *open == id);
        let index = index.ok_or_else(|| wire::malformed("an answer to nothing"))?;
        let (_, offset, bytes) = self.open.swap_remove(index);
        self.ahead -= bytes;
        if let Err(error) = expect_ok(reply) {
            self.end = self.end.min(offset);
            return Err(error);
        }
        self.request.sent.add(bytes);
        let first_open = self.open.iter().map(|(_, offset, _)| *offset).min();
        self.request.sent.confirm(first_open.map_or(self.end, |open| open.min(self.end)));
        Ok(())
    }

    /// A full disk is no more than a failure to SFTP: whether it is full must be asked.
    async fn explain(&mut self, error: TransferError, path: &[u8]) -> TransferError {
        if !matches!(error, TransferError::Busy { .. })
            || !self.session.offers.has(Extension::Statvfs)
        {
            return error;
        }
        while !self.open.is_empty() {
            match self.confirm_one().await {
                Ok(()) | Err(TransferError::Busy { .. }) => {}
                Err(_) => return error,
            }
        }
        match self.session.call(Request::statvfs(path)).await.map(free) {
            Ok(Some(free)) if free < AHEAD_BYTES_MAX => {
                no_space(&format!("{error}; {free} bytes are free"))
            }
            _ => error,
        }
    }
}

fn free(reply: Reply) -> Option<u64> {
    match reply {
        Reply::Extended(reply) => wire::free_bytes(reply).ok(),
        _ => None,
    }
}

/// Lets the server keep it for good, and looks at what is there.
async fn finish(
    session: &mut Session,
    handle: &[u8],
    request: &PutRequest,
    is_executable: bool,
) -> Result<Version, TransferError> {
    if session.offers.has(Extension::Fsync) {
        expect_ok(session.call(Request::fsync(handle)).await?)?;
    }
    let attributes = session.attributes(Request::fstat(handle)).await?;
    let mode = attributes.mode.unwrap_or_default();
    if is_executable && mode & EXECUTE_BITS == 0 {
        // Left by an earlier try of another file. Those who may read it may execute it.
        let permissions = mode & EXECUTABLE | (mode & 0o444) >> 2;
        expect_ok(session.call(Request::set_permissions(handle, permissions)).await?)?;
    }
    match session.call(Request::close(handle)).await? {
        Reply::Status { code: wire::OK, .. } => {}
        other => return Err(refusal(other)),
    }
    let version = Version::of(&attributes)?;
    let expected = request.content.bytes;
    if version.size != expected {
        let found = format!("{expected} bytes were written, and {} are there", version.size);
        return Err(TransferError::Changed { found });
    }
    Ok(version)
}

fn seek(mut file: File, offset: u64, path: &Path) -> Result<File, TransferError> {
    let sought = file.seek(SeekFrom::Start(offset));
    sought.map_err(|error| local_error(path, error))?;
    Ok(file)
}

fn read_block(mut file: File, path: &Path) -> Result<(File, Bytes), TransferError> {
    let mut block = BytesMut::zeroed(BLOCK_BYTES);
    let read = file.read(&mut block).map_err(|error| local_error(path, error))?;
    block.truncate(read);
    Ok((file, block.freeze()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(super::connection::unreachable(&error)))
}

fn local_error(path: &Path, source: std::io::Error) -> TransferError {
    let error = LocalError::io("read", path, source);
    TransferError::Local { class: error.class(), found: error.to_string(), hint: error.hint() }
}

fn source_changed(read: u64, expected: u64) -> TransferError {
    TransferError::Local {
        class: keelboat_engine::FailureClass::Permanent,
        found: format!("the file changed while it was sent: it had {expected} bytes, now {read}"),
        hint: "let nothing else write to it, and run the same command again".into(),
    }
}
