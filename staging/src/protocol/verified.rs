//! Holds every protocol to what it announced: the same file, from the offset asked for, and
//! neither fewer nor more bytes than it has.
//!
//! Deliberately absent: digests. Whoever writes the bytes down computes them.

use tokio_util::bytes::Bytes;

use super::{
    BoxFuture, ByteStream, Condition, Metadata, OpenRequest, Opened, Protocol, TransferError,
};

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
                    let expected = metadata.length;
                    let stream = Box::new(VerifiedStream { stream, position: offset, expected });
                    Ok(Opened::Body { metadata, offset, stream })
                }
            }
        })
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
}

impl ByteStream for VerifiedStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let piece = self.stream.next().await?;
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
