//! What FTP does beyond what every protocol does, with a real server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use keelboat_engine::{Content, Digest, Kind};
use keelboat_staging::{
    Condition, Credential, Credentials, Delivered, Delivery, Depth, FetchRequest, Forgetful,
    FtpConfig, FtpProtocol, ListRequest, OpenRequest, Opened, Over, Proof, Protocol, PutRequest,
    Renamed, Secret, Sent, Stager, TransferError, Turn, Validators, child_address,
};

use super::conformance::sparse::sparse;
use super::conformance::{Place, conformance};
use crate::common::ftp::{Cutter, Ftp};
use crate::common::{assert_arrived, config, noise, room};

/// The user's files, by way of one of the servers.
struct Files {
    ftp: Arc<Ftp>,
    server: &'static str,
}

impl Files {
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.server)
    }
}

impl Place for Files {
    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(self.ftp.protocol())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        self.ftp.put(&self.name(name), bytes);
        self.ftp.address(self.server, &self.name(name))
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.ftp.path(&self.name(name))).expect("removed");
    }

    fn forbidden(&self) -> Option<String> {
        Some(self.put("forbidden", b"x").replace(self.ftp.value("FTP_PASSWORD"), "wrong"))
    }

    fn can_name(&self, name: &str) -> bool {
        !name.contains(char::is_control)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.ftp.path(&self.name(name)))
    }

    /// They do not name the certificate to trust.
    fn environment(&self) -> Option<Vec<(String, String)>> {
        (self.server == "FTP_URL").then(Vec::new)
    }
}

#[tokio::test]
async fn ftp_conforms_with_proftpd() {
    let Some(ftp) = Ftp::get() else { return };
    conformance(Files { ftp, server: "FTP_URL" }).await;
}

/// The server wants TLS before the login, and its sessions reused for data.
#[tokio::test]
async fn ftps_conforms_with_proftpd() {
    let Some(ftp) = Ftp::get() else { return };
    conformance(Files { ftp, server: "FTP_TLS_REQUIRED_URL" }).await;
}

#[tokio::test]
#[ignore = "5 GiB"]
async fn sparse_files_come_from_proftpd() {
    let Some(ftp) = Ftp::get() else { return };
    sparse(&Files { ftp, server: "FTP_URL" }).await;
}

fn stager(protocol: &FtpProtocol, dir: &Path) -> Stager {
    Stager::with_protocols(config(dir), vec![Arc::new(protocol.clone())], vec![])
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[tokio::test]
async fn a_file_cut_a_hundred_times_comes_once() {
    let Some(ftp) = Ftp::get() else { return };
    let bytes = noise(60, 10_000_000);
    ftp.put("hundred", &bytes);
    let server = port_of(ftp.value("FTP_URL"));
    let cutter = Cutter::before(server, 100_000).await;
    let address = ftp.address("FTP_URL", "hundred");
    let address = address.replace(&server.to_string(), &cutter.port.to_string());
    let dir = room();
    let fetched = stager(&ftp.protocol(), dir.path()).fetch(FetchRequest::new(address)).await;
    let transferred = assert_arrived(fetched, &bytes);
    assert!(transferred <= 10_500_000, "{transferred} bytes for 10000000");
    let transfers = cutter.transfers.load(Ordering::Relaxed);
    assert!(transfers >= 100, "{transfers} transfers");
}

#[tokio::test]
async fn a_server_that_cannot_resume_sends_all_again() {
    let Some(ftp) = Ftp::get() else { return };
    let bytes = noise(61, 300_000);
    ftp.put("again", &bytes);
    let request = from(100_000, ftp.address("FTP_NO_REST_URL", "again"));
    let (offset, came) = read(&ftp.protocol(), &request).await.expect("it comes");
    assert_eq!(offset, 0);
    assert!(came == bytes, "{} bytes came", came.len());
}

fn from(offset: u64, address: String) -> OpenRequest {
    let (address, condition) = (address.into(), Condition::Always);
    OpenRequest { address, offset, end: None, condition, turn: Turn::default() }
}

async fn read(
    protocol: &dyn Protocol,
    request: &OpenRequest,
) -> Result<(u64, Vec<u8>), TransferError> {
    let Opened::Body { offset, mut stream, .. } = protocol.open(request).await? else {
        panic!("a body was expected");
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok((offset, bytes))
}

#[tokio::test]
async fn a_server_that_is_full_is_asked_again() {
    let Some(ftp) = Ftp::get() else { return };
    let bytes = noise(62, 100_000);
    ftp.put("full", &bytes);
    let address = ftp.address("FTP_ONE_CLIENT_URL", "full");
    let alone = FtpConfig { idle_per_login_max: 0, ..ftp.config() };
    // Protocols of their own share no connection.
    let fetches = [(); 3].map(|()| {
        let protocol = FtpProtocol::new(&alone).expect("a client");
        let (address, bytes) = (address.clone(), bytes.clone());
        tokio::spawn(async move {
            let dir = room();
            let mut config = config(dir.path());
            config.retry.tries_max = 1_000;
            let stager = Stager::with_protocols(config, vec![Arc::new(protocol)], vec![]);
            assert_arrived(stager.fetch(FetchRequest::new(address)).await, &bytes);
        })
    });
    for fetch in fetches {
        fetch.await.expect("it arrives");
    }
}

#[tokio::test]
async fn implicit_tls_is_asked_for_by_a_credential() {
    let Some(ftp) = Ftp::get() else { return };
    ftp.put("implicit", b"under TLS from the start");
    let url = ftp.value("FTP_IMPLICIT_URL");
    let entry = Credential {
        scope: url.to_owned(),
        user: Some(ftp.value("FTP_USER").to_owned()),
        password: Some(Secret::new(ftp.value("FTP_PASSWORD"))),
        settings: [("FTP_TLS".to_owned(), Secret::new("implicit"))].into(),
        ..Credential::default()
    };
    let config = FtpConfig { credentials: Credentials::new([entry]), ..ftp.config() };
    let protocol = FtpProtocol::new(&config).expect("a client");
    let dir = room();
    let request = FetchRequest::new(format!("{url}/implicit"));
    let fetched = stager(&protocol, dir.path()).fetch(request).await;
    assert_arrived(fetched, b"under TLS from the start");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_refused() {
    let Some(ftp) = Ftp::get() else { return };
    ftp.put("unknown", b"x");
    let protocol = FtpProtocol::new(&FtpConfig::default()).expect("a client");
    let address = ftp.address("FTP_TLS_REQUIRED_URL", "unknown");
    let dir = room();
    let fetched = stager(&protocol, dir.path()).fetch(FetchRequest::new(address)).await;
    let error = fetched.expect_err("no certificate");
    assert!(error.to_string().contains("certificate"), "{error}");
    let hint = error.failure.hint.clone().unwrap_or_default();
    assert!(hint.contains("certificates = "), "{hint}");
    assert!(!format!("{error:?}").contains(ftp.value("FTP_PASSWORD")), "{error:?}");
}

fn outgoing(dir: &Path, address: &str, bytes: &[u8], resume: bool) -> PutRequest {
    let source: PathBuf = dir.join("source");
    std::fs::write(&source, bytes).expect("a file");
    let digest = Digest::of(bytes);
    let content = Content { digest, bytes: bytes.len() as u64, kind: Kind::File };
    PutRequest { address: address.into(), source, content, resume, sent: Sent::default() }
}

fn directory(address: String, depth: Depth) -> ListRequest {
    ListRequest { address: address.into(), depth }
}

#[tokio::test]
async fn files_are_written_renamed_and_read_back() {
    let Some(ftp) = Ftp::get() else { return };
    let protocol = ftp.protocol();
    let dir = room();
    for (number, name) in
        ["a b", "100%", "q?x=y#z", "naïve-日本", "it's \"q\"", "+&;", "-rf"].into_iter().enumerate()
    {
        for server in ["FTP_URL", "FTP_TLS_REQUIRED_URL"] {
            let bytes = noise(70 + number as u64, 500_000 * (number % 2));
            let temporary = ftp.address(server, &format!("written/deep {number}/.{name}.part"));
            let name = format!("written/deep {number}/{name}");
            let address = ftp.address(server, &name);
            let request = outgoing(dir.path(), &temporary, &bytes, false);
            assert_eq!(
                protocol.put(&request).await,
                Ok(Proof::Checked(Validators::default())),
                "{name}"
            );
            assert_eq!(request.sent.get(), bytes.len() as u64);
            // The second server finds the file of the first one in its place.
            assert_eq!(protocol.rename(&temporary, &address).await, Ok(Renamed::Done), "{name}");
            assert!(std::fs::read(ftp.path(&name)).expect("the file") == bytes);
            ftp.age(&name);
            let (_, came) = read(&protocol, &from(0, address)).await.expect("it comes back");
            assert!(came == bytes, "{name}");
        }
    }
    let all = ftp.address("FTP_URL", "written");
    assert_eq!(protocol.remove(&all).await, Ok(()));
    assert!(!ftp.path("written").exists());
    assert_eq!(protocol.remove(&all).await, Ok(()), "what is not there is no error");
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was() {
    let Some(ftp) = Ftp::get() else { return };
    let protocol = ftp.protocol();
    let dir = room();
    let bytes = noise(80, 400_000);
    // The second server can only begin at the start.
    for (server, sent) in [("FTP_URL", 100_000), ("FTP_NO_REST_URL", 400_000)] {
        let address = ftp.address(server, "resumed");
        ftp.put("resumed", &bytes[..300_000]);
        let request = outgoing(dir.path(), &address, &bytes, true);
        assert_eq!(
            protocol.put(&request).await,
            Ok(Proof::Checked(Validators::default())),
            "{server}"
        );
        assert_eq!(request.sent.get(), sent, "{server}");
        assert!(std::fs::read(ftp.path("resumed")).expect("the file") == bytes);

        let again = outgoing(dir.path(), &address, &bytes, true);
        assert_eq!(
            protocol.put(&again).await,
            Ok(Proof::Checked(Validators::default())),
            "{server}"
        );
        assert_eq!(again.sent.get(), 0, "{server}");

        // What is there is of another file.
        ftp.put("resumed", &noise(81, 300_000));
        let other = protocol.put(&again).await;
        if sent < 400_000 {
            let error = other.expect_err("another file");
            assert!(error.spoils_partial(), "{error}");
            assert_eq!(
                protocol.put(&again).await,
                Ok(Proof::Checked(Validators::default())),
                "{server}"
            );
        }
        assert!(std::fs::read(ftp.path("resumed")).expect("the file") == bytes);
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_goes_on() {
    let Some(ftp) = Ftp::get() else { return };
    let protocol = ftp.protocol();
    let dir = room();
    let bytes = noise(82, 2_000_000);
    let server = port_of(ftp.value("FTP_URL"));
    let cutter = Cutter::before(server, 300_000).await;
    let address = ftp.address("FTP_URL", "cut upload");
    let address = address.replace(&server.to_string(), &cutter.port.to_string());
    let request = outgoing(dir.path(), &address, &bytes, true);
    let mut tries = 0;
    while let Err(error) = protocol.put(&request).await {
        assert!(error.is_retryable(), "{error}");
        tries += 1;
        assert!(tries < 20, "{error}");
    }
    assert!(tries >= 5, "it was cut only {tries} times");
    assert!(std::fs::read(ftp.path("cut upload")).expect("the file") == bytes);

    // So does a delivery: equal steps are steps, though there are more of them than tries.
    let address: Arc<str> = address.replace("cut%20upload", "cut%20delivery").into();
    let config = config(dir.path());
    let tries_max = u64::from(config.retry.tries_max);
    let stager = Stager::with_protocols(config, vec![Arc::new(protocol)], vec![]);
    let (source, over) = (request.source.clone(), Over::Same);
    let delivery = Delivery { source, content: request.content, address, over, progress: None };
    let before = cutter.transfers.load(Ordering::Relaxed);
    assert_eq!(stager.deliver(delivery, Forgetful).await, Ok(Delivered::Copied));
    assert!(cutter.transfers.load(Ordering::Relaxed) - before > tries_max + 1);
    assert!(std::fs::read(ftp.path("cut delivery")).expect("the file") == bytes);
}

#[tokio::test]
async fn directories_are_listed_as_files_are_opened() {
    let Some(ftp) = Ftp::get() else { return };
    let protocol = ftp.protocol();
    for name in ["a b", "sub/#1", "sub/deeper/ü"] {
        ftp.put(&format!("tree/{name}"), name.as_bytes());
    }
    std::fs::create_dir_all(ftp.path("tree/empty")).expect("a directory");
    let tree = ftp.address("FTP_URL", "tree");
    let listed = protocol.list(&directory(tree.clone(), Depth::All)).await;
    let mut entries = listed.expect("a listing");
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let names: Vec<_> = entries.iter().map(|entry| (&*entry.path, entry.kind)).collect();
    assert_eq!(
        names,
        [
            ("a b", Kind::File),
            ("empty", Kind::Directory),
            ("sub", Kind::Directory),
            ("sub/#1", Kind::File),
            ("sub/deeper", Kind::Directory),
            ("sub/deeper/ü", Kind::File),
        ]
    );
    for entry in entries.iter().filter(|entry| entry.kind == Kind::File) {
        let request = from(0, child_address(&tree, &entry.path));
        let Ok(Opened::Body { metadata, .. }) = protocol.open(&request).await else {
            panic!("{} was expected to open", entry.path);
        };
        assert!(metadata.validators.strong().is_some(), "{metadata:?}");
        assert_eq!((metadata.length, &metadata.validators), (entry.length, &entry.validators));
    }
    let one = protocol.list(&directory(format!("{tree}/"), Depth::One)).await;
    assert_eq!(one.expect("a listing").len(), 3);
    for missing in ["absent", "tree/a b"] {
        let listed = protocol.list(&directory(ftp.address("FTP_URL", missing), Depth::One)).await;
        assert!(matches!(listed, Err(TransferError::Missing { .. })), "{listed:?}");
    }
}

#[tokio::test]
async fn what_may_not_be_written_is_forbidden() {
    let Some(ftp) = Ftp::get() else { return };
    let protocol = ftp.protocol();
    let dir = room();
    let public = ftp.value("FTP_URL").to_owned();
    let request = outgoing(dir.path(), &format!("{public}/forbidden"), b"x", false);
    let error = protocol.put(&request).await.expect_err("anonymous users only read");
    assert!(matches!(error, TransferError::Forbidden { .. }), "{error}");
    let request = outgoing(dir.path(), &format!("{public}/incoming/taken"), b"x", false);
    protocol.put(&request).await.expect("but here they write");
    let renamed = protocol.rename(&format!("{public}/a"), &ftp.address("FTP_URL", "a")).await;
    assert!(matches!(renamed, Err(TransferError::Refused { .. })), "{renamed:?}");
}

/// The moment of change has whole seconds, so a change in the same one leaves no trace in it.
#[tokio::test]
async fn a_file_written_in_this_very_second_is_not_mixed() {
    let Some(ftp) = Ftp::get() else { return };
    let (old, new) = (noise(90, 3_000_000), noise(91, 3_000_000));
    ftp.put("young", &old);
    std::fs::write(ftp.path("young"), &old).expect("now");
    let request = from(0, ftp.address("FTP_URL", "young"));
    let Ok(Opened::Body { mut stream, metadata, .. }) = ftp.protocol().open(&request).await else {
        panic!("it was expected to open");
    };
    assert!(metadata.validators.is_empty(), "{metadata:?}");
    stream.next().await.expect("a piece");
    std::fs::write(ftp.path("young"), &new).expect("and again");
    let end = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(end.is_err(), "what came may be of both");
}
