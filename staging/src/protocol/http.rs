//! `http:` and `https:`, by one pooled client.
//!
//! Bytes come as they are served: no content coding is asked for, since decoded bytes would break
//! lengths, ranges and digests. Redirects are followed here and not by the client, so that each of
//! them is checked, and cookies are not kept.

pub(crate) mod answer;
mod autoindex;
mod clients;
mod exchange;
pub(crate) mod headers;
mod policy;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use reqwest::{RequestBuilder, Url};

pub(crate) use clients::client_builder;
pub use policy::AddressPolicy;

use super::{
    BoxFuture, Condition, Entry, ListRequest, OpenRequest, Opened, Proof, Protocol, PutRequest,
    TransferError, Writing,
};
use crate::credentials::Credentials;
use clients::Clients;
use exchange::Redirects;

/// How to talk HTTP.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// For the TCP connection and the TLS handshake.
    pub connect_timeout: Duration,
    /// The `User-Agent`.
    pub user_agent: String,
    /// PEM file with certificates to trust besides the system's (and those of `SSL_CERT_FILE`).
    pub extra_ca: Option<PathBuf>,
    /// Which machines may be talked to. A proxy counts as the machine that is talked to.
    pub address_policy: AddressPolicy,
    /// Bytes of a file whose length the server does not say: more of them are refused, since such
    /// an answer may have no end.
    pub unannounced_bytes_max: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            user_agent: concat!("keelboat/", env!("CARGO_PKG_VERSION")).to_owned(),
            extra_ca: None,
            address_policy: AddressPolicy::default(),
            unannounced_bytes_max: 256 << 30,
        }
    }
}

/// Files served over HTTP. Proxies come from the environment.
#[derive(Debug, Clone)]
pub struct HttpProtocol {
    clients: Arc<Clients>,
    policy: AddressPolicy,
    unannounced_bytes_max: u64,
    credentials: Credentials,
}

impl HttpProtocol {
    /// A client with its own pool of connections, and without credentials but for those in
    /// addresses.
    ///
    /// # Errors
    /// A text: the extra certificates cannot be read, or the system has no usable ones.
    pub fn new(config: &HttpConfig) -> Result<Self, String> {
        Ok(Self {
            clients: Arc::new(Clients::new(config)?),
            policy: config.address_policy,
            unannounced_bytes_max: config.unannounced_bytes_max,
            credentials: Credentials::default(),
        })
    }

    /// With these credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    fn request(&self, url: Url, request: &OpenRequest) -> Result<RequestBuilder, TransferError> {
        let client = match request.end {
            Some(_) => self.clients.for_parts()?,
            None => self.clients.of(&url)?,
        };
        let mut builder = client.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range_of(request) {
            builder = builder.header(RANGE, range);
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
                let strong = known.last_modified.as_ref().filter(|_| known.last_modified_is_strong);
                if let Some(last_modified) = strong {
                    builder = builder.header(IF_MODIFIED_SINCE, last_modified);
                }
            }
        }
        Ok(builder)
    }
}

/// The part that is wanted, when it is not the whole. An empty part is asked for as one byte.
fn range_of(request: &OpenRequest) -> Option<String> {
    let first = request.offset;
    match request.end {
        Some(end) => Some(format!("bytes={first}-{}", end.saturating_sub(1).max(first))),
        None if first > 0 => Some(format!("bytes={first}-")),
        None => None,
    }
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
            let build = |url| self.request(url, request);
            let answered = self.exchange(&request.address, Redirects::Anywhere, &build).await?;
            answer::read(answered, request, self.unannounced_bytes_max)
        })
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(self.list_index(request))
    }

    fn writing(&self) -> Writing {
        Writing::Whole
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(self.upload(request))
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.delete(address))
    }
}
