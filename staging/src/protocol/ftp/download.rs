//! Reading one file.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::AsyncReadExt;
use tokio_util::bytes::{Bytes, BytesMut};

use super::address::Target;
use super::pool::Pool;
use super::reply::Reply;
use super::session::{Data, Session, Transfer};
use super::version::Version;
use crate::protocol::{
    BoxFuture, ByteStream, Condition, Metadata, OpenRequest, Opened, TransferError, Validators,
};

/// Bytes read at once.
const PIECE_BYTES: usize = 256 << 10;

pub(super) async fn open(
    pool: &Arc<Pool>,
    target: Target,
    request: &OpenRequest,
    is_ours: impl Fn(&Version) -> bool,
) -> Result<Opened, TransferError> {
    let mut session = pool.take(&target.login).await?;
    let version = Version::settled(&mut session, &target.path, is_ours).await?;
    let validators = version.validators(Timestamp::now());
    if is_unchanged(&request.condition, &validators) {
        pool.give_back(&target.login, session);
        return Ok(Opened::Unchanged);
    }
    let offset = start(request, &version, &validators);
    let (data, offset) = match begin(&mut session, &target.path, offset).await? {
        Ok(begun) => begun,
        Err(reply) => {
            pool.give_back(&target.login, session);
            return Err(reply.refusal());
        }
    };
    let accepts_ranges = session.feature("REST").is_some_and(|kind| kind.contains("STREAM"));
    let metadata =
        Metadata { length: version.length, validators, accepts_ranges, media_type: None };
    let pool = Arc::clone(pool);
    let live = Live { pool, session, data, target, version, position: offset };
    let stream = FtpStream { live: Some(live), buffer: BytesMut::new() };
    Ok(Opened::Body { metadata, offset, stream: Box::new(stream) })
}

fn is_unchanged(condition: &Condition, found: &Validators) -> bool {
    let Condition::IfChanged(known) = condition else { return false };
    found.last_modified.is_some() && known.last_modified == found.last_modified
}

/// From where on the file is asked for.
fn start(request: &OpenRequest, version: &Version, found: &Validators) -> u64 {
    let is_past_end = version.length.is_some_and(|length| request.offset > length);
    let is_other = match &request.condition {
        Condition::IfSame { known, length } => {
            let has_other_length = length.zip(version.length).is_some_and(|(was, is)| was != is);
            // A version that was proven and no longer is must not be built on.
            let is_unproven = known.strong().is_some() && found.is_empty();
            has_other_length || is_unproven || known.differ(found)
        }
        Condition::Always | Condition::IfChanged(_) => false,
    };
    if is_past_end || is_other { 0 } else { request.offset }
}

/// From the offset, or, where a server cannot do that, from the start.
async fn begin(
    session: &mut Session,
    path: &str,
    offset: u64,
) -> Result<Result<(Data, u64), Reply>, TransferError> {
    let command = format!("RETR {path}");
    let begun = session.begin(Transfer::Read(&command, offset)).await?;
    match begun {
        Ok(data) => Ok(Ok((data, offset))),
        // Some servers refuse REST, others take it and then refuse the file.
        Err(reply) if offset > 0 && !matches!(reply.code, 421 | 425 | 426 | 530 | 550) => {
            let begun = session.begin(Transfer::Read(&command, 0)).await?;
            Ok(begun.map(|data| (data, 0)))
        }
        Err(reply) => Ok(Err(reply)),
    }
}

/// A transfer under way.
struct Live {
    pool: Arc<Pool>,
    session: Session,
    data: Data,
    target: Target,
    version: Version,
    position: u64,
}

/// `None` from the end on, and after a failure; a connection that is dropped before is not used
/// again.
struct FtpStream {
    live: Option<Live>,
    buffer: BytesMut,
}

impl ByteStream for FtpStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let Some(live) = &mut self.live else {
                return Err(TransferError::Unreachable { found: "the transfer is over".into() });
            };
            self.buffer.reserve(PIECE_BYTES);
            match live.data.read_buf(&mut self.buffer).await {
                Ok(0) => {}
                Ok(bytes) => {
                    live.position += bytes as u64;
                    return Ok(Some(self.buffer.split().freeze()));
                }
                // Many servers end TLS without its farewell; the answer and the length decide.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
                Err(error) => {
                    tracing::debug!(%error, "a data connection broke");
                    let (received, expected) = (live.position, live.version.length);
                    self.live = None;
                    return Err(TransferError::Cut { received, expected });
                }
            }
            match self.live.take() {
                Some(live) => live.end().await.map(|()| None),
                None => Ok(None),
            }
        })
    }
}

impl Live {
    /// The server must say that it sent all, and that the file is still the same one.
    async fn end(mut self) -> Result<(), TransferError> {
        let (received, expected) = (self.position, self.version.length);
        let is_short = expected.is_none_or(|length| received < length);
        let cut = TransferError::Cut { received, expected };
        match Session::end(self.data).await {
            Ok(Ok(())) => {}
            Ok(Err(reply)) if !is_short => {
                let found = format!("all {received} bytes came, and then {}", reply.shown());
                return Err(TransferError::Malformed { found });
            }
            Ok(Err(reply)) => {
                tracing::debug!(reply = reply.shown(), "a transfer failed");
                return Err(cut);
            }
            Err(_) if is_short => return Err(cut),
            Err(error) => return Err(error),
        }
        let version = Version::ask(&mut self.session, &self.target.path).await?;
        self.pool.give_back(&self.target.login, self.session);
        if version != self.version {
            return Err(TransferError::Changed { found: "it was written to meanwhile".into() });
        }
        match expected {
            Some(length) if received < length => Err(cut),
            _ => Ok(()),
        }
    }
}
