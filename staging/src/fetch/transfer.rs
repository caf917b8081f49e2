//! One file from one address, byte by byte, with its tries, until it is here and proven.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keelboat_engine::{Content, Digest, Kind};
use tokio_util::bytes::Bytes;

use super::arrived::{Arrived, Held, Own};
use super::error::SourceError;
use super::flight::Landed;
use super::job::Job;
use super::sink::{Sink, Small, Sunk};
use super::{TransferEvent, blocking};
use crate::address::{Address, address_digest, names_data};
use crate::gate::Turn;
use crate::partial::Partial;
use crate::protocol::{
    ByteStream, Condition, Metadata, OpenRequest, Opened, Protocol, TransferError, Validators,
};
use crate::retry::Retries;

/// Files of up to so many bytes come in memory and are written at once, when they are whole.
const SMALL_BYTES_MAX: u64 = 2 << 20;

/// What comes in memory for so long is written down, so that a crash does not cost it.
const SMALL_WAIT: Duration = Duration::from_millis(500);

/// Files of up to so many bytes are written by whoever has them: another thread would cost more.
const INLINE_BYTES_MAX: u64 = 64 << 10;

/// Times that a file may change while it is read before its address is given up.
const CHANGES_MAX: u32 = 5;

/// One address.
pub(super) struct Source<'a> {
    job: &'a Job,
    address: &'a Address,
    shown: &'a str,
    digest: Digest,
    transferred: &'a AtomicU64,
    turn: Turn,
}

/// The counts by which an address is given up.
struct Tally {
    retries: Retries,
    /// How far the present version came at most.
    best: u64,
    /// What the server says of that version.
    version: Validators,
    changes: u32,
    mismatches: u32,
}

impl Tally {
    fn new(retries: Retries) -> Self {
        Self { retries, best: 0, version: Validators::default(), changes: 0, mismatches: 0 }
    }

    /// A try failed: did it bring anything new, and is the file still the same one? The progress
    /// of a new version is its own, but there are only so many.
    fn on_failure(&mut self, error: TransferError, partial: &Partial) -> TransferError {
        let (found, position) = (partial.validators(), partial.position());
        if self.version.differ(found) {
            self.changed();
        }
        if !found.is_empty() {
            self.version = found.clone();
        }
        // What came so slowly that it would have no end is no progress.
        let trickle = match &error {
            TransferError::Slow { bytes, .. } => *bytes,
            _ => 0,
        };
        if position > self.best.saturating_add(trickle) {
            self.retries.on_progress(Instant::now());
        }
        self.best = self.best.max(position);
        if matches!(error, TransferError::Changed { .. }) {
            self.changed();
        }
        if self.changes < CHANGES_MAX || matches!(error, TransferError::Changed { .. }) {
            return error;
        }
        TransferError::Changed { found: format!("{} times; last, {error}", self.changes) }
    }

    fn changed(&mut self) {
        self.changes += 1;
        self.version = Validators::default();
        self.best = 0;
    }
}

/// What one try came to.
enum Tried {
    Unchanged,
    Complete(Partial),
    Small(Small, Partial),
    Failed(TransferError, Partial),
}

impl<'a> Source<'a> {
    pub(super) fn new(job: &'a Job, shown: &'a str, transferred: &'a AtomicU64) -> Self {
        let (address, digest) = (&job.address, address_digest(&job.address));
        Self { job, address, shown, digest, transferred, turn: job.turn() }
    }

    pub(super) async fn fetch(&self, protocol: &dyn Protocol) -> Result<Landed, SourceError> {
        let retries = self.job.stager.retries_of(&self.digest, self.job.effort);
        let mut tally = Tally::new(retries);
        let mut partial = self.open_partial().await?;
        loop {
            self.turn.set_deadline(tally.retries.deadline());
            let tried = self.try_once(protocol, partial).await?;
            tally.retries.excuse(self.turn.take_excused());
            partial = match tried {
                Tried::Unchanged => return Ok(Landed::Unchanged),
                Tried::Complete(partial) => {
                    match Box::pin(self.accept(partial, &mut tally)).await? {
                        Ok(arrived) => return Ok(Landed::New(Arc::new(arrived))),
                        Err(partial) => partial,
                    }
                }
                Tried::Small(small, partial) => {
                    match self.accept_small(small, partial, &mut tally).await? {
                        Ok(arrived) => return Ok(Landed::New(Arc::new(arrived))),
                        Err(partial) => partial,
                    }
                }
                Tried::Failed(error, partial) => {
                    Box::pin(self.before_next_try(error, partial, &mut tally)).await?
                }
            };
        }
    }

    async fn open_partial(&self) -> Result<Partial, SourceError> {
        if let Some(partial) = Partial::begin(&self.job.stager.config.partial_dir, self.digest) {
            return Ok(partial);
        }
        let (dir, source) = (self.job.stager.config.partial_dir.clone(), self.digest);
        blocking(move || Partial::open(&dir, source)).await?.map_err(SourceError::Local)
    }

    async fn try_once(
        &self,
        protocol: &dyn Protocol,
        partial: Partial,
    ) -> Result<Tried, SourceError> {
        let builds_on = self.builds_on(&partial);
        if builds_on && partial.is_complete() && self.job.sha256.is_some() {
            return Ok(Tried::Complete(partial));
        }
        let request = self.open_request(&partial);
        let (metadata, offset, mut stream) = match protocol.open(&request).await {
            Ok(Opened::Body { metadata, offset, stream }) => (metadata, offset, stream),
            Ok(Opened::Unchanged) if builds_on => {
                // It was here all the time, and is there whether there is room for it or not.
                self.job.stager.gate.occupy(&self.turn, partial.position());
                self.turn.fill();
                return Ok(Tried::Complete(partial));
            }
            Ok(Opened::Unchanged) => return Ok(Tried::Unchanged),
            Err(error) => return Ok(Tried::Failed(error, partial)),
        };
        let (source, length) = (self.shown, metadata.length);
        self.job.tell(&TransferEvent::Opened { source, offset, length });
        let first = match self.first_piece(&metadata, offset, &mut *stream).await {
            Ok(first) => first,
            Err(error) => return Ok(Tried::Failed(error, partial)),
        };
        let incoming = Incoming { metadata, offset, stream, first };
        // Those who wait for their turn hold no room in memory for what comes after it.
        Box::pin(self.receive(incoming, partial)).await
    }

    /// Whether what is here can be gone on with: only with proof that the rest belongs to it,
    /// from the server beforehand or from the declared digest afterwards.
    fn builds_on(&self, partial: &Partial) -> bool {
        let has_proof = partial.validators().strong().is_some() || self.job.sha256.is_some();
        partial.position() > 0 && has_proof
    }

    fn open_request(&self, partial: &Partial) -> OpenRequest {
        let (address, turn) = (self.address.clone(), self.turn.clone());
        if !self.builds_on(partial) {
            let known = self.job.known_validators();
            let condition = known.map_or(Condition::Always, Condition::IfChanged);
            return OpenRequest { address, offset: 0, end: None, condition, turn };
        }
        let known = partial.validators().clone();
        if partial.is_complete() {
            let condition = Condition::IfChanged(known);
            return OpenRequest { address, offset: 0, end: None, condition, turn };
        }
        let condition = Condition::IfSame { known, length: partial.length() };
        OpenRequest { address, offset: partial.position(), end: None, condition, turn }
    }

    /// The first piece, if it does not show that this is a web page in the place of data.
    async fn first_piece(
        &self,
        metadata: &Metadata,
        offset: u64,
        stream: &mut dyn ByteStream,
    ) -> Result<Option<Bytes>, TransferError> {
        let first = stream.next().await?;
        let is_suspect = offset == 0
            && self.job.sha256.is_none()
            && metadata.media_type.as_deref() == Some("text/html")
            && names_data(self.address);
        if is_suspect && first.as_ref().is_some_and(|bytes| is_web_page(bytes)) {
            return Err(TransferError::Refused {
                found: "the server sent a web page instead of the file".into(),
                hint: "open the address in a browser: it may ask to log in".into(),
            });
        }
        Ok(first)
    }

    /// Checks the declared digest of a small file, and writes it. `Err`: there is another try.
    async fn accept_small(
        &self,
        small: Small,
        partial: Partial,
        tally: &mut Tally,
    ) -> Result<Result<Arrived, Partial>, SourceError> {
        let Small { content, .. } = small;
        let is_right = self.job.sha256.is_none_or(|expected| expected == content.digest);
        if !is_right {
            tally.mismatches += 1;
            if tally.mismatches < 2 {
                return Ok(Err(partial));
            }
            let is_web_page = small.pieces.first().is_some_and(|piece| is_web_page(&piece.bytes));
            let Content { digest: found, bytes, .. } = content;
            let expected = self.job.sha256.unwrap_or(found);
            return Err(SourceError::Mismatch { expected, found, bytes, is_web_page });
        }
        let (dir, source) = (self.job.stager.config.partial_dir.clone(), self.digest);
        let Small { pieces, validators, .. } = small;
        let write = move || Own::write(&dir, &source, pieces);
        let is_tiny = content.bytes <= INLINE_BYTES_MAX;
        let own = if is_tiny { write()? } else { blocking(write).await?? };
        let transferred = self.transferred.load(Ordering::Relaxed);
        let address = Arc::clone(self.address.text());
        let arrived = Arrived::own(own, content, validators, transferred, address);
        Ok(Ok(arrived.keeping(self.turn.clone())))
    }

    /// Lets the bytes flow from the network to memory or to a thread that writes them.
    async fn receive(&self, incoming: Incoming, partial: Partial) -> Result<Tried, SourceError> {
        let Incoming { metadata, offset, mut stream, first } = incoming;
        let length = metadata.length;
        let is_small =
            offset == 0 && partial.is_unmade() && length.is_some_and(|all| all <= SMALL_BYTES_MAX);
        let mut sink = Sink::new(partial, metadata, offset);
        if !is_small {
            sink = Box::pin(sink.write_down()).await?;
        }
        let mut patience = std::pin::pin!(tokio::time::sleep(SMALL_WAIT));
        let mut position = offset;
        let mut next = Ok(first);
        let received = loop {
            let Ok(Some(piece)) = next else { break next.map(drop) };
            position += piece.len() as u64;
            self.transferred.fetch_add(piece.len() as u64, Ordering::Relaxed);
            self.job.tell(&TransferEvent::Received { position, length });
            if !sink.take(piece).await {
                break Ok(());
            }
            let mut coming = stream.next();
            next = loop {
                tokio::select! {
                    biased;
                    piece = &mut coming => break piece,
                    () = &mut patience, if sink.is_held() => {
                        sink = Box::pin(sink.write_down()).await?;
                    }
                }
            };
        };
        // Frees the connection before the disk has caught up, but not yet the room.
        if received.is_ok() {
            self.turn.fill();
        }
        drop(stream);
        Ok(match sink.end(received).await? {
            Sunk::Small(small, partial) => Tried::Small(small, partial),
            Sunk::Written(partial, Ok(())) => Tried::Complete(partial),
            Sunk::Written(partial, Err(error)) => Tried::Failed(error, partial),
        })
    }

    /// Checks the declared digest. `Err`: it is not met, and there is another try.
    async fn accept(
        &self,
        partial: Partial,
        tally: &mut Tally,
    ) -> Result<Result<Arrived, Partial>, SourceError> {
        let (found, bytes) = (partial.digest(), partial.position());
        match self.job.sha256 {
            Some(expected) if expected != found => {
                tally.mismatches += 1;
                tally.best = 0;
                if tally.mismatches < 2 {
                    return start_over(partial).await.map(Err);
                }
                let is_web_page = is_web_page(&partial.head());
                start_over(partial).await?;
                Err(SourceError::Mismatch { expected, found, bytes, is_web_page })
            }
            _ => Ok(Ok(Arrived {
                content: Content { digest: found, bytes, kind: Kind::File },
                validators: partial.validators().clone(),
                transferred: self.transferred.load(Ordering::Relaxed),
                source_used: Arc::clone(self.address.text()),
                is_claimed: AtomicBool::new(false),
                turn: self.turn.clone(),
                held: Held::Partial(Box::new(partial)),
            })),
        }
    }

    /// Waits, if there is to be another try.
    async fn before_next_try(
        &self,
        error: TransferError,
        mut partial: Partial,
        tally: &mut Tally,
    ) -> Result<Partial, SourceError> {
        let tries = tally.retries.failures() + 1;
        let give_up = |error| Err(SourceError::Transfer { error, tries });
        if !error.is_retryable() {
            return give_up(error);
        }
        let error = tally.on_failure(error, &partial);
        if error.spoils_partial() || !self.builds_on(&partial) {
            partial = start_over(partial).await?;
        }
        let retry_after = match &error {
            TransferError::Busy { retry_after, .. } => *retry_after,
            _ => None,
        };
        let wait = tally.retries.on_failure(Instant::now(), retry_after);
        let Some(wait) = wait.filter(|_| tally.changes < CHANGES_MAX) else {
            return give_up(error);
        };
        let cause = error.to_string();
        tracing::debug!(source = self.shown, cause, ?wait, "a try failed");
        let (source, next) = (self.shown, Some(tally.retries.next_try()));
        self.job.tell(&TransferEvent::Waiting { source, cause: &cause, wait, next });
        tokio::time::sleep(wait).await;
        Ok(partial)
    }
}

/// An answer whose bytes are about to come.
struct Incoming {
    metadata: Metadata,
    offset: u64,
    stream: Box<dyn ByteStream>,
    first: Option<Bytes>,
}

async fn start_over(mut partial: Partial) -> Result<Partial, SourceError> {
    let restarted = blocking(move || {
        let restarted = partial.restart(&Metadata::default());
        restarted.map(|()| partial)
    });
    restarted.await?.map_err(SourceError::Local)
}

/// Whether these first bytes are those of an HTML document.
fn is_web_page(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    let begins = |tag: &[u8]| head.get(..tag.len()).is_some_and(|h| h.eq_ignore_ascii_case(tag));
    begins(b"<!doctype html") || begins(b"<html")
}
