//! foca's timers, in its order, and what lateness of this node does to them.
//!
//! Promise: timers come out by time, those of one time in foca's order. When this node did not run
//! for a while, all that was waiting waits that much longer, as if time had stood still.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::Timer;

use super::super::identity::Identity;

/// A tick that is late by more than this is noted.
pub(crate) const LATE: Duration = Duration::from_millis(250);
/// Worst local health.
const WORST: u32 = 8;
/// Time without lateness that betters the health by one.
const RECOVERY: Duration = Duration::from_secs(10);
/// One round of probes.
pub(super) const PROBE_PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Timers {
    waiting: BTreeMap<(Duration, u8, u64), Timer<Identity>>,
    count: u64,
    health: u32,
    /// When the health changed last.
    noted: Duration,
}

impl Timers {
    pub(super) fn schedule(&mut self, after: Duration, timer: Timer<Identity>, now: Duration) {
        // Who is late itself gives others twice the time to answer.
        let doubled = self.health > 0
            && matches!(
                timer,
                Timer::SendIndirectProbe { .. } | Timer::ProbeRandomMember(_)
            );
        let after = if doubled { after * 2 } else { after };
        self.insert(now + after, timer);
    }

    fn insert(&mut self, at: Duration, timer: Timer<Identity>) {
        self.count += 1;
        self.waiting.insert((at, rank(&timer), self.count), timer);
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|((at, ..), _)| *at)
    }

    /// The next timer that is due.
    pub(super) fn next(&mut self, now: Duration) -> Option<Timer<Identity>> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// By how much the first timer is overdue.
    pub(super) fn overdue(&self, now: Duration) -> Duration {
        self.due()
            .map_or(Duration::ZERO, |due| now.saturating_sub(due))
    }

    pub(super) fn note_lateness(&mut self, late: Duration, now: Duration) {
        // What was noted a moment ago by somebody else is the same lateness.
        let late = late.min(now.saturating_sub(self.noted));
        if late <= LATE {
            return;
        }
        self.health = (self.health + 1).min(WORST);
        self.noted = now;
        for ((at, ..), timer) in std::mem::take(&mut self.waiting) {
            let held = match timer {
                Timer::ChangeSuspectToDown { .. } => PROBE_PERIOD,
                _ => Duration::ZERO,
            };
            self.insert(at + late + held, timer);
        }
    }

    /// Betters the health of a node that is on time.
    pub(super) fn recover(&mut self, now: Duration) {
        if self.health > 0 && now >= self.noted + RECOVERY {
            self.health -= 1;
            self.noted = now;
        }
    }

    pub(super) fn health(&self) -> u32 {
        self.health
    }
}

/// foca's order of timers that are due at once.
fn rank(timer: &Timer<Identity>) -> u8 {
    match timer {
        Timer::SendIndirectProbe { .. } => 0,
        Timer::ProbeRandomMember(_) => 1,
        Timer::ChangeSuspectToDown { .. } => 2,
        Timer::PeriodicAnnounce(_) => 3,
        Timer::PeriodicGossip(_) => 4,
        Timer::RemoveDown(_) => 5,
        Timer::PeriodicAnnounceDown(_) => 6,
    }
}
