//! What Globus says when it does not do as it was asked.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::protocol::TransferError;

/// Characters of a server's message that are shown.
const MESSAGE_CHARS_MAX: usize = 300;

/// A refusal. Of the document only what may be shown is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Globus's own word for it: `ClientError.NotFound`.
    pub(super) code: String,
    /// Its first lines, without control characters.
    pub(super) message: String,
    /// The consents that are missing.
    pub(super) required_scopes: Vec<String>,
    pub(super) retry_after: Option<Duration>,
}

/// Why a call gave no document.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// Globus has answered, and means it.
    Refused(Refusal),
    /// It was not reached, or was too busy, until the patience was at its end.
    GaveUp(TransferError),
    /// No token could be had.
    NoToken(TransferError),
    /// No answer was final, and Globus may have done what it was asked for.
    InDoubt(TransferError),
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    code: Option<String>,
    message: Option<String>,
    /// The word of Globus Auth.
    error: Option<String>,
    required_scopes: Vec<String>,
    authorization_parameters: Parameters,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Parameters {
    required_scopes: Option<Vec<String>>,
    session_message: Option<String>,
}

impl Refusal {
    /// Reads the body of an answer that is no success.
    pub(super) fn read(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let document: Document = serde_json::from_slice(body).unwrap_or_default();
        let parameters = document.authorization_parameters;
        let mut required_scopes = document.required_scopes;
        if required_scopes.is_empty() {
            required_scopes = parameters.required_scopes.unwrap_or_default();
        }
        required_scopes.retain(|scope| is_scope(scope));
        let message = document.message.or(parameters.session_message).unwrap_or_default();
        Self {
            status,
            code: shown(&document.code.or(document.error).unwrap_or_default()),
            message: shown(&message),
            required_scopes,
            retry_after,
        }
    }

    /// Whether the same call may end otherwise in a moment. What a storage system has said by way
    /// of Globus is final, though it comes as status 502.
    pub(super) fn is_temporary(&self) -> bool {
        match self.status.as_u16() {
            408 | 425 | 429 | 500 | 503 | 504 => true,
            502 => !self.code.starts_with("ExternalError."),
            _ => false,
        }
    }

    pub(super) fn is_conflict(&self) -> bool {
        self.status == StatusCode::CONFLICT
    }

    /// Whether a word of the code is this one, as in `ExternalError.MkdirFailed.Exists`.
    pub(super) fn says(&self, word: &str) -> bool {
        self.code.split('.').any(|part| part == word)
    }

    pub(super) fn needs_consent(&self) -> bool {
        self.code == "ConsentRequired"
    }

    /// What it means for a transfer.
    pub(super) fn explain(self) -> TransferError {
        let Self { status, code, message, required_scopes, retry_after } = self;
        let separated = if message.is_empty() { "" } else { ": " };
        let found = match code.as_str() {
            "" => format!("Globus answered with status {status}"),
            code => format!("Globus answered {code} (status {status}){separated}{message}"),
        };
        let says = |word: &str| code.split('.').any(|part| part == word);
        if code == "ConsentRequired" {
            let wanted: Vec<String> =
                required_scopes.iter().map(|scope| format!("--consent '{scope}'")).collect();
            return TransferError::Refused {
                found: format!("{found}; needed: {}", required_scopes.join(" ")),
                hint: format!("give your consent: keelboat login globus {}", wanted.join(" ")),
            };
        }
        if says("EndpointNotFound") {
            let hint = "check the collection's id: app.globus.org shows it".into();
            return TransferError::Refused { found, hint };
        }
        if says("NotFound") || says("FileNotFound") {
            return TransferError::Missing { found };
        }
        if says("PermissionDenied") || says("EndpointPermissionDenied") {
            return TransferError::Forbidden { found };
        }
        match status.as_u16() {
            401 => TransferError::Refused {
                found,
                hint: "log in again: keelboat login globus, or renew the token".into(),
            },
            404 => TransferError::Missing { found },
            403 => TransferError::Forbidden { found },
            408 | 409 | 425 | 429 | 500..=599 => TransferError::Busy { found, retry_after },
            _ => TransferError::Refused {
                found,
                hint: "see what app.globus.org says of the collection".into(),
            },
        }
    }
}

impl CallError {
    pub(super) fn explain(self) -> TransferError {
        match self {
            Self::Refused(refusal) => refusal.explain(),
            Self::GaveUp(error) | Self::NoToken(error) | Self::InDoubt(error) => error,
        }
    }

    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::GaveUp(_) | Self::NoToken(_) | Self::InDoubt(_) => None,
        }
    }

    /// Whether Globus has refused this very call. Who asks, and whether it is well, says nothing
    /// about an earlier try.
    pub(super) fn is_final(&self) -> bool {
        self.refusal().is_some_and(|refusal| {
            let is_about_who_asks = refusal.status == StatusCode::UNAUTHORIZED;
            !is_about_who_asks && !refusal.needs_consent() && !refusal.is_temporary()
        })
    }
}

/// A server's text, on one line and of a reasonable length.
pub(super) fn shown(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ");
    let mut kept: String =
        line.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    if kept.len() < line.len() {
        kept.push_str("...");
    }
    kept
}

/// What can stand in a command line that people copy: never a quote.
pub(super) fn is_scope(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]*@+ ".contains(c);
    !text.is_empty() && text.len() <= 2000 && text.chars().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None)
    }

    #[test]
    fn what_storage_says_is_final_and_what_globus_says_is_not() {
        let exists = refusal(502, r#"{"code":"ExternalError.MkdirFailed.Exists"}"#);
        assert!(!exists.is_temporary() && exists.says("Exists"));
        assert!(refusal(502, "<html>").is_temporary());
        assert!(refusal(429, "{}").is_temporary());
        assert!(!refusal(409, r#"{"code":"Conflict"}"#).is_temporary());
    }

    #[test]
    fn refusals_have_classes() {
        let explained = |status, code: &str| {
            refusal(status, &format!("{{\"code\":\"{code}\",\"message\":\"m\\nn\"}}")).explain()
        };
        assert!(matches!(explained(404, "ClientError.NotFound"), TransferError::Missing { .. }));
        assert!(matches!(explained(404, "EndpointNotFound"), TransferError::Refused { .. }));
        let forbidden = explained(403, "EndpointPermissionDenied");
        assert!(matches!(&forbidden, TransferError::Forbidden { found } if found.ends_with("m n")));
        let gone = explained(502, "ExternalError.DirListingFailed.GCDisconnected");
        assert!(gone.is_retryable(), "{gone}");
        assert!(!explained(400, "ClientError.BadRequest").is_retryable());
    }

    #[test]
    fn a_missing_consent_comes_with_the_command_that_gives_it() {
        let body = r#"{"code":"ConsentRequired","message":"m","authorization_parameters":
            {"required_scopes":["urn:x:all[*https://y/data_access]","'; rm -rf /"]}}"#;
        let error = refusal(403, body).explain();
        let hint = error.hint();
        assert!(hint.ends_with("--consent 'urn:x:all[*https://y/data_access]'"), "{hint}");
    }
}
