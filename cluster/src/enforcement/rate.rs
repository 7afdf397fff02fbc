//! How fast an amount grows.

use std::time::Duration;

/// How soon a rise is believed, and a fall. A rise sooner: a rate that is thought too high only makes
/// nodes careful.
const RISE: f64 = 0.3;
const FALL: f64 = 2.0;

/// How long the highest rate is remembered.
const PEAK: f64 = 10.0;

/// Shortest time that is measured over.
const SHORTEST: Duration = Duration::from_millis(50);

/// What the first growth is taken to have taken.
const FIRST: Duration = Duration::from_millis(100);

/// An amount per second, over the last seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    per_second: f64,
    began: Duration,
    at: Option<Duration>,
    pending: f64,
}

/// The highest rate of the last seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    per_second: f64,
    at: Duration,
}

// === impl Rate ===

impl Rate {
    /// Adds a growth.
    pub(crate) fn add(&mut self, amount: u64, now: Duration) {
        let at = *self.at.get_or_insert_with(|| {
            self.began = now.saturating_sub(FIRST);
            self.began
        });
        self.pending += amount as f64;
        if now.saturating_sub(at) >= SHORTEST {
            self.per_second = self.at_time(now);
            self.pending = 0.0;
            self.at = Some(now);
        }
    }

    /// As if nothing had come since.
    pub(crate) fn at_time(&self, now: Duration) -> f64 {
        let Some(at) = self.at else {
            return 0.0;
        };
        let seconds = now.saturating_sub(at).max(SHORTEST).as_secs_f64();
        let sample = self.pending / seconds;
        let slowness = if sample > self.per_second { RISE } else { FALL };
        // At first there is nothing to be slow about.
        let age = now.saturating_sub(self.began).max(SHORTEST).as_secs_f64();
        let weight = (1.0 - (-seconds / slowness).exp()).max(seconds / age);
        self.per_second + weight * (sample - self.per_second)
    }

    /// When it last grew; `None`: never.
    pub(crate) fn grew_at(&self) -> Option<Duration> {
        self.at
    }
}

// === impl Peak ===

impl Peak {
    pub(crate) fn add(&mut self, per_second: f64, now: Duration) {
        self.per_second = per_second.max(self.at_time(now));
        self.at = now;
    }

    pub(crate) fn at_time(&self, now: Duration) -> f64 {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.per_second * (-seconds / PEAK).exp()
    }
}
