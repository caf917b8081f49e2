//! Going on: after cuts, after a crash, and never with what does not belong together.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use keelboat_engine::{Digest, FailureClass};
use keelboat_staging::{FetchRequest, address_digest};

use crate::common::raw::{Raw, honest};
use crate::common::{Servers, assert_arrived, example, fetch, fetcher, noise, room};

#[tokio::test]
async fn a_file_cut_a_hundred_times_comes_once() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(30, 10_000_000);
    servers.put("hundred", &bytes);
    let dir = room();
    let address = servers.flaky("hundred?truncate=100000&times=100");
    let transferred = assert_arrived(fetch(&dir, FetchRequest::new(address)).await, &bytes);
    assert!(transferred <= 10_500_000, "{transferred} bytes for 10000000");
    let asked = servers.asked("hundred");
    assert!(asked.len() >= 100, "{} requests", asked.len());
    let all_resumed = asked.iter().skip(1).all(|(range, if_range)| {
        range.as_ref().is_some_and(|range| range != "bytes=0-") && if_range.is_some()
    });
    assert!(all_resumed, "each goes on under the condition that the file is the same");
}

#[tokio::test]
async fn a_fetcher_killed_goes_on_where_it_was() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(31, 3_000_000);
    servers.put("killed", &bytes);
    let address = servers.flaky("killed?drip=1000000&times=1");
    let dir = room();
    let mut child = start(&address, dir.path());
    let state = dir.path().join(format!("{}.state", address_digest(&address)));
    wait_until(|| proven(&state) >= 500_000);
    child.kill().expect("SIGKILL");
    child.wait().expect("it is dead");
    let proven = proven(&state);
    let output = finish(start(&address, dir.path()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let mut words = said.split_whitespace();
    assert_eq!(words.next(), Some(Digest::of(&bytes).to_hex().as_str()));
    let transferred: u64 = words.next().and_then(|word| word.parse().ok()).expect("a number");
    assert_eq!(transferred, 3_000_000 - proven, "only what was not there comes");
    let asked = servers.asked("killed");
    let ranges: Vec<_> = asked.iter().map(|(range, _)| range.as_deref()).collect();
    assert_eq!(ranges, [None, Some(format!("bytes={proven}-").as_str())]);
}

#[tokio::test]
async fn a_partial_that_was_damaged_is_not_built_on() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(32, 200_000);
    for (number, damage) in [flip, shorten, lose_state, garble_state].iter().enumerate() {
        let name = format!("damaged{number}");
        servers.put(&name, &bytes);
        let address = servers.flaky(&format!("{name}?truncate=120000&times=1&n=1"));
        let dir = room();
        leave_partial(&address, dir.path()).await;
        damage(&dir.path().join(address_digest(&address).to_hex()));
        assert_arrived(fetch(&dir, FetchRequest::new(&*address)).await, &bytes);
    }
}

#[tokio::test]
async fn a_file_that_changed_since_the_crash_comes_whole() {
    let Some(servers) = Servers::get() else { return };
    let (old, new) = (noise(33, 200_000), noise(34, 200_000));
    servers.put("since", &old);
    let address = servers.flaky("since?truncate=120000&times=1");
    let dir = room();
    leave_partial(&address, dir.path()).await;
    servers.put("since", &new);
    assert_arrived(fetch(&dir, FetchRequest::new(address)).await, &new);
}

/// Whoever can write there could put bytes in the place of those that came.
#[tokio::test]
async fn what_others_could_have_put_there_is_not_gone_on_with() {
    let server = Raw::start(|asked, _, stream| honest(stream, asked, "\"a\"", b"whole"));
    let above = room();
    let dir = above.path().join("partial");
    let stager = fetcher(&dir);
    assert_arrived(stager.fetch(FetchRequest::new(server.url("/first"))).await, b"whole");
    let mode = |mode| {
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    assert_eq!(dir.metadata().expect("made").permissions().mode() & 0o777, 0o700);
    for open in [0o777, 0o1777, 0o720] {
        mode(open);
        let error = stager.fetch(FetchRequest::new(server.url("/next"))).await.expect_err("open");
        assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
        assert!(error.to_string().contains("partial: it can be written by others"), "{error}");
    }
    mode(0o700);
    assert_arrived(stager.fetch(FetchRequest::new(server.url("/next"))).await, b"whole");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let Some(servers) = Servers::get() else { return };
    servers.put("tidy", b"tidy");
    let dir = room();
    let found = fetcher(dir.path()).fetch(FetchRequest::new(servers.flaky("tidy"))).await;
    assert_arrived(found, b"tidy");
    fetch(&dir, FetchRequest::new(servers.flaky("not-there"))).await.expect_err("missing");
    let left = std::fs::read_dir(dir.path()).expect("the directory").count();
    assert_eq!(left, 1, "only the file that belongs to the caller");
}

/// Fetches until the first cut, and then gives up.
async fn leave_partial(address: &str, dir: &Path) {
    let mut config = crate::common::config(dir);
    config.retry.tries_max = 1;
    let fetcher = keelboat_staging::Stager::new(config).expect("a fetcher");
    fetcher.fetch(FetchRequest::new(address)).await.expect_err("it is cut");
    let data = dir.join(address_digest(address).to_hex()).with_extension("data");
    assert_eq!(data.metadata().expect("a partial file").len(), 120_000);
}

fn flip(partial: &Path) {
    let data = partial.with_extension("data");
    let mut bytes = std::fs::read(&data).expect("data");
    bytes[60_000] ^= 1;
    std::fs::write(data, bytes).expect("data");
}

fn shorten(partial: &Path) {
    let data = std::fs::File::options().write(true).open(partial.with_extension("data"));
    data.and_then(|data| data.set_len(50_000)).expect("shorter");
}

fn lose_state(partial: &Path) {
    std::fs::remove_file(partial.with_extension("state")).expect("removed");
}

fn garble_state(partial: &Path) {
    std::fs::write(partial.with_extension("state"), b"{\"version\":1,").expect("written");
}

fn start(address: &str, dir: &Path) -> Child {
    let mut command = example("fetch");
    command.arg(address).arg(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the example `fetch`, built with the tests")
}

fn finish(child: Child) -> Output {
    child.wait_with_output().expect("it ends")
}

fn proven(state: &Path) -> u64 {
    let text = std::fs::read(state).unwrap_or_default();
    let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    state["proven"]["bytes"].as_u64().unwrap_or_default()
}

fn wait_until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "what was waited for did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
