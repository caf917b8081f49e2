//! One control connection, logged in, and the data connections beside it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use suppaftp::tokio::{AsyncRustlsFtpStream, AsyncRustlsStream, TransferStream};
use suppaftp::{Encoding, FtpError, FtpResult, Mode, Status, Utf8Encoding};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::{Login, Security};
use super::reply::{Reply, failure};
use super::tls::{Tls, Version};
use crate::credentials::Secret;
use crate::protocol::connect::connect_any;
use crate::protocol::{AddressPolicy, TransferError};

/// What goes over the wire as the argument of `PASS`. The library logs commands at a low level
/// before they are encoded, so the password takes its place only there.
const PASSWORD_STANDS_HERE: &str = "...";

/// Bytes on a data connection.
pub(super) type Data = TransferStream<AsyncRustlsStream>;

/// A connection that is logged in and moves bytes as they are.
pub(super) struct Session {
    ftp: AsyncRustlsFtpStream,
    /// What the server says that it can do, a line each, in capitals.
    features: Vec<String>,
    /// Whether EPSV is to be used: not any more after the server refused it.
    is_extended: bool,
    /// The directory of the login, once it was asked for.
    pub(super) home: Option<String>,
    /// Whether the last transfer came as far as a data connection.
    has_data: Arc<AtomicBool>,
}

impl Session {
    /// Connects and logs in, over TLS if the address or the server wants it.
    pub(super) async fn open(
        login: &Login,
        tls: &Tls,
        connect_timeout: Duration,
        policy: AddressPolicy,
    ) -> Result<Self, TransferError> {
        let opening = Opening { login, tls, connect_timeout, policy };
        let mut session = opening.connect(login.security).await?;
        if let Err(reply) = session.log_in(login).await? {
            if login.security != Security::OnDemand || !reply.demands_tls() {
                return Err(without(&login.password, &reply).refusal());
            }
            session = opening.connect(Security::Explicit).await?;
            let again = session.log_in(login).await?;
            again.map_err(|reply| without(&login.password, &reply).refusal())?;
        }
        session.learn().await?;
        Ok(session)
    }

    /// Sends one line and gives the whole answer to it, whatever it is.
    pub(super) async fn command(&mut self, line: &str) -> Result<Reply, TransferError> {
        // No answer is expected, so that each is given back as it is, all its lines.
        match self.ftp.custom_command(line, &[]).await {
            Ok(response) | Err(FtpError::UnexpectedResponse(response)) => {
                Ok(Reply::from(response).to(line))
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// Whether the server still answers; bytes are moved as they are from here on.
    pub(super) async fn reset(&mut self) -> Result<(), TransferError> {
        let reply = self.command("TYPE I").await?;
        if reply.is_success() { Ok(()) } else { Err(reply.refusal()) }
    }

    /// Whether the server says that it has this feature.
    pub(super) fn has(&self, feature: &str) -> bool {
        let is_it = |line: &String| line.split_whitespace().next() == Some(feature);
        self.features.iter().any(is_it)
    }

    /// What the server says of this feature.
    pub(super) fn feature(&self, feature: &str) -> Option<&str> {
        self.features.iter().find_map(|line| line.strip_prefix(feature)?.strip_prefix(' '))
    }

    /// Begins a transfer.
    ///
    /// `Err` inside is an answer that refuses; the session can be used further.
    pub(super) async fn begin(
        &mut self,
        transfer: Transfer<'_>,
    ) -> Result<Result<Data, Reply>, TransferError> {
        loop {
            self.has_data.store(false, Ordering::Relaxed);
            let offset = usize::try_from(transfer.offset()).unwrap_or(usize::MAX);
            self.ftp.resume_transfer(offset).await.map_err(failure)?;
            let begun = match transfer {
                Transfer::Command(line) | Transfer::Read(line, _) => {
                    let expected = [Status::AboutToSend, Status::AlreadyOpen];
                    self.ftp.custom_data_command(line, &expected).await.map(|(_, data)| data)
                }
                Transfer::Write(path, _) => self.ftp.put_with_stream(path).await,
                Transfer::Append(path) => self.ftp.append_with_stream(path).await,
            };
            let reply = match begun {
                Ok(data) => return Ok(Ok(data)),
                Err(FtpError::UnexpectedResponse(response)) => {
                    Reply::from(response).to(&transfer.command())
                }
                Err(error) => return Err(failure(error)),
            };
            // 229 without a port that can be read is as good as a refusal.
            let knows_epsv = !reply.is_unsupported() && reply.code != 229;
            if self.has_data.load(Ordering::Relaxed) || !self.is_extended || knows_epsv {
                return Ok(Err(reply));
            }
            self.is_extended = false;
            self.ftp.set_mode(Mode::Passive);
        }
    }

    /// Closes the data connection and reads what the server says of the transfer.
    pub(super) async fn end(data: Data) -> Result<Result<(), Reply>, TransferError> {
        match data.finish().await {
            Ok(()) => Ok(Ok(())),
            Err(FtpError::UnexpectedResponse(response)) => Ok(Err(response.into())),
            Err(error) => Err(failure(error)),
        }
    }

    async fn log_in(&mut self, login: &Login) -> Result<Result<(), Reply>, TransferError> {
        let reply = self.command(&format!("USER {}", login.user)).await?;
        if reply.is_success() {
            return Ok(Ok(()));
        }
        if reply.code != 331 {
            return Ok(Err(reply));
        }
        self.ftp.set_encoding(WithPassword(login.password.clone())).await;
        let reply = self.command(&format!("PASS {PASSWORD_STANDS_HERE}")).await?;
        self.ftp.set_encoding(Utf8Encoding).await;
        Ok(if reply.is_success() { Ok(()) } else { Err(reply) })
    }

    async fn learn(&mut self) -> Result<(), TransferError> {
        let reply = self.command("FEAT").await?;
        if reply.is_success() {
            let lines = reply.text.lines().map(|line| line.trim().to_ascii_uppercase());
            self.features = lines.collect();
        }
        if self.has("UTF8") {
            // Servers that need no asking may refuse.
            self.command("OPTS UTF8 ON").await?;
        }
        self.reset().await
    }
}

/// What is to go over a data connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Transfer<'a> {
    /// What this command line sends.
    Command(&'a str),
    /// What this command line sends of a file, from an offset on.
    Read(&'a str, u64),
    /// To this file, from an offset on.
    Write(&'a str, u64),
    /// To the end of this file.
    Append(&'a str),
}

impl Transfer<'_> {
    /// The line, or one with the same argument.
    fn command(&self) -> String {
        match self {
            Self::Command(line) | Self::Read(line, _) => (*line).to_owned(),
            Self::Write(path, _) | Self::Append(path) => format!("STOR {path}"),
        }
    }

    const fn offset(self) -> u64 {
        match self {
            Self::Read(_, offset) | Self::Write(_, offset) => offset,
            Self::Command(_) | Self::Append(_) => 0,
        }
    }
}

/// What is known while a connection is made.
struct Opening<'a> {
    login: &'a Login,
    tls: &'a Tls,
    connect_timeout: Duration,
    policy: AddressPolicy,
}

impl Opening<'_> {
    async fn connect(&self, security: Security) -> Result<Session, TransferError> {
        match self.connect_by(security, Version::Tls12).await {
            Err(TransferError::Unreachable { found }) if found.contains("ProtocolVersion") => {
                self.connect_by(security, Version::Tls13).await
            }
            connected => connected,
        }
    }

    async fn connect_by(
        &self,
        security: Security,
        version: Version,
    ) -> Result<Session, TransferError> {
        let addresses = self.resolve().await?;
        let host = &self.login.host;
        let ftp = match security {
            Security::Implicit => {
                let connector = self.tls.connector(version)?;
                let connected = async {
                    let address = reachable(&addresses).await?;
                    AsyncRustlsFtpStream::connect_secure_implicit(address, connector, host).await
                };
                self.in_time(connected).await?
            }
            Security::OnDemand | Security::Explicit => {
                let connected = connect_any(&addresses);
                let connected = async { connected.await.map_err(FtpError::ConnectionError) };
                let stream = self.in_time(connected).await?;
                AsyncRustlsFtpStream::connect_with_stream(stream).await.map_err(failure)?
            }
        };
        let mut session = self.session(ftp).await?;
        match security {
            Security::OnDemand => {}
            Security::Explicit => {
                let secured = session.ftp.into_secure(self.tls.connector(version)?, host);
                session.ftp = self.in_time(secured).await?;
            }
            Security::Implicit => {
                for line in ["PBSZ 0", "PROT P"] {
                    let reply = session.command(line).await?;
                    if !reply.is_success() {
                        return Err(reply.refusal());
                    }
                }
            }
        }
        Ok(session)
    }

    /// Where the server is.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, TransferError> {
        let found = tokio::net::lookup_host((&*self.login.host, self.login.port));
        let found = async { found.await.map_err(FtpError::ConnectionError) };
        self.policy.admitted(&self.login.host, self.in_time(found).await?.collect())
    }

    async fn session(&self, mut ftp: AsyncRustlsFtpStream) -> Result<Session, TransferError> {
        let peer = {
            let socket = ftp.get_ref().await;
            // A router forgets connections that are silent while a long file comes beside them.
            let kept = setsockopt(&*socket, sockopt::KeepAlive, &true);
            let kept = kept.and_then(|()| setsockopt(&*socket, sockopt::TcpKeepIdle, &60));
            if let Err(error) = kept {
                tracing::debug!(%error, "a connection is not kept alive");
            }
            let peer = socket.set_nodelay(true).and_then(|()| socket.peer_addr());
            peer.map_err(|error| failure(FtpError::ConnectionError(error)))?
        };
        let has_data = Arc::new(AtomicBool::new(false));
        let (seen, patience) = (Arc::clone(&has_data), self.connect_timeout);
        ftp.set_mode(Mode::ExtendedPassive);
        let ftp = ftp.passive_stream_builder(move |address| {
            seen.store(true, Ordering::Relaxed);
            // Whatever address the server names: its data comes from itself.
            let address = SocketAddr::new(peer.ip(), address.port());
            Box::pin(connect_data(address, patience))
        });
        Ok(Session { ftp, features: Vec::new(), is_extended: true, home: None, has_data })
    }

    async fn in_time<T>(
        &self,
        step: impl Future<Output = FtpResult<T>>,
    ) -> Result<T, TransferError> {
        match timeout(self.connect_timeout, step).await {
            Ok(done) => done.map_err(failure),
            Err(_elapsed) => Err(TransferError::Stalled {
                waited: self.connect_timeout,
                phase: "while the connection was made".into(),
            }),
        }
    }
}

/// The address that answers. The library takes no connection for implicit TLS that it did not make.
async fn reachable(addresses: &[SocketAddr]) -> FtpResult<SocketAddr> {
    match addresses {
        [only] => Ok(*only),
        several => {
            let connected = connect_any(several).await.and_then(|connected| connected.peer_addr());
            connected.map_err(FtpError::ConnectionError)
        }
    }
}

async fn connect_data(address: SocketAddr, patience: Duration) -> FtpResult<TcpStream> {
    let failed = |kind, cause: &dyn std::fmt::Display| {
        let port = address.port();
        let found = format!("no data connection to port {port} of the server: {cause}");
        FtpError::ConnectionError(io::Error::new(kind, found))
    };
    match timeout(patience, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| failed(error.kind(), &error)),
        Err(elapsed) => Err(failed(io::ErrorKind::TimedOut, &elapsed)),
    }
}

/// An answer that may repeat the password, without it.
fn without(password: &Secret, reply: &Reply) -> Reply {
    let text = match password.reveal() {
        "" => reply.text.clone(),
        password => reply.text.replace(password, "..."),
    };
    Reply { code: reply.code, text }
}

/// Puts the password in its place on the wire.
#[derive(Debug)]
struct WithPassword(Secret);

impl Encoding for WithPassword {
    fn decode(&self, bytes: &[u8]) -> String {
        Utf8Encoding.decode(bytes)
    }

    fn encode(&self, text: &str) -> io::Result<Vec<u8>> {
        Utf8Encoding.encode(&text.replace(PASSWORD_STANDS_HERE, self.0.reveal()))
    }
}
