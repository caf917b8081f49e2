//! Reading directories: MLSD (RFC 3659), and LIST where a server does not have it.

use jiff::Timestamp;
use suppaftp::list::ListParser;
use tokio::io::AsyncReadExt;
use tokio_util::bytes::BytesMut;

use super::address::{below, is_one_line};
use super::session::{Session, Transfer};
use super::version::Version;
use crate::protocol::{Depth, Entry, TransferError};

/// Entries of one listing, all directories together.
const ENTRIES_MAX: usize = 1_000_000;

/// Directories within one another: more of them are a circle of links.
const LEVELS_MAX: usize = 64;

/// Bytes of one line.
const LINE_BYTES_MAX: usize = 16 << 10;

/// What is below a directory.
///
/// The session can be used further after it, whether it ended well or not, unless the error is of
/// the connection.
pub(super) async fn list(
    session: &mut Session,
    directory: &str,
    depth: Depth,
) -> Result<Vec<Entry>, TransferError> {
    let mut walk = Walk { session, home: None, entries: Vec::new() };
    let mut open = vec![(directory.to_owned(), String::new(), 0)];
    while let Some((remote, prefix, level)) = open.pop() {
        for item in walk.directory(&remote).await? {
            let path = format!("{prefix}{}", item.name);
            if item.kind == Kind::Directory && depth == Depth::All {
                if level >= LEVELS_MAX {
                    return Err(too_much(&format!("more than {LEVELS_MAX} levels")));
                }
                open.push((below(&remote, &item.name), format!("{path}/"), level + 1));
            }
            walk.add(&remote, path, item).await?;
        }
    }
    let Walk { home, entries, .. } = walk;
    if let Some(home) = home {
        enter(session, &home).await?;
    }
    Ok(entries)
}

/// A name in a directory, whatever has it.
pub(super) struct Named {
    pub(super) name: String,
    /// Whether it looks like a directory: a link to one may.
    pub(super) is_directory: bool,
}

/// All names in a directory, also of links to nothing.
pub(super) async fn names(
    session: &mut Session,
    directory: &str,
) -> Result<Vec<Named>, TransferError> {
    let mut walk = Walk { session, home: None, entries: Vec::new() };
    let items = walk.directory(directory).await?;
    if let Some(home) = walk.home {
        enter(session, &home).await?;
    }
    let named = |item: Item| Named { name: item.name, is_directory: item.kind == Kind::Directory };
    Ok(items.into_iter().map(named).collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    /// To something that has yet to be asked for.
    Link,
}

/// One line of a listing.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    name: String,
    kind: Kind,
    version: Version,
}

struct Walk<'a> {
    session: &'a mut Session,
    /// The directory of the login, once the server turned out to have no MLSD.
    home: Option<String>,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    async fn directory(&mut self, remote: &str) -> Result<Vec<Item>, TransferError> {
        if self.home.is_none() {
            let command = format!("MLSD {}", if remote.is_empty() { "." } else { remote });
            match self.items(&command, mlsd_item).await? {
                Ok(items) => return Ok(items),
                Err(reply) if reply.is_unsupported() => {
                    self.home = Some(home(self.session).await?);
                }
                Err(reply) => return Err(reply.refusal()),
            }
        }
        let home = self.home.as_deref().unwrap_or_default();
        let absolute =
            if remote.starts_with('/') { remote.to_owned() } else { below(home, remote) };
        // Some servers list nothing for what is not there, and a file as if it were a directory.
        enter(self.session, &absolute).await?;
        match self.items("LIST", list_item).await? {
            Ok(items) => Ok(items),
            Err(reply) if matches!(reply.code, 450 | 550) && reply.says("no files") => Ok(vec![]),
            Err(reply) => Err(reply.refusal()),
        }
    }

    /// What a command lists; `Err` inside is an answer that refuses.
    async fn items(
        &mut self,
        command: &str,
        read: fn(&str) -> Result<Option<Item>, TransferError>,
    ) -> Result<Result<Vec<Item>, super::reply::Reply>, TransferError> {
        let mut data = match self.session.begin(Transfer::Command(command)).await? {
            Ok(data) => data,
            Err(reply) => return Ok(Err(reply)),
        };
        let mut items = Vec::new();
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(LINE_BYTES_MAX);
            let received = match data.read_buf(&mut buffer).await {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
                Err(error) => return Err(TransferError::Unreachable { found: error.to_string() }),
            };
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                items.extend(item_of(&buffer.split_to(end + 1), read)?);
            }
            if self.entries.len() + items.len() > ENTRIES_MAX {
                return Err(too_much(&format!("more than {ENTRIES_MAX} entries")));
            }
            if received == 0 {
                items.extend(item_of(&buffer, read)?);
                break;
            }
            if buffer.len() > LINE_BYTES_MAX {
                let found = format!("a line of a listing has more than {LINE_BYTES_MAX} bytes");
                return Err(TransferError::Malformed { found });
            }
        }
        Ok(Session::end(data).await?.map(|()| items))
    }

    async fn add(&mut self, remote: &str, path: String, item: Item) -> Result<(), TransferError> {
        let version = match item.kind {
            Kind::Directory => {
                let modified = item.version.modified_at();
                self.entries.push(Entry::directory(path).modified_at(modified));
                return Ok(());
            }
            Kind::File => item.version,
            // Only what is a file in the end has a length. Links to directories are not followed.
            Kind::Link => {
                let version = Version::ask(self.session, &below(remote, &item.name)).await?;
                if version.length.is_none() {
                    return Ok(());
                }
                version
            }
        };
        let validators = version.validators(Timestamp::now());
        let entry = Entry::file(path, version.length, validators);
        self.entries.push(entry.modified_at(version.modified_at()));
        Ok(())
    }
}

/// One line without its end.
fn item_of(
    line: &[u8],
    read: fn(&str) -> Result<Option<Item>, TransferError>,
) -> Result<Option<Item>, TransferError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_not_utf8| TransferError::Refused {
        found: format!("the directory holds a name that is not UTF-8: {}", line.escape_ascii()),
        hint: "rename it at its source, or name each file".into(),
    })?;
    let item = read(line)?;
    match &item {
        Some(item) if !is_name(&item.name) => Err(TransferError::Refused {
            found: format!("the directory holds {:?}, which is no name for a file", item.name),
            hint: "rename it at its source, or name each file".into(),
        }),
        _ => Ok(item),
    }
}

/// Whether a name stays in its directory, and is one argument of a command.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\']) && is_one_line(name)
}

/// `type=file;size=5;modify=20260131235959; name`
fn mlsd_item(line: &str) -> Result<Option<Item>, TransferError> {
    let Some((facts, name)) = line.split_once(' ') else {
        return Err(not_understood(line));
    };
    let mut kind = None;
    let mut version = Version::default();
    for (fact, value) in facts.split(';').filter_map(|fact| fact.split_once('=')) {
        match &*fact.to_ascii_lowercase() {
            "type" => kind = Some(value.to_ascii_lowercase()),
            "size" => version.length = value.parse().ok(),
            "modify" => version.modified = Some(value.to_owned()),
            _ => {}
        }
    }
    let kind = match kind.as_deref() {
        Some("file") => Kind::File,
        Some("dir") => Kind::Directory,
        Some(link) if link.contains("link") => Kind::Link,
        Some(_) => return Ok(None),
        None => return Err(not_understood(line)),
    };
    // Of what is no file, the length says nothing.
    let length = version.length.filter(|_| kind == Kind::File);
    let version = Version { length, ..version };
    Ok(Some(Item { name: name.to_owned(), kind, version }))
}

/// As `ls -l` or MS-DOS write it. The moments of it are too coarse to tell versions apart.
fn list_item(line: &str) -> Result<Option<Item>, TransferError> {
    let is_total = line.strip_prefix("total ").is_some_and(|n| n.trim().parse::<u64>().is_ok());
    // Devices, sockets and pipes.
    if is_total || line.starts_with(['b', 'c', 'p', 's']) {
        return Ok(None);
    }
    let file = ListParser::parse_posix(line).or_else(|_| ListParser::parse_dos(line));
    let file = file.map_err(|_unknown| not_understood(line))?;
    let kind = match &file {
        file if file.is_symlink() => Kind::Link,
        file if file.is_directory() => Kind::Directory,
        _ => Kind::File,
    };
    if matches!(file.name(), "." | "..") {
        return Ok(None);
    }
    let length = (kind == Kind::File).then_some(file.size() as u64);
    Ok(Some(Item {
        name: file.name().to_owned(),
        kind,
        version: Version { length, modified: None },
    }))
}

pub(super) async fn enter(session: &mut Session, directory: &str) -> Result<(), TransferError> {
    let reply = session.command(&format!("CWD {directory}")).await?;
    if reply.is_success() { Ok(()) } else { Err(reply.refusal()) }
}

/// The directory of the login, where the session is between two deeds.
pub(super) async fn home(session: &mut Session) -> Result<String, TransferError> {
    if let Some(home) = &session.home {
        return Ok(home.clone());
    }
    let reply = session.command("PWD").await?;
    let path =
        Some(&reply).filter(|reply| reply.code == 257).and_then(|reply| quoted(reply.last()));
    let path = path.filter(|path| path.starts_with('/'));
    session.home.clone_from(&path);
    path.ok_or_else(|| TransferError::Malformed { found: reply.shown() })
}

/// `"/a ""b"""  is the current directory`
fn quoted(text: &str) -> Option<String> {
    let mut path = String::new();
    let mut characters = text.strip_prefix('"')?.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '"' && characters.next_if_eq(&'"').is_none() {
            return Some(path);
        }
        path.push(character);
    }
    None
}

fn not_understood(line: &str) -> TransferError {
    let line: String = line.chars().take(200).collect();
    TransferError::Malformed { found: format!("a directory has the line {line:?}") }
}

fn too_much(found: &str) -> TransferError {
    TransferError::Refused {
        found: format!("the directory holds {found}"),
        hint: "name a smaller directory".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mlsd_are_read() {
        let read = |line: &str| mlsd_item(line).unwrap();
        let file = read("modify=20260131235959;Type=file;SIZE=5;UNIX.mode=0644; a; b").unwrap();
        assert_eq!((&*file.name, file.kind), ("a; b", Kind::File));
        let version = Version { length: Some(5), modified: Some("20260131235959".into()) };
        assert_eq!(file.version, version);
        assert_eq!(read("type=dir;modify=20260131235959; d").unwrap().kind, Kind::Directory);
        assert_eq!(read("type=OS.unix=slink:/x; l").unwrap().kind, Kind::Link);
        for other in ["type=cdir; .", "type=pdir; ..", "type=OS.unix=blkdev; sda"] {
            assert_eq!(read(other), None, "{other}");
        }
        for bad in ["name", "size=5; name", "break"] {
            assert!(mlsd_item(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_of_list_are_read() {
        for (line, name, kind, length) in [
            ("-rw-r--r--   1 ftp ftp   1024 Nov 22 12:00 a b", "a b", Kind::File, Some(1024)),
            ("-rw-r--r--   1 ftp ftp      7 Jan  3  2020 c", "c", Kind::File, Some(7)),
            ("drwxr-xr-x   2 ftp ftp   4096 Nov 22 12:00 dir", "dir", Kind::Directory, None),
            ("lrwxrwxrwx   1 ftp ftp      3 Nov 22 12:00 l -> a", "l", Kind::Link, None),
            ("11-22-26  12:00PM                 5 x.txt", "x.txt", Kind::File, Some(5)),
            ("11-22-26  12:00PM       <DIR>       dos dir", "dos dir", Kind::Directory, None),
        ] {
            let item = list_item(line).unwrap().unwrap();
            assert_eq!((&*item.name, item.kind, item.version.length), (name, kind, length));
        }
        for none in ["total 12", "brw-rw---- 1 root disk 8, 0 Nov 22 12:00 sda"] {
            assert_eq!(list_item(none).unwrap(), None, "{none}");
        }
        assert!(list_item("what is this").is_err());
    }

    #[test]
    fn names_do_not_lead_elsewhere() {
        for name in ["../x", "..", ".", "", "a/b", "a\\b", "/etc/passwd"] {
            let line = format!("type=file;size=1; {name}\r\n");
            assert!(item_of(line.as_bytes(), mlsd_item).is_err(), "{name}");
        }
        assert!(item_of(b"type=file; \xff\n", mlsd_item).is_err());
    }

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quoted("\"/a \"\"b\"\"\" is current").as_deref(), Some("/a \"b\""));
        assert_eq!(quoted("/a"), None);
        assert_eq!(quoted("\"/a"), None);
    }
}
