//! The largest of recent durations.

use std::time::Duration;

/// How long one of the two halves lasts.
const HALF: Duration = Duration::from_secs(5);

/// The largest duration of the last 5 to 10 s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WindowMax {
    began: Duration,
    current: Option<Duration>,
    previous: Option<Duration>,
}

impl WindowMax {
    pub(crate) fn add(&mut self, value: Duration, now: Duration) {
        let halves = self.halves_since(now);
        if halves > 0 {
            self.previous = self.current.take().filter(|_| halves == 1);
            self.began = now;
        }
        self.current = self.current.max(Some(value));
    }

    /// `None`: nothing was added lately; then the last thing that was counts on.
    pub(crate) fn known(&self, now: Duration) -> Option<Duration> {
        match self.halves_since(now) {
            0 => self.current.max(self.previous),
            _ => self.current.or(self.previous),
        }
    }

    /// The same, zero if nothing was ever added.
    pub(crate) fn largest(&self, now: Duration) -> Duration {
        self.known(now).unwrap_or_default()
    }

    fn halves_since(&self, now: Duration) -> u32 {
        let passed = now.saturating_sub(self.began);
        match passed {
            passed if passed < HALF => 0,
            passed if passed < HALF * 2 => 1,
            _ => 2,
        }
    }
}
