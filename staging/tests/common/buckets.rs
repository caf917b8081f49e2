//! Servers of buckets, each with a bucket `test`.
//!
//! Google's XML API is that of S3 with other credentials, so moto serves `gs:`, too: the emulators of
//! Google's own kind that can be installed say no entity tags over it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use keelboat_engine::{Content, Kind};
use keelboat_staging::{
    BucketProtocol, Credentials, Forgetful, HttpConfig, Proof, Protocol, PutRequest, Sent,
    TransferError, digest_path,
};
use tempfile::TempDir;

use super::{start, stop};

/// Whose addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    S3,
    Gs,
    Az,
}

/// A server of buckets, until the test lets go of it.
#[derive(Debug)]
pub(crate) struct Buckets {
    dir: TempDir,
    values: BTreeMap<String, String>,
    cloud: Cloud,
}

impl Buckets {
    /// S3, by moto, with an empty bucket; `None`, said aloud, when it is not installed.
    pub(crate) fn get() -> Option<Self> {
        Self::of(Cloud::S3)
    }

    /// One of the three.
    pub(crate) fn of(cloud: Cloud) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let values = start(script(cloud), dir.path())?;
        let buckets = Self { dir, values, cloud };
        if cloud != Cloud::Az {
            buckets.ask("PUT", "/test", &[], b"");
        }
        Some(buckets)
    }

    /// What reads and writes its objects with credentials.
    pub(crate) fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(self.with(&self.keys()))
    }

    /// What reads its objects with these variables and the address of the server.
    pub(crate) fn protocol_with(&self, variables: &[(&str, &str)]) -> Arc<dyn Protocol> {
        Arc::new(self.with(variables))
    }

    /// The same with entries of a credentials file.
    pub(crate) fn protocol_of(
        &self,
        variables: &[(&str, &str)],
        credentials: Credentials,
    ) -> Arc<dyn Protocol> {
        Arc::new(self.with(variables).with_credentials(credentials))
    }

    fn with(&self, variables: &[(&str, &str)]) -> BucketProtocol {
        let variables = variables.iter().copied().chain(self.server());
        BucketProtocol::with_variables(HttpConfig::default(), owned(variables))
    }

    /// All that another process needs to read and write here.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        owned(self.keys().into_iter().chain(self.server()))
    }

    fn server(&self) -> Vec<(&str, &str)> {
        match self.cloud {
            Cloud::S3 => vec![("AWS_ENDPOINT_URL", self.endpoint()), ("AWS_ALLOW_HTTP", "true")],
            Cloud::Gs => vec![("GOOGLE_BASE_URL", self.endpoint())],
            Cloud::Az => vec![
                ("AZURE_STORAGE_ENDPOINT", self.endpoint()),
                ("AZURE_STORAGE_ACCOUNT_NAME", self.value("AZURE_ACCOUNT")),
                ("AZURE_ALLOW_HTTP", "true"),
            ],
        }
    }

    /// The variables that give access.
    pub(crate) fn keys(&self) -> Vec<(&str, &str)> {
        match self.cloud {
            Cloud::S3 => vec![
                ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
                ("AWS_SECRET_ACCESS_KEY", "not-to-be-shown"),
            ],
            Cloud::Gs => vec![("GOOGLE_BEARER_TOKEN", "not-to-be-shown")],
            Cloud::Az => vec![("AZURE_STORAGE_ACCOUNT_KEY", self.value("AZURE_KEY"))],
        }
    }

    /// The address of a key in the bucket `test`.
    pub(crate) fn address(&self, key: &str) -> String {
        self.address_in("test", key)
    }

    /// The address of a key, in which only slashes stay as they are.
    pub(crate) fn address_in(&self, bucket: &str, key: &str) -> String {
        let scheme = match self.cloud {
            Cloud::S3 => "s3",
            Cloud::Gs => "gs",
            Cloud::Az => "az",
        };
        let key: Vec<String> = key.split('/').map(super::escaped).collect();
        format!("{scheme}://{bucket}/{}", key.join("/"))
    }

    /// Puts an object there, and says its address.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) -> String {
        let address = self.address(key);
        if self.cloud == Cloud::Az {
            // Its requests are signed: what is tested signs them. Tests run on one thread.
            let file = self.dir.path().join("to-be-put");
            std::fs::write(&file, bytes).expect("a file");
            let (protocol, request) = (self.protocol(), request(&address, &file));
            alone(async move { protocol.put(&request).await }).expect("it is put");
        } else {
            self.ask("PUT", &format!("/test/{}", super::escaped(key)), &[], bytes);
        }
        address
    }

    pub(crate) fn remove(&self, key: &str) {
        let (protocol, address) = (self.protocol(), self.address(key));
        alone(async move { protocol.remove(&address).await }).expect("it is removed");
    }

    fn endpoint(&self) -> &str {
        self.value(if self.cloud == Cloud::Az { "AZURE_BLOB_ENDPOINT" } else { "S3_ENDPOINT" })
    }

    /// What the script says of the server.
    pub(crate) fn value(&self, key: &str) -> &str {
        self.values.get(key).unwrap_or_else(|| panic!("{key} is not among {:?}", self.values))
    }

    /// Asks moto for something, and says what it answers.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> String {
        let host = self.endpoint().trim_start_matches("http://");
        let mut server = TcpStream::connect(host).expect("a connection");
        let (length, headers) = (body.len(), headers.concat());
        write!(
            server,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request\r\n\
             {headers}Content-Length: {length}\r\n\r\n"
        )
        .expect("sent");
        server.write_all(body).expect("sent");
        let mut answer = String::new();
        server.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
        answer
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        stop(script(self.cloud), self.dir.path());
    }
}

fn owned<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    let variables = variables.into_iter();
    variables.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

const fn script(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::S3 | Cloud::Gs => "s3.sh",
        Cloud::Az => "azurite.sh",
    }
}

/// A file on its way to an address.
pub(crate) fn request(address: &str, source: &Path) -> PutRequest {
    let content = digest_path(source, Kind::File, &Forgetful, true).expect("a file");
    request_for(address, source, content)
}

/// A file that is said to be this.
pub(crate) fn request_for(address: &str, source: &Path, content: Content) -> PutRequest {
    let (address, source) = (address.into(), source.to_owned());
    PutRequest { address, source, content, resume: false, sent: Sent::default() }
}

/// Puts bytes by a protocol.
pub(crate) async fn put(
    protocol: &dyn Protocol,
    address: &str,
    bytes: &[u8],
) -> Result<Proof, TransferError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    protocol.put(&request(address, file.path())).await
}

/// Waits for it on a thread of its own: this one may be within a runtime.
fn alone<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work)
    });
    thread.join().expect("it ends")
}
