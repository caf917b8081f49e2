//! How urgent something is that more may come to wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// As urgent as the most urgent of those who wait; more is sooner. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Urgency(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    now: AtomicU8,
    rose: Notify,
}

impl Urgency {
    pub(crate) fn new(priority: u8) -> Self {
        Self(Arc::new(Inner { now: AtomicU8::new(priority), rose: Notify::new() }))
    }

    pub(crate) fn now(&self) -> u8 {
        self.0.now.load(Ordering::Acquire)
    }

    /// Somebody of this urgency waits, too.
    pub(crate) fn raise(&self, priority: u8) {
        if self.0.now.fetch_max(priority, Ordering::AcqRel) < priority {
            self.0.rose.notify_waiters();
        }
    }

    /// What it is, and how it rises from there.
    pub(crate) fn watch(&self) -> Rising {
        Rising { urgency: self.clone(), seen: self.now() }
    }
}

/// Tells of what becomes more urgent.
#[derive(Debug)]
pub(crate) struct Rising {
    urgency: Urgency,
    seen: u8,
}

impl Rising {
    /// How urgent it is now.
    pub(crate) fn take(&mut self) -> u8 {
        self.seen = self.urgency.now();
        self.seen
    }

    /// Waits until it is more urgent than it was when this was asked last.
    pub(crate) async fn next(&mut self) -> u8 {
        loop {
            // From here on nothing is missed: who asks to be told is told of all that comes later.
            let rose = self.urgency.0.rose.notified();
            let now = self.urgency.now();
            if now > self.seen {
                self.seen = now;
                return now;
            }
            rose.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_rises_is_told_once_and_what_does_not_is_not() {
        let urgency = Urgency::new(3);
        let mut rising = urgency.watch();
        assert_eq!(rising.take(), 3);
        urgency.raise(2);
        urgency.raise(7);
        assert_eq!((rising.next().await, urgency.now()), (7, 7));
        let waiting = tokio::spawn(async move { rising.next().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        urgency.raise(9);
        assert_eq!(waiting.await.unwrap(), 9);
    }
}
