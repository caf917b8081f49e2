//! The file in which a login is kept. Version 1, JSON, for its owner only.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use keelboat_engine::FailureClass;
use serde::{Deserialize, Serialize};

use crate::credentials::Secret;
use crate::protocol::TransferError;

const VERSION: u32 = 1;

/// Bytes of a file with a token.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is needed for access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    /// The application by way of which somebody has logged in.
    pub(super) client_id: String,
    pub(super) refresh_token: Secret,
    /// The consents that were given, for the next login.
    pub(super) consents: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    version: u32,
    client_id: String,
    refresh_token: String,
    consents: Vec<String>,
}

impl Tokens {
    /// # Errors
    /// There is none; others can read it; it is of another version.
    pub(super) fn read(path: &Path) -> Result<Self, TransferError> {
        let text = read_private(path)?;
        // The cause may quote what is in it.
        let unusable = || TransferError::Refused {
            found: format!("{} holds no login of this version", path.display()),
            hint: "log in again: keelboat login globus".into(),
        };
        let disk: OnDisk = serde_json::from_str(&text).map_err(|_quotes| unusable())?;
        if disk.version != VERSION {
            return Err(unusable());
        }
        let refresh_token = Secret::new(disk.refresh_token);
        Ok(Self { client_id: disk.client_id, refresh_token, consents: disk.consents })
    }

    /// Written beside and renamed, never readable by others.
    pub(super) fn write(&self, path: &Path) -> Result<(), TransferError> {
        let disk = OnDisk {
            version: VERSION,
            client_id: self.client_id.clone(),
            refresh_token: self.refresh_token.reveal().to_owned(),
            consents: self.consents.clone(),
        };
        let written = serde_json::to_vec(&disk).map_err(std::io::Error::other).and_then(|text| {
            let dir = path.parent().unwrap_or_else(|| Path::new("."));
            fs::create_dir_all(dir)?;
            let mut file = tempfile::Builder::new().prefix(".globus-").tempfile_in(dir)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            File::open(dir)?.sync_all()
        });
        written.map_err(|error| local(path, "write", &error))
    }
}

/// Reads a file that only its owner may read.
fn read_private(path: &Path) -> Result<String, TransferError> {
    let mut options = File::options();
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => TransferError::Refused {
            found: format!("nobody is logged in to Globus: there is no {}", path.display()),
            hint: "keelboat login globus, or put `client_id` and `client_secret` into the \
                   credentials file"
                .into(),
        },
        _ => local(path, "read", &error),
    })?;
    let metadata = file.metadata().map_err(|error| local(path, "read", &error))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(TransferError::Refused {
            found: format!("{} can be read by others", path.display()),
            hint: format!("chmod 600 {}; if others had a look, log in again", path.display()),
        });
    }
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| local(path, "read", &error))?;
    Ok(text)
}

/// Trouble with a file of ours.
pub(super) fn local(path: &Path, verb: &str, error: &std::io::Error) -> TransferError {
    let class = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => FailureClass::OutOfResources,
        _ => FailureClass::Permanent,
    };
    TransferError::Local {
        class,
        found: format!("cannot {verb} {}: {error}", path.display()),
        hint: "check the path, its permissions and the space there".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Version 1 as it was first written. It stays readable; a change needs a new version.
    const GOLDEN_1: &str =
        r#"{"version":1,"client_id":"c","refresh_token":"r","consents":["*https://x"]}"#;

    fn tokens() -> Tokens {
        let consents = vec!["*https://x".to_owned()];
        Tokens { client_id: "c".into(), refresh_token: Secret::new("r"), consents }
    }

    #[test]
    fn version_1_is_written_and_read_as_ever_and_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/globus.json");
        tokens().write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), GOLDEN_1);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(Tokens::read(&path), Ok(tokens()));
        fs::write(&path, GOLDEN_1.replace("\"version\":1", "\"version\":2")).unwrap();
        let error = Tokens::read(&path).unwrap_err();
        assert!(error.hint().contains("keelboat login globus"), "{error}");
    }

    #[test]
    fn what_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("globus.json");
        tokens().write(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = Tokens::read(&path).unwrap_err();
        assert!(error.to_string().contains("can be read by others"), "{error}");
    }
}
