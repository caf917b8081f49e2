//! A web server on loopback that cuts connections and answers 503 now and then.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keelboat_engine::Digest;

/// A server whose threads end with the test process.
#[derive(Debug)]
pub(crate) struct Server {
    base: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// One request of so many is answered with 503, one body of so many is cut; 0: never.
    unavailable_every: u64,
    cut_every: u64,
    requests: AtomicU64,
    /// Where answers began that held only a part.
    parts: Mutex<Vec<usize>>,
}

/// How a half is sent below `/held/` to whoever asks for a whole file: in so many pieces, with a
/// pause after each; then nothing more.
const PIECES: usize = 30;
const PIECE_PAUSE: Duration = Duration::from_millis(50);

impl Server {
    pub(crate) fn start(unavailable_every: u64, cut_every: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::new(Shared {
            files: Mutex::default(),
            unavailable_every,
            cut_every,
            requests: AtomicU64::new(0),
            parts: Mutex::default(),
        });
        let at_work = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&at_work);
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { base, shared }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Puts a file at a path such as `/a/b`.
    pub(crate) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.shared.files().insert(path.to_owned(), bytes.into());
    }

    /// The first bytes of all answers so far that held only a part.
    pub(crate) fn parts(&self) -> Vec<usize> {
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut reader = BufReader::new(stream);
        // A client that goes away ends the connection.
        while let Some(request) = Request::read(&mut reader) {
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            if !matches!(self.answer(stream, &request, number), Some(())) {
                return;
            }
        }
    }

    /// `None`: the connection is over.
    fn answer(&self, mut stream: &TcpStream, request: &Request, number: u64) -> Option<()> {
        let every = |period: u64| period > 0 && number.is_multiple_of(period);
        let Some(bytes) = self.files().get(&request.path).cloned() else {
            let head =
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n";
            return stream.write_all(&[head.as_bytes(), b"not here\n"].concat()).ok();
        };
        if every(self.unavailable_every) {
            let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
            return stream.write_all(head.as_bytes()).ok();
        }
        let etag = format!("\"{}\"", Digest::of(&bytes));
        if request.none_match.as_ref() == Some(&etag) {
            let head = format!("HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n");
            return stream.write_all(head.as_bytes()).ok();
        }
        let same = request.if_range.as_ref().is_none_or(|tag| *tag == etag);
        let first = request.range_from.filter(|first| same && *first < bytes.len());
        let body = bytes.get(first.unwrap_or(0)..).unwrap_or_default();
        let status = if let Some(first) = first {
            let (last, size) = (bytes.len() - 1, bytes.len());
            self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(first);
            format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}")
        } else {
            "200 OK".to_owned()
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nETag: {etag}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        if request.head_only {
            return Some(());
        }
        if request.path.starts_with("/held/") && first.is_none() {
            let half = body.get(..body.len() / 2).unwrap_or_default();
            for piece in half.chunks(half.len().div_ceil(PIECES)) {
                stream.write_all(piece).ok()?;
                std::thread::sleep(PIECE_PAUSE);
            }
            // Until the client goes away.
            return stream.read_exact(&mut [0]).ok();
        }
        if every(self.cut_every) && body.len() > 1 {
            let half = body.get(..body.len() / 2).unwrap_or_default();
            stream.write_all(half).ok();
            return None;
        }
        stream.write_all(body).ok()
    }
}

/// The parts of a request that matter here.
#[derive(Debug, Default)]
struct Request {
    path: String,
    head_only: bool,
    range_from: Option<usize>,
    if_range: Option<String>,
    none_match: Option<String>,
}

impl Request {
    fn read(reader: &mut BufReader<&TcpStream>) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let mut words = line.split(' ');
        let head_only = words.next()? == "HEAD";
        let path = words.next()?.split('?').next()?.to_owned();
        let mut request = Self { path, head_only, ..Self::default() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim();
            if line.is_empty() {
                return Some(request);
            }
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    let first =
                        value.strip_prefix("bytes=").and_then(|range| range.split('-').next());
                    request.range_from = first.and_then(|first| first.parse().ok());
                }
                "if-range" => request.if_range = Some(value.to_owned()),
                "if-none-match" => request.none_match = Some(value.to_owned()),
                _ => {}
            }
        }
    }
}
