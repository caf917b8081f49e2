//! What `sftp:` does beyond what every protocol does, with OpenSSH's server.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use keelboat_engine::{Content, Digest, FailureClass, Kind};
use keelboat_staging::{
    BoxFuture, ByteStream, Condition, Credential, Credentials, Delivered, Delivery, Depth, Entry,
    FetchError, FetchRequest, Fetched, Forgetful, ListRequest, OpenRequest, Opened, Over, Proof,
    Protocol, PutRequest, Renamed, Secret, Sent, SftpConfig, SftpProtocol, Stager, TransferError,
    Turn, Validators, Writing,
};
use tokio_util::bytes::Bytes;

use super::conformance::sparse::sparse;
use super::conformance::{Place, conformance};
use crate::common::faulty::{Faulty, PutFault};
use crate::common::flaky::{Fault, Flaky};
use crate::common::small_disk::SmallDisk;
use crate::common::ssh::{Agent, Ssh};
use crate::common::{assert_arrived, config, noise, room};

/// Files of the conformance suite.
struct Files(Arc<Ssh>);

impl Place for Files {
    fn protocol(&self) -> Arc<dyn Protocol> {
        self.0.protocol()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        self.0.put(&format!("conformance {name}"), bytes)
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path(&format!("conformance {name}"))).expect("removed");
    }

    fn forbidden(&self) -> Option<String> {
        let address = self.0.put("forbidden", b"x");
        let path = self.0.path("forbidden");
        let mode = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(&path, mode).expect("a mode");
        // Root may read everything.
        std::fs::File::open(path).is_err().then_some(address)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.0.path(&format!("conformance {name}")))
    }

    fn environment(&self) -> Option<Vec<(String, String)>> {
        Some(self.0.environment())
    }
}

#[tokio::test]
async fn sftp_conforms_with_openssh() {
    let Some(ssh) = Ssh::get() else { return };
    conformance(Files(ssh)).await;
}

#[tokio::test]
#[ignore = "5 GiB"]
async fn sparse_files_come_from_openssh() {
    let Some(ssh) = Ssh::get() else { return };
    sparse(&Files(ssh)).await;
}

async fn fetch(protocol: Arc<dyn Protocol>, address: &str) -> Result<Arrived, FetchError> {
    let dir = room();
    let stager = Stager::with_protocols(config(dir.path()), vec![protocol], Vec::new());
    let fetched = stager.fetch(FetchRequest::new(address)).await?;
    Ok(Arrived { fetched, _dir: dir })
}

/// What came, with the directory that it is in.
#[derive(Debug)]
struct Arrived {
    fetched: Fetched,
    _dir: tempfile::TempDir,
}

impl Arrived {
    fn bytes(&self) -> Vec<u8> {
        let Fetched::New { path, .. } = &self.fetched else { panic!("a file was expected") };
        std::fs::read(path).expect("the file that came")
    }
}

async fn refusal(protocol: Arc<dyn Protocol>, address: &str) -> (String, String) {
    let error = fetch(protocol, address).await.expect_err("it is refused");
    assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    (error.to_string(), error.failure.hint.unwrap_or_default())
}

#[tokio::test]
async fn a_file_cut_a_hundred_times_comes_once() {
    let Some(ssh) = Ssh::get() else { return };
    let bytes = noise(40, 10_000_000);
    ssh.put("hundred", &bytes);
    let (proxy, protocol) = ssh.behind_proxy(Some(100_000));
    proxy.cut(100);
    let dir = room();
    let stager = Stager::with_protocols(config(dir.path()), vec![protocol], Vec::new());
    let address = ssh.address_at(proxy.port, "hundred");
    let transferred = assert_arrived(stager.fetch(FetchRequest::new(address)).await, &bytes);
    assert_eq!(transferred, 10_000_000, "no byte of the file is taken twice");
    assert_eq!(proxy.connections(), 101);
    // What a cut loses on the wire: the handshake, and the SSH packet that it fell into.
    assert!(proxy.passed() < 10_000_000 + 100 * 50_000, "{} bytes", proxy.passed());
    println!("{} bytes came over {} connections", proxy.passed(), proxy.connections());
}

#[tokio::test]
async fn a_source_that_changes_is_never_mixed() {
    let Some(ssh) = Ssh::get() else { return };
    let start = Instant::now();
    let dir = room();
    let protocol = ssh.protocol();
    for number in 0..1000_u64 {
        let (old, new) = (number % 250, number % 250 + 1);
        let of = |byte: u64| vec![u8::try_from(byte).expect("a byte"); 20_000];
        let address = ssh.put("changing", &of(old));
        let (server, bytes) = (Arc::clone(&ssh), of(new));
        let replace = move || drop(server.put("changing", &bytes));
        let faults = vec![Fault::Cut(number * 20, Box::new(replace))];
        let flaky: Arc<dyn Protocol> = Arc::new(Flaky::new(Arc::clone(&protocol) as _, faults));
        let stager = Stager::with_protocols(config(dir.path()), vec![flaky], Vec::new());
        let fetched = stager.fetch(FetchRequest::new(address)).await;
        assert_arrived(fetched, &of(if number * 20 < 20_000 { new } else { old }));
    }
    println!("1000 changes took {:?}", start.elapsed());
}

/// Does something after the first piece of the first opening.
struct Meddled {
    inner: Arc<dyn Protocol>,
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Meddled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddled")
    }
}

impl Protocol for Meddled {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).take();
            Ok(match self.inner.open(request).await? {
                Opened::Unchanged => Opened::Unchanged,
                Opened::Body { metadata, offset, stream } => {
                    Opened::Body { metadata, offset, stream: Box::new(MeddledStream(stream, hook)) }
                }
            })
        })
    }
}

struct MeddledStream(Box<dyn ByteStream>, Option<Box<dyn FnOnce() + Send>>);

impl ByteStream for MeddledStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let piece = self.0.next().await?;
            if let Some(hook) = self.1.take() {
                hook();
            }
            Ok(piece)
        })
    }
}

#[tokio::test]
async fn a_file_overwritten_where_it_is_read_comes_whole() {
    let Some(ssh) = Ssh::get() else { return };
    // What has been asked for at once is checked before its last byte is handed on.
    for (length, comes) in [(10_000_000, 2), (50_000, 1)] {
        let address = ssh.put("overwritten", &vec![1; length]);
        let (path, bytes) = (ssh.path("overwritten"), vec![2; length]);
        let hook = Mutex::new(Some(Box::new(move || {
            std::fs::write(path, bytes).expect("overwritten");
        }) as Box<dyn FnOnce() + Send>));
        let meddled = Arc::new(Meddled { inner: ssh.protocol(), hook });
        let arrived = fetch(meddled, &address).await.expect("it comes");
        assert!(arrived.bytes() == vec![comes; length], "one of both, and nothing of the other");
    }
}

async fn opened(protocol: &dyn Protocol, address: &str) -> Validators {
    let request = OpenRequest {
        address: address.into(),
        offset: 0,
        end: None,
        condition: Condition::Always,
        turn: Turn::default(),
    };
    match protocol.open(&request).await.expect("it opens") {
        Opened::Body { metadata, .. } => metadata.validators,
        Opened::Unchanged => panic!("nothing is known"),
    }
}

#[tokio::test]
async fn a_file_of_this_second_is_waited_for() {
    let Some(ssh) = Ssh::get() else { return };
    let protocol = ssh.protocol();
    let open = async |name: &str| opened(&*protocol, &ssh.address(name)).await;
    std::fs::write(ssh.path("fresh"), b"fresh").expect("a file");
    let written = SystemTime::now();
    let fresh = open("fresh").await;
    assert!(written.elapsed().expect("a clock") >= Duration::from_secs(1), "it waited");
    // The clock there may be behind: whether it changes once more is not told by such a moment.
    assert!(fresh.last_modified.is_some() && fresh.strong().is_none());
    let dir = room();
    let stager = Stager::with_protocols(config(dir.path()), vec![protocol.clone()], Vec::new());
    let fetched = stager.fetch(FetchRequest::new(ssh.address("fresh"))).await.expect("it comes");
    assert!(matches!(fetched, Fetched::New { last_modified: None, .. }), "{fetched:?}");
    let again = OpenRequest {
        address: ssh.address("fresh").into(),
        offset: 0,
        end: None,
        condition: Condition::IfChanged(fresh),
        turn: Turn::default(),
    };
    let again = protocol.open(&again).await.expect("it opens");
    assert!(matches!(again, Opened::Body { .. }), "{again:?}");
    // Files with an impossible time are not waited for, and nothing is built on them.
    let path = ssh.path("future");
    std::fs::write(&path, b"future").expect("a file");
    let file = std::fs::File::options().write(true).open(&path).expect("the file");
    file.set_modified(SystemTime::now() + Duration::from_secs(5000)).expect("a time");
    assert!(open("future").await.strong().is_none());
}

#[tokio::test]
async fn only_known_servers_are_talked_to() {
    let Some(ssh) = Ssh::get() else { return };
    let address = ssh.put("host", b"host");
    let port = ssh.value("SSH_PORT").to_owned();
    let dir = room();
    let with_known_hosts = |text: &str| -> Arc<dyn Protocol> {
        let file = dir.path().join("known_hosts");
        std::fs::write(&file, text).expect("a file");
        let config = SftpConfig { known_hosts: vec![file], ..ssh.config() };
        Arc::new(SftpProtocol::new(config, Credentials::default()))
    };
    let (cause, hint) = refusal(with_known_hosts(""), &address).await;
    assert!(cause.contains("is not known; it showed ssh-ed25519 SHA256:"), "{cause}");
    assert!(hint.contains(&format!("ssh-keyscan -p {port} 127.0.0.1 >> ")), "{hint}");

    let key = |name: &str| std::fs::read_to_string(ssh.key(name)).expect("a key");
    let line = |key: &str| format!("[127.0.0.1]:{port} {key}");
    let (cause, hint) = refusal(with_known_hosts(&line(&key("id.pub"))), &address).await;
    assert!(cause.contains("HAS CHANGED"), "{cause}");
    assert!(hint.contains("ssh-keygen -R '[127.0.0.1]:"), "{hint}");

    let revoked = format!("{}@revoked * {}", line(&key("host.pub")), key("host.pub"));
    let (cause, _) = refusal(with_known_hosts(&revoked), &address).await;
    assert!(cause.contains("revoked"), "{cause}");

    // The server shows the kind of key that is known.
    let known = with_known_hosts(&line(&key("host_ecdsa.pub")));
    assert_eq!(fetch(known, &address).await.expect("it comes").bytes(), b"host");

    drop(with_known_hosts(&line(&key("host.pub"))));
    let file = dir.path().join("known_hosts");
    let hash = Command::new("ssh-keygen").arg("-Hqf").arg(&file).output();
    assert!(hash.expect("ssh-keygen").status.success());
    let hashed = std::fs::read_to_string(&file).expect("a file");
    assert!(hashed.starts_with("|1|"), "{hashed}");
    let known = with_known_hosts(&hashed);
    assert_eq!(fetch(known, &address).await.expect("it comes").bytes(), b"host");
}

#[tokio::test]
async fn keys_log_in() {
    let Some(ssh) = Ssh::get() else { return };
    let address = ssh.put("login", b"login");
    let entry = |key: &str, passphrase: Option<&str>| {
        let passphrase = passphrase.map(Secret::new);
        ssh.protocol_with(Credential {
            key_file: Some(ssh.key(key)),
            passphrase,
            ..Credential::default()
        })
    };
    for (key, passphrase) in [("id", None), ("id_ecdsa", None), ("id_locked", Some("secret"))] {
        let arrived = fetch(entry(key, passphrase), &address).await.expect("it comes");
        assert_eq!(arrived.bytes(), b"login", "{key}");
    }
    let (cause, hint) = refusal(entry("id_locked", None), &address).await;
    assert!(cause.contains("encrypted") && hint.contains("`passphrase`"), "{cause}: {hint}");
    let (cause, _) = refusal(entry("id_locked", Some("wrong-and-secret")), &address).await;
    assert!(cause.contains("id_locked") && !cause.contains("wrong-and-secret"), "{cause}");
    let (cause, hint) = refusal(entry("id_stranger", None), &address).await;
    assert!(cause.contains("does not let in") && cause.contains("id_stranger"), "{cause}");
    assert!(hint.contains("ssh-add"), "{hint}");
    let (cause, hint) = refusal(entry("id_rsa", None), &address).await;
    assert!(cause.contains("RSA") && hint.contains("agent"), "{cause}: {hint}");
    let (cause, _) = refusal(entry("not-there", None), &address).await;
    assert!(cause.contains("not-there"), "{cause}");
    let password = address.replace("sftp://", "sftp://somebody:hunter2@");
    let (cause, _) = refusal(ssh.protocol(), &password).await;
    assert!(cause.contains("\"somebody\"") && !cause.contains("hunter2"), "{cause}");
}

#[tokio::test]
async fn the_agent_logs_in() {
    let Some(ssh) = Ssh::get() else { return };
    let address = ssh.put("agent", b"agent");
    for key in ["id", "id_rsa"] {
        let dir = room();
        let agent = Agent::start(dir.path(), &ssh.key(key));
        let config =
            SftpConfig { agent: Some(agent.socket.clone()), key_files: Vec::new(), ..ssh.config() };
        let protocol = Arc::new(SftpProtocol::new(config.clone(), Credentials::default()));
        assert_eq!(fetch(protocol, &address).await.expect("it comes").bytes(), b"agent");
        drop(agent);
        let protocol = Arc::new(SftpProtocol::new(config, Credentials::default()));
        let (cause, _) = refusal(protocol, &address).await;
        assert!(cause.contains("the agent (it does not answer"), "{cause}");
    }
}

fn put_request(address: &str, source: &Path, bytes: &[u8]) -> PutRequest {
    std::fs::write(source, bytes).expect("a file");
    let digest = Digest::of(bytes);
    let content = Content { digest, bytes: bytes.len() as u64, kind: Kind::File };
    let (address, source) = (address.into(), source.to_owned());
    PutRequest { address, source, content, resume: false, sent: Sent::default() }
}

#[tokio::test]
async fn files_are_written_renamed_and_read_back() {
    let Some(ssh) = Ssh::get() else { return };
    let protocol = ssh.protocol();
    assert_eq!(protocol.writing(), Writing::Renamed);
    let dir = room();
    for (number, length) in [0, 1, 5_000_001].into_iter().enumerate() {
        let bytes = noise(50, length);
        let name = format!("out {number}/a b/%#?.part");
        let request = put_request(&ssh.address(&name), &dir.path().join("source"), &bytes);
        assert_eq!(protocol.put(&request).await, Ok(Proof::Unchecked));
        assert_eq!(request.sent.get(), length as u64);
        let start = Instant::now();
        let back = fetch(Arc::clone(&protocol) as _, &ssh.address(&name)).await.expect("it comes");
        assert!(back.bytes() == bytes);
        assert!(start.elapsed() < Duration::from_secs(1), "what we wrote is not waited for");
        let to = ssh.address(&format!("out {number}/final"));
        for round in 0..2 {
            protocol.rename(&request.address, &to).await.expect("renamed");
            let found = std::fs::read(ssh.path(&format!("out {number}/final"))).expect("a file");
            assert!(found == bytes, "round {round}");
            assert!(!ssh.path(&name).exists());
            protocol.put(&request).await.expect("once more, to be renamed over the old one");
        }
    }
    let elsewhere = ssh.address("x").replace("sftp://", "sftp://other@");
    let error = protocol.rename(&ssh.address("out 0/final"), &elsewhere).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Permanent, "{error}");
}

/// Equal steps are steps, though there are more of them than tries.
#[tokio::test]
async fn a_delivery_that_advances_is_not_given_up() {
    let Some(ssh) = Ssh::get() else { return };
    let dir = room();
    let config = config(dir.path());
    let cuts = usize::try_from(config.retry.tries_max).expect("a number") + 2;
    let faulty = Arc::new(Faulty::new(ssh.protocol(), vec![PutFault::Cut(4_500_000); cuts]));
    let stager = Stager::with_protocols(config, vec![faulty.clone()], Vec::new());
    let bytes = noise(54, 48_000_000);
    let request = put_request(&ssh.address("steps"), &dir.path().join("source"), &bytes);
    let (source, content, address) = (request.source, request.content, request.address);
    let delivery = Delivery { source, content, address, over: Over::Same, progress: None };
    assert_eq!(stager.deliver(delivery, Forgetful).await, Ok(Delivered::Copied));
    assert_eq!(faulty.puts(), cuts + 1);
    assert!(std::fs::read(ssh.path("steps")).expect("the file") == bytes);
}

#[tokio::test]
async fn a_put_goes_on_where_it_was_cut() {
    let Some(ssh) = Ssh::get() else { return };
    let protocol = ssh.protocol();
    let dir = room();
    let bytes = noise(51, 12_000_000);
    let address = ssh.put("half", &bytes[..10_000_000]);
    let mut request = put_request(&address, &dir.path().join("source"), &bytes);
    request.resume = true;
    protocol.put(&request).await.expect("written");
    assert!(std::fs::read(ssh.path("half")).expect("a file") == bytes);
    let sent = request.sent.get();
    assert!((2_000_000..7_000_000).contains(&sent), "{sent} bytes sent for 2000000");
    // What is longer than the file is no part of it.
    ssh.put("half", &vec![7; 13_000_000]);
    protocol.put(&request).await.expect("written");
    assert!(std::fs::read(ssh.path("half")).expect("a file") == bytes);
    request.resume = false;
    ssh.put("half", &vec![7; 10_000_000]);
    protocol.put(&request).await.expect("written");
    assert!(std::fs::read(ssh.path("half")).expect("a file") == bytes);
    request.content.bytes += 1;
    let error = protocol.put(&request).await.unwrap_err();
    assert!(error.to_string().contains("changed while it was sent"), "{error}");
}

#[tokio::test]
async fn executables_stay_so() {
    let Some(ssh) = Ssh::get() else { return };
    let dir = room();
    let mode = |name| ssh.path(name).metadata().expect("a file").permissions().mode() & 0o111;
    let source = dir.path().join("source");
    let request = put_request(&ssh.address("plain"), &source, b"plain");
    ssh.protocol().put(&request).await.expect("written");
    assert_eq!(mode("plain"), 0);
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    for name in ["tool", "plain"] {
        let request = put_request(&ssh.address(name), &source, b"#!/bin/sh");
        ssh.protocol().put(&request).await.expect("written");
        assert_ne!(mode(name), 0, "{name}");
    }
}

#[tokio::test]
async fn directories_are_listed_and_removed() {
    let Some(ssh) = Ssh::get() else { return };
    let protocol = ssh.protocol();
    let keep = ssh.put("keep/inside", b"x");
    for name in ["a", "b/c d", "b/e/f%?#", "b/e/naïve\n日本"] {
        ssh.put(&format!("tree/{name}"), name.as_bytes());
    }
    std::fs::create_dir_all(ssh.path("tree/empty")).expect("a directory");
    std::os::unix::fs::symlink("a", ssh.path("tree/link")).expect("a link");
    std::os::unix::fs::symlink("nowhere", ssh.path("tree/dangling")).expect("a link");
    let list = async |depth| {
        let request = ListRequest { address: ssh.address("tree").into(), depth };
        let mut entries = protocol.list(&request).await?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok::<Vec<Entry>, TransferError>(entries)
    };
    let entries = list(Depth::All).await.expect("a listing");
    let paths: Vec<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["a", "b", "b/c d", "b/e", "b/e/f%?#", "b/e/naïve\n日本", "empty", "link"]);
    let kinds: Vec<_> = entries.iter().filter(|entry| entry.kind == Kind::Directory).collect();
    assert_eq!(kinds.len(), 3);
    let listed = entries.iter().find(|entry| entry.path == "b/e/f%?#").expect("a file");
    assert_eq!(listed.length, Some(8));
    assert_eq!(listed.validators, opened(&*protocol, &ssh.address("tree/b/e/f%?#")).await);

    std::os::unix::fs::symlink("../keep", ssh.path("tree/out")).expect("a link");
    let one = list(Depth::One).await.expect("a listing");
    let paths: Vec<_> = one.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["a", "b", "empty", "link", "out"]);
    let error = list(Depth::All).await.expect_err("it may lead in a circle");
    assert!(error.to_string().contains("\"out\" is a link to a directory"), "{error}");

    protocol.remove(&ssh.address("tree/")).await.expect("removed");
    assert!(!ssh.path("tree").exists());
    assert!(ssh.path("keep/inside").exists(), "links are not followed");
    protocol.remove(&ssh.address("tree")).await.expect("it is gone already");
    protocol.remove(&keep).await.expect("removed");
    assert!(!ssh.path("keep/inside").exists());
    let request = ListRequest { address: ssh.address("tree").into(), depth: Depth::One };
    let missing = protocol.list(&request).await.expect_err("it is gone");
    assert_eq!(missing.class(), FailureClass::InputMissing, "{missing}");
    let (cause, _) = refusal(protocol, &ssh.address("keep")).await;
    assert!(cause.contains("not a regular file"), "{cause}");
}

#[tokio::test]
async fn no_directory_is_renamed_over_another() {
    let Some(ssh) = Ssh::get() else { return };
    ssh.put("new dir/x", b"new");
    ssh.put("old dir/y/z", b"old");
    let protocol = ssh.protocol();
    let renamed = protocol.rename(&ssh.address("new dir"), &ssh.address("old dir")).await;
    assert!(matches!(renamed, Ok(Renamed::InTheWay(_))), "{renamed:?}");
    let error = protocol.rename(&ssh.address("no dir"), &ssh.address("old dir")).await;
    assert!(matches!(error, Err(TransferError::Missing { .. })), "{error:?}");
    assert!(ssh.path("old dir/y/z").exists(), "nothing is lost");
    let renamed = protocol.rename(&ssh.address("new dir"), &ssh.address("deep/er/dir")).await;
    assert_eq!(renamed, Ok(Renamed::Done));
    assert_eq!(std::fs::read(ssh.path("deep/er/dir/x")).expect("a file"), b"new");
}

#[tokio::test]
async fn one_connection_serves_many_files_and_is_made_anew() {
    let Some(ssh) = Ssh::get() else { return };
    let (proxy, protocol) = ssh.behind_proxy(None);
    let fetch_all = async || {
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                ssh.put(&format!("many{number}"), &noise(number, 100_000));
                let address = ssh.address_at(proxy.port, &format!("many{number}"));
                let protocol = Arc::clone(&protocol) as Arc<dyn Protocol>;
                tokio::spawn(async move { fetch(protocol, &address).await })
            })
            .collect();
        for (task, number) in tasks.into_iter().zip(0..) {
            let arrived = task.await.expect("no panic").expect("it comes");
            assert!(arrived.bytes() == noise(number, 100_000));
        }
    };
    fetch_all().await;
    assert_eq!(proxy.connections(), 1);
    proxy.end_all();
    fetch_all().await;
    assert_eq!(proxy.connections(), 2, "a new one, as the first one is gone");
}

#[tokio::test]
async fn a_server_with_one_session_serves_many_in_turn() {
    let Some(ssh) = Ssh::get() else { return };
    let protocol = ssh.protocol();
    let port = ssh.value("SSH_OTHER_PORT").parse().expect("a port");
    let tasks: Vec<_> = (0..6)
        .map(|number| {
            ssh.put(&format!("turn{number}"), b"turn");
            let address = ssh.address_at(port, &format!("turn{number}"));
            let protocol = Arc::clone(&protocol) as Arc<dyn Protocol>;
            tokio::spawn(async move { fetch(protocol, &address).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic").expect("it comes").bytes(), b"turn");
    }
    let home = format!("sftp://127.0.0.1:{port}/~/turn3");
    assert_eq!(fetch(protocol, &home).await.expect("it comes").bytes(), b"turn");
}

/// Servers of long ago have no other.
#[tokio::test]
async fn a_server_with_rsa_alone_is_refused_with_what_to_do() {
    let Some(ssh) = Ssh::get() else { return };
    let port = ssh.start_with(&["id_rsa"]);
    let error = fetch(ssh.protocol_at(port.number), &ssh.address_at(port.number, "any")).await;
    let error = error.map(|_| ()).expect_err("it has no key that can be checked");
    let (said, hint) = (error.to_string(), error.failure.hint.expect("what to do"));
    assert!(said.contains("rsa-sha2-512"), "{said}");
    assert!(hint.contains("ssh-keygen -A") && hint.contains("ssh-keyscan"), "{hint}");
    assert_eq!(error.failure.class, FailureClass::Permanent, "{said}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let Some(ssh) = Ssh::get() else { return };
    let (proxy, protocol) = ssh.behind_proxy(None);
    ssh.put("silent", &noise(60, 1000));
    let address = ssh.address_at(proxy.port, "silent");
    fetch(Arc::clone(&protocol) as _, &address).await.expect("it comes");
    proxy.hold();
    let dir = room();
    let mut config = config(dir.path());
    config.http.connect_timeout = Duration::from_millis(100);
    config.first_byte_timeout = Duration::from_millis(300);
    config.retry.tries_max = 2;
    let stager = Stager::with_protocols(config, vec![protocol], Vec::new());
    let error = stager.fetch(FetchRequest::new(address)).await.expect_err("nothing comes");
    assert_eq!(error.failure.class, FailureClass::Transient, "{error}");
    assert!(error.to_string().contains("nothing came for"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_one() {
    let Some(ssh) = Ssh::get() else { return };
    let Some(disk) = SmallDisk::mount(ssh.path("small"), 1) else { return };
    let dir = room();
    let source = dir.path().join("source");
    let request = put_request(&ssh.address("small/file"), &source, &noise(61, 9_000_000));
    let error = ssh.protocol().put(&request).await.expect_err("there is no space");
    drop(disk);
    assert_eq!(error.class(), FailureClass::Permanent, "{error}");
    assert!(error.to_string().contains("no space left at the server"), "{error}");
    assert!(request.sent.get() < 2_000_000, "what was not taken is not counted");
}
