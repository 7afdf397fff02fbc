//! Keeps a fault that repeats many times a second to one log line a minute.

use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);

/// Decides which of many equal complaints is logged.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    next: Option<Instant>,
    silent: u64,
}

impl Throttle {
    /// `Some(how many were kept silent since the last)` when this one may be logged.
    pub(super) fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.silent += 1;
            return None;
        }
        self.next = Some(now + EVERY);
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_and_the_rest_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.allow(start), Some(0));
        assert_eq!(throttle.allow(start + EVERY / 2), None);
        assert_eq!(throttle.allow(start + EVERY / 2), None);
        assert_eq!(throttle.allow(start + EVERY), Some(2));
    }
}
