//! Deadlines around a transfer: no wait on the other side is endless.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::bytes::Bytes;

use super::{BoxFuture, ByteStream, OpenRequest, Opened, Protocol, TransferError};

/// Gives up when the first byte, or any later one, is late.
#[derive(Debug)]
pub struct Deadlined<P> {
    inner: P,
    open_timeout: Duration,
    stall_timeout: Duration,
}

impl<P> Deadlined<P> {
    /// `open_timeout` is for the answer with its metadata, `stall_timeout` for each piece after it.
    pub const fn new(inner: P, open_timeout: Duration, stall_timeout: Duration) -> Self {
        Self { inner, open_timeout, stall_timeout }
    }
}

impl<P: Protocol> Protocol for Deadlined<P> {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let answer = timeout(self.open_timeout, self.inner.open(request)).await;
            let opened = answer.unwrap_or_else(|_elapsed| {
                Err(TransferError::Stalled {
                    waited: self.open_timeout,
                    phase: "before the answer began".into(),
                })
            })?;
            Ok(match opened {
                Opened::Unchanged => Opened::Unchanged,
                Opened::Body { metadata, offset, stream } => {
                    let stall_timeout = self.stall_timeout;
                    let stream =
                        Box::new(DeadlinedStream { stream, stall_timeout, position: offset });
                    Opened::Body { metadata, offset, stream }
                }
            })
        })
    }
}

struct DeadlinedStream {
    stream: Box<dyn ByteStream>,
    stall_timeout: Duration,
    position: u64,
}

impl ByteStream for DeadlinedStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let Ok(piece) = timeout(self.stall_timeout, self.stream.next()).await else {
                return Err(TransferError::Stalled {
                    waited: self.stall_timeout,
                    phase: format!("after byte {}", self.position),
                });
            };
            if let Ok(Some(bytes)) = &piece {
                self.position += bytes.len() as u64;
            }
            piece
        })
    }
}
