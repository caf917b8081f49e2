//! What is at its address from an earlier run is not read back, as long as the server says that
//! nothing has changed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keelboat_engine::{Content, Digest, Kind};
use keelboat_staging::{Delivered, Delivery, Forgetful, Over, Protocol, Stager, StagingConfig};
use tempfile::TempDir;

use super::cuts::{Growing, by_bucket, by_ftp, by_http, by_sftp};
use crate::common::buckets::{Buckets, put};
use crate::common::ftp::Ftp;
use crate::common::relay::Relay;
use crate::common::ssh::Ssh;
use crate::common::{Servers, config, noise, room};

const BYTES: usize = 1_000_000;

/// Bytes that a question and its answer may have, with a login.
const QUESTION_MAX: u64 = 60_000;

/// A project with one output.
struct Project {
    dir: TempDir,
    protocol: Arc<dyn Protocol>,
    relay: Relay,
    address: String,
}

impl Project {
    fn of(to: Growing) -> Self {
        let Growing { protocol, relay, address, .. } = to;
        Self { dir: room(), protocol, relay, address }
    }

    /// A further run. What came of it, and the bytes that the server sent for it.
    async fn run(&self, bytes: &[u8]) -> (Delivered, u64) {
        self.run_as(self.config(), bytes).await
    }

    fn config(&self) -> StagingConfig {
        // A busy machine is not to look like a stall.
        StagingConfig { stall_timeout: Duration::from_secs(20), ..config(self.dir.path()) }
    }

    async fn run_as(&self, config: StagingConfig, bytes: &[u8]) -> (Delivered, u64) {
        let before = self.relay.came();
        let source = self.dir.path().join("source");
        std::fs::write(&source, bytes).expect("a file");
        let digest = Digest::of(bytes);
        let content = Content { digest, bytes: bytes.len() as u64, kind: Kind::File };
        let (address, over) = (self.address.as_str().into(), Over::Same);
        let delivery = Delivery { source, content, address, over, progress: None };
        let stager = Stager::with_protocols(config, vec![Arc::clone(&self.protocol)], vec![]);
        let delivered = stager.deliver(delivery, Forgetful).await.expect("it is there");
        (delivered, self.relay.came() - before)
    }

    /// It is there, and costs one question.
    async fn asks(&self, bytes: &[u8]) {
        let (delivered, came) = self.run(bytes).await;
        assert_eq!(delivered, Delivered::AlreadyThere);
        assert!(came < QUESTION_MAX, "{came} bytes came");
    }

    /// It is there, and is read back.
    async fn reads(&self, config: StagingConfig, bytes: &[u8]) {
        let (delivered, came) = self.run_as(config, bytes).await;
        assert_eq!(delivered, Delivered::AlreadyThere);
        assert!(came >= BYTES as u64, "{came} bytes came");
    }
}

/// Writes over a file, as of so many seconds ago.
fn overwrite(path: &Path, bytes: &[u8], age_s: u64) {
    std::fs::write(path, bytes).expect("written");
    age(path, age_s);
}

fn age(path: &Path, age_s: u64) {
    let file = std::fs::File::options().write(true).open(path).expect("the file");
    file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).expect("a time");
}

#[tokio::test]
async fn what_was_put_over_http_is_asked_about() {
    let Some(servers) = Servers::get() else { return };
    let to = by_http(&servers, "known/file", &[]);
    let path = to.path.clone();
    let project = Project::of(to);
    let (bytes, other) = (noise(90, BYTES), noise(91, BYTES));
    assert_eq!(project.run(&bytes).await.0, Delivered::Copied);
    project.asks(&bytes).await;
    project.asks(&bytes).await;
    project.reads(StagingConfig { strict: true, ..project.config() }, &bytes).await;
    // Of the same length, and of other bytes.
    overwrite(&path, &other, 5000);
    assert_eq!(project.run(&bytes).await.0, Delivered::Copied);
    assert!(std::fs::read(&path).expect("it is there") == bytes);
    project.asks(&bytes).await;
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(project.run(&bytes).await.0, Delivered::Copied);
    // What is known of the one file says nothing of another.
    assert_eq!(project.run(&other).await.0, Delivered::Copied);
    assert!(std::fs::read(&path).expect("it is there") == other);
}

#[tokio::test]
async fn what_was_put_into_a_bucket_is_asked_about() {
    let Some(buckets) = Buckets::get() else { return };
    let (relay, protocol) = by_bucket(&buckets, &[]);
    let address = buckets.address("known/file");
    let project = Project { dir: room(), protocol, relay, address };
    let (bytes, other) = (noise(92, BYTES), noise(93, BYTES));
    assert_eq!(project.run(&bytes).await.0, Delivered::Copied);
    project.asks(&bytes).await;
    put(&*buckets.protocol(), &project.address, &other).await.expect("written");
    assert_eq!(project.run(&bytes).await.0, Delivered::Copied);
    project.asks(&bytes).await;
}

/// Where only seconds tell versions apart, a file is read back until it is old enough.
async fn by_seconds(to: Growing) {
    let path = to.path.clone();
    let project = Project::of(to);
    let (bytes, other) = (noise(94, BYTES), noise(95, BYTES));
    assert_eq!(project.run(&bytes).await.0, Delivered::Copied);
    project.reads(project.config(), &bytes).await;
    age(&path, 30);
    project.reads(project.config(), &bytes).await;
    project.reads(project.config(), &bytes).await;
    age(&path, 7000);
    project.reads(project.config(), &bytes).await;
    project.asks(&bytes).await;
    project.asks(&bytes).await;
    overwrite(&path, &other, 6000);
    assert_eq!(project.run(&bytes).await.0, Delivered::Copied);
    assert!(std::fs::read(&path).expect("it is there") == bytes);
}

#[tokio::test]
async fn what_was_put_over_ftp_is_asked_about() {
    let Some(ftp) = Ftp::get() else { return };
    by_seconds(by_ftp(&ftp, "known/file", &[])).await;
}

#[tokio::test]
async fn what_was_put_over_sftp_is_asked_about() {
    let Some(ssh) = Ssh::get() else { return };
    by_seconds(by_sftp(&ssh, "known/file", &[])).await;
}
