//! The engine's clock: the time of day at its start, and from then on a clock that cannot be set.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keelboat_engine::Timestamp;

/// Moments that never go back, not even over a resumed run whose journal is ahead of the clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    pub(crate) fn start(not_before: Timestamp) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let base = Timestamp::default().after(since_1970).max(not_before);
        Self { base, started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.base.after(self.started.elapsed())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
