//! `ftp:` and `ftps:`, in passive mode, by the crate suppaftp.
//!
//! The end of a data connection says nothing in FTP: a file is whole when the server says so on
//! the control connection, its length is the one announced, and both length and moment of change
//! are still those of the beginning.
//!
//! Deliberately absent: active mode, conversions of text, FXP, proxies.

mod address;
mod change;
mod download;
mod listing;
mod pool;
mod reply;
mod session;
mod tls;
mod upload;
mod version;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{Digest, Kind};

use super::written::Written;
use super::{
    AddressPolicy, BoxFuture, Entry, ListRequest, OpenRequest, Opened, Proof, Protocol, PutRequest,
    Renamed, TransferError, Writing,
};
use crate::address::address_digest;
use crate::credentials::Credentials;
use address::{Login, Target};
use pool::Pool;
use session::Session;
use version::Version;

/// How to talk FTP.
#[derive(Debug, Clone)]
pub struct FtpConfig {
    /// For each TCP connection and each TLS handshake.
    pub connect_timeout: Duration,
    /// PEM file with certificates to trust besides the system's (and those of `SSL_CERT_FILE`).
    pub extra_ca: Option<PathBuf>,
    /// Users and passwords. What they do not name is asked for as `anonymous`.
    pub credentials: Credentials,
    /// Connections kept for later files of one login.
    pub idle_per_login_max: usize,
    /// For how long they are kept.
    pub idle_timeout: Duration,
    /// Which machines may be talked to.
    pub address_policy: AddressPolicy,
}

impl Default for FtpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            extra_ca: None,
            credentials: Credentials::default(),
            idle_per_login_max: 4,
            idle_timeout: Duration::from_secs(15),
            address_policy: AddressPolicy::default(),
        }
    }
}

/// Files served over FTP. Clones share connections.
#[derive(Debug, Clone)]
pub struct FtpProtocol {
    pool: Arc<Pool>,
    credentials: Credentials,
    /// By the digests of their addresses.
    written: Arc<Written<Digest, Version>>,
}

impl FtpProtocol {
    /// A client with its own pool of connections. To be used inside a tokio runtime.
    ///
    /// # Errors
    /// A text: the extra certificates cannot be read.
    pub fn new(config: &FtpConfig) -> Result<Self, String> {
        let (pool, credentials) = (Pool::new(config)?, config.credentials.clone());
        Ok(Self { pool, credentials, written: Arc::default() })
    }

    fn target(&self, address: &str) -> Result<Target, TransferError> {
        Target::of(address, &self.credentials)
    }

    /// Does something that leaves the connection usable when it ends well.
    async fn with_session<T>(
        &self,
        login: &Login,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, TransferError>,
    ) -> Result<T, TransferError> {
        let mut session = self.pool.take(login).await?;
        let done = work(&mut session).await?;
        self.pool.give_back(login, session);
        Ok(done)
    }
}

impl Protocol for FtpProtocol {
    fn schemes(&self) -> &[&'static str] {
        &["ftp", "ftps"]
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let target = self.target(&request.address)?;
            let place = address_digest(&request.address);
            let is_ours = |version: &Version| self.written.has(&place, version);
            download::open(&self.pool, target, request, is_ours).await
        })
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(async move {
            let Target { login, path } = self.target(&request.address)?;
            let work = async |session: &mut _| listing::list(session, &path, request.depth).await;
            self.with_session(&login, work).await
        })
    }

    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        Box::pin(async move {
            let Target { login, path } = self.target(address)?;
            let work = async |session: &mut _| change::kind(session, &path).await;
            self.with_session(&login, work).await
        })
    }

    fn writing(&self) -> Writing {
        Writing::Renamed
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(async move {
            let Target { login, path } = self.target(&request.address)?;
            let work = async |session: &mut _| {
                let proof = upload::put(session, &path, request).await?;
                Ok((proof, Version::ask(session, &path).await?))
            };
            let (proof, version) = self.with_session(&login, work).await?;
            self.written.add(address_digest(&request.address), version);
            Ok(proof)
        })
    }

    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(async move {
            let Target { login, path } = self.target(address)?;
            let work = async |session: &mut _| change::make_directory(session, &path).await;
            self.with_session(&login, work).await
        })
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        Box::pin(async move {
            let (old, new) = (address_digest(from), address_digest(to));
            let (from, to) = (self.target(from)?, self.target(to)?);
            if from.login != to.login {
                return Err(TransferError::Refused {
                    found: "the names are of different servers or users".into(),
                    hint: "a file is renamed on its own server only".into(),
                });
            }
            let work = async |session: &mut _| change::rename(session, &from.path, &to.path).await;
            let renamed = self.with_session(&from.login, work).await?;
            if renamed == Renamed::Done {
                self.written.rename(&old, new);
            }
            Ok(renamed)
        })
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(async move {
            let Target { login, path } = self.target(address)?;
            let work = async |session: &mut _| change::remove(session, &path).await;
            self.with_session(&login, work).await
        })
    }
}
