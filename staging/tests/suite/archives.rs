//! Members of archives: one transfer for all of them, one end for all who wait for it, and room
//! that is given back.

use std::sync::Arc;
use std::time::Duration;

use keelboat_staging::{FetchRequest, Fetched, QueueLimits, Stager, StagingConfig};
use tokio::task::JoinSet;

use crate::common::counting::{Answer, Counting};
use crate::common::{assert_arrived, config, fetcher, noise, room, until};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

fn tar_of(members: &[(&str, &[u8])]) -> Arc<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).expect("a member");
    }
    Arc::new(tar.into_inner().expect("an archive"))
}

async fn fetch(stager: &Stager, address: String) -> Result<Fetched, keelboat_staging::FetchError> {
    let fetched = tokio::time::timeout(LONG, stager.fetch(FetchRequest::new(address))).await;
    fetched.expect("it does not hang")
}

#[tokio::test]
async fn an_archive_that_nobody_reads_makes_room_for_others() {
    let (small, large) = (noise(300, 1_000), noise(301, 599_000));
    let archive = tar_of(&[("small", &small), ("large", &large)]);
    let server = Counting::start(Answer::Whole(Arc::clone(&archive))).await;
    let dir = room();
    let limits = QueueLimits { space_max: Some(1_000_000), ..QueueLimits::default() };
    let stager = Stager::new(StagingConfig { limits, ..config(dir.path()) }).expect("a stager");
    let member = |archive: &str| format!("tar:{}!/small", server.address(archive));
    for _ in 0..2 {
        assert_arrived(fetch(&stager, member("one.tar")).await, &small);
    }
    assert_eq!(server.asked(), 1, "it is kept while there is room");
    // A further archive, and a plain file: neither has room beside what came before it.
    assert_arrived(fetch(&stager, member("two.tar")).await, &small);
    let plain = Arc::new(noise(302, 700_000));
    server.answer(Answer::Whole(Arc::clone(&plain)));
    assert_arrived(fetch(&stager, server.address("plain")).await, &plain);
    let files = std::fs::read_dir(dir.path()).expect("a directory");
    let large = files.filter(|file| {
        let metadata = file.as_ref().expect("an entry").metadata();
        metadata.expect("a file").len() >= archive.len() as u64
    });
    assert_eq!(large.count(), 1, "archives that were given up are gone");
}

#[tokio::test]
async fn who_waits_for_an_archive_that_cannot_be_had_shares_its_end() {
    let server = Counting::start(Answer::Nothing).await;
    let dir = room();
    let stager = fetcher(dir.path());
    let mut all = JoinSet::new();
    for member in 0..100 {
        let address = format!("tar:{}!/{member}", server.address("gone.tar"));
        let stager = stager.clone();
        all.spawn(async move { fetch(&stager, address).await });
    }
    while let Some(ended) = all.join_next().await {
        let error = ended.expect("no panic").expect_err("it cannot be had");
        assert!(error.to_string().contains("gone.tar"), "{error}");
    }
    let tries = config(dir.path()).retry.tries_max as usize;
    assert_eq!(server.asked(), tries, "one budget for all of them");
}

#[tokio::test]
async fn a_hundred_members_come_out_of_one_transfer() {
    let bytes: Vec<_> = (0..100).map(|seed| noise(400 + seed, 5_000)).collect();
    let names: Vec<_> = (0..100).map(|at| format!("dir/{at}")).collect();
    let members: Vec<_> =
        names.iter().map(String::as_str).zip(bytes.iter().map(|b| &**b)).collect();
    let pause = Duration::from_millis(300);
    let server = Counting::start(Answer::Paused(tar_of(&members), pause)).await;
    let dir = room();
    let stager = fetcher(dir.path());
    let mut all = JoinSet::new();
    for (at, name) in names.iter().enumerate() {
        let address = format!("tar:{}!/{name}", server.address("all.tar"));
        let stager = stager.clone();
        all.spawn(async move { (at, fetch(&stager, address).await) });
    }
    let mut transferred = 0;
    while let Some(ended) = all.join_next().await {
        let (at, fetched) = ended.expect("no panic");
        transferred += assert_arrived(fetched, &bytes[at]);
    }
    assert_eq!(server.asked(), 1);
    assert_eq!(transferred, tar_of(&members).len() as u64, "its bytes are counted once");
    stager.discard_archives();
    let left = || std::fs::read_dir(dir.path()).expect("a directory").count();
    until(|| left() <= 100).await;
}
