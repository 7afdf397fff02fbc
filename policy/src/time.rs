//! Instants as values, and the trait through which callers bring the time in.
//!
//! Nothing in this crate reads a clock; the gateway owns the only one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::calendar::{DAY_MS, date_of};

/// Milliseconds since 1970-01-01T00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// A source of the present time; may step backwards.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still until it is told otherwise.
#[derive(Debug, Default)]
pub struct ManualClock {
    millis: AtomicU64,
}

// === impl Timestamp ===

impl Timestamp {
    /// Later than every instant of a clock; fits a signed number too.
    pub const NEVER: Self = Self(i64::MAX as u64);

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0
    }

    /// This much later; saturates at the end of time.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Time passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// UTC in the form `2026-02-28T23:59:59Z`, with milliseconds only when
    /// there are any.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let date = date_of(day_number(self));
        let of_day = self.0 % DAY_MS;
        let (seconds, millis) = (of_day / 1_000, of_day % 1_000);
        let mut text = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            date.year,
            date.month,
            date.day,
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        );
        if millis > 0 {
            text.push_str(&format!(".{millis:03}"));
        }
        text.push('Z');
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Days since 1970-01-01.
pub(crate) fn day_number(at: Timestamp) -> i64 {
    i64::try_from(at.0 / DAY_MS).expect("2^64 ms are fewer than 2^63 days")
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            millis: AtomicU64::new(now.0),
        }
    }

    /// Moves to `now`, backwards too.
    pub fn set(&self, now: Timestamp) {
        self.millis.store(now.0, Ordering::SeqCst);
    }

    /// Moves on by `step` (whole milliseconds) and tells the new time.
    pub fn advance(&self, step: Duration) -> Timestamp {
        let millis = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
        Timestamp(
            self.millis
                .fetch_add(millis, Ordering::SeqCst)
                .saturating_add(millis),
        )
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.millis.load(Ordering::SeqCst))
    }
}
