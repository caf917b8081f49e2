//! Clients of buckets: made of variables, on the HTTP client that other transfers have, too.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::redirect::Policy;
use tokio_util::bytes::Bytes;

use super::address::Cloud;
use super::answer::{Answer, Refusal, Seen};
use crate::protocol::http::{answer, client_builder, headers};
use crate::protocol::{HttpConfig, TransferError};

/// Bytes of a refusal that are looked at.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");
const AZURE_ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// How buckets are reached. Holds secrets.
pub(super) struct Settings {
    pub(super) http: HttpConfig,
    /// In place of the environment's.
    pub(super) variables: Option<BTreeMap<String, String>>,
}

/// The builder of a cloud with all settings: the builders have no trait in common.
macro_rules! configured {
    ($builder:ty, $settings:expr, $cloud:expr) => {{
        let mut builder = match &$settings.variables {
            None => <$builder>::from_env(),
            Some(_) => <$builder>::default(),
        };
        for (key, value) in $settings.variables.iter().flatten() {
            if let Ok(key) = key.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let connector = Connector { http: $settings.http.clone(), cloud: $cloud };
        builder.with_retry(retry).with_http_connector(connector)
    }};
}

impl Settings {
    /// The client of one bucket. Nothing is asked yet.
    pub(super) fn connect(
        &self,
        cloud: Cloud,
        bucket: &str,
    ) -> Result<Arc<dyn ObjectStore>, TransferError> {
        let made = match cloud {
            Cloud::S3 => {
                let builder = configured!(AmazonS3Builder, self, cloud).with_bucket_name(bucket);
                builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
            Cloud::Gs => {
                let builder = configured!(GoogleCloudStorageBuilder, self, cloud);
                let built = builder.with_bucket_name(bucket).build();
                built.map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
            Cloud::Az => {
                let builder = configured!(MicrosoftAzureBuilder, self, cloud);
                let built = builder.with_container_name(bucket).build();
                built.map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
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
}

/// Makes HTTP clients for `object_store`.
#[derive(Debug)]
struct Connector {
    http: HttpConfig,
    cloud: Cloud,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let generic = |source| object_store::Error::Generic { store: "HTTP client", source };
        let builder = client_builder(&self.http).map_err(|text| generic(text.into()))?;
        // Short for the machine's own metadata, which most machines do not have.
        let option = |key| options.get_config_value(&key);
        let wanted = option(ClientConfigKey::ConnectTimeout)
            .and_then(|text| text.parse::<SignedDuration>().ok())
            .and_then(|wanted| Duration::try_from(wanted).ok());
        let connect_timeout = self.http.connect_timeout;
        let client = builder
            .connect_timeout(wanted.map_or(connect_timeout, |wanted| wanted.min(connect_timeout)))
            // A signature is for one host.
            .redirect(Policy::none())
            .build()
            .map_err(|error| generic(answer::describe(&error).into()))?;
        let allows_http = option(ClientConfigKey::AllowHttp).as_deref() == Some("true");
        Ok(HttpClient::new(Observed { client, allows_http, cloud: self.cloud }))
    }
}

/// Notes what came of the requests that have a [`Seen`].
#[derive(Debug)]
struct Observed {
    client: reqwest::Client,
    allows_http: bool,
    cloud: Cloud,
}

#[async_trait]
impl HttpService for Observed {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let seen = request.extensions().get::<Seen>().cloned().unwrap_or_default();
        if !self.allows_http && request.uri().scheme_str() != Some("https") {
            seen.note(Answer::Failed(self.plain_http()));
            let error = std::io::Error::other("plain HTTP is not allowed");
            return Err(HttpError::new(HttpErrorKind::Unknown, error));
        }
        match self.client.call(request).await {
            Ok(response) => {
                let (response, refusal) = inspect(response).await;
                seen.note(Answer::Status(refusal));
                Ok(response)
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
