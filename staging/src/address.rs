//! Addresses: what may be shown of them, who serves them, what they are called.
//!
//! Deliberately absent: any normalization. Two texts are two addresses.

mod read;

use keelboat_engine::Digest;
use reqwest::Url;

pub use read::Address;

/// The address without user information, query values and fragment, safe to show and to log.
///
/// What has no scheme is a local path, shown as it is. Of what has one and is no URL nothing else is
/// shown, since nobody knows where its secrets are.
pub fn redact(address: &str) -> String {
    if let Some(member) = member_of(address) {
        return format!("{}:{}!/{}", member.format, redact(member.archive), member.path);
    }
    if is_data(address) {
        return format!("data:... ({} characters)", address.chars().count());
    }
    let Some(mut url) = parse(address) else {
        return match address.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://... (not a URL)"),
            None => address.to_owned(),
        };
    };
    url.set_fragment(None);
    // A URL that cannot have user information has none to remove.
    if url.set_username("").and_then(|()| url.set_password(None)).is_err() {
        tracing::trace!("an address of a scheme without user information");
    }
    if let Some(query) = url.query().map(hide_values) {
        url.set_query(Some(&query));
    }
    url.to_string()
}

/// `a=1&b=2` becomes `a=…&b=…`; a query without `=` may itself be a token.
fn hide_values(query: &str) -> String {
    let hidden: Vec<String> = query
        .split('&')
        .map(|pair| {
            pair.split_once('=').map_or_else(|| "...".into(), |(key, _)| format!("{key}=..."))
        })
        .collect();
    hidden.join("&")
}

/// The digest of an address: a name for it that holds no secret.
pub fn address_digest(address: &str) -> Digest {
    Digest::of(address.as_bytes())
}

/// The address as a URL, unless it is a plain path.
pub(crate) fn parse(address: &str) -> Option<Url> {
    let (scheme, rest) = address.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let is_url = is_scheme && (rest.starts_with("//") || scheme.eq_ignore_ascii_case("file"));
    is_url.then(|| Url::parse(address).ok()).flatten()
}

/// Whether a text is an address, and not the path of a local file.
pub fn is_address(text: &str) -> bool {
    text.contains("://")
        || is_data(text)
        || member_of(text).is_some()
        || text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
}

/// One file or directory inside of an archive: `zip:ADDRESS!/PATH`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// `zip` or `tar`.
    pub(crate) format: &'a str,
    /// The archive's own address.
    pub(crate) archive: &'a str,
    /// Where it is in the archive, decoded; empty: all of it.
    pub(crate) path: String,
}

/// What an address names inside of an archive, if it is one of those.
pub(crate) fn member_of(address: &str) -> Option<Member<'_>> {
    let (format, rest) = address.split_once(':')?;
    if !matches!(format, "zip" | "tar") {
        return None;
    }
    let (archive, path) = rest.rsplit_once("!/").unwrap_or((rest, ""));
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    Some(Member { format, archive, path: path.trim_matches('/').to_owned() })
}

/// The last part of an address or path, decoded.
pub(crate) fn last_name(address: &str) -> String {
    let path = parse(address).map_or_else(|| address.to_owned(), |url| url.path().to_owned());
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if address.contains("://") {
        return percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned();
    }
    last.to_owned()
}

/// Whether the address is the data itself (RFC 2397).
pub(crate) fn is_data(address: &str) -> bool {
    address.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

/// Lower-case scheme of an address; `file` for plain paths.
pub(crate) fn scheme_of(address: &str) -> String {
    if is_data(address) {
        return "data".to_owned();
    }
    if let Some(member) = member_of(address) {
        return member.format.to_owned();
    }
    match address.split_once("://") {
        Some((scheme, _)) => scheme.to_ascii_lowercase(),
        None => "file".to_owned(),
    }
}

/// Whether the network is not needed for an address.
pub(crate) fn is_local(address: &str) -> bool {
    match member_of(address) {
        Some(member) => is_local(member.archive),
        None => is_data(address) || (scheme_of(address) == "file" && host_of(address) == "file"),
    }
}

/// `host:port` of an address, lower case, the key of connection limits; `file` for local ones.
pub(crate) fn host_of(address: &str) -> String {
    host_of_url(parse(address).as_ref())
}

fn host_of_url(url: Option<&Url>) -> String {
    let host_and_port = url.and_then(|url| {
        let host = url.host_str()?.to_ascii_lowercase();
        let port = url.port_or_known_default().or_else(|| port_of(url.scheme()));
        Some(match port {
            Some(port) => format!("{host}:{port}"),
            None => format!("{}:{host}", url.scheme()),
        })
    });
    host_and_port.unwrap_or_else(|| "file".to_owned())
}

/// The port of schemes that a web browser does not know.
fn port_of(scheme: &str) -> Option<u16> {
    match scheme {
        "sftp" => Some(22),
        // With TLS on demand, as it is without a port unless the credentials say otherwise.
        "ftps" => Some(21),
        _ => None,
    }
}

/// The address of what is below a directory; `path` is decoded, with `/` between its parts.
pub fn child_address(directory: &str, path: &str) -> String {
    if !directory.contains("://") {
        return format!("{}/{path}", directory.trim_end_matches('/'));
    }
    let named;
    let (base, query) = match &*scheme_of(directory) {
        // These have no queries and no fragments: both signs belong to the name.
        "ftp" | "ftps" | "sftp" => {
            named = directory.replace('?', "%3F").replace('#', "%23");
            (&*named, None)
        }
        _ => {
            let whole = directory.split_once('#').map_or(directory, |(whole, _)| whole);
            whole.split_once('?').map_or((whole, None), |(base, query)| (base, Some(query)))
        }
    };
    let base = base.trim_end_matches('/');
    let path = percent_encoding::utf8_percent_encode(path, NOT_IN_PATHS);
    match query {
        Some(query) => format!("{base}/{path}?{query}"),
        None => format!("{base}/{path}"),
    }
}

/// What is escaped in the path of an address; `/` is not.
const NOT_IN_PATHS: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Whether the name at the end of the address says that it holds data, and so no web page.
pub(crate) fn names_data(address: &str) -> bool {
    const SUFFIXES: &[&str] = &[
        "gz", "bgz", "bz2", "xz", "zst", "zip", "tar", "tgz", "7z", "bam", "cram", "sam", "bai",
        "fa", "fasta", "fq", "fastq", "vcf", "bcf", "bed", "gff", "gtf", "csv", "tsv", "json",
        "jsonl", "parquet", "h5", "hdf5", "nc", "npy", "npz", "fits", "root", "bin", "dat", "tif",
        "tiff", "png", "jpg", "jpeg", "pdf", "sra", "2bit", "bw", "bigwig", "sqlite", "db",
    ];
    let path = parse(address).map_or_else(|| address.to_owned(), |url| url.path().to_owned());
    let suffix = path.rsplit('/').next().and_then(|name| name.rsplit_once('.'));
    suffix.is_some_and(|(_, suffix)| SUFFIXES.contains(&suffix.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let address = "https://user:pw@host:8443/a%20b.gz?X-Sig=abc&token#frag";
        assert_eq!(redact(address), "https://host:8443/a%20b.gz?X-Sig=...&...");
        assert_eq!(redact("/data/a b.gz"), "/data/a b.gz");
        assert_eq!(redact("C:\\x"), "C:\\x");
        let member = "zip:https://user:pw@h/a.zip?sig=abc!/dir/b%20c";
        assert_eq!(redact(member), "zip:https://h/a.zip?sig=...!/dir/b c");
        assert_eq!(redact("data:,secret"), "data:... (12 characters)");
    }

    #[test]
    fn hosts_and_schemes_are_told_apart() {
        assert_eq!(host_of("https://u:p@h/x"), "h:443");
        assert_eq!(host_of("http://h:81/x"), "h:81");
        assert_eq!(host_of("/a/b"), "file");
        for one in ["sftp://h/", "sftp://H/x", "sftp://u:p@h:22/"] {
            assert_eq!(host_of(one), "h:22", "{one}");
        }
        for one in ["ftp://h/", "ftps://H", "ftp://h:21/x", "ftps://u@h:21/x"] {
            assert_eq!(host_of(one), "h:21", "{one}");
        }
        assert_eq!(host_of("ftps://h:990/"), "h:990");
        assert_eq!(host_of("sftp://[::1]/x"), "[::1]:22");
        assert_eq!(host_of("s3://bucket/key"), "s3:bucket");
        assert_eq!(scheme_of("HTTPS://h/x"), "https");
        assert_eq!(scheme_of("file:/a"), "file");
        assert_eq!(scheme_of("a:b"), "file");
    }

    #[test]
    fn members_of_archives_are_told_apart() {
        let member = |address| member_of(address).map(|member| (member.archive, member.path));
        assert_eq!(member("zip:/a/b.zip!/c/d%20e/"), Some(("/a/b.zip", "c/d e".to_owned())));
        assert_eq!(member("tar:https://h/a.tgz"), Some(("https://h/a.tgz", String::new())));
        let nested = "zip:tar:https://h/a.tar!/b.zip!/c";
        assert_eq!(member(nested), Some(("tar:https://h/a.tar!/b.zip", "c".to_owned())));
        assert_eq!(member("https://h/a.zip!/b"), None);
        assert!(is_local("zip:/a/b.zip!/c") && !is_local("zip:https://h/b.zip!/c"));
    }

    #[test]
    fn last_names_are_decoded() {
        assert_eq!(last_name("ftp://h/a/b%20c?x=/y"), "b c");
        assert_eq!(last_name("/a/b%20c"), "b%20c");
    }

    #[test]
    fn children_are_escaped() {
        assert_eq!(child_address("ftp://h/a/", "b c/d#"), "ftp://h/a/b%20c/d%23");
        assert_eq!(child_address("https://h/a?sig=1", "b"), "https://h/a/b?sig=1");
        assert_eq!(child_address("https://h/a/?sig=1#x", "b"), "https://h/a/b?sig=1");
        assert_eq!(child_address("/a b", "c d"), "/a b/c d");
        assert_eq!(child_address("/a?b#c/", "d"), "/a?b#c/d");
        for scheme in ["ftp", "ftps", "sftp"] {
            let child = child_address(&format!("{scheme}://h/a?b#c/"), "d?e");
            assert_eq!(child, format!("{scheme}://h/a%3Fb%23c/d%3Fe"));
        }
    }

    #[test]
    fn names_of_data_are_known_by_their_suffix() {
        assert!(names_data("https://h/a/reads.fq.GZ?x=y.html"));
        assert!(!names_data("https://h/a.csv/index.html"));
        assert!(!names_data("https://h/reads"));
    }
}
