//! What an HTTP answer means for a transfer.

use std::error::Error as _;

use reqwest::{Response, StatusCode};
use tokio_util::bytes::Bytes;

use super::exchange::Answered;
use super::headers;
use super::policy::Denied;
use crate::protocol::error::HINT_CERTIFICATES;
use crate::protocol::{
    BoxFuture, ByteStream, Condition, Metadata, OpenRequest, Opened, TransferError,
};

/// Whether this answer is the file, or part of it, and if not, why.
pub(super) fn read(
    answered: Answered,
    request: &OpenRequest,
    unannounced_bytes_max: u64,
) -> Result<Opened, TransferError> {
    match answered.response.status() {
        StatusCode::OK => {
            check_coding(&answered, request)?;
            let response = answered.response;
            let length = headers::content_length(response.headers());
            let metadata = headers::metadata(response.headers(), length);
            Ok(body(response, metadata, 0, Extent::of(0, length, unannounced_bytes_max)))
        }
        StatusCode::PARTIAL_CONTENT => {
            check_coding(&answered, request)?;
            partial(answered.response, request, unannounced_bytes_max)
        }
        StatusCode::NOT_MODIFIED => Ok(Opened::Unchanged),
        StatusCode::RANGE_NOT_SATISFIABLE if request.offset > 0 => {
            unsatisfied(&answered.response, request)
        }
        _ => Err(refusal(&answered)),
    }
}

/// Coded bytes are not those of the file, unless its name says that it is kept so: some servers
/// say `gzip` of what is a `.gz` file at both ends.
fn check_coding(answered: &Answered, request: &OpenRequest) -> Result<(), TransferError> {
    let Some(coding) = headers::coding(answered.response.headers()) else { return Ok(()) };
    let suffixes: &[&str] = match &*coding {
        "gzip" | "x-gzip" => &["gz", "tgz", "bgz", "svgz", "bam"],
        "bzip2" | "x-bzip2" | "x-bzip" => &["bz2", "tbz2", "tbz"],
        "compress" | "x-compress" => &["Z"],
        "zstd" => &["zst", "tzst"],
        "xz" | "x-xz" => &["xz", "txz"],
        _ => &[],
    };
    let is_kept_so =
        |path: &str| path.rsplit_once('.').is_some_and(|(_, suffix)| suffixes.contains(&suffix));
    let asked = request.address.url();
    if is_kept_so(answered.url.path()) || asked.is_some_and(|url| is_kept_so(url.path())) {
        return Ok(());
    }
    Err(TransferError::Refused {
        found: format!("the server sent it coded as {coding}, which was not asked for"),
        hint: "have the server send the file as it is, or use an address where it does".into(),
    })
}

fn partial(
    response: Response,
    request: &OpenRequest,
    unannounced_bytes_max: u64,
) -> Result<Opened, TransferError> {
    let malformed = |found: String| Err(TransferError::Malformed { found });
    let Some(range) = headers::content_range(response.headers()) else {
        return malformed("status 206 without a usable Content-Range".into());
    };
    if request.offset == 0 && request.end.is_none() {
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
    let end = range.last + 1;
    let is_bounded = range.total.or(request.end).is_some() || known_length(request).is_some();
    if !is_bounded && end > unannounced_bytes_max {
        return Err(unending(unannounced_bytes_max));
    }
    let extent = if is_bounded { Extent::To(end) } else { Extent::Beyond(end) };
    Ok(body(response, metadata, range.first, extent))
}

/// Nothing of the file is left from the offset on, if it is as long as that; otherwise it is
/// another file.
fn unsatisfied(response: &Response, request: &OpenRequest) -> Result<Opened, TransferError> {
    let offset = request.offset;
    let total = headers::unsatisfied_range(response.headers());
    if total != Some(offset) || request.end.is_some() || known_length(request).is_some() {
        return Err(TransferError::Changed {
            found: format!("byte {offset} on cannot be had (status 416)"),
        });
    }
    let metadata = headers::metadata(response.headers(), total);
    Ok(Opened::Body { metadata, offset, stream: Box::new(Nothing) })
}

/// Bytes of the file when its first ones came.
const fn known_length(request: &OpenRequest) -> Option<u64> {
    match request.condition {
        Condition::IfSame { length, .. } => length,
        Condition::Always | Condition::IfChanged(_) => None,
    }
}

fn unending(max: u64) -> TransferError {
    TransferError::Refused {
        found: format!("more than {max} bytes came of a file of unknown length"),
        hint: "have the server say its length, or allow for more".into(),
    }
}

/// All bytes have come before.
struct Nothing;

impl ByteStream for Nothing {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async { Ok(None) })
    }
}

fn body(response: Response, metadata: Metadata, offset: u64, extent: Extent) -> Opened {
    let length = metadata.length;
    let stream = Box::new(HttpStream { response, position: offset, extent, length });
    Opened::Body { metadata, offset, stream }
}

/// What an answer means that is neither the file nor its absence for want of change.
pub(super) fn refusal(answered: &Answered) -> TransferError {
    let status = answered.response.status();
    let found = format!("status {status}");
    match status.as_u16() {
        404 | 410 => TransferError::Missing { found },
        401 | 403 => TransferError::Forbidden { found: format!("{found}; {}", answered.asked) },
        407 => TransferError::Forbidden { found: format!("{found}, from the proxy") },
        408 | 425 | 429 | 500..=599 => TransferError::Busy {
            found,
            retry_after: headers::retry_after(answered.response.headers(), jiff::Timestamp::now()),
        },
        _ => TransferError::Refused {
            found: format!("the server answered with {found}"),
            hint: "open the address with another client and see what it serves".into(),
        },
    }
}

/// Why no answer came.
pub(crate) fn send_error(error: &reqwest::Error) -> TransferError {
    if let Some(denied) = causes(error).find_map(|cause| cause.downcast_ref::<Denied>()) {
        return denied.refusal();
    }
    let found = describe(error);
    // The client keeps its kinds of errors to itself.
    if [" parsed", "message head is too large"].iter().any(|text| found.contains(text)) {
        return TransferError::Malformed { found };
    }
    if error.is_redirect() || error.is_builder() {
        return TransferError::Refused {
            found,
            hint: "use the address at which the file is served".into(),
        };
    }
    if error.is_connect() && found.contains("certificate") {
        return TransferError::Refused { found, hint: HINT_CERTIFICATES.into() };
    }
    TransferError::Unreachable { found }
}

/// The chain of causes without the address, which may hold secrets.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    // The outermost text names the URL; its causes do not.
    let mut texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    texts.dedup();
    if texts.is_empty() { "the request failed".to_owned() } else { texts.join(": ") }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// How far a body goes.
enum Extent {
    /// To this offset, as announced.
    To(u64),
    /// To this offset, and nobody says whether there is more: it has to be asked for.
    Beyond(u64),
    /// Nobody said; at most so far.
    AtMost(u64),
}

impl Extent {
    fn of(offset: u64, announced: Option<u64>, unannounced_bytes_max: u64) -> Self {
        match announced {
            Some(length) => Self::To(offset.saturating_add(length)),
            None => Self::AtMost(unannounced_bytes_max),
        }
    }
}

struct HttpStream {
    response: Response,
    position: u64,
    extent: Extent,
    /// Bytes of the whole file, when known.
    length: Option<u64>,
}

impl HttpStream {
    fn cut(&self) -> TransferError {
        let announced = match self.extent {
            Extent::To(end) => Some(end),
            Extent::Beyond(_) | Extent::AtMost(_) => None,
        };
        TransferError::Cut { received: self.position, expected: self.length.or(announced) }
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
            match self.extent {
                Extent::To(end) if piece.is_none() && self.position < end => Err(self.cut()),
                Extent::Beyond(_) if piece.is_none() => Err(self.cut()),
                Extent::To(end) | Extent::Beyond(end) if self.position > end => {
                    Err(TransferError::TooLong { expected: end })
                }
                Extent::AtMost(max) if self.position > max => Err(unending(max)),
                _ => Ok(piece),
            }
        })
    }
}
