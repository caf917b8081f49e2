//! Holds every protocol to what it announced: the same file, from the offset asked for, and
//! neither fewer nor more bytes than it has.
//!
//! Deliberately absent: digests. Whoever writes the bytes down computes them.

use keelboat_engine::Kind;
use tokio_util::bytes::Bytes;

use super::{
    BoxFuture, ByteStream, Condition, Entry, ListRequest, Metadata, OpenRequest, Opened, Proof,
    Protocol, PutRequest, Renamed, TransferError, Writing,
};

/// Entries of one listing: more of them are refused rather than kept in memory.
const ENTRIES_MAX: usize = 1_000_000;

/// Refuses answers that contradict themselves or the condition they were asked under.
#[derive(Debug)]
pub struct Verified<P> {
    inner: P,
}

impl<P> Verified<P> {
    /// Around a plain transfer.
    pub const fn new(inner: P) -> Self {
        Self { inner }
    }
}

impl<P: Protocol> Protocol for Verified<P> {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            match self.inner.open(request).await? {
                Opened::Unchanged => check_unchanged(&request.condition),
                Opened::Body { metadata, offset, stream } => {
                    check_start(request, &metadata, offset)?;
                    let expected = metadata.length.or_else(|| known_length(request, offset));
                    let end = request.end;
                    let stream =
                        Box::new(VerifiedStream { stream, position: offset, expected, end });
                    Ok(Opened::Body { metadata, offset, stream })
                }
            }
        })
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(async move {
            let entries = self.inner.list(request).await?;
            check_entries(&entries)?;
            Ok(entries)
        })
    }

    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        self.inner.kind(address)
    }

    fn writing(&self) -> Writing {
        self.inner.writing()
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        self.inner.put(request)
    }

    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        self.inner.make_directory(address)
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        self.inner.rename(from, to)
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        self.inner.remove(address)
    }
}

/// Names from a server become names of files here: none of them leads out of its directory.
fn check_entries(entries: &[Entry]) -> Result<(), TransferError> {
    if entries.len() > ENTRIES_MAX {
        return Err(TransferError::Refused {
            found: format!("the directory holds {} entries", entries.len()),
            hint: format!("at most {ENTRIES_MAX} are taken: name a smaller directory"),
        });
    }
    let is_bad = |part: &str| matches!(part, "" | "." | "..") || part.contains(['\0', '\\']);
    match entries.iter().find(|entry| entry.path.split('/').any(is_bad)) {
        Some(entry) => Err(TransferError::Refused {
            found: format!("the directory holds {:?}, which is no name for a file", entry.path),
            hint: "rename it at its source, or name each file".into(),
        }),
        None => Ok(()),
    }
}

fn check_unchanged(condition: &Condition) -> Result<Opened, TransferError> {
    match condition {
        Condition::IfChanged(known) if !known.is_empty() => Ok(Opened::Unchanged),
        _ => Err(TransferError::Malformed {
            found: "expected the file, found \"not modified\"".into(),
        }),
    }
}

/// What goes on with a file is as long as it was, also when the server does not say so again.
const fn known_length(request: &OpenRequest, offset: u64) -> Option<u64> {
    match request.condition {
        Condition::IfSame { length, .. } if offset > 0 => length,
        _ => None,
    }
}

fn check_start(
    request: &OpenRequest,
    metadata: &Metadata,
    offset: u64,
) -> Result<(), TransferError> {
    if offset == 0 {
        // The whole file: what came before is not built on.
        return Ok(());
    }
    if offset != request.offset {
        return Err(TransferError::Malformed {
            found: format!("asked for byte {} on, found byte {offset} on", request.offset),
        });
    }
    if let Condition::IfSame { known, length } = &request.condition {
        if known.differ(&metadata.validators) {
            return Err(TransferError::Changed {
                found: format!("it was {}, it is {}", show(known), show(&metadata.validators)),
            });
        }
        if let (Some(was), Some(is)) = (length, metadata.length)
            && *was != is
        {
            return Err(TransferError::Changed {
                found: format!("it had {was} bytes, it has {is}"),
            });
        }
    }
    match metadata.length {
        Some(length) if length < offset => Err(TransferError::Malformed {
            found: format!("byte {offset} on of a file of {length} bytes"),
        }),
        _ => Ok(()),
    }
}

fn show(validators: &super::Validators) -> &str {
    let shown = validators.etag.as_deref().or(validators.last_modified.as_deref());
    shown.unwrap_or("without a validator")
}

struct VerifiedStream {
    stream: Box<dyn ByteStream>,
    position: u64,
    expected: Option<u64>,
    /// Where the reader wants it to stop.
    end: Option<u64>,
}

impl ByteStream for VerifiedStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            if self.end.is_some_and(|end| self.position >= end) {
                return Ok(None);
            }
            let mut piece = self.stream.next().await?;
            if let (Some(end), Some(bytes)) = (self.end, &mut piece) {
                bytes.truncate(usize::try_from(end - self.position).unwrap_or(usize::MAX));
            }
            self.position += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
            match self.expected {
                Some(expected) if self.position > expected => {
                    Err(TransferError::TooLong { expected })
                }
                Some(expected) if piece.is_none() && self.position < expected => {
                    Err(TransferError::Cut { received: self.position, expected: Some(expected) })
                }
                _ => Ok(piece),
            }
        })
    }
}
