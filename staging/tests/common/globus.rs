//! A fake of Globus with two collections: one elsewhere, and one of this machine.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keelboat_engine::Kind;
use keelboat_staging::{
    Credential, Credentials, Errand, Globus, GlobusConfig, LocalCollection, Progress, RetryBudget,
    Secret, TransferEvent,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{start, stop};

/// Scope of a collection's own consent.
pub(crate) fn data_access(collection: &str) -> String {
    format!("https://auth.globus.org/scopes/{collection}/data_access")
}

/// The fake, until the test lets go of it.
#[derive(Debug)]
pub(crate) struct FakeGlobus {
    dir: TempDir,
    values: BTreeMap<String, String>,
}

impl FakeGlobus {
    /// `None`, said aloud, when it cannot run here.
    pub(crate) fn get() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let values = start("globus.sh", dir.path())?;
        let fake = Self { dir, values };
        // It tries again after this long.
        fake.control(&json!({"retry_interval": 0.05}));
        Some(fake)
    }

    pub(crate) fn value(&self, key: &str) -> &str {
        self.values.get(key).unwrap_or_else(|| panic!("{key} is not among {:?}", self.values))
    }

    /// A place of this test's own that goes with it.
    pub(crate) fn room(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory of this machine that the local collection shows.
    pub(crate) fn here(&self, name: &str) -> PathBuf {
        Path::new(self.value("GLOBUS_B_ROOT")).join(name)
    }

    /// The path of a file on the collection elsewhere.
    pub(crate) fn there(&self, name: &str) -> PathBuf {
        Path::new(self.value("GLOBUS_A_ROOT")).join(name)
    }

    /// An address on the collection elsewhere.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("globus://{}/{path}", self.value("GLOBUS_A"))
    }

    /// Puts a file on the collection elsewhere, and says its address.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.there(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, bytes).expect("a file");
        self.address(name)
    }

    /// An errand to the local collection's directory.
    pub(crate) fn errand(&self, address: &str, local: &str) -> Errand {
        let local = self.here(local);
        Errand { address: address.into(), local, kind: Kind::File, progress: None }
    }

    /// Limits for tests, without credentials.
    pub(crate) fn bare_config(&self) -> GlobusConfig {
        let variables = ["GLOBUS_SDK_SERVICE_URL_AUTH", "GLOBUS_SDK_SERVICE_URL_TRANSFER"];
        let variables = variables.map(|name| (name.to_owned(), self.value(name).to_owned()));
        GlobusConfig {
            local: vec![LocalCollection {
                collection: self.value("GLOBUS_B").to_owned(),
                root: self.value("GLOBUS_B_ROOT").into(),
                path: "/".into(),
            }],
            native_client_id: Some(self.value("GLOBUS_CLIENT_ID").to_owned()),
            batch_window: Duration::from_millis(400),
            requests_per_second_max: 1000,
            poll_min: Duration::from_millis(20),
            poll_max: Duration::from_millis(100),
            request_timeout: Duration::from_mins(1),
            retry: RetryBudget {
                tries_max: 6,
                elapsed_max: Duration::from_mins(1),
                wait_min: Duration::from_millis(20),
                wait_max: Duration::from_millis(200),
            },
            ..GlobusConfig::new(self.room("state"), self.room("tokens/globus.json"))
                .with_variables(variables)
        }
    }

    /// With an application's credentials.
    pub(crate) fn config(&self) -> GlobusConfig {
        let client_secret = Some(Secret::new(self.value("GLOBUS_CLIENT_SECRET")));
        self.config_with(Credential { client_secret, ..Credential::default() })
    }

    /// With a person's refresh token.
    pub(crate) fn config_of_a_person(&self) -> GlobusConfig {
        let refresh_token = Some(Secret::new(self.value("GLOBUS_REFRESH_TOKEN")));
        self.config_with(Credential { refresh_token, ..Credential::default() })
    }

    /// With these credentials for the collection elsewhere.
    pub(crate) fn config_with(&self, credential: Credential) -> GlobusConfig {
        let scope = format!("globus://{}", self.value("GLOBUS_A"));
        let client_id = Some(self.value("GLOBUS_CLIENT_ID").to_owned());
        let credentials = Credentials::new([Credential { scope, client_id, ..credential }]);
        GlobusConfig { credentials, ..self.bare_config() }
    }

    pub(crate) fn globus(&self) -> Globus {
        Globus::new(self.config()).expect("a courier")
    }

    /// Steers the fake.
    pub(crate) fn control(&self, what: &Value) {
        ask("POST", self.value("GLOBUS_CONTROL_URL"), &what.to_string());
    }

    /// Answers the next requests of this kind in another way.
    pub(crate) fn answer(&self, method: &str, path: &str, how: &Value) {
        let mut fault = json!({"method": method, "path": path});
        for (key, value) in how.as_object().expect("an object") {
            fault[key] = value.clone();
        }
        self.control(&json!({"http": [fault]}));
    }

    /// What the fake has noted.
    pub(crate) fn noted(&self) -> Value {
        ask("GET", self.value("GLOBUS_CONTROL_URL"), "")
    }

    /// What the fake has counted.
    pub(crate) fn counts(&self) -> Value {
        ask("GET", &format!("{}/counts", self.value("GLOBUS_CONTROL_URL")), "")
    }

    /// How many tasks there were: by the path of their first file.
    pub(crate) fn tasks(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.counts()["tasks"].clone()).expect("counts")
    }

    pub(crate) fn tasks_in_all(&self) -> u64 {
        self.tasks().values().sum()
    }

    /// How many requests there were whose path ends so.
    pub(crate) fn requests(&self, end: &str) -> usize {
        let noted = self.noted();
        let requests = noted["requests"].as_array().expect("a list");
        requests.iter().filter(|one| one["path"].as_str().is_some_and(|p| p.ends_with(end))).count()
    }

    /// Waits, with a deadline, until there was a request whose path has this in it.
    pub(crate) async fn until_asked(&self, part: &str) {
        self.until(part, |_| self.noted()["requests"].to_string().contains(part)).await;
    }

    /// Waits, with a deadline, until the fake has counted something.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let start = Instant::now();
        while !is_so(&self.counts()) {
            assert!(start.elapsed() < Duration::from_mins(1), "waited too long for {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A request to the fake, in plain HTTP.
pub(crate) fn ask(method: &str, url: &str, body: &str) -> Value {
    let rest = url.strip_prefix("http://").expect("an address");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut server = TcpStream::connect(host).expect("a connection");
    let length = body.len();
    write!(
        server,
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("sent");
    let mut answer = String::new();
    server.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{method} {url}: {answer}");
    serde_json::from_str(body).expect("a document")
}

impl Drop for FakeGlobus {
    fn drop(&mut self) {
        stop("globus.sh", self.dir.path());
    }
}

/// Keeps the causes of waits, and the last count of bytes.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    seen: Mutex<(Vec<String>, u64)>,
}

impl Watcher {
    pub(crate) fn causes(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").0.clone()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.seen.lock().expect("no panic").1
    }

    /// Waits, with a deadline, until such a cause was shown.
    pub(crate) async fn until(&self, text: &str) {
        let start = Instant::now();
        while !self.causes().iter().any(|cause| cause.contains(text)) {
            assert!(start.elapsed() < Duration::from_mins(1), "{text}: {:?}", self.causes());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn watch(self: &Arc<Self>, mut errand: Errand) -> Errand {
        errand.progress = Some(Arc::clone(self) as Arc<dyn Progress>);
        errand
    }
}

impl Progress for Watcher {
    fn on_event(&self, event: &TransferEvent<'_>) {
        let mut seen = self.seen.lock().expect("no panic");
        match event {
            TransferEvent::Waiting { cause, .. } => seen.0.push((*cause).to_owned()),
            TransferEvent::Received { position, .. } => seen.1 = *position,
            _ => {}
        }
    }
}
