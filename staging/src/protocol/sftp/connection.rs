//! SSH connections: one for each server and login, with several sessions in it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keelboat_engine::Digest;
use russh::client::{Config, Handle, Handler, Msg};
use russh::keys::PublicKeyOrCertificate;
use russh::{AlgorithmKind, Channel, Preferred, cipher};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::SftpConfig;
use super::address::Server;
use super::known_hosts::KnownHost;
use super::login::Login;
use super::session::Session;
use crate::credentials::Credential;
use crate::protocol::TransferError;
use crate::protocol::connect::connect_any;

/// When nothing has come for so long, the server is asked whether it is there; after three times
/// without an answer the connection is over.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Bytes that a server may send in a channel before we say that we have taken them.
const WINDOW_BYTES: u32 = 16 << 20;

/// Messages that wait in one channel for whoever uses it, before all channels wait. No user has
/// asked for more than fits.
const CHANNEL_MESSAGES: usize = 2048;

/// Connections that are kept though nobody uses them.
const IDLE_MAX: usize = 64;

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Ssh(#[from] russh::Error),
    #[error(transparent)]
    Host(TransferError),
}

/// Lets only known servers in.
#[derive(Debug)]
pub(super) struct HostCheck(KnownHost);

impl Handler for HostCheck {
    type Error = Ended;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Ended> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.0.check(key).map(|()| true).map_err(Ended::Host)
            }
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Mutex<BTreeMap<Digest, Arc<Slot>>>,
}

/// The place of one connection: who finds none makes it, and others wait for that.
type Slot = tokio::sync::Mutex<Option<Arc<Connection>>>;

impl Connections {
    /// A session with a server, in the connection that is there already if there is one.
    pub(super) async fn session(
        &self,
        config: &SftpConfig,
        server: &Server,
        credential: Option<&Credential>,
    ) -> Result<Lease, TransferError> {
        let slot = self.slot(server, credential);
        let connection = {
            let mut slot = slot.lock().await;
            let alive = slot.take().filter(|connection| !connection.handle.is_closed());
            let connection = match alive {
                Some(connection) => connection,
                None => Arc::new(connect(config, server, credential).await?),
            };
            *slot = Some(Arc::clone(&connection));
            connection
        };
        Lease::of(connection).await
    }

    fn slot(&self, server: &Server, credential: Option<&Credential>) -> Arc<Slot> {
        let password =
            server.password.as_ref().map(|password| Digest::of(password.reveal().as_bytes()));
        let scope = credential.map(|credential| credential.scope.as_str());
        let Server { host, port, user, .. } = server;
        let key = Digest::of(format!("{host:?} {port} {user:?} {password:?} {scope:?}").as_bytes());
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= IDLE_MAX {
            slots.retain(|_, slot| !is_unused(slot));
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

fn is_unused(slot: &Arc<Slot>) -> bool {
    let is_free = |connection: &Arc<Connection>| Arc::strong_count(connection) == 1;
    Arc::strong_count(slot) == 1
        && slot.try_lock().is_ok_and(|connection| connection.as_ref().is_none_or(is_free))
}

/// One connection, logged in.
struct Connection {
    handle: Handle<HostCheck>,
    /// Sessions at once.
    turns: Arc<Semaphore>,
    /// Each session in use has one.
    in_use: Arc<()>,
    opening: tokio::sync::Mutex<()>,
    idle: Mutex<Vec<Session>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    fn idle_session(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut session) = idle.pop() {
            if session.is_idle() {
                return Some(session);
            }
        }
        None
    }

    async fn open_channel(&self) -> Result<Room, TransferError> {
        // One after the other, so that whoever is refused knows whether others are in use.
        let _opening = self.opening.lock().await;
        match self.handle.channel_open_session().await {
            Ok(channel) => Ok(Room::Made(channel, Arc::clone(&self.in_use))),
            Err(russh::Error::ChannelOpenFailure(_)) if Arc::strong_count(&self.in_use) > 1 => {
                Ok(Room::Full)
            }
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                let found = format!("it opens no session: {reason:?}");
                let busy = TransferError::Busy { found, retry_after: None };
                self.idle_session().map(Room::Idle).ok_or(busy)
            }
            Err(error) => Err(unreachable(&error)),
        }
    }
}

/// Where a new session finds room.
enum Room {
    /// A channel was opened; it counts as in use.
    Made(Channel<Msg>, Arc<()>),
    /// The server allows no more, but there is one that was given back meanwhile.
    Idle(Session),
    /// The server allows no more, and others are in use.
    Full,
}

/// A session for one user, with its turn. Dropped, it is closed; given back, the next one has it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) session: Session,
    connection: Arc<Connection>,
    _turn: OwnedSemaphorePermit,
    _in_use: Arc<()>,
}

impl Lease {
    async fn of(connection: Arc<Connection>) -> Result<Self, TransferError> {
        loop {
            let turn = Arc::clone(&connection.turns).acquire_owned().await;
            let turn = turn.map_err(|_closed| TransferError::Unreachable {
                found: "the connection was shut down".into(),
            })?;
            if let Some(session) = connection.idle_session() {
                return Ok(Self::new(session, connection, turn));
            }
            match connection.open_channel().await? {
                Room::Made(channel, in_use) => {
                    let session = Session::start(channel).await?;
                    return Ok(Self { session, connection, _turn: turn, _in_use: in_use });
                }
                Room::Idle(session) => return Ok(Self::new(session, connection, turn)),
                // This turn is no more, and there are those of the sessions in use.
                Room::Full => turn.forget(),
            }
        }
    }

    fn new(session: Session, connection: Arc<Connection>, turn: OwnedSemaphorePermit) -> Self {
        let in_use = Arc::clone(&connection.in_use);
        Self { session, connection, _turn: turn, _in_use: in_use }
    }

    /// Keeps the session for the next user. Only for sessions without open questions and files.
    pub(super) fn give_back(self) {
        let Self { session, connection, .. } = self;
        connection.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

impl Lease {
    /// Keeps the session if the error is the server's plain answer.
    pub(super) fn give_back_after(self, error: &TransferError) {
        if matches!(error, TransferError::Missing { .. } | TransferError::Forbidden { .. }) {
            self.give_back();
        }
    }
}

async fn connect(
    config: &SftpConfig,
    server: &Server,
    credential: Option<&Credential>,
) -> Result<Connection, TransferError> {
    let login = login(config, server, credential)?;
    let (host, port, files) = (server.host.clone(), server.port, config.known_hosts.clone());
    let known = tokio::task::spawn_blocking(move || KnownHost::read(&host, port, &files));
    let known = known.await.map_err(|error| unreachable(&error))??;
    let connected = timeout(config.connect_timeout, async {
        let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
        let found = found.map_err(|error| unreachable(&error))?.collect();
        let admitted = config.address_policy.admitted(&server.host, found)?;
        let stream = connect_any(&admitted).await;
        let stream = stream.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let ssh = Arc::new(ssh_config(&known));
        let mut handle = russh::client::connect_stream(ssh, stream, HostCheck(known))
            .await
            .map_err(|ended| why(ended, server))?;
        login.perform(&mut handle).await?;
        Ok(handle)
    });
    let handle = connected.await.unwrap_or_else(|_elapsed| {
        let waited = config.connect_timeout;
        Err(TransferError::Stalled { waited, phase: "while connecting and logging in".into() })
    })?;
    let turns = Arc::new(Semaphore::new(config.sessions_max.max(1)));
    Ok(Connection {
        handle,
        turns,
        in_use: Arc::default(),
        opening: tokio::sync::Mutex::default(),
        idle: Mutex::default(),
    })
}

fn login(
    config: &SftpConfig,
    server: &Server,
    credential: Option<&Credential>,
) -> Result<Login, TransferError> {
    let from_entry = credential.and_then(|entry| entry.user.clone());
    let user = server.user.clone().or(from_entry).or_else(|| config.user.clone());
    let user = user.ok_or_else(|| TransferError::Refused {
        found: "nobody says as which user to log in".into(),
        hint: "write sftp://user@host/path, or name `user` in the credentials".into(),
    })?;
    let from_entry = credential.and_then(|entry| entry.password.clone());
    let password = server.password.clone();
    // A password in the address is meant for this server and no key of the entry is.
    let key_file = credential.and_then(|entry| entry.key_file.clone());
    Ok(Login {
        user,
        key_file: key_file.filter(|_| password.is_none()),
        passphrase: credential.and_then(|entry| entry.passphrase.clone()),
        password: password.or(from_entry),
        agent: config.agent.clone(),
        default_keys: config.key_files.clone().into(),
    })
}

fn ssh_config(known: &KnownHost) -> Config {
    let mut ciphers = vec![cipher::AES_128_GCM, cipher::AES_256_GCM];
    let others = Preferred::DEFAULT.cipher.iter().filter(|one| **one != cipher::AES_256_GCM);
    ciphers.extend(others.copied());
    Config {
        window_size: WINDOW_BYTES,
        channel_buffer_size: CHANNEL_MESSAGES,
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        preferred: Preferred {
            key: known.preferred().into(),
            cipher: ciphers.into(),
            ..Preferred::DEFAULT
        },
        ..Config::default()
    }
}

/// Why a connection did not come about.
fn why(ended: Ended, server: &Server) -> TransferError {
    match ended {
        Ended::Host(error) => error,
        Ended::Ssh(russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. }) => {
            no_host_key(server, &theirs)
        }
        Ended::Ssh(error @ russh::Error::NoCommonAlgo { .. }) => TransferError::Refused {
            found: format!(
                "{} and this program have no algorithm in common ({error})",
                server.host
            ),
            hint: "update the server: it needs key exchange, ciphers and checksums of this decade"
                .into(),
        },
        Ended::Ssh(error) => unreachable(&error),
    }
}

/// The server has no host key of a kind that can be checked.
fn no_host_key(server: &Server, theirs: &[String]) -> TransferError {
    let Server { host, port, .. } = server;
    // The name of an algorithm is the server's text.
    let theirs: Vec<String> =
        theirs.iter().map(|name| name.escape_default().take(64).collect()).take(8).collect();
    TransferError::Refused {
        found: format!(
            "{host} has host keys of these kinds only: {}; none of them is supported",
            theirs.join(", ")
        ),
        hint: format!(
            "RSA host keys are not supported: whoever runs {host} makes an ed25519 key by \
             `ssh-keygen -A` and restarts sshd; then add it by `ssh-keyscan -t ed25519 -p {port} \
             {host} >> ~/.ssh/known_hosts`, and compare its fingerprint"
        ),
    }
}

pub(super) fn unreachable(error: &dyn std::error::Error) -> TransferError {
    TransferError::Unreachable { found: error.to_string() }
}
