//! `http:` and `https:`, by one pooled client.
//!
//! Bytes come as they are served: no content coding is asked for, since decoded bytes would break
//! lengths, ranges and digests.

pub(super) mod answer;
pub(super) mod headers;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, ClientBuilder, Url};

use super::{BoxFuture, Condition, OpenRequest, Opened, Protocol, TransferError};

/// Redirects followed for one file.
const REDIRECTS_MAX: usize = 10;

/// How to talk HTTP.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// For the TCP connection and the TLS handshake.
    pub connect_timeout: Duration,
    /// The `User-Agent`.
    pub user_agent: String,
    /// PEM file with certificates to trust besides the system's (and those of `SSL_CERT_FILE`).
    pub extra_ca: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            user_agent: concat!("keelboat/", env!("CARGO_PKG_VERSION")).to_owned(),
            extra_ca: None,
        }
    }
}

/// Files served over HTTP. Proxies come from the environment.
#[derive(Debug, Clone)]
pub struct HttpProtocol {
    client: Client,
}

impl HttpProtocol {
    /// A client with its own pool of connections.
    ///
    /// # Errors
    /// A text: the extra certificates cannot be read, or the system has no usable ones.
    pub fn new(config: &HttpConfig) -> Result<Self, String> {
        let builder = client_builder(config)?.redirect(Policy::custom(follow));
        let client = builder.build().map_err(|error| answer::describe(&error))?;
        Ok(Self { client })
    }

    fn request(&self, request: &OpenRequest) -> Result<reqwest::RequestBuilder, TransferError> {
        let url = Url::parse(&request.address).map_err(|error| TransferError::Refused {
            found: format!("it is not a URL: {error}"),
            hint: "write http://host/path".into(),
        })?;
        let mut builder = self.client.get(url).header(ACCEPT_ENCODING, "identity");
        if request.offset > 0 {
            builder = builder.header(RANGE, format!("bytes={}-", request.offset));
        }
        match &request.condition {
            Condition::Always => {}
            Condition::IfSame { known, .. } => {
                // Without a strong validator the answer's metadata is all there is to compare.
                if let Some(validator) = known.strong().filter(|_| request.offset > 0) {
                    builder = builder.header(IF_RANGE, validator);
                }
            }
            Condition::IfChanged(known) => {
                if let Some(etag) = &known.etag {
                    builder = builder.header(IF_NONE_MATCH, etag);
                }
                if let Some(last_modified) = &known.last_modified {
                    builder = builder.header(IF_MODIFIED_SINCE, last_modified);
                }
            }
        }
        Ok(builder)
    }
}

/// What all clients have in common.
pub(super) fn client_builder(config: &HttpConfig) -> Result<ClientBuilder, String> {
    let builder = Client::builder()
        .user_agent(&config.user_agent)
        .connect_timeout(config.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_keepalive(Duration::from_secs(30))
        .referer(false);
    let Some(path) = &config.extra_ca else { return Ok(builder) };
    let unreadable = |error: &dyn std::fmt::Display| {
        format!("cannot read certificates from {}: {error}", path.display())
    };
    let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
    Ok(builder.tls_certs_merge(certificates))
}

impl Protocol for HttpProtocol {
    fn schemes(&self) -> &[&'static str] {
        &["http", "https"]
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let response = self.request(request)?.send().await;
            let response = response.map_err(|error| answer::send_error(&error))?;
            answer::read(response, request)
        })
    }
}

/// The client itself drops credentials when a redirect leaves the origin; this keeps it from
/// going round in circles and from leaving TLS.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(format!("more than {REDIRECTS_MAX} redirects"));
    }
    if was_secure && attempt.url().scheme() != "https" {
        return attempt.error("a redirect from https to http");
    }
    attempt.follow()
}
