//! Which version of a file it is: its size, and the second of its last change.
//!
//! SFTP says no more. A file that was written in the last seconds may be written again in the same
//! second, and nobody would see it: such files are waited for until their second is over, so that
//! any later change shows while they are read.
//!
//! The moment is by the server's clock, and how long ago that was by the clock here, since SFTP does
//! not say what time it is there. Where the server's clock is behind, a file that seems old may have
//! been changed just now. So nothing is built on a moment, in later tries or later runs, before it is
//! a minute old, as with FTP, and as HTTP has it for servers with several clocks.

use std::time::{Duration, SystemTime};

use super::wire::Attributes;
use crate::protocol::{TransferError, Validators};

/// How old a file's last change must be for a later one to show, if both clocks agree.
const SETTLED: Duration = Duration::from_secs(2);

/// How old it must be for a later one to show, by clocks that disagree by less than this.
const STRONG_AGE: Duration = Duration::from_mins(1);

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
        let wait = (self.moment()? + SETTLED).duration_since(now).unwrap_or_default();
        Some(wait).filter(|wait| *wait <= WAIT_MAX)
    }

    fn moment(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::from(self.modified?)))
    }

    /// What tells it from others. The size is in it, since a second holds many changes.
    pub(super) fn validators(&self, now: SystemTime) -> Validators {
        let age = self.moment().and_then(|moment| now.duration_since(moment).ok());
        Validators {
            etag: None,
            last_modified: self.modified.map(|second| format!("@{second}, {} bytes", self.size)),
            last_modified_is_strong: age.is_some_and(|age| age >= STRONG_AGE),
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
        assert!(validators(Some(940), 1).strong().is_some());
        for young in [941, 998, 1000, 1001, 5000] {
            assert!(validators(Some(young), 1).strong().is_none(), "{young}");
        }
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
