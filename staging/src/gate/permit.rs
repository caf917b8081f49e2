//! A connection that somebody may have.

use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::queue::{Answer, TicketId};

use super::{Gate, State, TROUBLES_MAX};
use crate::protocol::TransferError;

/// Held as long as a connection is used, or waited for; dropped, it is given back.
#[derive(Debug)]
pub struct Permit {
    gate: Gate,
    ticket: TicketId,
    host: Arc<str>,
}

impl Permit {
    pub(super) const fn new(gate: Gate, ticket: TicketId, host: Arc<str>) -> Self {
        Self { gate, ticket, host }
    }

    /// Tells the gate how the host answered.
    pub(crate) fn report<T>(&self, result: &Result<T, TransferError>) {
        let Some(answer) = answer_of(result) else { return };
        {
            let now = self.gate.now();
            let mut state = self.gate.lock();
            let went_down = state.queue.report(now, self.ticket, answer);
            state.remember(&self.host, result.as_ref().err(), answer);
            if went_down {
                tracing::warn!(host = &*self.host, "the host does not answer and is left alone");
            }
        }
        self.gate.pump();
    }

    /// How long to wait before the next bytes, after these.
    pub(crate) fn grant(&self, bytes: u64) -> Duration {
        self.gate.grant(self.ticket, bytes)
    }

    /// The pace of this connection, for those who send over it.
    pub(crate) fn pace(&self) -> Pace {
        Pace { gate: self.gate.clone(), ticket: self.ticket }
    }
}

/// How fast bytes may go over a connection. Holds no place: once the permit is given back it says
/// nothing more.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    gate: Gate,
    ticket: TicketId,
}

impl Pace {
    /// How long to wait before the next bytes, after these.
    pub(crate) fn grant(&self, bytes: u64) -> Duration {
        self.gate.grant(self.ticket, bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let now = self.gate.now();
            let mut state = self.gate.lock();
            state.waiting.remove(&self.ticket);
            state.queue.end(now, self.ticket);
        }
        self.gate.pump();
    }
}

impl State {
    fn remember(&mut self, host: &Arc<str>, error: Option<&TransferError>, answer: Answer) {
        match (answer, error) {
            (Answer::Given, _) | (_, None) => drop(self.troubles.remove(host)),
            (_, Some(error)) => {
                if self.troubles.len() >= TROUBLES_MAX && !self.troubles.contains_key(host) {
                    self.troubles.pop_first();
                }
                self.troubles.insert(Arc::clone(host), error.clone());
            }
        }
    }
}

/// What a result says of the host; `None`: nothing.
fn answer_of<T>(result: &Result<T, TransferError>) -> Option<Answer> {
    use TransferError as Error;
    Some(match result {
        Err(Error::Busy { retry_after: Some(span), .. }) => Answer::Later(*span),
        Err(Error::Busy { .. } | Error::Unreachable { .. } | Error::Stalled { .. }) => {
            Answer::Missing
        }
        Err(Error::Local { .. }) => return None,
        Ok(_) | Err(_) => Answer::Given,
    })
}
