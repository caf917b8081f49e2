//! A relay in front of a server that cuts what goes there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Passes bytes on. As long as there are cuts left, a connection over which so many bytes have gone
/// to the server is cut: the rest of what it had sent is lost.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes to the server before a connection is cut, one number for each cut that is to come.
    cuts: Mutex<Vec<u64>>,
    /// Bytes to the server in all.
    passed: AtomicU64,
    /// Bytes from the server in all.
    came: AtomicU64,
    cut: AtomicU64,
    /// Whether the server is gone: who comes is hung up on.
    is_dead: AtomicBool,
    /// Closed with the last who passes bytes on: an end that is only shut down would take bytes for
    /// ever, and nobody would see the cut.
    sockets: Mutex<Vec<Weak<TcpStream>>>,
}

impl Relay {
    /// In front of what listens at this port of this machine.
    pub(crate) fn start(port: u16, cuts: &[u64]) -> Self {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let cuts = Mutex::new(cuts.iter().rev().copied().collect());
        let (passed, came, cut) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (is_dead, sockets) = (AtomicBool::new(false), Mutex::default());
        let state = Arc::new(State { cuts, passed, came, cut, is_dead, sockets });
        Self { port: listen(&state, server), state }
    }

    /// Bytes that were sent towards the server.
    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

    /// Bytes that came from the server.
    pub(crate) fn came(&self) -> u64 {
        self.state.came.load(Ordering::SeqCst)
    }

    /// Ends all connections and takes no more: what a server that is killed looks like.
    pub(crate) fn kill(&self) {
        self.state.is_dead.store(true, Ordering::SeqCst);
        let mut sockets = self.state.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in sockets.drain(..).filter_map(|socket| socket.upgrade()) {
            // Some have ended by themselves.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    /// The server is there again, at the same port.
    pub(crate) fn revive(&self) {
        self.state.is_dead.store(false, Ordering::SeqCst);
    }

    /// Connections that were cut.
    pub(crate) fn cut(&self) -> u64 {
        self.state.cut.load(Ordering::SeqCst)
    }
}

/// Takes connections to a server until the process ends, at the port that is told.
fn listen(state: &Arc<State>, server: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let state = Arc::clone(state);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if state.is_dead.load(Ordering::SeqCst) {
                continue;
            }
            let Ok(upstream) = TcpStream::connect(server) else { return };
            let (client, upstream) = (Arc::new(client), Arc::new(upstream));
            let ends = [&client, &upstream].map(Arc::downgrade);
            state.sockets.lock().unwrap_or_else(PoisonError::into_inner).extend(ends);
            let (from, to) = (Arc::clone(&client), Arc::clone(&upstream));
            let up = Arc::clone(&state);
            std::thread::spawn(move || up.pass_up(&from, &to));
            let down = Arc::clone(&state);
            std::thread::spawn(move || down.pass_down(&upstream, &client));
        }
    });
    port
}

impl State {
    fn pass_up(&self, mut client: &TcpStream, mut server: &TcpStream) {
        let mut passed = 0;
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = client.read(&mut buffer) {
            let due = self.due(passed + read as u64);
            let rest = due.map_or(read as u64, |due| due.saturating_sub(passed));
            let rest = usize::try_from(rest).expect("a part of the buffer");
            passed += rest as u64;
            self.passed.fetch_add(read as u64, Ordering::SeqCst);
            if server.write_all(&buffer[..rest]).is_err() || due.is_some() {
                break;
            }
        }
        // Half of it would do for FTP, and look like the end of the file: this is a cut.
        drop(server.shutdown(Shutdown::Both));
        drop(client.shutdown(Shutdown::Both));
    }

    /// The cut that is due, once so many bytes would have gone over one connection.
    fn due(&self, passed: u64) -> Option<u64> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let due = cuts.pop_if(|due| *due < passed);
        self.cut.fetch_add(u64::from(due.is_some()), Ordering::SeqCst);
        due
    }

    /// What an FTP server says of where it waits for data is replaced by a relay of its own.
    fn pass_down(self: &Arc<Self>, server: &TcpStream, mut client: &TcpStream) {
        let mut reader = BufReader::new(server);
        let mut buffer = Vec::new();
        while let Ok(bytes) = reader.fill_buf() {
            if bytes.is_empty() {
                break;
            }
            buffer.clear();
            buffer.extend_from_slice(bytes);
            let taken = buffer.len();
            if buffer.starts_with(b"229 ") {
                let text = String::from_utf8_lossy(&buffer).into_owned();
                let port = text.split('|').find_map(|part| part.parse().ok()).expect("a port");
                let own = listen(self, SocketAddr::from(([127, 0, 0, 1], port)));
                buffer = text.replace(&format!("|{port}|"), &format!("|{own}|")).into_bytes();
            }
            reader.consume(taken);
            self.came.fetch_add(taken as u64, Ordering::SeqCst);
            if client.write_all(&buffer).is_err() {
                break;
            }
        }
        drop(client.shutdown(Shutdown::Both));
        drop(server.shutdown(Shutdown::Both));
    }
}
