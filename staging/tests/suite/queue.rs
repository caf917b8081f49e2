//! The queue at work: limits that servers see, hosts that are down, bandwidth, room, and a
//! thousand who wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keelboat_engine::{FailureClass, Kind};
use keelboat_staging::{
    BreakerPolicy, Elsewhere, FetchRequest, Fetched, Limit, Progress, QueueLimits, RetryBudget,
    Stager, StagingConfig, TransferEvent,
};
use tokio::task::JoinSet;

use crate::common::counting::{Answer, Counting};
use crate::common::{Servers, assert_arrived, config, noise, room};

fn limited(dir: &tempfile::TempDir, limits: QueueLimits) -> Stager {
    Stager::new(StagingConfig { limits, ..config(dir.path()) }).expect("a stager")
}

/// What was told of waiting.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wait_for(&self, part: &str) {
        let said = async {
            while !self.all().iter().any(|cause| cause.contains(part)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), said).await;
        in_time.unwrap_or_else(|_| panic!("{part:?} is not among {:?}", self.all()));
    }
}

impl Progress for Told {
    fn on_event(&self, event: &TransferEvent<'_>) {
        if let TransferEvent::Queued { cause, .. } = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((*cause).to_owned());
        }
    }
}

fn watched(address: &str, told: &Arc<Told>) -> FetchRequest {
    FetchRequest {
        progress: Some(Arc::clone(told) as Arc<dyn Progress>),
        ..FetchRequest::new(address)
    }
}

async fn arrive(mut all: JoinSet<Result<Fetched, keelboat_staging::FetchError>>, bytes: &[u8]) {
    while let Some(fetched) = all.join_next().await {
        assert_arrived(fetched.expect("no panic"), bytes);
    }
}

#[tokio::test]
async fn a_hundred_who_want_one_large_file_fetch_it_once() {
    let bytes = Arc::new(noise(60, 50_000_000));
    let server = Counting::start(Answer::Whole(Arc::clone(&bytes))).await;
    let dir = room();
    let stager = limited(&dir, QueueLimits::default());
    let mut all = JoinSet::new();
    for _ in 0..100 {
        let (stager, request) = (stager.clone(), FetchRequest::new(server.address("large")));
        all.spawn(async move { stager.fetch(request).await });
    }
    let mut arrived = 0;
    while let Some(fetched) = all.join_next().await {
        let Ok(Ok(Fetched::New { content, path, .. })) = fetched else { panic!("{fetched:?}") };
        assert_eq!(content.bytes, 50_000_000);
        std::fs::remove_file(path).expect("a file of its own");
        arrived += 1;
    }
    assert_eq!((arrived, server.asked()), (100, 1));
}

#[tokio::test]
async fn a_host_sees_no_more_connections_than_it_may_have() {
    let bytes = Arc::new(noise(61, 20_000));
    let slow = Answer::Paused(Arc::clone(&bytes), Duration::from_millis(30));
    let servers = [Counting::start(slow.clone()).await, Counting::start(slow).await];
    let dir = room();
    let own = Limit { connections: Some(1), ..Limit::default() };
    let limits = QueueLimits {
        per_host_max: 3,
        total_max: 4,
        hosts: [(servers[1].host(), own)].into(),
        ..QueueLimits::default()
    };
    let stager = limited(&dir, limits);
    let mut all = JoinSet::new();
    for (number, server) in servers.iter().cycle().take(40).enumerate() {
        let request = FetchRequest::new(server.address(&format!("f{number}")));
        let stager = stager.clone();
        all.spawn(async move { stager.fetch(request).await });
    }
    arrive(all, &bytes).await;
    assert_eq!(servers[0].at_once(), 3);
    assert_eq!(servers[1].at_once(), 1);
}

#[tokio::test]
async fn those_of_a_dead_host_wait_and_say_so_while_others_go_on() {
    let bytes = Arc::new(noise(62, 5_000));
    let alive = Counting::start(Answer::Whole(Arc::clone(&bytes))).await;
    let dead = Counting::start(Answer::Nothing).await;
    let dir = room();
    let breaker = BreakerPolicy {
        failures_max: 5,
        pause_min: Duration::from_millis(100),
        pause_max: Duration::from_millis(400),
    };
    let limits = QueueLimits { breaker, total_max: 4, per_host_max: 4, ..QueueLimits::default() };
    let retry = RetryBudget {
        tries_max: 50,
        elapsed_max: Duration::from_mins(2),
        ..config(dir.path()).retry
    };
    let stager = Stager::new(StagingConfig { limits, retry, ..config(dir.path()) });
    let stager = stager.expect("a stager");
    let told = Arc::new(Told::default());
    let (mut waiting, mut all) = (JoinSet::new(), JoinSet::new());
    for number in 0..20 {
        let (stager, name) = (stager.clone(), format!("f{number}"));
        let request = watched(&dead.address(&name), &told);
        let at_dead = stager.clone();
        waiting.spawn(async move { at_dead.fetch(request).await });
        let request = FetchRequest::new(alive.address(&name));
        all.spawn(async move { stager.fetch(request).await });
    }
    arrive(all, &bytes).await;
    told.wait_for("has not answered").await;
    told.wait_for(&dead.host()).await;
    assert_eq!(waiting.len(), 20);
    assert!(waiting.try_join_next().is_none(), "those of the dead host wait");
    // It comes back, and all of them come.
    dead.answer(Answer::Whole(Arc::clone(&bytes)));
    arrive(waiting, &bytes).await;
    // Twenty would have asked as often as their own patience allows; the gate asks for all of them.
    let in_vain = dead.asked() - 20;
    assert!(in_vain < 200, "it was asked {in_vain} times while it was down");
}

#[tokio::test]
async fn a_dead_host_is_given_up_with_its_own_words() {
    let dead = Counting::start(Answer::Nothing).await;
    let dir = room();
    let breaker = BreakerPolicy { failures_max: 2, ..BreakerPolicy::default() };
    let retry = RetryBudget {
        tries_max: 1000,
        elapsed_max: Duration::from_secs(2),
        ..config(dir.path()).retry
    };
    let limits = QueueLimits { breaker, ..QueueLimits::default() };
    let stager = Stager::new(StagingConfig { limits, retry, ..config(dir.path()) });
    let begun = Instant::now();
    let fetched = stager.expect("a stager").fetch(FetchRequest::new(dead.address("x"))).await;
    let error = fetched.expect_err("it is dead");
    assert_eq!(error.failure.class, FailureClass::Transient, "{error}");
    assert!(error.to_string().contains("connection failed"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(dead.asked(), 2, "waiting for a host that is down eats no tries");
}

#[tokio::test]
async fn missing_files_do_not_make_a_host_one_that_is_down() {
    let bytes = Arc::new(noise(63, 100));
    let server = Counting::start(Answer::Status(404, String::new())).await;
    let dir = room();
    let stager = limited(&dir, QueueLimits::default());
    for number in 0..12 {
        let request = FetchRequest::new(server.address(&format!("f{number}")));
        stager.fetch(request).await.expect_err("there is none");
    }
    server.answer(Answer::Whole(Arc::clone(&bytes)));
    let begun = Instant::now();
    assert_arrived(stager.fetch(FetchRequest::new(server.address("g"))).await, &bytes);
    assert!(begun.elapsed() < Duration::from_secs(4), "nobody was made to wait");
    assert_eq!(server.asked(), 13, "each was asked for once");
}

#[tokio::test]
async fn a_host_that_asks_to_be_left_alone_is_left_alone_by_all() {
    let bytes = Arc::new(noise(64, 1_000));
    let server = Counting::start(Answer::Status(503, "Retry-After: 2\r\n".into())).await;
    let dir = room();
    let stager = limited(&dir, QueueLimits { per_host_max: 1, ..QueueLimits::default() });
    let told = Arc::new(Told::default());
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for number in 0..5 {
        let request = watched(&server.address(&format!("f{number}")), &told);
        let stager = stager.clone();
        all.spawn(async move { stager.fetch(request).await });
    }
    told.wait_for("asked to be left alone").await;
    assert_eq!(server.asked(), 1, "one has asked for all");
    server.answer(Answer::Whole(Arc::clone(&bytes)));
    arrive(all, &bytes).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(server.asked(), 6);
}

#[tokio::test]
async fn bandwidth_is_bounded_over_time() {
    let bytes = Arc::new(noise(65, 500_000));
    let server = Counting::start(Answer::Whole(Arc::clone(&bytes))).await;
    let dir = room();
    let own = Limit { bytes_per_second: Some(1_000_000), ..Limit::default() };
    let hosts = [(server.host(), own)].into();
    let stager = limited(&dir, QueueLimits { hosts, ..QueueLimits::default() });
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for number in 0..4 {
        let request = FetchRequest::new(server.address(&format!("f{number}")));
        let stager = stager.clone();
        all.spawn(async move { stager.fetch(request).await });
    }
    arrive(all, &bytes).await;
    // 2 MB at 1 MB/s, a quarter of a second's worth at once, and the last pieces on credit.
    let elapsed = begun.elapsed().as_secs_f64();
    assert!(elapsed > 1.3, "too fast: {elapsed} s");
    assert!(elapsed < 15.0, "too slow: {elapsed} s");
}

fn bytes_below(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[tokio::test]
async fn files_wait_for_room_and_one_that_never_fits_is_refused() {
    let bytes = Arc::new(noise(66, 400_000));
    let server =
        Counting::start(Answer::Paused(Arc::clone(&bytes), Duration::from_millis(100))).await;
    let dir = room();
    let limits = QueueLimits { space_max: Some(1_000_000), ..QueueLimits::default() };
    let stager = limited(&dir, limits.clone());
    stager.set_elsewhere(Elsewhere { bytes: 500_000, is_moving: true });
    let mut all = JoinSet::new();
    for number in 0..6 {
        let request = FetchRequest::new(server.address(&format!("f{number}")));
        let stager = stager.clone();
        let dir = dir.path().to_owned();
        all.spawn(async move {
            let Ok(Fetched::New { path, .. }) = stager.fetch(request).await else {
                panic!("it comes")
            };
            let there = bytes_below(&dir);
            std::fs::remove_file(path).expect("a file of its own");
            there
        });
    }
    while let Some(there) = all.join_next().await {
        let there = there.expect("no panic");
        assert!(there <= 800_000, "{there} bytes: one that came, one under way, and no more");
    }
    let told = Arc::new(Told::default());
    stager.set_elsewhere(Elsewhere { bytes: 900_000, is_moving: true });
    let request = watched(&server.address("late"), &told);
    let late = tokio::spawn({
        let stager = stager.clone();
        async move { stager.fetch(request).await }
    });
    told.wait_for("no room for its 400000 bytes").await;
    assert!(!late.is_finished(), "it waits");
    stager.set_elsewhere(Elsewhere { bytes: 900_000, is_moving: false });
    assert_arrived(late.await.expect("no panic"), &bytes);
    let small = limited(&dir, QueueLimits { space_max: Some(300_000), ..limits });
    let error = small.fetch(FetchRequest::new(server.address("huge"))).await.expect_err("no room");
    assert_eq!(error.failure.class, FailureClass::OutOfResources, "{error}");
    assert!(error.failure.hint.is_some_and(|hint| hint.contains("space_max")));
}

#[tokio::test]
async fn directories_have_room_for_all_of_their_files_or_wait() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(71, 200_000);
    for directory in ["one", "two"] {
        for number in 0..3 {
            servers.put(&format!("roomy-{directory}/deep/{number}"), &bytes);
        }
    }
    let dir = room();
    let limits = QueueLimits { space_max: Some(700_000), ..QueueLimits::default() };
    let stager = limited(&dir, limits.clone());
    let address = |name: &str| servers.plain(&format!("/json/roomy-{name}/"));
    let directory = |name: &str| FetchRequest::new(address(name)).of_kind(Kind::Directory);
    let fetch = |request: FetchRequest| {
        let stager = stager.clone();
        tokio::spawn(async move { stager.fetch(request).await })
    };
    let Ok(Ok(mut one)) = fetch(directory("one")).await else { panic!("it comes") };
    // Neither a directory nor a file has room beside it as long as it counts.
    let told = Arc::new(Told::default());
    let progress = Some(Arc::clone(&told) as Arc<dyn Progress>);
    let two = fetch(FetchRequest { progress, ..directory("two") });
    told.wait_for("no room for its 600000 bytes").await;
    // One of its files by itself waits, too, and does not keep the directory from coming.
    let told = Arc::new(Told::default());
    let file = fetch(watched(&format!("{}deep/0", address("two")), &told));
    told.wait_for("its turn has not come").await;
    assert!(!two.is_finished() && !file.is_finished(), "they wait");
    one.give_room_back();
    let Ok(Ok(mut two)) = two.await else { panic!("it comes") };
    assert!(matches!(&two, Fetched::New { content, .. } if content.bytes == 600_000), "{two:?}");
    assert!(!file.is_finished(), "it still waits");
    two.give_room_back();
    assert_arrived(file.await.expect("no panic"), &bytes);
    let small = limited(&room(), QueueLimits { space_max: Some(500_000), ..limits });
    let error = small.fetch(directory("one")).await.expect_err("no room");
    assert_eq!(error.failure.class, FailureClass::OutOfResources, "{error}");
}

#[tokio::test]
async fn who_is_given_up_while_it_waits_leaves_its_place_to_others() {
    let bytes = Arc::new(noise(67, 2_000));
    let server = Counting::start(Answer::Never).await;
    let dir = room();
    let limits = QueueLimits { per_host_max: 1, ..QueueLimits::default() };
    let long =
        StagingConfig { limits, stall_timeout: Duration::from_mins(1), ..config(dir.path()) };
    let long = StagingConfig { first_byte_timeout: Duration::from_mins(1), ..long };
    let stager = Stager::new(long).expect("a stager");
    let mut stuck = JoinSet::new();
    for number in 0..10 {
        let request = FetchRequest::new(server.address(&format!("stuck{number}")));
        let stager = stager.clone();
        stuck.spawn(async move { stager.fetch(request).await });
    }
    server.wait_until_asked().await;
    server.answer(Answer::Whole(Arc::clone(&bytes)));
    stuck.shutdown().await;
    let request = FetchRequest::new(server.address("next"));
    let next = tokio::time::timeout(Duration::from_secs(20), stager.fetch(request)).await;
    assert_arrived(next.expect("its turn comes"), &bytes);
}

#[tokio::test]
async fn the_urgent_is_fetched_first() {
    let bytes = Arc::new(noise(68, 500));
    let server =
        Counting::start(Answer::Paused(Arc::clone(&bytes), Duration::from_millis(200))).await;
    let dir = room();
    let stager = limited(&dir, QueueLimits { per_host_max: 1, ..QueueLimits::default() });
    let mut all = JoinSet::new();
    let mut fetch = |name: &str, priority| {
        let request = FetchRequest { priority, ..FetchRequest::new(server.address(name)) };
        let stager = stager.clone();
        all.spawn(async move { stager.fetch(request).await });
    };
    fetch("first", 0);
    server.wait_until_asked().await;
    for number in 0..4 {
        fetch(&format!("plain{number}"), 0);
    }
    fetch("urgent", 9);
    arrive(all, &bytes).await;
    let order = server.names();
    let urgent = order.iter().position(|name| name == "urgent").expect("it was asked for");
    assert!(urgent <= 2, "among the first: {order:?}");
}

#[tokio::test]
async fn whoever_joins_in_a_hurry_takes_the_transfer_along() {
    let bytes = Arc::new(noise(70, 500));
    let server =
        Counting::start(Answer::Paused(Arc::clone(&bytes), Duration::from_millis(200))).await;
    let dir = room();
    let stager = limited(&dir, QueueLimits { per_host_max: 1, ..QueueLimits::default() });
    let mut all = JoinSet::new();
    let mut fetch = |name: &str, priority| {
        let request = FetchRequest { priority, ..FetchRequest::new(server.address(name)) };
        let stager = stager.clone();
        all.spawn(async move { stager.fetch(request).await });
    };
    fetch("first", 0);
    server.wait_until_asked().await;
    for number in 0..4 {
        fetch(&format!("plain{number}"), 5);
    }
    fetch("prefetched", 0);
    fetch("prefetched", 9);
    arrive(all, &bytes).await;
    let order = server.names();
    let joined = order.iter().position(|name| name == "prefetched").expect("it was asked for");
    assert!(joined <= 2, "among the first: {order:?}");
    assert_eq!(order.len(), 6, "once");
}

#[tokio::test]
async fn all_of_a_real_server_comes_through_a_narrow_gate() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(69, 30_000);
    let dir = room();
    let stager =
        limited(&dir, QueueLimits { per_host_max: 2, total_max: 2, ..QueueLimits::default() });
    let mut all = JoinSet::new();
    for number in 0..50 {
        servers.put(&format!("narrow{number}"), &bytes);
        let request = FetchRequest::new(servers.plain(&format!("/files/narrow{number}")));
        let stager = stager.clone();
        all.spawn(async move { stager.fetch(request).await });
    }
    arrive(all, &bytes).await;
}

/// Memory and open files are those of a process of its own: this test runs again in one.
#[test]
fn a_thousand_who_wait_take_little_memory() {
    let program = std::env::current_exe().expect("this program");
    let alone = ["--exact", "queue::a_thousand_wait", "--ignored", "--nocapture"];
    let output = std::process::Command::new(program).args(alone).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a process of its own, by the test before"]
async fn a_thousand_wait() {
    const MEMORY_MAX_KIB: u64 = 200 << 10;
    let server = Counting::start(Answer::Never).await;
    let dir = room();
    let limits = QueueLimits::default();
    let long =
        StagingConfig { limits, stall_timeout: Duration::from_mins(5), ..config(dir.path()) };
    let long = StagingConfig { first_byte_timeout: Duration::from_mins(5), ..long };
    let stager = Stager::new(long).expect("a stager");
    let told = Arc::new(Told::default());
    let mut all = JoinSet::new();
    for number in 0..1000 {
        let request = watched(&server.address(&format!("f{number}")), &told);
        let stager = stager.clone();
        all.spawn(async move { stager.fetch(request).await });
    }
    let waiting = 1000 - QueueLimits::default().per_host_max as usize;
    let said = async {
        while told.all().len() < waiting {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), said).await.expect("all say that they wait");
    assert!(all.try_join_next().is_none(), "none has ended");
    let memory = resident_kib();
    println!("{memory} KiB with 1,000 transfers queued");
    assert!(memory < MEMORY_MAX_KIB, "{memory} KiB");
    all.shutdown().await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel says");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
