//! What a cloud's answer means for a transfer.
//!
//! `object_store` keeps the status of a refusal to itself and puts whole answers into its texts,
//! which may hold secrets. So the HTTP client notes what it saw, and only status, error code and
//! region are shown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::Error;
use reqwest::StatusCode;

use super::address::Cloud;
use crate::protocol::TransferError;

/// What came of the request for one object. Requests for credentials leave it empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Option<Answer>>>);

/// The end of one request.
#[derive(Debug)]
pub(super) enum Answer {
    /// The server has answered.
    Status(Refusal),
    /// It has not.
    Failed(TransferError),
}

/// What may be shown of an answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// The cloud's own word for it: `NoSuchKey`.
    pub(super) code: Option<String>,
    /// Where the bucket is, when the server says so.
    pub(super) region: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

impl Seen {
    pub(super) fn note(&self, answer: Answer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Why there is no object. `is_proven`: the settings have been right before.
    pub(super) fn explain(self, error: &Error, cloud: Cloud, is_proven: bool) -> TransferError {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match answer {
            Some(Answer::Failed(error)) => error,
            Some(Answer::Status(answer)) if answer.status.is_success() => {
                TransferError::Malformed { found: error.to_string() }
            }
            Some(Answer::Status(answer)) => answer.explain(cloud),
            None if is_proven => {
                TransferError::Unreachable { found: "the credentials could not be renewed".into() }
            }
            None => TransferError::Refused {
                found: "no usable credentials were found".into(),
                hint: cloud.credentials_hint(),
            },
        }
    }
}

impl Refusal {
    fn explain(self, cloud: Cloud) -> TransferError {
        let code = self.code.as_ref().map(|code| format!(", {code}")).unwrap_or_default();
        let found = format!("status {}{code}", self.status);
        // S3 says so with status 400.
        let is_timeout = self.code.as_deref() == Some("RequestTimeout");
        match self.status.as_u16() {
            408 | 425 | 429 | 500..=599 => {
                TransferError::Busy { found, retry_after: self.retry_after }
            }
            _ if is_timeout => TransferError::Busy { found, retry_after: self.retry_after },
            404 | 410 => TransferError::Missing { found },
            416 => TransferError::Changed { found: format!("the rest cannot be had ({found})") },
            401 | 403 => TransferError::Refused {
                found: format!("access was refused ({found})"),
                hint: self.region_hint(cloud).unwrap_or_else(|| cloud.credentials_hint()),
            },
            _ => TransferError::Refused {
                found: format!("the server answered with {found}"),
                hint: self.region_hint(cloud).unwrap_or_else(|| {
                    format!(
                        "check the {}_ variables: endpoint, region and credentials",
                        cloud.prefix()
                    )
                }),
            },
        }
    }

    fn region_hint(&self, cloud: Cloud) -> Option<String> {
        let region = self.region.as_ref().filter(|_| cloud == Cloud::S3)?;
        Some(format!("the bucket is in {region}: set AWS_REGION={region}, and check credentials"))
    }
}
