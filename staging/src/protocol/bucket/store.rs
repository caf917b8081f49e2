//! One bucket: opening its objects.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_core::Stream;
use object_store::path::Path;
use object_store::{Attribute, Error, GetOptions, GetRange, GetResult, ObjectMeta};
use tokio_util::bytes::Bytes;

use super::address::Cloud;
use super::answer::Seen;
use super::connect::Objects;
use super::settings::Access;
use crate::protocol::{
    ByteStream, Condition, Metadata, OpenRequest, Opened, TransferError, Validators,
};

/// One bucket, with one set of credentials.
pub(super) struct Store {
    pub(super) cloud: Cloud,
    pub(super) objects: Arc<dyn Objects>,
    /// What it was made of.
    pub(super) access: Access,
    /// Whether it has answered well before: its settings are right, then.
    is_proven: AtomicBool,
    /// Where the bucket is, as a refusal has said.
    region: Mutex<Option<String>>,
}

impl Store {
    pub(super) fn new(cloud: Cloud, objects: Arc<dyn Objects>, access: Access) -> Self {
        let (is_proven, region) = (AtomicBool::new(false), Mutex::default());
        Self { cloud, objects, access, is_proven, region }
    }

    /// One that follows another, and knows where the bucket is.
    pub(super) fn in_region(self, region: Option<String>) -> Self {
        Self { region: Mutex::new(region), ..self }
    }

    /// The region that a refusal has named, when it is Amazon that said so.
    pub(super) fn region(&self) -> Option<String> {
        const ENDPOINTS: &[&str] = &["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"];
        let is_amazon = self.cloud == Cloud::S3 && !self.access.has(ENDPOINTS);
        let region = self.region.lock().unwrap_or_else(PoisonError::into_inner).clone();
        region.filter(|_| is_amazon)
    }

    pub(super) fn proven(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    /// Takes one step of a longer work; requests for credentials are not part of it.
    pub(super) async fn step<T>(
        &self,
        seen: &Seen,
        step: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, TransferError> {
        match seen.watch(step).await {
            Ok(done) => {
                self.proven();
                Ok(done)
            }
            Err(error) => Err(self.explain(seen, &error)),
        }
    }

    pub(super) fn explain(&self, seen: &Seen, error: &Error) -> TransferError {
        if let Some(region) = seen.region() {
            *self.region.lock().unwrap_or_else(PoisonError::into_inner) = Some(region);
        }
        seen.explain(error, self.cloud, self.is_proven.load(Ordering::Relaxed))
    }

    pub(super) async fn open(
        &self,
        key: &Path,
        request: &OpenRequest,
    ) -> Result<Opened, TransferError> {
        match self.get(key, options(request)).await? {
            Got::Object(result) => Ok(body(*result)),
            Got::Unchanged => Ok(Opened::Unchanged),
            // Another object than the one that is known: all of it is wanted.
            Got::Changed => match self.get(key, GetOptions::default()).await? {
                Got::Object(result) => Ok(body(*result)),
                Got::Unchanged | Got::Changed => Err(TransferError::Malformed {
                    found: "a condition failed that was not asked for".into(),
                }),
            },
        }
    }

    async fn get(&self, key: &Path, options: GetOptions) -> Result<Got, TransferError> {
        let is_from_start =
            matches!(options.range, Some(GetRange::Bounded(ref range)) if range.start == 0);
        let seen = Seen::default();
        match seen.watch(self.objects.get_opts(key, options)).await {
            Ok(result) => {
                self.proven();
                Ok(Got::Object(Box::new(result)))
            }
            Err(Error::NotModified { .. }) => Ok(Got::Unchanged),
            Err(Error::Precondition { .. }) => Ok(Got::Changed),
            // An empty object has no first byte.
            Err(_) if is_from_start && seen.is_out_of_range() => Ok(Got::Changed),
            Err(error) => Err(self.explain(&seen, &error)),
        }
    }
}

/// What came of asking for an object.
enum Got {
    Object(Box<GetResult>),
    Unchanged,
    Changed,
}

fn options(request: &OpenRequest) -> GetOptions {
    let range = match request.end {
        Some(end) if end > request.offset => Some(GetRange::Bounded(request.offset..end)),
        _ if request.offset > 0 => Some(GetRange::Offset(request.offset)),
        _ => None,
    };
    let mut options = GetOptions { range, ..GetOptions::default() };
    match &request.condition {
        Condition::Always => {}
        Condition::IfSame { known, .. } => {
            // A weak tag never matches here; without one, the answer's metadata is compared.
            options.if_match = known.etag.clone().filter(|tag| !tag.starts_with("W/"));
        }
        Condition::IfChanged(known) => options.if_none_match.clone_from(&known.etag),
    }
    options
}

fn body(result: GetResult) -> Opened {
    let metadata = metadata(&result);
    let (offset, end) = (result.range.start, result.range.end);
    let length = result.meta.size;
    let stream = result.into_stream();
    let stream = Box::new(ObjectStream { stream, position: offset, end, length });
    Opened::Body { metadata, offset, stream }
}

fn metadata(result: &GetResult) -> Metadata {
    let media_type = result.attributes.get(&Attribute::ContentType);
    let media_type = media_type.and_then(|value| value.split(';').next());
    Metadata {
        length: Some(result.meta.size),
        validators: validators(&result.meta),
        accepts_ranges: true,
        media_type: media_type.map(|value| value.trim().to_ascii_lowercase()),
    }
}

/// The same for an object that is opened and for one that is listed.
pub(super) fn validators(meta: &ObjectMeta) -> Validators {
    // `object_store` says 1970 of an object whose server says nothing.
    let is_dated = meta.last_modified.timestamp() != 0;
    let last_modified =
        is_dated.then(|| meta.last_modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
    Validators {
        etag: meta.e_tag.as_deref().map(quoted),
        last_modified,
        // Every cloud has strong ETags: nothing needs to be built on seconds.
        last_modified_is_strong: false,
    }
}

/// An entity tag as HTTP has it; some servers forget the quotes.
pub(super) fn quoted(tag: &str) -> String {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    let is_quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
    if is_quoted { tag.to_owned() } else { format!("\"{}\"", tag.trim_matches('"')) }
}

struct ObjectStream {
    stream: Pin<Box<dyn Stream<Item = object_store::Result<Bytes>> + Send>>,
    position: u64,
    /// Where the range that was asked for ends.
    end: u64,
    length: u64,
}

impl ByteStream for ObjectStream {
    fn next(&mut self) -> super::BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let cut = |received| TransferError::Cut { received, expected: Some(self.length) };
            loop {
                match poll_fn(|context| self.stream.as_mut().poll_next(context)).await {
                    Some(Ok(piece)) if piece.is_empty() => {}
                    Some(Ok(piece)) => {
                        self.position += piece.len() as u64;
                        return Ok(Some(piece));
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a body ended early");
                        return Err(cut(self.position));
                    }
                    None if self.position < self.end => return Err(cut(self.position)),
                    None => return Ok(None),
                }
            }
        })
    }
}
