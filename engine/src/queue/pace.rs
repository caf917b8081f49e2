//! Bytes per second, by a token bucket that may be in debt.

use std::time::Duration;

use crate::Timestamp;

/// What may go through at once after a pause, as time at full speed.
const BURST_MS: u64 = 250;

/// Who takes bytes out waits afterwards, until the debt is paid; so those who share one are served
/// in the order in which they came.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    bytes_per_second: u64,
    /// In thousandths of a byte, so that each millisecond adds a whole number.
    level: i128,
    at: Timestamp,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1);
        Self { bytes_per_second, level: full(bytes_per_second), at: Timestamp(0) }
    }

    /// Takes bytes out that came already; how long to wait before the next ones.
    pub(super) fn take(&mut self, now: Timestamp, bytes: u64) -> Duration {
        self.refill(now);
        self.level -= i128::from(bytes) * 1000;
        let rate = i128::from(self.bytes_per_second);
        let wait_ms = (-self.level + rate - 1).max(0) / rate;
        Duration::from_millis(u64::try_from(wait_ms).unwrap_or(u64::MAX))
    }

    fn refill(&mut self, now: Timestamp) {
        let elapsed_ms = now.0.saturating_sub(self.at.0);
        let more = i128::from(elapsed_ms).saturating_mul(i128::from(self.bytes_per_second));
        self.level = self.level.saturating_add(more).min(full(self.bytes_per_second));
        self.at = self.at.max(now);
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_full(&self, now: Timestamp) -> bool {
        let mut later = self.clone();
        later.refill(now);
        later.level == full(self.bytes_per_second)
    }
}

fn full(bytes_per_second: u64) -> i128 {
    i128::from(bytes_per_second) * i128::from(BURST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_at_the_rate_after_the_burst() {
        let mut bucket = Bucket::new(1_000_000);
        let mut now = Timestamp(5_000);
        let mut sent = 0_u64;
        while sent < 10_000_000 {
            sent += 64_000;
            now = now.after(bucket.take(now, 64_000));
        }
        let seconds = now.since(Timestamp(5_000)).as_secs_f64();
        assert!((9.7..10.0).contains(&seconds), "10 MB at 1 MB/s, 0.25 s at once: {seconds} s");
    }

    #[test]
    fn those_who_share_one_wait_behind_each_other() {
        let mut bucket = Bucket::new(1000);
        let now = Timestamp(1);
        let waits: Vec<_> = (0..3).map(|_| bucket.take(now, 1000).as_millis()).collect();
        assert_eq!(waits, [750, 1750, 2750]);
        assert!(!bucket.is_full(Timestamp(2_000)) && bucket.is_full(Timestamp(4_000)));
    }

    #[test]
    fn no_rate_and_no_amount_overflows() {
        for rate in [0, 1, u64::MAX] {
            let mut bucket = Bucket::new(rate);
            bucket.take(Timestamp(u64::MAX), u64::MAX);
            bucket.take(Timestamp(u64::MAX), u64::MAX);
        }
    }
}
