//! What those who wait say.

use std::time::Duration;

use keelboat_engine::Timestamp;
use keelboat_engine::queue::Wait;

use crate::protocol::TransferError;

/// Why a transfer waits.
pub(super) fn waits(
    wait: Wait,
    host: &str,
    now: Timestamp,
    trouble: Option<&TransferError>,
) -> String {
    match wait {
        Wait::Turn => "its turn has not come: all connections are in use".into(),
        Wait::Host { connections_max } => format!(
            "its turn has not come: {host} has as many connections as it may ({connections_max})"
        ),
        Wait::Scheme { connections_max } => format!(
            "its turn has not come: its scheme has as many connections as it may \
             ({connections_max})"
        ),
        Wait::Asked { until } => {
            format!("{host} asked to be left alone for {}", seconds(until.since(now)))
        }
        Wait::Down { since, until } => {
            let last = trouble.map(|error| format!(" ({error})")).unwrap_or_default();
            let next = if until > now {
                format!("the next try is in {}", seconds(until.since(now)))
            } else {
                "it is being tried".into()
            };
            format!("{host} has not answered for {}{last}; {next}", seconds(now.since(since)))
        }
        Wait::Room { bytes } => {
            format!("there is no room for its {bytes} bytes until others are done with theirs")
        }
    }
}

/// How a transfer ends that has waited for long enough: with the last trouble of its host.
pub(super) fn given_up(
    wait: Wait,
    host: &str,
    now: Timestamp,
    trouble: Option<TransferError>,
) -> TransferError {
    match wait {
        Wait::Asked { until } => {
            let span = until.since(now);
            let found = format!("{host} asked to be left alone for {}", seconds(span));
            TransferError::Busy { found, retry_after: Some(span) }
        }
        _ => trouble.unwrap_or_else(|| TransferError::Unreachable {
            found: format!("{host} does not answer"),
        }),
    }
}

fn seconds(span: Duration) -> String {
    format!("{:.0} s", span.as_secs_f64().ceil())
}
