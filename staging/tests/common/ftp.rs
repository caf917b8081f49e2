//! `ProFTPD`, and a proxy that cuts its transfers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use keelboat_staging::{FtpConfig, FtpProtocol};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{escaped, start, stop};

/// The servers, until the last test lets go of them.
#[derive(Debug)]
pub(crate) struct Ftp {
    dir: TempDir,
    values: BTreeMap<String, String>,
}

impl Ftp {
    /// The servers that all tests of this process share; `None`, said aloud, when something that
    /// they need is not installed.
    pub(crate) fn get() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Ftp>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(servers) = shared.upgrade() {
            return Some(servers);
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let values = start("ftp.sh", dir.path())?;
        let servers = Arc::new(Self { dir, values });
        *shared = Arc::downgrade(&servers);
        Some(servers)
    }

    /// What the script says of the servers: `FTP_URL` and so on.
    pub(crate) fn value(&self, key: &str) -> &str {
        self.values.get(key).unwrap_or_else(|| panic!("{key} is not among {:?}", self.values))
    }

    /// What reads from them and trusts them.
    pub(crate) fn protocol(&self) -> FtpProtocol {
        FtpProtocol::new(&self.config()).expect("a client")
    }

    pub(crate) fn config(&self) -> FtpConfig {
        FtpConfig { extra_ca: Some(self.value("FTP_CA").into()), ..FtpConfig::default() }
    }

    /// The address of a name at one of the servers, with user and password.
    pub(crate) fn address(&self, server: &str, name: &str) -> String {
        let url = self.value(server);
        let (scheme, host) = url.split_once("://").expect("a URL");
        let (user, password) = (self.value("FTP_USER"), self.value("FTP_PASSWORD"));
        let name: Vec<_> = name.split('/').map(escaped).collect();
        format!("{scheme}://{user}:{password}@{host}/{}", name.join("/"))
    }

    /// Where the user's files are.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(self.value("FTP_ROOT")).join("user").join(name)
    }

    /// A file of the user that was last changed long ago, and at another moment than all others.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, bytes).expect("a file");
        self.age(name);
    }

    /// Makes such a file look as if it had been changed long ago, at a moment of its own.
    pub(crate) fn age(&self, name: &str) {
        static MOMENT: AtomicU64 = AtomicU64::new(0);
        let day = Duration::from_hours(24);
        let moment = Duration::from_secs(MOMENT.fetch_add(1, Ordering::Relaxed));
        let file = std::fs::File::options().write(true).open(self.path(name)).expect("the file");
        file.set_modified(SystemTime::now() - day + moment).expect("a moment");
    }
}

impl Drop for Ftp {
    fn drop(&mut self) {
        stop("ftp.sh", self.dir.path());
    }
}

/// A way to a server on which each data connection ends after so many bytes.
#[derive(Debug)]
pub(crate) struct Cutter {
    pub(crate) port: u16,
    /// Data connections so far.
    pub(crate) transfers: Arc<AtomicU64>,
}

impl Cutter {
    /// In front of the server at this port.
    pub(crate) async fn before(server: u16, bytes_max: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let transfers = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&transfers);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay_commands(client, server, bytes_max, Arc::clone(&counted)));
            }
        });
        Self { port, transfers }
    }
}

/// Passes commands and answers on, with a port of its own in the place of the server's.
async fn relay_commands(
    client: TcpStream,
    server: u16,
    bytes_max: u64,
    transfers: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut commands, mut to_client) = client.into_split();
    let (answers, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut commands, &mut to_server).await });
    let mut answers = BufReader::new(answers).lines();
    while let Some(mut answer) = answers.next_line().await? {
        if let Some(port) = answer.strip_prefix("229 ").and_then(|text| text.split('|').nth(3)) {
            let port = port.parse().expect("a port");
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            answer = format!("229 here (|||{}|)", listener.local_addr()?.port());
            transfers.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(relay_data(listener, port, bytes_max));
        }
        to_client.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}

async fn relay_data(listener: TcpListener, port: u16, bytes_max: u64) -> std::io::Result<()> {
    let (mut client, _) = listener.accept().await?;
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let (mut down, mut up) = (from_server.take(bytes_max), from_client.take(bytes_max));
    // The side that sends ends first.
    tokio::select! {
        sent = tokio::io::copy(&mut down, &mut to_client) => sent?,
        sent = tokio::io::copy(&mut up, &mut to_server) => sent?,
    };
    Ok(())
}
