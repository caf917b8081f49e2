//! A web server on loopback with the faults of real ones: now and then it cuts a connection in the
//! middle of a file, and now and then it answers 503 with `Retry-After`.
//!
//! Which requests suffer is a matter of their number and a seed, so that two runs of the demo tell
//! the same story. Files are looked up in a table by their exact path: no name leads out of it.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keelboat_engine::Digest;

use super::data::DataFile;
use super::request::{Portion, Request};

/// Connections at one time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be idle, and how long a client may leave bytes unread.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Bodies shorter than this are never cut, in bytes.
const CUT_BODY_MIN: usize = 1024;
/// What `Retry-After` asks for, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// How often the server misbehaves. 0 means never.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// Decides which requests suffer, and where bodies are cut.
    pub(super) seed: u64,
    /// One request of so many is answered with 503.
    pub(super) unavailable_every: u64,
    /// One body of so many is cut in the middle.
    pub(super) cut_every: u64,
}

/// What the server did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Requests of any kind.
    pub(super) requests: u64,
    /// Bytes of files that were sent.
    pub(super) bytes: u64,
    /// Connections that were cut in the middle of a file.
    pub(super) cuts: u64,
    /// Answers that were 503.
    pub(super) unavailable: u64,
    /// Answers that held part of a file: transfers that went on where they had been cut.
    pub(super) resumed: u64,
    /// Answers that were 304: the client had the file already.
    pub(super) unchanged: u64,
}

impl Counts {
    /// What was added since an earlier moment.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            bytes: self.bytes - earlier.bytes,
            cuts: self.cuts - earlier.cuts,
            unavailable: self.unavailable - earlier.unavailable,
            resumed: self.resumed - earlier.resumed,
            unchanged: self.unchanged - earlier.unchanged,
        }
    }
}

/// A running server. Dropping it closes the port.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    files: BTreeMap<&'static str, Served>,
    faults: Faults,
    tally: Tally,
    stopping: AtomicBool,
    connections: AtomicUsize,
}

/// A file with its strong entity tag.
#[derive(Debug)]
struct Served {
    bytes: &'static [u8],
    etag: String,
}

#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    bodies: AtomicU64,
    bytes: AtomicU64,
    cuts: AtomicU64,
    unavailable: AtomicU64,
    resumed: AtomicU64,
    unchanged: AtomicU64,
}

impl Server {
    /// Serves these files on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be opened, or no thread started.
    pub(super) fn start(files: &[DataFile], faults: Faults) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let served = |file: &DataFile| Served {
            bytes: file.bytes,
            etag: format!("\"{}\"", Digest::of(file.bytes)),
        };
        let shared = Arc::new(Shared {
            files: files.iter().map(|file| (file.path, served(file))).collect(),
            faults,
            tally: Tally::default(),
            stopping: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        });
        let listening = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("demo-server".to_owned())
                .spawn(move || listen(&listener, &shared))?
        };
        Ok(Self { address, shared, listening: Some(listening) })
    }

    /// The address that all files are below, such as `http://127.0.0.1:41234`.
    pub(super) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it did so far.
    pub(super) fn counts(&self) -> Counts {
        let tally = &self.shared.tally;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            requests: count(&tally.requests),
            bytes: count(&tally.bytes),
            cuts: count(&tally.cuts),
            unavailable: count(&tally.unavailable),
            resumed: count(&tally.resumed),
            unchanged: count(&tally.unchanged),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // The listener waits in `accept`: a connection of our own wakes it.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(listening) = self.listening.take()
            && woken
            && listening.join().is_err()
        {
            tracing::warn!("the demo's server had panicked");
        }
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        if shared.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            shared.connections.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let in_thread = Arc::clone(shared);
        let started = thread::Builder::new().name("demo-client".to_owned()).spawn(move || {
            // An error is a client that went away, which is its right.
            if let Err(error) = in_thread.serve(&connection) {
                tracing::debug!(%error, "a connection to the demo's server ended");
            }
            in_thread.connections.fetch_sub(1, Ordering::SeqCst);
        });
        if started.is_err() {
            shared.connections.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// An answer, ready to be written.
#[derive(Debug)]
struct Answer {
    status: &'static str,
    /// Header fields, each with its line end.
    fields: String,
    body: &'static [u8],
    /// Where in the body the connection is cut, if it is.
    cut_at: Option<usize>,
    /// Whether the connection ends after it.
    close: bool,
}

impl Answer {
    fn bare(status: &'static str, fields: impl Into<String>) -> Self {
        Self { status, fields: fields.into(), body: b"", cut_at: None, close: false }
    }

    fn empty(status: &'static str, fields: &str) -> Self {
        Self::bare(status, format!("Content-Length: 0\r\n{fields}"))
    }
}

impl Shared {
    fn serve(&self, connection: &TcpStream) -> io::Result<()> {
        connection.set_read_timeout(Some(IDLE_MAX))?;
        connection.set_write_timeout(Some(IDLE_MAX))?;
        connection.set_nodelay(true)?;
        let mut reader = BufReader::new(connection);
        while !self.stopping.load(Ordering::SeqCst) {
            let answer = match Request::read(&mut reader) {
                Ok(None) => break,
                Ok(Some(request)) => Answer { close: request.close, ..self.answer(&request) },
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let answer = Answer::empty("400 Bad Request", "Connection: close\r\n");
                    Answer { close: true, ..answer }
                }
                Err(error) => return Err(error),
            };
            self.write(connection, &answer)?;
            if answer.close || answer.cut_at.is_some() {
                break;
            }
        }
        connection.shutdown(Shutdown::Both)
    }

    fn answer(&self, request: &Request) -> Answer {
        let number = self.tally.requests.fetch_add(1, Ordering::Relaxed);
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Answer::empty("405 Method Not Allowed", "Allow: GET, HEAD\r\n");
        }
        if is_due(number, self.faults.seed, self.faults.unavailable_every) {
            self.tally.unavailable.fetch_add(1, Ordering::Relaxed);
            let fields = format!("Retry-After: {RETRY_AFTER_S}\r\n");
            return Answer::empty("503 Service Unavailable", &fields);
        }
        match self.files.get(request.path.as_str()) {
            Some(file) => self.answer_with(file, request),
            None => Answer::empty("404 Not Found", ""),
        }
    }

    fn answer_with(&self, file: &Served, request: &Request) -> Answer {
        let length = file.bytes.len();
        let etag = &file.etag;
        if request.holds(etag) {
            self.tally.unchanged.fetch_add(1, Ordering::Relaxed);
            return Answer::bare("304 Not Modified", format!("ETag: {etag}\r\n"));
        }
        let fields = format!("ETag: {etag}\r\nAccept-Ranges: bytes\r\n");
        if request.method == "HEAD" {
            return Answer::bare("200 OK", format!("{fields}Content-Length: {length}\r\n"));
        }
        match request.portion(length, etag) {
            Portion::Whole => self.content("200 OK", &fields, file.bytes),
            Portion::Part(range) => {
                self.tally.resumed.fetch_add(1, Ordering::Relaxed);
                let (start, last) = (range.start, range.end - 1);
                let fields = format!("{fields}Content-Range: bytes {start}-{last}/{length}\r\n");
                let bytes = file.bytes.get(range).unwrap_or_default();
                self.content("206 Partial Content", &fields, bytes)
            }
            Portion::Unsatisfiable => {
                let fields = format!("Content-Range: bytes */{length}\r\n");
                Answer::empty("416 Range Not Satisfiable", &fields)
            }
        }
    }

    fn content(&self, status: &'static str, fields: &str, body: &'static [u8]) -> Answer {
        let fields = format!("{fields}Content-Length: {}\r\n", body.len());
        Answer { body, cut_at: self.cut_at(body.len()), ..Answer::bare(status, fields) }
    }

    /// Where to cut a body of this length, if its turn has come: somewhere in its middle half.
    fn cut_at(&self, length: usize) -> Option<usize> {
        if length < CUT_BODY_MIN {
            return None;
        }
        let number = self.tally.bodies.fetch_add(1, Ordering::Relaxed);
        is_due(number, self.faults.seed, self.faults.cut_every).then(|| {
            let permille = mix(self.faults.seed ^ number) % 1000;
            length / 4 + length / 2 * usize::try_from(permille).unwrap_or(0) / 1000
        })
    }

    fn write(&self, mut to: &TcpStream, answer: &Answer) -> io::Result<()> {
        to.write_all(format!("HTTP/1.1 {}\r\n{}\r\n", answer.status, answer.fields).as_bytes())?;
        let sent = answer.cut_at.unwrap_or(answer.body.len());
        // Counted before they are written: whoever has read them must find them counted.
        self.tally.bytes.fetch_add(sent as u64, Ordering::Relaxed);
        self.tally.cuts.fetch_add(u64::from(answer.cut_at.is_some()), Ordering::Relaxed);
        to.write_all(answer.body.get(..sent).unwrap_or_default())
    }
}

/// Whether the turn has come for the one of `every` that the seed picks.
fn is_due(number: u64, seed: u64, every: u64) -> bool {
    number.wrapping_add(seed).checked_rem(every) == Some(every / 2)
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood, 2014): neighbours become strangers.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::data::FILES;
    use super::*;

    const PATH: &str = "readings/alder.csv";

    fn alder() -> &'static [u8] {
        FILES.iter().find(|file| file.path == PATH).expect("a shipped file").bytes
    }

    fn server(faults: Faults) -> Server {
        Server::start(FILES, faults).expect("a server on loopback")
    }

    /// Sends raw bytes, and reads until the server closes the connection.
    fn exchange(server: &Server, request: &str) -> (String, Vec<u8>) {
        let mut connection = TcpStream::connect(server.address).expect("a connection");
        connection.write_all(request.as_bytes()).expect("a request sent");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let body = answer.split_off(end);
        (String::from_utf8(answer).expect("a head in ASCII"), body)
    }

    fn ask(server: &Server, method: &str, path: &str, fields: &str) -> (String, Vec<u8>) {
        let request = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
        exchange(server, &request)
    }

    fn etag_of(head: &str) -> &str {
        head.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("an ETag")
    }

    #[test]
    fn a_file_comes_whole_with_its_length_and_tag() {
        let server = server(Faults::default());
        let (head, body) = ask(&server, "GET", PATH, "");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", alder().len())));
        assert_eq!(etag_of(&head), format!("\"{}\"", Digest::of(alder())));
        assert_eq!(body, alder());
        let bytes = alder().len() as u64;
        assert_eq!(server.counts(), Counts { requests: 1, bytes, ..Counts::default() });
    }

    #[test]
    fn head_has_the_same_fields_and_no_body() {
        let server = server(Faults::default());
        let (get, _) = ask(&server, "GET", PATH, "");
        let (head, body) = ask(&server, "HEAD", PATH, "");
        let sorted = |head: &str| {
            let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&head), sorted(&get));
        assert_eq!(body, b"");
    }

    #[test]
    fn one_connection_serves_several_requests() {
        let server = server(Faults::default());
        let twice = format!(
            "GET /stations.csv HTTP/1.1\r\n\r\nGET /{PATH} HTTP/1.1\r\nConnection: close\r\n\r\n"
        );
        let (_, rest) = exchange(&server, &twice);
        assert!(rest.ends_with(alder()));
        assert_eq!(server.counts().requests, 2);
    }

    #[test]
    fn a_transfer_goes_on_where_it_was_cut_and_only_on_the_same_file() {
        let server = server(Faults::default());
        let (head, _) = ask(&server, "HEAD", PATH, "");
        let same = format!("Range: bytes=1000-\r\nIf-Range: {}\r\n", etag_of(&head));
        let (head, body) = ask(&server, "GET", PATH, &same);
        let length = alder().len();
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        assert!(head.contains(&format!("Content-Range: bytes 1000-{}/{length}\r\n", length - 1)));
        assert_eq!(body, &alder()[1000..]);
        let other = "Range: bytes=1000-\r\nIf-Range: \"other\"\r\n";
        let (head, body) = ask(&server, "GET", PATH, other);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(body, alder());
        let (head, _) = ask(&server, "GET", PATH, "Range: bytes=99999999-\r\n");
        assert!(head.starts_with("HTTP/1.1 416 "), "{head}");
        assert_eq!(server.counts().resumed, 1);
    }

    #[test]
    fn who_holds_the_file_is_not_sent_it_again() {
        let server = server(Faults::default());
        let (head, _) = ask(&server, "HEAD", PATH, "");
        let field = format!("If-None-Match: {}\r\n", etag_of(&head));
        let (head, body) = ask(&server, "GET", PATH, &field);
        assert!(head.starts_with("HTTP/1.1 304 "), "{head}");
        assert_eq!((body.len(), server.counts().unchanged, server.counts().bytes), (0, 1, 0));
    }

    #[test]
    fn faults_come_in_turn_and_the_same_with_the_same_seed() {
        let faults = Faults { seed: 7, unavailable_every: 5, cut_every: 3 };
        let run = || {
            let server = server(faults);
            let answers: Vec<(String, usize)> = (0..30)
                .map(|_| ask(&server, "GET", PATH, ""))
                .map(|(head, body)| (head, body.len()))
                .collect();
            (answers, server.counts())
        };
        let (answers, counts) = run();
        assert_eq!((counts.requests, counts.unavailable, counts.cuts), (30, 6, 8));
        let unavailable = answers.iter().filter(|(head, _)| {
            head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: 1\r\n")
        });
        assert_eq!(unavailable.count(), 6);
        let length = alder().len();
        let cut = answers.iter().filter(|(head, body)| {
            head.starts_with("HTTP/1.1 200 ") && (length / 4..length * 3 / 4).contains(body)
        });
        assert_eq!(cut.count(), 8);
        let received: usize = answers.iter().map(|(_, body)| body).sum();
        assert_eq!(counts.bytes, received as u64);
        assert_eq!(run(), (answers, counts));
    }

    #[test]
    fn no_name_leads_out_of_the_table() {
        let server = server(Faults::default());
        for path in ["", "readings", "../flow.toml", "readings/../../flow.toml", "%2e%2e/flow.toml"]
        {
            let (head, body) = ask(&server, "GET", path, "");
            assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
            assert_eq!(body, b"");
        }
        assert_eq!(server.counts().bytes, 0);
    }

    #[test]
    fn what_it_does_not_do_is_refused() {
        let server = server(Faults::default());
        assert!(ask(&server, "DELETE", PATH, "").0.starts_with("HTTP/1.1 405 "));
        assert!(exchange(&server, "nonsense\r\n\r\n").0.starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn a_dropped_server_has_closed_its_port() {
        let server = server(Faults::default());
        let base = server.base();
        let address = base.strip_prefix("http://").expect("an address of a web server");
        assert!(TcpStream::connect(address).is_ok());
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }
}
