//! An HTTP server of a few lines that counts its connections and changes its answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// How every request is answered from now on.
#[derive(Clone)]
pub(crate) enum Answer {
    /// With this body.
    Whole(Arc<Vec<u8>>),
    /// With the head and half of the body, the rest after so long.
    Paused(Arc<Vec<u8>>, Duration),
    /// With this status and these header lines.
    Status(u16, String),
    /// With a closed connection.
    Nothing,
    /// Not at all.
    Never,
}

/// Until it is dropped. Everything happens on the test's own thread.
pub(crate) struct Counting {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    _task: AbortOnDropHandle<()>,
}

struct Seen {
    answer: Answer,
    names: Vec<String>,
    open: usize,
    at_once: usize,
}

impl Counting {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Seen { answer, names: Vec::new(), open: 0, at_once: 0 };
        let seen = Arc::new(Mutex::new(seen));
        let theirs = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&theirs);
                tokio::spawn(async move {
                    // Whoever hangs up has what it wanted.
                    drop(serve(stream, &seen).await);
                });
            }
        });
        Self { port, seen, _task: AbortOnDropHandle::new(task) }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn address(&self, name: &str) -> String {
        format!("http://{}/{name}", self.host())
    }

    /// Answers differently from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        lock(&self.seen).answer = answer;
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        lock(&self.seen).names.len()
    }

    /// What they were for, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.seen).names.clone()
    }

    /// The most requests that were open at one time.
    pub(crate) fn at_once(&self) -> usize {
        lock(&self.seen).at_once
    }

    pub(crate) async fn wait_until_asked(&self) {
        let asked = async {
            while self.asked() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.expect("a request comes");
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let name = head.split([' ', '/']).filter(|part| !part.is_empty()).nth(1).unwrap_or_default();
    let answer = {
        let mut seen = lock(seen);
        seen.names.push(name.to_owned());
        seen.open += 1;
        seen.at_once = seen.at_once.max(seen.open);
        seen.answer.clone()
    };
    let result = send(&mut stream, answer).await;
    lock(seen).open -= 1;
    result
}

async fn send(stream: &mut TcpStream, answer: Answer) -> std::io::Result<()> {
    let (body, pause) = match answer {
        Answer::Whole(body) => (body, Duration::ZERO),
        Answer::Paused(body, pause) => (body, pause),
        Answer::Status(status, headers) => {
            let head = format!(
                "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n"
            );
            return stream.write_all(head.as_bytes()).await;
        }
        Answer::Nothing => return Ok(()),
        Answer::Never => return std::future::pending().await,
    };
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (first, rest) = body.split_at(length / 2);
    stream.write_all(first).await?;
    tokio::time::sleep(pause).await;
    stream.write_all(rest).await
}
