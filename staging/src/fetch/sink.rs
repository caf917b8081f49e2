//! Where the bytes of one try go. Those of a small file are hashed as they come, while they are in the
//! processor's cache, and stay in memory at first; those of a large one are hashed and written by a
//! thread, so that two processors share the work.

use keelboat_engine::{Content, Digester, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::bytes::Bytes;

use super::error::SourceError;
use super::{blocking, joined};
use crate::local::LocalError;
use crate::partial::{Partial, Piece};
use crate::protocol::{Metadata, TransferError, Validators};

/// Pieces between the network and the disk.
const QUEUE_PIECES: usize = 32;

/// A small file, whole and in memory.
pub(super) struct Small {
    pub(super) pieces: Vec<Piece>,
    pub(super) content: Content,
    pub(super) validators: Validators,
}

/// What became of the bytes.
pub(super) enum Sunk {
    Small(Small, Partial),
    Written(Partial, Result<(), TransferError>),
}

pub(super) struct Sink {
    /// Over all that came, for as long as it stays in memory.
    digester: Digester,
    goes: Goes,
}

/// Where bytes go.
enum Goes {
    Held(Box<Held>),
    Writing(Writing),
}

/// Pieces that nobody has written down.
struct Held {
    partial: Partial,
    metadata: Metadata,
    offset: u64,
    pieces: Vec<Piece>,
}

/// A thread at work. It ends when the sender is gone.
struct Writing {
    sender: mpsc::Sender<Option<Piece>>,
    thread: JoinHandle<(Partial, Result<(), LocalError>)>,
}

impl Sink {
    /// For an answer that begins at this offset.
    pub(super) fn new(partial: Partial, metadata: Metadata, offset: u64) -> Self {
        let digester = if offset == 0 { Digester::new() } else { partial.digester() };
        let pieces = Vec::new();
        Self { digester, goes: Goes::Held(Box::new(Held { partial, metadata, offset, pieces })) }
    }

    pub(super) const fn is_held(&self) -> bool {
        matches!(self.goes, Goes::Held(_))
    }

    /// Lets a thread write down what came, and all that comes.
    pub(super) async fn write_down(self) -> Result<Self, SourceError> {
        let Self { digester, goes } = self;
        let writing = match goes {
            Goes::Held(held) => held.write_down().await?,
            Goes::Writing(writing) => writing,
        };
        Ok(Self { digester, goes: Goes::Writing(writing) })
    }

    /// Takes the next piece; `false`: the writer ended, and says why at the end.
    pub(super) async fn take(&mut self, bytes: Bytes) -> bool {
        match &mut self.goes {
            Goes::Held(held) => {
                self.digester.update(&bytes);
                held.pieces.push(Piece { bytes, digester: Some(self.digester.clone()) });
                true
            }
            Goes::Writing(writing) => {
                let piece = Piece { bytes, digester: None };
                writing.sender.send(Some(piece)).await.is_ok()
            }
        }
    }

    /// The stream ended, so or so. What was cut is written down.
    pub(super) async fn end(
        self,
        received: Result<(), TransferError>,
    ) -> Result<Sunk, SourceError> {
        match self.goes {
            Goes::Held(held) if received.is_ok() => Ok(held.end(self.digester)),
            Goes::Held(held) => Box::pin(held.write_down()).await?.end(received).await,
            Goes::Writing(writing) => writing.end(received).await,
        }
    }
}

impl Held {
    fn end(self, digester: Digester) -> Sunk {
        let Self { partial, metadata, pieces, .. } = self;
        let bytes = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
        let content = Content { digest: digester.finish(), bytes, kind: Kind::File };
        Sunk::Small(Small { pieces, content, validators: metadata.validators }, partial)
    }

    async fn write_down(self) -> Result<Writing, SourceError> {
        let Self { mut partial, metadata, offset, pieces, .. } = self;
        if partial.is_unmade() {
            partial = blocking(move || partial.make()).await??;
        }
        let (sender, mut coming) = mpsc::channel::<Option<Piece>>(QUEUE_PIECES);
        let thread = tokio::task::spawn_blocking(move || {
            let begun = if offset == 0 {
                partial.restart(&metadata)
            } else {
                partial.learn_length(metadata.length);
                Ok(())
            };
            let mut early = pieces.into_iter();
            let next =
                || early.next().map_or_else(|| coming.blocking_recv(), |one| Some(Some(one)));
            let written = begun.and_then(|()| partial.append_all(next));
            (partial, written)
        });
        Ok(Writing { sender, thread })
    }
}

impl Writing {
    async fn end(self, received: Result<(), TransferError>) -> Result<Sunk, SourceError> {
        let Self { sender, thread } = self;
        if received.is_ok() && sender.send(None).await.is_err() {
            tracing::debug!("the writer ended before the stream");
        }
        drop(sender);
        let (partial, written) = thread.await.map_err(|error| joined(&error))?;
        written?;
        if received.is_ok() && partial.lacks() {
            let (received, expected) = (partial.position(), partial.length());
            return Ok(Sunk::Written(partial, Err(TransferError::Cut { received, expected })));
        }
        Ok(Sunk::Written(partial, received))
    }
}
