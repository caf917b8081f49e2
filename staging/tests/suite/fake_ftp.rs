//! What FTP makes of servers that do what no server should.

use std::path::Path;
use std::sync::Arc;

use keelboat_engine::FailureClass;
use keelboat_staging::{
    Depth, FetchError, FetchRequest, Fetched, FtpConfig, FtpProtocol, ListRequest, Protocol,
    Stager, TransferError,
};

use crate::common::fake_ftp::{FakeFtp, Trick};
use crate::common::flaky::{Fault, Flaky};
use crate::common::{assert_arrived, config, room};

fn protocol() -> FtpProtocol {
    FtpProtocol::new(&FtpConfig::default()).expect("a client")
}

fn stager(dir: &Path) -> Stager {
    Stager::with_protocols(config(dir), vec![Arc::new(protocol())], vec![])
}

async fn failure(trick: Trick) -> FetchError {
    let server = FakeFtp::start(trick).await;
    let dir = room();
    let fetched = stager(dir.path()).fetch(FetchRequest::new(server.address("x"))).await;
    fetched.expect_err("no such file is to be believed")
}

#[tokio::test]
async fn hostile_answers_end_in_clear_errors() {
    for (trick, said) in [
        (Trick::HalfThen226, "ended at byte 10000 of 20000"),
        (Trick::WholeThen451, "all 20000 bytes came, and then"),
        (Trick::SizeTooLarge, "ended at byte 20000 of 40000"),
        (Trick::SizeTooSmall, "more than the announced 10000 bytes"),
        (Trick::Silence, "nothing came"),
        (Trick::EndlessAnswer, "a reply larger than"),
        (Trick::Full, "Too many users"),
    ] {
        let error = failure(trick).await;
        assert!(error.to_string().contains(said), "{trick:?}: {error}");
        assert_eq!(error.failure.class, FailureClass::Transient, "{trick:?}: {error}");
    }
}

#[tokio::test]
async fn hostile_answers_do_not_keep_the_file_away() {
    for trick in [Trick::Honest, Trick::DataElsewhere, Trick::RestIgnored] {
        let server = FakeFtp::start(trick).await;
        let dir = room();
        let flaky = Flaky::new(Arc::new(protocol()), vec![Fault::cut(7_000)]);
        let stager = Stager::with_protocols(config(dir.path()), vec![Arc::new(flaky)], vec![]);
        let fetched = stager.fetch(FetchRequest::new(server.address("x"))).await;
        let transferred = assert_arrived(fetched, &FakeFtp::content("x", 0));
        assert!(server.resumed() > 0, "{trick:?}");
        assert!(transferred == 20_000 || trick == Trick::RestIgnored, "{trick:?}: {transferred}");
    }
}

async fn list(trick: Trick, name: &str) -> Result<Vec<String>, TransferError> {
    let server = FakeFtp::start(trick).await;
    let request = ListRequest { address: server.address(name).into(), depth: Depth::All };
    let entries = protocol().list(&request).await?;
    Ok(entries.into_iter().map(|entry| entry.path).collect())
}

#[tokio::test]
async fn names_stay_in_their_directory() {
    let error = list(Trick::NameElsewhere, "").await.expect_err("it leads out");
    assert!(error.to_string().contains("\"../x\""), "{error}");
    assert_eq!(list(Trick::Honest, "").await, Ok(vec!["x".to_owned()]));
}

#[tokio::test]
async fn a_server_without_mlsd_is_asked_for_a_list() {
    let listed = list(Trick::NoMlsd, "there").await;
    assert_eq!(listed, Ok(vec!["a b".to_owned(), "link".to_owned()]));
    let missing = list(Trick::NoMlsd, "absent").await;
    assert!(matches!(missing, Err(TransferError::Missing { .. })), "{missing:?}");
}

#[tokio::test]
async fn one_connection_serves_many_files_and_is_replaced_when_it_is_gone() {
    let server = FakeFtp::start(Trick::Honest).await;
    let dir = room();
    let stager = stager(dir.path());
    for number in 0..10 {
        if number == 5 {
            server.hang_up();
        }
        let name = format!("file{number}");
        let fetched = stager.fetch(FetchRequest::new(server.address(&name))).await;
        assert_eq!(assert_arrived(fetched, &FakeFtp::content(&name, 0)), 20_000);
    }
    assert_eq!(server.connections(), 2);
}

/// Files change and transfers break at any moment; what arrives is always one version.
#[tokio::test]
async fn versions_are_never_mixed() {
    const FILES: u64 = 1_000;
    const AT_ONCE: u64 = 20;
    let server = Arc::new(FakeFtp::start(Trick::Changing).await);
    let dir = room();
    let mut limits = config(dir.path());
    limits.limits.per_host_max = 20;
    limits.limits.total_max = 20;
    limits.retry.tries_max = 20;
    let stager = Stager::with_protocols(limits, vec![Arc::new(protocol())], vec![]);
    let mut fetches = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let (stager, server) = (stager.clone(), Arc::clone(&server));
        fetches.spawn(async move {
            let mut arrived = 0;
            for number in (first..FILES).step_by(20) {
                arrived += u64::from(arrives_unmixed(&stager, &server, number).await);
            }
            arrived
        });
    }
    let arrived: u64 = fetches.join_all().await.into_iter().sum();
    assert!(arrived > FILES / 2, "only {arrived} arrived");
    let changes: u64 = (0..FILES).map(|number| server.version(&format!("file{number}"))).sum();
    assert!(changes > FILES / 4, "only {changes} changes");
    assert!(server.resumed() > FILES / 4, "only {} were resumed", server.resumed());
}

/// Whether it came at all: a file that changes too often is given up.
async fn arrives_unmixed(stager: &Stager, server: &FakeFtp, number: u64) -> bool {
    let name = format!("file{number}");
    let Ok(fetched) = stager.fetch(FetchRequest::new(server.address(&name))).await else {
        return false;
    };
    let Fetched::New { path, .. } = fetched else { panic!("nothing was known of it") };
    let found = std::fs::read(&path).expect("the file that came");
    std::fs::remove_file(path).expect("removed");
    let mut versions = 0..=server.version(&name);
    assert!(versions.any(|version| FakeFtp::content(&name, version) == found), "{name} is mixed");
    true
}
