//! Why something could not be brought to where it should be.

use keelboat_engine::{Failure, FailureClass};

use crate::protocol::{Fault, TransferError};

/// A delivery that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write {address}: {error}")]
pub struct DeliverError {
    /// Where to, without secrets.
    pub address: String,
    /// Why not.
    pub error: TransferError,
}

impl DeliverError {
    /// Where the trouble is.
    pub fn fault(&self) -> Fault {
        self.error.fault()
    }

    /// The whole, for reports.
    pub fn failure(&self) -> Failure {
        let class = match self.error.class() {
            // What is missing is no input of a task.
            FailureClass::InputMissing => FailureClass::Permanent,
            class => class,
        };
        let hint = match &self.error {
            TransferError::Missing { .. } => "check the address: the directory that it is in, or \
                                              the bucket, is not there"
                .to_owned(),
            TransferError::Malformed { .. } | TransferError::Changed { .. } => {
                "something else writes to the same address: let it finish first".to_owned()
            }
            error => error.hint(),
        };
        Failure::new(class, self.to_string()).with_hint(hint)
    }
}
