//! Settings that are not of one workflow: how much is moved at once, how long is waited, which
//! machines may be talked to.
//!
//! They come from the user's `config.toml` and from `keelboat.toml` beside the workflow file,
//! which wins key by key. Deliberately absent: credentials, which have a private file of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelboat_engine::queue::{Limit, QueueLimits};
use keelboat_staging::{
    AddressPolicy, Credentials, CredentialsError, GlobusConfig, HttpConfig, LocalCollection,
    RetryBudget, SftpConfig, StagingConfig,
};
use serde::Deserialize;
use toml::Table;

use crate::size::{parse_rate, parse_size};

/// The file of a project.
const PROJECT_FILE: &str = "keelboat.toml";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file of settings cannot be read.
    #[error("cannot read the settings in {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of settings says what is not understood.
    #[error("cannot use the settings in {}: {cause}", path.display())]
    Meaning {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and where.
        cause: String,
    },
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl SettingsError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Read { .. } => "check its permissions".to_owned(),
            Self::Meaning { .. } => "docs/staging.md lists the settings".to_owned(),
            Self::Credentials(error) => error.hint.clone(),
        }
    }
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    staging: Staging,
    globus: Globus,
    credentials: Credentials,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    staging: Staging,
    globus: Globus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Staging {
    connections: Option<u32>,
    connections_per_host: Option<u32>,
    bandwidth: Option<Rate>,
    space_max: Option<Size>,
    connect_timeout: Option<Span>,
    first_byte_timeout: Option<Span>,
    stall_timeout: Option<Span>,
    tries: Option<u32>,
    retry_for: Option<Span>,
    private_addresses: Option<Private>,
    certificates: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    schemes: BTreeMap<String, OneLimit>,
    hosts: BTreeMap<String, OneLimit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Private {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OneLimit {
    connections: Option<u32>,
    bandwidth: Option<Rate>,
}

/// What is on this machine for Globus.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Globus {
    collections: Vec<Collection>,
}

/// A collection whose files are on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Collection {
    id: String,
    /// The directory on this machine.
    path: PathBuf,
    /// What that directory is called on the collection.
    #[serde(default = "slash")]
    root: String,
}

fn slash() -> String {
    "/".to_owned()
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Size(u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let size = parse_size(&text).map(Self);
        size.ok_or_else(|| format!("{text:?} is no size: write \"500GB\" or \"20GiB\""))
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Rate(u64);

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rate = parse_rate(&text).map(Self);
        rate.ok_or_else(|| format!("{text:?} is no rate: write \"10MB/s\""))
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let span = humantime::parse_duration(&text).ok().filter(|span| !span.is_zero());
        span.map(Self).ok_or_else(|| format!("{text:?} is no time: write \"30s\" or \"2m\""))
    }
}

impl Settings {
    /// The user's, and those of this project. Files that are not there say nothing.
    ///
    /// # Errors
    /// A file cannot be read, or says what is not understood.
    pub fn load(project: Option<&Path>) -> Result<Self, SettingsError> {
        let mut all = Table::new();
        for path in user_file().into_iter().chain(project.map(|root| root.join(PROJECT_FILE))) {
            merge(&mut all, read(&path)?);
        }
        let path = project.map_or_else(PathBuf::new, |root| root.join(PROJECT_FILE));
        let meaning = |error: toml::de::Error| SettingsError::Meaning {
            path,
            cause: error.message().to_owned(),
        };
        let File { staging, globus } = all.try_into().map_err(meaning)?;
        let credentials = Credentials::of_user()?;
        Ok(Self { staging, globus, credentials })
    }

    /// How files are moved, with this directory for those on their way.
    pub fn staging(&self, partial_dir: impl Into<PathBuf>) -> StagingConfig {
        let defaults = StagingConfig::new(partial_dir);
        let globus = self.globus(defaults.partial_dir.join("globus"));
        let staging = &self.staging;
        let span = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        let RetryBudget { tries_max, elapsed_max, .. } = defaults.retry;
        StagingConfig {
            limits: self.limits(&defaults.limits),
            http: HttpConfig {
                address_policy: match staging.private_addresses {
                    Some(Private::Deny) => AddressPolicy::Public,
                    Some(Private::Allow) | None => AddressPolicy::Any,
                },
                ..self.http()
            },
            credentials: self.credentials.clone(),
            globus: Some(globus),
            sftp: SftpConfig {
                connect_timeout: span(staging.connect_timeout, defaults.sftp.connect_timeout),
                known_hosts: match &staging.known_hosts {
                    Some(file) => vec![file.clone()],
                    None => defaults.sftp.known_hosts.clone(),
                },
                ..defaults.sftp
            },
            first_byte_timeout: span(staging.first_byte_timeout, defaults.first_byte_timeout),
            stall_timeout: span(staging.stall_timeout, defaults.stall_timeout),
            retry: RetryBudget {
                tries_max: staging.tries.unwrap_or(tries_max).max(1),
                elapsed_max: span(staging.retry_for, elapsed_max),
                ..defaults.retry
            },
            ..defaults
        }
    }

    /// How to work with Globus, with this directory for the records of its tasks.
    pub fn globus(&self, state_dir: impl Into<PathBuf>) -> GlobusConfig {
        let tokens = configuration_directory().unwrap_or_default().join("globus.json");
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
        let local = |collection: &Collection| LocalCollection {
            collection: collection.id.clone(),
            root: collection.path.clone(),
            path: collection.root.clone(),
        };
        GlobusConfig {
            local: self.globus.collections.iter().map(local).collect(),
            credentials: self.credentials.clone(),
            http: self.http(),
            ..GlobusConfig::new(state_dir, tokens)
        }
        .with_variables(variables)
    }

    /// How to talk HTTP, also with services that are named by nobody's address.
    fn http(&self) -> HttpConfig {
        let defaults = HttpConfig::default();
        let patience = self.staging.connect_timeout.map(|span| span.0);
        HttpConfig {
            connect_timeout: patience.unwrap_or(defaults.connect_timeout),
            extra_ca: self.staging.certificates.clone(),
            ..defaults
        }
    }

    fn limits(&self, defaults: &QueueLimits) -> QueueLimits {
        let Staging { connections, connections_per_host, bandwidth, space_max, .. } = &self.staging;
        let limits = |limits: &BTreeMap<String, OneLimit>| {
            let limit = |limit: &OneLimit| Limit {
                connections: limit.connections.map(|connections| connections.max(1)),
                bytes_per_second: limit.bandwidth.map(|rate| rate.0),
            };
            limits.iter().map(|(name, one)| (name.to_ascii_lowercase(), limit(one))).collect()
        };
        QueueLimits {
            total_max: connections.unwrap_or(defaults.total_max).max(1),
            per_host_max: connections_per_host.unwrap_or(defaults.per_host_max).max(1),
            bytes_per_second: bandwidth.map(|rate| rate.0),
            schemes: limits(&self.staging.schemes),
            hosts: limits(&self.staging.hosts),
            space_max: space_max.map(|size| size.0),
            breaker: defaults.breaker,
        }
    }
}

/// `$KEELBOAT_CONFIG`, or `keelboat/config.toml` in the configuration directory.
fn user_file() -> Option<PathBuf> {
    path_in("KEELBOAT_CONFIG")
        .or_else(|| configuration_directory().map(|base| base.join("config.toml")))
}

/// Where a command that has no project keeps what a later one goes on with.
pub(crate) fn state_directory() -> PathBuf {
    let base =
        path_in("XDG_STATE_HOME").or_else(|| path_in("HOME").map(|home| home.join(".local/state")));
    base.map_or_else(|| PathBuf::from(".keelboat-partial"), |base| base.join("keelboat"))
}

/// Where the files of this user are.
fn configuration_directory() -> Option<PathBuf> {
    let base =
        path_in("XDG_CONFIG_HOME").or_else(|| path_in("HOME").map(|home| home.join(".config")));
    base.map(|base| base.join("keelboat"))
}

fn path_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// One file, held against all that may be in it, so that a mistake is told with its place.
fn read(path: &Path) -> Result<Table, SettingsError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Table::new()),
        text => text.map_err(|source| SettingsError::Read { path: path.to_owned(), source })?,
    };
    let meaning = |error: toml::de::Error| {
        let line = error.span().map(|span| {
            let before = text.get(..span.start).unwrap_or_default();
            format!("line {}: ", before.matches('\n').count() + 1)
        });
        let cause = format!("{}{}", line.unwrap_or_default(), error.message());
        SettingsError::Meaning { path: path.to_owned(), cause }
    };
    toml::from_str::<File>(&text).map_err(meaning)?;
    let mut table: Table = toml::from_str(&text).map_err(meaning)?;
    settle_paths(&mut table, path.parent().unwrap_or_else(|| Path::new("")));
    Ok(table)
}

/// Relative paths begin at the directory of their file.
fn settle_paths(table: &mut Table, directory: &Path) {
    let settle = |value: Option<&mut toml::Value>| {
        if let Some(toml::Value::String(text)) = value {
            let settled = std::path::absolute(directory.join(&*text));
            if let Some(path) = settled.ok().as_deref().and_then(Path::to_str) {
                path.clone_into(text);
            }
        }
    };
    if let Some(toml::Value::Table(staging)) = table.get_mut("staging") {
        settle(staging.get_mut("certificates"));
        settle(staging.get_mut("known_hosts"));
    }
    let globus = table.get_mut("globus").and_then(toml::Value::as_table_mut);
    let collections = globus.and_then(|globus| globus.get_mut("collections"));
    for collection in collections.and_then(toml::Value::as_array_mut).into_iter().flatten() {
        settle(collection.as_table_mut().and_then(|collection| collection.get_mut("path")));
    }
}

/// Puts one table over another, key by key.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(user: &str, project: &str) -> Result<File, String> {
        let dir = tempfile::tempdir().unwrap();
        let mut all = Table::new();
        for (name, text) in [("config.toml", user), ("keelboat.toml", project)] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            merge(&mut all, read(&path).map_err(|error| error.to_string())?);
        }
        all.try_into().map_err(|error: toml::de::Error| error.to_string())
    }

    #[test]
    fn the_project_wins_key_by_key() {
        let user = "[staging]\nconnections = 3\nspace_max = \"1GB\"\n[staging.hosts.\"H:81\"]\n\
                    connections = 1\nbandwidth = \"5MB/s\"\n";
        let project = "[staging]\nconnections = 9\n[staging.hosts.\"H:81\"]\nconnections = 2\n";
        let File { staging, globus } = settings(user, project).unwrap();
        let settings = Settings { staging, globus, credentials: Credentials::default() };
        let limits = settings.staging("x").limits;
        assert_eq!((limits.total_max, limits.space_max), (9, Some(1_000_000_000)));
        let host = Limit { connections: Some(2), bytes_per_second: Some(5_000_000) };
        assert_eq!(limits.hosts.get("h:81"), Some(&host));
    }

    #[test]
    fn every_protocol_has_the_patience_that_was_set() {
        let File { staging, globus } =
            settings("[staging]\nconnect_timeout = \"2s\"\n", "").unwrap();
        let settings = Settings { staging, globus, credentials: Credentials::default() };
        let found = settings.staging("x");
        let globus = found.globus.unwrap();
        let found = [&found.http.connect_timeout, &found.sftp.connect_timeout];
        assert_eq!(found, [&Duration::from_secs(2); 2]);
        assert_eq!(globus.http.connect_timeout, Duration::from_secs(2));
        let defaults = Settings::default().staging("x");
        assert_eq!(defaults.http.connect_timeout, Duration::from_secs(15));
        assert_eq!(defaults.sftp.connect_timeout, Duration::from_secs(30));
    }

    #[test]
    fn relative_paths_begin_at_their_file() {
        let mut table: Table =
            toml::from_str("staging.known_hosts = \"k\"\n[[globus.collections]]\npath = \"/d\"\n")
                .unwrap();
        settle_paths(&mut table, Path::new("/p"));
        assert_eq!(table["staging"]["known_hosts"].as_str(), Some("/p/k"));
        assert_eq!(table["globus"]["collections"][0]["path"].as_str(), Some("/d"));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let told = |text: &str| settings(text, "").unwrap_err();
        let unknown = told("[staging]\n\nconections = 3\n");
        assert!(unknown.contains("line 3") && unknown.contains("conections"), "{unknown}");
        let rate = told("[staging]\nbandwidth = \"fast\"\n");
        assert!(rate.contains("line 2") && rate.contains("10MB/s"), "{rate}");
    }
}
