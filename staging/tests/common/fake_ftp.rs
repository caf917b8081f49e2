//! An FTP server that does as it is told, even what no server should do.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::noise;

/// Bytes of each of its files, of which it has one of every name.
pub(crate) const FILE_BYTES: usize = 20_000;

/// Bytes that it sends at once.
const PIECE_BYTES: usize = 4_000;

/// What it does otherwise than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    Honest,
    /// Half a file, and then it says that this was all.
    HalfThen226,
    /// The whole file, and then it says that something failed.
    WholeThen451,
    /// It names another machine for the data.
    DataElsewhere,
    /// SIZE is twice what comes.
    SizeTooLarge,
    /// SIZE is half of what comes.
    SizeTooSmall,
    /// Nothing after `150`.
    Silence,
    /// The answer to SIZE has no end.
    EndlessAnswer,
    /// It accepts REST and begins at the start.
    RestIgnored,
    /// It lists a name that leads out of the directory.
    NameElsewhere,
    /// It has LIST only.
    NoMlsd,
    /// Files change and transfers break at any moment.
    Changing,
    /// Nobody else may log in.
    Full,
}

/// The server; it ends with the runtime of its test.
#[derive(Debug)]
pub(crate) struct FakeFtp {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    trick: Trick,
    chance: AtomicU64,
    /// How often each file has changed.
    versions: Mutex<BTreeMap<String, u64>>,
    connections: Mutex<Vec<AbortHandle>>,
    resumed: AtomicU64,
}

impl FakeFtp {
    pub(crate) async fn start(trick: Trick) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let shared = Arc::new(Shared {
            trick,
            chance: AtomicU64::new(7),
            versions: Mutex::default(),
            connections: Mutex::default(),
            resumed: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let task = tokio::spawn(Connection::serve(client, Arc::clone(&serving)));
                serving.connections().push(task.abort_handle());
            }
        });
        Self { port, shared }
    }

    pub(crate) fn address(&self, name: &str) -> String {
        format!("ftp://127.0.0.1:{}/{name}", self.port)
    }

    /// What a file holds, or held before it changed.
    pub(crate) fn content(name: &str, version: u64) -> Vec<u8> {
        let seed = name.bytes().fold(version, |seed, byte| seed * 31 + u64::from(byte));
        noise(seed, FILE_BYTES)
    }

    /// How often a file has changed.
    pub(crate) fn version(&self, name: &str) -> u64 {
        self.shared.version(name)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections().len()
    }

    /// Downloads that did not begin at the start.
    pub(crate) fn resumed(&self) -> u64 {
        self.shared.resumed.load(Ordering::Relaxed)
    }

    /// Ends all connections.
    pub(crate) fn hang_up(&self) {
        self.shared.connections().iter().for_each(AbortHandle::abort);
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<AbortHandle>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self, name: &str) -> u64 {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.get(name).copied().unwrap_or_default()
    }

    fn change(&self, name: &str) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        *versions.entry(name.to_owned()).or_default() += 1;
    }

    /// Whether something happens that happens once in so many times.
    fn happens(&self, once_in: u64) -> bool {
        let step = |state: u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let order = Ordering::Relaxed;
        let state = self.chance.fetch_update(order, order, step).unwrap_or_default();
        (state >> 33).is_multiple_of(once_in)
    }
}

struct Connection {
    client: BufReader<TcpStream>,
    shared: Arc<Shared>,
    data: Option<TcpListener>,
    offset: usize,
}

impl Connection {
    async fn serve(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
        let client = BufReader::new(client);
        let mut connection = Self { client, shared, data: None, offset: 0 };
        connection.answer("220 here").await?;
        let mut line = String::new();
        while connection.client.read_line(&mut line).await? > 0 {
            let command = std::mem::take(&mut line);
            let (verb, argument) = command.trim_end().split_once(' ').unwrap_or((&command, ""));
            connection.obey(verb.trim_end(), argument).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, line: &str) -> io::Result<()> {
        self.client.get_mut().write_all(format!("{line}\r\n").as_bytes()).await
    }

    async fn obey(&mut self, verb: &str, argument: &str) -> io::Result<()> {
        let trick = self.shared.trick;
        match verb {
            "USER" if trick == Trick::Full => self.answer("530 Too many users, sorry").await,
            "USER" => self.answer("331 who is it?").await,
            "PASS" => self.answer("230 in").await,
            "FEAT" => self.answer("211-these\r\n UTF8\r\n SIZE\r\n REST STREAM\r\n211 all").await,
            "SIZE" if trick == Trick::EndlessAnswer => loop {
                self.client.get_mut().write_all(&[b'2'; 4096]).await?;
            },
            "SIZE" => {
                let size = match trick {
                    Trick::SizeTooLarge => FILE_BYTES * 2,
                    Trick::SizeTooSmall => FILE_BYTES / 2,
                    _ => FILE_BYTES,
                };
                self.answer(&format!("213 {size}")).await
            }
            "MDTM" => {
                let version = self.shared.version(argument);
                let (minutes, seconds) = (version / 60, version % 60);
                self.answer(&format!("213 2026010100{minutes:02}{seconds:02}")).await
            }
            "EPSV" if trick == Trick::DataElsewhere => self.answer("502 no").await,
            "EPSV" => {
                let port = self.listen().await?;
                self.answer(&format!("229 here (|||{port}|)")).await
            }
            "PASV" => {
                let port = self.listen().await?;
                self.answer(&format!("227 there (192,0,2,1,{},{})", port >> 8, port & 255)).await
            }
            "REST" => {
                self.offset = argument.parse().expect("an offset");
                self.answer("350 from there").await
            }
            "RETR" => self.send_file(argument).await,
            "MLSD" if trick == Trick::NoMlsd => self.answer("500 what?").await,
            "MLSD" => {
                let name = if trick == Trick::NameElsewhere { "../x" } else { "x" };
                self.send(format!("type=file;size={FILE_BYTES}; {name}\r\n").as_bytes()).await
            }
            "PWD" => self.answer("257 \"/home\" it is").await,
            "CWD" if argument.ends_with("absent") => self.answer("550 No such directory").await,
            "CWD" => self.answer("250 there").await,
            "LIST" => {
                let lines = "total 3\r\n\
                     -rw-r--r-- 1 ftp ftp 20000 Jan  1  2026 a b\r\n\
                     lrwxrwxrwx 1 ftp ftp     3 Jan  1  2026 link -> a b\r\n";
                self.send(lines.as_bytes()).await
            }
            "TYPE" | "OPTS" => self.answer("200 so be it").await,
            _ => self.answer("502 no").await,
        }
    }

    async fn listen(&mut self) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        self.data = Some(listener);
        Ok(port)
    }

    async fn connected(&mut self) -> io::Result<TcpStream> {
        self.answer("150 here it comes").await?;
        let listener = self.data.take().expect("EPSV or PASV");
        Ok(listener.accept().await?.0)
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut data = self.connected().await?;
        data.write_all(bytes).await?;
        drop(data);
        self.answer("226 that was it").await
    }

    async fn send_file(&mut self, name: &str) -> io::Result<()> {
        let offset = std::mem::take(&mut self.offset);
        if offset > 0 {
            self.shared.resumed.fetch_add(1, Ordering::Relaxed);
        }
        let content = FakeFtp::content(name, self.shared.version(name));
        match self.shared.trick {
            Trick::HalfThen226 => self.send(&content[offset..(FILE_BYTES / 2).max(offset)]).await,
            Trick::RestIgnored => self.send(&content).await,
            Trick::Changing => self.send_changing(name, offset).await,
            Trick::Silence => {
                let _data = self.connected().await?;
                std::future::pending().await
            }
            Trick::WholeThen451 => {
                self.connected().await?.write_all(&content[offset..]).await?;
                self.answer("451 the disk is broken").await
            }
            _ => self.send(&content[offset..]).await,
        }
    }

    async fn send_changing(&mut self, name: &str, offset: usize) -> io::Result<()> {
        let mut data = self.connected().await?;
        let mut position = offset;
        while position < FILE_BYTES {
            if self.shared.happens(12) {
                self.shared.change(name);
            }
            if self.shared.happens(8) {
                drop(data);
                return self.answer("426 it broke").await;
            }
            let end = FILE_BYTES.min(position + PIECE_BYTES);
            let content = FakeFtp::content(name, self.shared.version(name));
            data.write_all(&content[position..end]).await?;
            position = end;
        }
        drop(data);
        self.answer("226 that was it").await
    }
}
