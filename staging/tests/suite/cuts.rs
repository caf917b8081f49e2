//! Uploads over connections that are cut, and servers that are killed before all is in its place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keelboat_engine::{Content, Digest, Kind};
use keelboat_staging::{
    BucketProtocol, DeliverError, Delivered, Delivery, Forgetful, HttpConfig, HttpProtocol, Over,
    Progress, Protocol, Stager, StagingConfig, TransferEvent,
};
use tempfile::TempDir;

use crate::common::buckets::Buckets;
use crate::common::faulty::Faulty;
use crate::common::ftp::Ftp;
use crate::common::relay::Relay;
use crate::common::ssh::Ssh;
use crate::common::{Servers, config, noise, room};

const BYTES: usize = 12_000_000;

/// Bytes over one connection after which it is cut; connections of the shortest one come first.
const CUTS: [u64; 3] = [2_000_000, 5_000_000, 7_000_000];

struct Sender {
    dir: TempDir,
    faulty: Arc<Faulty>,
    stager: Stager,
    causes: Arc<Causes>,
}

/// Why tries failed.
#[derive(Default)]
struct Causes(Mutex<Vec<String>>);

impl Progress for Causes {
    fn on_event(&self, event: &TransferEvent<'_>) {
        if let TransferEvent::Waiting { cause, .. } = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((*cause).to_owned());
        }
    }
}

impl Sender {
    fn of(faulty: Faulty) -> Self {
        let (dir, faulty) = (room(), Arc::new(faulty));
        // A busy machine is not to look like a stall.
        let mut limits =
            StagingConfig { stall_timeout: Duration::from_secs(20), ..config(dir.path()) };
        limits.retry.elapsed_max = Duration::from_mins(2);
        let stager = Stager::with_protocols(limits, vec![faulty.clone()], vec![]);
        Self { dir, faulty, stager, causes: Arc::default() }
    }

    async fn send(&self, address: &str, bytes: &[u8]) -> Result<Delivered, DeliverError> {
        let source = self.dir.path().join("source");
        std::fs::write(&source, bytes).expect("a file");
        let content =
            Content { digest: Digest::of(bytes), bytes: bytes.len() as u64, kind: Kind::File };
        let (address, over) = (address.into(), Over::Same);
        let progress = Some(Arc::clone(&self.causes) as Arc<dyn Progress>);
        let delivery = Delivery { source, content, address, over, progress };
        self.stager.deliver(delivery, Forgetful).await
    }
}

fn port_of(url: &str) -> u16 {
    let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next());
    port.and_then(|port| port.parse().ok()).expect("a port")
}

/// An address with this port in the place of its own.
fn through(relay: &Relay, address: &str, port: u16) -> String {
    address.replacen(&format!(":{port}"), &format!(":{}", relay.port), 1)
}

/// Sends over a line that is cut thrice. `again` is what a cut may cost besides.
async fn cut(protocol: Arc<dyn Protocol>, relay: &Relay, address: &str, again: u64) -> Vec<u8> {
    let bytes = noise(80, BYTES);
    let sender = Sender::of(Faulty::new(protocol, vec![]));
    let sent = sender.send(address, &bytes).await;
    assert_eq!(sent, Ok(Delivered::Copied));
    assert_eq!(relay.cut(), 3, "all cuts were met");
    assert_eq!(sender.faulty.puts(), 4, "one try for each cut, and the last");
    let causes = sender.causes.0.lock().unwrap_or_else(PoisonError::into_inner);
    let is_seen = causes.iter().all(|cause| !cause.contains("nothing came for"));
    assert!(is_seen, "a cut is seen at once, not by a deadline: {causes:?}");
    let (passed, bound) = (relay.passed(), BYTES as u64 + 3 * again);
    assert!(passed <= bound + 500_000, "{passed} bytes went out, {bound} may");
    bytes
}

/// Where uploads begin anew: a cut costs what had gone by then.
const AGAIN: u64 = (CUTS[0] + CUTS[1] + CUTS[2]) / 3;

pub(super) fn by_http(servers: &Servers, name: &str, cuts: &[u64]) -> Growing {
    let (user, password) = (servers.value("HTTP_USER"), servers.value("HTTP_PASSWORD"));
    let address = servers.plain(&format!("/dav/{name}"));
    let port = port_of(servers.value("HTTP_URL"));
    let relay = Relay::start(port, cuts);
    let address = through(&relay, &address, port);
    let address = address.replace("://", &format!("://{user}:{password}@"));
    let protocol = Arc::new(HttpProtocol::new(&HttpConfig::default()).expect("a client"));
    let path = Path::new(servers.value("HTTP_ROOT")).join("dav").join(name);
    Growing { protocol, relay, address, path, again: AGAIN }
}

#[tokio::test]
async fn a_put_over_http_that_is_cut_is_sent_again() {
    let Some(servers) = Servers::get() else { return };
    let to = by_http(&servers, "cuts/file", &CUTS);
    let bytes = cut(to.protocol, &to.relay, &to.address, to.again).await;
    assert!(std::fs::read(to.path).expect("it is there") == bytes);
}

pub(super) fn by_bucket(buckets: &Buckets, cuts: &[u64]) -> (Relay, Arc<dyn Protocol>) {
    let endpoint = buckets.value("S3_ENDPOINT");
    let port = port_of(endpoint);
    let relay = Relay::start(port, cuts);
    let endpoint = through(&relay, endpoint, port);
    let variables = buckets.variables().into_iter().map(|(key, value)| {
        let value = if key == "AWS_ENDPOINT_URL" { endpoint.clone() } else { value };
        (key, value)
    });
    let protocol = BucketProtocol::with_variables(HttpConfig::default(), variables);
    (relay, Arc::new(protocol))
}

#[tokio::test]
async fn a_put_to_a_bucket_that_is_cut_is_sent_again() {
    let Some(buckets) = Buckets::get() else { return };
    let (relay, protocol) = by_bucket(&buckets, &CUTS);
    let address = buckets.address("cuts/file");
    let bytes = cut(protocol, &relay, &address, AGAIN).await;
    // Once more, and not through the relay: what is there is right.
    let direct = Sender::of(Faulty::new(buckets.protocol(), vec![]));
    assert_eq!(direct.send(&address, &bytes).await, Ok(Delivered::AlreadyThere));
}

/// Where a file is written through a relay.
pub(super) struct Growing {
    pub(super) protocol: Arc<dyn Protocol>,
    pub(super) relay: Relay,
    pub(super) address: String,
    pub(super) path: PathBuf,
    /// What a cut costs: where uploads go on, what the server may not have written yet.
    again: u64,
}

pub(super) fn by_sftp(ssh: &Ssh, name: &str, cuts: &[u64]) -> Growing {
    let relay = Relay::start(ssh.value("SSH_PORT").parse().expect("a port"), cuts);
    let address = ssh.address_at(relay.port, name);
    let protocol = ssh.protocol_at(relay.port);
    Growing { protocol, relay, address, path: ssh.path(name), again: 5_000_000 }
}

pub(super) fn by_ftp(ftp: &Ftp, name: &str, cuts: &[u64]) -> Growing {
    let port = port_of(ftp.value("FTP_URL"));
    let relay = Relay::start(port, cuts);
    let address = through(&relay, &ftp.address("FTP_URL", name), port);
    let protocol = Arc::new(ftp.protocol());
    Growing { protocol, relay, address, path: ftp.path(name), again: 50_000 }
}

#[tokio::test]
async fn a_put_over_sftp_that_is_cut_goes_on() {
    let Some(ssh) = Ssh::get() else { return };
    let to = by_sftp(&ssh, "cuts/file", &CUTS);
    let bytes = cut(Arc::clone(&to.protocol), &to.relay, &to.address, to.again).await;
    assert!(std::fs::read(&to.path).expect("it is there") == bytes);
}

#[tokio::test]
async fn a_put_over_ftp_that_is_cut_goes_on() {
    let Some(ftp) = Ftp::get() else { return };
    // The last connection has less than the others to send.
    let to = by_ftp(&ftp, "cuts/file", &[2_000_000, 3_000_000, 4_000_000]);
    let bytes = cut(Arc::clone(&to.protocol), &to.relay, &to.address, to.again).await;
    assert!(std::fs::read(&to.path).expect("it is there") == bytes);
}

/// The server is gone when all is written and nothing is renamed: the old file stays, a second run
/// renames what is there, and a third one does nothing.
async fn killed(to: Growing) {
    let (old, new) = (noise(81, 300_000), noise(82, BYTES));
    let before = Sender::of(Faulty::new(Arc::clone(&to.protocol), vec![]));
    before.send(&to.address, &old).await.expect("sent");
    let relay = Arc::new(to.relay);
    let killer = Arc::clone(&relay);
    let dying = Faulty::new(Arc::clone(&to.protocol), vec![]).before_rename(move || killer.kill());
    let first = Sender::of(dying);
    first.send(&to.address, &new).await.expect_err("the server is gone");
    assert_eq!(first.faulty.puts(), 1);
    assert!(std::fs::read(&to.path).expect("the old one") == old, "nothing was renamed");
    relay.revive();
    let sent = relay.passed();
    let second = Sender::of(Faulty::new(Arc::clone(&to.protocol), vec![]));
    assert_eq!(second.send(&to.address, &new).await, Ok(Delivered::Copied));
    assert!(std::fs::read(&to.path).expect("the new one") == new);
    let again = relay.passed() - sent;
    assert!(again <= to.again + 500_000, "{again} bytes went out a second time");
    let names = std::fs::read_dir(to.path.parent().expect("a directory")).expect("listed");
    let names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, [to.path.file_name().expect("a name")], "nothing is left beside");
    let puts = second.faulty.puts();
    assert_eq!(second.send(&to.address, &new).await, Ok(Delivered::AlreadyThere));
    assert_eq!(second.faulty.puts(), puts, "nothing is sent twice");
}

#[tokio::test]
async fn an_sftp_server_killed_before_the_rename_costs_little() {
    let Some(ssh) = Ssh::get() else { return };
    killed(by_sftp(&ssh, "killed-server/file", &[])).await;
}

#[tokio::test]
async fn an_ftp_server_killed_before_the_rename_costs_little() {
    let Some(ftp) = Ftp::get() else { return };
    killed(by_ftp(&ftp, "killed-server/file", &[])).await;
}
