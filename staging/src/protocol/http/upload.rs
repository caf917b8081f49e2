//! Writing: PUT of a whole file, with its length announced and its digest computed on the way, so
//! that a file which changes while it is read never arrives as a whole one.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_core::Stream;
use keelboat_engine::{Content, Digester, FailureClass};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, Response, Url};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;

use super::exchange::{Answered, Redirects};
use super::{HttpProtocol, answer, headers};
use crate::protocol::put::Hold;
use crate::protocol::{Proof, PutRequest, Sent, TransferError};

/// Bytes read and handed on at once.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces between the disk and the network.
const QUEUE_PIECES: usize = 4;

/// Collections that are made for one file.
const COLLECTIONS_MAX: usize = 64;

impl HttpProtocol {
    /// Writes a file to its address. Where a parent is missing and the server says so (409, as
    /// `WebDAV` has it), the collections above are made, and it is tried once more.
    pub(super) async fn upload(&self, request: &PutRequest) -> Result<Proof, TransferError> {
        let mut answered = self.put_once(request).await?;
        if answered.response.status().as_u16() == 409 {
            self.make_collections(&request.address).await?;
            answered = self.put_once(request).await?;
        }
        if !answered.response.status().is_success() {
            return Err(refusal(&answered));
        }
        Ok(proof_of(&answered.response, &request.content))
    }

    async fn put_once(&self, request: &PutRequest) -> Result<Answered, TransferError> {
        if request.content.bytes == 0 {
            // Nobody asks for the body of a request without one.
            let (source, content) = (request.source.clone(), request.content);
            crate::fetch::blocking(move || read_all(&source, &content, |_| true))
                .await
                .map_err(|error| failed(&request.source, &error))??;
        }
        let failure = Failure::default();
        let build = |url: Url| {
            let builder = self.clients.of(&url)?.put(url);
            let builder = builder.header(CONTENT_LENGTH, request.content.bytes);
            let builder = builder.header(CONTENT_TYPE, "application/octet-stream");
            Ok(builder.body(body(request, failure.clone())))
        };
        let address = Arc::clone(&request.address).into();
        let result = self.exchange(&address, Redirects::WithinOrigin, &build).await;
        // Trouble with the file is why the request failed, and says more.
        match failure.take() {
            Some(error) => Err(error),
            None => result,
        }
    }

    /// Makes the collection that the file is in, and those above it, as far as they are missing.
    async fn make_collections(&self, address: &str) -> Result<(), TransferError> {
        let mut missing = Vec::new();
        let mut next = parent(address);
        while let Some(collection) = next {
            if missing.len() >= COLLECTIONS_MAX {
                break;
            }
            let answered = self.make_collection(&collection).await?;
            match answered.response.status().as_u16() {
                // 405: it is there.
                200..=299 | 405 => break,
                409 => next = parent(&collection),
                _ => return Err(refusal(&answered)),
            }
            missing.push(collection);
        }
        for collection in missing.into_iter().rev() {
            let answered = self.make_collection(&collection).await?;
            if !matches!(answered.response.status().as_u16(), 200..=299 | 405) {
                return Err(refusal(&answered));
            }
        }
        Ok(())
    }

    async fn make_collection(&self, address: &str) -> Result<Answered, TransferError> {
        self.ask(b"MKCOL", address).await
    }

    async fn ask(&self, method: &[u8], address: &str) -> Result<Answered, TransferError> {
        let method = Method::from_bytes(method).unwrap_or_default();
        let build = |url: Url| Ok(self.clients.of(&url)?.request(method.clone(), url));
        self.exchange(&address.into(), Redirects::WithinOrigin, &build).await
    }

    /// Removes what is at an address; a collection goes with all that is in it.
    pub(super) async fn delete(&self, address: &str) -> Result<(), TransferError> {
        let mut answered = self.ask(b"DELETE", address).await?;
        // Some servers take the name of a collection only with its slash.
        if answered.response.status().as_u16() == 409
            && let Some(collection) = with_slash(address)
        {
            answered = self.ask(b"DELETE", &collection).await?;
        }
        match answered.response.status().as_u16() {
            200..=299 | 404 | 410 => Ok(()),
            _ => Err(refusal(&answered)),
        }
    }
}

/// The address of the collection that this one is in, with user information and query.
fn parent(address: &str) -> Option<String> {
    let mut url = Url::parse(address).ok()?;
    let path = url.path().trim_end_matches('/');
    let (above, _) = path.rsplit_once('/').filter(|(above, _)| !above.is_empty())?;
    let above = format!("{above}/");
    url.set_path(&above);
    Some(url.into())
}

fn with_slash(address: &str) -> Option<String> {
    let mut url = Url::parse(address).ok().filter(|url| !url.path().ends_with('/'))?;
    let path = format!("{}/", url.path());
    url.set_path(&path);
    Some(url.into())
}

fn refusal(answered: &Answered) -> TransferError {
    let status = answered.response.status();
    let refused = |hint: &str| TransferError::Refused {
        found: format!("the server does not take files here (status {status})"),
        hint: hint.into(),
    };
    match status.as_u16() {
        300..=399 => refused("it redirects: use the address at which it takes files"),
        404 | 409 | 410 => refused("make the directory above at the server first"),
        405 | 501 => refused("enable PUT (WebDAV) for this directory at the server"),
        411 | 413 => refused("raise the largest size of a body at the server"),
        _ => answer::refusal(answered),
    }
}

/// What the server says of what it keeps (RFC 9530, and RFC 3230 before it). Another digest than
/// that of the file may be of the answer's own body, and says nothing.
fn proof_of(response: &Response, content: &Content) -> Proof {
    let expected = BASE64_STANDARD.encode(content.digest.as_bytes());
    match headers::sha256(response.headers()) {
        Some(found) if found == expected => Proof::Checked(headers::validators(response.headers())),
        _ => Proof::Unchecked,
    }
}

/// Why the file could not be sent to its end.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<TransferError>>>);

impl Failure {
    fn set(&self, error: TransferError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<TransferError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn body(request: &PutRequest, failure: Failure) -> Body {
    let (sender, pieces) = mpsc::channel(QUEUE_PIECES);
    let (source, content) = (request.source.clone(), request.content);
    tokio::task::spawn_blocking(move || {
        let give = |piece| sender.blocking_send(Ok(piece)).is_ok();
        if let Err(error) = read_all(&source, &content, give) {
            let aborted = std::io::Error::other(error.to_string());
            failure.set(error);
            // Whoever is gone needs no abortion.
            drop(sender.blocking_send(Err(aborted)));
        }
    });
    Body::wrap_stream(Pieces { coming: pieces, sent: request.sent.clone(), hold: None })
}

/// Gives away the file in pieces, the last one only when the whole has the right digest. `give`
/// says whether anybody still wants them.
fn read_all(
    source: &Path,
    content: &Content,
    mut give: impl FnMut(Bytes) -> bool,
) -> Result<(), TransferError> {
    let failed = |error: &std::io::Error| failed(source, error);
    let mut file = File::open(source).map_err(|error| failed(&error))?;
    let mut digester = Digester::new();
    let mut left = content.bytes;
    loop {
        let size = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = vec![0; size];
        file.read_exact(&mut piece).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(source),
            _ => failed(&error),
        })?;
        digester.update(&piece);
        left -= size as u64;
        if left == 0 {
            let has_more = file.read(&mut [0]).map_err(|error| failed(&error))? > 0;
            if has_more || digester.finish() != content.digest {
                return Err(changed(source));
            }
            if size > 0 {
                give(piece.into());
            }
            return Ok(());
        }
        if !give(piece.into()) {
            return Ok(());
        }
    }
}

fn failed(source: &Path, error: &dyn std::fmt::Display) -> TransferError {
    TransferError::Local {
        class: FailureClass::Permanent,
        found: format!("cannot read {}: {error}", source.display()),
        hint: "make it readable".into(),
    }
}

fn changed(source: &Path) -> TransferError {
    TransferError::Local {
        class: FailureClass::Permanent,
        found: format!("{} changed while it was sent", source.display()),
        hint: "let nothing write to it, and run the same command again".into(),
    }
}

/// The pieces on their way to the network, counted and paced.
struct Pieces {
    coming: mpsc::Receiver<std::io::Result<Bytes>>,
    sent: Sent,
    hold: Option<Hold>,
}

impl Stream for Pieces {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(hold) = &mut self.hold {
            ready!(Pin::new(hold).poll(cx));
            self.hold = None;
        }
        let piece = self.coming.poll_recv(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &piece {
            let bytes = bytes.len() as u64;
            self.sent.add(bytes);
            self.hold = self.sent.hold(bytes);
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use keelboat_engine::{Digest, Kind};

    use super::*;

    #[test]
    fn the_last_piece_of_a_file_that_changed_is_kept_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes = vec![7_u8; 600_000];
        let content =
            Content { digest: Digest::of(&bytes), bytes: bytes.len() as u64, kind: Kind::File };
        let read = |found: &[u8]| {
            std::fs::write(&path, found).unwrap();
            let mut given = 0;
            let ended = read_all(&path, &content, |piece| {
                given += piece.len();
                true
            });
            (ended.is_ok(), given)
        };
        assert_eq!(read(&bytes), (true, 600_000));
        let mut flipped = bytes.clone();
        flipped[599_999] ^= 1;
        assert_eq!(read(&flipped), (false, 524_288));
        assert_eq!(read(&bytes[..500_000]), (false, 262_144));
        assert_eq!(read(&[&bytes[..], b"x"].concat()), (false, 524_288));
    }

    #[test]
    fn parents_keep_user_and_query() {
        let above = |address| parent(address);
        assert_eq!(above("http://u:p@h/a/b%20c/d?k").as_deref(), Some("http://u:p@h/a/b%20c/?k"));
        assert_eq!(above("http://h/a/b/").as_deref(), Some("http://h/a/"));
        assert_eq!(above("http://h/a"), None);
        assert_eq!(above("http://h/"), None);
    }
}
