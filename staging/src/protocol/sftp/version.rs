//! Which version of a file it is: its size, and the second of its last change.
//!
//! SFTP says no more. A file that was written in the last seconds may be written again in the same
//! second, and nobody would see it: such files are waited for until their second is over, so that
//! any later change shows. That holds as far as the clocks on both sides agree.

use std::time::{Duration, SystemTime};

use super::wire::Attributes;
use crate::protocol::{TransferError, Validators};

/// How old a file's last change must be for a later one to show.
const SETTLED: Duration = Duration::from_secs(2);

/// A file from further in the future than this is not waited for: its server's clock is wrong.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// A version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) size: u64,
    /// Seconds since 1970.
    modified: Option<u32>,
}

impl Version {
    /// # Errors
    /// It is no file, or the server does not say how long it is.
    pub(super) fn of(attributes: &Attributes) -> Result<Self, TransferError> {
        if attributes.mode.is_some() && !attributes.is_file() {
            return Err(TransferError::Refused {
                found: "it is not a regular file".into(),
                hint: "name a file; a directory is named with `/` at its end".into(),
            });
        }
        let size = attributes.size.ok_or_else(|| TransferError::Refused {
            found: "the server does not say how long the file is".into(),
            hint: "use another server, or another scheme".into(),
        })?;
        Ok(Self { size, modified: attributes.modified })
    }

    /// How long to wait until any later change would show. `None`: nobody knows.
    pub(super) fn settles_in(&self, now: SystemTime) -> Option<Duration> {
        let modified = Duration::from_secs(u64::from(self.modified?));
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some((modified + SETTLED).saturating_sub(now)).filter(|wait| *wait <= WAIT_MAX)
    }

    /// What tells it from others. The size is in it, since a second holds many changes.
    pub(super) fn validators(&self, now: SystemTime) -> Validators {
        Validators {
            etag: None,
            last_modified: self.modified.map(|second| format!("@{second}, {} bytes", self.size)),
            last_modified_is_strong: self.settles_in(now) == Some(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settles(modified: Option<u32>, now_ms: u64) -> Option<Duration> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms);
        Version { size: 1, modified }.settles_in(now)
    }

    #[test]
    fn only_what_is_old_enough_is_told_apart() {
        assert_eq!(settles(Some(100), 102_000), Some(Duration::ZERO));
        assert_eq!(settles(Some(100), 101_500), Some(Duration::from_millis(500)));
        assert_eq!(settles(Some(102), 101_500), Some(Duration::from_millis(2_500)));
        assert_eq!(settles(Some(200), 101_500), None, "from the future");
        assert_eq!(settles(None, 101_500), None);
        let validators = |modified, size| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
            Version { size, modified }.validators(now)
        };
        assert!(validators(Some(998), 1).strong().is_some());
        assert!(validators(Some(999), 1).strong().is_none());
        assert!(validators(Some(998), 1).differ(&validators(Some(998), 2)));
        assert!(!validators(Some(998), 1).differ(&validators(Some(998), 1)));
        assert!(validators(None, 1).is_empty());
    }

    #[test]
    fn only_files_of_known_length_have_versions() {
        let file = Attributes { size: Some(1), mode: Some(0o100_644), modified: None };
        assert!(Version::of(&file).is_ok());
        assert!(Version::of(&Attributes { mode: Some(0o040_755), ..file }).is_err());
        assert!(Version::of(&Attributes { size: None, ..file }).is_err());
    }
}
