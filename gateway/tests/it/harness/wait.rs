//! The one place that waits: a condition is polled until it holds or a deadline passes.

use std::time::{Duration, Instant};

/// How long a condition may take that should hold at once on an idle machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Polls `condition` until it gives a value. Panics with `what` after `SOON`.
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(SOON, condition).unwrap_or_else(|| panic!("not within {SOON:?}: {what}"))
}

/// Polls `condition` until it gives a value or `limit` has passed.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Looks ten times a second for this long: for what is to hold all the time, or to grow.
pub fn look_for(time: Duration, mut look: impl FnMut()) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        look();
        let next = Duration::from_millis(100).min(time.saturating_sub(begun.elapsed()));
        std::thread::sleep(next);
    }
}
