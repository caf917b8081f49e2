//! Reading the file with credentials.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use super::{Credential, CredentialsError, Secret, sketch};

/// Bytes of the file.
const BYTES_MAX: u64 = 1 << 20;

/// What a scope can begin with.
const SCHEMES: &[&str] = &["http", "https", "ftp", "ftps", "sftp", "s3", "gs", "az", "globus"];

/// Header fields that say how bytes are moved: an entry that sets them would break transfers.
const HEADERS_RESERVED: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What an entry can say, and how each is written.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("scope", "scope = \"https://host/prefix\""),
    ("user", "user = \"ann\""),
    ("password", "password = \"...\""),
    ("token", "token = \"...\""),
    ("token_file", "token_file = \"~/.tokens/data\""),
    ("headers", "headers = { X-Api-Key = \"...\" }"),
    ("key_file", "key_file = \"~/.ssh/id_ed25519\""),
    ("passphrase", "passphrase = \"...\""),
    ("settings", "settings = { AWS_PROFILE = \"...\" }"),
    ("client_id", "client_id = \"...\""),
    ("client_secret", "client_secret = \"...\""),
    ("refresh_token", "refresh_token = \"...\""),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    credential: Vec<Spanned<Credential>>,
}

/// What is wrong with one entry, and what to write.
struct Flaw {
    /// The key that it is about.
    key: &'static str,
    cause: String,
    hint: String,
}

/// The entries of the file, if nobody else can read it and all of it is understood.
pub(super) fn read(path: &Path) -> Result<Vec<Arc<Credential>>, CredentialsError> {
    let text = read_private(path, BYTES_MAX)?;
    let fail = |at: usize, cause: &str, hint: String| CredentialsError {
        path: path.to_owned(),
        cause: format!("line {}: {cause}", line_of(&text, at)),
        sketch: sketch::draw(&path.display().to_string(), &text, at),
        hint,
    };
    let contents: Contents = toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let (cause, hint) = explain(error.message(), sketch::key_at(&text, at));
        fail(at, &cause, hint)
    })?;
    let mut scopes = BTreeMap::new();
    let mut entries = Vec::with_capacity(contents.credential.len());
    for (number, spanned) in contents.credential.into_iter().enumerate() {
        let start = spanned.span().start;
        let at = |key| sketch::key_of_entry(&text, number, key).unwrap_or(start);
        let mut entry = spanned.into_inner();
        check(&entry).map_err(|flaw| fail(at(flaw.key), &flaw.cause, flaw.hint))?;
        let scope = crate::address::parse(&entry.scope).as_ref().map(super::split);
        if let Some(first) = scopes.insert(scope, at("scope")) {
            let cause = format!("this scope is that of line {}", line_of(&text, first));
            let hint = "put both into one entry, or make one scope longer".into();
            return Err(fail(at("scope"), &cause, hint));
        }
        entry.token_file = entry.token_file.map(|file| beside(path, file));
        entry.key_file = entry.key_file.map(|file| beside(path, file));
        entries.push(Arc::new(entry));
    }
    Ok(entries)
}

/// The text of a file that belongs to this user and that nobody else can read or write.
pub(super) fn read_private(path: &Path, bytes_max: u64) -> Result<String, CredentialsError> {
    let fail = |cause: String, hint: String| CredentialsError {
        path: path.into(),
        cause,
        sketch: String::new(),
        hint,
    };
    let failed = |error: std::io::Error| {
        fail(error.to_string(), "make it a text file that you can read".into())
    };
    // Without this flag a pipe in its place would be waited for.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    let shown = path.display();
    if found.uid() != nix::unistd::geteuid().as_raw() {
        let cause = format!("it belongs to another user (number {})", found.uid());
        return Err(fail(cause, format!("make a copy of your own, and `chmod 600 {shown}`")));
    }
    if found.mode() & 0o077 != 0 {
        let cause = format!("others have access to it (mode {:04o})", found.mode() & 0o7777);
        return Err(fail(cause, format!("run `chmod 600 {shown}`")));
    }
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > bytes_max {
        let hint = "keep entries in it, and nothing else".into();
        return Err(fail(format!("it has more than {bytes_max} bytes"), hint));
    }
    Ok(text)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// What the parser says, without the values that it quotes, and what to write instead.
fn explain(message: &str, key: Option<&str>) -> (String, String) {
    let quoted = |before: &str| message.strip_prefix(before)?.split('`').next();
    if let Some(name) = quoted("unknown field `") {
        let hint = if name == "credentials" || !message.contains("`scope`") {
            EXAMPLE.to_owned()
        } else {
            let known: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
            format!("the keys of an entry are {}", known.join(", "))
        };
        return (format!("unknown key `{name}`"), hint);
    }
    if message.starts_with("duplicate") {
        return (message.to_owned(), "keep one of them".to_owned());
    }
    let example = key.and_then(|key| KEYS.iter().find(|(name, _)| *name == key));
    let hint = example.map_or_else(|| EXAMPLE.to_owned(), |(_, line)| format!("write {line}"));
    let cause = match (message.rsplit_once("expected "), key) {
        (Some((before, expected)), Some(key)) if before.starts_with("invalid type") => {
            format!("`{key}` is of another kind: expected {expected}")
        }
        (Some((_, expected)), _) => format!("this is not TOML: expected {expected}"),
        (None, _) => "this is not TOML".to_owned(),
    };
    (cause, hint)
}

const EXAMPLE: &str =
    "write entries as\n[[credential]]\nscope = \"https://host/prefix\"\ntoken = \"...\"";

fn check(entry: &Credential) -> Result<(), Flaw> {
    check_scope(&entry.scope)?;
    let flaw =
        |key, cause: &str, hint: &str| Err(Flaw { key, cause: cause.into(), hint: hint.into() });
    if entry.token.is_some() && entry.token_file.is_some() {
        return flaw("token_file", "it has `token` and `token_file`", "keep one of them");
    }
    if entry.password.is_some() && entry.user.is_none() {
        return flaw("password", "it has `password` and no `user`", "add `user = \"...\"`");
    }
    let has_token = entry.token.is_some() || entry.token_file.is_some();
    if has_token && entry.password.is_some() && entry.scope.starts_with("http") {
        let hint = "keep one of them: HTTP sends one";
        return flaw("password", "it has a password and a token", hint);
    }
    if entry.token.as_ref().is_some_and(|token| !is_value(token)) {
        return flaw("token", "its token cannot be sent", "write one line of printable text");
    }
    for (name, value) in &entry.headers {
        let lower = name.to_ascii_lowercase();
        if HeaderName::try_from(name).is_err() || HEADERS_RESERVED.contains(&&*lower) {
            let cause = format!("the header field {name:?} cannot be set");
            return flaw("headers", &cause, "name a field that says who asks, such as `X-Api-Key`");
        }
        if !is_value(value) {
            let cause = format!("the value of the header field {name:?} cannot be sent");
            return flaw("headers", &cause, "write one line of printable text");
        }
    }
    Ok(())
}

fn is_value(text: &Secret) -> bool {
    !text.reveal().is_empty() && HeaderValue::try_from(text.reveal()).is_ok()
}

/// The scope is not shown when it may hold secrets.
fn check_scope(scope: &str) -> Result<(), Flaw> {
    let hint = "write `scope = \"https://host/prefix\"`, `\"s3://bucket\"` or the like".to_owned();
    let flaw = |cause: String| Err(Flaw { key: "scope", cause, hint: hint.clone() });
    if scope.is_empty() {
        return flaw("it has no `scope`".into());
    }
    let Some(url) = crate::address::parse(scope).filter(Url::has_host) else {
        return flaw("its scope is no URL with a host".into());
    };
    if !SCHEMES.contains(&url.scheme()) {
        let (found, known) = (url.scheme(), SCHEMES.join(", "));
        return flaw(format!("its scope begins with {found:?}, expected one of {known}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return flaw("its scope holds a user; expected `user` and `password` for that".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return flaw("its scope has a query or a fragment".into());
    }
    Ok(())
}

/// Paths are relative to the file that names them; `~/` is the home directory.
fn beside(path: &Path, named: PathBuf) -> PathBuf {
    if let (Ok(rest), Some(home)) = (named.strip_prefix("~"), std::env::var_os("HOME")) {
        return Path::new(&home).join(rest);
    }
    match path.parent() {
        Some(directory) => directory.join(named),
        None => named,
    }
}
