//! Paths, addresses, and the names that files get in a task's scratch directory.
//!
//! Deliberately absent: looking at the disk. All here is text.

use std::path::Path;
use std::sync::Arc;

/// Schemes of addresses that inputs may have.
const SCHEMES: [&str; 10] =
    ["file", "http", "https", "ftp", "ftps", "sftp", "s3", "gs", "az", "globus"];
const PATH_BYTES_MAX: usize = 4000;
const SEGMENT_BYTES_MAX: usize = 255;
/// The engine's own directory, which tasks have no business in.
const OWN_DIRECTORY: &str = ".keelboat";

/// Why a text is not a path or address that can be used, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) help: &'static str,
}

fn complain<T>(message: impl Into<String>, help: &'static str) -> Result<T, Complaint> {
    Err(Complaint { message: message.into(), help })
}

/// The project directory, as the start of absolute paths.
#[derive(Debug, Clone)]
pub(super) struct Project {
    /// Absolute, with a `/` at the end; `None`: not UTF-8, so that no path of ours begins with it.
    prefix: Option<String>,
}

impl Project {
    pub(super) fn new(directory: &Path) -> Self {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let prefix = absolute.to_str().map(|text| format!("{}/", text.trim_end_matches('/')));
        Self { prefix }
    }

    /// The path of an output: relative to the project or absolute, never with `..`.
    pub(super) fn output_path(&self, path: &Arc<str>) -> Result<Arc<str>, Complaint> {
        let normal = self.normal(path)?;
        if normal.split('/').any(|segment| segment == "..") {
            return complain(
                format!("the output {path:?} leaves the project directory by `..`"),
                "write a path below the project directory, or an absolute one; \
                 to = \"…\" copies an output elsewhere",
            );
        }
        Ok(normal)
    }

    /// The path of an input: relative to the project or absolute; `..` only at its beginning.
    pub(super) fn input_path(&self, path: &Arc<str>) -> Result<Arc<str>, Complaint> {
        self.normal(path)
    }

    fn normal(&self, path: &Arc<str>) -> Result<Arc<str>, Complaint> {
        check_text(path, "path")?;
        let inside = self.prefix.as_deref().and_then(|prefix| path.strip_prefix(prefix));
        let relative = inside.unwrap_or(path);
        let clean = relative.split('/').enumerate().all(|(at, segment)| {
            !matches!(segment, "." | "..") && (!segment.is_empty() || at == 0)
        });
        let normal =
            if clean && inside.is_none() { path.clone() } else { collapse(relative).into() };
        let is_project = self
            .prefix
            .as_deref()
            .is_some_and(|prefix| prefix.strip_suffix('/') == Some(normal.as_ref()));
        if normal.is_empty() || normal.as_ref() == "/" || is_project {
            return complain(
                format!("the path {path:?} names no file"),
                "write the path of a file, such as out/result.txt",
            );
        }
        if normal.split('/').next() == Some(OWN_DIRECTORY) {
            return complain(
                format!("the path {path:?} is in {OWN_DIRECTORY}, which belongs to the engine"),
                "choose another directory",
            );
        }
        Ok(normal)
    }
}

/// Without `.`, empty segments and, where something stands before it, `..`.
fn collapse(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." if segments.last().is_some_and(|last| *last != "..") => {
                segments.pop();
            }
            ".." if absolute => {}
            _ => segments.push(segment),
        }
    }
    let joined = segments.join("/");
    if absolute { format!("/{joined}") } else { joined }
}

fn check_text(text: &str, noun: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return complain(format!("the {noun} is empty"), "write a path, such as out/result.txt");
    }
    if text.chars().any(char::is_control) {
        return complain(
            format!("the {noun} {text:?} has a newline, NUL or another control character"),
            "use names without them; values from files and outputs may need cleaning",
        );
    }
    if text.len() > PATH_BYTES_MAX
        || text.split('/').any(|segment| segment.len() > SEGMENT_BYTES_MAX)
    {
        return complain(
            format!("the {noun} is too long ({} bytes)", text.len()),
            "a name in a path may have 255 bytes, the whole path 4000",
        );
    }
    Ok(())
}

/// The scheme of an address; `None`: it is a path.
pub(super) fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    (valid && (rest.starts_with("//") || scheme == "file")).then_some(scheme)
}

/// Whether a text is an address that an input may have.
pub(super) fn check_url(text: &str) -> Result<(), Complaint> {
    const KNOWN: &str = "known schemes: file, http, https, ftp, ftps, sftp, s3, gs, az, globus";
    let Some(scheme) = scheme_of(text) else {
        return complain(
            format!("{text:?} is not an address"),
            "an address begins with https:// or the like",
        );
    };
    if !SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) {
        return complain(format!("there is no scheme `{scheme}`"), KNOWN);
    }
    // Values of parameters may be secrets.
    let redacted = keelboat_staging::redact(text);
    let shown = if text.contains(['@', '?', '#']) { redacted.as_str() } else { text };
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return complain(
            format!("the address {shown:?} has a space or control character"),
            "write %20 in place of a space",
        );
    }
    let rest = text.split_once("://").map_or("/", |(_, rest)| rest);
    if rest.is_empty() || (scheme != "file" && rest.starts_with(['/', '?', '#'])) {
        return complain(format!("the address {shown:?} names no host"), "write https://HOST/PATH");
    }
    if redacted.ends_with("(not a URL)") {
        return complain(
            format!("the address {shown:?} cannot be read"),
            "write %23, %2F, %3A and %40 in place of #, /, : and @ in a name or password",
        );
    }
    Ok(())
}

/// The address that an output is copied to: a `file:` URL or a path.
pub(super) fn check_destination(text: &str) -> Result<(), Complaint> {
    match scheme_of(text) {
        None => check_text(text, "destination"),
        Some("file") => check_url(text),
        Some(scheme) => complain(
            format!("outputs cannot be sent to `{scheme}:` addresses by this version"),
            "write a path or a file: address",
        ),
    }
}

/// Where an input from a path appears in the scratch directory.
pub(super) fn scratch_of_path(path: &Arc<str>) -> Arc<str> {
    if path.starts_with('/') || path.starts_with("../") || path.as_ref() == ".." {
        let last = path.rsplit('/').find(|segment| !segment.is_empty());
        return last.filter(|last| *last != "..").unwrap_or("input").into();
    }
    path.clone()
}

/// Where an input from an address appears: under the last segment of its path.
pub(super) fn scratch_of_url(url: &str, label: &Arc<str>) -> Arc<str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or("");
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let last = path.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or("");
    let name: String = percent_decoded(last)
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    if name.is_empty() || name == "." || name == ".." || name.len() > SEGMENT_BYTES_MAX {
        return label.clone();
    }
    name.into()
}

/// A name given by `as`.
pub(super) fn check_rename(name: &Arc<str>) -> Result<Arc<str>, Complaint> {
    check_text(name, "name")?;
    let outside = name.starts_with('/') || name.split('/').any(|segment| segment == "..");
    let normal = collapse(name);
    if outside || normal.is_empty() {
        return complain(
            format!("an input cannot be called {name:?}"),
            "write a name such as reads.fq, or a path below the task's own directory",
        );
    }
    Ok(normal.into())
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let code = digits
            .filter(|pair| byte == b'%' && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// The directories above a path, the nearest first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    fn parent(path: &str) -> Option<&str> {
        path.rsplit_once('/').map(|(parent, _)| parent)
    }
    std::iter::successors(parent(path), |path| parent(path)).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: &str) -> Result<String, String> {
        let project = Project::new(Path::new("/work/flow"));
        let path = project.output_path(&path.into());
        path.map(|path| path.to_string()).map_err(|complaint| complaint.message)
    }

    #[test]
    fn paths_of_outputs_are_normal_and_inside() {
        for (path, normal) in [
            ("out/a", "out/a"),
            ("./out//a/", "out/a"),
            ("/work/flow/out/a", "out/a"),
            ("/work/flow2/a", "/work/flow2/a"),
            ("/else/./a", "/else/a"),
            ("a/../b", "b"),
            ("with space é", "with space é"),
            ("-x", "-x"),
        ] {
            assert_eq!(output(path).as_deref(), Ok(normal), "{path}");
        }
        for path in
            ["", ".", "/", "..", "../a", "a/../../b", "a\nb", "a\0b", ".keelboat/x", "/work/flow"]
        {
            assert!(output(path).is_err(), "{path:?}");
        }
        assert!(output(&"x".repeat(256)).is_err());
    }

    #[test]
    fn scratch_names_stay_inside() {
        let scratch = |path: &str| scratch_of_path(&path.into()).to_string();
        assert_eq!(scratch("data/a.fq"), "data/a.fq");
        assert_eq!(scratch("/data/a.fq"), "a.fq");
        assert_eq!(scratch("../../a.fq"), "a.fq");
        assert_eq!(scratch("../.."), "input");
        let url = |url: &str| scratch_of_url(url, &"label".into()).to_string();
        assert_eq!(url("https://h/a/b.fq?x=/../y#z"), "b.fq");
        assert_eq!(url("https://h/a%20b"), "a b");
        assert_eq!(url("https://h/..%2f..%2fetc%00"), ".._.._etc_");
        assert_eq!(url("https://h/%2e%2e"), "label");
        assert_eq!(url("https://h"), "label");
        assert_eq!(url("https://h/a/"), "a");
        assert_eq!(url("file:///a/b%ff"), "b%ff");
    }

    #[test]
    fn addresses_have_schemes_and_hosts() {
        assert_eq!(scheme_of("https://h/x"), Some("https"));
        assert_eq!(scheme_of("file:/x"), Some("file"));
        assert_eq!(scheme_of("a:b"), None);
        assert_eq!(scheme_of("out/a://b"), None);
        assert_eq!(check_url("ftp://h/x"), Ok(()));
        assert_eq!(check_url("file:///x"), Ok(()));
        for object in ["s3://bucket/a/k", "gs://bucket/k", "az://container/a%20b"] {
            assert_eq!(check_url(object), Ok(()), "{object}");
        }
        for bad in ["htp://h/x", "https:///x", "https://", "https://h/a b", "x"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_read_keeps_its_secret() {
        for text in ["https://me:hunter2#x@host/data", "https://host/a b?sig=hunter2"] {
            let complaint = check_url(text).expect_err("no address");
            let told = format!("{complaint:?}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn ancestors_are_directories() {
        assert_eq!(ancestors("a/b/c").collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(ancestors("/a/b").collect::<Vec<_>>(), ["/a"]);
        assert_eq!(ancestors("a").count(), 0);
    }
}
