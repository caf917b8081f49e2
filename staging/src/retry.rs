//! When the next try may be made, and when it is no longer worth one.
//!
//! The only place that knows the crate `backoff`. Jitter comes from a seed, so that tests can
//! repeat a schedule.

use std::time::{Duration, Instant};

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::fetch::{NextTry, TransferEvent};
use crate::protocol::{BoxFuture, TransferError};

/// How often, and for how long, one address is tried. Only what brings no new byte counts: a
/// transfer that advances between its cuts goes on for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryBudget {
    /// Tries in a row without progress, the first one included.
    pub tries_max: u32,
    /// Time since the last progress after which no further try begins.
    pub elapsed_max: Duration,
    /// Wait before the second try; doubled with each further one, ±50 %.
    pub wait_min: Duration,
    /// The longest wait, unless the server asks for a longer one.
    pub wait_max: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            tries_max: 8,
            elapsed_max: Duration::from_mins(15),
            wait_min: Duration::from_millis(500),
            wait_max: Duration::from_mins(1),
        }
    }
}

/// The state of the tries at one address.
#[derive(Debug)]
pub(crate) struct Retries {
    budget: RetryBudget,
    backoff: ExponentialBackoff,
    failures: u32,
    last_progress: Instant,
    random: u64,
}

impl Retries {
    pub(crate) fn new(budget: &RetryBudget, seed: u64, now: Instant) -> Self {
        let mut backoff = ExponentialBackoff {
            initial_interval: budget.wait_min,
            max_interval: budget.wait_max,
            multiplier: 2.0,
            // Its own jitter cannot be seeded.
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        backoff.reset();
        Self { budget: budget.clone(), backoff, failures: 0, last_progress: now, random: seed }
    }

    /// New bytes came: the budget is whole again.
    pub(crate) fn on_progress(&mut self, now: Instant) {
        self.failures = 0;
        self.last_progress = now;
        self.backoff.reset();
    }

    /// A try failed. How long to wait before the next one; `None`: there is none.
    pub(crate) fn on_failure(
        &mut self,
        now: Instant,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        self.failures += 1;
        let interval = self.backoff.next_backoff()?;
        let wait =
            interval.mul_f64(0.5 + self.next_fraction()).max(retry_after.unwrap_or_default());
        let elapsed = now.duration_since(self.last_progress);
        let goes_on =
            self.failures < self.budget.tries_max && elapsed + wait <= self.budget.elapsed_max;
        goes_on.then_some(wait)
    }

    /// Time passed that was nobody's fault: it does not count.
    pub(crate) fn excuse(&mut self, span: Duration) {
        self.last_progress += span;
    }

    /// After this moment no further try begins; `None`: beyond the clock.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.last_progress.checked_add(self.budget.elapsed_max)
    }

    /// The try that follows after those that failed.
    pub(crate) const fn next_try(&self) -> NextTry {
        NextTry { number: self.failures + 1, of: self.budget.tries_max }
    }

    /// Failed tries since the last progress.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// From 0 to 1, by `SplitMix64` (Steele, Lea, Flood 2014).
    fn next_fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let thousandths = u32::try_from(z % 1001).unwrap_or_default();
        f64::from(thousandths) / 1000.0
    }
}

/// Does something without progress in between until it is done, as often as the budget allows.
/// `tell` hears of each wait.
pub(crate) async fn insist<'a, T>(
    retries: &mut Retries,
    shown: &str,
    tell: &(dyn Fn(&TransferEvent<'_>) + Send + Sync),
    attempt: impl Fn() -> BoxFuture<'a, Result<T, TransferError>> + Send,
) -> Result<T, TransferError> {
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let wait = retries.on_failure(Instant::now(), error.retry_after());
        let Some(wait) = wait.filter(|_| error.is_retryable()) else { return Err(error) };
        let (cause, next) = (error.to_string(), Some(retries.next_try()));
        tell(&TransferEvent::Waiting { source: shown, cause: &cause, wait, next });
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> RetryBudget {
        RetryBudget {
            tries_max: 4,
            elapsed_max: Duration::from_secs(100),
            wait_min: Duration::from_secs(1),
            wait_max: Duration::from_secs(4),
        }
    }

    #[test]
    fn waits_double_within_their_jitter_and_end() {
        let start = Instant::now();
        let mut retries = Retries::new(&budget(), 7, start);
        for expected in [1.0, 2.0, 4.0] {
            let wait = retries.on_failure(start, None).unwrap().as_secs_f64();
            assert!((expected * 0.5..=expected * 1.5).contains(&wait), "{wait} for {expected}");
        }
        assert_eq!(retries.on_failure(start, None), None);
    }

    #[test]
    fn one_seed_is_one_schedule() {
        let start = Instant::now();
        let waits = |seed| {
            let mut retries = Retries::new(&budget(), seed, start);
            [retries.on_failure(start, None), retries.on_failure(start, None)]
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn progress_makes_the_budget_whole() {
        let start = Instant::now();
        let mut retries = Retries::new(&budget(), 7, start);
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            retries.on_progress(now);
            assert!(retries.on_failure(now, None).is_some());
        }
    }

    #[test]
    fn a_server_may_ask_for_a_longer_wait_but_not_beyond_the_budget() {
        let start = Instant::now();
        let mut retries = Retries::new(&budget(), 7, start);
        let minute = Duration::from_mins(1);
        assert_eq!(retries.on_failure(start, Some(minute)), Some(minute));
        assert_eq!(retries.on_failure(start + minute, Some(minute)), None);
    }
}
