//! Nobody is waited for longer than the deadline for connecting, whatever the scheme.

use std::time::{Duration, Instant};

use keelboat_engine::FailureClass;
use keelboat_staging::{
    BucketProtocol, Credential, Credentials, FetchRequest, HttpConfig, Secret, SftpConfig, Stager,
    StagingConfig,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::common::{config, room};

const PATIENCE: Duration = Duration::from_millis(300);

/// A port where connections neither come about nor are refused: all that may wait there do.
struct Clogged {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Clogged {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(1).expect("it listens");
        let address = listener.local_addr().expect("its address");
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(PATIENCE, TcpStream::connect(address)).await {
            waiting.push(connected.expect("a connection"));
            assert!(waiting.len() < 100, "it takes all connections");
        }
        Self { listener, _waiting: waiting }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("its address").port()
    }
}

fn limits(dir: &tempfile::TempDir) -> StagingConfig {
    let mut limits = config(dir.path());
    // Longer than the test: it must not be this deadline that helps.
    limits.first_byte_timeout = Duration::from_mins(10);
    limits.http = HttpConfig { connect_timeout: PATIENCE, ..HttpConfig::default() };
    let user = Some("ana".to_owned());
    limits.sftp = SftpConfig { connect_timeout: PATIENCE, user, ..SftpConfig::default() };
    limits.retry.tries_max = 1;
    limits
}

async fn given_up(stager: Stager, address: String) {
    let begun = Instant::now();
    let fetched = timeout(Duration::from_mins(1), stager.fetch(FetchRequest::new(&*address))).await;
    let fetched = fetched.unwrap_or_else(|_elapsed| panic!("{address} is waited for"));
    let error = fetched.expect_err("nobody is there");
    assert_eq!(error.failure.class, FailureClass::Transient, "{address}: {error}");
    assert!(begun.elapsed() >= PATIENCE, "{address} was waited for: {error}");
}

#[tokio::test]
async fn who_does_not_connect_is_given_up() {
    let clogged = Clogged::start().await;
    for scheme in ["http", "https", "ftp", "ftps", "sftp"] {
        let dir = room();
        let stager = Stager::new(limits(&dir)).expect("a stager");
        given_up(stager, format!("{scheme}://127.0.0.1:{}/f", clogged.port())).await;
    }
    let dir = room();
    let endpoint = format!("http://127.0.0.1:{}", clogged.port());
    let variables = [
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_SKIP_SIGNATURE", "true"),
    ];
    let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let limits = limits(&dir);
    let buckets = BucketProtocol::with_variables(limits.http.clone(), variables);
    let stager = Stager::with_protocols(limits, vec![std::sync::Arc::new(buckets)], Vec::new());
    given_up(stager, "s3://bucket/f".to_owned()).await;
}

/// The handshake of SSH, and that of TLS, are part of connecting.
#[tokio::test]
async fn who_says_nothing_after_connecting_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = silent.local_addr().expect("its address").port();
    for scheme in ["https", "ftps", "sftp"] {
        let dir = room();
        // FTP over TLS from the first byte on.
        let implicit = ("FTP_TLS".to_owned(), Secret::new("implicit"));
        let credentials = Credentials::new([Credential {
            scope: format!("ftps://127.0.0.1:{port}"),
            settings: [implicit].into(),
            ..Credential::default()
        }]);
        let stager = Stager::new(StagingConfig { credentials, ..limits(&dir) }).expect("a stager");
        given_up(stager, format!("{scheme}://127.0.0.1:{port}/f")).await;
    }
}
