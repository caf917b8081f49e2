//! Looking for a moment, before sleeping.

use std::time::{Duration, Instant};

/// How long somebody looks for what comes next before the thread sleeps.
const MOMENT: Duration = Duration::from_micros(30);

/// Waits until this holds, for a moment and without sleeping; others run meanwhile. Whether it does.
pub(crate) fn pause_until(mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if begun.elapsed() >= MOMENT {
            return false;
        }
        std::thread::yield_now();
    }
}
