//! An S3 server with one bucket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use keelboat_staging::{BucketProtocol, HttpConfig, Protocol};
use tempfile::TempDir;

use super::{start, stop};

/// moto, until the test lets go of it.
#[derive(Debug)]
pub(crate) struct Buckets {
    dir: TempDir,
    values: BTreeMap<String, String>,
}

impl Buckets {
    /// With an empty bucket; `None`, said aloud, when moto is not installed.
    pub(crate) fn get() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let values = start("s3.sh", dir.path())?;
        let buckets = Self { dir, values };
        buckets.ask("PUT", "/test", b"");
        Some(buckets)
    }

    /// What reads its objects with credentials.
    pub(crate) fn protocol(&self) -> Arc<dyn Protocol> {
        self.protocol_with(&[
            ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
            ("AWS_SECRET_ACCESS_KEY", "not-to-be-shown"),
        ])
    }

    /// What reads its objects with these variables and the address of the server.
    pub(crate) fn protocol_with(&self, variables: &[(&str, &str)]) -> Arc<dyn Protocol> {
        let server = [("AWS_ENDPOINT_URL", self.endpoint()), ("AWS_ALLOW_HTTP", "true")];
        let variables = variables.iter().copied().chain(server);
        let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Arc::new(BucketProtocol::with_variables(HttpConfig::default(), variables))
    }

    /// Puts an object there, and says its address.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) -> String {
        let key = super::escaped(key);
        self.ask("PUT", &format!("/test/{key}"), bytes);
        format!("s3://test/{key}")
    }

    pub(crate) fn remove(&self, key: &str) {
        self.ask("DELETE", &format!("/test/{}", super::escaped(key)), b"");
    }

    fn endpoint(&self) -> &str {
        self.values.get("S3_ENDPOINT").expect("an address")
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) {
        let host = self.endpoint().trim_start_matches("http://");
        let mut server = TcpStream::connect(host).expect("a connection");
        let length = body.len();
        write!(
            server,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .expect("sent");
        server.write_all(body).expect("sent");
        let mut answer = String::new();
        server.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        stop("s3.sh", self.dir.path());
    }
}
