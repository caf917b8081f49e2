//! HTTP as it is met: errors, lies, cuts. None of them becomes an input.

use std::time::{Duration, Instant};

use keelboat_engine::{Digest, FailureClass};
use keelboat_staging::{FetchRequest, HttpConfig, Stager, StagingConfig};

use crate::common::{Servers, assert_arrived, config, fetch, noise, room};

/// Faults that end, and the file that comes all the same.
#[tokio::test]
async fn passing_faults_are_survived() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(10, 300_000);
    for (number, fault) in [
        "fail=2&status=503",
        "fail=1&status=500",
        "fail=1&status=429&retry_after=0",
        "fail=2&status=408",
        "reset=2",
        "truncate=100000&times=2",
        "rst=50000&times=2",
        "stall=1000&times=1",
        "wrong_length=7&times=1",
        "redirect=3",
        "redirect=2&code=301",
        "chunked=1",
        "chunked=1&truncate=1000&times=1",
        "nolength=1",
        "norange=1",
        "truncate=250000&norange=1&times=2",
        "nohead=1",
        "drip=3000000",
        "badetag=1&truncate=100000&times=2",
        "change=1&truncate=100000&times=2",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("passing{number}.gz");
        servers.put(&name, &bytes);
        let dir = room();
        let address = servers.flaky(&format!("{name}?{fault}"));
        let fetched = fetch(&dir, FetchRequest::new(address)).await;
        assert!(fetched.is_ok(), "{fault}: {fetched:?}");
        assert_arrived(fetched, &bytes);
    }
}

/// Faults that do not end.
#[tokio::test]
async fn lasting_faults_are_told_by_their_class() {
    use FailureClass::{InputMissing, Permanent, Transient};
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(11, 50_000);
    for (number, (fault, class, said)) in [
        ("fail=99&status=404", InputMissing, "status 404"),
        ("fail=99&status=410", InputMissing, "status 410"),
        ("fail=99&status=403", Permanent, "status 403"),
        ("fail=99&status=400", Permanent, "status 400"),
        ("fail=99&status=500", Transient, "status 500"),
        ("reset=99", Transient, "connection failed"),
        ("truncate=0", Transient, "ended at byte 0 of 50000"),
        ("chunked=1&truncate=0", Transient, "ended at byte 0"),
        ("stall=0", Transient, "nothing came for 0.4 s"),
        ("redirect=loop", Permanent, "redirects"),
        ("html=1", Permanent, "web page"),
        ("change=1&truncate=20000", Transient, "ended at byte 20000 of 50000"),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("lasting{number}.fq.gz");
        servers.put(&name, &bytes);
        let dir = room();
        let address = servers.flaky(&format!("{name}?{fault}&token=secret"));
        let error = fetch(&dir, FetchRequest::new(address)).await.expect_err(fault);
        assert_eq!(error.failure.class, *class, "{fault}: {error}");
        let text = error.to_string();
        assert!(text.contains(said), "{fault}: {text}");
        assert!(text.contains(&name) && !text.contains("secret"), "{fault}: {text}");
        assert!(error.failure.hint.is_some(), "{fault}");
    }
}

#[tokio::test]
async fn missing_and_forbidden_files_are_asked_for_once() {
    let Some(servers) = Servers::get() else { return };
    for status in [401, 403, 404, 410] {
        let name = format!("once{status}");
        servers.put(&name, b"x");
        let address = servers.flaky(&format!("{name}?fail=99&status={status}"));
        fetch(&room(), FetchRequest::new(address)).await.expect_err("refused");
        assert_eq!(servers.asked(&name).len(), 1, "status {status}");
    }
}

#[tokio::test]
async fn a_declared_digest_finds_what_http_cannot_show() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(12, 40_000);
    for (number, fault) in
        ["corrupt=5", "nolength=1&truncate=100", "html=1", "wrong_length=-7"].iter().enumerate()
    {
        let name = format!("shown{number}.gz");
        servers.put(&name, &bytes);
        let once = servers.flaky(&format!("{name}?{fault}&times=1"));
        let request = FetchRequest::new(once).expecting(Digest::of(&bytes));
        let dir = room();
        assert_arrived(fetch(&dir, request).await, &bytes);
        let name = format!("always{number}.gz");
        servers.put(&name, &bytes);
        let always = servers.flaky(&format!("{name}?{fault}"));
        let request = FetchRequest::new(always).expecting(Digest::of(&bytes));
        let error = fetch(&room(), request).await.expect_err(fault);
        assert_eq!(error.failure.class, FailureClass::Permanent, "{fault}: {error}");
        assert_eq!(servers.asked(&name).len(), 2, "{fault}: fetched again once");
    }
}

#[tokio::test]
async fn mirrors_are_tried_in_order() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(13, 10_000);
    for name in ["mirror1", "mirror2", "mirror3"] {
        servers.put(name, &bytes);
    }
    let request = FetchRequest::new(servers.flaky("mirror1?fail=99&status=404"))
        .or_from(servers.flaky("mirror2?corrupt=1"))
        .or_from(servers.flaky("mirror3"))
        .expecting(Digest::of(&bytes));
    let dir = room();
    assert_arrived(fetch(&dir, request).await, &bytes);
    let request = FetchRequest::new(servers.flaky("mirror1?fail=99&status=404"))
        .or_from(servers.flaky("mirror2?fail=99&status=503"));
    let error = fetch(&room(), request).await.expect_err("no mirror has it");
    assert_eq!(error.failure.class, FailureClass::Transient, "one may come back: {error}");
    assert!(error.to_string().contains("404") && error.to_string().contains("503"), "{error}");
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let Some(servers) = Servers::get() else { return };
    servers.put("later", b"later");
    let begun = Instant::now();
    let dir = room();
    let address = servers.flaky("later?fail=1&status=429&retry_after=1");
    assert_arrived(fetch(&dir, FetchRequest::new(address)).await, b"later");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn weak_etags_never_continue_a_file() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(14, 100_000);
    servers.put("weak.gz", &bytes);
    let dir = room();
    // nginx weakens the tag where it would compress; nothing is compressed, since nobody asks.
    assert_arrived(fetch(&dir, FetchRequest::new(servers.plain("/gz/weak.gz"))).await, &bytes);
    assert_arrived(fetch(&dir, FetchRequest::new(servers.plain("/cut/weak.gz"))).await, &bytes);
}

#[tokio::test]
async fn tls_is_verified_and_never_left() {
    let Some(servers) = Servers::get() else { return };
    servers.put("tls", b"over tls");
    let address = format!("{}/files/tls", servers.value("HTTPS_URL"));
    let dir = room();
    let error = fetch(&dir, FetchRequest::new(&*address)).await.expect_err("an unknown issuer");
    assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    let hint = error.failure.hint.unwrap_or_default();
    assert!(hint.contains("certificates = ") && hint.contains("SSL_CERT_FILE"), "{hint}");
    let http =
        HttpConfig { extra_ca: Some(servers.value("HTTP_CA").into()), ..HttpConfig::default() };
    let trusting = StagingConfig { http, ..config(dir.path()) };
    let fetcher = Stager::new(trusting).expect("a fetcher");
    assert_arrived(fetcher.fetch(FetchRequest::new(address)).await, b"over tls");
}
