//! What every protocol has to pass. A new one implements [`Place`] and is added at the end.
//!
//! Globus moves files by itself, so what is done to streams here does not apply to it: it has
//! tests of its own.

mod directories;
mod killed;
mod limits;
pub(crate) mod sparse;

use std::path::PathBuf;
use std::sync::Arc;

use keelboat_engine::{Digest, FailureClass};
use keelboat_staging::{
    FetchError, FetchRequest, Fetched, FileProtocol, HttpConfig, HttpProtocol, Known, Protocol,
    Stager, address_digest,
};

use crate::common::buckets::Buckets;
use crate::common::flaky::{Fault, Flaky};
use crate::common::{Servers, assert_arrived, config, escaped, noise, room};

/// Where files are put so that a protocol can fetch them.
pub(crate) trait Place: Send + Sync {
    fn protocol(&self) -> Arc<dyn Protocol>;
    /// Puts a file there, in the place of an older one, and says its address.
    fn put(&self, name: &str, bytes: &[u8]) -> String;
    fn remove(&self, name: &str);
    /// An address of a file that exists and is refused, where that can be had.
    fn forbidden(&self) -> Option<String>;
    /// Whether a file can have this name there.
    fn can_name(&self, _name: &str) -> bool {
        true
    }
    /// Whether directories can be listed.
    fn can_list(&self) -> bool {
        true
    }
    /// Where a file of this name is on this machine, if it is one.
    fn path(&self, _name: &str) -> Option<PathBuf> {
        None
    }
    /// The variables with which another process gets there; `None`: not by variables alone.
    fn environment(&self) -> Option<Vec<(String, String)>> {
        Some(Vec::new())
    }
}

async fn fetch(place: &dyn Place, faults: Vec<Fault>, request: FetchRequest) -> Outcome {
    let dir = room();
    let flaky: Arc<dyn Protocol> = Arc::new(Flaky::new(place.protocol(), faults));
    let fetcher = Stager::with_protocols(config(dir.path()), vec![flaky], vec![]);
    let result = fetcher.fetch(request).await;
    Outcome { result, _dir: dir }
}

/// How it ended, with the directory that the file is in.
pub(crate) struct Outcome {
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

pub(crate) async fn conformance(place: impl Place + 'static) {
    let shared: Arc<dyn Place> = Arc::new(place);
    let place = &*shared;
    for name in
        ["plain", "a b", "100%", "q?x=y#z", "naïve-日本", "it's \"q\"", "line\nbreak", "+&;"]
    {
        if !place.can_name(name) {
            continue;
        }
        let address = place.put(name, name.as_bytes());
        fetch(place, vec![], FetchRequest::new(address)).await.assert_arrived(name.as_bytes());
    }
    let address = place.put("empty", b"");
    fetch(place, vec![], FetchRequest::new(address)).await.assert_arrived(b"");
    let large = noise(1, 64 << 20);
    let address = place.put("large", &large);
    fetch(place, vec![], FetchRequest::new(address)).await.assert_arrived(&large);
    place.remove("large");
    refusals(place).await;
    cuts(place).await;
    changes(&shared).await;
    known(place).await;
    limits::limits(place).await;
    directories::directories(place).await;
    killed::killed(place).await;
}

async fn refusals(place: &dyn Place) {
    let address = place.put("gone", b"x");
    place.remove("gone");
    let error = fetch(place, vec![], FetchRequest::new(address)).await.error();
    assert_eq!(error.failure.class, FailureClass::InputMissing, "{error}");
    if let Some(address) = place.forbidden() {
        let error = fetch(place, vec![], FetchRequest::new(address)).await.error();
        assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    }
    let address = place.put("other", b"other bytes");
    let request = FetchRequest::new(address).expecting(Digest::of(b"these bytes"));
    let error = fetch(place, vec![], request).await.error();
    assert_eq!(error.failure.class, FailureClass::Permanent, "{error}");
    assert!(error.to_string().contains(&Digest::of(b"other bytes").short()), "{error}");
}

async fn cuts(place: &dyn Place) {
    let bytes = noise(2, 200_000);
    let address = place.put("cut", &bytes);
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

async fn changes(place: &Arc<dyn Place>) {
    let (old, new) = (noise(3, 150_000), noise(4, 160_001));
    let address = place.put("changing", &old);
    let (there, replacement) = (Arc::clone(place), new.clone());
    let replace = Fault::Cut(
        70_000,
        Box::new(move || {
            there.put("changing", &replacement);
        }),
    );
    fetch(&**place, vec![replace], FetchRequest::new(address)).await.assert_arrived(&new);
}

async fn known(place: &dyn Place) {
    let address = place.put("known", b"first");
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

pub(crate) struct Files(tempfile::TempDir);

impl Place for Files {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(FileProtocol)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, bytes).expect("a file");
        path.to_str().expect("text").to_owned()
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).expect("removed");
    }

    fn forbidden(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        let address = self.put("forbidden", b"x");
        let mode = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(&address, mode).expect("a mode");
        // Root may read everything.
        std::fs::File::open(&address).is_err().then_some(address)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.0.path().join(name))
    }
}

struct Http {
    servers: Arc<Servers>,
    prefix: &'static str,
}

impl Http {
    /// Both servers serve one directory.
    fn name(&self, name: &str) -> String {
        format!("conformance{}{name}", self.prefix.trim_matches('/'))
    }
}

impl Place for Http {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(HttpProtocol::new(&HttpConfig::default()).expect("a client"))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let name = self.name(name);
        self.servers.put(&name, bytes);
        let base = if self.prefix == "/f/" { "FLAKY_URL" } else { "HTTP_URL" };
        let name: Vec<String> = name.split('/').map(escaped).collect();
        format!("{}{}{}", self.servers.value(base), self.prefix, name.join("/"))
    }

    fn remove(&self, name: &str) {
        self.servers.remove(&self.name(name));
    }

    fn forbidden(&self) -> Option<String> {
        Some(self.servers.plain("/private/conformance"))
    }

    fn can_list(&self) -> bool {
        self.prefix == "/json/"
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.servers.path(&self.name(name)))
    }
}

impl Place for Buckets {
    fn protocol(&self) -> Arc<dyn Protocol> {
        self.protocol()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        self.put(name, bytes)
    }

    fn remove(&self, name: &str) {
        self.remove(name);
    }

    /// Refusals depend on credentials here: they have tests of their own.
    fn forbidden(&self) -> Option<String> {
        None
    }

    fn can_name(&self, name: &str) -> bool {
        !name.contains(char::is_control)
    }

    fn environment(&self) -> Option<Vec<(String, String)>> {
        Some(self.variables())
    }
}

#[tokio::test]
async fn file_conforms() {
    conformance(Files(room())).await;
}

#[tokio::test]
async fn http_conforms_with_nginx() {
    let Some(servers) = Servers::get() else { return };
    conformance(Http { servers, prefix: "/json/" }).await;
}

#[tokio::test]
async fn http_conforms_with_a_simple_server() {
    let Some(servers) = Servers::get() else { return };
    conformance(Http { servers, prefix: "/f/" }).await;
}

#[tokio::test]
async fn buckets_conform_with_moto() {
    let Some(buckets) = Buckets::get() else { return };
    conformance(buckets).await;
}
