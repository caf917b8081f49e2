//! How urgent something is that more may come to wait for.

use std::sync::Arc;

use tokio::sync::watch;

/// As urgent as the most urgent of those who wait; more is sooner. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Urgency(Arc<watch::Sender<u8>>);

impl Urgency {
    pub(crate) fn new(priority: u8) -> Self {
        Self(Arc::new(watch::Sender::new(priority)))
    }

    pub(crate) fn now(&self) -> u8 {
        *self.0.borrow()
    }

    /// Somebody of this urgency waits, too.
    pub(crate) fn raise(&self, priority: u8) {
        self.0.send_if_modified(|now| {
            let is_more = priority > *now;
            *now = priority.max(*now);
            is_more
        });
    }

    /// What it is, and how it rises from there.
    pub(crate) fn watch(&self) -> Rising {
        Rising(self.0.subscribe())
    }
}

/// Tells of what becomes more urgent, as long as its [`Urgency`] is there.
#[derive(Debug)]
pub(crate) struct Rising(watch::Receiver<u8>);

impl Rising {
    /// How urgent it is now.
    pub(crate) fn take(&mut self) -> u8 {
        *self.0.borrow_and_update()
    }

    /// Waits until it is more urgent than it was when this was asked last.
    pub(crate) async fn next(&mut self) -> u8 {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.take()
    }
}
