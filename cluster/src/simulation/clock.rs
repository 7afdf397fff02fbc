//! The clocks of a node: a monotonic one that drifts, and a wall clock that drifts with it, is off
//! by an amount of its own, and steps.

use std::time::Duration;

use policy::Timestamp;

/// What the wall clock says when a run begins: 2026-11-23T03:00:00Z.
pub(super) const BEGIN: u64 = 1_795_402_800_000;

/// The clocks of one node; they outlive its processes.
#[derive(Clone, Debug)]
pub(super) struct NodeClock {
    /// Parts per million by which it runs too fast.
    drift: f64,
    /// Milliseconds by which the wall clock is ahead, without the drift.
    ahead: i64,
}

// === impl NodeClock ===

impl NodeClock {
    pub(super) fn new(drift_ppm: i64, ahead_ms: i64) -> Self {
        Self {
            drift: drift_ppm as f64 / 1e6,
            ahead: ahead_ms,
        }
    }

    /// What a process that began at `started` has seen pass.
    pub(super) fn mono(&self, now: Duration, started: Duration) -> Duration {
        self.seen(now.saturating_sub(started))
    }

    pub(super) fn wall(&self, now: Duration) -> Timestamp {
        let millis = u64::try_from(self.seen(now).as_millis()).unwrap_or(u64::MAX);
        Timestamp((BEGIN + millis).saturating_add_signed(self.ahead))
    }

    pub(super) fn step(&mut self, by_ms: i64) {
        self.ahead += by_ms;
    }

    fn seen(&self, passed: Duration) -> Duration {
        passed.mul_f64(1.0 + self.drift)
    }
}

/// The wall clock of somebody whose clock is right.
pub(super) fn true_time(now: Duration) -> Timestamp {
    Timestamp(BEGIN).plus(now)
}
