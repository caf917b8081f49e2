//! What an HTTP answer means for a transfer.

use std::error::Error as _;

use reqwest::{Response, StatusCode};
use tokio_util::bytes::Bytes;

use super::headers;
use crate::protocol::{BoxFuture, ByteStream, Metadata, OpenRequest, Opened, TransferError};

/// Whether this answer is the file, or part of it, and if not, why.
pub(super) fn read(response: Response, request: &OpenRequest) -> Result<Opened, TransferError> {
    match response.status() {
        StatusCode::OK => {
            let length = headers::content_length(response.headers());
            let metadata = headers::metadata(response.headers(), length);
            Ok(body(response, metadata, 0, length))
        }
        StatusCode::PARTIAL_CONTENT => partial(response, request),
        StatusCode::NOT_MODIFIED => Ok(Opened::Unchanged),
        StatusCode::RANGE_NOT_SATISFIABLE if request.offset > 0 => Err(TransferError::Changed {
            found: format!("byte {} on cannot be had (status 416)", request.offset),
        }),
        status => Err(refusal(status, &response)),
    }
}

fn partial(response: Response, request: &OpenRequest) -> Result<Opened, TransferError> {
    let malformed = |found: String| Err(TransferError::Malformed { found });
    let Some(range) = headers::content_range(response.headers()) else {
        return malformed("status 206 without a usable Content-Range".into());
    };
    if request.offset == 0 {
        return malformed("status 206 to a request for the whole file".into());
    }
    if range.first != request.offset {
        let (asked, found) = (request.offset, range.first);
        return malformed(format!("asked for byte {asked} on, found byte {found} on"));
    }
    let announced = range.last - range.first + 1;
    if headers::content_length(response.headers()).is_some_and(|length| length != announced) {
        return malformed("Content-Length and Content-Range disagree".into());
    }
    let metadata = headers::metadata(response.headers(), range.total);
    Ok(body(response, metadata, range.first, Some(announced)))
}

fn body(response: Response, metadata: Metadata, offset: u64, announced: Option<u64>) -> Opened {
    let end = announced.map(|length| offset + length);
    let length = metadata.length;
    let stream = Box::new(HttpStream { response, position: offset, end, length });
    Opened::Body { metadata, offset, stream }
}

fn refusal(status: StatusCode, response: &Response) -> TransferError {
    let found = format!("status {status}");
    match status.as_u16() {
        404 | 410 => TransferError::Missing { found },
        401 | 403 | 407 => TransferError::Forbidden { found },
        408 | 425 | 429 | 500..=599 => TransferError::Busy {
            found,
            retry_after: headers::retry_after(response.headers(), jiff::Timestamp::now()),
        },
        _ => TransferError::Refused {
            found: format!("the server answered with {found}"),
            hint: "open the address with another client and see what it serves".into(),
        },
    }
}

/// Why no answer came.
pub(in crate::protocol) fn send_error(error: &reqwest::Error) -> TransferError {
    let found = describe(error);
    if error.is_redirect() || error.is_builder() {
        return TransferError::Refused {
            found,
            hint: "use the address at which the file is served".into(),
        };
    }
    if error.is_connect() && found.contains("certificate") {
        return TransferError::Refused {
            found,
            hint: "set SSL_CERT_FILE to the certificates that vouch for this server".into(),
        };
    }
    TransferError::Unreachable { found }
}

/// The chain of causes without the address, which may hold secrets.
pub(in crate::protocol) fn describe(error: &reqwest::Error) -> String {
    // The outermost text names the URL; its causes do not.
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes.dedup();
    if causes.is_empty() { "the request failed".to_owned() } else { causes.join(": ") }
}

struct HttpStream {
    response: Response,
    position: u64,
    /// Where the body should end, when that was announced.
    end: Option<u64>,
    /// Bytes of the whole file, when known.
    length: Option<u64>,
}

impl HttpStream {
    fn cut(&self) -> TransferError {
        TransferError::Cut { received: self.position, expected: self.length.or(self.end) }
    }
}

impl ByteStream for HttpStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let piece = loop {
                match self.response.chunk().await {
                    Ok(Some(bytes)) if bytes.is_empty() => {}
                    other => break other,
                }
            };
            let piece = piece.map_err(|error| {
                tracing::debug!(cause = describe(&error), "a body ended early");
                self.cut()
            })?;
            self.position += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
            match self.end {
                Some(end) if piece.is_none() && self.position < end => Err(self.cut()),
                _ => Ok(piece),
            }
        })
    }
}
