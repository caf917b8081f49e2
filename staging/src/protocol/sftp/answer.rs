//! What a server's refusals mean.

use super::wire::{OK, Reply, malformed};
use crate::protocol::TransferError;

/// Success, or the error that a status stands for.
pub(super) fn expect_ok(reply: Reply) -> Result<(), TransferError> {
    match reply {
        Reply::Status { code: OK, .. } => Ok(()),
        other => Err(refusal(other)),
    }
}

/// The error that an answer stands for, which is not the one that was hoped for.
///
/// Codes above 8 are of later versions of the protocol; some servers send them nevertheless.
pub(super) fn refusal(reply: Reply) -> TransferError {
    let Reply::Status { code, message } = reply else {
        return malformed("an answer to another question");
    };
    let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    let found = format!("SFTP status {code}: {message}");
    match code {
        2 | 10 => TransferError::Missing { found },
        3 | 12 => TransferError::Forbidden { found },
        8 => TransferError::Refused {
            found: format!("the server cannot do this ({found})"),
            hint: "use another server, or another scheme".into(),
        },
        14 | 15 => no_space(&found),
        5 => TransferError::Malformed { found },
        _ => TransferError::Busy { found, retry_after: None },
    }
}

/// The server has no room for what is written.
pub(super) fn no_space(found: &str) -> TransferError {
    TransferError::Refused {
        found: format!("there is no space left at the server ({found})"),
        hint: "free some space there, or write elsewhere; then run the same command again".into(),
    }
}

#[cfg(test)]
mod tests {
    use keelboat_engine::FailureClass;

    use super::*;

    #[test]
    fn statuses_have_classes() {
        let class = |code| {
            let reply = Reply::Status { code, message: "x\u{1b}[2J".into() };
            let error = refusal(reply);
            assert!(!error.to_string().contains('\u{1b}'), "{error}");
            error.class()
        };
        assert_eq!(class(2), FailureClass::InputMissing);
        assert_eq!(class(3), FailureClass::Permanent);
        assert_eq!(class(4), FailureClass::Transient);
        assert_eq!(class(14), FailureClass::Permanent);
        let ok = Reply::Status { code: 0, message: String::new() };
        assert_eq!(expect_ok(ok), Ok(()));
    }
}
