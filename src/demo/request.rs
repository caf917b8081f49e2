//! Requests of HTTP/1.1, as far as a server of a few files needs them (RFC 9110, RFC 9112).
//!
//! Deliberately absent: bodies, percent-encoding, several ranges in one request.

use std::io::{self, BufRead, Read as _};
use std::ops::Range;

/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: u64 = 16 * 1024;

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// What is asked for, without the leading `/` and without a query.
    pub(super) path: String,
    /// Whether the connection ends with the answer.
    pub(super) close: bool,
    fields: Vec<(String, String)>,
}

/// Which bytes of a file an answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Portion {
    /// All of them.
    Whole,
    /// These.
    Part(Range<usize>),
    /// The range that was asked for begins behind the end.
    Unsatisfiable,
}

impl Request {
    /// Reads the next request; `None`: the client has gone.
    ///
    /// # Errors
    /// Of kind `InvalidData` when it is not a request that this server understands.
    pub(super) fn read(connection: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = connection.take(HEAD_BYTES_MAX);
        let Some(line) = read_line(&mut head)? else { return Ok(None) };
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(invalid("the request line is not `METHOD TARGET VERSION`"));
        };
        if !version.starts_with("HTTP/1.") {
            return Err(invalid("the version is not HTTP/1"));
        }
        let path = target.split('?').next().unwrap_or_default();
        let mut request = Self {
            method: method.to_owned(),
            path: path.strip_prefix('/').unwrap_or(path).to_owned(),
            close: version == "HTTP/1.0",
            fields: Vec::new(),
        };
        request.read_fields(&mut head)?;
        Ok(Some(request))
    }

    fn read_fields(&mut self, head: &mut impl BufRead) -> io::Result<()> {
        loop {
            let line = read_line(head)?.ok_or_else(|| invalid("the head has no end"))?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| invalid("a field has no `:`"))?;
            self.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let has_body = self.field("content-length").is_some_and(|length| length != "0")
            || self.field("transfer-encoding").is_some();
        if has_body {
            return Err(invalid("requests with a body are not served"));
        }
        self.close |= self.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        Ok(())
    }

    /// The value of a header field, by its name in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client holds exactly the file that has this tag.
    pub(super) fn holds(&self, etag: &str) -> bool {
        self.field("if-none-match")
            .is_some_and(|tags| tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag))
    }

    /// Which of `length` bytes to send. A range counts only when `If-Range`, if there, names `etag`.
    pub(super) fn portion(&self, length: usize, etag: &str) -> Portion {
        if self.field("if-range").is_some_and(|tag| tag != etag) {
            return Portion::Whole;
        }
        self.field("range").map_or(Portion::Whole, |range| portion(range, length))
    }
}

/// A range that cannot be read is as good as none (RFC 9110, 14.2).
fn portion(range: &str, length: usize) -> Portion {
    let bounds = range.strip_prefix("bytes=").and_then(|bounds| bounds.split_once('-'));
    let Some((first, last)) = bounds else { return Portion::Whole };
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(start), Ok(last)) if start <= last => (start, length.min(last.saturating_add(1))),
        (Ok(start), Err(_)) if last.is_empty() => (start, length),
        (Err(_), Ok(suffix)) if first.is_empty() => (length.saturating_sub(suffix), length),
        _ => return Portion::Whole,
    };
    if start < end { Portion::Part(start..end) } else { Portion::Unsatisfiable }
}

/// The next line without its end; `None` at the end of the stream.
fn read_line(head: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let text = line.strip_suffix('\n').ok_or_else(|| invalid("the head is cut off or too long"))?;
    Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Request {
        Request::read(&mut head.as_bytes()).expect("a request").expect("not the end")
    }

    #[test]
    fn a_request_is_read_and_the_next_one_is_left() {
        let mut stream =
            "GET /a/b.csv?x=1 HTTP/1.1\r\nHost: h\r\nRANGE: bytes=1-\r\n\r\nHEAD".as_bytes();
        let request = Request::read(&mut stream).unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "a/b.csv"));
        assert_eq!(request.field("range"), Some("bytes=1-"));
        assert!(!request.close);
        assert_eq!(stream, b"HEAD");
    }

    #[test]
    fn the_end_of_a_connection_is_told_from_a_bad_request() {
        assert_eq!(Request::read(&mut "".as_bytes()).unwrap(), None);
        let endless = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        for bad in ["GET /\r\n\r\n", "GET / HTTP/2\r\n\r\n", "GET / HTTP/1.1\r\nHost", &endless] {
            let error = Request::read(&mut bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad}");
        }
        let with_body = "GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        assert!(Request::read(&mut with_body.as_bytes()).is_err());
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let cases = [
            ("bytes=0-3", Portion::Part(0..4)),
            ("bytes=6-", Portion::Part(6..10)),
            ("bytes=6-99", Portion::Part(6..10)),
            ("bytes=-3", Portion::Part(7..10)),
            ("bytes=-30", Portion::Part(0..10)),
            ("bytes=10-", Portion::Unsatisfiable),
            ("bytes=-0", Portion::Unsatisfiable),
            ("bytes=5-4", Portion::Whole),
            ("bytes=0-1,4-5", Portion::Whole),
            ("lines=1-2", Portion::Whole),
            ("bytes=a-b", Portion::Whole),
        ];
        for (range, expected) in cases {
            let request = request(&format!("GET /f HTTP/1.1\r\nRange: {range}\r\n\r\n"));
            assert_eq!(request.portion(10, "\"tag\""), expected, "{range}");
        }
    }

    #[test]
    fn a_range_of_another_version_of_the_file_is_not_served() {
        let ask = |tag: &str| {
            request(&format!("GET /f HTTP/1.1\r\nRange: bytes=4-\r\nIf-Range: {tag}\r\n\r\n"))
        };
        assert_eq!(ask("\"new\"").portion(10, "\"new\""), Portion::Part(4..10));
        assert_eq!(ask("\"old\"").portion(10, "\"new\""), Portion::Whole);
    }

    #[test]
    fn connections_end_when_the_client_says_so() {
        assert!(request("GET /f HTTP/1.0\r\n\r\n").close);
        assert!(request("GET /f HTTP/1.1\r\nConnection: Close\r\n\r\n").close);
    }

    #[test]
    fn a_client_that_holds_the_file_is_known() {
        let holds = |tags: &str| {
            request(&format!("GET /f HTTP/1.1\r\nIf-None-Match: {tags}\r\n\r\n")).holds("\"a\"")
        };
        assert!(holds("\"a\"") && holds("\"b\", \"a\"") && holds("*"));
        assert!(!holds("\"b\""));
        assert!(!request("GET /f HTTP/1.1\r\n\r\n").holds("\"a\""));
    }
}
