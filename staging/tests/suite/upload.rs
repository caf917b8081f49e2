//! Writing over HTTP, lists of directories, and HTTP/2.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelboat_engine::{Content, Digest, FailureClass, Kind};
use keelboat_staging::{
    Credential, Credentials, Depth, Entry, FetchRequest, HttpConfig, HttpProtocol, Proof, Protocol,
    PutRequest, Secret, Sent, Stager, StagingConfig, TransferError, Validators, Writing,
};

use super::conformance::{Place, conformance};
use crate::common::raw::{Asked, Raw, say};
use crate::common::{Servers, assert_arrived, config, escaped, noise, room};

fn http(servers: &Servers) -> HttpConfig {
    HttpConfig { extra_ca: Some(servers.value("HTTP_CA").into()), ..HttpConfig::default() }
}

/// The user that nginx knows, for both of its origins.
fn credentials(servers: &Servers) -> Credentials {
    Credentials::new(["HTTP_URL", "HTTPS_URL"].map(|base| Credential {
        scope: servers.value(base).to_owned(),
        user: Some(servers.value("HTTP_USER").to_owned()),
        password: Some(Secret::new(servers.value("HTTP_PASSWORD"))),
        ..Credential::default()
    }))
}

fn protocol(servers: &Servers) -> HttpProtocol {
    HttpProtocol::new(&http(servers)).expect("a client").with_credentials(credentials(servers))
}

fn plain() -> HttpProtocol {
    HttpProtocol::new(&HttpConfig::default()).expect("a client")
}

fn outgoing(dir: &Path, address: &str, bytes: &[u8]) -> PutRequest {
    let source = dir.join("source");
    std::fs::write(&source, bytes).expect("a file");
    let (digest, bytes) = (Digest::of(bytes), bytes.len() as u64);
    PutRequest {
        address: address.into(),
        source,
        content: Content { digest, bytes, kind: Kind::File },
        resume: false,
        sent: Sent::default(),
    }
}

fn in_dav(servers: &Servers, name: &str) -> PathBuf {
    Path::new(servers.value("HTTP_ROOT")).join("dav").join(name)
}

#[tokio::test]
async fn files_are_put_and_removed() {
    let Some(servers) = Servers::get() else { return };
    let (dir, protocol) = (room(), protocol(&servers));
    assert_eq!(protocol.writing(), Writing::Whole);
    for base in ["HTTP_URL", "HTTPS_URL"] {
        let address = format!("{}/dav/{base}/deep/er/a%20b", servers.value(base));
        let path = in_dav(&servers, &format!("{base}/deep/er/a b"));
        for (seed, bytes) in [(90, 9_000_001), (91, 0), (92, 262_144)] {
            let bytes = noise(seed, bytes);
            let request = outgoing(dir.path(), &address, &bytes);
            assert_eq!(protocol.put(&request).await, Ok(Proof::Unchecked));
            assert_eq!(std::fs::read(&path).expect("it is there"), bytes);
            assert_eq!(request.sent.get(), bytes.len() as u64);
        }
        protocol.remove(&address).await.expect("removed");
        assert!(!path.exists());
        protocol.remove(&address).await.expect("it is gone already");
        let tree = format!("{}/dav/{base}", servers.value(base));
        protocol.remove(&tree).await.expect("removed with all below it");
        assert!(!in_dav(&servers, base).exists());
    }
}

#[tokio::test]
async fn what_cannot_be_written_says_why() {
    let Some(servers) = Servers::get() else { return };
    let dir = room();
    let address = servers.plain("/dav/refused");
    let request = outgoing(dir.path(), &address, &noise(93, 3_000_000));
    let error = plain().put(&request).await.expect_err("nobody");
    assert!(matches!(&error, TransferError::Forbidden { found } if found.contains("without")));
    let elsewhere = outgoing(dir.path(), &servers.plain("/files/refused"), b"x");
    let error = protocol(&servers).put(&elsewhere).await.expect_err("no PUT there");
    assert_eq!(error.class(), FailureClass::Permanent, "{error}");
    assert!(error.to_string().contains("405") && error.hint().contains("PUT"), "{error}");
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_does_not_arrive() {
    let Some(servers) = Servers::get() else { return };
    let (dir, bytes) = (room(), noise(94, 2_000_000));
    let address = servers.plain("/dav/changed");
    let damages: &[fn(&mut Vec<u8>)] =
        &[|bytes| bytes[1_999_999] ^= 1, |bytes| bytes.truncate(1_000_000), |bytes| bytes.push(0)];
    for damage in damages {
        let request = outgoing(dir.path(), &address, &bytes);
        let mut changed = bytes.clone();
        damage(&mut changed);
        std::fs::write(&request.source, changed).expect("written");
        let error = protocol(&servers).put(&request).await.expect_err("it changed");
        assert!(error.to_string().contains("changed while it was sent"), "{error}");
        assert!(!in_dav(&servers, "changed").exists());
    }
    let mut request = outgoing(dir.path(), &address, b"");
    request.source = dir.path().join("missing");
    let error = protocol(&servers).put(&request).await.expect_err("nothing to send");
    assert!(error.to_string().contains("cannot read"), "{error}");
}

/// What was asked, in short.
fn lines(server: &Raw) -> Vec<String> {
    server.asked().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
}

#[tokio::test]
async fn collections_above_are_made_where_the_server_lacks_them() {
    let made = std::sync::Mutex::new(vec!["/a/".to_owned()]);
    let server = Raw::start(move |asked: &Asked, _, stream| {
        let mut made = made.lock().expect("no panic");
        let above =
            asked.path.trim_end_matches('/').rsplit_once('/').map_or("", |(above, _)| above);
        let status = match &*asked.method {
            _ if !made.contains(&format!("{above}/")) => "409 Conflict",
            "MKCOL" if made.contains(&asked.path) => "405 There",
            "MKCOL" => {
                made.push(asked.path.clone());
                "201 Created"
            }
            _ => "201 Created",
        };
        say(stream, &format!("{status}\nContent-Length: 0"), b"")
    });
    let dir = room();
    let request = outgoing(dir.path(), &server.url("/a/b/c/file"), b"bytes");
    plain().put(&request).await.expect("written");
    let expected =
        ["PUT /a/b/c/file", "MKCOL /a/b/c/", "MKCOL /a/b/", "MKCOL /a/b/c/", "PUT /a/b/c/file"];
    assert_eq!(lines(&server), expected);
    assert_eq!(server.asked()[4].body, b"bytes");
    let lonely = Raw::start(|_, _, stream| say(stream, "409 Conflict\nContent-Length: 0", b""));
    let request = outgoing(dir.path(), &lonely.url("/a/b/file"), b"bytes");
    let error = plain().put(&request).await.expect_err("it makes none");
    assert!(error.hint().contains("directory above"), "{error}");
}

#[tokio::test]
async fn what_is_written_is_sent_on_within_its_origin_only() {
    let other = Raw::start(|_, _, stream| say(stream, "201 Created\nContent-Length: 0", b""));
    let elsewhere = other.url("/x");
    let server = Raw::start(move |asked: &Asked, _, stream| {
        let head = match &*asked.path {
            "/near" => "307 On\nLocation: /here".to_owned(),
            "/far" => format!("308 On\nLocation: {elsewhere}"),
            "/found" => "302 Found\nLocation: /here".to_owned(),
            _ => "201 Created".to_owned(),
        };
        say(stream, &format!("{head}\nContent-Length: 0"), b"")
    });
    let dir = room();
    plain().put(&outgoing(dir.path(), &server.url("/near"), b"one")).await.expect("written");
    assert_eq!(server.asked()[1].body, b"one");
    for path in ["/far", "/found"] {
        let request = outgoing(dir.path(), &server.url(path), b"two");
        let error = plain().put(&request).await.expect_err(path);
        assert_eq!(error.class(), FailureClass::Permanent, "{error}");
        assert!(error.to_string().contains("redirects") || error.hint().contains("redirects"));
    }
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn the_digest_that_a_server_says_is_compared() {
    use base64::Engine as _;
    let digest =
        |bytes: &[u8]| base64::prelude::BASE64_STANDARD.encode(Digest::of(bytes).as_bytes());
    let (right, wrong) = (digest(b"bytes"), digest(b"other"));
    let server = Raw::start(move |asked: &Asked, _, stream| {
        let field = match &*asked.path {
            "/right" => format!("Repr-Digest: sha-256=:{right}:"),
            "/older" => format!("Digest: SHA-256={right}"),
            _ => format!("Repr-Digest: sha-256=:{wrong}:"),
        };
        say(stream, &format!("200 OK\n{field}\nContent-Length: 0"), b"")
    });
    let dir = room();
    let checked = || Proof::Checked(Validators::default());
    for (path, expected) in [
        ("/right", checked()),
        ("/older", checked()),
        // It may be of the answer's own body: whoever asked reads the file back.
        ("/another", Proof::Unchecked),
    ] {
        let request = outgoing(dir.path(), &server.url(path), b"bytes");
        assert_eq!(plain().put(&request).await, Ok(expected), "{path}");
    }
}

#[tokio::test]
async fn a_write_goes_on_with_a_renewed_token() {
    let dir = room();
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "old").expect("a token");
    let renewed = token_file.clone();
    let server = Raw::start(move |asked: &Asked, _, stream| {
        if asked.header("authorization") == Some("Bearer new") {
            return say(stream, "201 Created\nContent-Length: 0", b"");
        }
        std::fs::write(&renewed, "new")?;
        say(stream, "401 Unauthorized\nContent-Length: 0", b"")
    });
    let scope = server.url("/");
    let entry = Credential { scope, token_file: Some(token_file), ..Credential::default() };
    let protocol = plain().with_credentials(Credentials::new([entry]));
    let bytes = noise(95, 700_000);
    protocol.put(&outgoing(dir.path(), &server.url("/x"), &bytes)).await.expect("written");
    assert_eq!(server.asked()[1].body, bytes, "all of it again");
}

#[tokio::test]
async fn directories_are_listed_where_nginx_says_json() {
    let Some(servers) = Servers::get() else { return };
    for name in ["list/a b%", "list/deep/x", "list/deep/er/y"] {
        servers.put(name, name.as_bytes());
    }
    let dir = room();
    let stager = Stager::new(config(dir.path())).expect("a stager");
    let list = async |path: &str, depth| {
        let mut entries = stager.list(&servers.plain(path), depth).await?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok::<Vec<Entry>, keelboat_staging::FetchError>(entries)
    };
    let names = |entries: &[Entry]| -> Vec<String> {
        entries.iter().map(|entry| format!("{} {:?}", entry.path, entry.length)).collect()
    };
    let found = list("/json/list", Depth::All).await.expect("a list");
    let expected =
        ["a b% Some(9)", "deep None", "deep/er None", "deep/er/y Some(14)", "deep/x Some(11)"];
    assert_eq!(names(&found), expected);
    let found = list("/json/list/", Depth::One).await.expect("a list");
    assert_eq!(names(&found), ["a b% Some(9)", "deep None"]);
    assert!(found.iter().all(|one| one.length.is_none() || !one.validators.is_empty()));
    let error = list("/files/list/", Depth::One).await.expect_err("a page for people");
    assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    let error = list("/json/list/none/", Depth::One).await.expect_err("no such directory");
    assert_eq!(error.failure.class, FailureClass::InputMissing, "{error}");
}

#[tokio::test]
async fn lists_that_name_what_is_outside_are_refused() {
    for name in ["../x", "..", ".", "a/b", "", "a\\\\b", "a\\u0000b"] {
        let list = format!("[{{\"name\":\"{name}\",\"type\":\"file\",\"size\":1}}]");
        let server = Raw::start(move |_, _, stream| {
            say(stream, "200 OK\nContent-Type: application/json", list.as_bytes())
        });
        let dir = room();
        let stager = Stager::new(config(dir.path())).expect("a stager");
        let error = stager.list(&server.url("/d/"), Depth::One).await.expect_err(name);
        assert_eq!(error.failure.class, FailureClass::Permanent, "{name}: {error}");
    }
}

#[tokio::test]
async fn https_is_http_2_where_the_server_has_it() {
    let Some(servers) = Servers::get() else { return };
    let bytes = noise(96, 20_000_000);
    servers.put("second", &bytes);
    let dir = room();
    let limits = StagingConfig { http: http(&servers), ..config(dir.path()) };
    let stager = Stager::new(limits).expect("a stager");
    let address = format!("{}/files/second", servers.value("HTTPS_URL"));
    assert_arrived(stager.fetch(FetchRequest::new(address)).await, &bytes);
    let log = Path::new(servers.value("HTTP_ROOT")).with_file_name("log/nginx-access.log");
    let logged = std::fs::read_to_string(log).expect("nginx's log");
    assert!(logged.contains("GET /files/second HTTP/2.0\" 200"), "{logged}");
}

struct Secured(Arc<Servers>);

impl Place for Secured {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(protocol(&self.0))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let name = format!("secured{name}");
        self.0.put(&name, bytes);
        let name: Vec<String> = name.split('/').map(escaped).collect();
        format!("{}/private/{}", self.0.value("HTTPS_URL"), name.join("/"))
    }

    fn remove(&self, name: &str) {
        self.0.remove(&format!("secured{name}"));
    }

    fn forbidden(&self) -> Option<String> {
        Some(format!("{}/token/secured", self.0.value("HTTPS_URL")))
    }

    /// They do not name the certificate to trust.
    fn environment(&self) -> Option<Vec<(String, String)>> {
        None
    }
}

#[tokio::test]
async fn http_conforms_over_tls_and_with_credentials() {
    let Some(servers) = Servers::get() else { return };
    conformance(Secured(servers)).await;
}
