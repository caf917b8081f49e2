//! Credentials: entries of a configuration file that only its owner can read, each for a scope.
//!
//! Nothing here is ever shown: [`Secret`] has no text but for those who ask for it by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

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

/// All entries. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    entries: Arc<[Credential]>,
}

/// The file with credentials cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the credentials in {}: {cause}", path.display())]
pub struct CredentialsError {
    /// Which file.
    pub path: PathBuf,
    /// Why not. Holds nothing of what is in it.
    pub cause: String,
    /// What to do about it.
    pub hint: String,
}

impl Credentials {
    /// These entries.
    pub fn new(entries: impl IntoIterator<Item = Credential>) -> Self {
        Self { entries: entries.into_iter().collect() }
    }

    /// The entry for an address: the one with the longest scope that covers it.
    pub fn lookup(&self, address: &str) -> Option<&Credential> {
        let covering = self.entries.iter().filter(|entry| covers(&entry.scope, address));
        covering.max_by_key(|entry| entry.scope.trim_end_matches('/').len())
    }
}

/// Whether a scope covers an address: the same scheme and host, and a path that begins with whole
/// parts of the scope's.
fn covers(scope: &str, address: &str) -> bool {
    let Some((scope_authority, scope_path)) = split(scope) else { return false };
    let Some((authority, path)) = split(address) else { return false };
    let scope_path = scope_path.trim_end_matches('/');
    scope_authority == authority
        && path
            .strip_prefix(scope_path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Scheme and host without user and default port, in lower case; path with its query.
fn split(address: &str) -> Option<(String, String)> {
    let url = crate::address::parse(address)?;
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some((format!("{}://{host}{port}", url.scheme()), format!("{}{query}", url.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(address: &str) -> Option<String> {
        let entry = |scope: &str| Credential { scope: scope.to_owned(), ..Credential::default() };
        let scopes = ["https://h", "https://h/a", "https://h/a/b/", "s3://bucket", "ftp://h:2121"];
        let credentials = Credentials::new(scopes.map(entry));
        credentials.lookup(address).map(|entry| entry.scope.clone())
    }

    #[test]
    fn the_longest_scope_of_whole_parts_wins() {
        assert_eq!(found("https://h/x").as_deref(), Some("https://h"));
        assert_eq!(found("https://user:pw@H:443/a?x=1").as_deref(), Some("https://h/a"));
        assert_eq!(found("https://h/ab").as_deref(), Some("https://h"));
        assert_eq!(found("https://h/a/b/c").as_deref(), Some("https://h/a/b/"));
        assert_eq!(found("s3://bucket/key").as_deref(), Some("s3://bucket"));
        assert_eq!(found("ftp://h:2121/x").as_deref(), Some("ftp://h:2121"));
        for other in ["http://h/a", "https://h.evil/a", "s3://bucket2/key", "ftp://h/x", "/a/b"] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let entry = Credential { password: Some(Secret::new("hunter2")), ..Credential::default() };
        assert!(!format!("{entry:?}").contains("hunter2"));
    }
}
