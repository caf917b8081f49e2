//! One SFTP session: a channel of an SSH connection with a server's subsystem at its end.
//!
//! A session has one user at a time, so requests and answers need no task in between: whoever
//! sends many requests at once takes the answers in the order that suits them.

use std::fmt;
use std::pin::pin;
use std::task::{Context, Waker};

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio_util::bytes::{Bytes, BytesMut};

use super::answer::refusal;
use super::wire::{self, Attributes, EOF, Extension, Mode, Name, Offers, Reply, Request};
use crate::protocol::TransferError;

/// Bytes asked for and written at once, when the server says nothing else.
const PIECE_BYTES: u32 = 32 << 10;

/// Bytes asked for and written at once, whatever the server allows.
const PIECE_BYTES_MAX: u32 = 255 << 10;

/// Questions at once where many are asked.
const QUESTIONS_MAX: usize = 64;

/// A session that is open.
pub(super) struct Session {
    incoming: ChannelReadHalf,
    /// Taken only when it is closed.
    outgoing: Option<ChannelWriteHalf<Msg>>,
    buffer: BytesMut,
    next_id: u32,
    /// What the server can.
    pub(super) offers: Offers,
    /// The most that one read may ask for.
    pub(super) read_max: u32,
    /// The most that one write may hold.
    pub(super) write_max: u32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("offers", &self.offers).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Outside of a runtime the connection ends, too.
        if let (Some(outgoing), Ok(runtime)) =
            (self.outgoing.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                if outgoing.close().await.is_err() {
                    tracing::trace!("a session ended with its connection");
                }
            });
        }
    }
}

impl Session {
    /// Starts the subsystem in a channel.
    pub(super) async fn start(channel: Channel<Msg>) -> Result<Self, TransferError> {
        let asked = channel.request_subsystem(true, "sftp").await;
        asked.map_err(|error| lost(&error.to_string()))?;
        let (incoming, outgoing) = channel.split();
        let mut session = Self {
            incoming,
            outgoing: Some(outgoing),
            buffer: BytesMut::new(),
            next_id: 0,
            offers: Offers::default(),
            read_max: PIECE_BYTES,
            write_max: PIECE_BYTES,
        };
        session.send_bytes(wire::hello()).await?;
        session.offers = wire::welcome(session.packet().await?)?;
        if session.offers.has(Extension::Limits)
            && let Reply::Extended(limits) = session.call(Request::limits()).await?
        {
            let (read_max, write_max) = wire::read_limits(limits)?;
            session.read_max = piece_bytes(read_max);
            session.write_max = piece_bytes(write_max);
        }
        Ok(session)
    }

    /// Whether nothing has come since the last answer: not its end, above all.
    pub(super) fn is_idle(&mut self) -> bool {
        let is_silent = {
            let next = pin!(self.incoming.wait());
            next.poll(&mut Context::from_waker(Waker::noop())).is_pending()
        };
        is_silent && self.buffer.is_empty()
    }

    /// Sends a request and says its number.
    pub(super) async fn send(&mut self, request: Request) -> Result<u32, TransferError> {
        self.next_id = self.next_id.wrapping_add(1);
        self.send_bytes(request.numbered(self.next_id)).await?;
        Ok(self.next_id)
    }

    /// What comes meanwhile is kept, above all the end: whoever waits for the server to take more is
    /// not told of it by `russh`.
    async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), TransferError> {
        let Self { incoming, outgoing, buffer, .. } = self;
        let Some(outgoing) = outgoing else { return Err(lost("it was closed")) };
        let mut sending = pin!(outgoing.data_bytes(bytes));
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent.map_err(|error| lost(&error.to_string())),
                message = incoming.wait() => keep(buffer, message)?,
            }
        }
    }

    /// The next answer, to whichever request. Giving up the wait loses nothing.
    pub(super) async fn receive(&mut self) -> Result<(u32, Reply), TransferError> {
        wire::parse(self.packet().await?)
    }

    /// What has come of the data that answers a request, when no more will come.
    pub(super) fn salvage(&mut self, id: u32) -> Option<Bytes> {
        wire::begun_data(self.buffer.split().freeze(), id)
    }

    async fn packet(&mut self) -> Result<Bytes, TransferError> {
        loop {
            if let Some(packet) = wire::split(&mut self.buffer)? {
                return Ok(packet);
            }
            keep(&mut self.buffer, self.incoming.wait().await)?;
        }
    }

    /// Asks one question, when no other is open.
    pub(super) async fn call(&mut self, request: Request) -> Result<Reply, TransferError> {
        let asked = self.send(request).await?;
        let (answered, reply) = self.receive().await?;
        if answered == asked { Ok(reply) } else { Err(wire::malformed("an answer to nothing")) }
    }

    /// Asks many questions; the answers come in their order.
    pub(super) async fn call_all(
        &mut self,
        requests: Vec<Request>,
    ) -> Result<Vec<Reply>, TransferError> {
        let mut replies = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        loop {
            let mut asked = Vec::new();
            for request in requests.by_ref().take(QUESTIONS_MAX) {
                asked.push((self.send(request).await?, None));
            }
            if asked.is_empty() {
                return Ok(replies);
            }
            for _ in 0..asked.len() {
                let (id, reply) = self.receive().await?;
                let slot = asked.iter_mut().find(|(asked, slot)| *asked == id && slot.is_none());
                let (_, slot) = slot.ok_or_else(|| wire::malformed("an answer to nothing"))?;
                *slot = Some(reply);
            }
            replies.extend(asked.into_iter().filter_map(|(_, reply)| reply));
        }
    }

    /// Opens a file.
    pub(super) async fn open(
        &mut self,
        path: &[u8],
        mode: Mode,
        permissions: Option<u32>,
    ) -> Result<Bytes, TransferError> {
        match self.call(Request::open(path, mode, permissions)).await? {
            Reply::Handle(handle) => Ok(handle),
            other => Err(refusal(other)),
        }
    }

    /// What a handle, a path, or the end of a path's links is, by the request made for it.
    pub(super) async fn attributes(
        &mut self,
        request: Request,
    ) -> Result<Attributes, TransferError> {
        match self.call(request).await? {
            Reply::Attributes(attributes) => Ok(attributes),
            other => Err(refusal(other)),
        }
    }

    /// Everything in a directory but `.` and `..`; more than `names_max` are refused.
    pub(super) async fn names(
        &mut self,
        path: &[u8],
        names_max: usize,
    ) -> Result<Vec<Name>, TransferError> {
        let handle = match self.call(Request::opendir(path)).await? {
            Reply::Handle(handle) => handle,
            other => return Err(refusal(other)),
        };
        let mut names = Vec::new();
        let end = loop {
            match self.call(Request::readdir(&handle)).await? {
                Reply::Names(more) if !more.is_empty() => {
                    names
                        .extend(more.into_iter().filter(|one| !matches!(&*one.name, b"." | b"..")));
                }
                Reply::Names(_) | Reply::Status { code: EOF, .. } => break Ok(names),
                other => break Err(refusal(other)),
            }
            if names.len() > names_max {
                break Err(TransferError::Refused {
                    found: format!("the directory holds more than {names_max} entries"),
                    hint: "name a smaller directory, or each file".into(),
                });
            }
        };
        self.call(Request::close(&handle)).await?;
        end
    }
}

/// Adds what came to what waits to be read.
fn keep(buffer: &mut BytesMut, message: Option<ChannelMsg>) -> Result<(), TransferError> {
    match message {
        Some(ChannelMsg::Data { data }) => buffer.extend_from_slice(&data),
        Some(ChannelMsg::Failure) => {
            return Err(TransferError::Refused {
                found: "the server has no SFTP for this user".into(),
                hint: "ask whoever runs it for the `sftp` subsystem".into(),
            });
        }
        Some(ChannelMsg::Eof | ChannelMsg::Close) => {
            return Err(lost("the server closed the session"));
        }
        None => return Err(lost("the connection ended")),
        // What the server's program says to people, and how it exits.
        Some(_) => {}
    }
    Ok(())
}

/// What one request moves: what the server allows, up to a limit of our own.
fn piece_bytes(allowed: u64) -> u32 {
    match u32::try_from(allowed) {
        Ok(0) => PIECE_BYTES,
        Ok(allowed) => allowed.min(PIECE_BYTES_MAX),
        Err(_) => PIECE_BYTES_MAX,
    }
}

/// The session is gone.
fn lost(found: &str) -> TransferError {
    TransferError::Unreachable { found: format!("the SFTP session: {found}") }
}
