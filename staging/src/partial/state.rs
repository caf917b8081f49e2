//! What is on disk beside the bytes of a file on its way. Version 1, JSON.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use keelboat_engine::Digest;
use serde::{Deserialize, Serialize};

use crate::private;
use crate::protocol::Validators;

const VERSION: u32 = 1;

/// What is known of the bytes beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// Digest of the address.
    pub(super) source: Digest,
    /// What the server said of the file when its bytes began to come.
    pub(super) validators: Validators,
    /// Bytes of the whole file, when known.
    pub(super) length: Option<u64>,
    /// What had been written when this was.
    pub(super) proven: Prefix,
    /// What had also been brought to the disk.
    pub(super) durable: Prefix,
}

/// The first bytes of the file and their digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prefix {
    pub(super) bytes: u64,
    pub(super) sha256: Digest,
}

/// The form on disk. Fields are only added, and then with a new version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    version: u32,
    source: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
    last_modified_is_strong: bool,
    length: Option<u64>,
    proven: Prefix,
    durable: Prefix,
}

impl State {
    /// Nothing has come.
    pub(super) fn new(source: Digest) -> Self {
        static EMPTY: LazyLock<Digest> = LazyLock::new(|| Digest::of(b""));
        let nothing = Prefix { bytes: 0, sha256: *EMPTY };
        Self {
            source,
            validators: Validators::default(),
            length: None,
            proven: nothing.clone(),
            durable: nothing,
        }
    }

    /// `None`: there is none for this source, or none that can be understood.
    pub(super) fn read(path: &Path, source: Digest) -> Option<Self> {
        let text = fs::read(path).ok()?;
        match serde_json::from_slice::<OnDisk>(&text) {
            Ok(disk) if disk.version == VERSION && disk.source == source => Some(disk.into()),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a partial transfer is started over");
                None
            }
        }
    }

    /// Written beside and renamed, so that a crash leaves the old or the new one.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(&OnDisk::from(self.clone())).map_err(io::Error::other)?;
        let beside = path.with_extension("state-new");
        private::write(&beside, &text)?;
        fs::rename(&beside, path)
    }
}

impl From<OnDisk> for State {
    fn from(disk: OnDisk) -> Self {
        Self {
            source: disk.source,
            validators: Validators {
                etag: disk.etag,
                last_modified: disk.last_modified,
                last_modified_is_strong: disk.last_modified_is_strong,
            },
            length: disk.length,
            proven: disk.proven,
            durable: disk.durable,
        }
    }
}

impl From<State> for OnDisk {
    fn from(state: State) -> Self {
        Self {
            version: VERSION,
            source: state.source,
            etag: state.validators.etag,
            last_modified: state.validators.last_modified,
            last_modified_is_strong: state.validators.last_modified_is_strong,
            length: state.length,
            proven: state.proven,
            durable: state.durable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1 as it was first written. It stays readable; a change needs a new version.
    const GOLDEN_1: &str = concat!(
        r#"{"version":1,"source":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","#,
        r#""etag":"\"v1\"","last_modified":"Sun, 06 Nov 1994 08:49:37 GMT","#,
        r#""last_modified_is_strong":true,"length":10,"#,
        r#""proven":{"bytes":1,"sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"},"#,
        r#""durable":{"bytes":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}"#,
    );

    fn state() -> State {
        State {
            validators: Validators {
                etag: Some("\"v1\"".into()),
                last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()),
                last_modified_is_strong: true,
            },
            length: Some(10),
            proven: Prefix { bytes: 1, sha256: Digest::of(b"x") },
            ..State::new(Digest::of(b"x"))
        }
    }

    #[test]
    fn version_1_is_written_and_read_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.state");
        state().write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), GOLDEN_1);
        fs::write(&path, GOLDEN_1).unwrap();
        assert_eq!(State::read(&path, Digest::of(b"x")), Some(state()));
        assert_eq!(State::read(&path, Digest::of(b"y")), None, "of another source");
        fs::write(&path, GOLDEN_1.replace("\"version\":1", "\"version\":2")).unwrap();
        assert_eq!(State::read(&path, Digest::of(b"x")), None, "of a later version");
    }
}
