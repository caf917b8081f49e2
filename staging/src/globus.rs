//! `globus://COLLECTION/path`, by the Globus Transfer API v0.10 and Globus Auth.
//!
//! Globus moves files between collections, by itself and for as long as it takes. What is brought
//! here lands on a collection of this machine, [`LocalCollection`]. Errands that come together make
//! one task; what is submitted is on the disk before it is, so that a later life of the process
//! goes on with the same task.
//!
//! Sources: docs.globus.org/api/transfer (documents, limits, error codes), docs.globus.org/api/auth.
//! Deliberately absent: deleting on collections, and creating them.

mod account;
mod address;
mod answer;
mod api;
mod board;
mod document;
mod ground;
mod listing;
mod login;
mod record;
mod slots;
mod status;
mod task;
mod tokens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use keelboat_engine::Kind;
use keelboat_engine::queue::{Limit, QueueLimits};

use crate::credentials::{Credential, Credentials, Secret};
use crate::fetch::TransferEvent;
use crate::protocol::{
    BoxFuture, Courier, Entry, Errand, HttpConfig, ListRequest, TransferError, client_builder,
};
use crate::redact;
use crate::retry::RetryBudget;
use account::Account;
use address::Place;
pub use address::is_id;
use api::{Api, ApiConfig};
use board::{Board, Joined, Order, Outcome, QueueKey, Ticket};
use document::{Item, Route};
use ground::{Ground, Spot};
use listing::Lister;
pub(crate) use record::AGE_MAX as RECORDS_KEPT;
use slots::Slots;
use task::Task;

/// Tasks that one errand may be part of, one after the other.
const TASKS_OF_AN_ERRAND_MAX: u32 = 10;

/// How long what Globus says to have written may take to show on this machine.
const SHOWS_WITHIN: Duration = Duration::from_secs(10);

/// A directory of this machine that a collection shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCollection {
    /// The collection's id.
    pub collection: String,
    /// The directory here.
    pub root: PathBuf,
    /// The same directory's absolute path on the collection; often `/`.
    pub path: String,
}

/// How to work with Globus.
#[derive(Debug, Clone)]
pub struct GlobusConfig {
    /// Globus Auth.
    pub auth_url: String,
    /// The Transfer service.
    pub transfer_url: String,
    /// The collections of this machine.
    pub local: Vec<LocalCollection>,
    /// Where the records of tasks are, between runs too. One for each workflow.
    pub state_dir: PathBuf,
    /// Entries by collection: `globus://COLLECTION/prefix`.
    pub credentials: Credentials,
    /// For what no entry covers: an application, by `client_id` and `client_secret`.
    pub application: Option<Credential>,
    /// The native application by way of which people log in.
    pub native_client_id: Option<String>,
    /// What [`login`] writes, for what nothing else covers.
    pub tokens_file: PathBuf,
    /// How long errands are waited for that can travel together.
    pub batch_window: Duration,
    /// Files and directories of one task.
    pub batch_items_max: usize,
    /// Tasks at once. Globus works on 3 of a user, and queues 100.
    pub tasks_max: usize,
    /// Tasks at once that move from or to a collection, by its id, where that is fewer.
    pub tasks_per_collection_max: BTreeMap<String, usize>,
    /// What Globus allows a user.
    pub requests_per_second_max: u32,
    /// Between two looks at a task that moves.
    pub poll_min: Duration,
    /// Between two looks at a task that does not.
    pub poll_max: Duration,
    /// Looks at growing faults, such as a missing file, after which a task is cancelled.
    pub fault_looks_max: u32,
    /// How long a task may take. Globus ends it then.
    pub deadline: Duration,
    /// For one answer.
    pub request_timeout: Duration,
    /// How often and how long one request is tried.
    pub retry: RetryBudget,
    /// How to talk HTTP.
    pub http: HttpConfig,
    /// For the jitter of waits.
    pub seed: u64,
}

impl GlobusConfig {
    /// The defaults, with these places for records and for the login.
    pub fn new(state_dir: impl Into<PathBuf>, tokens_file: impl Into<PathBuf>) -> Self {
        Self {
            auth_url: "https://auth.globus.org/".into(),
            transfer_url: "https://transfer.api.globus.org/".into(),
            local: Vec::new(),
            state_dir: state_dir.into(),
            credentials: Credentials::default(),
            application: None,
            native_client_id: None,
            tokens_file: tokens_file.into(),
            batch_window: Duration::from_millis(200),
            batch_items_max: 2000,
            tasks_max: 3,
            tasks_per_collection_max: BTreeMap::new(),
            requests_per_second_max: 20,
            poll_min: Duration::from_secs(1),
            poll_max: Duration::from_secs(30),
            fault_looks_max: 4,
            deadline: Duration::from_hours(72),
            request_timeout: Duration::from_mins(1),
            retry: RetryBudget::default(),
            http: HttpConfig::default(),
            seed: 0,
        }
    }

    /// With the limits on connections that there are for the scheme and for single collections:
    /// what takes one elsewhere is a task here. The others are about bytes that come this way, or
    /// about connections of this machine.
    #[must_use]
    pub fn within(mut self, limits: &QueueLimits) -> Self {
        let count = |limit: &Limit| limit.connections.and_then(|max| usize::try_from(max).ok());
        if let Some(max) = limits.schemes.get("globus").and_then(count) {
            self.tasks_max = max.max(1);
        }
        let hosts = limits.hosts.iter().filter(|(host, _)| is_id(host));
        let collections = hosts.filter_map(|(host, limit)| Some((host.clone(), count(limit)?)));
        self.tasks_per_collection_max.extend(collections);
        self
    }

    /// With what variables of the environment say, under the names that Globus's own tools use:
    /// `GLOBUS_SDK_SERVICE_URL_AUTH`, `GLOBUS_SDK_SERVICE_URL_TRANSFER`, `GLOBUS_CLI_CLIENT_ID`
    /// with `GLOBUS_CLI_CLIENT_SECRET`; and `KEELBOAT_GLOBUS_CLIENT_ID`, a native application.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut application = Credential { scope: "globus://".into(), ..Credential::default() };
        for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "GLOBUS_SDK_SERVICE_URL_AUTH" => self.auth_url = value,
                "GLOBUS_SDK_SERVICE_URL_TRANSFER" => self.transfer_url = value,
                "GLOBUS_CLI_CLIENT_ID" => application.client_id = Some(value),
                "GLOBUS_CLI_CLIENT_SECRET" => application.client_secret = Some(Secret::new(value)),
                "KEELBOAT_GLOBUS_CLIENT_ID" => self.native_client_id = Some(value),
                _ => {}
            }
        }
        if application.client_id.is_some() && application.client_secret.is_some() {
            self.application = Some(application);
        }
        self
    }
}

/// Logs a person in: `ask` shows the URL to open in a browser and returns the code that the page
/// shows then. It may block. The tokens are kept in [`GlobusConfig::tokens_file`].
///
/// `consents` are scopes as an error has named them; those of earlier logins stay.
///
/// # Errors
/// There is no native application; nobody gave a code; Globus does not take it; the file cannot be
/// written.
pub async fn login(
    config: &GlobusConfig,
    consents: &[String],
    ask: impl FnOnce(&str) -> std::io::Result<String> + Send,
) -> Result<(), TransferError> {
    let client_id = config.native_client_id.as_deref().ok_or_else(|| TransferError::Refused {
        found: "there is no application to log in by way of".into(),
        hint: "register a native app at app.globus.org (Settings, Developers) with the redirect \
               https://auth.globus.org/v2/web/auth-code, and set KEELBOAT_GLOBUS_CLIENT_ID to its id"
            .into(),
    })?;
    login::login(&api(config)?, &config.tokens_file, client_id, consents, ask).await
}

/// What moves files by Globus. Clones share tasks, limits and tokens. To be used inside a tokio
/// runtime.
#[derive(Debug, Clone)]
pub struct Globus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: GlobusConfig,
    api: Api,
    ground: Ground,
    board: Arc<Board>,
    slots: Slots,
    /// By the scope of an entry, which may change in mid-run.
    accounts: Mutex<BTreeMap<String, Known>>,
}

/// An account with the entry that it was made of; without one, that of the login.
type Known = (Option<Arc<Credential>>, Arc<Account>);

/// One errand, ready to travel.
struct Trip {
    account_name: String,
    account: Arc<Account>,
    order: Order,
}

impl Globus {
    /// Finds what earlier lives have left in [`GlobusConfig::state_dir`]; their tasks are followed
    /// when the same errands come again.
    ///
    /// # Errors
    /// The configuration makes no sense, or the certificates to trust cannot be read.
    pub fn new(config: GlobusConfig) -> Result<Self, TransferError> {
        let ground = Ground::new(&config.local)?;
        ground.sweep(SystemTime::now());
        let api = api(&config)?;
        let slots = Slots::new(config.tasks_max, &config.tasks_per_collection_max);
        let (board, accounts) = (Arc::default(), Mutex::default());
        let inner = Inner { config, api, ground, board, slots, accounts };
        inner.scan(None);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The path of an address that is of a collection of this machine: just a file.
    ///
    /// # Errors
    /// It is no `globus:` address, or the directory of its collection is not there.
    pub fn local_path(&self, address: &str) -> Result<Option<PathBuf>, TransferError> {
        self.inner.ground.path_of(&Place::parse(address)?)
    }

    async fn carry(&self, trip: Trip, has_arrived: impl Fn() -> bool) -> Result<(), TransferError> {
        let mut order = trip.order;
        let mut last = TransferError::Busy {
            found: "its Globus tasks were cancelled over and over, for the sake of others".into(),
            retry_after: None,
        };
        for _task in 0..TASKS_OF_AN_ERRAND_MAX {
            let ticket = self.inner.join(order.clone(), &trip.account_name, &trip.account);
            match ticket.outcome().await {
                // What an earlier life, or an earlier errand, has sent may be of another version.
                Outcome::Arrived { .. } if ticket.stamp() != order.stamp.as_deref() => {}
                Outcome::Arrived { is_fresh } => {
                    let patience = if is_fresh { SHOWS_WITHIN } else { Duration::ZERO };
                    if shows(&has_arrived, patience).await {
                        return Ok(());
                    }
                    if is_fresh {
                        let path = &order.key.1.destination_path;
                        last = TransferError::Refused {
                            found: format!(
                                "Globus has written {path}, but it is not on this machine"
                            ),
                            hint: "check `path` and `root` of this machine's collection in \
                                   [[globus.collections]] (keelboat.toml)"
                                .into(),
                        };
                        return Err(last);
                    }
                    // The result was taken in an earlier life.
                }
                Outcome::Failed(error) => return Err(error),
                Outcome::Displaced { alone } => order.alone |= alone,
            }
        }
        Err(last)
    }

    fn trip(
        &self,
        errand: &Errand,
        sent: Option<String>,
        here: &Spot,
        there: Place,
    ) -> Result<Trip, TransferError> {
        let (account_name, account) = self.inner.account(&errand.address)?;
        let (from, to) = match sent {
            Some(_) => (here.place.clone(), there),
            None => (there, here.place.clone()),
        };
        let route = Route { source: from.collection, destination: to.collection };
        let item = Item::new(from.path, to.path, errand.kind);
        let shown: Arc<str> = redact(&errand.address).into();
        let observer = errand.progress.clone().map(|progress| (shown, progress));
        let order = Order { key: (route, item), stamp: sent, alone: false, observer };
        Ok(Trip { account_name, account, order })
    }

    async fn bring_from(&self, errand: &Errand) -> Result<(), TransferError> {
        let place = Place::parse(&errand.address)?;
        let (to, kind) = (errand.local.clone(), errand.kind);
        if let Some(from) = self.inner.ground.path_of(&place)? {
            return blocking(move || copy_here(&from, &to, kind)).await;
        }
        let inner = Arc::clone(&self.inner);
        let address = Arc::clone(&errand.address);
        let spot = blocking(move || {
            let parent = to.parent().unwrap_or_else(|| Path::new("."));
            std::fs::create_dir_all(parent).map_err(|e| tokens::local(parent, "create", &e))?;
            inner.ground.spot(&to, &address)
        })
        .await?;
        let trip = self.trip(errand, None, &spot, place)?;
        let to = errand.local.clone();
        self.carry(trip, || {
            ground::is_there(&spot.path, kind) || (spot.is_staged && ground::is_there(&to, kind))
        })
        .await?;
        if spot.is_staged {
            let to = to.clone();
            blocking(move || ground::move_to(&spot.path, &to)).await?;
        }
        if let (Some(progress), Ok(metadata)) = (&errand.progress, to.metadata())
            && kind == Kind::File
        {
            let position = metadata.len();
            progress.on_event(&TransferEvent::Received { position, length: Some(position) });
        }
        Ok(())
    }

    async fn send_to(&self, errand: &Errand) -> Result<(), TransferError> {
        let place = Place::parse(&errand.address)?;
        let (from, kind) = (errand.local.clone(), errand.kind);
        if let Some(to) = self.inner.ground.path_of(&place)? {
            return blocking(move || copy_here(&from, &to, kind)).await;
        }
        let inner = Arc::clone(&self.inner);
        let address = Arc::clone(&errand.address);
        let (spot, stamp) = blocking(move || {
            let stamp = ground::stamp(&from, kind)?;
            let spot = inner.ground.spot(&from, &format!("{address}\n{stamp}"))?;
            if spot.is_staged && !ground::is_there(&spot.path, kind) {
                ground::copy_to(&from, &spot.path)?;
            }
            Ok((spot, stamp))
        })
        .await?;
        if let Some(above) = place.parent().filter(|above| above.path != "/") {
            let (_, account) = self.inner.account(&errand.address)?;
            self.inner.lister(&account).make_directory(above).await?;
        }
        let trip = self.trip(errand, Some(stamp.clone()), &spot, place)?;
        self.carry(trip, || true).await?;
        let from = errand.local.clone();
        blocking(move || {
            if spot.is_staged {
                ground::remove(&spot.path);
            }
            if ground::stamp(&from, kind)? == stamp {
                return Ok(());
            }
            let found = format!("{} is not what it was when it was sent", from.display());
            Err(TransferError::Changed { found })
        })
        .await
    }
}

impl Inner {
    fn lister<'a>(&'a self, account: &'a Account) -> Lister<'a> {
        Lister { api: &self.api, account }
    }

    /// Finds records that nobody uses, but for one.
    fn scan(&self, but: Option<&str>) {
        let found = record::scan(&self.config.state_dir, SystemTime::now());
        let found = found
            .into_iter()
            .filter(|(_, _, document)| Some(document.submission_id.as_str()) != but);
        let keys = found.flat_map(|(path, items, document)| {
            let route = document.route();
            items.into_iter().map(move |item| ((route.clone(), item), path.clone()))
        });
        self.board.add_dormant(keys);
    }

    /// Who asks for what is at this address.
    fn account(&self, address: &str) -> Result<(String, Arc<Account>), TransferError> {
        let application = || self.config.application.clone().map(Arc::new);
        let entry = self.config.credentials.lookup(address).or_else(application);
        let name = entry.as_ref().map(|entry| entry.scope.clone()).unwrap_or_default();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, account)) = accounts.get(&name)
            && *of == entry
        {
            return Ok((name, Arc::clone(account)));
        }
        let account = Arc::new(match &entry {
            Some(entry) => Account::of(entry)?,
            None => Account::login(self.config.tokens_file.clone()),
        });
        accounts.insert(name.clone(), (entry, Arc::clone(&account)));
        Ok((name, account))
    }

    fn join(self: &Arc<Self>, order: Order, name: &str, account: &Arc<Account>) -> Ticket {
        let (inner, account) = (Arc::clone(self), Arc::clone(account));
        match self.board.join(order, name) {
            Joined::Waiting(ticket) => ticket,
            Joined::Queued(ticket, queue) => {
                tokio::spawn(inner.see_to(queue, account));
                ticket
            }
            Joined::Found(ticket, kept, parcels) => {
                let slot = self.slots.try_take(&kept.record.document.route());
                let task = Task { inner, account, parcels, slot };
                tokio::spawn(task.resume(kept));
                ticket
            }
        }
    }

    /// Makes tasks of those who wait in a queue until nobody does. While all tasks that may be at
    /// once are under way, the next one fills.
    async fn see_to(self: Arc<Self>, queue: QueueKey, account: Arc<Account>) {
        loop {
            tokio::time::sleep(self.config.batch_window).await;
            if let Some(cause) = self.slots.full(&queue.1) {
                task::tell_waiting(&self.board.queued(&queue), &cause, self.config.poll_max);
            }
            let slot = Some(self.slots.take(&queue.1).await);
            let Some(parcels) = self.board.take(&queue, self.config.batch_items_max.max(1)) else {
                return;
            };
            let (inner, account) = (Arc::clone(&self), Arc::clone(&account));
            let task = Task { inner, account, parcels, slot };
            tokio::spawn(task.begin(queue.1.clone()));
        }
    }
}

impl Courier for Globus {
    fn schemes(&self) -> &[&'static str] {
        &["globus"]
    }

    /// The file is where the local collection shows it, or moved to `local` when no collection
    /// shows that. The same `local` in a later life of the process finds the task again.
    fn bring<'a>(&'a self, errand: &'a Errand) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.bring_from(errand))
    }

    fn send<'a>(&'a self, errand: &'a Errand) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.send_to(errand))
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(async move {
            let place = Place::parse(&request.address)?;
            let (_, account) = self.inner.account(&request.address)?;
            self.inner.lister(&account).list(&place, request.depth).await
        })
    }

    fn version<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, TransferError>> {
        Box::pin(async move {
            let place = Place::parse(address)?;
            let (_, account) = self.inner.account(address)?;
            self.inner.lister(&account).version(&place).await
        })
    }
}

fn api(config: &GlobusConfig) -> Result<Api, TransferError> {
    let built = client_builder(&config.http).and_then(|builder| {
        // A redirect would carry the token away.
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        builder.build().map_err(|error| error.to_string())
    });
    let client = built.map_err(|found| TransferError::Refused {
        found: format!("cannot set up HTTP: {found}"),
        hint: "check the certificates of this system".into(),
    })?;
    Api::new(ApiConfig {
        client,
        auth_url: &config.auth_url,
        transfer_url: &config.transfer_url,
        requests_per_second_max: config.requests_per_second_max,
        retry: config.retry.clone(),
        timeout: config.request_timeout,
        seed: config.seed,
    })
}

/// What is on a collection of this machine is just a file.
fn copy_here(from: &Path, to: &Path, kind: Kind) -> Result<(), TransferError> {
    if !ground::is_there(from, kind) {
        let found = format!("there is no {} at {}", ground::kind_name(kind), from.display());
        return Err(TransferError::Missing { found });
    }
    let parent = to.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(parent).map_err(|error| tokens::local(parent, "create", &error))?;
    ground::copy_to(from, to)
}

/// Whether it is there within this time: network file systems are late at times.
async fn shows(has_arrived: &impl Fn() -> bool, patience: Duration) -> bool {
    const LOOK_AGAIN: Duration = Duration::from_millis(100);
    let until = tokio::time::Instant::now() + patience;
    loop {
        if has_arrived() {
            return true;
        }
        if tokio::time::Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(TransferError::Unreachable { found: error.to_string() }))
}
