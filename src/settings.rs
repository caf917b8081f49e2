//! Settings that are not of one workflow: how much is moved at once, how long is waited, which
//! machines may be talked to, which slots this machine has.
//!
//! They come from the user's `config.toml` and from `keelboat.toml` beside the workflow file,
//! which wins key by key. Deliberately absent: credentials, which have a private file of their own.

mod containers;
mod executors;
mod file;
mod journal;
mod mpi;
mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keelboat_engine::queue::{Limit, QueueLimits};
use keelboat_executors::{ContainerConfig, MpiConfig};
use keelboat_staging::{
    AddressPolicy, Credentials, CredentialsError, GlobusConfig, HttpConfig, LocalCollection,
    RetryBudget, SftpConfig, StagingConfig,
};
use miette::GraphicalTheme;

use self::file::{Collection, Containers, File, OneLimit, Private, Staging};
pub(crate) use self::file::{Executor, Gpus};
use crate::diagnosis::draw;
use crate::flow::Durability;
use crate::workflow::Problem;

/// The user's file, in place of the usual one.
const USER_FILE_VARIABLE: &str = "KEELBOAT_CONFIG";

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
    /// The file that the environment names is not there.
    #[error("{USER_FILE_VARIABLE} names {}, which is not there", path.display())]
    Absent {
        /// Which.
        path: PathBuf,
    },
    /// A file of settings says what is not understood.
    #[error("cannot use the settings in {}\n{}", path.display(), drawn(problems))]
    Meaning {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and where.
        problems: Vec<Problem>,
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
            Self::Absent { .. } => {
                format!("name a file that is there, or unset {USER_FILE_VARIABLE}")
            }
            Self::Meaning { .. } => {
                "docs/staging.md and docs/local-executor.md list the settings".to_owned()
            }
            Self::Credentials(error) => error.hint.clone(),
        }
    }
}

fn drawn(problems: &[Problem]) -> String {
    let draw_one = |problem: &Problem| draw(problem, GraphicalTheme::unicode_nocolor());
    problems.iter().map(draw_one).collect::<String>().trim_end().to_owned()
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    file: File,
    credentials: Credentials,
}

impl Settings {
    /// The user's, and those of this project. Files that are not there say nothing, but for the one
    /// that `KEELBOAT_CONFIG` names.
    ///
    /// # Errors
    /// A file cannot be read, or says what is not understood.
    pub fn load(project: Option<&Path>) -> Result<Self, SettingsError> {
        let mut file = File::default();
        if let Some(path) = path_in(USER_FILE_VARIABLE) {
            file = read(&path)?.ok_or(SettingsError::Absent { path })?;
        } else if let Some(base) = configuration_directory() {
            file = read(&base.join("config.toml"))?.unwrap_or_default();
        }
        if let Some(own) = project.map(|root| read(&root.join(PROJECT_FILE))).transpose()?.flatten()
        {
            file = own.over(file);
        }
        Ok(Self { file, credentials: Credentials::of_user()? })
    }

    /// Pools of slots of this machine, by name; `local` is the one of those who name none.
    pub(crate) fn executors(&self) -> &BTreeMap<String, Executor> {
        &self.file.executors
    }

    /// When the disk is told of results.
    pub(crate) fn durability(&self) -> Durability {
        self.file.durability.unwrap_or_default()
    }

    /// What runs containers.
    pub(crate) fn containers(&self) -> ContainerConfig {
        let Containers { tool, args } = &self.file.containers;
        ContainerConfig { tool: *tool, args: args.clone().unwrap_or_default() }
    }

    /// What starts MPI programs.
    pub(crate) fn mpi(&self) -> MpiConfig {
        self.file.mpi.config()
    }

    /// How files are moved, with this directory for those on their way.
    pub fn staging(&self, partial_dir: impl Into<PathBuf>) -> StagingConfig {
        let defaults = StagingConfig::new(partial_dir);
        let globus = self.globus(defaults.partial_dir.join("globus"));
        let staging = &self.file.staging;
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
                connect_timeout: staging.connect_timeout.unwrap_or(defaults.sftp.connect_timeout),
                known_hosts: match &staging.known_hosts {
                    Some(file) => vec![file.clone()],
                    None => defaults.sftp.known_hosts.clone(),
                },
                ..defaults.sftp
            },
            unpacked_max: staging.unpacked_max.unwrap_or(defaults.unpacked_max),
            first_byte_timeout: staging.first_byte_timeout.unwrap_or(defaults.first_byte_timeout),
            stall_timeout: staging.stall_timeout.unwrap_or(defaults.stall_timeout),
            rate_min: staging.rate_min.unwrap_or(defaults.rate_min),
            retry: RetryBudget {
                tries_max: staging.tries.unwrap_or(tries_max),
                elapsed_max: staging.retry_for.unwrap_or(elapsed_max),
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
            local: self.file.collections.iter().flatten().map(local).collect(),
            credentials: self.credentials.clone(),
            http: self.http(),
            ..GlobusConfig::new(state_dir, tokens)
        }
        .with_variables(variables)
    }

    /// How to talk HTTP, also with services that are named by nobody's address.
    fn http(&self) -> HttpConfig {
        let defaults = HttpConfig::default();
        let Staging { connect_timeout, certificates, .. } = &self.file.staging;
        HttpConfig {
            connect_timeout: connect_timeout.unwrap_or(defaults.connect_timeout),
            extra_ca: certificates.clone(),
            ..defaults
        }
    }

    fn limits(&self, defaults: &QueueLimits) -> QueueLimits {
        let Staging { connections, connections_per_host, bandwidth, space_max, .. } =
            &self.file.staging;
        let limits = |limits: &BTreeMap<String, OneLimit>| {
            let limit = |limit: &OneLimit| Limit {
                connections: limit.connections,
                bytes_per_second: limit.bandwidth,
            };
            limits.iter().map(|(name, one)| (name.clone(), limit(one))).collect()
        };
        QueueLimits {
            total_max: connections.unwrap_or(defaults.total_max),
            per_host_max: connections_per_host.unwrap_or(defaults.per_host_max),
            bytes_per_second: *bandwidth,
            schemes: limits(&self.file.staging.schemes),
            hosts: limits(&self.file.staging.hosts),
            space_max: *space_max,
            breaker: defaults.breaker,
        }
    }
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

/// What a file says; `None`: it is not there.
fn read(path: &Path) -> Result<Option<File>, SettingsError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|source| SettingsError::Read { path: path.to_owned(), source })?,
    };
    let here = std::env::current_dir().unwrap_or_default();
    let name = path.strip_prefix(here).or_else(|_| path.strip_prefix(".")).unwrap_or(path);
    let directory = path.parent().unwrap_or_else(|| Path::new(""));
    let said = read::read(&name.display().to_string(), &text, directory);
    said.map(Some).map_err(|problems| SettingsError::Meaning { path: name.to_owned(), problems })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(user: &str, project: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::default();
        for (name, text) in [("config.toml", user), ("keelboat.toml", project)] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let said = read(&path).map_err(|error| error.to_string())?;
            file = said.unwrap_or_default().over(file);
        }
        Ok(Settings { file, credentials: Credentials::default() })
    }

    #[test]
    fn the_project_wins_key_by_key() {
        let user = "[staging]\nconnections = 3\nspace_max = \"1GB\"\n[staging.hosts.\"H:81\"]\n\
                    connections = 1\nbandwidth = \"5MB/s\"\n";
        let project = "[staging]\nconnections = 9\n[staging.hosts.\"h:81\"]\nconnections = 2\n";
        let limits = settings(user, project).unwrap().staging("x").limits;
        assert_eq!((limits.total_max, limits.space_max), (9, Some(1_000_000_000)));
        let host = Limit { connections: Some(2), bytes_per_second: Some(5_000_000) };
        assert_eq!(limits.hosts.get("h:81"), Some(&host));
    }

    #[test]
    fn how_slow_a_transfer_may_be_is_set() {
        let rate = |text| settings(text, "").unwrap().staging("x").rate_min;
        assert_eq!(rate("[staging]\nrate_min = \"1B/s\"\n"), 1);
        assert_eq!(rate(""), 1024);
    }

    #[test]
    fn what_archives_unpack_to_is_bounded() {
        let bound = |text| settings(text, "").unwrap().staging("x").unpacked_max;
        assert_eq!(bound("[staging]\nunpacked_max = \"3GB\"\n"), 3_000_000_000);
        assert_eq!(bound(""), StagingConfig::new("x").unpacked_max);
    }

    #[test]
    fn every_protocol_has_the_patience_that_was_set() {
        let settings = settings("[staging]\nconnect_timeout = \"2s\"\n", "").unwrap();
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
        let dir = tempfile::tempdir().unwrap();
        let (path, hosts) = (dir.path().join("keelboat.toml"), dir.path().join("hosts"));
        std::fs::write(&hosts, "").unwrap();
        let id = "11111111-2222-4333-8444-555555555555";
        let text = format!(
            "[staging]\nknown_hosts = \"hosts\"\n[[globus.collections]]\nid = \"{id}\"\n\
             path = \"/nowhere\"\n"
        );
        std::fs::write(&path, text).unwrap();
        let file = read(&path).unwrap().unwrap();
        assert_eq!(file.staging.known_hosts, Some(hosts));
        let nowhere = Collection { id: id.into(), path: "/nowhere".into(), root: "/".into() };
        assert_eq!(file.collections, Some(vec![nowhere]));
    }

    #[test]
    fn executors_are_put_over_one_another_key_by_key() {
        let user = "[executors.big]\ncores = 8\ngpus = 2\n[executors.local]\nmemory = \"4GiB\"\n";
        let project = "[executors.big]\ngpus = [\"1\"]\ndisk = \"1GB\"\n";
        let settings = settings(user, project).unwrap();
        let big = Executor {
            cores: Some(8),
            memory: None,
            gpus: Some(Gpus::Named(vec!["1".to_owned()])),
            disk: Some(1_000_000_000),
        };
        assert_eq!(settings.executors().get("big"), Some(&big));
        assert_eq!(settings.executors()["local"].memory, Some(4 << 30));
    }

    #[test]
    fn the_journal_is_as_durable_as_the_project_says() {
        assert_eq!(settings("", "").unwrap().durability(), Durability::Grouped);
        let user = "[journal]\ndurability = \"at-close\"\n";
        assert_eq!(settings(user, "").unwrap().durability(), Durability::AtClose);
        let project = "[journal]\ndurability = \"30s\"\n";
        let every = Durability::Every(Duration::from_secs(30));
        assert_eq!(settings(user, project).unwrap().durability(), every);
        let each = settings(user, "[journal]\ndurability = \"each-task\"\n").unwrap();
        assert_eq!(each.durability(), Durability::EachTask);
    }

    #[test]
    fn the_tool_of_containers_and_its_arguments_are_said_apart() {
        let user = "[containers]\ntool = \"docker\"\nargs = [\"--gpus=all\"]\n";
        let said = settings(user, "[containers]\ntool = \"podman\"\n").unwrap().containers();
        assert_eq!(said.tool, Some(keelboat_executors::ContainerTool::Podman));
        assert_eq!(said.args, ["--gpus=all"]);
        assert_eq!(Settings::default().containers(), ContainerConfig::default());
    }

    /// Each mistake: what is written, its line, and what is said of it.
    #[test]
    fn mistakes_are_told_with_their_place_and_an_example() {
        let cases: &[(&str, usize, &[&str])] = &[
            ("[staging]\n\nconections = 3", 3, &["`conections`", "did you mean `connections`?"]),
            ("[stagin]", 1, &["`stagin`", "did you mean `staging`?"]),
            ("[staging]\nbandwidth = \"fast\"", 2, &["is no rate", "bandwidth = \"10MB/s\""]),
            ("[staging]\nrate_min = \"slow\"", 2, &["is no rate", "rate_min = \"1KiB/s\""]),
            ("[staging]\nbandwidth = 5", 2, &["must be a string", "bandwidth = \"10MB/s\""]),
            ("[staging]\nunpacked_max = \"lots\"", 2, &["is no size", "unpacked_max = \"2TB\""]),
            ("[staging]\nspace_max = \"lots\"", 2, &["is no size", "space_max = \"200GB\""]),
            ("[staging]\nretry_for = \"0s\"", 2, &["is no time", "retry_for = \"15m\""]),
            ("[staging]\nconnections = 0", 2, &["out of range", "from 1 to", "connections = 16"]),
            ("[staging]\ntries = \"8\"", 2, &["must be a whole number", "tries = 8"]),
            ("[staging]\nprivate_addresses = true", 2, &["must be a string", "\"deny\""]),
            ("[staging]\nprivate_addresses = \"no\"", 2, &["\"no\"", "\"allow\" or \"deny\""]),
            ("[staging]\nknown_hosts = \"none\"", 2, &["cannot read", "/none", "name a file"]),
            ("[staging]\ncertificates = \".\"", 2, &["cannot read", "name a file"]),
            ("[staging.schemes.htp]\nconnections = 1", 1, &["`htp`", "did you mean `http`?"]),
            ("[staging.schemes.gopher]", 1, &["`gopher`", "`globus`"]),
            ("[staging.schemes.s3]\nconnections = 0", 2, &["out of range", "connections = 2"]),
            ("[staging.schemes]\ns3 = 4", 2, &["must be a table", "[staging.schemes.s3]"]),
            (
                "[staging.hosts.\"https://h.org/x\"]",
                1,
                &["is an address", "[staging.hosts.\"h.org\"]"],
            ),
            ("[staging.hosts.\"h.org/x\"]", 1, &["this is no host", "[staging.hosts.\"h.org\"]"]),
            ("[staging.hosts.\"h.org:http\"]", 1, &["no host with a port", "\"h.org\""]),
            ("[staging.hosts.\"\"]", 1, &["this is no host"]),
            ("globus = 1", 1, &["must be a table", "[[globus.collections]]"]),
            ("[globus]\ncollections = \"x\"", 2, &["a list of tables", "[[globus.collections]]"]),
            ("[[globus.collections]]\nid = \"x\"\npath = \"/d\"", 2, &["is no id", "11111111-"]),
            ("[[globus.collections]]\npath = \"/d\"", 1, &["has no id", "path = \"/data\""]),
            ("[executors.big]\ncore = 3", 2, &["`core`", "did you mean `cores`?"]),
            ("[executors.big]\ncores = 0", 2, &["out of range", "cores = 8"]),
            ("[executors.big]\nmemory = \"much\"", 2, &["is no size", "memory = \"64GiB\""]),
            ("[executors.big]\ngpus = -1", 2, &["out of range", "gpus = 2"]),
            ("[executors.big]\ngpus = \"all\"", 2, &["a number or a list", "gpus = 2"]),
            ("[executors]\nbig = 3", 2, &["must be a table", "[executors.big]"]),
            ("[containers]\ntool = \"podmann\"", 2, &["`podmann`", "did you mean `podman`?"]),
            ("[containers]\nargs = \"--rm\"", 2, &["a list of strings", "args = ["]),
            ("[mpi]\nlauncher = \"mpiran\"", 2, &["`mpiran`", "did you mean `mpirun`?"]),
            ("[mpi]\nargs = [\"-x A\"]", 2, &["\"-x A\" is no single word"]),
            ("[mpi]\nargs = 3", 2, &["a list of strings", "--bind-to"]),
            ("[journal]\nflush = 1", 2, &["`flush`", "`durability`"]),
            ("[journal]\ndurability = \"often\"", 2, &["\"often\"", "\"each-task\"", "\"1m\""]),
            ("[containers]\nruntime = 1", 2, &["`runtime`", "`tool`"]),
            ("[executors.\"a b\"]", 1, &["cannot be the name of an executor"]),
            ("[staging]\nconnections = 3 4", 2, &["this is not TOML"]),
            ("[staging]\ntries = 1\ntries = 2", 3, &["`tries` is there twice"]),
        ];
        for (text, line, parts) in cases {
            let told = settings(&format!("{text}\n"), "").expect_err(text);
            let place = format!("config.toml:{line}:");
            for part in parts.iter().copied().chain([&*place, "cannot use the settings in"]) {
                assert!(told.contains(part), "{part:?} is not in:\n{told}");
            }
        }
        for good in ["h", "h.org:81", "s3:bucket", "sftp:h.org", "[::1]", "[::1]:22"] {
            let text = format!("[staging.hosts.\"{good}\"]\nconnections = 1\n");
            assert!(settings(&text, "").is_ok(), "{good}");
        }
    }
}
