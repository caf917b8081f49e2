//! What was fetched to where, so that the same command knows its own files again: the directory
//! `fetched` among the user's state, a file for each directory that files were put into. Version 1,
//! lines of JSON.
//!
//! A record is written before its file appears, and believed only when the file has the digest that
//! it tells: so a crash in between does no harm. It proves where a file came from. Whether that is
//! what is there now, the server is asked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use keelboat_engine::{Content, Digest, Kind};
use keelboat_staging::Known;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// Bytes of one file of records; when there are more, it begins anew.
const BYTES_MAX: u64 = 64 << 20;

/// Records to which nothing was added for so long are forgotten.
const AGE_MAX: Duration = Duration::from_hours(24 * 365);

/// One file or directory that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// Its path below the directory that the records are of.
    output: String,
    /// Digest of the address that it came from.
    source: Digest,
    is_directory: bool,
    bytes: u64,
    sha256: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Record {
    /// `known` tells from where it came. `None`: its name is no text.
    pub(super) fn new(output: &Path, known: Known) -> Option<Self> {
        let Known { content, etag, last_modified, source } = known;
        Some(Self {
            version: VERSION,
            output: output.to_str()?.to_owned(),
            source: source?,
            is_directory: content.kind == Kind::Directory,
            bytes: content.bytes,
            sha256: content.digest,
            etag,
            last_modified,
        })
    }

    /// As it is asked for again.
    pub(super) fn known(&self) -> Known {
        let kind = if self.is_directory { Kind::Directory } else { Kind::File };
        Known {
            content: Content { digest: self.sha256, bytes: self.bytes, kind },
            etag: self.etag.clone(),
            last_modified: self.last_modified.clone(),
            source: Some(self.source),
        }
    }
}

/// The records of one directory.
#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
}

impl Records {
    /// Of a directory that exists. They are kept in `state`.
    pub(super) fn of(directory: &Path, state: &Path) -> io::Result<Self> {
        let directory = directory.canonicalize()?;
        let name = Digest::of(directory.as_os_str().as_encoded_bytes()).to_hex();
        Ok(Self { path: state.join("fetched").join(name) })
    }

    /// By path below the directory; of several the last one. Lines that cannot be understood are
    /// none, as if the file had not been fetched.
    pub(super) fn read(&self) -> BTreeMap<PathBuf, Record> {
        let text = fs::read(&self.path).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        let records = lines.filter_map(|line| serde_json::from_slice::<Record>(line).ok());
        let records = records.filter(|record| record.version == VERSION);
        records.map(|record| (PathBuf::from(&record.output), record)).collect()
    }

    /// Adds some, durably.
    pub(super) fn add(&self, records: &[Record]) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = File::options().append(true).create(true).mode(0o600).open(&self.path)?;
        let bytes = file.metadata()?.len();
        if bytes == 0 {
            forget_old(folder, SystemTime::now());
        } else if bytes > BYTES_MAX {
            file.set_len(0)?;
        }
        // A line that a crash tore is ended first. One write, so that others who add do not mix.
        let mut lines = vec![b'\n'];
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        file.sync_data()
    }
}

/// Removes what nobody has added to for long.
fn forget_old(folder: &Path, now: SystemTime) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified
            .is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > AGE_MAX));
        if is_old && let Err(error) = fs::remove_file(entry.path()) {
            tracing::debug!(%error, "old records of fetched files stay");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1 as it was first written. It stays readable; a change needs a new version.
    const GOLDEN_1: &str = concat!(
        r#"{"version":1,"output":"in/a.csv","#,
        r#""source":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","#,
        r#""is_directory":false,"bytes":1,"#,
        r#""sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","#,
        r#""etag":"\"v1\"","last_modified":null}"#,
    );

    fn record(output: &str, etag: &str) -> Record {
        let known = Known {
            content: Content { digest: Digest::of(b"x"), bytes: 1, kind: Kind::File },
            etag: Some(etag.to_owned()),
            last_modified: None,
            source: Some(Digest::of(b"x")),
        };
        Record::new(Path::new(output), known).unwrap()
    }

    #[test]
    fn version_1_is_written_and_read_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::of(dir.path(), dir.path()).unwrap();
        records.add(&[record("in/a.csv", "\"v1\"")]).unwrap();
        assert_eq!(fs::read_to_string(&records.path).unwrap(), format!("\n{GOLDEN_1}\n"));
        let read = records.read();
        assert_eq!(read.get(Path::new("in/a.csv")), Some(&record("in/a.csv", "\"v1\"")));
        fs::write(&records.path, GOLDEN_1.replace("\"version\":1", "\"version\":2")).unwrap();
        assert_eq!(records.read(), BTreeMap::new(), "of a later version");
    }

    #[test]
    fn the_last_one_counts_and_a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::of(dir.path(), dir.path()).unwrap();
        records.add(&[record("a", "1"), record("b", "1")]).unwrap();
        let mut torn = fs::read(&records.path).unwrap();
        torn.truncate(torn.len() - 5);
        fs::write(&records.path, torn).unwrap();
        records.add(&[record("c", "1"), record("a", "2")]).unwrap();
        let read = records.read();
        assert_eq!(read.len(), 2, "{read:?}");
        assert_eq!(read.get(Path::new("a")), Some(&record("a", "2")));
        assert!(read.contains_key(Path::new("c")));
    }

    #[test]
    fn old_ones_are_forgotten_when_there_is_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("old"), b"x").unwrap();
        forget_old(dir.path(), SystemTime::now());
        assert!(dir.path().join("old").exists());
        forget_old(dir.path(), SystemTime::now() + AGE_MAX * 2);
        assert!(!dir.path().join("old").exists());
    }
}
