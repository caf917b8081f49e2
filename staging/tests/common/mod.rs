//! Real servers and small files for tests.

pub(crate) mod buckets;
pub(crate) mod counting;
pub(crate) mod fake_ftp;
pub(crate) mod faulty;
pub(crate) mod flaky;
pub(crate) mod ftp;
pub(crate) mod globus;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod small_disk;
pub(crate) mod ssh;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use keelboat_engine::Digest;
use keelboat_staging::{FetchError, FetchRequest, Fetched, RetryBudget, Stager, StagingConfig};
use tempfile::TempDir;

/// Keys in one page of a listing of moto, in the place of 1,000.
pub(crate) const PAGE_KEYS: usize = 20;

/// nginx and the server of faults, in a temporary directory, until the last test lets go of them.
#[derive(Debug)]
pub(crate) struct Servers {
    dir: TempDir,
    values: BTreeMap<String, String>,
}

impl Servers {
    /// The servers that all tests of this process share; `None`, said aloud, when something that
    /// they need is not installed.
    pub(crate) fn get() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Servers>> = Mutex::new(Weak::new());
        for program in ["nginx", "python3", "openssl"] {
            if !is_installed(program) {
                println!("skipped: {program} is not installed");
                return None;
            }
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = shared.upgrade().unwrap_or_else(|| Arc::new(Self::start()));
        *shared = Arc::downgrade(&servers);
        Some(servers)
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let values = start("http.sh", dir.path()).expect("what it needs is installed");
        Self { dir, values }
    }

    /// What the script says of the servers: `HTTP_URL`, `FLAKY_URL` and so on.
    pub(crate) fn value(&self, key: &str) -> &str {
        self.values.get(key).unwrap_or_else(|| panic!("{key} is not among {:?}", self.values))
    }

    /// A file that both servers serve under this name.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    /// Takes such a file away.
    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).expect("removed");
    }

    /// Where such a file is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(self.value("HTTP_ROOT")).join("files").join(name)
    }

    /// An address at nginx.
    pub(crate) fn plain(&self, path: &str) -> String {
        format!("{}{path}", self.value("HTTP_URL"))
    }

    /// An address at the server of faults.
    pub(crate) fn flaky(&self, name_and_faults: &str) -> String {
        format!("{}/f/{name_and_faults}", self.value("FLAKY_URL"))
    }

    /// What the server of faults was asked for this file: the `Range` and `If-Range` of each.
    pub(crate) fn asked(&self, name: &str) -> Vec<(Option<String>, Option<String>)> {
        let url = format!("{}/log", self.value("FLAKY_URL"));
        let output = Command::new("python3")
            .args([
                "-c",
                "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())",
                &url,
            ])
            .output()
            .expect("python3");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let prefix = format!("/f/{name}");
        let requests = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        requests
            .filter(|request: &serde_json::Value| {
                request["path"].as_str().is_some_and(|path| path.split('?').next() == Some(&prefix))
            })
            .map(|request| {
                let header = |name| request["headers"][name].as_str().map(str::to_owned);
                (header("range"), header("if-range"))
            })
            .collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        stop("http.sh", self.dir.path());
    }
}

/// What a script says of the servers that it has started; `None`, said aloud: it lacks something.
fn start(script: &str, dir: &Path) -> Option<BTreeMap<String, String>> {
    const LACKS_SOMETHING: i32 = 77;
    let output = command(script, "start", dir).output().expect("bash");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(LACKS_SOMETHING) {
        println!("skipped: {said}");
        return None;
    }
    assert!(output.status.success(), "the servers do not start: {text}{said}");
    let values = text.lines().filter_map(|line| line.split_once('='));
    Some(values.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn stop(script: &str, dir: &Path) {
    let stopped = command(script, "stop", dir).status();
    assert!(
        std::thread::panicking() || stopped.is_ok_and(|status| status.success()),
        "the servers do not stop"
    );
}

fn command(script: &str, verb: &str, dir: &Path) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/services").join(script);
    let mut command = Command::new("bash");
    command.arg(script).arg(verb).arg(dir.join("servers"));
    command
        .env("HTTP_PORT", "auto")
        .env("S3_PORT", "auto")
        .env("SSH_PORT", "auto")
        .env("FTP_PORT", "auto");
    command.env("AZURE_PORT", "auto").env("MOTO_S3_DEFAULT_MAX_KEYS", PAGE_KEYS.to_string());
    command.env("SVC_TOOLS", std::env::temp_dir().join("keelboat-ports"));
    command
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').chain(["/usr/sbin", "/sbin"]);
    places.any(|place| Path::new(place).join(program).is_file())
}

/// Bytes that do not repeat, the same for one seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut all = Vec::with_capacity(bytes + 8);
    while all.len() < bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    all.truncate(bytes);
    all
}

/// A name as the last segment of a URL.
pub(crate) fn escaped(name: &str) -> String {
    let escape = |byte: &u8| match byte {
        b if b.is_ascii_alphanumeric() => char::from(*b).to_string(),
        b => format!("%{b:02X}"),
    };
    name.as_bytes().iter().map(escape).collect()
}

/// Limits for tests: they give up soon.
pub(crate) fn config(dir: &Path) -> StagingConfig {
    StagingConfig {
        first_byte_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_millis(400),
        retry: RetryBudget {
            tries_max: 4,
            elapsed_max: Duration::from_secs(20),
            wait_min: Duration::from_millis(2),
            wait_max: Duration::from_millis(20),
        },
        ..StagingConfig::new(dir)
    }
}

/// A fetcher of its own directory.
pub(crate) fn fetcher(dir: &Path) -> Stager {
    Stager::new(config(dir)).expect("a fetcher")
}

/// What came, which must be these bytes; and how many went over the network.
pub(crate) fn assert_arrived(fetched: Result<Fetched, FetchError>, expected: &[u8]) -> u64 {
    let Fetched::New { path, content, transferred, .. } = fetched.expect("it arrives") else {
        panic!("a file was expected to come");
    };
    let found = std::fs::read(&path).expect("the file that came");
    assert!(found == expected, "{} bytes came, {} were sent", found.len(), expected.len());
    assert_eq!(content.digest, Digest::of(expected));
    assert_eq!(content.bytes, expected.len() as u64);
    transferred
}

/// One fetch with a fetcher of its own.
pub(crate) async fn fetch(dir: &TempDir, request: FetchRequest) -> Result<Fetched, FetchError> {
    fetcher(dir.path()).fetch(request).await
}

/// Waits for something that is to come.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let come = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), come).await.expect("what was waited for comes");
}

/// An example, built beside the directory of test binaries.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test's binary");
    let profile = test.parent().and_then(Path::parent).expect("target/debug");
    Command::new(profile.join("examples").join(name))
}

/// A temporary directory.
pub(crate) fn room() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}
