//! One transfer for one file, limits, and what needs no transfer at all.

use std::sync::{Arc, Mutex, PoisonError};

use keelboat_engine::{Content, Digest, FailureClass, Kind};
use keelboat_staging::{
    BoxFuture, FetchRequest, Fetched, Known, OpenRequest, Opened, Progress, Protocol, QueueLimits,
    Stager, StagingConfig, TransferError, TransferEvent,
};

use crate::common::{Servers, assert_arrived, config, fetch, fetcher, noise, room};

fn known(bytes: &[u8]) -> Known {
    let content =
        Content { digest: Digest::of(bytes), bytes: bytes.len() as u64, kind: Kind::File };
    Known { content, etag: None, last_modified: None, source: None }
}

#[tokio::test]
async fn many_who_want_one_file_share_its_transfer() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(20, 400_000);
    servers.put("shared", &bytes);
    let dir = room();
    let fetcher = fetcher(dir.path());
    let address = servers.flaky("shared?drip=2000000");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (fetcher, request) = (fetcher.clone(), FetchRequest::new(&*address));
        tasks.spawn(async move { fetcher.fetch(request).await });
    }
    let mut paths = Vec::new();
    while let Some(fetched) = tasks.join_next().await {
        let fetched = fetched.expect("no panic");
        if let Ok(Fetched::New { path, .. }) = &fetched {
            paths.push(path.clone());
        }
        assert_arrived(fetched, &bytes);
    }
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 20, "each has a file of its own");
    assert_eq!(servers.asked("shared").len(), 1);
}

#[tokio::test]
async fn one_who_leaves_does_not_end_what_others_wait_for() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(21, 300_000);
    servers.put("left", &bytes);
    let dir = room();
    let fetcher = fetcher(dir.path());
    let request = FetchRequest::new(servers.flaky("left?drip=600000"));
    let seen = Arc::new(Seen::default());
    let watched = FetchRequest { progress: Some(seen.clone()), ..request.clone() };
    let (first, second) = (fetcher.clone(), fetcher);
    let leaver = tokio::spawn(async move { first.fetch(watched).await });
    let stayer = tokio::spawn(async move { second.fetch(request).await });
    seen.wait_for_bytes().await;
    leaver.abort();
    assert_arrived(stayer.await.expect("no panic"), &bytes);
    assert_eq!(servers.asked("left").len(), 1);
}

#[tokio::test]
async fn a_fetch_that_is_given_up_is_taken_up_again() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(22, 400_000);
    servers.put("taken-up", &bytes);
    let dir = room();
    let seen = Arc::new(Seen::default());
    let slow = FetchRequest {
        progress: Some(seen.clone()),
        ..FetchRequest::new(servers.flaky("taken-up?drip=200000&times=1"))
    };
    let (fetcher, again) = (fetcher(dir.path()), slow.clone());
    let task = tokio::spawn({
        let fetcher = fetcher.clone();
        async move { fetcher.fetch(slow).await }
    });
    // What is small is written down only when it has come slowly for a while.
    seen.wait_for_more_than(250_000).await;
    task.abort();
    assert!(task.await.is_err(), "it was given up");
    let transferred = assert_arrived(fetcher.fetch(again).await, &bytes);
    assert!(transferred < 400_000, "{transferred} bytes came again");
}

#[tokio::test]
async fn a_host_gets_no_more_connections_than_it_is_allowed() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(23, 150_000);
    let dir = room();
    // This server refuses a second connection while one is open.
    let limits = QueueLimits { per_host_max: 1, ..QueueLimits::default() };
    let fetcher = Stager::new(StagingConfig { limits, ..config(dir.path()) });
    let fetcher = fetcher.expect("a fetcher");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..4 {
        servers.put(&format!("limited{number}"), &bytes);
        let request = FetchRequest::new(servers.plain(&format!("/one/limited{number}")));
        let fetcher = fetcher.clone();
        tasks.spawn(async move { fetcher.fetch(request).await });
    }
    while let Some(fetched) = tasks.join_next().await {
        assert_eq!(assert_arrived(fetched.expect("no panic"), &bytes), 150_000);
    }
}

#[tokio::test]
async fn what_is_known_by_its_digest_needs_no_request() {
    let dir = room();
    let nowhere = "http://127.0.0.1:9/never";
    let request = FetchRequest::new(nowhere).expecting(Digest::of(b"x")).knowing(known(b"x"));
    assert_eq!(fetch(&dir, request).await, Ok(Fetched::Unchanged));
}

#[tokio::test]
async fn offline_uses_what_is_known_and_nothing_else() {
    let dir = room();
    let offline = StagingConfig { offline: true, ..config(dir.path()) };
    let fetcher = Stager::new(offline).expect("a fetcher");
    let nowhere = FetchRequest::new("http://user:pw@127.0.0.1:9/never");
    let there = fetcher.fetch(nowhere.clone().knowing(known(b"x"))).await;
    assert_eq!(there, Ok(Fetched::Unchanged));
    for request in [nowhere.clone(), nowhere.expecting(Digest::of(b"y")).knowing(known(b"x"))] {
        let error = fetcher.fetch(request).await.expect_err("offline");
        assert_eq!(error.failure.class, FailureClass::InputMissing);
        assert!(!error.to_string().contains("pw"), "{error}");
        assert!(error.failure.hint.is_some_and(|hint| hint.contains("--offline")));
    }
    let path = dir.path().join("local");
    std::fs::write(&path, b"local").expect("a file");
    let local = FetchRequest::new(path.to_str().expect("text"));
    assert_arrived(fetcher.fetch(local).await, b"local");
}

/// Remembers how far a transfer came.
#[derive(Default)]
struct Seen(Mutex<u64>);

impl Seen {
    fn position(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait_for_bytes(&self) {
        self.wait_for_more_than(0).await;
    }

    async fn wait_for_more_than(&self, bytes: u64) {
        let come = async {
            while self.position() <= bytes {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), come).await.expect("bytes come");
    }
}

impl Progress for Seen {
    fn on_event(&self, event: &TransferEvent<'_>) {
        if let TransferEvent::Received { position, .. } = event {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = *position;
        }
    }
}

/// A protocol with a fault of its own.
#[derive(Debug)]
struct Broken;

impl Protocol for Broken {
    fn schemes(&self) -> &[&'static str] {
        &["broken"]
    }

    fn open<'a>(&'a self, _: &'a OpenRequest) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async {
            tokio::task::yield_now().await;
            panic!("this is meant to be seen")
        })
    }
}

#[tokio::test]
async fn a_fault_of_a_protocol_is_told_to_all_who_wait_and_is_none_of_theirs() {
    let dir = room();
    let fetcher = Stager::with_protocols(config(dir.path()), vec![Arc::new(Broken)], vec![]);
    let fetch = || fetcher.fetch(FetchRequest::new("broken://h/a"));
    let (first, second) = tokio::join!(fetch(), fetch());
    for fetched in [first, second] {
        let error = fetched.unwrap_err().to_string();
        assert!(error.contains("broke off by a fault"), "{error}");
    }
}
