//! Bringing remote files here: whole, verified, once, and only when they have changed.

mod arrived;
mod directory;
mod errand;
mod error;
mod flight;
mod job;
mod listing;
mod member;
mod progress;
mod shelf;
mod sink;
mod transfer;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use keelboat_engine::queue::{Elsewhere, QueueLimits};
use keelboat_engine::{Content, Digest, FailureClass, Kind};

pub use arrived::Room;
pub use error::{ConfigError, FetchError};
pub(crate) use job::unknown_scheme;
pub use progress::{NextTry, Progress, TransferEvent};

use crate::address::{Address, is_local, redact};
use crate::credentials::Credentials;
use crate::deliver::Swept;
use crate::gate::{Gate, Urgency};
use crate::globus::{Globus, GlobusConfig};
use crate::local::LocalError;
use crate::protocol::{
    BucketProtocol, Courier, DataProtocol, Deadlined, FileProtocol, FtpConfig, FtpProtocol,
    HttpConfig, HttpProtocol, Parallel, Protocol, SftpConfig, SftpProtocol, Spreading, Throttled,
    TransferError, Validators, Verified,
};
use crate::retry::{Retries, RetryBudget};
use arrived::Arrived;
use error::Lost;
use flight::{Flights, Landed};
use job::{Job, Space};
use progress::Observers;
use shelf::Archives;

/// How long an address with mirrors is tried before they are.
const BRIEF_MAX: Duration = Duration::from_secs(30);

/// Limits and places of a [`Stager`].
#[derive(Debug, Clone)]
pub struct StagingConfig {
    /// Where files on their way are kept, between runs too.
    pub partial_dir: PathBuf,
    /// Connections at once, bandwidth, room, and when a host is left alone.
    pub limits: QueueLimits,
    /// How to talk HTTP.
    pub http: HttpConfig,
    /// When one file comes over several connections.
    pub spreading: Spreading,
    /// What gives access to addresses.
    pub credentials: Credentials,
    /// From the request to the head of the answer, connecting included.
    pub first_byte_timeout: Duration,
    /// Between two pieces of the body.
    pub stall_timeout: Duration,
    /// Bytes in a second; fewer for as long as `stall_timeout` are as good as none.
    pub rate_min: u64,
    /// How often and how long one address is tried.
    pub retry: RetryBudget,
    /// For the jitter of waits.
    pub seed: u64,
    /// Use what is known, ask nobody.
    pub offline: bool,
    /// Read back what is to be at an address and is there already, whatever is known of it.
    pub strict: bool,
    /// Bytes that one member of an archive may unpack to.
    pub unpacked_max: u64,
    /// How to talk SFTP.
    pub sftp: SftpConfig,
    /// How to work with Globus; `None`: not at all.
    pub globus: Option<GlobusConfig>,
}

impl StagingConfig {
    /// The defaults, with this directory for files on their way.
    pub fn new(partial_dir: impl Into<PathBuf>) -> Self {
        Self {
            partial_dir: partial_dir.into(),
            limits: QueueLimits::default(),
            http: HttpConfig::default(),
            spreading: Spreading::default(),
            credentials: Credentials::default(),
            first_byte_timeout: Duration::from_mins(1),
            stall_timeout: Duration::from_mins(1),
            rate_min: 1 << 10,
            retry: RetryBudget::default(),
            seed: 0,
            offline: false,
            strict: false,
            unpacked_max: 1 << 40,
            sftp: SftpConfig::default(),
            globus: None,
        }
    }
}

/// One file or directory that is wanted.
#[derive(Clone)]
pub struct FetchRequest {
    /// Addresses of the same file, to be tried in this order. May hold secrets.
    pub urls: Arc<[Arc<str>]>,
    /// File or directory.
    pub kind: Kind,
    /// The digest that it must have.
    pub sha256: Option<Digest>,
    /// What is here from an earlier run.
    pub known: Option<Known>,
    /// Who wants to see it advance.
    pub progress: Option<Arc<dyn Progress>>,
    /// How urgent it is; more is sooner.
    pub priority: u8,
}

impl Default for FetchRequest {
    /// A file, without an address.
    fn default() -> Self {
        let urls = Arc::from([]);
        Self { urls, kind: Kind::File, sha256: None, known: None, progress: None, priority: 0 }
    }
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

    /// With this kind.
    #[must_use]
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
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
        let urls: Vec<String> = self.urls.iter().map(|url| redact(url)).collect();
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
    /// The server's Last-Modified at that time, if it told versions apart then.
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
            last_modified_is_strong: self.last_modified.is_some(),
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
        /// The server's Last-Modified, if it tells this version from any later one: a file that
        /// was changed just before may be changed once more in the same second.
        last_modified: Option<String>,
        /// Bytes that came over the network for it in this run, lost tries included.
        transferred: u64,
        /// The address that it came from. May hold secrets.
        source_used: Arc<str>,
        /// Its room on the disk, to be dropped when it counts no more.
        room: Room,
    },
}

impl Fetched {
    /// From now on it counts no more against the bound on room.
    pub fn give_room_back(&mut self) {
        if let Self::New { room, .. } = self {
            *room = Room::default();
        }
    }
}

/// Fetches files. Clones share connections, limits and transfers under way.
#[derive(Debug, Clone)]
pub struct Stager {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones of a stager share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: StagingConfig,
    protocols: Vec<Arc<dyn Protocol>>,
    couriers: Vec<Arc<dyn Courier>>,
    /// Made when it is needed first.
    globus: OnceLock<Result<Arc<dyn Courier>, TransferError>>,
    flights: Flights,
    archives: Arc<Archives>,
    gate: Gate,
    /// Directories elsewhere that were looked through for what crashes left.
    pub(crate) swept: Swept,
}

impl Stager {
    /// For `file:`, `data:`, `http:`, `https:`, `ftp:`, `ftps:`, `s3:`, `gs:`, `az:` and `sftp:`
    /// addresses. To be used inside a tokio runtime.
    ///
    /// # Errors
    /// The certificates to trust cannot be read.
    pub fn new(config: StagingConfig) -> Result<Self, ConfigError> {
        let http = HttpProtocol::new(&config.http).map_err(|cause| ConfigError { cause })?;
        let http = http.with_credentials(config.credentials.clone());
        let buckets = BucketProtocol::new(config.http.clone());
        let buckets = buckets.with_credentials(config.credentials.clone());
        let ftp = FtpProtocol::new(&FtpConfig {
            connect_timeout: config.http.connect_timeout,
            extra_ca: config.http.extra_ca.clone(),
            credentials: config.credentials.clone(),
            address_policy: config.http.address_policy,
            ..FtpConfig::default()
        });
        let ftp = ftp.map_err(|cause| ConfigError { cause })?;
        let sftp = SftpProtocol::new(
            SftpConfig { address_policy: config.http.address_policy, ..config.sftp.clone() },
            config.credentials.clone(),
        );
        let protocols: Vec<Arc<dyn Protocol>> = vec![
            Arc::new(FileProtocol),
            Arc::new(DataProtocol),
            Arc::new(http),
            Arc::new(ftp),
            Arc::new(buckets),
            Arc::new(sftp),
        ];
        Ok(Self::with_protocols(config, protocols, Vec::new()))
    }

    /// For the schemes of these plain protocols; timeouts, limits and checks are put around them.
    pub fn with_protocols(
        config: StagingConfig,
        protocols: Vec<Arc<dyn Protocol>>,
        couriers: Vec<Arc<dyn Courier>>,
    ) -> Self {
        crate::partial::sweep(&config.partial_dir, SystemTime::now());
        let gate = Gate::new(config.limits.clone(), config.retry.elapsed_max);
        let open_timeout = config.http.connect_timeout + config.first_byte_timeout;
        let wrap = |plain: Arc<dyn Protocol>| -> Arc<dyn Protocol> {
            let (stall_timeout, rate_min) = (config.stall_timeout, config.rate_min);
            let deadlined = Deadlined::new(plain, open_timeout, stall_timeout, rate_min);
            let spreading = config.spreading.clone();
            let parallel = Parallel::new(Verified::new(deadlined), gate.clone(), spreading);
            Arc::new(Throttled::new(parallel, gate.clone()))
        };
        let protocols = protocols.into_iter().map(wrap).collect();
        let flights = Flights::default();
        let archives = Arc::new(Archives::new(config.limits.space_max));
        gate.may_spare(Arc::downgrade(&archives) as _);
        Self {
            inner: Arc::new(Inner {
                config,
                protocols,
                couriers,
                globus: OnceLock::new(),
                flights,
                archives,
                gate,
                swept: Swept::default(),
            }),
        }
    }

    /// What else counts against [`QueueLimits::space_max`]: files that were taken and are still
    /// needed. While nothing goes on there that may free some, one transfer at a time is let in
    /// beyond the bound.
    pub fn set_elsewhere(&self, elsewhere: Elsewhere) {
        self.inner.gate.set_elsewhere(elsewhere);
    }

    /// How many bytes have to go elsewhere so that a transfer can start which waits for nothing
    /// but room; `None`: none does.
    pub fn room_lacking(&self) -> Option<u64> {
        self.inner.gate.room_lacking()
    }

    /// Brings one file or directory here, or finds that what is known is still right.
    ///
    /// Calls for the same address share one transfer. A future that is dropped ends the transfer
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
        let offline = self.inner.config.offline;
        if offline && !request.urls.iter().any(|url| is_local(url)) {
            let usable = request.known.is_some() && request.sha256.is_none();
            return if usable { Ok(Fetched::Unchanged) } else { Err(offline_error(&request)) };
        }
        let addresses: Vec<&Arc<str>> =
            request.urls.iter().filter(|url| !offline || is_local(url)).collect();
        // A mirror is worth more than many tries: all of them begins once no address gave the file.
        let efforts: &[Effort] =
            if addresses.len() > 1 { &[Effort::Brief, Effort::Full] } else { &[Effort::Full] };
        let mut failed: Vec<(String, Arc<Lost>)> = Vec::new();
        for effort in efforts {
            let last = std::mem::take(&mut failed);
            for (at, address) in addresses.iter().enumerate() {
                if let Some((shown, lost)) = last.get(at).filter(|(_, lost)| lost.is_final()) {
                    failed.push((shown.clone(), Arc::clone(lost)));
                    continue;
                }
                let lost = match self.fetch_from(&request, address, *effort).await {
                    Ok(fetched) => return Ok(fetched),
                    Err(lost) => lost,
                };
                let (shown, cause) = (redact(address), lost.error.to_string());
                // Of the last one the error tells.
                let is_first = last.is_empty() && at + 1 < addresses.len();
                if let Some(progress) = request.progress.as_ref().filter(|_| is_first) {
                    let (source, cause) = (&*shown, &*cause);
                    progress.on_event(&TransferEvent::Abandoned { source, cause });
                }
                // A full disk is no better for another mirror.
                let is_local = lost.error.is_local();
                failed.push((shown, lost));
                if is_local {
                    return Err(FetchError::of("fetch", failed));
                }
            }
        }
        Err(FetchError::of("fetch", failed))
    }

    /// Archives of which members were wanted are not kept for further ones.
    pub fn discard_archives(&self) {
        self.inner.archives.discard();
    }

    async fn fetch_from(
        &self,
        request: &FetchRequest,
        address: &Arc<str>,
        effort: Effort,
    ) -> Result<Fetched, Arc<Lost>> {
        let first = request.urls.first().is_some_and(|first| first == address);
        let address = Address::from(Arc::clone(address));
        let known = request.known.clone().filter(|known| known.source.is_some() || first);
        let urgency = Urgency::new(request.priority);
        loop {
            let flight = self.inner.flights.join(Job {
                stager: Arc::clone(&self.inner),
                address: address.clone(),
                kind: request.kind,
                sha256: request.sha256,
                known: known.clone(),
                urgency: urgency.clone(),
                observers: Observers::of(request.progress.clone()),
                effort,
                space: Space::Own,
            });
            let landed = flight.landed(&urgency).await;
            // Somebody else's transfer may end in a way that says nothing about this wish.
            if !flight.serves(request.sha256, effort) {
                continue;
            }
            drop(flight);
            return match landed? {
                Landed::Unchanged => Ok(Fetched::Unchanged),
                Landed::New(arrived) => claim(arrived)
                    .map_err(|error| Arc::new(Lost { error: error.into(), transferred: 0 })),
            };
        }
    }
}

impl Inner {
    /// What moves bytes over this scheme.
    pub(crate) fn protocol(&self, scheme: &str) -> Option<Arc<dyn Protocol>> {
        self.protocols.iter().find(|one| one.schemes().contains(&scheme)).cloned()
    }

    /// The service that moves what is at addresses of this scheme, if it is one of those.
    ///
    /// # Errors
    /// It cannot be set up.
    pub(crate) fn courier(&self, scheme: &str) -> Result<Option<Arc<dyn Courier>>, TransferError> {
        let given = self.couriers.iter().find(|one| one.schemes().contains(&scheme));
        if let Some(courier) = given {
            return Ok(Some(Arc::clone(courier)));
        }
        let Some(config) = self.config.globus.as_ref().filter(|_| scheme == "globus") else {
            return Ok(None);
        };
        let made = self.globus.get_or_init(|| {
            let config = config.clone().within(&self.config.limits);
            Globus::new(config).map(|globus| Arc::new(globus) as Arc<dyn Courier>)
        });
        made.clone().map(Some)
    }

    /// The tries at one source, with jitter of its own.
    pub(crate) fn retries(&self, source: &Digest) -> Retries {
        self.retries_of(source, Effort::Full)
    }

    fn retries_of(&self, source: &Digest, effort: Effort) -> Retries {
        let bytes = source.as_bytes().iter().take(8);
        let salt = bytes.fold(0_u64, |salt, byte| salt << 8 | u64::from(*byte));
        let budget = effort.budget(&self.config.retry);
        Retries::new(&budget, self.config.seed ^ salt, Instant::now())
    }
}

/// How much one address is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// There are others: a try and one more, and no long wait.
    Brief,
    /// All tries of the budget.
    Full,
}

impl Effort {
    fn budget(self, full: &RetryBudget) -> RetryBudget {
        match self {
            Self::Full => full.clone(),
            Self::Brief => RetryBudget {
                tries_max: full.tries_max.min(2),
                elapsed_max: full.elapsed_max.min(BRIEF_MAX),
                ..full.clone()
            },
        }
    }
}

/// The last one who waits takes it, others get a further name for it.
fn claim(arrived: Arc<Arrived>) -> Result<Fetched, LocalError> {
    match Arc::try_unwrap(arrived) {
        Ok(arrived) => arrived.take(),
        Err(shared) => shared.claim(),
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LocalError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| joined(&error))
}

fn joined(error: &tokio::task::JoinError) -> LocalError {
    let error = std::io::Error::other(error.to_string());
    LocalError::io("write", std::path::Path::new("a file on its way"), error)
}

fn offline_error(request: &FetchRequest) -> FetchError {
    let shown = request.urls.first().map(|url| redact(url)).unwrap_or_default();
    let cause = format!("{shown} is not in the object cache, and the network is not to be used");
    FetchError::new(FailureClass::InputMissing, cause, "run once without --offline", 0)
}
