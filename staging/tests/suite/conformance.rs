//! What every protocol has to pass. A new one implements [`Place`] and is added at the end.

use std::path::PathBuf;
use std::sync::Arc;

use keelboat_engine::{Digest, FailureClass};
use keelboat_staging::{
    FetchError, FetchRequest, Fetched, Fetcher, FileProtocol, HttpConfig, HttpProtocol, Known,
    Protocol, address_digest,
};

use crate::common::flaky::{Fault, Flaky};
use crate::common::{Servers, assert_arrived, config, noise, room};

/// Where files are put so that a protocol can fetch them.
trait Place {
    fn protocol(&self) -> Arc<dyn Protocol>;
    /// Puts a file there: where it lies on this machine, and its address.
    fn put(&self, name: &str, bytes: &[u8]) -> (PathBuf, String);
    /// An address of a file that exists and is refused, where that can be had.
    fn forbidden(&self) -> Option<String>;
}

async fn fetch(place: &dyn Place, faults: Vec<Fault>, request: FetchRequest) -> Outcome {
    let dir = room();
    let flaky: Arc<dyn Protocol> = Arc::new(Flaky::new(place.protocol(), faults));
    let fetcher = Fetcher::with_protocols(config(dir.path()), vec![flaky]);
    let result = fetcher.fetch(request).await;
    Outcome { result, _dir: dir }
}

/// How it ended, with the directory that the file is in.
struct Outcome {
    result: Result<Fetched, FetchError>,
    _dir: tempfile::TempDir,
}

impl Outcome {
    fn assert_arrived(self, expected: &[u8]) -> u64 {
        assert_arrived(self.result, expected)
    }

    fn error(self) -> FetchError {
        self.result.expect_err("it fails")
    }
}

async fn conformance(place: &dyn Place) {
    for name in
        ["plain", "a b", "100%", "q?x=y#z", "naïve-日本", "it's \"q\"", "line\nbreak", "+&;"]
    {
        let (_, address) = place.put(name, name.as_bytes());
        fetch(place, vec![], FetchRequest::new(address)).await.assert_arrived(name.as_bytes());
    }
    let (_, address) = place.put("empty", b"");
    fetch(place, vec![], FetchRequest::new(address)).await.assert_arrived(b"");
    let large = noise(1, 64 << 20);
    let (path, address) = place.put("large", &large);
    fetch(place, vec![], FetchRequest::new(address)).await.assert_arrived(&large);
    std::fs::remove_file(path).expect("removed");
    refusals(place).await;
    cuts(place).await;
    changes(place).await;
    known(place).await;
}

async fn refusals(place: &dyn Place) {
    let (path, address) = place.put("gone", b"x");
    std::fs::remove_file(path).expect("removed");
    let error = fetch(place, vec![], FetchRequest::new(address)).await.error();
    assert_eq!(error.failure.class, FailureClass::InputMissing, "{error}");
    if let Some(address) = place.forbidden() {
        let error = fetch(place, vec![], FetchRequest::new(address)).await.error();
        assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    }
    let (_, address) = place.put("other", b"other bytes");
    let request = FetchRequest::new(address).expecting(Digest::of(b"these bytes"));
    let error = fetch(place, vec![], request).await.error();
    assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    assert!(error.to_string().contains(&Digest::of(b"other bytes").short()), "{error}");
}

async fn cuts(place: &dyn Place) {
    let bytes = noise(2, 200_000);
    let (_, address) = place.put("cut", &bytes);
    for tenth in 0..10 {
        let fault = Fault::cut(tenth * 20_000);
        let outcome = fetch(place, vec![fault], FetchRequest::new(&*address)).await;
        assert_eq!(outcome.assert_arrived(&bytes), 200_000, "cut at tenth {tenth}");
    }
    let every_tenth = (0..10).map(|_| Fault::cut(20_000)).collect();
    let outcome = fetch(place, every_tenth, FetchRequest::new(&*address)).await;
    assert_eq!(outcome.assert_arrived(&bytes), 200_000);
    let stalls = vec![Fault::Stall(0), Fault::Stall(70_000)];
    fetch(place, stalls, FetchRequest::new(&*address)).await.assert_arrived(&bytes);
    let forever = (0..4).map(|_| Fault::Stall(0)).collect();
    let error = fetch(place, forever, FetchRequest::new(address)).await.error();
    assert_eq!(error.failure.class, FailureClass::Transient, "{error}");
}

async fn changes(place: &dyn Place) {
    let (old, new) = (noise(3, 150_000), noise(4, 160_001));
    let (path, address) = place.put("changing", &old);
    let replacement = new.clone();
    let replace = Fault::Cut(
        70_000,
        Box::new(move || {
            std::fs::write(path, replacement).expect("replaced");
        }),
    );
    fetch(place, vec![replace], FetchRequest::new(address)).await.assert_arrived(&new);
}

async fn known(place: &dyn Place) {
    let (_, address) = place.put("known", b"first");
    let first = fetch(place, vec![], FetchRequest::new(&*address)).await;
    let Ok(Fetched::New { content, etag, last_modified, source_used, .. }) = first.result else {
        panic!("a file was expected to come");
    };
    let source = Some(address_digest(&source_used));
    let known = Known { content, etag, last_modified, source };
    let request = FetchRequest::new(&*address).knowing(known);
    let again = fetch(place, vec![], request.clone()).await.result;
    assert_eq!(again, Ok(Fetched::Unchanged));
    place.put("known", b"and second");
    fetch(place, vec![], request).await.assert_arrived(b"and second");
}

struct Files(tempfile::TempDir);

impl Place for Files {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(FileProtocol)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> (PathBuf, String) {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        let address = path.to_str().expect("text").to_owned();
        (path, address)
    }

    fn forbidden(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        let (path, address) = self.put("forbidden", b"x");
        let mode = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(&path, mode).expect("a mode");
        // Root may read everything.
        std::fs::File::open(path).is_err().then_some(address)
    }
}

struct Http {
    servers: Arc<Servers>,
    prefix: &'static str,
}

impl Place for Http {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(HttpProtocol::new(&HttpConfig::default()).expect("a client"))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> (PathBuf, String) {
        let name = format!("conformance{}{name}", self.prefix.trim_matches('/'));
        let path = self.servers.put(&name, bytes);
        let escape = |byte: &u8| match byte {
            b if b.is_ascii_alphanumeric() => char::from(*b).to_string(),
            b => format!("%{b:02X}"),
        };
        let name: String = name.as_bytes().iter().map(escape).collect();
        let base = if self.prefix == "/f/" { "FLAKY_URL" } else { "HTTP_URL" };
        (path, format!("{}{}{name}", self.servers.value(base), self.prefix))
    }

    fn forbidden(&self) -> Option<String> {
        Some(self.servers.plain("/private/conformance"))
    }
}

#[tokio::test]
async fn file_conforms() {
    conformance(&Files(room())).await;
}

#[tokio::test]
async fn http_conforms_with_nginx() {
    let Some(servers) = Servers::get() else { return };
    conformance(&Http { servers, prefix: "/files/" }).await;
}

#[tokio::test]
async fn http_conforms_with_a_simple_server() {
    let Some(servers) = Servers::get() else { return };
    conformance(&Http { servers, prefix: "/f/" }).await;
}
