//! A server of answers that are written out byte by byte, for those that no honest server gives.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Result, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// No connection waits longer for the other side.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The first byte wanted and the one after the last, if a range is.
    pub(crate) fn range(&self) -> Option<(usize, Option<usize>)> {
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok().map(|last: usize| last + 1)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

type Answer = dyn Fn(&Asked, usize, &mut TcpStream) -> Result<()> + Send + Sync;

/// Listens on a free port until it is dropped; one request for each connection.
pub(crate) struct Raw {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Raw {
    /// `answer` is told the request and how many came before it.
    pub(crate) fn start(
        answer: impl Fn(&Asked, usize, &mut TcpStream) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (log, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        let answer: Arc<Answer> = Arc::new(answer);
        let listening = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                // Whoever hangs up in the middle is the one who is tested.
                std::thread::spawn(move || drop(serve(stream, &log, &*answer)));
            }
        });
        Self { address, asked, is_over, listening: Some(listening) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let woken = TcpStream::connect(self.address);
        let ended = self.listening.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || (woken.is_ok() && matches!(ended, Some(Ok(())))),
            "the raw server does not end"
        );
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &Answer) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let asked = read(&stream)?;
    let number = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(asked.clone());
        log.len() - 1
    };
    answer(&asked, number, &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    wait_for_end(&mut stream)
}

/// Until the other side hangs up.
pub(crate) fn wait_for_end(stream: &mut TcpStream) -> Result<()> {
    let mut rest = [0; 1024];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

fn read(stream: &TcpStream) -> Result<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(ErrorKind::InvalidData.into());
    };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok(Asked { method, path, headers, body })
}

/// A whole answer: status, fields, body. The length is among the fields or is not said.
pub(crate) fn say(stream: &mut TcpStream, head: &str, body: &[u8]) -> Result<()> {
    let head = head.trim().replace('\n', "\r\n");
    stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes())?;
    stream.write_all(body)
}

/// The file as an honest server would give it, with this tag.
pub(crate) fn honest(stream: &mut TcpStream, asked: &Asked, tag: &str, bytes: &[u8]) -> Result<()> {
    let total = bytes.len();
    let is_same = asked.header("if-range").is_none_or(|wanted| wanted == tag);
    let Some((first, end)) = asked.range().filter(|(first, _)| is_same && *first < total) else {
        let head = format!("200 OK\nETag: {tag}\nAccept-Ranges: bytes\nContent-Length: {total}");
        return say(stream, &head, bytes);
    };
    let end = end.unwrap_or(total).min(total);
    let head = format!(
        "206 Partial Content\nETag: {tag}\nContent-Range: bytes {first}-{}/{total}\n\
         Content-Length: {}",
        end - 1,
        end - first
    );
    say(stream, &head, &bytes[first..end])
}
