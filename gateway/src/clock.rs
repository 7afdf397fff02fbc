//! The only place that reads time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use policy::{Clock, Timestamp};

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 counts as 1970; windows are monotone anyway.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A point on the monotonic clock, for durations.
pub fn monotonic() -> Instant {
    Instant::now()
}
