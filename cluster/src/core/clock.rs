//! Cluster time: this node's wall clock and what is added to it, so that all nodes agree.
//!
//! The aim is the lower median of all live clocks, so one that is wrong follows the others. Once
//! this node counts, the offset only creeps, and a step of the wall clock is taken out at once:
//! cluster time never goes back. It goes ahead at once only where it is far behind. Where nobody is
//! left to compare with, a step counts as the truth, and cluster time follows it in the same way.

use std::time::Duration;

use policy::Timestamp;

use super::Now;
use super::peer::signed;

/// A jump of the wall clock against the monotonic one that is a step and not a drift.
pub(crate) const STEP_MS: i64 = 250;

/// How fast the offset creeps: a tenth of real time.
const CREEP_PARTS: i64 = 10;

/// A node so far behind the others, as after its machine slept, does not creep: what it counted
/// then has left the window everywhere else.
pub(super) const LEAP_MS: i64 = 10_000;

/// The offset of this node's wall clock.
#[derive(Debug)]
pub(super) struct ClockSync {
    offset_us: i64,
    target_ms: i64,
    /// Steps that were taken out since clocks were last compared.
    unproven_ms: i64,
    last: Option<Now>,
    /// Until this node counts, nothing depends on its time.
    may_step: bool,
}

// === impl ClockSync ===

impl ClockSync {
    pub(super) fn new() -> Self {
        Self {
            offset_us: 0,
            target_ms: 0,
            unproven_ms: 0,
            last: None,
            may_step: true,
        }
    }

    pub(super) fn offset_ms(&self) -> i64 {
        self.offset_us / 1_000
    }

    /// How far cluster time here is from where it should be.
    pub(super) fn error(&self) -> Duration {
        Duration::from_millis(self.target_ms.abs_diff(self.offset_ms()))
    }

    /// This node's own wall clock.
    pub(super) fn raw(&self, now: Now) -> Timestamp {
        let raw = signed(now.wall).saturating_sub(self.offset_ms());
        Timestamp(u64::try_from(raw).unwrap_or(0))
    }

    /// From now on this node counts.
    pub(super) fn settle(&mut self) {
        self.may_step = false;
    }

    /// Takes a step of the wall clock out of `now`; tells it in milliseconds.
    pub(super) fn correct(&mut self, now: Now) -> (Now, i64) {
        let step = match self.last {
            None => 0,
            Some(last) => {
                let passed = now.mono.saturating_sub(last.mono).as_millis();
                let expected =
                    signed(last.wall).saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
                signed(now.wall).saturating_sub(expected)
            }
        };
        let step = if step.abs() >= STEP_MS { step } else { 0 };
        self.offset_us = self.offset_us.saturating_sub(step.saturating_mul(1_000));
        self.target_ms = self.target_ms.saturating_sub(step);
        self.unproven_ms = self.unproven_ms.saturating_add(step);
        let wall = signed(now.wall).saturating_sub(step);
        let corrected = Now {
            mono: now.mono,
            wall: Timestamp(u64::try_from(wall).unwrap_or(0)),
        };
        self.last = Some(corrected);
        (corrected, step)
    }

    /// Aims at the lower median of `offsets`, those of live peers, and 0, its own.
    pub(super) fn aim(&mut self, mut offsets: Vec<i64>) {
        offsets.push(0);
        offsets.sort_unstable();
        self.target_ms = offsets[(offsets.len() - 1) / 2];
        self.unproven_ms = 0;
    }

    /// Nobody is there who could know better: the wall clock was right to step.
    pub(super) fn believe_steps(&mut self) {
        let steps = std::mem::take(&mut self.unproven_ms);
        self.target_ms = self.target_ms.saturating_add(steps);
    }

    /// Moves the offset, for the time that passed; tells by how many milliseconds.
    pub(super) fn creep(&mut self, passed: Duration) -> i64 {
        let before = self.offset_ms();
        let left = self
            .target_ms
            .saturating_mul(1_000)
            .saturating_sub(self.offset_us);
        let most = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX) / CREEP_PARTS;
        self.offset_us += match self.may_step || left >= LEAP_MS * 1_000 {
            true => left,
            false => left.clamp(-most, most),
        };
        let moved = self.offset_ms() - before;
        if let Some(last) = &mut self.last {
            // What comes next has the new offset in it.
            let wall = signed(last.wall).saturating_add(moved);
            last.wall = Timestamp(u64::try_from(wall).unwrap_or(0));
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64, wall: i64) -> Now {
        Now {
            mono: Duration::from_millis(mono_ms),
            wall: Timestamp(u64::try_from(wall).unwrap()),
        }
    }

    #[test]
    fn one_wrong_clock_follows_the_others() {
        let mut wrong = ClockSync::new();
        wrong.aim(vec![-5_000, -5_001]);
        assert_eq!(wrong.creep(Duration::from_millis(10)), -5_000);
        assert_eq!(wrong.offset_ms(), -5_000);
        let mut right = ClockSync::new();
        right.aim(vec![5_000, 1]);
        right.creep(Duration::from_millis(10));
        assert_eq!(right.offset_ms(), 1);
    }

    #[test]
    fn a_serving_node_only_creeps() {
        let mut clock = ClockSync::new();
        clock.settle();
        clock.aim(vec![100, 100]);
        clock.creep(Duration::from_millis(100));
        assert_eq!(clock.offset_ms(), 10);
        assert_eq!(clock.error(), Duration::from_millis(90));
        for _ in 0..20 {
            clock.creep(Duration::from_millis(100));
        }
        assert_eq!(clock.offset_ms(), 100);
    }

    #[test]
    fn a_node_that_slept_leaps_ahead_and_never_back() {
        let ms = Duration::from_millis(10);
        for (target, offset) in [(3_600_000, 3_600_000), (9_000, 1), (-3_600_000, -1)] {
            let mut clock = ClockSync::new();
            clock.settle();
            clock.aim(vec![target, target]);
            clock.creep(ms);
            assert_eq!(clock.offset_ms(), offset, "{target}");
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_is_taken_out() {
        let mut clock = ClockSync::new();
        clock.settle();
        assert_eq!(clock.correct(at(0, 1_000_000)).1, 0);
        let (now, step) = clock.correct(at(10, 1_005_010));
        assert_eq!((now.wall, step), (Timestamp(1_000_010), 5_000));
        assert_eq!(clock.offset_ms(), -5_000);
        // The driver adds the offset now.
        assert_eq!(clock.correct(at(20, 1_000_020)).1, 0);
        assert_eq!(clock.raw(at(20, 1_000_020)), Timestamp(1_005_020));
    }

    #[test]
    fn a_step_that_nobody_contradicts_is_believed() {
        let hours_6 = 6 * 3_600_000;
        for (step, offset) in [(hours_6, -5_000), (-hours_6, hours_6 - 5_000 - 1)] {
            let mut clock = ClockSync::new();
            clock.aim(vec![-5_000, -5_000]);
            clock.creep(Duration::from_millis(10));
            clock.settle();
            clock.correct(at(0, 2_000_000_000_000));
            assert_eq!(clock.correct(at(10, 2_000_000_000_010 + step)).1, step);
            clock.creep(Duration::from_millis(10));
            assert_eq!(clock.offset_ms(), -5_000 - step, "somebody may know better");
            clock.believe_steps();
            clock.creep(Duration::from_millis(10));
            // Far ahead at once, and back only slowly.
            assert_eq!(clock.offset_ms(), offset);
            clock.believe_steps();
            clock.creep(Duration::from_millis(10));
            assert!(clock.offset_ms().abs_diff(offset) <= 1, "once");
        }
    }
}
