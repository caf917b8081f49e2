//! Limits on transfers: their number, their pace, their room, and hosts that are left alone.

use std::sync::Arc;

use keelboat_engine::Kind;
use keelboat_engine::queue::Reserved;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

use super::{
    BoxFuture, ByteStream, Entry, ListRequest, OpenRequest, Opened, Proof, Protocol, PutRequest,
    Renamed, TransferError, Writing,
};
use crate::address::Address;
use crate::gate::{Gate, Permit, Turn};

/// Waits for a turn before it does anything, keeps it until that is over, and tells the queue how
/// the host answered.
///
/// The wait for others has no deadline of its own: those who hold the turns have. A host that
/// does not answer is waited for as long as the transfer's retry budget allows.
#[derive(Debug)]
pub struct Throttled<P> {
    inner: P,
    gate: Gate,
}

impl<P> Throttled<P> {
    /// With limits that others behind the same gate count against, too.
    pub const fn new(inner: P, gate: Gate) -> Self {
        Self { inner, gate }
    }

    /// Does something that takes a connection, and tells how it ended.
    async fn within<T>(
        &self,
        address: &str,
        deed: impl Future<Output = Result<T, TransferError>>,
    ) -> Result<T, TransferError> {
        let permit = self.gate.enter(&Address::from(address), &Turn::default(), None).await?;
        let result = deed.await;
        permit.report(&result);
        result
    }
}

impl<P: Protocol> Throttled<P> {
    /// Opens a file for which there is room. Where there is none, the connection is given back
    /// for the time of the wait.
    async fn open_with_room(&self, request: &OpenRequest) -> Result<Opened, TransferError> {
        let turn = &request.turn;
        let mut room = None;
        loop {
            let permit = self.gate.enter(&request.address, turn, room).await?;
            let opened = self.inner.open(request).await;
            permit.report(&opened);
            let Opened::Body { metadata, offset, stream } = opened? else {
                return Ok(Opened::Unchanged);
            };
            let reserved =
                metadata.length.map_or(Reserved::Yes, |bytes| self.gate.reserve(turn, bytes));
            match (reserved, metadata.length) {
                (Reserved::Later, Some(_)) => room = metadata.length,
                (Reserved::Never, Some(bytes)) => return Err(self.gate.too_large(bytes)),
                _ => {
                    let position = metadata.length.is_none().then_some(offset);
                    let (gate, turn) = (self.gate.clone(), turn.clone());
                    let stream = Box::new(ThrottledStream {
                        stream,
                        permit,
                        gate,
                        turn,
                        position,
                        next_at: None,
                    });
                    return Ok(Opened::Body { metadata, offset, stream });
                }
            }
        }
    }
}

impl<P: Protocol> Protocol for Throttled<P> {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(self.open_with_room(request))
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(self.within(&request.address, self.inner.list(request)))
    }

    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        Box::pin(self.within(address, self.inner.kind(address)))
    }

    fn writing(&self) -> Writing {
        self.inner.writing()
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(async move {
            let address = Arc::clone(&request.address).into();
            let permit = self.gate.enter(&address, &Turn::default(), None).await?;
            let paced = PutRequest { sent: request.sent.paced(permit.pace()), ..request.clone() };
            let put = self.inner.put(&paced).await;
            permit.report(&put);
            put
        })
    }

    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.within(address, self.inner.make_directory(address)))
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        Box::pin(self.within(from, self.inner.rename(from, to)))
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.within(address, self.inner.remove(address)))
    }
}

struct ThrottledStream {
    stream: Box<dyn ByteStream>,
    permit: Permit,
    gate: Gate,
    turn: Turn,
    /// How far it is, where nobody knows how much will come: it takes room as it goes.
    position: Option<u64>,
    /// No more is asked for before.
    next_at: Option<Instant>,
}

impl ByteStream for ThrottledStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            if let Some(next_at) = self.next_at {
                tokio::time::sleep_until(next_at).await;
                self.next_at = None;
            }
            let piece = self.stream.next().await;
            match &piece {
                Ok(Some(bytes)) => self.came(bytes.len() as u64),
                Ok(None) => {}
                Err(_) => self.permit.report(&piece),
            }
            piece
        })
    }
}

impl ThrottledStream {
    fn came(&mut self, bytes: u64) {
        let wait = self.permit.grant(bytes);
        if !wait.is_zero() {
            self.next_at = Some(Instant::now() + wait);
        }
        if let Some(position) = &mut self.position {
            *position += bytes;
            self.gate.occupy(&self.turn, *position);
        }
    }
}
