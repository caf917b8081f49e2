//! Clients of buckets: made of settings, on the HTTP client that other transfers have, too.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http_body::{Body, Frame, SizeHint};
use jiff::{SignedDuration, Timestamp};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{
    ClientOptions, CredentialProvider, ObjectStore, RetryConfig, StaticCredentialProvider,
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName};
use reqwest::redirect::Policy;
use tokio_util::bytes::Bytes;

use super::address::Cloud;
use super::answer::{Answer, Refusal, Seen};
use super::settings::Access;
use crate::protocol::http::{answer, client_builder, headers};
use crate::protocol::put::Hold;
use crate::protocol::{HttpConfig, Sent, TransferError};

/// Bytes of a refusal that are looked at.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// Bytes of a page of a listing: 1,000 or 5,000 keys of at most 1 KiB, and what is said of them.
const PAGE_BYTES_MAX: usize = 32 << 20;

const CHECKSUM: HeaderName = HeaderName::from_static("x-amz-checksum-sha256");
const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");
const AZURE_ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// What a bucket's client can do.
pub(super) trait Objects: ObjectStore + MultipartStore + PaginatedListStore {}

impl<T: ObjectStore + MultipartStore + PaginatedListStore> Objects for T {}

/// The client of a cloud with all settings: the builders have no trait in common.
macro_rules! client {
    ($builder:ident, $access:expr, $connector:expr) => {{
        let mut builder = $builder;
        for (name, value) in $access.iter() {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let builder = builder.with_retry(retry).with_http_connector($connector);
        let found = builder.clone().build().map(|client| Arc::clone(client.credentials()));
        let made =
            found.and_then(|found| builder.with_credentials(Arc::new(Unwatched(found))).build());
        made.map(|client| Arc::new(client) as Arc<dyn Objects>)
    }};
}

/// The client of one bucket. Nothing is asked yet.
pub(super) fn connect(
    clients: &Arc<Clients>,
    access: &Access,
    cloud: Cloud,
    bucket: &str,
) -> Result<Arc<dyn Objects>, TransferError> {
    let is_anonymous = access.is_on(&format!("{}_SKIP_SIGNATURE", cloud.prefix()));
    let connector = Connector { clients: Arc::clone(clients), cloud, is_anonymous };
    let made = match cloud {
        Cloud::S3 => {
            let builder = AmazonS3Builder::new().with_checksum_algorithm(Checksum::SHA256);
            let builder = builder.with_bucket_name(bucket);
            client!(builder, access, connector)
        }
        Cloud::Gs => {
            let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
            if is_anonymous {
                // It would ask for a token to write with.
                let nobody = GcpCredential { bearer: String::new() };
                builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
            }
            client!(builder, access, connector)
        }
        Cloud::Az => {
            let builder = MicrosoftAzureBuilder::new().with_container_name(bucket);
            client!(builder, access, connector)
        }
    };
    made.map_err(|error| TransferError::Refused {
        found: match cloud {
            // Google's texts may quote from a file with a private key.
            Cloud::Gs => "the settings or credentials for gs: cannot be used".into(),
            Cloud::S3 | Cloud::Az => format!("the settings cannot be used: {error}"),
        },
        hint: cloud.credentials_hint(),
    })
}

/// Whether the client of a cloud knows this variable.
pub(super) fn knows(cloud: Cloud, variable: &str) -> bool {
    let name = variable.to_ascii_lowercase();
    match cloud {
        Cloud::S3 => name.parse::<AmazonS3ConfigKey>().is_ok(),
        Cloud::Gs => name.parse::<GoogleConfigKey>().is_ok(),
        Cloud::Az => name.parse::<AzureConfigKey>().is_ok(),
    }
}

/// Has its credentials from another provider. The requests for them are not the step's.
#[derive(Debug)]
struct Unwatched<T>(Arc<dyn CredentialProvider<Credential = T>>);

#[async_trait]
impl<T: std::fmt::Debug + Send + Sync> CredentialProvider for Unwatched<T> {
    type Credential = T;

    async fn get_credential(&self) -> object_store::Result<Arc<T>> {
        Seen::default().watch(self.0.get_credential()).await
    }
}

/// The HTTP clients of all buckets, one for each patience with which they connect.
#[derive(Debug)]
pub(super) struct Clients {
    http: HttpConfig,
    made: Mutex<BTreeMap<Duration, reqwest::Client>>,
}

impl Clients {
    pub(super) fn new(http: HttpConfig) -> Self {
        Self { http, made: Mutex::default() }
    }

    /// A client that waits for a connection as long as it is wanted, or less.
    fn client(&self, wanted: Option<Duration>) -> Result<reqwest::Client, String> {
        let most = self.http.connect_timeout;
        let timeout = wanted.map_or(most, |wanted| wanted.min(most));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&timeout) {
            return Ok(client.clone());
        }
        let builder = client_builder(&self.http)?.connect_timeout(timeout);
        // A signature is for one host.
        let client = builder.redirect(Policy::none()).build();
        let client = client.map_err(|error| answer::describe(&error))?;
        made.insert(timeout, client.clone());
        Ok(client)
    }
}

/// Gives HTTP clients to `object_store`.
#[derive(Debug)]
struct Connector {
    clients: Arc<Clients>,
    cloud: Cloud,
    is_anonymous: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Short for the machine's own metadata, which most machines do not have.
        let option = |key| options.get_config_value(&key);
        let wanted = option(ClientConfigKey::ConnectTimeout)
            .and_then(|text| text.parse::<SignedDuration>().ok())
            .and_then(|wanted| Duration::try_from(wanted).ok());
        let client = self.clients.client(wanted).map_err(|text| object_store::Error::Generic {
            store: "HTTP client",
            source: text.into(),
        })?;
        let allows_http = option(ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let (cloud, is_anonymous) = (self.cloud, self.is_anonymous);
        Ok(HttpClient::new(Observed { client, allows_http, cloud, is_anonymous }))
    }
}

/// Notes what came of the requests of a step that is watched by a [`Seen`].
#[derive(Debug)]
struct Observed {
    client: reqwest::Client,
    allows_http: bool,
    cloud: Cloud,
    is_anonymous: bool,
}

#[async_trait]
impl HttpService for Observed {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let seen = Seen::current();
        if !self.allows_http && request.uri().scheme_str() != Some("https") {
            seen.note(Answer::Failed(self.plain_http()));
            let error = std::io::Error::other("plain HTTP is not allowed");
            return Err(HttpError::new(HttpErrorKind::Unknown, error));
        }
        if self.is_anonymous {
            request.headers_mut().remove(AUTHORIZATION);
        }
        let checksum = request.headers().get(&CHECKSUM).cloned();
        let answered = match seen.sent() {
            Some(sent) => upload(&self.client, request, sent).await,
            None => self.client.call(request).await,
        };
        match answered {
            Ok(response) => {
                let (response, refusal) = inspect(response).await;
                if checksum.is_some() && checksum.as_ref() == response.headers().get(&CHECKSUM) {
                    seen.note_checked();
                }
                let is_page = seen.is_listing() && refusal.status.is_success();
                seen.note(Answer::Status(refusal));
                if is_page { page(response, &seen).await } else { Ok(response) }
            }
            Err(error) => {
                let cause = error.source().and_then(|source| source.downcast_ref());
                seen.note(Answer::Failed(cause.map_or_else(
                    || TransferError::Unreachable { found: "the request failed".into() },
                    answer::send_error,
                )));
                Err(error)
            }
        }
    }
}

/// Sends a request whose bytes are counted as the network takes them.
async fn upload(
    client: &reqwest::Client,
    request: HttpRequest,
    sent: &Sent,
) -> Result<HttpResponse, HttpError> {
    let failed = |error| HttpError::new(HttpErrorKind::Request, error);
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string();
    let url = url.parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
    let mut outgoing = reqwest::Request::new(parts.method, url);
    *outgoing.headers_mut() = parts.headers;
    *outgoing.body_mut() =
        Some(reqwest::Body::wrap(Counted { body, sent: sent.clone(), hold: None }));
    let mut answer = client.execute(outgoing).await.map_err(failed)?;
    let mut body = Vec::new();
    while body.len() < REFUSAL_BYTES_MAX {
        let Some(piece) = answer.chunk().await.map_err(failed)? else { break };
        body.extend_from_slice(&piece);
    }
    let mut response = HttpResponse::new(body.into());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

/// Counts what is taken of a body, and keeps to its pace.
struct Counted {
    body: HttpRequestBody,
    sent: Sent,
    hold: Option<Hold>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Some(hold) = &mut self.hold {
            ready!(Pin::new(hold).poll(context));
            self.hold = None;
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let bytes = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            self.sent.add(bytes);
            self.hold = self.sent.hold(bytes);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A page of a listing, with the keys noted that `object_store` would show without their slash.
async fn page(response: HttpResponse, seen: &Seen) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let mut stream = body.bytes_stream();
    let mut page = Vec::new();
    while let Some(piece) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        page.extend_from_slice(&piece.inspect_err(|_| {
            let found = "a listing ended early".into();
            seen.note(Answer::Failed(TransferError::Unreachable { found }));
        })?);
        if page.len() > PAGE_BYTES_MAX {
            let found = format!("a page of a listing has more than {PAGE_BYTES_MAX} bytes");
            seen.note(Answer::Failed(TransferError::Malformed { found: found.clone() }));
            return Err(HttpError::new(HttpErrorKind::Decode, std::io::Error::other(found)));
        }
    }
    seen.note_markers(markers(&String::from_utf8_lossy(&page)));
    Ok(HttpResponse::from_parts(parts, page.into()))
}

/// The keys of a page that end in a slash, without it: S3 and Google call a key `Key`, Azure `Name`.
fn markers(page: &str) -> Vec<String> {
    let ends = ["/</Key>", "/</Name>"].iter().flat_map(|end| page.match_indices(end));
    let key = |(at, _): (usize, &str)| {
        let (_, key) = page.get(..at)?.rsplit_once('<')?;
        let (_, key) = key.split_once('>')?;
        Some(unescaped(key))
    };
    ends.filter_map(key).collect()
}

/// A text of XML as it is meant.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let (entity, after) = after.split_once(';').unwrap_or((after, ""));
        let code = entity.strip_prefix('#').and_then(|code| match code.strip_prefix('x') {
            Some(code) => u32::from_str_radix(code, 16).ok(),
            None => code.parse().ok(),
        });
        match entity {
            "amp" => plain.push('&'),
            "lt" => plain.push('<'),
            "gt" => plain.push('>'),
            "quot" => plain.push('"'),
            "apos" => plain.push('\''),
            _ => plain.extend(code.and_then(char::from_u32)),
        }
        rest = after;
    }
    plain.push_str(rest);
    plain
}

impl Observed {
    fn plain_http(&self) -> TransferError {
        let prefix = self.cloud.prefix();
        TransferError::Refused {
            found: "the endpoint is http:, which anybody on the way can read and change".into(),
            hint: format!("use an https: endpoint, or set {prefix}_ALLOW_HTTP=true"),
        }
    }
}

/// Takes from an answer what may be shown of it. The body of a refusal is used up by that.
async fn inspect(response: HttpResponse) -> (HttpResponse, Refusal) {
    let (parts, body) = response.into_parts();
    let is_refusal = parts.status.is_client_error() || parts.status.is_server_error();
    let (head, body) = if is_refusal {
        (head(body).await, HttpResponseBody::from(Bytes::new()))
    } else {
        (Vec::new(), body)
    };
    let code = text(&parts.headers, &AZURE_ERROR_CODE).or_else(|| code(&head));
    let refusal = Refusal {
        status: parts.status,
        code: code.filter(|code| is_word(code)),
        region: text(&parts.headers, &BUCKET_REGION).filter(|region| is_word(region)),
        retry_after: headers::retry_after(&parts.headers, Timestamp::now()),
    };
    (HttpResponse::from_parts(parts, body), refusal)
}

/// The first bytes of a body, or what comes of them.
async fn head(body: HttpResponseBody) -> Vec<u8> {
    let mut stream = body.bytes_stream();
    let mut head = Vec::new();
    while head.len() < REFUSAL_BYTES_MAX {
        let Some(Ok(piece)) = poll_fn(|context| stream.as_mut().poll_next(context)).await else {
            break;
        };
        head.extend_from_slice(&piece);
    }
    head
}

/// What stands in `<Code>` of an error document.
fn code(document: &[u8]) -> Option<String> {
    let document = String::from_utf8_lossy(document);
    let (_, rest) = document.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.to_owned())
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Whether this is a code or the name of a region, and nothing that only pretends to be one.
fn is_word(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !text.is_empty() && text.len() <= 64 && text.chars().all(is_part)
}
