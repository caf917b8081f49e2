//! Writing one file.

use std::path::Path;
use std::time::Duration;

use keelboat_engine::FailureClass;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::time::timeout;

use super::reply::{Reply, failure};
use super::session::{Data, Session, Transfer};
use crate::local::LocalError;
use crate::protocol::{Proof, PutRequest, TransferError, Validators};

/// Bytes read and written at once.
const PIECE_BYTES: usize = 256 << 10;

/// How long a server may take to say why it takes no more.
const REASON_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes the file to this path. After an error the session is not to be used again.
pub(super) async fn put(
    session: &mut Session,
    path: &str,
    request: &PutRequest,
) -> Result<Proof, TransferError> {
    let bytes = request.content.bytes;
    let there = if request.resume { size(session, path).await? } else { None };
    let there = there.filter(|there| *there <= bytes).unwrap_or(0);
    if there == 0 || there < bytes {
        let (data, offset) = begin(session, path, there).await?;
        request.sent.begin_at(offset);
        send(data, offset, request).await?;
    }
    match size(session, path).await? {
        Some(found) if found < bytes => {
            Err(TransferError::Cut { received: found, expected: Some(bytes) })
        }
        Some(found) if found > bytes => {
            session.command(&format!("DELE {path}")).await?;
            Err(TransferError::TooLong { expected: bytes })
        }
        _ => prove(session, path, request).await,
    }
}

/// Bytes that are there.
async fn size(session: &mut Session, path: &str) -> Result<Option<u64>, TransferError> {
    let reply = session.command(&format!("SIZE {path}")).await?;
    Ok(if reply.code == 213 { reply.last().parse().ok() } else { None })
}

/// From what is there on, if the server can do that.
async fn begin(
    session: &mut Session,
    path: &str,
    there: u64,
) -> Result<(Data, u64), TransferError> {
    if there > 0 {
        if let Ok(data) = session.begin(Transfer::Write(path, there)).await? {
            return Ok((data, there));
        }
        if let Ok(data) = session.begin(Transfer::Append(path)).await? {
            return Ok((data, there));
        }
    }
    let begun = match session.begin(Transfer::Write(path, 0)).await? {
        Err(reply) if matches!(reply.code, 450 | 451 | 550 | 553) => {
            make_parents(session, path).await?;
            session.begin(Transfer::Write(path, 0)).await?
        }
        begun => begun,
    };
    begun.map(|data| (data, 0)).map_err(|reply| reply.refusal())
}

/// Makes the directories above a path, as far as they are missing.
pub(super) async fn make_parents(session: &mut Session, path: &str) -> Result<(), TransferError> {
    let ends = path.match_indices('/').map(|(end, _)| end);
    for parent in ends.filter_map(|end| path.get(..end)) {
        if !matches!(parent, "" | ".") {
            // What is there already is refused; what matters is whether the file can be written.
            session.command(&format!("MKD {parent}")).await?;
        }
    }
    Ok(())
}

async fn send(mut data: Data, offset: u64, request: &PutRequest) -> Result<(), TransferError> {
    let source = &request.source;
    let mut file = File::open(source).await.map_err(|error| local("open", source, error))?;
    let sought = file.seek(std::io::SeekFrom::Start(offset)).await;
    sought.map_err(|error| local("read", source, error))?;
    let mut file = file.take(request.content.bytes - offset);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut buffer).await.map_err(|error| local("read", source, error))?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
        if let Err(error) = data.write_all(piece).await {
            return Err(why(data, error).await);
        }
        request.sent.add(read as u64);
        if let Some(hold) = request.sent.hold(read as u64) {
            hold.await;
        }
    }
    if file.limit() > 0 {
        let found = format!("the local file is {} bytes shorter than it was", file.limit());
        return Err(TransferError::Changed { found });
    }
    let more = file.into_inner().read(&mut buffer).await;
    if more.map_err(|error| local("read", source, error))? > 0 {
        let found = "the local file is longer than it was".to_owned();
        return Err(TransferError::Changed { found });
    }
    Session::end(data).await?.map_err(|reply| reply.refusal())
}

/// What the server says of an upload that broke.
async fn why(data: Data, error: std::io::Error) -> TransferError {
    match timeout(REASON_TIMEOUT, Session::end(data)).await {
        Ok(Ok(Err(reply))) => reply.refusal(),
        _ => failure(suppaftp::FtpError::ConnectionError(error)),
    }
}

fn local(action: &'static str, path: &Path, error: std::io::Error) -> TransferError {
    let error = LocalError::io(action, path, error);
    let class = match error.class() {
        // The input is there; it is the output that cannot be read.
        FailureClass::InputMissing => FailureClass::Permanent,
        class => class,
    };
    TransferError::Local { class, found: error.to_string(), hint: error.hint() }
}

/// Asks the server for the digest of what it keeps.
async fn prove(
    session: &mut Session,
    path: &str,
    request: &PutRequest,
) -> Result<Proof, TransferError> {
    let Some(found) = digest(session, path).await? else { return Ok(Proof::Unchecked) };
    if found.eq_ignore_ascii_case(&request.content.digest.to_hex()) {
        // It has changed just now: no moment tells it from a later version yet.
        return Ok(Proof::Checked(Validators::default()));
    }
    // Nothing is to be built on it.
    session.command(&format!("DELE {path}")).await?;
    Err(TransferError::Malformed { found: format!("the server keeps a file of SHA-256 {found}") })
}

/// SHA-256 as the server computes it (draft-bryan-ftpext-hash; `XSHA256` takes a name with spaces
/// for a name with a range).
async fn digest(session: &mut Session, path: &str) -> Result<Option<String>, TransferError> {
    let algorithms = session.feature("HASH").unwrap_or_default();
    let (is_known, is_chosen) = (algorithms.contains("SHA-256"), algorithms.contains("SHA-256*"));
    if is_known && (is_chosen || session.command("OPTS HASH SHA-256").await?.is_success()) {
        let reply = session.command(&format!("HASH {path}")).await?;
        return Ok(hash(&reply));
    }
    if session.has("XSHA256") && !path.contains(char::is_whitespace) {
        let reply = session.command(&format!("XSHA256 {path}")).await?;
        return Ok(Some(reply).filter(Reply::is_success).and_then(|reply| sha256(reply.last())));
    }
    Ok(None)
}

/// `213 SHA-256 0-49 6169…  name`
fn hash(reply: &Reply) -> Option<String> {
    let mut words = reply.last().split_whitespace();
    let is_sha256 = reply.code == 213 && words.next()?.eq_ignore_ascii_case("SHA-256");
    words.nth(1).filter(|_| is_sha256).and_then(sha256)
}

/// The first word, if it is a digest.
fn sha256(text: &str) -> Option<String> {
    let word = text.split_whitespace().next()?;
    let is_digest = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| word.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_strictly() {
        let digest = "0123456789abcdef".repeat(4);
        let reply = |text: String| Reply { code: 213, text };
        let found = hash(&reply(format!("213 SHA-256 0-49 {} a b", digest.to_uppercase())));
        assert_eq!(found, Some(digest.clone()));
        for bad in [format!("213 SHA-1 0-49 {digest} a"), "213 SHA-256 0-49 abc a".to_owned()] {
            assert_eq!(hash(&reply(bad.clone())), None, "{bad}");
        }
        assert_eq!(sha256(&digest), Some(digest));
    }
}
