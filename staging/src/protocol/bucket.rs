//! Objects of buckets: `s3:`, `gs:` and `az:`, by the crate `object_store`.
//!
//! Settings and credentials come from the variables that each cloud has for them. Deliberately
//! absent: retries inside of `object_store` (the fetcher has its own), listing and writing.

mod address;
mod answer;
mod connect;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_core::Stream;
use object_store::path::Path;
use object_store::{Attribute, Error, GetOptions, GetRange, GetResult, ObjectStore};
use tokio_util::bytes::Bytes;

use super::{
    BoxFuture, ByteStream, Condition, HttpConfig, Metadata, OpenRequest, Opened, Protocol,
    TransferError, Validators,
};
use address::{Cloud, ObjectAddress};
use answer::Seen;
use connect::Settings;

/// Objects of S3 and its kin, of Google Cloud Storage, and of Azure Blob Storage.
///
/// Nothing is made before the first object is wanted. Each bucket has one client, kept.
pub struct BucketProtocol {
    settings: Settings,
    stores: Mutex<BTreeMap<(Cloud, String), Arc<Store>>>,
}

impl BucketProtocol {
    /// With the settings that the environment has: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
    pub fn new(http: HttpConfig) -> Self {
        Self { settings: Settings { http, variables: None }, stores: Mutex::default() }
    }

    /// With these variables in place of the environment's.
    pub fn with_variables(
        http: HttpConfig,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let variables = Some(variables.into_iter().collect());
        Self { settings: Settings { http, variables }, stores: Mutex::default() }
    }

    fn store(&self, object: &ObjectAddress) -> Result<Arc<Store>, TransferError> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (object.cloud, object.bucket.clone());
        if let Some(store) = stores.get(&name) {
            return Ok(Arc::clone(store));
        }
        let objects = self.settings.connect(object.cloud, &object.bucket)?;
        let store = Arc::new(Store::new(object.cloud, objects));
        stores.insert(name, Arc::clone(&store));
        Ok(store)
    }
}

impl fmt::Debug for BucketProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The settings hold secrets.
        f.debug_struct("BucketProtocol").finish_non_exhaustive()
    }
}

impl Protocol for BucketProtocol {
    fn schemes(&self) -> &[&'static str] {
        &["s3", "gs", "az"]
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let object = ObjectAddress::parse(&request.address)?;
            self.store(&object)?.open(&object.key, request).await
        })
    }
}

/// One bucket.
struct Store {
    cloud: Cloud,
    objects: Arc<dyn ObjectStore>,
    /// Whether it has given an object before: its settings are right, then.
    is_proven: AtomicBool,
}

impl Store {
    fn new(cloud: Cloud, objects: Arc<dyn ObjectStore>) -> Self {
        Self { cloud, objects, is_proven: AtomicBool::new(false) }
    }

    async fn open(&self, key: &Path, request: &OpenRequest) -> Result<Opened, TransferError> {
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

    async fn get(&self, key: &Path, mut options: GetOptions) -> Result<Got, TransferError> {
        let seen = Seen::default();
        options.extensions.insert(seen.clone());
        match self.objects.get_opts(key, options).await {
            Ok(result) => {
                self.is_proven.store(true, Ordering::Relaxed);
                Ok(Got::Object(Box::new(result)))
            }
            Err(Error::NotModified { .. }) => Ok(Got::Unchanged),
            Err(Error::Precondition { .. }) => Ok(Got::Changed),
            Err(error) => {
                Err(seen.explain(&error, self.cloud, self.is_proven.load(Ordering::Relaxed)))
            }
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
    let mut options = GetOptions::default();
    if request.offset > 0 {
        options.range = Some(GetRange::Offset(request.offset));
    }
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
    let (offset, length) = (result.range.start, result.meta.size);
    let stream = Box::new(ObjectStream { stream: result.into_stream(), position: offset, length });
    Opened::Body { metadata, offset, stream }
}

fn metadata(result: &GetResult) -> Metadata {
    let meta = &result.meta;
    // `object_store` says 1970 of an object whose server says nothing.
    let is_dated = meta.last_modified.timestamp() != 0;
    let last_modified =
        is_dated.then(|| meta.last_modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
    let media_type = result.attributes.get(&Attribute::ContentType);
    let media_type = media_type.and_then(|value| value.split(';').next());
    Metadata {
        length: Some(meta.size),
        validators: Validators {
            etag: meta.e_tag.as_deref().map(quoted),
            last_modified,
            // Every cloud has strong ETags: nothing needs to be built on seconds.
            last_modified_is_strong: false,
        },
        accepts_ranges: true,
        media_type: media_type.map(|value| value.trim().to_ascii_lowercase()),
    }
}

/// An entity tag as HTTP has it; some servers forget the quotes.
fn quoted(tag: &str) -> String {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    let is_quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
    if is_quoted { tag.to_owned() } else { format!("\"{}\"", tag.trim_matches('"')) }
}

struct ObjectStream {
    stream: Pin<Box<dyn Stream<Item = object_store::Result<Bytes>> + Send>>,
    position: u64,
    length: u64,
}

impl ByteStream for ObjectStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
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
                    None if self.position < self.length => return Err(cut(self.position)),
                    None => return Ok(None),
                }
            }
        })
    }
}
