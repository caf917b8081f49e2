//! An SSH server, what is in its way, and an agent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use keelboat_staging::{Credential, Credentials, SftpConfig, SftpProtocol};
use tempfile::TempDir;

use super::{escaped, start, stop};

/// OpenSSH's sshd, until the last test lets go of it.
#[derive(Debug)]
pub(crate) struct Ssh {
    dir: TempDir,
    values: BTreeMap<String, String>,
}

impl Ssh {
    /// The server that all tests of this process share; `None`, said aloud: it is not installed.
    pub(crate) fn get() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Ssh>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let values = start("sshd.sh", dir.path())?;
        let server = Arc::new(Self { dir, values });
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    pub(crate) fn value(&self, key: &str) -> &str {
        self.values.get(key).unwrap_or_else(|| panic!("{key} is not among {:?}", self.values))
    }

    /// A key of a user: `id`, `id_ecdsa`, `id_rsa`, `id_locked`, and `id_stranger`, which the
    /// server does not know.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        Path::new(self.value("SSH_KEYS")).join(name)
    }

    /// Where a file of this name is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(self.value("SSH_ROOT")).join("data").join(name)
    }

    /// Puts a file there, last changed an hour ago or so, never twice in the same second.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> String {
        static CHANGES: AtomicU64 = AtomicU64::new(0);
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        let change = CHANGES.fetch_add(1, Ordering::Relaxed);
        let modified =
            SystemTime::now() - Duration::from_secs(1_000_000) + Duration::from_secs(change);
        let new = path.with_file_name(format!(".new{change}"));
        std::fs::write(&new, bytes).expect("a file");
        let file = std::fs::File::options().write(true).open(&new).expect("the file");
        file.set_modified(modified).expect("a time");
        std::fs::rename(&new, &path).expect("in its place");
        self.address(name)
    }

    pub(crate) fn address(&self, name: &str) -> String {
        self.address_at(self.value("SSH_PORT").parse().expect("a port"), name)
    }

    /// Its address at another port.
    pub(crate) fn address_at(&self, port: u16, name: &str) -> String {
        let path = self.path(name);
        let path = path.to_str().expect("text").split('/').map(escaped).collect::<Vec<_>>();
        format!("sftp://127.0.0.1:{port}{}", path.join("/"))
    }

    /// Its own keys and known hosts, none of those of who runs the tests.
    pub(crate) fn config(&self) -> SftpConfig {
        SftpConfig {
            connect_timeout: Duration::from_secs(20),
            known_hosts: vec![self.value("SSH_KNOWN_HOSTS").into()],
            key_files: vec![self.key("id")],
            agent: None,
            user: Some(self.value("SSH_USER").to_owned()),
            ..SftpConfig::default()
        }
    }

    /// The variables with which another process logs in: a home of its own.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let home = self.dir.path().join("home");
        let own = home.join(".ssh");
        std::fs::create_dir_all(&own).expect("a directory");
        std::fs::copy(self.value("SSH_KNOWN_HOSTS"), own.join("known_hosts")).expect("a copy");
        std::fs::copy(self.key("id"), own.join("id_ed25519")).expect("a copy");
        let home = home.to_str().expect("text").to_owned();
        vec![
            ("HOME".to_owned(), home),
            ("USER".to_owned(), self.value("SSH_USER").to_owned()),
            ("SSH_AUTH_SOCK".to_owned(), String::new()),
        ]
    }

    pub(crate) fn protocol(&self) -> Arc<SftpProtocol> {
        Arc::new(SftpProtocol::new(self.config(), Credentials::default()))
    }

    /// What logs in by an entry for this server.
    pub(crate) fn protocol_with(&self, entry: Credential) -> Arc<SftpProtocol> {
        let scope = format!("sftp://127.0.0.1:{}", self.value("SSH_PORT"));
        let credentials = Credentials::new([Credential { scope, ..entry }]);
        let config = SftpConfig { key_files: Vec::new(), ..self.config() };
        Arc::new(SftpProtocol::new(config, credentials))
    }

    /// A proxy in front of the server, and known hosts that name the server's key for it.
    pub(crate) fn behind_proxy(&self, allowance: Option<u64>) -> (Proxy, Arc<SftpProtocol>) {
        let server = format!("127.0.0.1:{}", self.value("SSH_PORT"));
        let proxy = Proxy::start(server, allowance);
        let protocol = self.protocol_at(proxy.port);
        (proxy, protocol)
    }

    /// A further server, with these host keys alone, until it is dropped.
    pub(crate) fn start_with(&self, keys: &[&str]) -> FurtherServer {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let number = free.expect("a port").port();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-f", "/dev/null", "-o", "PidFile=none", "-o", "StrictModes=no"]);
        command.args(["-o", &format!("ListenAddress=127.0.0.1:{number}")]);
        for key in keys {
            command.arg("-h").arg(self.key(key));
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sshd");
        let server = FurtherServer { number, child };
        wait_until(|| TcpStream::connect(("127.0.0.1", number)).is_ok());
        server
    }

    /// What knows the server by another port, too.
    pub(crate) fn protocol_at(&self, port: u16) -> Arc<SftpProtocol> {
        let key = std::fs::read_to_string(self.key("host.pub")).expect("a key");
        let known_hosts = self.dir.path().join(format!("known_hosts.{port}"));
        std::fs::write(&known_hosts, format!("[127.0.0.1]:{port} {key}")).expect("a file");
        let config = SftpConfig { known_hosts: vec![known_hosts], ..self.config() };
        Arc::new(SftpProtocol::new(config, Credentials::default()))
    }
}

/// A server of one test.
#[derive(Debug)]
pub(crate) struct FurtherServer {
    pub(crate) number: u16,
    child: Child,
}

impl Drop for FurtherServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        stop("sshd.sh", self.dir.path());
    }
}

/// Passes bytes on, and may cut or hold what comes from the server.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<ProxyState>,
}

#[derive(Debug)]
struct ProxyState {
    /// Bytes from the server before a connection is cut.
    allowance: Option<u64>,
    /// Cuts that are still to come.
    cuts_left: AtomicU64,
    /// Bytes from the server in all.
    passed: AtomicU64,
    connections: AtomicU64,
    is_held: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    fn start(server: String, allowance: Option<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(ProxyState {
            allowance,
            cuts_left: AtomicU64::new(u64::MAX),
            passed: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
            sockets: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        // Ends with the process: nobody connects to it any more.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(&server) else { return };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.pass(client, upstream);
            }
        });
        Self { port, state }
    }

    /// From now on so many connections are cut, and no more.
    pub(crate) fn cut(&self, times: u64) {
        self.state.cuts_left.store(times, Ordering::SeqCst);
    }

    /// Nothing of what the server says is passed on any more.
    pub(crate) fn hold(&self) {
        self.state.is_held.store(true, Ordering::SeqCst);
    }

    /// Ends all connections that there are.
    pub(crate) fn end_all(&self) {
        let mut sockets = self.state.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in sockets.drain(..) {
            socket.shutdown(Shutdown::Both).expect("an open socket");
        }
    }

    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl ProxyState {
    fn pass(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let socket = client.try_clone().expect("a socket");
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
        let (mut from, mut to) =
            (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        std::thread::spawn(move || {
            // It ends when one side does, which is what it is for.
            drop(std::io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Both));
        });
        let state = Arc::clone(self);
        std::thread::spawn(move || state.pass_down(server, client));
    }

    fn pass_down(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut left = self.allowance.unwrap_or(u64::MAX);
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = server.read(&mut buffer) {
            while self.is_held.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(read);
            let fewer = |left: u64| left.checked_sub(1);
            let cuts = room < read
                && self.cuts_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok();
            let passed = if cuts { room } else { read };
            left = left.saturating_sub(passed as u64);
            self.passed.fetch_add(passed as u64, Ordering::SeqCst);
            if client.write_all(&buffer[..passed]).is_err() || cuts {
                break;
            }
        }
        drop(client.shutdown(Shutdown::Both));
        drop(server.shutdown(Shutdown::Both));
    }
}

/// An agent of OpenSSH.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Agent {
    /// With this key.
    pub(crate) fn start(dir: &Path, key: &Path) -> Self {
        let socket = dir.join("agent");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ssh-agent");
        let agent = Self { child, socket };
        wait_until(|| agent.socket.exists());
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.socket);
        assert!(add.status().expect("ssh-add").success());
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "what was waited for did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
