//! Reading a file of settings: each mistake with its line, what is allowed there, and an example.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::file::{Collection, File, OneLimit, Private, Staging};
use crate::size::{parse_rate, parse_size};
use crate::workflow::near::suggestion;
use crate::workflow::problem::{Problem, Problems, Sources};
use crate::workflow::reader::{Reader, Spot, in_order, integer_of};
use crate::workflow::syntax;

/// Connections, and tries: more than anybody means.
const COUNT_MAX: i64 = 10_000;

const STAGING_KEYS: [&str; 16] = [
    "connections",
    "connections_per_host",
    "bandwidth",
    "space_max",
    "unpacked_max",
    "connect_timeout",
    "first_byte_timeout",
    "stall_timeout",
    "rate_min",
    "tries",
    "retry_for",
    "private_addresses",
    "certificates",
    "known_hosts",
    "schemes",
    "hosts",
];

/// Schemes that can have limits.
const SCHEMES: [&str; 10] =
    ["http", "https", "ftp", "ftps", "sftp", "s3", "gs", "az", "globus", "file"];

const COLLECTION: &str = "write for example\n[[globus.collections]]\n\
                          id = \"11111111-2222-4333-8444-555555555555\"\npath = \"/data\"";

/// What a file with this text says. Paths in it are relative to `directory`.
pub(super) fn read(name: &str, text: &str, directory: &Path) -> Result<File, Vec<Problem>> {
    let (mut sources, mut problems) = (Sources::default(), Problems::default());
    let file = sources.add(name, text.into());
    let table = syntax::parse(file, text, &sources, &mut problems);
    let reader = Reader { file, sources: &sources, problems: &mut problems, executors: &[] };
    let said = table.map(|table| Reading { reader, directory }.file(&table)).unwrap_or_default();
    let problems = problems.into_list();
    if problems.is_empty() { Ok(said) } else { Err(problems) }
}

pub(super) struct Reading<'a> {
    pub(super) reader: Reader<'a>,
    directory: &'a Path,
}

impl Reading<'_> {
    fn file(&mut self, table: &DeTable<'_>) -> File {
        self.reader.check_keys(
            table,
            &["staging", "globus", "executors", "containers", "mpi", "journal"],
            "the settings",
        );
        let staging = table.get("staging").map(|value| self.staging(value)).unwrap_or_default();
        File {
            staging,
            collections: table.get("globus").and_then(|value| self.globus(value)),
            executors: table
                .get("executors")
                .map(|value| self.executors(value))
                .unwrap_or_default(),
            containers: table
                .get("containers")
                .map(|value| self.containers(value))
                .unwrap_or_default(),
            mpi: table.get("mpi").map(|value| self.mpi(value)).unwrap_or_default(),
            durability: table.get("journal").and_then(|value| self.journal(value)),
        }
    }

    fn staging(&mut self, value: &Spot<'_>) -> Staging {
        let help = "write [staging] on a line of its own, and below it keys: connections = 16";
        let Some(table) = self.reader.table(value, "staging", help) else {
            return Staging::default();
        };
        self.reader.check_keys(table, &STAGING_KEYS, "[staging]");
        Staging {
            connections: self.count(table, "connections", 16),
            connections_per_host: self.count(table, "connections_per_host", 4),
            bandwidth: self.parsed(table, "bandwidth", "10MB/s", parse_rate),
            space_max: self.parsed(table, "space_max", "200GB", parse_size),
            unpacked_max: self.parsed(table, "unpacked_max", "2TB", parse_size),
            connect_timeout: self.parsed(table, "connect_timeout", "15s", parse_span),
            first_byte_timeout: self.parsed(table, "first_byte_timeout", "1m", parse_span),
            stall_timeout: self.parsed(table, "stall_timeout", "1m", parse_span),
            rate_min: self.parsed(table, "rate_min", "1KiB/s", parse_rate),
            tries: self.count(table, "tries", 8),
            retry_for: self.parsed(table, "retry_for", "15m", parse_span),
            private_addresses: self.private_addresses(table),
            certificates: self.existing(table, "certificates", "/etc/ssl/own-ca.pem"),
            known_hosts: self.existing(table, "known_hosts", "/home/ann/.ssh/known_hosts"),
            schemes: self.limits(table, "schemes", "s3", check_scheme),
            hosts: self.limits(table, "hosts", "\"data.example.org\"", check_host),
        }
    }

    /// A whole number from 1 on.
    pub(super) fn count(&mut self, table: &DeTable<'_>, key: &str, example: u32) -> Option<u32> {
        let value = table.get(key)?;
        let help = format!("write a whole number from 1 to {COUNT_MAX}, such as {key} = {example}");
        let Some(number) = integer_of(value.get_ref()) else {
            self.reader.wrong_kind(value, key, "a whole number", &help);
            return None;
        };
        if (1..=COUNT_MAX).contains(&number) {
            return u32::try_from(number).ok();
        }
        self.report(value, format!("{key} = {number} is out of range"), &help);
        None
    }

    /// A string that means something else.
    pub(super) fn parsed<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        example: &str,
        parse: fn(&str) -> Option<T>,
    ) -> Option<T> {
        let help = format!("write for example {key} = \"{example}\"");
        let text = self.reader.string(table.get(key)?, key, &help)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            let noun = match key {
                "bandwidth" | "rate_min" => "rate",
                "space_max" | "unpacked_max" | "memory" | "disk" => "size",
                _ => "time",
            };
            self.report(table.get(key)?, format!("{text:?} is no {noun}"), &help);
        }
        parsed
    }

    fn private_addresses(&mut self, table: &DeTable<'_>) -> Option<Private> {
        let value = table.get("private_addresses")?;
        let help = "write private_addresses = \"allow\" or \"deny\"";
        let text = self.reader.string(value, "private_addresses", help)?;
        match &*text {
            "allow" => Some(Private::Allow),
            "deny" => Some(Private::Deny),
            other => {
                self.report(value, format!("private_addresses cannot be {other:?}"), help);
                None
            }
        }
    }

    /// The path of a file, which has to be there.
    fn existing(&mut self, table: &DeTable<'_>, key: &str, example: &str) -> Option<PathBuf> {
        let value = table.get(key)?;
        let help = format!(
            "name a file that is there, such as {key} = \"{example}\"; paths begin at the \
             directory of this file"
        );
        let path = self.path(value, key, &help)?;
        let found = path.metadata().and_then(|found| {
            if found.is_dir() {
                return Err(std::io::ErrorKind::IsADirectory.into());
            }
            if found.is_file() { std::fs::File::open(&path).map(drop) } else { Ok(()) }
        });
        if let Err(error) = found {
            self.report(value, format!("cannot read {}: {error}", path.display()), &help);
        }
        Some(path)
    }

    /// A path, which begins at the directory of the file, or with `~/` at home.
    fn path(&mut self, value: &Spot<'_>, key: &str, help: &str) -> Option<PathBuf> {
        let text = self.reader.string(value, key, help)?;
        if text.is_empty() {
            self.report(value, format!("{key} is empty"), help);
            return None;
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let path = match (text.strip_prefix("~/"), home) {
            (Some(below), Some(home)) => Path::new(&home).join(below),
            _ => self.directory.join(&*text),
        };
        Some(std::path::absolute(&path).unwrap_or(path))
    }

    /// Limits by name.
    fn limits(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        example: &str,
        check: fn(&str) -> Result<(), (String, String)>,
    ) -> BTreeMap<String, OneLimit> {
        let help = format!(
            "write [staging.{key}.{example}] on a line of its own, and below it \
                            connections = 2 or bandwidth = \"10MB/s\""
        );
        let mut limits = BTreeMap::new();
        let Some(value) = table.get(key) else { return limits };
        let Some(table) = self.reader.table(value, key, &help) else { return limits };
        for (name, value) in in_order(table) {
            if let Err((message, help)) = check(name.get_ref()) {
                let problem = self.reader.problem(name.span(), message).help(help);
                self.reader.problems.push(problem);
            }
            let what = format!("staging.{key}.{:?}", name.get_ref());
            let Some(table) = self.reader.table(value, &what, &help) else { continue };
            self.reader.check_keys(table, &["connections", "bandwidth"], &format!("[{what}]"));
            let limit = OneLimit {
                connections: self.count(table, "connections", 2),
                bandwidth: self.parsed(table, "bandwidth", "10MB/s", parse_rate),
            };
            limits.insert(name.get_ref().to_ascii_lowercase(), limit);
        }
        limits
    }

    fn globus(&mut self, value: &Spot<'_>) -> Option<Vec<Collection>> {
        let table = self.reader.table(value, "globus", COLLECTION)?;
        self.reader.check_keys(table, &["collections"], "[globus]");
        let value = table.get("collections")?;
        let DeValue::Array(list) = value.get_ref() else {
            self.reader.wrong_kind(value, "globus.collections", "a list of tables", COLLECTION);
            return None;
        };
        Some(list.iter().filter_map(|value| self.collection(value)).collect())
    }

    fn collection(&mut self, value: &Spot<'_>) -> Option<Collection> {
        let table = self.reader.table(value, "a collection", COLLECTION)?;
        self.reader.check_keys(table, &["id", "path", "root"], "[[globus.collections]]");
        for key in ["id", "path"] {
            if table.get(key).is_none() {
                self.report(value, format!("this collection has no {key}"), COLLECTION);
            }
        }
        let (id, path) = (table.get("id")?, table.get("path")?);
        let text = self.reader.string(id, "id", COLLECTION)?;
        if !keelboat_staging::is_collection_id(&text) {
            let help = "copy it from app.globus.org: id = \"11111111-2222-4333-8444-555555555555\"";
            self.report(id, format!("{text:?} is no id of a collection"), help);
        }
        let path = self.path(path, "path", "write for example path = \"/data\"")?;
        let mut root = "/".to_owned();
        if let Some(value) = table.get("root") {
            let help = "write what the directory is called on the collection, such as root = \"/\"";
            let given = self.reader.string(value, "root", help)?;
            if !given.starts_with('/') || given.split('/').any(|part| part == "..") {
                self.report(value, format!("{given:?} is no absolute path"), help);
            }
            given.as_ref().clone_into(&mut root);
        }
        Some(Collection { id: text.as_ref().to_owned(), path, root })
    }

    pub(super) fn strings(
        &mut self,
        value: &Spot<'_>,
        key: &str,
        help: &str,
    ) -> Option<Vec<String>> {
        let DeValue::Array(list) = value.get_ref() else {
            self.reader.wrong_kind(value, key, "a list of strings", help);
            return None;
        };
        let what = format!("each of {key}");
        let mut read = |item| self.reader.string(item, &what, help);
        list.iter().map(|item| read(item).map(|text| text.as_ref().to_owned())).collect()
    }

    pub(super) fn report(&mut self, value: &Spot<'_>, message: String, help: &str) {
        let problem = self.reader.problem(value.span(), message).help(help);
        self.reader.problems.push(problem);
    }
}

pub(super) fn parse_span(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|span| !span.is_zero())
}

fn check_scheme(name: &str) -> Result<(), (String, String)> {
    let lower = name.to_ascii_lowercase();
    if SCHEMES.contains(&&*lower) {
        return Ok(());
    }
    let message = format!("there is no scheme `{name}` that can have limits");
    Err((message, suggestion(&lower, SCHEMES, "scheme")))
}

/// A host, `HOST:PORT`, or `SCHEME:NAME` for a bucket.
fn check_host(name: &str) -> Result<(), (String, String)> {
    let error = |message: String, meant: &str| {
        let help = format!("write the host alone, or with its port: [staging.hosts.{meant:?}]");
        Err((message, help))
    };
    let (host, rest) = match name.split_once("://") {
        Some((_, rest)) => (rest, ""),
        None => (name, name),
    };
    let authority = host.split(['/', '?', '#']).next().unwrap_or_default();
    let meant = authority.rsplit('@').next().unwrap_or_default();
    let meant = if meant.is_empty() { "data.example.org" } else { meant };
    if rest.is_empty() && !name.is_empty() {
        return error(
            format!("{:?} is an address, and no host", keelboat_staging::redact(name)),
            meant,
        );
    }
    if meant != name || name.chars().any(|c| c.is_control() || c == ' ') {
        return error("this is no host".to_owned(), meant.trim());
    }
    let before = if name.starts_with('[') { name.rsplit_once("]:") } else { name.rsplit_once(':') };
    let Some((before, port)) = before else { return Ok(()) };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_scheme = SCHEMES.contains(&before.to_ascii_lowercase().as_str());
    if is_scheme
        || (is_port && !before.is_empty() && !before.contains(':'))
        || name.starts_with('[') && is_port
    {
        return Ok(());
    }
    error(format!("{name:?} is no host with a port"), before)
}
