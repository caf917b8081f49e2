//! Showing how far a file has gone out.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::Delivery;
use crate::fetch::TransferEvent;
use crate::protocol::Sent;
use crate::redact;

/// How often the count is looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Tells observers of the bytes that were sent, until it is ended or dropped.
pub(super) struct Watched(Option<AbortOnDropHandle<()>>);

/// Tells that an earlier try is gone on with.
pub(super) fn tell_resumed(delivery: &Delivery, sent: &Sent) {
    if let Some(progress) = delivery.progress.as_ref().filter(|_| sent.offset() > 0) {
        let (source, offset) = (redact(&delivery.address), sent.offset());
        progress.on_event(&TransferEvent::Resumed { source: &source, offset });
    }
}

impl Watched {
    pub(super) fn begin(delivery: &Delivery, sent: &Sent) -> Self {
        let Some(progress) = delivery.progress.clone() else { return Self(None) };
        let (sent, length) = (sent.clone(), Some(delivery.content.bytes));
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                let position = sent.position();
                Arc::clone(&progress).on_event(&TransferEvent::Received { position, length });
            }
        });
        Self(Some(AbortOnDropHandle::new(task)))
    }

    pub(super) fn end(self) {
        drop(self.0);
    }
}
