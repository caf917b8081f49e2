//! Servers that lie. Each answer ends in the right bytes or in an error that says what came.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::FailureClass;
use keelboat_staging::{
    AddressPolicy, Credential, Credentials, FetchError, FetchRequest, Fetched, HttpConfig, Known,
    Secret, Stager, StagingConfig,
};

use crate::common::raw::{Asked, Raw, honest, say, wait_for_end};
use crate::common::{Servers, assert_arrived, config, fetch, noise, room};

const BYTES: usize = 50_000;

fn file() -> Vec<u8> {
    noise(70, BYTES)
}

/// What the server answers first; everything after it is honest.
type Lie = fn(&Asked, &mut TcpStream, &[u8]) -> std::io::Result<()>;

/// The first answer is cut at byte 20,000, the second, which goes on from there, is the lie.
async fn resumed_by(lie: Lie) -> (Result<Fetched, FetchError>, Vec<Asked>, tempfile::TempDir) {
    let server = Raw::start(move |asked, number, stream| match number {
        0 => {
            let head = format!("200 OK\nETag: \"a\"\nContent-Length: {BYTES}");
            say(stream, &head, &file()[..20_000])
        }
        1 => lie(asked, stream, &file()),
        _ => honest(stream, asked, "\"a\"", &file()),
    });
    let dir = room();
    let fetched = fetch(&dir, FetchRequest::new(server.url("/data.bin"))).await;
    (fetched, server.asked(), dir)
}

#[tokio::test]
async fn lies_about_the_rest_of_a_file_do_no_harm() {
    let lies: &[(&str, Lie)] = &[
        ("200 in place of 206", |_, stream, bytes| {
            say(stream, "200 OK\nETag: \"a\"\nContent-Length: 50000", bytes)
        }),
        ("another start", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 0-49999/50000";
            say(stream, &format!("{head}\nContent-Length: 50000"), bytes)
        }),
        ("a start one off", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 20001-49999/50000";
            say(stream, &format!("{head}\nContent-Length: 29999"), &bytes[20_001..])
        }),
        ("another end", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 20000-39999/50000";
            say(stream, &format!("{head}\nContent-Length: 30000"), &bytes[20_000..])
        }),
        ("an end beyond the end", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 20000-59999/50000";
            say(stream, head, &bytes[20_000..])
        }),
        ("an early end", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 20000-39999/50000";
            say(stream, &format!("{head}\nContent-Length: 20000"), &bytes[20_000..40_000])
        }),
        ("an early end, of nobody knows how much", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 20000-29999/*";
            say(stream, &format!("{head}\nContent-Length: 10000"), &bytes[20_000..30_000])
        }),
        ("more than announced, of nobody knows how much", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 20000-29999/*";
            say(stream, head, &bytes[20_000..])
        }),
        ("another total", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 20000-39999/40000";
            say(stream, &format!("{head}\nContent-Length: 20000"), &bytes[20_000..40_000])
        }),
        ("no Content-Range", |_, stream, bytes| {
            say(stream, "206 Partial Content\nContent-Length: 30000", &bytes[20_000..])
        }),
        ("multipart", |_, stream, bytes| {
            let head = "206 Partial Content\nContent-Type: multipart/byteranges; boundary=X";
            say(stream, head, &bytes[20_000..])
        }),
        ("another ETag", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"b\"\nContent-Range: bytes 20000-49999/50000";
            let other: Vec<u8> = bytes[20_000..].iter().map(|byte| !byte).collect();
            say(stream, head, &other)
        }),
        ("416", |_, stream, _| say(stream, "416 Range Not Satisfiable\nContent-Length: 0", b"")),
        ("closed in the head", |_, stream, _| {
            stream.write_all(b"HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nConte")
        }),
        ("nonsense", |_, stream, _| stream.write_all(b"220 ready to serve\r\n")),
        ("304 without a condition", |_, stream, _| say(stream, "304 Not Modified", b"")),
        ("a long body", |_, stream, bytes| {
            let head = "206 Partial Content\nETag: \"a\"\nContent-Range: bytes 20000-49999/50000";
            say(stream, &format!("{head}\nContent-Length: 30000"), &bytes[20_000..])?;
            stream.write_all(&[b'x'; 5_000])
        }),
        ("408", |_, stream, _| say(stream, "408 Request Timeout\nContent-Length: 0", b"")),
        ("429", |_, stream, _| say(stream, "429 Slow\nRetry-After: 0\nContent-Length: 0", b"")),
        ("503 for a day that is past", |_, stream, _| {
            let head = "503 Busy\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT";
            say(stream, &format!("{head}\nContent-Length: 0"), b"")
        }),
    ];
    for (name, lie) in lies {
        let (fetched, asked, _dir) = resumed_by(*lie).await;
        assert!(fetched.is_ok(), "{name}: {fetched:?}");
        assert_arrived(fetched, &file());
        let resumed = asked.get(1).and_then(Asked::range);
        assert_eq!(resumed, Some((20_000, None)), "{name}: it goes on");
    }
}

/// A file whose length nobody says: all of it is cut first, and then comes in stretches.
fn in_stretches(stretch: usize, bytes: Vec<u8>) -> Raw {
    Raw::start(move |asked, _, stream| {
        let Some((first, None)) = asked.range() else {
            say(stream, "200 OK\nETag: \"a\"\nTransfer-Encoding: chunked", b"4e20\r\n")?;
            return stream.write_all(&bytes[..20_000]);
        };
        assert_eq!(asked.header("if-range"), Some("\"a\""));
        if first >= bytes.len() {
            let head = format!("Content-Range: bytes */{}\nContent-Length: 0", bytes.len());
            return say(stream, &format!("416 Range Not Satisfiable\n{head}"), b"");
        }
        let end = (first + stretch).min(bytes.len());
        let head = format!("ETag: \"a\"\nContent-Range: bytes {first}-{}/*", end - 1);
        let head = format!("206 Partial Content\n{head}\nContent-Length: {}", end - first);
        say(stream, &head, &bytes[first..end])
    })
}

#[tokio::test]
async fn what_follows_a_stretch_of_unknown_total_is_asked_for() {
    for stretch in [7_000, 30_000, 100_000] {
        let server = in_stretches(stretch, file());
        let dir = room();
        assert_arrived(fetch(&dir, FetchRequest::new(server.url("/data.bin"))).await, &file());
        let asked: Vec<_> = server.asked().iter().filter_map(Asked::range).collect();
        assert_eq!(asked.first(), Some(&(20_000, None)), "{stretch}");
        assert_eq!(asked.last(), Some(&(BYTES, None)), "{stretch}: until there is no more");
    }
}

#[tokio::test]
async fn stretches_without_end_are_refused() {
    let server = in_stretches(20_000, noise(75, 400_000));
    let http = HttpConfig { unannounced_bytes_max: 100_000, ..HttpConfig::default() };
    let dir = room();
    let stager = Stager::new(StagingConfig { http, ..config(dir.path()) }).expect("a stager");
    let error = stager.fetch(FetchRequest::new(server.url("/f"))).await.expect_err("too much");
    assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    assert!(error.to_string().contains("unknown length"), "{error}");
}

/// A file may be changed twice in the second of its Last-Modified: 304 proves nothing then.
#[tokio::test]
async fn a_moment_that_tells_no_versions_apart_is_not_asked_about_later() {
    let answers = [
        (
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
            false,
        ),
        (
            "Date: Sun, 06 Nov 1994 08:50:36 GMT\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
            false,
        ),
        ("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", false),
        ("Date: Sun, 06 Nov 1994 08:50:37 GMT\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT", true),
    ];
    for (fields, is_strong) in answers {
        let server = Raw::start(move |asked, _, stream| {
            if asked.header("if-modified-since").is_some() {
                return say(stream, "304 Not Modified", b"");
            }
            say(stream, &format!("200 OK\n{fields}\nContent-Length: {BYTES}"), &file())
        });
        let dir = room();
        let request = FetchRequest::new(server.url("/f"));
        let first = fetch(&dir, request.clone()).await.expect("it comes");
        let Fetched::New { content, etag, last_modified, .. } = first else {
            panic!("a file was expected to come");
        };
        assert_eq!(last_modified.is_some(), is_strong, "{fields}");
        let known = Known { content, etag, last_modified, source: None };
        let again = fetch(&dir, request.knowing(known)).await;
        assert_eq!(matches!(again, Ok(Fetched::Unchanged)), is_strong, "{fields}: {again:?}");
    }
}

/// The new version comes over a line that is worse than what brought most of the old one.
#[tokio::test]
async fn the_progress_of_a_new_version_is_its_own() {
    let (old, new) = (noise(76, 60_000), noise(77, 20_000));
    let (before, after) = (old, new.clone());
    let server = Raw::start(move |asked, number, stream| {
        if number == 0 {
            let head = "200 OK\nETag: \"a\"\nContent-Length: 60000";
            return say(stream, head, &before[..50_000]);
        }
        let is_new = asked.header("if-range") == Some("\"b\"");
        let (first, _) = asked.range().filter(|_| is_new).unwrap_or_default();
        let head = match first {
            0 => "200 OK\nETag: \"b\"\nContent-Length: 20000".to_owned(),
            _ => format!("206 Partial Content\nContent-Range: bytes {first}-19999/20000"),
        };
        say(stream, &head, &after[first..(first + 1_000).min(20_000)])
    });
    let dir = room();
    assert_arrived(fetch(&dir, FetchRequest::new(server.url("/f"))).await, &new);
    assert!(server.asked().len() > 20, "it came in pieces");
}

/// A byte now and then is as good as none, however often it is asked for the rest.
#[tokio::test]
async fn a_trickle_is_given_up() {
    let server = Raw::start(|asked, _, stream| {
        let (first, _) = asked.range().unwrap_or_default();
        let head = match first {
            0 => format!("200 OK\nContent-Length: {BYTES}"),
            _ => format!("206 Partial Content\nContent-Range: bytes {first}-{}/{BYTES}", BYTES - 1),
        };
        say(stream, &format!("{head}\nETag: \"a\""), b"")?;
        for byte in &file()[first..] {
            stream.write_all(&[*byte])?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
    let dir = room();
    let trial = fetch(&dir, FetchRequest::new(server.url("/f")));
    let ended = tokio::time::timeout(Duration::from_mins(1), Box::pin(trial)).await;
    let error = ended.expect("it has an end").expect_err("too slow");
    assert_eq!(error.failure.class, FailureClass::Transient, "{error}");
    assert!(error.to_string().contains("bytes came in"), "{error}");
    let asked = server.asked();
    assert_eq!(asked.len(), 4, "as often as what brings nothing");
    assert!(asked[3].range().is_some_and(|(first, _)| first > 20), "it went on: {:?}", asked[3]);
}

/// Another version with each answer, of which each is cut: it has an end.
#[tokio::test]
async fn a_file_that_is_another_one_each_time_is_given_up() {
    let server = Raw::start(move |_, number, stream| {
        let head = format!("200 OK\nETag: \"{number}\"\nContent-Length: {BYTES}");
        say(stream, &head, &file()[..20_000])
    });
    let dir = room();
    let error = fetch(&dir, FetchRequest::new(server.url("/f"))).await.expect_err("never whole");
    assert!(error.to_string().contains("changed while it was read"), "{error}");
    assert!(server.asked().len() < 10, "{} requests", server.asked().len());
}

async fn refused(name: &str, server: &Raw, class: FailureClass, says: &str) {
    let dir = room();
    let connect_timeout = Duration::from_secs(2);
    let http =
        HttpConfig { unannounced_bytes_max: 1_000_000, connect_timeout, ..HttpConfig::default() };
    let first_byte_timeout = Duration::from_millis(100);
    let mut limits = StagingConfig { http, first_byte_timeout, ..config(dir.path()) };
    limits.retry.tries_max = 2;
    let stager = Stager::new(limits).expect("a stager");
    let request = FetchRequest::new(server.url("/data.bin?token=hidden"));
    let error = stager.fetch(request).await.expect_err(name);
    assert_eq!(error.failure.class, class, "{name}: {error}");
    let text = error.to_string();
    assert!(text.contains(says), "{name}: {text}");
    assert!(!text.contains("hidden"), "{name}: {text}");
    assert!(error.failure.hint.is_some(), "{name}");
    let left = std::fs::read_dir(dir.path()).expect("the directory");
    let files = left.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir()));
    assert_eq!(files.count(), 0, "{name}: nothing is made of names from elsewhere");
}

fn lying(lie: Lie) -> Raw {
    Raw::start(move |asked, _, stream| lie(asked, stream, &file()))
}

/// A lie, how it ends, and what is said of it.
type Lasting = (&'static str, FailureClass, &'static str, Lie);

#[tokio::test]
async fn lies_about_bodies_are_named() {
    use FailureClass::{Permanent, Transient};
    let lies: &[Lasting] = &[
        ("chunked without end", Permanent, "unknown length", |_, stream, _| {
            say(stream, "200 OK\nTransfer-Encoding: chunked", b"")?;
            let chunk = [b"10000\r\n", &*vec![7; 0x10000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk)?;
            }
        }),
        ("chunks of no size", Transient, "ended at byte 0", |_, stream, _| {
            say(stream, "200 OK\nTransfer-Encoding: chunked", b"zz\r\nabc\r\n")
        }),
        ("two lengths", Transient, "content-length", |_, stream, bytes| {
            say(stream, "200 OK\nContent-Length: 50000\nContent-Length: 40000", bytes)
        }),
        ("a negative length", Transient, "content-length", |_, stream, bytes| {
            say(stream, "200 OK\nContent-Length: -1", bytes)
        }),
        ("a length beyond all", Transient, "content-length", |_, stream, bytes| {
            say(stream, "200 OK\nContent-Length: 99999999999999999999", bytes)
        }),
        ("the longest length", Transient, "ended at byte 50000", |_, stream, bytes| {
            say(stream, "200 OK\nContent-Length: 18446744073709551613", bytes)
        }),
        ("gzip", Permanent, "coded as gzip", |_, stream, bytes| {
            say(stream, "200 OK\nContent-Encoding: gzip\nContent-Length: 50000", bytes)
        }),
        ("a web page", Permanent, "web page", |_, stream, _| {
            say(stream, "200 OK\nContent-Type: text/html", b"<!DOCTYPE html><p>Log in")
        }),
        ("206 unasked", Transient, "status 206", |_, stream, bytes| {
            let head = "206 Partial Content\nContent-Range: bytes 0-49999/50000";
            say(stream, head, bytes)
        }),
        ("204", Permanent, "status 204", |_, stream, _| say(stream, "204 No Content", b"")),
    ];
    all_refused(lies).await;
}

#[tokio::test]
async fn redirects_astray_are_named() {
    use FailureClass::Permanent;
    let lies: &[Lasting] = &[
        ("to a file", Permanent, "redirects to a file: address", |_, stream, _| {
            say(stream, "302 Found\nLocation: file:///etc/passwd\nContent-Length: 0", b"")
        }),
        ("to FTP", Permanent, "redirects to a ftp: address", |_, stream, _| {
            say(stream, "302 Found\nLocation: ftp://127.0.0.1/x\nContent-Length: 0", b"")
        }),
        ("to no URL", Permanent, "redirects to what is no URL", |_, stream, _| {
            say(stream, "302 Found\nLocation: http://[::\nContent-Length: 0", b"")
        }),
        ("to itself", Permanent, "more than 10 times", |asked, stream, _| {
            say(stream, &format!("307 Again\nLocation: {}\nContent-Length: 0", asked.path), b"")
        }),
        ("further and further", Permanent, "more than 10 times", |asked, stream, _| {
            say(stream, &format!("301 On\nLocation: {}x\nContent-Length: 0", asked.path), b"")
        }),
        ("a redirect to nowhere", Permanent, "status 302", |_, stream, _| {
            say(stream, "302 Found\nContent-Length: 0", b"")
        }),
    ];
    all_refused(lies).await;
}

#[tokio::test]
async fn lies_in_heads_are_named() {
    use FailureClass::Transient;
    let lies: &[Lasting] = &[
        ("a flood of fields", Transient, "head is too large", |_, stream, _| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            for number in 0..1_000_000 {
                stream.write_all(format!("X-{number}: {}\r\n", "y".repeat(1000)).as_bytes())?;
            }
            Ok(())
        }),
        ("a flood of 103", Transient, "nothing came", |_, stream, _| {
            loop {
                stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")?;
                // Fast enough to have no end, slow enough for a test that is not optimized.
                std::thread::sleep(Duration::from_millis(1));
            }
        }),
        ("silence", Transient, "nothing came", |_, stream, _| wait_for_end(stream)),
        ("304", Transient, "not modified", |_, stream, _| say(stream, "304 Not Modified", b"")),
        ("a day from now", Transient, "status 503", |_, stream, _| {
            say(stream, "503 Busy\nRetry-After: 86400\nContent-Length: 0", b"")
        }),
        ("never", Transient, "status 503", |_, stream, _| {
            let head = "503 Busy\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\nContent-Length: 0";
            say(stream, head, b"")
        }),
    ];
    all_refused(lies).await;
}

async fn all_refused(lies: &[Lasting]) {
    for (name, class, says, lie) in lies {
        let server = lying(*lie);
        let trial = refused(name, &server, *class, says);
        let ended = tokio::time::timeout(Duration::from_mins(1), Box::pin(trial)).await;
        assert!(ended.is_ok(), "{name}: it has no end");
    }
}

#[tokio::test]
async fn names_and_lengths_from_the_server_change_nothing() {
    let lies: &[Lie] = &[
        |_, stream, bytes| {
            let name = "Content-Disposition: attachment; filename=\"../../escaped\"";
            say(stream, &format!("200 OK\n{name}\nContent-Length: 50000"), bytes)
        },
        |_, stream, bytes| {
            say(stream, "200 OK\nContent-Length: 50000", bytes)?;
            stream.write_all(b"and more than that")
        },
        |_, stream, bytes| {
            stream.write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(20))?;
            say(stream, "200 OK\nContent-Length: 50000", bytes)
        },
    ];
    for lie in lies {
        let dir = room();
        let server = lying(*lie);
        assert_arrived(fetch(&dir, FetchRequest::new(server.url("/f"))).await, &file());
        assert!(!dir.path().join("../../escaped").exists());
    }
}

#[tokio::test]
async fn a_file_that_is_kept_compressed_comes_as_it_is() {
    let server = lying(|_, stream, bytes| {
        say(stream, "200 OK\nContent-Encoding: x-gzip\nContent-Length: 50000", bytes)
    });
    assert_arrived(fetch(&room(), FetchRequest::new(server.url("/r.fq.gz"))).await, &file());
    fetch(&room(), FetchRequest::new(server.url("/r.fq"))).await.expect_err("it is not the file");
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_origin() {
    let other = lying(|_, stream, _| say(stream, "200 OK\nContent-Length: 2", b"ok"));
    let target = other.url("/elsewhere");
    let first = Raw::start(move |asked, _, stream| match &*asked.path {
        "/same" => say(stream, "302 Found\nLocation: /out\nContent-Length: 0", b""),
        _ => say(stream, &format!("302 Found\nLocation: {target}\nContent-Length: 0"), b""),
    });
    let headers = [("X-Api-Key".to_owned(), Secret::new("key1"))].into();
    let entry = |scope: String| Credential {
        scope,
        token: Some(Secret::new("token1")),
        headers: std::collections::BTreeMap::clone(&headers),
        ..Credential::default()
    };
    let credentials = Credentials::new([entry(first.url("/")), entry(other.url("/"))]);
    let dir = room();
    let stager = Stager::new(StagingConfig { credentials, ..config(dir.path()) }).expect("one");
    assert_arrived(stager.fetch(FetchRequest::new(first.url("/same"))).await, b"ok");
    let with_user = first.url("/same").replace("http://", "http://ann:secret1@");
    assert_arrived(stager.fetch(FetchRequest::new(with_user)).await, b"ok");
    let said = |asked: &Asked| asked.header("authorization").map(str::to_owned);
    let (at_first, at_other) = (first.asked(), other.asked());
    let bearer = Some("Bearer token1".to_owned());
    let basic = Some("Basic YW5uOnNlY3JldDE=".to_owned());
    let sent: Vec<_> = at_first.iter().map(said).collect();
    assert_eq!(sent, [bearer.clone(), bearer, basic.clone(), basic]);
    assert!(at_first.iter().all(|asked| asked.header("x-api-key") == Some("key1")));
    assert_eq!(at_other.len(), 2);
    for asked in at_other {
        let text = format!("{asked:?}");
        assert!(said(&asked).is_none(), "{text}");
        assert!(!["key1", "token1", "secret1"].iter().any(|one| text.contains(one)), "{text}");
    }
}

#[tokio::test]
async fn a_token_that_was_renewed_in_mid_run_is_used() {
    let dir = room();
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "old\n").expect("a token");
    let renewed = token_file.clone();
    let server = Raw::start(move |asked, _, stream| {
        if asked.header("authorization") == Some("Bearer new") {
            return honest(stream, asked, "\"a\"", &file());
        }
        std::fs::write(&renewed, "new\n")?;
        say(stream, "401 Unauthorized\nContent-Length: 0", b"")
    });
    let scope = server.url("/");
    let entry = Credential { scope, token_file: Some(token_file), ..Credential::default() };
    let credentials = Credentials::new([entry]);
    let place = dir.path().join("partial");
    let stager = Stager::new(StagingConfig { credentials, ..config(&place) }).expect("one");
    assert_arrived(stager.fetch(FetchRequest::new(server.url("/a"))).await, &file());
    assert_eq!(server.asked().len(), 2, "asked once more with the new token");
}

#[tokio::test]
async fn refused_credentials_are_named_by_their_scope_and_asked_with_once() {
    let server = lying(|_, stream, _| say(stream, "401 Unauthorized\nContent-Length: 0", b""));
    let entry = Credential {
        scope: server.url("/data"),
        token: Some(Secret::new("token1")),
        ..Credential::default()
    };
    let dir = room();
    let credentials = Credentials::new([entry]);
    let stager = Stager::new(StagingConfig { credentials, ..config(dir.path()) }).expect("one");
    let refused = async |path: &str| {
        let error = stager.fetch(FetchRequest::new(server.url(path))).await.expect_err("401");
        error.to_string()
    };
    let text = refused("/data/x").await;
    assert!(text.contains(&format!("the credentials for {}", server.url("/data"))), "{text}");
    assert!(!text.contains("token1"), "{text}");
    let text = refused("/open").await;
    assert!(text.contains("asked without credentials"), "{text}");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn private_machines_can_be_denied() {
    let server = lying(|asked, stream, bytes| honest(stream, asked, "\"a\"", bytes));
    let port = server.url("").rsplit(':').next().expect("a port").to_owned();
    let http = HttpConfig { address_policy: AddressPolicy::Public, ..HttpConfig::default() };
    let dir = room();
    let stager = Stager::new(StagingConfig { http, ..config(dir.path()) }).expect("one");
    for host in ["127.0.0.1", "localhost", "127.1", "0x7f000001", "[::ffff:127.0.0.1]"] {
        for scheme in ["http", "ftp", "ftps", "sftp"] {
            let address = format!("{scheme}://somebody@{host}:{port}/x");
            let error = stager.fetch(FetchRequest::new(address)).await.expect_err(host);
            let text = format!("{scheme}, {host}: {error}");
            assert_eq!(error.failure.class, FailureClass::Permanent, "{text}");
            assert!(text.contains("no public address"), "{text}");
        }
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn tls_is_not_left_by_a_redirect() {
    let Some(servers) = Servers::get() else { return };
    servers.put("unsafe", b"x");
    let http =
        HttpConfig { extra_ca: Some(servers.value("HTTP_CA").into()), ..HttpConfig::default() };
    let dir = room();
    let stager = Stager::new(StagingConfig { http, ..config(dir.path()) }).expect("one");
    let address = format!("{}/unsafe/unsafe", servers.value("HTTPS_URL"));
    let error = stager.fetch(FetchRequest::new(address)).await.expect_err("to http");
    assert!(error.to_string().contains("from https to http"), "{error}");
    assert_arrived(stager.fetch(FetchRequest::new(servers.plain("/unsafe/unsafe"))).await, b"x");
}

/// A thousand files, each replaced by another one somewhere on the way.
#[tokio::test]
async fn a_file_that_is_replaced_on_the_way_is_never_mixed() {
    let versions = Arc::new([noise(71, 40_000), noise(72, 40_000), noise(73, 30_001)]);
    let served = Arc::clone(&versions);
    let server = Raw::start(move |asked, number, stream| {
        // Which version, and where it is cut, change from request to request.
        let version = number / 2 % 3;
        let (tag, bytes) = (format!("\"{version}\""), &served[version]);
        if number % 4 == 3 {
            return honest(stream, asked, &tag, bytes);
        }
        let first = asked.range().filter(|_| asked.header("if-range") == Some(&tag));
        let (first, _) = first.unwrap_or_default();
        let cut = (first + 1 + number * 7919 % 30_000).min(bytes.len());
        let (total, last) = (bytes.len(), bytes.len() - 1);
        let head = match first {
            0 => format!("200 OK\nETag: {tag}\nContent-Length: {total}"),
            _ => format!(
                "206 Partial Content\nETag: {tag}\nContent-Range: bytes {first}-{last}/{total}"
            ),
        };
        say(stream, &head, &bytes[first..cut])
    });
    let dir = room();
    let mut patient = config(dir.path());
    patient.retry.tries_max = 100;
    patient.retry.wait_min = Duration::from_micros(100);
    patient.retry.wait_max = Duration::from_micros(200);
    let stager = Stager::new(patient).expect("one");
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
    assert!(arrived > 300, "only {arrived} of 1000 came at all");
    let asked = server.asked().len();
    assert!(asked > 1500, "{asked} requests: they were not cut");
}
