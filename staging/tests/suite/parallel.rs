//! One file over several connections: faster where each is slow, and never of two versions.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keelboat_staging::{FetchRequest, Fetched, Spreading, Stager, StagingConfig};

use crate::common::raw::{Asked, Raw, honest, say};
use crate::common::{Servers, assert_arrived, config, noise, room};

/// As soon as possible, with small parts.
fn eager() -> Spreading {
    Spreading {
        connections_max: 4,
        part_bytes: 50_000,
        rest_bytes_min: 100_000,
        settle: Duration::ZERO,
        rate_enough: u64::MAX,
    }
}

fn stager(dir: &std::path::Path, spreading: Spreading) -> Stager {
    let mut config = StagingConfig { spreading, ..config(dir) };
    config.retry.tries_max = 20;
    config.retry.wait_min = Duration::from_micros(200);
    config.retry.wait_max = Duration::from_millis(1);
    Stager::new(config).expect("a stager")
}

/// Some bytes of the whole file at once, so that its connection is seen to be slow, then the rest.
fn slowly(stream: &mut TcpStream, tag: &str, bytes: &[u8]) -> std::io::Result<()> {
    paced(stream, tag, bytes, Duration::from_millis(5))
}

fn paced(stream: &mut TcpStream, tag: &str, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
    let total = bytes.len();
    let head = format!("200 OK\nETag: {tag}\nAccept-Ranges: bytes\nContent-Length: {total}");
    let (soon, later) = bytes.split_at(10_000);
    say(stream, &head, soon)?;
    for piece in later.chunks(10_000) {
        std::thread::sleep(pause);
        stream.write_all(piece)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_connection_gets_company() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(80, 48 << 20);
    servers.put("wide", &bytes);
    let fetch = async |connections_max: usize| {
        let dir = room();
        let settle = Duration::from_millis(300);
        let rest_bytes_min = 8 << 20;
        let spreading =
            Spreading { connections_max, settle, rest_bytes_min, ..Spreading::default() };
        let begun = Instant::now();
        let request = FetchRequest::new(servers.plain("/throttled/wide"));
        let transferred =
            assert_arrived(stager(dir.path(), spreading).fetch(request).await, &bytes);
        assert_eq!(transferred, bytes.len() as u64, "each byte once");
        begun.elapsed()
    };
    let (one, four) = (fetch(1).await, fetch(4).await);
    println!("48 MiB at 8 MiB/s for each connection: {one:?} over one, {four:?} over four");
    assert!(four * 3 < one * 2, "{one:?} over one connection, {four:?} over four");
}

#[tokio::test]
async fn what_cannot_be_proven_comes_over_one_connection() {
    let bytes = Arc::new(noise(81, 400_000));
    for head in [
        "200 OK\nAccept-Ranges: bytes",
        "200 OK\nAccept-Ranges: bytes\nETag: W/\"a\"",
        "200 OK\nETag: \"a\"",
        "200 OK\nAccept-Ranges: none\nETag: \"a\"",
    ] {
        let served = Arc::clone(&bytes);
        let server = Raw::start(move |_, _, stream| {
            say(stream, &format!("{head}\nContent-Length: {}", served.len()), &served)
        });
        let dir = room();
        let request = FetchRequest::new(server.url("/f"));
        assert_arrived(stager(dir.path(), eager()).fetch(request).await, &bytes);
        assert_eq!(server.asked().len(), 1, "{head}");
    }
}

#[tokio::test]
async fn a_server_that_bears_one_connection_is_asked_over_one() {
    let bytes = Arc::new(noise(82, 1_000_000));
    let (served, open) = (Arc::clone(&bytes), Arc::new(AtomicUsize::new(0)));
    let server = Raw::start(move |asked, number, stream| {
        let others = open.fetch_add(1, Ordering::SeqCst);
        let answered = if number == 0 {
            slowly(stream, "\"a\"", &served)
        } else if others > 1 {
            say(stream, "503 Too Many\nContent-Length: 0", b"")
        } else {
            honest(stream, asked, "\"a\"", &served)
        };
        open.fetch_sub(1, Ordering::SeqCst);
        answered
    });
    let dir = room();
    let fetched = stager(dir.path(), eager()).fetch(FetchRequest::new(server.url("/f"))).await;
    assert_arrived(fetched, &bytes);
}

/// How a part is answered: it was asked for with this header, and the file is this one.
type Answer = fn(&Asked, &mut TcpStream, &[u8]) -> std::io::Result<()>;

/// Few parts, far enough ahead for their answers to be there before they are reached.
fn wide() -> Spreading {
    Spreading { part_bytes: 200_000, rest_bytes_min: 200_000, ..eager() }
}

#[tokio::test]
async fn a_server_that_gives_no_parts_gives_the_file_by_the_connection_that_is_there() {
    let answers: &[(&str, Answer)] = &[
        ("the whole file", |_, stream, bytes| slowly(stream, "\"a\"", bytes)),
        ("the whole file from another node", |_, stream, bytes| slowly(stream, "\"b\"", bytes)),
        ("a part from another node", |asked, stream, bytes| {
            let other = Asked { headers: [range_of(asked)].into(), ..asked.clone() };
            honest(stream, &other, "\"b\"", bytes)
        }),
        ("the part before it", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 0-9/1000000";
            say(stream, head, &bytes[..10])
        }),
        ("401", |_, stream, _| say(stream, "401 Unauthorized\nContent-Length: 0", b"")),
        ("403", |_, stream, _| say(stream, "403 Forbidden\nContent-Length: 0", b"")),
        ("404", |_, stream, _| say(stream, "404 Not Found\nContent-Length: 0", b"")),
        ("416", |_, stream, _| say(stream, "416 Not Satisfiable\nContent-Length: 0", b"")),
    ];
    for (name, answer) in answers {
        let bytes = Arc::new(noise(87, 1_000_000));
        let served = Arc::clone(&bytes);
        let server = Raw::start(move |asked, _, stream| match asked.range() {
            None => slowly(stream, "\"a\"", &served),
            Some(_) => answer(asked, stream, &served),
        });
        let dir = room();
        let stager = stager(dir.path(), wide());
        let whole = || server.asked().iter().filter(|asked| asked.range().is_none()).count();
        assert_arrived(stager.fetch(FetchRequest::new(server.url("/f"))).await, &bytes);
        assert_eq!(whole(), 1, "{name}: the first connection goes on to the end");
        let asked = server.asked().len();
        assert!(asked > 1, "{name}: a part was asked for");
        assert_arrived(stager.fetch(FetchRequest::new(server.url("/f"))).await, &bytes);
        assert_eq!((whole(), server.asked().len()), (2, asked + 1), "{name}: it is remembered");
    }
}

fn range_of(asked: &Asked) -> (String, String) {
    ("range".to_owned(), asked.header("range").expect("a range").to_owned())
}

/// A host that counts the connections of each client, and one whose signed addresses end.
#[tokio::test]
async fn a_part_that_is_refused_later_costs_only_company() {
    for refused_from in [2, 3, 5] {
        let bytes = Arc::new(noise(88, 1_500_000));
        let served = Arc::clone(&bytes);
        let server = Raw::start(move |asked, number, stream| match asked.range() {
            None => slowly(stream, "\"a\"", &served),
            Some((_, Some(_))) if number >= refused_from => {
                say(stream, "403 Forbidden\nContent-Length: 0", b"")
            }
            Some(_) => honest(stream, asked, "\"a\"", &served),
        });
        let dir = room();
        let stager = stager(dir.path(), wide());
        let fetched = stager.fetch(FetchRequest::new(server.url("/f"))).await;
        let transferred = assert_arrived(fetched, &bytes);
        assert_eq!(transferred, bytes.len() as u64, "from {refused_from} on: nothing comes twice");
        let asked = server.asked();
        let whole = asked.iter().filter(|one| one.range().is_none()).count();
        assert_eq!(whole, 1, "from {refused_from} on: begun once");
        assert!(asked.len() > refused_from, "from {refused_from} on: it was refused");
    }
}

#[tokio::test]
async fn parts_that_are_cut_come_again_by_themselves() {
    let bytes = Arc::new(noise(83, 1_000_000));
    let served = Arc::clone(&bytes);
    let server = Raw::start(move |asked, number, stream| {
        let Some((first, Some(end))) = asked.range() else {
            return slowly(stream, "\"a\"", &served);
        };
        let last = if number % 3 == 0 { (first + 20_000).min(end) } else { end };
        let head = format!(
            "206 Partial Content\nETag: \"a\"\nContent-Range: bytes {first}-{}/{}\n\
             Content-Length: {}",
            end - 1,
            served.len(),
            end - first
        );
        say(stream, &head, &served[first..last])
    });
    let dir = room();
    let fetched = stager(dir.path(), eager()).fetch(FetchRequest::new(server.url("/f"))).await;
    let transferred = assert_arrived(fetched, &bytes);
    assert_eq!(transferred, bytes.len() as u64, "nothing comes twice");
    let asked = server.asked();
    assert!(asked.iter().filter(|one| one.range().is_some()).count() > 20, "in parts");
    assert_eq!(asked.iter().filter(|one| one.range().is_none()).count(), 1, "begun once");
}

/// Parts of a file that is replaced again and again while it comes, in every way that is allowed
/// and in some that are not.
#[tokio::test]
async fn parts_of_two_versions_are_never_mixed() {
    let versions = Arc::new([noise(84, 300_000), noise(85, 300_000), noise(86, 299_999)]);
    let served = Arc::clone(&versions);
    let server = Raw::start(move |asked: &Asked, number, stream| {
        let version = number / 8 % 3;
        let (tag, bytes) = (format!("\"{version}\""), &served[version]);
        match asked.range() {
            None => paced(stream, &tag, bytes, Duration::from_millis(2)),
            // As servers do that know no If-Range.
            Some((first, end)) if number % 2 == 0 && first < bytes.len() => {
                let end = end.unwrap_or(bytes.len()).min(bytes.len());
                let (last, total) = (end - 1, bytes.len());
                let head = format!("ETag: {tag}\nContent-Range: bytes {first}-{last}/{total}");
                say(stream, &format!("206 Partial Content\n{head}"), &bytes[first..end])
            }
            Some(_) => honest(stream, asked, &tag, bytes),
        }
    });
    let dir = room();
    let stager = stager(dir.path(), eager());
    let mut arrived = 0;
    for number in 0..1000 {
        let address = server.url(&format!("/changing/{number}"));
        // It may change too often to be had at all.
        let Ok(Fetched::New { path, .. }) = stager.fetch(FetchRequest::new(address)).await else {
            continue;
        };
        let found = std::fs::read(&path).expect("what came");
        assert!(versions.contains(&found), "try {number} came mixed");
        std::fs::remove_file(path).expect("removed");
        arrived += 1;
    }
    println!("{arrived} of 1000 came, in {} requests", server.asked().len());
    assert!(arrived > 200, "only {arrived} of 1000 came at all");
    let parts = server.asked().iter().filter(|asked| asked.range().is_some()).count();
    assert!(parts > 2000, "{parts} parts");
}
