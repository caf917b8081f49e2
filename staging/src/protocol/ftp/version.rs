//! What tells versions of a file apart: its length and the moment of its last change.
//!
//! That moment has whole seconds. A file that was changed in this very second may be changed once
//! more without a trace, so it is looked at again when that second is over; and nothing is built
//! on it, in later tries or later runs, before it is old enough for clocks that disagree.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::session::Session;
use crate::protocol::{TransferError, Validators};

/// How much older than now, by the clock here, the last change must be to tell versions apart.
const STRONG_AGE: Duration = Duration::from_mins(1);

/// From when on a further change has a later second.
const SETTLED_AGE: Duration = Duration::from_secs(2);

/// What the server says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Version {
    /// Bytes.
    pub(super) length: Option<u64>,
    /// The moment of the last change as the server writes it.
    pub(super) modified: Option<String>,
}

impl Version {
    /// Asks for the version that is there now.
    pub(super) async fn ask(session: &mut Session, path: &str) -> Result<Self, TransferError> {
        let length = value(session, "SIZE", path).await?.and_then(|text| text.parse().ok());
        // Without a length a moment proves little, and a directory may have one.
        let modified = if length.is_some() { value(session, "MDTM", path).await? } else { None };
        Ok(Self { length, modified: modified.filter(|text| moment(text).is_some()) })
    }

    /// Asks for a version whose next change will show; one of our own writing is believed at once.
    pub(super) async fn settled(
        session: &mut Session,
        path: &str,
        is_ours: impl Fn(&Self) -> bool,
    ) -> Result<Self, TransferError> {
        let version = Self::ask(session, path).await?;
        let wait = version.unsettled(Timestamp::now());
        if wait.is_zero() || is_ours(&version) {
            return Ok(version);
        }
        tokio::time::sleep(wait).await;
        Self::ask(session, path).await
    }

    /// What later tries and runs compare; empty as long as it proves nothing.
    pub(super) fn validators(&self, now: Timestamp) -> Validators {
        let (Some(length), Some(modified)) = (self.length, &self.modified) else {
            return Validators::default();
        };
        if self.age(now).is_none_or(|age| age < STRONG_AGE) {
            return Validators::default();
        }
        Validators {
            etag: None,
            last_modified: Some(format!("{modified} {length}")),
            last_modified_is_strong: true,
        }
    }

    /// The moment of the last change.
    pub(super) fn modified_at(&self) -> Option<SystemTime> {
        self.modified.as_deref().and_then(moment).map(SystemTime::from)
    }

    /// How long until a further change would have a later second.
    fn unsettled(&self, now: Timestamp) -> Duration {
        let Some(modified) = self.modified.as_deref().and_then(moment) else {
            return Duration::ZERO;
        };
        // A moment to come is of another clock: its second is over after as long a wait.
        let age = Duration::try_from(now.duration_since(modified)).unwrap_or_default();
        SETTLED_AGE.saturating_sub(age)
    }

    /// `None`: unknown, or its moment is yet to come.
    fn age(&self, now: Timestamp) -> Option<Duration> {
        let modified = moment(self.modified.as_deref()?)?;
        Duration::try_from(now.duration_since(modified)).ok()
    }
}

/// The answer to a command about a file; `None`: the server does not say.
async fn value(
    session: &mut Session,
    command: &str,
    path: &str,
) -> Result<Option<String>, TransferError> {
    let reply = session.command(&format!("{command} {path}")).await?;
    match reply.code {
        213 => Ok(Some(reply.last().to_owned())),
        // The server ends the connection.
        421 => Err(reply.refusal()),
        _ => Ok(None),
    }
}

/// `20260131235959`, or with a fraction after a point; always in UTC (RFC 3659, section 2.3).
fn moment(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if whole.len() != 14 || !are_digits {
        return None;
    }
    let time = DateTime::strptime("%Y%m%d%H%M%S", whole).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(modified: &str) -> Version {
        Version { length: Some(5), modified: Some(modified.into()) }
    }

    #[test]
    fn moments_are_read_strictly() {
        assert_eq!(moment("20260131235959").unwrap().to_string(), "2026-01-31T23:59:59Z");
        assert_eq!(moment("20260131235959.25").unwrap().to_string(), "2026-01-31T23:59:59Z");
        for bad in ["", "2026013123595", "20261331235959", "20260131235959.x", "+0260131235959"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_young_proves_nothing() {
        let now = moment("20260131120100").unwrap();
        let strong = version("20260131120000").validators(now);
        assert_eq!(strong.strong(), Some("20260131120000 5"));
        for young in ["20260131120001", "20260131120100", "20260131130000"] {
            assert!(version(young).validators(now).is_empty(), "{young}");
        }
        assert!(Version::default().validators(now).is_empty());
    }

    #[test]
    fn the_second_of_the_last_change_is_waited_for() {
        let now = moment("20260131120100").unwrap();
        let waits = |modified| version(modified).unsettled(now);
        assert_eq!(waits("20260131120058"), Duration::ZERO);
        assert_eq!(waits("20260131120059"), Duration::from_secs(1));
        assert_eq!(waits("20260131120100"), SETTLED_AGE);
        assert_eq!(waits("20270131120100"), SETTLED_AGE, "clocks may disagree");
    }
}
