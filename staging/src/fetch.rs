//! Bringing remote files here: whole, verified, once, and only when they have changed.

mod error;
mod flight;
mod progress;
mod transfer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keelboat_engine::{Content, Digest, FailureClass};

pub use error::{ConfigError, FetchError};
pub use progress::{Progress, TransferEvent};

use crate::address::{host_of, scheme_of};
use crate::protocol::{
    BucketProtocol, Deadlined, FileProtocol, HttpConfig, HttpProtocol, Protocol, Throttled,
    Validators, Verified,
};
use crate::retry::RetryBudget;
use flight::{Flights, Landed};
use transfer::Job;

/// Limits and places of a [`Stager`].
#[derive(Debug, Clone)]
pub struct StagingConfig {
    /// Where files on their way are kept, between runs too.
    pub partial_dir: PathBuf,
    /// Transfers at once with one host.
    pub per_host_max: usize,
    /// Transfers at once in all.
    pub total_max: usize,
    /// How to talk HTTP.
    pub http: HttpConfig,
    /// From the request to the head of the answer, connecting included.
    pub first_byte_timeout: Duration,
    /// Between two pieces of the body.
    pub stall_timeout: Duration,
    /// How often and how long one address is tried.
    pub retry: RetryBudget,
    /// For the jitter of waits.
    pub seed: u64,
    /// Use what is known, ask nobody.
    pub offline: bool,
}

impl StagingConfig {
    /// The defaults, with this directory for files on their way.
    pub fn new(partial_dir: impl Into<PathBuf>) -> Self {
        Self {
            partial_dir: partial_dir.into(),
            per_host_max: 4,
            total_max: 16,
            http: HttpConfig::default(),
            first_byte_timeout: Duration::from_mins(1),
            stall_timeout: Duration::from_mins(1),
            retry: RetryBudget::default(),
            seed: 0,
            offline: false,
        }
    }
}

/// One file that is wanted.
#[derive(Clone, Default)]
pub struct FetchRequest {
    /// Addresses of the same file, to be tried in this order. May hold secrets.
    pub urls: Arc<[Arc<str>]>,
    /// The digest that it must have.
    pub sha256: Option<Digest>,
    /// What is here from an earlier run.
    pub known: Option<Known>,
    /// Who wants to see it advance.
    pub progress: Option<Arc<dyn Progress>>,
}

impl FetchRequest {
    /// Whatever is at this address.
    pub fn new(url: impl Into<Arc<str>>) -> Self {
        Self { urls: Arc::from([url.into()]), ..Self::default() }
    }

    /// With a further address to try.
    #[must_use]
    pub fn or_from(mut self, mirror: impl Into<Arc<str>>) -> Self {
        self.urls = self.urls.iter().cloned().chain([mirror.into()]).collect();
        self
    }

    /// With the digest that it must have.
    #[must_use]
    pub fn expecting(mut self, sha256: Digest) -> Self {
        self.sha256 = Some(sha256);
        self
    }

    /// With what is here from an earlier run.
    #[must_use]
    pub fn knowing(mut self, known: Known) -> Self {
        self.known = Some(known);
        self
    }
}

impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| crate::redact(url)).collect();
        let mut debug = f.debug_struct("FetchRequest");
        debug.field("urls", &urls).field("sha256", &self.sha256).field("known", &self.known);
        debug.finish_non_exhaustive()
    }
}

/// What an earlier run has kept of the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What it holds.
    pub content: Content,
    /// The server's ETag at that time.
    pub etag: Option<String>,
    /// The server's Last-Modified at that time.
    pub last_modified: Option<String>,
    /// Digest of the address it came from ([`address_digest`](crate::address_digest)), since other
    /// mirrors have validators of their own; `None`: the first address.
    pub source: Option<Digest>,
}

impl Known {
    fn validators(&self) -> Validators {
        Validators {
            etag: self.etag.clone(),
            last_modified: self.last_modified.clone(),
            last_modified_is_strong: false,
        }
    }
}

/// How a fetch ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// What is known is what is there.
    Unchanged,
    /// It came.
    New {
        /// The file, whole and verified, in the directory for files on their way. It belongs to
        /// the caller, who moves it away or removes it. Not yet synced to the disk.
        path: PathBuf,
        /// What it holds.
        content: Content,
        /// The server's ETag.
        etag: Option<String>,
        /// The server's Last-Modified.
        last_modified: Option<String>,
        /// Bytes that came over the network for it in this run, lost tries included.
        transferred: u64,
        /// The address that it came from. May hold secrets.
        source_used: Arc<str>,
    },
}

/// Fetches files. Clones share connections, limits and transfers under way.
#[derive(Debug, Clone)]
pub struct Stager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<StagingConfig>,
    protocols: Vec<Arc<dyn Protocol>>,
    flights: Flights,
}

impl Stager {
    /// For `file:`, `http:`, `https:`, `s3:`, `gs:` and `az:` addresses. To be used inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// The certificates to trust cannot be read.
    pub fn new(config: StagingConfig) -> Result<Self, ConfigError> {
        let http = HttpProtocol::new(&config.http).map_err(|cause| ConfigError { cause })?;
        let buckets = BucketProtocol::new(config.http.clone());
        let protocols: Vec<Arc<dyn Protocol>> =
            vec![Arc::new(FileProtocol), Arc::new(http), Arc::new(buckets)];
        Ok(Self::with_protocols(config, protocols))
    }

    /// For the schemes of these plain protocols; timeouts, limits and checks are put around them.
    pub fn with_protocols(config: StagingConfig, protocols: Vec<Arc<dyn Protocol>>) -> Self {
        crate::partial::sweep(&config.partial_dir, SystemTime::now());
        let limits = crate::protocol::Limits::new(config.per_host_max, config.total_max);
        let open_timeout = config.http.connect_timeout + config.first_byte_timeout;
        let wrap = |plain: Arc<dyn Protocol>| -> Arc<dyn Protocol> {
            let deadlined = Deadlined::new(plain, open_timeout, config.stall_timeout);
            Arc::new(Throttled::sharing(Verified::new(deadlined), limits.clone()))
        };
        let protocols = protocols.into_iter().map(wrap).collect();
        let flights = Flights::default();
        Self { inner: Arc::new(Inner { config: Arc::new(config), protocols, flights }) }
    }

    /// Brings one file here, or finds that what is known is still right.
    ///
    /// Calls for the same addresses share one transfer. A future that is dropped ends the transfer
    /// when nobody else waits for it; what came stays for the next one.
    ///
    /// # Errors
    /// No address gave the file; the error says what was tried and what to do.
    pub async fn fetch(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        if let Some(known) = &request.known
            && request.sha256 == Some(known.content.digest)
        {
            return Ok(Fetched::Unchanged);
        }
        if self.inner.config.offline && !request.urls.iter().any(|url| is_local(url)) {
            let usable = request.known.is_some() && request.sha256.is_none();
            return if usable { Ok(Fetched::Unchanged) } else { Err(offline_error(&request)) };
        }
        let inner = &self.inner;
        let flight = inner.flights.join(&request, |observers| Job {
            config: Arc::clone(&inner.config),
            protocols: inner.protocols.clone(),
            request: request.clone(),
            observers,
        });
        match flight.landed().await? {
            Landed::Unchanged => Ok(Fetched::Unchanged),
            Landed::New(arrived) => arrived.claim(),
        }
    }
}

fn is_local(address: &str) -> bool {
    scheme_of(address) == "file" && host_of(address) == "file"
}

fn offline_error(request: &FetchRequest) -> FetchError {
    let shown = request.urls.first().map(|url| crate::redact(url)).unwrap_or_default();
    let cause = format!("{shown} is not in the object cache, and the network is not to be used");
    FetchError::new(FailureClass::InputMissing, cause, "run once without --offline", 0)
}
