//! Where the bytes of one try go: into memory at first when the file is small, else to a thread
//! that hashes and writes them.

use keelboat_engine::{Content, Digester, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::bytes::Bytes;

use super::error::SourceError;
use super::{blocking, joined};
use crate::local::LocalError;
use crate::partial::Partial;
use crate::protocol::{Metadata, TransferError, Validators};

/// Pieces between the network and the disk.
const QUEUE_PIECES: usize = 32;

/// A small file, whole and in memory.
pub(super) struct Small {
    pub(super) pieces: Vec<Bytes>,
    pub(super) bytes: u64,
    pub(super) validators: Validators,
}

/// What became of the bytes.
pub(super) enum Sunk {
    Small(Small, Partial),
    Written(Partial, Result<(), TransferError>),
}

pub(super) enum Sink {
    Held(Box<Held>),
    Writing(Writing),
}

/// Pieces that nobody has written down.
pub(super) struct Held {
    partial: Partial,
    metadata: Metadata,
    offset: u64,
    pieces: Vec<Bytes>,
    bytes: u64,
}

/// A thread at work. It ends when the sender is gone.
pub(super) struct Writing {
    sender: mpsc::Sender<Option<Bytes>>,
    thread: JoinHandle<(Partial, Result<(), LocalError>)>,
}

impl Small {
    /// What it holds. Reads all of it.
    pub(super) fn content(&self) -> Content {
        let mut digester = Digester::new();
        self.pieces.iter().for_each(|piece| digester.update(piece));
        Content { digest: digester.finish(), bytes: self.bytes, kind: Kind::File }
    }
}

impl Sink {
    /// For an answer that begins at this offset.
    pub(super) fn new(partial: Partial, metadata: Metadata, offset: u64) -> Self {
        let pieces = Vec::new();
        Self::Held(Box::new(Held { partial, metadata, offset, pieces, bytes: 0 }))
    }

    pub(super) const fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }

    /// Lets a thread write down what came, and all that comes.
    pub(super) async fn write_down(self) -> Result<Self, SourceError> {
        match self {
            Self::Held(held) => Ok(Self::Writing(held.write_down().await?)),
            writing @ Self::Writing(_) => Ok(writing),
        }
    }

    /// Takes the next piece; `false`: the writer ended, and says why at the end.
    pub(super) async fn take(&mut self, piece: Bytes) -> bool {
        match self {
            Self::Held(held) => {
                held.bytes += piece.len() as u64;
                held.pieces.push(piece);
                true
            }
            Self::Writing(writing) => writing.sender.send(Some(piece)).await.is_ok(),
        }
    }

    /// The stream ended, so or so. What was cut is written down.
    pub(super) async fn end(
        self,
        received: Result<(), TransferError>,
    ) -> Result<Sunk, SourceError> {
        match self {
            Self::Held(held) if received.is_ok() => Ok(held.end()),
            Self::Held(held) => held.write_down().await?.end(received).await,
            Self::Writing(writing) => writing.end(received).await,
        }
    }
}

impl Held {
    fn end(self) -> Sunk {
        let Self { partial, metadata, pieces, bytes, .. } = self;
        Sunk::Small(Small { pieces, bytes, validators: metadata.validators }, partial)
    }

    async fn write_down(self) -> Result<Writing, SourceError> {
        let Self { mut partial, metadata, offset, pieces, .. } = self;
        if partial.is_unmade() {
            partial = blocking(move || partial.make()).await??;
        }
        let (sender, mut coming) = mpsc::channel::<Option<Bytes>>(QUEUE_PIECES);
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
