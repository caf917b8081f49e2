//! What a cloud's answer means for a transfer.
//!
//! `object_store` keeps the status of a refusal to itself and puts whole answers into its texts,
//! which may hold secrets. So the HTTP client notes what it saw, and only status, error code and
//! region are shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::Error;
use reqwest::StatusCode;

use super::address::Cloud;
use crate::protocol::{Sent, TransferError};

tokio::task_local! {
    static SEEN: Seen;
}

/// What came of the requests of one step, a put or a page of a listing. Those for credentials are
/// not looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    noted: Arc<Mutex<Noted>>,
    /// Counts the bytes that go out, when these are a file's.
    sent: Option<Sent>,
    is_listing: bool,
}

#[derive(Debug, Default)]
struct Noted {
    answer: Option<Answer>,
    is_checked: bool,
    markers: Vec<String>,
}

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
    /// For a step that sends a file's bytes.
    pub(super) fn counting(sent: &Sent) -> Self {
        Self { sent: Some(sent.clone()), ..Self::default() }
    }

    /// For a step that takes a page of a listing.
    pub(super) fn listing() -> Self {
        Self { is_listing: true, ..Self::default() }
    }

    /// Lets the requests of a step be seen.
    pub(super) async fn watch<F: Future>(&self, step: F) -> F::Output {
        SEEN.scope(self.clone(), step).await
    }

    /// The one that watches the present step.
    pub(super) fn current() -> Self {
        SEEN.try_with(Clone::clone).unwrap_or_default()
    }

    pub(super) fn sent(&self) -> Option<&Sent> {
        self.sent.as_ref()
    }

    pub(super) fn is_listing(&self) -> bool {
        self.is_listing
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the answer, unless there has been a refusal before: a step of many requests ends with
    /// the first of these.
    pub(super) fn note(&self, answer: Answer) {
        let mut noted = self.noted();
        if !noted.answer.as_ref().is_some_and(Answer::is_refusal) {
            noted.answer = Some(answer);
        }
    }

    /// The server has said which checksum it has computed, and it is the one that was sent.
    pub(super) fn note_checked(&self) {
        self.noted().is_checked = true;
    }

    pub(super) fn is_checked(&self) -> bool {
        self.noted().is_checked
    }

    /// Keys of a page that end in a slash, without it.
    pub(super) fn note_markers(&self, markers: Vec<String>) {
        self.noted().markers = markers;
    }

    pub(super) fn take_markers(&self) -> Vec<String> {
        std::mem::take(&mut self.noted().markers)
    }

    /// Whether the range that was asked for is not there.
    pub(super) fn is_out_of_range(&self) -> bool {
        let status = |answer: &Answer| match answer {
            Answer::Status(refusal) => Some(refusal.status),
            Answer::Failed(_) => None,
        };
        self.noted().answer.as_ref().and_then(status) == Some(StatusCode::RANGE_NOT_SATISFIABLE)
    }

    /// Where the bucket is, when a refusal has said so.
    pub(super) fn region(&self) -> Option<String> {
        match &self.noted().answer {
            Some(Answer::Status(refusal)) => refusal.region.clone(),
            _ => None,
        }
    }

    /// Why it failed. `is_proven`: the settings have been right before.
    pub(super) fn explain(&self, error: &Error, cloud: Cloud, is_proven: bool) -> TransferError {
        let answer = self.noted().answer.take();
        match answer {
            Some(Answer::Failed(error)) => error,
            Some(Answer::Status(answer)) if answer.status.is_success() => unreadable(error),
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

impl Answer {
    fn is_refusal(&self) -> bool {
        match self {
            Self::Status(answer) => !answer.status.is_success(),
            Self::Failed(_) => true,
        }
    }
}

/// An answer of success that cannot be used. Its texts may quote whole answers.
fn unreadable(error: &Error) -> TransferError {
    match error {
        Error::InvalidPath { .. } => TransferError::Refused {
            found: "there are keys with empty segments, `.` or `..`, which are no names for files"
                .into(),
            hint: "rename these objects at their source, or name each file".into(),
        },
        error => {
            tracing::debug!(%error, "an answer that cannot be used");
            let found = "status 200, with what cannot be read as an answer".into();
            TransferError::Malformed { found }
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
