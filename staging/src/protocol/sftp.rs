//! `sftp:`, by `russh` and an SFTP client of our own.
//!
//! One SSH connection for each server and login carries several sessions, each used by one file at
//! a time, with many requests under way. Servers must be known, see [`SftpConfig::known_hosts`].
//!
//! Deliberately absent: `~/.ssh/config`, jump hosts, host certificates, RSA keys that are not in
//! the agent (RUSTSEC-2023-0071), and `russh-sftp`, which takes handles and names for text, knows
//! no status of later versions and queues without a bound.

mod address;
mod answer;
mod connection;
mod known_hosts;
mod login;
mod read;
mod session;
mod tree;
mod version;
mod wire;
mod write;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::written::Written;
use super::{
    AddressPolicy, BoxFuture, Condition, Entry, ListRequest, Metadata, OpenRequest, Opened, Proof,
    Protocol, PutRequest, Renamed, TransferError, Writing,
};
use crate::credentials::Credentials;
use address::{Place, Server};
use connection::{Connections, Lease};
use keelboat_engine::Kind;
use read::Reader;
use session::Session;
use tokio_util::bytes::Bytes;
use version::Version;
use wire::{Mode, Request};

/// How often a file may change while it is waited for.
const CHANGES_MAX: u32 = 3;

/// How to log in, and whom to trust.
#[derive(Debug, Clone)]
pub struct SftpConfig {
    /// For the TCP connection, the handshake and the login together.
    pub connect_timeout: Duration,
    /// Files in the format of OpenSSH's `known_hosts`: servers that they do not name are refused.
    pub known_hosts: Vec<PathBuf>,
    /// Private keys that are tried for a server without credentials of its own.
    pub key_files: Vec<PathBuf>,
    /// The socket of the agent.
    pub agent: Option<PathBuf>,
    /// The user, where neither the address nor the credentials name one.
    pub user: Option<String>,
    /// Files open at once in one connection (at least 1). OpenSSH's servers allow 10.
    pub sessions_max: usize,
    /// Which machines may be talked to.
    pub address_policy: AddressPolicy,
}

impl Default for SftpConfig {
    /// What `ssh` has: the keys and known hosts in `~/.ssh`, the known hosts of the system,
    /// `SSH_AUTH_SOCK` and `USER`.
    fn default() -> Self {
        let home = std::env::home_dir();
        let in_home = |name: &str| home.as_ref().map(|home| home.join(".ssh").join(name));
        let system = PathBuf::from("/etc/ssh/ssh_known_hosts");
        let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        Self {
            connect_timeout: Duration::from_secs(30),
            known_hosts: in_home("known_hosts").into_iter().chain([system]).collect(),
            key_files: ["id_ed25519", "id_ecdsa"].into_iter().filter_map(in_home).collect(),
            agent: std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
            user: user.filter(|user| !user.is_empty()),
            sessions_max: 8,
            address_policy: AddressPolicy::default(),
        }
    }
}

/// Files of SSH servers.
#[derive(Debug)]
pub struct SftpProtocol {
    config: SftpConfig,
    credentials: Credentials,
    connections: Connections,
    written: Written<Place, Version>,
}

impl SftpProtocol {
    /// Connects to nobody before the first file is wanted.
    pub fn new(config: SftpConfig, credentials: Credentials) -> Self {
        Self {
            config,
            credentials,
            connections: Connections::default(),
            written: Written::default(),
        }
    }

    async fn session(&self, address: &str, server: &Server) -> Result<Lease, TransferError> {
        let credential = self.credentials.lookup(address);
        self.connections.session(&self.config, server, credential.as_deref()).await
    }

    async fn open_file(&self, request: &OpenRequest) -> Result<Opened, TransferError> {
        let place = Place::parse(&request.address)?;
        let mut lease = self.session(&request.address, &place.server).await?;
        let handle = match lease.session.open(&place.path, Mode::Read, None).await {
            Ok(handle) => handle,
            Err(error) => {
                lease.give_back_after(&error);
                return Err(error);
            }
        };
        let version = self.settled(&mut lease.session, &handle, &place).await?;
        let validators = version.validators(SystemTime::now());
        let is_same = |known: &super::Validators| {
            !known.is_empty() && known.last_modified == validators.last_modified
        };
        let offset = match &request.condition {
            Condition::IfChanged(known) if known.strong().is_some() && is_same(known) => {
                lease.session.call(Request::close(&handle)).await?;
                lease.give_back();
                return Ok(Opened::Unchanged);
            }
            Condition::IfSame { known, .. } if !is_same(known) => 0,
            _ if request.offset <= version.size => request.offset,
            _ => 0,
        };
        let end = request.end.map_or(version.size, |end| end.clamp(offset, version.size));
        let metadata = Metadata {
            length: Some(version.size),
            validators,
            accepts_ranges: true,
            media_type: None,
        };
        let stream = Box::new(Reader::new(lease, handle, version, (offset, end)));
        Ok(Opened::Body { metadata, offset, stream })
    }

    /// The version of an open file, once any later change would show.
    async fn settled(
        &self,
        session: &mut Session,
        handle: &Bytes,
        place: &Place,
    ) -> Result<Version, TransferError> {
        let mut changes = 0;
        loop {
            let attributes = session.attributes(Request::fstat(handle)).await?;
            let version = Version::of(&attributes)?;
            let wait = version.settles_in(SystemTime::now()).unwrap_or_default();
            if wait.is_zero() || self.written.has(place, &version) || changes == CHANGES_MAX {
                return Ok(version);
            }
            changes += 1;
            tokio::time::sleep(wait).await;
        }
    }

    async fn put_file(&self, request: &PutRequest) -> Result<Proof, TransferError> {
        let place = Place::parse(&request.address)?;
        let mut lease = self.session(&request.address, &place.server).await?;
        let version = write::put(&mut lease.session, &place.path, request).await?;
        lease.give_back();
        self.written.add(place, version);
        Ok(Proof::Unchecked)
    }

    async fn rename_file(&self, from: &str, to: &str) -> Result<Renamed, TransferError> {
        let (old, new) = (Place::parse(from)?, Place::parse(to)?);
        if old.server != new.server {
            return Err(TransferError::Refused {
                found: "a file cannot be renamed from one server to another".into(),
                hint: "name both at one server and for one user".into(),
            });
        }
        let mut lease = self.session(from, &old.server).await?;
        let renamed = tree::rename(&mut lease.session, &old.path, &new.path).await?;
        lease.give_back();
        if renamed == Renamed::Done {
            self.written.rename(&old, new);
        }
        Ok(renamed)
    }
}

impl Protocol for SftpProtocol {
    fn schemes(&self) -> &[&'static str] {
        &["sftp"]
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(self.open_file(request))
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(async move {
            let place = Place::parse(&request.address)?;
            let mut lease = self.session(&request.address, &place.server).await?;
            let entries = tree::list(&mut lease.session, &place.path, request.depth).await?;
            lease.give_back();
            Ok(entries)
        })
    }

    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        Box::pin(async move {
            let place = Place::parse(address)?;
            let mut lease = self.session(address, &place.server).await?;
            let kind = tree::kind(&mut lease.session, &place.path).await?;
            lease.give_back();
            Ok(kind)
        })
    }

    fn writing(&self) -> Writing {
        Writing::Renamed
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(self.put_file(request))
    }

    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(async move {
            let place = Place::parse(address)?;
            let mut lease = self.session(address, &place.server).await?;
            write::make_parents(&mut lease.session, &address::join(&place.path, b"x")).await?;
            lease.give_back();
            Ok(())
        })
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        Box::pin(self.rename_file(from, to))
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(async move {
            let place = Place::parse(address)?;
            let mut lease = self.session(address, &place.server).await?;
            tree::remove(&mut lease.session, &place.path).await?;
            lease.give_back();
            Ok(())
        })
    }
}
