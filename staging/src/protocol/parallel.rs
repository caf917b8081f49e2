//! One large file over several connections, handed on as one stream in its order, so that its
//! digest is computed in one pass and a partial file is always a beginning.
//!
//! A transfer begins with one connection. Further ones are made only where one is slow, where the
//! server has a strong validator to prove that all parts are of one version, and where nobody else
//! waits for a connection to this host. The first one goes on until a part ahead of it comes as it
//! should: many a server gives parts to nobody, or one file to one connection.

mod part;
mod single;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use keelboat_engine::Kind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

use super::{
    BoxFuture, ByteStream, Entry, ListRequest, Metadata, OpenRequest, Opened, Proof, Protocol,
    PutRequest, Renamed, TransferError, Validators, Writing,
};
use crate::address::Address;
use crate::gate::Gate;
use part::{Answer, Connection, Part};
use single::Singles;

/// Kibibytes of parts that are kept until their turn comes, in all transfers of this process.
const MEMORY_KIB_MAX: u32 = 64 << 10;

static MEMORY: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(MEMORY_KIB_MAX as usize)));

/// Where a connection costs little and can ask for a part.
const SCHEMES: &[&str] = &["http", "https", "s3", "gs", "az"];

/// Times in a row that one part may fail without a new byte.
const PART_TRIES_MAX: u32 = 3;

/// Before a part that failed is asked for again, times the number of its tries.
const PART_PAUSE: Duration = Duration::from_millis(100);

/// When further connections are made, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spreading {
    /// Connections for one file, the first one included.
    pub connections_max: usize,
    /// Bytes of a part.
    pub part_bytes: u64,
    /// Bytes that have to be missing still for it to be worth while.
    pub rest_bytes_min: u64,
    /// How long one connection is looked at first.
    pub settle: Duration,
    /// Bytes in a second that are fast enough for one connection.
    pub rate_enough: u64,
}

impl Default for Spreading {
    fn default() -> Self {
        Self {
            connections_max: 4,
            part_bytes: 4 << 20,
            rest_bytes_min: 32 << 20,
            settle: Duration::from_secs(1),
            rate_enough: 100_000_000,
        }
    }
}

/// Fetches large files over several connections where that is faster.
#[derive(Debug)]
pub struct Parallel<P> {
    inner: Arc<P>,
    gate: Gate,
    spreading: Spreading,
    singles: Arc<Singles>,
}

impl<P> Parallel<P> {
    /// Further connections pass this gate; the first one already has.
    pub fn new(inner: P, gate: Gate, spreading: Spreading) -> Self {
        Self { inner: Arc::new(inner), gate, spreading, singles: Arc::default() }
    }

    /// What parts are asked for with, if parts can be had and are worth while.
    fn known(&self, request: &OpenRequest, metadata: &Metadata, offset: u64) -> Option<Known> {
        let length = metadata.length?;
        let is_large = length.saturating_sub(offset) >= self.spreading.rest_bytes_min;
        let has_parts = metadata.accepts_ranges || offset > 0;
        let is_proven = metadata.validators.strong().is_some();
        let is_cheap = SCHEMES.contains(&&**request.address.scheme());
        let is_worth = is_large && has_parts && is_proven && is_cheap && request.end.is_none();
        let is_worth = is_worth && !self.singles.has(&request.address);
        let (address, validators) = (request.address.clone(), metadata.validators.clone());
        is_worth.then_some(Known { address, validators, length })
    }
}

/// The file that all parts have to be of.
#[derive(Debug)]
struct Known {
    address: Address,
    validators: Validators,
    length: u64,
}

impl<P: Protocol + 'static> Protocol for Parallel<P> {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let Opened::Body { metadata, offset, stream } = self.inner.open(request).await? else {
                return Ok(Opened::Unchanged);
            };
            let Some(known) = self.known(request, &metadata, offset) else {
                return Ok(Opened::Body { metadata, offset, stream });
            };
            let own = Arc::new(Semaphore::new(1));
            let stream = Box::new(ParallelStream {
                inner: Arc::clone(&self.inner),
                gate: self.gate.clone(),
                spreading: self.spreading.clone(),
                singles: Arc::clone(&self.singles),
                known: Arc::new(known),
                first: Some(First::new(stream, &own)),
                position: offset,
                parts: VecDeque::new(),
                planned: 0,
                connections_max: self.spreading.connections_max,
                is_alone: false,
                own,
            });
            Ok(Opened::Body { metadata, offset, stream })
        })
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        self.inner.list(request)
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

/// The connection that a transfer begins with.
struct First {
    stream: Box<dyn ByteStream>,
    came: u64,
    /// Time for which it was waited: a slow disk is no reason for more connections.
    waited: Duration,
    /// How often it was looked at, and once more.
    looks: u32,
    /// It is the one that the transfer has in any case.
    _own: Option<OwnedSemaphorePermit>,
}

struct ParallelStream<P> {
    inner: Arc<P>,
    gate: Gate,
    spreading: Spreading,
    singles: Arc<Singles>,
    known: Arc<Known>,
    /// Until the parts are reached.
    first: Option<First>,
    /// The next byte to hand on.
    position: u64,
    /// In order and without gaps: from the position on, or ahead of the first connection.
    parts: VecDeque<Part>,
    /// The byte after those of all parts.
    planned: u64,
    /// As many as the server has shown to bear.
    connections_max: usize,
    /// No further parts: the server does not give them as it should.
    is_alone: bool,
    /// The connection that the transfer has in any case.
    own: Arc<Semaphore>,
}

impl<P> fmt::Debug for ParallelStream<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ParallelStream");
        debug.field("position", &self.position).field("parts", &self.parts.len());
        debug.finish_non_exhaustive()
    }
}

impl<P: Protocol + 'static> ByteStream for ParallelStream<P> {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let mut piece = match &mut self.first {
                Some(first) => first.next().await?,
                None => return self.next_of_parts().await,
            };
            self.heed_answers();
            if let Some(piece) = &mut piece {
                self.end_at_parts(piece);
                self.position += piece.len() as u64;
                self.spread();
            }
            Ok(piece)
        })
    }
}

impl First {
    fn new(stream: Box<dyn ByteStream>, own: &Arc<Semaphore>) -> Self {
        let own = Arc::clone(own).try_acquire_owned().ok();
        Self { stream, came: 0, waited: Duration::ZERO, looks: 1, _own: own }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        let begun = Instant::now();
        let piece = self.stream.next().await?;
        self.waited += begun.elapsed();
        self.came += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(piece)
    }
}

impl<P: Protocol + 'static> ParallelStream<P> {
    /// What the answers to parts mean for the others.
    fn heed_answers(&mut self) {
        if let Some(at) = self.parts.iter().position(|part| part.answer() == Some(Answer::Refused))
        {
            // Those before it are on their way, unless the first connection can do without them.
            self.parts.truncate(if self.first.is_some() { 0 } else { at });
            self.stay_alone();
        }
        if self.first.is_none() {
            return;
        }
        match self.parts.front().and_then(Part::answer) {
            Some(Answer::Busy) => {
                self.is_alone = true;
                self.parts.clear();
            }
            Some(Answer::Lost) => self.parts.clear(),
            _ => {}
        }
    }

    /// From now on this file comes over one connection, in later tries, too.
    fn stay_alone(&mut self) {
        tracing::debug!(position = self.position, "the server gives no parts: one connection");
        self.is_alone = true;
        self.singles.add(&self.known.address);
    }

    /// The first connection ends where the parts begin. One that is there before a part has come
    /// needs no company now.
    fn end_at_parts(&mut self, piece: &mut Bytes) {
        let Some(head) = self.parts.front() else { return };
        let left = usize::try_from(head.start() - self.position).unwrap_or(usize::MAX);
        if piece.len() < left {
            return;
        }
        if head.answer() == Some(Answer::Given) {
            piece.truncate(left);
            self.first = None;
        } else {
            self.parts.clear();
        }
    }

    /// Whether the first connection is slow, for all that is missing.
    fn is_worth_spreading(&mut self) -> bool {
        let spreading = &self.spreading;
        let left = self.known.length.saturating_sub(self.position);
        let Some(first) = self.first.as_mut().filter(|_| !self.is_alone) else { return false };
        if first.waited < spreading.settle * first.looks || left < spreading.rest_bytes_min {
            return false;
        }
        first.looks += 1;
        let enough = u128::from(spreading.rate_enough) * first.waited.as_millis() / 1000;
        spreading.connections_max > 1 && u128::from(first.came) < enough
    }

    /// Asks for a part ahead, if a second connection can be had, and for more once it comes.
    fn spread(&mut self) {
        match self.parts.front().map(Part::answer) {
            Some(Some(Answer::Given)) => self.start_parts(),
            None if self.is_worth_spreading() => {
                let Some(permit) = self.gate.enter_also(&self.known.address) else { return };
                let left = self.known.length - self.position;
                self.planned = self.position + self.spreading.part_bytes.min(left / 2);
                if self.start_part(Connection::Further(permit)) {
                    tracing::debug!(position = self.position, "a part is asked for ahead");
                }
            }
            _ => {}
        }
    }

    /// Begins as many parts as there are connections and memory for.
    fn start_parts(&mut self) {
        loop {
            let parts = self.parts.iter().filter(|part| part.is_running()).count();
            let running = parts + usize::from(self.first.is_some());
            let is_far = self.parts.len() >= 2 * self.spreading.connections_max;
            let is_over = self.planned >= self.known.length || self.is_alone;
            if running >= self.connections_max || is_far || is_over {
                return;
            }
            let Some(connection) = self.connection() else { return };
            if !self.start_part(connection) {
                return;
            }
        }
    }

    /// The transfer's own connection, or a further one, if there is one at once.
    fn connection(&self) -> Option<Connection> {
        match Arc::clone(&self.own).try_acquire_owned() {
            Ok(own) => Some(Connection::Own(own)),
            Err(_in_use) => self.gate.enter_also(&self.known.address).map(Connection::Further),
        }
    }

    /// `false`: there is no memory for it now.
    fn start_part(&mut self, connection: Connection) -> bool {
        let end = (self.planned + self.spreading.part_bytes).min(self.known.length);
        let memory = Arc::clone(&MEMORY).try_acquire_many_owned(kib(end - self.planned));
        let Ok(memory) = memory else { return false };
        let range = self.planned..end;
        let part = Part::begin(&self.inner, &self.known, range, connection, memory);
        self.parts.push_back(part);
        self.planned = end;
        true
    }

    async fn next_of_parts(&mut self) -> Result<Option<Bytes>, TransferError> {
        loop {
            self.heed_answers();
            self.start_parts();
            let Some(head) = self.parts.front_mut() else {
                if self.position >= self.known.length {
                    return Ok(None);
                }
                if self.is_alone {
                    return Err(self.cut());
                }
                self.start_when_possible().await?;
                continue;
            };
            match head.next().await {
                Ok(Some(piece)) => {
                    self.position += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Ok(None) => drop(self.parts.pop_front()),
                Err(error) => self.ask_again(error).await?,
            }
        }
    }

    /// The next try goes on from here, over one connection.
    fn cut(&self) -> TransferError {
        TransferError::Cut { received: self.position, expected: Some(self.known.length) }
    }

    /// Waits for memory and the transfer's own connection. Those who hold the memory have parts
    /// before it that are under way.
    async fn start_when_possible(&mut self) -> Result<(), TransferError> {
        let closed = |_| TransferError::Unreachable { found: "transfers have ended".into() };
        let own = Arc::clone(&self.own).acquire_owned().await.map_err(closed)?;
        let end = (self.planned + self.spreading.part_bytes).min(self.known.length);
        let kib = kib(end - self.planned);
        let memory = Arc::clone(&MEMORY).acquire_many_owned(kib).await.map_err(closed)?;
        let (range, connection) = (self.planned..end, Connection::Own(own));
        self.parts.push_back(Part::begin(&self.inner, &self.known, range, connection, memory));
        self.planned = end;
        Ok(())
    }

    /// What is missing of the first part is asked for again, over the connection that the transfer
    /// has in any case: the server may not bear as many as there were.
    async fn ask_again(&mut self, error: TransferError) -> Result<(), TransferError> {
        let Some(mut head) = self.parts.pop_front() else { return Err(error) };
        head.tries += 1;
        if Answer::of(&error) == Answer::Refused {
            tracing::debug!(cause = %error, "a part was refused");
            self.parts.clear();
            self.stay_alone();
            return Err(self.cut());
        }
        if head.tries > PART_TRIES_MAX {
            return Err(error);
        }
        tracing::debug!(cause = %error, "a part is asked for again");
        self.connections_max = match error {
            TransferError::Busy { .. } => 1,
            _ => self.connections_max.saturating_sub(1).max(1),
        };
        let closed = |_| TransferError::Unreachable { found: "transfers have ended".into() };
        let own = Arc::clone(&self.own).acquire_owned().await.map_err(closed)?;
        tokio::time::sleep(PART_PAUSE * head.tries).await;
        self.parts.push_front(head.again(&self.inner, &self.known, Connection::Own(own)));
        Ok(())
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(MEMORY_KIB_MAX).min(MEMORY_KIB_MAX)
}
