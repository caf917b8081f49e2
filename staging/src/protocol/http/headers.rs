//! Reading the header fields that decide about transfers (RFC 9110).

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    HeaderMap, HeaderName, LAST_MODIFIED, RETRY_AFTER,
};

use crate::protocol::{Metadata, Validators};

/// The longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// How much older than the answer a Last-Modified must be to tell versions apart. One second would
/// do if both moments came from one clock; servers behind one address may have several.
const STRONG_AGE: Duration = Duration::from_mins(1);

/// Where the bytes of a 206 answer belong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: Option<u64>,
}

/// `bytes 10-19/100`, or `bytes 10-19/*`.
pub(super) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (range, total) = text(headers, &CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let makes_sense = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
    makes_sense.then_some(ContentRange { first, last, total })
}

/// The length of the file, from the answer that it does not reach so far: `bytes */100`.
pub(super) fn unsatisfied_range(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_RANGE)?.strip_prefix("bytes */")?.trim().parse().ok()
}

/// What an answer says of the file, given the length of the whole.
pub(super) fn metadata(headers: &HeaderMap, length: Option<u64>) -> Metadata {
    let media_type = text(headers, &CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase());
    Metadata {
        length,
        validators: validators(headers),
        accepts_ranges: text(headers, &ACCEPT_RANGES).is_some_and(|value| value != "none"),
        media_type,
    }
}

/// The announced bytes of the body.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_LENGTH)?.trim().parse().ok()
}

/// The coding of the body, if it has one (several are one text here).
pub(super) fn coding(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(CONTENT_ENCODING).iter();
    let codings = all.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    let codings: Vec<String> = codings
        .flat_map(|value| value.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>())
        .filter(|one| !one.is_empty() && one != "identity")
        .collect();
    (!codings.is_empty()).then(|| codings.join(", "))
}

/// The SHA-256, in base64, that the server says the file has now: `Repr-Digest: sha-256=:...:`
/// (RFC 9530) or `Digest: SHA-256=...` (RFC 3230).
pub(super) fn sha256(headers: &HeaderMap) -> Option<String> {
    let find = |name: &str| {
        let all = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        all.flat_map(|value| value.split(',')).find_map(|one| {
            let (algorithm, digest) = one.trim().split_once('=')?;
            let is_sha256 = algorithm.eq_ignore_ascii_case("sha-256");
            is_sha256.then(|| digest.trim_matches(':').to_owned())
        })
    };
    find("repr-digest").or_else(|| find("digest"))
}

pub(super) fn validators(headers: &HeaderMap) -> Validators {
    let last_modified = text(headers, &LAST_MODIFIED).map(str::to_owned);
    let date = text(headers, &DATE).and_then(http_date);
    let modified = last_modified.as_deref().and_then(http_date);
    let age = date.zip(modified).map(|(date, modified)| date.duration_since(modified));
    Validators {
        etag: text(headers, &ETAG).filter(|tag| is_etag(tag)).map(str::to_owned),
        last_modified,
        last_modified_is_strong: age
            .is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age >= STRONG_AGE)),
    }
}

/// `"…"` or `W/"…"`; some servers forget the quotes, and then other servers refuse it.
fn is_etag(tag: &str) -> bool {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"')
}

/// How long the server asked to be left alone: seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?.trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // A date that is past asks for no wait.
        Err(_) => Duration::try_from(http_date(value)?.duration_since(now)).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |value: &str| value.parse().expect("a header value");
        fields.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    #[test]
    fn lengths_of_files_that_end_before_are_read_strictly() {
        let read = |value| unsatisfied_range(&headers(&[(CONTENT_RANGE, value)]));
        assert_eq!(read("bytes */100"), Some(100));
        for bad in ["bytes */*", "bytes 0-9/100", "bytes */", "*/100"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        let read = |value| content_range(&headers(&[(CONTENT_RANGE, value)]));
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(read("bytes 10-19/100"), range(10, 19, Some(100)));
        assert_eq!(read("bytes 10-19/*"), range(10, 19, None));
        for bad in ["bytes */100", "bytes 20-10/100", "bytes 1-100/100", "items 1-2/3", "bytes 1-2"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_limit() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let wait = |value| retry_after(&headers(&[(RETRY_AFTER, value)]), now);
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:00 GMT"), Some(Duration::from_secs(23)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("86400"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn a_fresh_last_modified_is_weak() {
        let strong = |modified| {
            let date = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
            validators(&headers(&[date, (LAST_MODIFIED, modified)])).last_modified_is_strong
        };
        assert!(!strong("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(!strong("Sun, 06 Nov 1994 09:49:37 GMT"), "from the future");
        assert!(strong("Sun, 06 Nov 1994 08:48:37 GMT"));
    }

    #[test]
    fn digests_and_codings_are_read_in_all_their_forms() {
        let digest = |name: &str, value: &str| {
            let name = HeaderName::try_from(name).expect("a name");
            sha256(&headers(&[(name, value)]))
        };
        assert_eq!(digest("repr-digest", "sha-512=:eA==:, sha-256=:YQ==:"), Some("YQ==".into()));
        assert_eq!(digest("digest", "SHA-256=YQ=="), Some("YQ==".into()));
        assert_eq!(digest("digest", "md5=YQ=="), None);
        let coded = |value| coding(&headers(&[(CONTENT_ENCODING, value)]));
        assert_eq!(coded("identity"), None);
        assert_eq!(coded("gzip, BR").as_deref(), Some("gzip, br"));
    }

    #[test]
    fn an_etag_without_quotes_is_none() {
        let etag = |value| validators(&headers(&[(ETAG, value)])).etag;
        assert_eq!(etag("abc"), None);
        assert_eq!(etag("W/\"abc\"").as_deref(), Some("W/\"abc\""));
    }
}
