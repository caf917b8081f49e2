//! What the answers of FTP servers mean for a transfer (RFC 959, section 4.2).

use suppaftp::FtpError;
use suppaftp::types::Response;

use crate::protocol::TransferError;
use crate::protocol::error::HINT_CERTIFICATES;

/// Characters of an answer that are shown.
const SHOWN_MAX: usize = 200;

/// One answer: its code and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u32,
    /// All lines, with their codes.
    pub(super) text: String,
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        let text = String::from_utf8_lossy(&response.body).trim_end().to_owned();
        let code = match response.status.code() {
            // The library does not know all codes.
            0 => text.lines().last().and_then(|line| line.get(..3)?.parse().ok()).unwrap_or(0),
            code => code,
        };
        Self { code, text }
    }
}

impl Reply {
    /// A refusal without the names in the command, whose words would be taken for the server's.
    pub(super) fn to(self, command: &str) -> Self {
        let argument = command.split_once(' ').map_or("", |(_, argument)| argument);
        let name = argument.rsplit('/').next().unwrap_or_default();
        if self.code < 400 {
            return self;
        }
        let text = without(&without(&self.text, argument), name);
        Self { text, ..self }
    }

    /// The text of the last line, after its code.
    pub(super) fn last(&self) -> &str {
        self.text.lines().last().and_then(|line| line.get(4..)).unwrap_or_default().trim()
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether the command, or this form of it, is unknown there.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self.code, 500 | 501 | 502 | 504 | 522)
    }

    /// Whether nothing is served before the connection is encrypted.
    pub(super) fn demands_tls(&self) -> bool {
        self.code >= 400 && ["tls", "ssl", "encrypt"].iter().any(|word| self.says(word))
    }

    /// Whether the text holds these words, lower case.
    pub(super) fn says(&self, words: &str) -> bool {
        self.text.to_ascii_lowercase().contains(words)
    }

    /// The answer in one line, without what could confuse a terminal.
    pub(super) fn shown(&self) -> String {
        let line = self.text.lines().last().unwrap_or_default();
        let text: String = line.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect();
        format!("the server answered {text:?}")
    }

    /// Why a command was not obeyed.
    pub(super) fn refusal(&self) -> TransferError {
        let found = self.shown();
        if matches!(self.code, 521 | 522 | 530 | 534) && self.demands_tls() {
            return TransferError::Refused {
                found,
                hint: "write ftps:// in the place of ftp://".into(),
            };
        }
        match self.code {
            530 if self.says("too many") || self.says("maximum") || self.says("limit") => {
                TransferError::Busy { found, retry_after: None }
            }
            430 | 530 | 532 => TransferError::Forbidden { found },
            400..=499 => TransferError::Busy { found, retry_after: None },
            550 | 553 if self.is_denial() => TransferError::Forbidden { found },
            550 => TransferError::Missing { found },
            // The disk, or the user's share of it, is full: that may end.
            552 => TransferError::Busy { found, retry_after: None },
            500..=599 => TransferError::Refused {
                found,
                hint: "try the address with another FTP client; the server may lack a command"
                    .into(),
            },
            _ => TransferError::Malformed { found },
        }
    }

    fn is_denial(&self) -> bool {
        let words =
            ["permission", "denied", "not permitted", "not allowed", "forbidden", "not authorized"];
        words.iter().any(|words| self.says(words))
    }
}

/// The text without a name that stands by itself in it.
fn without(text: &str, name: &str) -> String {
    if name.is_empty() {
        return text.to_owned();
    }
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(name) {
        let is_part =
            before.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        kept.push_str(before);
        kept.push_str(if is_part { name } else { "..." });
        rest = after;
    }
    kept + rest
}

/// Why a connection could not be used. Connections with such an error are not used again.
pub(super) fn failure(error: FtpError) -> TransferError {
    match error {
        FtpError::UnexpectedResponse(response) => Reply::from(response).refusal(),
        FtpError::SecureError(found) if found.contains("certificate") => {
            TransferError::Refused { found, hint: HINT_CERTIFICATES.into() }
        }
        FtpError::SecureError(found) => {
            TransferError::Unreachable { found: format!("TLS failed: {found}") }
        }
        FtpError::ConnectionError(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            TransferError::Malformed { found: error.to_string() }
        }
        FtpError::ConnectionError(error) => TransferError::Unreachable { found: error.to_string() },
        other => TransferError::Malformed { found: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use keelboat_engine::FailureClass;

    use super::*;

    fn reply(text: &str) -> Reply {
        let status = suppaftp::Status::Unknown;
        Response::new(status, format!("{text}\r\n").into_bytes()).into()
    }

    #[test]
    fn answers_have_classes() {
        for (text, class) in [
            ("421 Too many connections", FailureClass::Transient),
            ("530 Sorry, the maximum number of clients is connected", FailureClass::Transient),
            ("530 Login incorrect.", FailureClass::Permanent),
            ("550 x: No such file or directory", FailureClass::InputMissing),
            ("550 x: Permission denied", FailureClass::Permanent),
            ("530 SSL/TLS required on the control channel", FailureClass::Permanent),
            ("450 File busy", FailureClass::Transient),
            ("451 Local error", FailureClass::Transient),
            ("502 Not implemented", FailureClass::Permanent),
            ("553 x: Operation not allowed", FailureClass::Permanent),
            ("999 what", FailureClass::Transient),
        ] {
            assert_eq!(reply(text).refusal().class(), class, "{text}");
        }
    }

    #[test]
    fn names_are_not_taken_for_what_the_server_says() {
        let to = |text, command| reply(text).to(command);
        let missing = to("550 tls/permission denied: No such file", "RETR tls/permission denied");
        assert_eq!(missing.text, "550 ...: No such file");
        let denied = to("550 a: Permission denied for a", "RETR /x/a");
        assert_eq!(denied.text, "550 ...: Permission denied for ...");
        assert_eq!(to("213 100", "SIZE 100").text, "213 100");
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        let long = format!("550-first\r\n550 \x1b[31m{}", "x".repeat(1_000));
        let shown = reply(&long).shown();
        assert!(
            shown.len() < 300 && !shown.contains('\x1b') && !shown.contains("first"),
            "{shown}"
        );
    }
}
