//! `sftp://user@host:port/path`: where, as whom, and which file.

use percent_encoding::percent_decode_str;

use crate::address::parse;
use crate::credentials::Secret;
use crate::protocol::TransferError;

const PORT: u16 = 22;

/// A server as an address names it, with what the address says of the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
}

/// A file at a server. The path is absolute, or relative to the home of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) server: Server,
    pub(super) path: Vec<u8>,
}

impl Place {
    /// # Errors
    /// It is no such address; the error holds nothing of it.
    pub(super) fn parse(address: &str) -> Result<Self, TransferError> {
        let url = parse(address).ok_or_else(|| refused("it is not a URL"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("a path over sftp: has no `?` and no `#`"));
        }
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(refused("it names no server"));
        }
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let server = Server {
            host,
            port: url.port().unwrap_or(PORT),
            user: user.map(decoded).transpose()?,
            password: url.password().map(decoded).transpose()?.map(Secret::new),
        };
        Ok(Self { server, path: path_of(url.path())? })
    }
}

fn decoded(text: &str) -> Result<String, TransferError> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from).map_err(|_not_utf8| refused("its user or password is not UTF-8"))
}

/// `/~/x` is relative to the home, as curl has it; all else is absolute.
fn path_of(path: &str) -> Result<Vec<u8>, TransferError> {
    let path: Vec<u8> = percent_decode_str(path).collect();
    if path.contains(&0) {
        return Err(refused("its path holds a NUL"));
    }
    let path = match path.strip_prefix(b"/~") {
        Some([]) => b".".to_vec(),
        Some([b'/', rest @ ..]) if rest.iter().all(|byte| *byte == b'/') => b".".to_vec(),
        Some([b'/', rest @ ..]) => {
            let slashes = rest.iter().take_while(|byte| **byte == b'/').count();
            rest[slashes..].to_vec()
        }
        _ if path.is_empty() => b"/".to_vec(),
        _ => path,
    };
    let length = path.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
    Ok(path[..length].to_vec())
}

/// The directory that a path is in; `None`: it is at the top, or in the home.
pub(super) fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let parent = path.get(..slash)?;
    let length = parent.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    parent.get(..length).filter(|parent| !parent.is_empty())
}

/// A name in a directory.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, separator, name].concat()
}

fn refused(found: &str) -> TransferError {
    TransferError::Refused {
        found: found.into(),
        hint: "write sftp://user@host/absolute/path or sftp://user@host/~/path/below/home, with \
               `%3F` for `?`, `%23` for `#` and `%25` for `%`"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(address: &str) -> String {
        String::from_utf8(Place::parse(address).unwrap().path).unwrap()
    }

    #[test]
    fn paths_are_absolute_or_relative_to_the_home() {
        assert_eq!(path("sftp://h/a/b%20c%3F%25"), "/a/b c?%");
        assert_eq!(path("sftp://h/~/a/b"), "a/b");
        assert_eq!(path("sftp://h/~//a"), "a");
        assert_eq!(path("sftp://h/~"), ".");
        assert_eq!(path("sftp://h/~/"), ".");
        assert_eq!(path("sftp://h/~user/x"), "/~user/x");
        assert_eq!(path("sftp://h"), "/");
        assert_eq!(path("sftp://h/"), "/");
        assert_eq!(path("sftp://h/a//"), "/a");
        assert_eq!(Place::parse("sftp://h/%FF").unwrap().path, b"/\xFF");
    }

    #[test]
    fn servers_are_read() {
        let server = Place::parse("sftp://us%40er:p%2Fw@Host:2222/x").unwrap().server;
        assert_eq!((server.host.as_str(), server.port), ("host", 2222));
        assert_eq!(server.user.as_deref(), Some("us@er"));
        assert_eq!(server.password, Some(Secret::new("p/w")));
        let server = Place::parse("sftp://[::1]/x").unwrap().server;
        assert_eq!((server.host.as_str(), server.port, server.user), ("::1", 22, None));
    }

    #[test]
    fn what_is_no_such_address_is_refused() {
        for bad in ["sftp:///x", "sftp://h/a%00b", "sftp://h/a?b", "sftp://h/a#b", "sftp://h:x/"] {
            assert!(matches!(Place::parse(bad), Err(TransferError::Refused { .. })), "{bad}");
        }
    }

    #[test]
    fn parents_end_at_the_top() {
        let parents = |path: &'static str| parent(path.as_bytes());
        assert_eq!(parents("/a/b"), Some(&b"/a"[..]));
        assert_eq!(parents("a//b"), Some(&b"a"[..]));
        assert_eq!(parents("/a"), None);
        assert_eq!(parents("a"), None);
        assert_eq!(join(b"/", b"a"), b"/a");
        assert_eq!(join(b"a", b"b"), b"a/b");
    }
}
