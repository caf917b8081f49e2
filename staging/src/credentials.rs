//! Credentials: from the address itself, a file that only its owner can read, the environment, and
//! netrc, in this order.
//!
//! Nothing here is ever shown: [`Secret`] has no text but for those who ask for it by name.

mod file;
mod netrc;
mod sketch;
mod watched;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde::Deserialize;

use netrc::Machine;
pub(crate) use watched::Look;
use watched::Watched;

/// Variables of the environment with tokens begin so; the host follows.
const TOKEN_VARIABLE: &str = "KEELBOAT_TOKEN_";

/// Bytes of a file with a token.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// A text that is not to be shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps this text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the wire and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

/// One entry: what gives access to the addresses of its scope.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credential {
    /// For which addresses: `https://host/prefix`, `s3://bucket/prefix`, `globus://COLLECTION`.
    pub scope: String,
    /// User name: HTTP basic, FTP, SFTP.
    pub user: Option<String>,
    /// Password: HTTP basic, FTP, SFTP.
    pub password: Option<Secret>,
    /// Bearer token: HTTP, Globus; Azure's and Google's access tokens.
    pub token: Option<Secret>,
    /// A file that holds the token now; read again whenever the server refuses the last one.
    pub token_file: Option<PathBuf>,
    /// Header fields to send: HTTP.
    pub headers: BTreeMap<String, Secret>,
    /// Private key: SFTP.
    pub key_file: Option<PathBuf>,
    /// The key's passphrase: SFTP.
    pub passphrase: Option<Secret>,
    /// Settings of a cloud by the names of its variables, such as `AWS_ACCESS_KEY_ID`: buckets.
    pub settings: BTreeMap<String, Secret>,
    /// Application: Globus.
    pub client_id: Option<String>,
    /// The application's secret: Globus.
    pub client_secret: Option<Secret>,
    /// What new access tokens are had for: Globus.
    pub refresh_token: Option<Secret>,
}

impl Credential {
    /// The bearer token as it is now: the one given, or what its file holds at this moment.
    ///
    /// # Errors
    /// The file with the token cannot be read, or holds none.
    pub fn bearer(&self) -> Result<Option<Secret>, CredentialsError> {
        let Some(path) = &self.token_file else { return Ok(self.token.clone()) };
        let unusable = |cause: String| CredentialsError {
            path: path.clone(),
            cause,
            sketch: String::new(),
            hint: format!("write the token into {}, or name another `token_file`", path.display()),
        };
        let text = read_text(path, TOKEN_BYTES_MAX).map_err(|error| unusable(error.to_string()))?;
        let token = text.trim();
        if token.is_empty() || token.contains(char::is_control) {
            return Err(unusable("it does not hold one line with a token".into()));
        }
        Ok(Some(Secret::new(token)))
    }
}

/// A regular file's text, if it is not too long. What is no file is not waited for.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

/// All that is known. Clones share it.
///
/// Files are read again when they have changed, so that what is renewed in mid-run is used.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Mutex<Watched<Vec<Arc<Credential>>>>,
    /// By the end of the variable's name.
    tokens: BTreeMap<String, Secret>,
    machines: Mutex<Watched<Vec<Machine>>>,
}

impl Inner {
    fn with_file(mut self, path: PathBuf) -> Result<Self, CredentialsError> {
        if let Err(error) = std::fs::metadata(&path) {
            let cause = error.to_string();
            let hint = "make it with mode 0600, or name another file".into();
            return Err(CredentialsError { path, cause, sketch: String::new(), hint });
        }
        self.entries = Mutex::new(Watched::new(path, file::read)?);
        Ok(self)
    }

    fn with_tokens(mut self, variables: impl Iterator<Item = (String, String)>) -> Self {
        self.tokens.extend(variables.filter_map(|(name, value)| {
            let host = name.strip_prefix(TOKEN_VARIABLE)?;
            (!value.is_empty()).then(|| (host.to_ascii_uppercase(), Secret::new(value)))
        }));
        self
    }

    fn with_netrc(mut self, path: PathBuf) -> Result<Self, CredentialsError> {
        self.machines = Mutex::new(Watched::new(path, netrc::read)?);
        Ok(self)
    }
}

/// A file with credentials cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the credentials in {}: {cause}{sketch}", path.display())]
pub struct CredentialsError {
    /// Which file.
    pub path: PathBuf,
    /// Why not. Holds nothing of what is in it but names.
    pub cause: String,
    /// The line and the key that it is about, if it is about one; empty otherwise.
    pub sketch: String,
    /// What to do about it.
    pub hint: String,
}

impl Credentials {
    /// These entries, and nothing from elsewhere.
    pub fn new(entries: impl IntoIterator<Item = Credential>) -> Self {
        let entries = Watched::fixed(entries.into_iter().map(Arc::new).collect());
        Self::of(Inner { entries: Mutex::new(entries), ..Inner::default() })
    }

    /// The entries of this file, which has to be there, and nothing from elsewhere.
    ///
    /// # Errors
    /// It is not there, others than its owner can read it, or it holds what is not understood.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, CredentialsError> {
        Inner::default().with_file(path.into()).map(Self::of)
    }

    /// All that this user has: the file `$KEELBOAT_CREDENTIALS` (which then has to be there) or
    /// `keelboat/credentials.toml` in the configuration directory (which need not), the variables
    /// `KEELBOAT_TOKEN_HOST`, and `$NETRC` or `~/.netrc`.
    ///
    /// # Errors
    /// As [`load`](Self::load); the same for netrc.
    pub fn of_user() -> Result<Self, CredentialsError> {
        let path_in = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let home = path_in("HOME");
        let of_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
        let mut all = Inner::default().with_tokens(variables);
        if let Some(path) = path_in("KEELBOAT_CREDENTIALS") {
            all = all.with_file(path)?;
        } else if let Some(base) = path_in("XDG_CONFIG_HOME").or_else(|| of_home(".config")) {
            let path = base.join("keelboat/credentials.toml");
            all.entries = Mutex::new(Watched::new(path, file::read)?);
        }
        if let Some(path) = path_in("NETRC").or_else(|| of_home(".netrc")) {
            all = all.with_netrc(path)?;
        }
        Ok(Self::of(all))
    }

    fn of(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// What gives access to an address: the user information in it, else the entry with the
    /// longest scope that covers it, else a token from the environment, else netrc.
    ///
    /// User information takes the place of an entry's user, password and token; the entry's other
    /// parts stay, and its password does when it is this user's.
    pub fn lookup(&self, address: &str) -> Option<Arc<Credential>> {
        self.lookup_url(&crate::address::parse(address)?, Look::Now)
    }

    /// As [`lookup`](Self::lookup), of an address that was read already, by a look at the files that
    /// may be a moment old.
    pub(crate) fn lookup_url(&self, url: &Url, look: Look) -> Option<Arc<Credential>> {
        let entry = self.entry(url, look).or_else(|| self.token(url));
        if !matches!(url.scheme(), "http" | "https" | "ftp" | "ftps" | "sftp") {
            return entry;
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Some(Arc::new(self.with_user_of(url, entry.as_deref(), look)));
        }
        entry.or_else(|| self.machine(url, None, look).map(Arc::new))
    }

    fn entry(&self, url: &Url, look: Look) -> Option<Arc<Credential>> {
        let entries = self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner).now(look);
        if entries.is_empty() {
            return None;
        }
        let (authority, path) = split(url);
        let covering = entries.iter().filter(|entry| covers(&entry.scope, &authority, &path));
        covering.max_by_key(|entry| entry.scope.trim_end_matches('/').len()).cloned()
    }

    /// `KEELBOAT_TOKEN_DATA_EXAMPLE_ORG` is for `https://data.example.org`, all of it; a hyphen in
    /// the host is written as `__`.
    fn token(&self, url: &Url) -> Option<Arc<Credential>> {
        if self.inner.tokens.is_empty() || url.scheme() != "https" || url.port().is_some() {
            return None;
        }
        let host = url.host_str()?.replace('-', "__").replace('.', "_").to_ascii_uppercase();
        let token = Some(self.inner.tokens.get(&host)?.clone());
        let scope = format!("https://{}", url.host_str()?);
        Some(Arc::new(Credential { scope, token, ..Credential::default() }))
    }

    fn with_user_of(&self, url: &Url, entry: Option<&Credential>, look: Look) -> Credential {
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = decoded(url.username());
        let mut found = entry.cloned().unwrap_or_default();
        let is_its_user = found.user.is_none() || found.user.as_ref() == Some(&user);
        found.password = match url.password() {
            Some(password) => Some(Secret::new(decoded(password))),
            None if is_its_user && found.password.is_some() => found.password,
            None => self.machine(url, Some(&user), look).and_then(|machine| machine.password),
        };
        (found.user, found.token, found.token_file) = (Some(user), None, None);
        found
    }

    fn machine(&self, url: &Url, user: Option<&str>, look: Look) -> Option<Credential> {
        let machines = self.inner.machines.lock().unwrap_or_else(PoisonError::into_inner).now(look);
        netrc::find(&machines, url, user)
    }
}

/// Whether a scope covers an address: the same scheme and host, and a path that begins with whole
/// parts of the scope's.
fn covers(scope: &str, authority: &str, path: &str) -> bool {
    let Some((scope_authority, scope_path)) = crate::address::parse(scope).as_ref().map(split)
    else {
        return false;
    };
    scope_authority == authority
        && path
            .strip_prefix(scope_path.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Scheme and host without user and default port, in lower case; path with its query.
fn split(url: &Url) -> (String, String) {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    (format!("{}://{host}{port}", url.scheme()), format!("{}{query}", url.path()))
}

#[cfg(test)]
mod tests;
