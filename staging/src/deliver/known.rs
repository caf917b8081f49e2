//! What an earlier look found at an address, so that a later run asks one question in the place of
//! reading all of it back.
//!
//! Beside the files on their way, one small file for each address: JSON, version 1. It is believed
//! only when the server says that nothing has changed since, by a validator that tells versions
//! apart to the byte. What cannot be read or written costs reading back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keelboat_engine::{Content, Digest, Kind};
use serde::{Deserialize, Serialize};

use super::Way;
use crate::address::address_digest;
use crate::fetch::blocking;
use crate::private;
use crate::protocol::{Condition, Validators, Writing};

const VERSION: u32 = 1;

/// What was proven to be at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// Digest of the address.
    source: Digest,
    bytes: u64,
    sha256: Digest,
    /// What the server said in the very answer that proved it.
    validators: Validators,
}

/// The form on disk. Fields are only added, and then with a new version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    version: u32,
    source: Digest,
    bytes: u64,
    sha256: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
    last_modified_is_strong: bool,
}

impl Way<'_> {
    /// How to ask for a file that may be there: in a way that needs no bytes when it is known to
    /// be the one that is to be there.
    pub(super) async fn condition(&self, address: &str) -> Condition {
        if self.stager.config.strict {
            return Condition::Always;
        }
        let (dir, source) = (self.stager.config.partial_dir.clone(), address_digest(address));
        let known = blocking(move || Known::read(&dir, source)).await.ok().flatten();
        let content = self.delivery.content;
        match known.filter(|known| known.content() == content && self.suffice(&known.validators)) {
            Some(known) => Condition::IfChanged(known.validators),
            None => Condition::Always,
        }
    }

    /// The file was proven to be there, by an answer that said this of it.
    pub(super) async fn remember(&self, address: &str, validators: &Validators) {
        if !self.suffice(validators) {
            return;
        }
        let Content { bytes, digest: sha256, .. } = self.delivery.content;
        let (dir, validators) = (self.stager.config.partial_dir.clone(), validators.clone());
        let known = Known { source: address_digest(address), bytes, sha256, validators };
        if let Ok(Err(error)) = blocking(move || known.write(&dir)).await {
            tracing::debug!(%error, "what was delivered will be read back by the next run");
        }
    }

    /// Whether these prove that nothing has changed. Where files show when they are whole, a moment
    /// is compared by "not later", which an older file that was put there passes, too.
    fn suffice(&self, validators: &Validators) -> bool {
        let strong = validators.strong();
        match self.protocol.writing() {
            Writing::Renamed => strong.is_some(),
            Writing::Whole | Writing::Never => {
                strong.is_some() && strong == validators.etag.as_deref()
            }
        }
    }
}

impl Known {
    const fn content(&self) -> Content {
        Content { digest: self.sha256, bytes: self.bytes, kind: Kind::File }
    }

    /// `None`: there is none for this address, or none that can be understood.
    fn read(dir: &Path, source: Digest) -> Option<Self> {
        let disk: OnDisk = serde_json::from_slice(&fs::read(path(dir, source)).ok()?).ok()?;
        (disk.version == VERSION && disk.source == source).then(|| disk.into())
    }

    /// Written beside and renamed, so that a crash leaves the old or the new one.
    fn write(self, dir: &Path) -> io::Result<()> {
        let path = path(dir, self.source);
        let text = serde_json::to_vec(&OnDisk::from(self)).map_err(io::Error::other)?;
        let beside = path.with_extension("there-new");
        fs::create_dir_all(dir)?;
        private::write(&beside, &text)?;
        fs::rename(&beside, path)
    }
}

fn path(dir: &Path, source: Digest) -> PathBuf {
    dir.join(format!("{source}.there"))
}

impl From<OnDisk> for Known {
    fn from(disk: OnDisk) -> Self {
        Self {
            source: disk.source,
            bytes: disk.bytes,
            sha256: disk.sha256,
            validators: Validators {
                etag: disk.etag,
                last_modified: disk.last_modified,
                last_modified_is_strong: disk.last_modified_is_strong,
            },
        }
    }
}

impl From<Known> for OnDisk {
    fn from(known: Known) -> Self {
        Self {
            version: VERSION,
            source: known.source,
            bytes: known.bytes,
            sha256: known.sha256,
            etag: known.validators.etag,
            last_modified: known.validators.last_modified,
            last_modified_is_strong: known.validators.last_modified_is_strong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1 as it was first written. It stays readable; a change needs a new version.
    const GOLDEN_1: &str = concat!(
        r#"{"version":1,"source":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","#,
        r#""bytes":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","#,
        r#""etag":"\"v1\"","last_modified":null,"last_modified_is_strong":false}"#,
    );

    #[test]
    fn version_1_is_written_and_read_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (source, other) = (Digest::of(b"x"), Digest::of(b"y"));
        let etag = Some("\"v1\"".into());
        let validators = Validators { etag, ..Validators::default() };
        let known = Known { source, bytes: 0, sha256: Digest::of(b""), validators };
        known.clone().write(dir.path()).unwrap();
        let path = path(dir.path(), source);
        assert_eq!(fs::read_to_string(&path).unwrap(), GOLDEN_1);
        assert_eq!(Known::read(dir.path(), source), Some(known));
        fs::copy(&path, super::path(dir.path(), other)).unwrap();
        assert_eq!(Known::read(dir.path(), other), None, "of another address");
        for torn in [GOLDEN_1.replace("\"version\":1", "\"version\":2"), GOLDEN_1.replace('}', "")]
        {
            fs::write(&path, torn).unwrap();
            assert_eq!(Known::read(dir.path(), source), None);
        }
    }
}
