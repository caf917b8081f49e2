//! One part of a file, on its way in a task of its own.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::task::AbortOnDropHandle;

use super::Known;
use crate::gate::{Permit, Turn};
use crate::protocol::{ByteStream, Condition, OpenRequest, Opened, Protocol, TransferError};

/// Pieces that are shorter are joined, so that their number is bounded as their bytes are.
const PIECE_BYTES_MIN: usize = 16 << 10;

/// Held for as long as a connection is used.
#[derive(Debug)]
pub(super) enum Connection {
    /// The one that the transfer has in any case.
    Own(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit),
    /// One more.
    Further(#[expect(dead_code, reason = "it is held")] Permit),
}

/// What came of asking for a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is the part that was asked for.
    Given,
    /// It is something else, or there is none for whoever asks this way: asking again is no use.
    Refused,
    /// The server does not bear so many connections now.
    Busy,
    /// The connection was no good.
    Lost,
}

impl Answer {
    /// Why there is none.
    pub(super) fn of(error: &TransferError) -> Self {
        match error {
            TransferError::Busy { .. } => Self::Busy,
            error if error.is_retryable() && !error.spoils_partial() => Self::Lost,
            _ => Self::Refused,
        }
    }
}

/// Its bytes are kept until they are wanted. Dropping it ends its transfer.
pub(super) struct Part {
    /// What has not been handed on.
    range: Range<u64>,
    /// Never more than the part has bytes.
    pieces: mpsc::UnboundedReceiver<Result<Bytes, TransferError>>,
    task: AbortOnDropHandle<()>,
    answer: Arc<OnceLock<Answer>>,
    memory: OwnedSemaphorePermit,
    /// Tries in a row without a new byte.
    pub(super) tries: u32,
}

impl Part {
    /// Begins to fetch it.
    pub(super) fn begin<P: Protocol + 'static>(
        inner: &Arc<P>,
        known: &Arc<Known>,
        range: Range<u64>,
        connection: Connection,
        memory: OwnedSemaphorePermit,
    ) -> Self {
        let (sender, pieces) = mpsc::unbounded_channel();
        let (inner, known, wanted) = (Arc::clone(inner), Arc::clone(known), range.clone());
        let answer: Arc<OnceLock<Answer>> = Arc::default();
        let told = Arc::clone(&answer);
        let task = tokio::spawn(async move {
            let opened = open(&*inner, &known, &wanted).await;
            told.get_or_init(|| opened.as_ref().err().map_or(Answer::Given, Answer::of));
            let ended = match opened {
                Ok(stream) => receive(stream, &known, wanted, &sender).await,
                Err(error) => Err(error),
            };
            // Before the end is told, so that the next part finds it free.
            drop(connection);
            if let Err(error) = ended
                && sender.send(Err(error)).is_err()
            {
                tracing::trace!("a part ended after its transfer");
            }
        });
        Self { range, pieces, task: AbortOnDropHandle::new(task), answer, memory, tries: 0 }
    }

    /// Begins to fetch what was not handed on.
    pub(super) fn again<P: Protocol + 'static>(
        self,
        inner: &Arc<P>,
        known: &Arc<Known>,
        connection: Connection,
    ) -> Self {
        let tries = self.tries;
        Self { tries, ..Self::begin(inner, known, self.range, connection, self.memory) }
    }

    pub(super) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// What came of asking for it; `None`: nothing so far.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.answer.get().copied()
    }

    /// The first byte of it that was not handed on.
    pub(super) const fn start(&self) -> u64 {
        self.range.start
    }

    /// The next piece; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let piece = self.pieces.recv().await.unwrap_or_else(|| {
            // Its task is gone without a word: it panicked.
            Err(TransferError::Cut { received: self.range.start, expected: None })
        })?;
        self.range.start += piece.len() as u64;
        self.tries = 0;
        Ok(Some(piece))
    }
}

type Sender = mpsc::UnboundedSender<Result<Bytes, TransferError>>;

async fn open(
    inner: &dyn Protocol,
    known: &Known,
    range: &Range<u64>,
) -> Result<Box<dyn ByteStream>, TransferError> {
    let condition =
        Condition::IfSame { known: known.validators.clone(), length: Some(known.length) };
    let request = OpenRequest {
        address: known.address.clone(),
        offset: range.start,
        end: Some(range.end),
        condition,
        turn: Turn::default(),
    };
    let Opened::Body { offset, stream, .. } = inner.open(&request).await? else {
        let found = "expected a part of the file, found \"not modified\"".into();
        return Err(TransferError::Malformed { found });
    };
    if offset != range.start {
        let found = "a part was asked for, and the server sent another version from its start";
        return Err(TransferError::Changed { found: found.into() });
    }
    Ok(stream)
}

async fn receive(
    mut stream: Box<dyn ByteStream>,
    known: &Known,
    range: Range<u64>,
    sender: &Sender,
) -> Result<(), TransferError> {
    let mut left = range.end - range.start;
    let mut joined = BytesMut::new();
    let ended = loop {
        let mut piece = match stream.next().await {
            Ok(Some(piece)) if left > 0 => piece,
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        };
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= piece.len() as u64;
        if piece.len() < PIECE_BYTES_MIN {
            joined.extend_from_slice(&piece);
            if joined.len() < PIECE_BYTES_MIN {
                continue;
            }
            piece = joined.split().freeze();
        } else if !joined.is_empty() {
            give(sender, joined.split().freeze());
        }
        give(sender, piece);
    };
    if !joined.is_empty() {
        give(sender, joined.freeze());
    }
    if left > 0 && ended.is_ok() {
        let (received, expected) = (range.end - left, Some(known.length));
        return Err(TransferError::Cut { received, expected });
    }
    ended
}

/// Whoever has gone wants no more; the task ends with it.
fn give(sender: &Sender, piece: Bytes) {
    if sender.send(Ok(piece)).is_err() {
        tracing::trace!("a piece came after its transfer ended");
    }
}
