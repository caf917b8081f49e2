//! Reading: many requests under way, their answers handed on in order.

use std::collections::VecDeque;

use tokio_util::bytes::Bytes;

use super::answer::{expect_ok, refusal};
use super::connection::Lease;
use super::version::Version;
use super::wire::{EOF, Reply, Request, malformed};
use crate::protocol::{BoxFuture, ByteStream, TransferError};

/// Bytes asked for and not yet handed on.
pub(super) const AHEAD_BYTES_MAX: u64 = 4 << 20;

/// Requests under way.
pub(super) const AHEAD_REQUESTS_MAX: usize = 64;

/// The bytes of a file that is open.
pub(super) struct Reader {
    /// `None`: all has come.
    lease: Option<Lease>,
    handle: Bytes,
    version: Version,
    /// The next byte to hand on.
    position: u64,
    /// The next byte to ask for.
    asked: u64,
    /// The byte after the last one wanted.
    end: u64,
    /// What was asked for, in order.
    pieces: VecDeque<Piece>,
}

struct Piece {
    id: u32,
    offset: u64,
    bytes: u32,
    reply: Option<Reply>,
}

impl Reader {
    pub(super) fn new(lease: Lease, handle: Bytes, version: Version, span: (u64, u64)) -> Self {
        let (position, end) = span;
        let pieces = VecDeque::new();
        Self { lease: Some(lease), handle, version, position, asked: position, end, pieces }
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, TransferError> {
        let Some(mut lease) = self.lease.take() else { return Ok(None) };
        if self.position >= self.end {
            return self.finish(lease).await.map(|()| None);
        }
        let data = match self.fill_and_take(&mut lease).await {
            Err(TransferError::Unreachable { found }) => self.salvage(&mut lease, &found)?,
            // Given up in the middle, the session is of no use to anybody.
            other => other?,
        };
        if self.position >= self.end {
            // Whoever reads up to here may not ask for more: it is checked before that.
            self.finish(lease).await?;
        } else {
            self.lease = Some(lease);
        }
        Ok(Some(data))
    }

    async fn fill_and_take(&mut self, lease: &mut Lease) -> Result<Bytes, TransferError> {
        loop {
            self.ask(lease).await?;
            if let Some(reply) = self.pieces.front_mut().and_then(|piece| piece.reply.take()) {
                return self.hand_on(lease, reply).await;
            }
            let (id, reply) = lease.session.receive().await?;
            let piece =
                self.pieces.iter_mut().find(|piece| piece.id == id && piece.reply.is_none());
            piece.ok_or_else(|| malformed("an answer to nothing"))?.reply = Some(reply);
        }
    }

    /// Keeps enough requests under way.
    async fn ask(&mut self, lease: &mut Lease) -> Result<(), TransferError> {
        while self.asked < self.end
            && self.pieces.len() < AHEAD_REQUESTS_MAX
            && self.asked - self.position < AHEAD_BYTES_MAX
        {
            let left = u32::try_from(self.end - self.asked).unwrap_or(u32::MAX);
            let bytes = left.min(lease.session.read_max);
            let id = lease.session.send(Request::read(&self.handle, self.asked, bytes)).await?;
            self.pieces.push_back(Piece { id, offset: self.asked, bytes, reply: None });
            self.asked += u64::from(bytes);
        }
        Ok(())
    }

    /// Takes the answer to the first request.
    async fn hand_on(&mut self, lease: &mut Lease, reply: Reply) -> Result<Bytes, TransferError> {
        let Some(piece) = self.pieces.pop_front() else {
            return Err(malformed("an answer to nothing"));
        };
        let data = match reply {
            Reply::Data(data) => data,
            Reply::Status { code: EOF, .. } => {
                let found = format!("it ends at byte {} of {}", piece.offset, self.version.size);
                return Err(TransferError::Changed { found });
            }
            other => return Err(refusal(other)),
        };
        let came = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if came == 0 || came > piece.bytes {
            return Err(malformed("data of another length than was asked for"));
        }
        self.position += u64::from(came);
        if came < piece.bytes {
            // The server gave less than it was asked for: the rest is asked for once more.
            let (offset, bytes) = (self.position, piece.bytes - came);
            let id = lease.session.send(Request::read(&self.handle, offset, bytes)).await?;
            self.pieces.push_front(Piece { id, offset, bytes, reply: None });
        }
        Ok(data)
    }

    /// The connection is gone: what had come of the piece that was waited for is handed on.
    fn salvage(&mut self, lease: &mut Lease, found: &str) -> Result<Bytes, TransferError> {
        tracing::debug!(found, "a file was cut");
        let begun = self.pieces.front().filter(|piece| piece.reply.is_none());
        let data = begun.and_then(|piece| lease.session.salvage(piece.id));
        let cut = TransferError::Cut { received: self.position, expected: Some(self.version.size) };
        let data = data.ok_or(cut)?;
        self.position += data.len() as u64;
        self.pieces.clear();
        Ok(data)
    }

    /// Is it still the file that it was in the beginning?
    async fn finish(&mut self, mut lease: Lease) -> Result<(), TransferError> {
        let questions = vec![Request::fstat(&self.handle), Request::close(&self.handle)];
        let mut replies = lease.session.call_all(questions).await?.into_iter();
        let version = match replies.next() {
            Some(Reply::Attributes(attributes)) => Version::of(&attributes)?,
            Some(other) => return Err(refusal(other)),
            None => return Err(malformed("no answer")),
        };
        if version != self.version {
            let found = format!("it was {:?}, it is {version:?}", self.version);
            return Err(TransferError::Changed { found });
        }
        replies.try_for_each(expect_ok)?;
        lease.give_back();
        Ok(())
    }
}

impl ByteStream for Reader {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(self.next_piece())
    }
}
