//! Deadlines around a transfer: no wait on the other side is endless.

use std::time::Duration;

use keelboat_engine::Kind;
use tokio::time::timeout;
use tokio_util::bytes::Bytes;

use super::{
    BoxFuture, ByteStream, Entry, ListRequest, OpenRequest, Opened, Proof, Protocol, PutRequest,
    Renamed, TransferError, Writing,
};

/// How many answers a whole listing may take the time of.
const LISTING_ANSWERS: u32 = 10;

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

    async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, TransferError>>,
    ) -> Result<T, TransferError> {
        timeout(self.open_timeout, answer).await.unwrap_or_else(|_elapsed| {
            Err(TransferError::Stalled {
                waited: self.open_timeout,
                phase: "before the answer began".into(),
            })
        })
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
            Ok(match self.answer(self.inner.open(request)).await? {
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

    /// A long listing takes many answers; each of them is waited for by the protocol's own client,
    /// and all of them not longer than a few answers may take.
    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        let waited = self.open_timeout * LISTING_ANSWERS;
        Box::pin(async move {
            timeout(waited, self.inner.list(request)).await.unwrap_or_else(|_elapsed| {
                let phase = "while a directory was listed".into();
                Err(TransferError::Stalled { waited, phase })
            })
        })
    }

    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        Box::pin(self.answer(self.inner.kind(address)))
    }

    fn writing(&self) -> Writing {
        self.inner.writing()
    }

    /// As long as bytes are taken, or held back here, it may go on; after the last one the server has as long to
    /// answer as before the first.
    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(async move {
            let mut put = self.inner.put(request);
            let mut signs = request.sent.signs();
            loop {
                let sent = request.sent.get();
                let is_moving = sent > 0 && sent < request.content.bytes;
                let patience = if is_moving { self.stall_timeout } else { self.open_timeout };
                if let Ok(result) = timeout(patience, &mut put).await {
                    return result;
                }
                let now = request.sent.signs();
                if now == signs && !request.sent.is_held() {
                    let phase = format!("after byte {} was sent", request.sent.get());
                    return Err(TransferError::Stalled { waited: patience, phase });
                }
                signs = now;
            }
        })
    }

    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.answer(self.inner.make_directory(address)))
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        Box::pin(self.answer(self.inner.rename(from, to)))
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.answer(self.inner.remove(address)))
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
