//! The time that all members agree on.
//!
//! Promise: a wall clock that is set moves this time at no moment, not even before the driver has
//! noticed: windows that were moved ahead would give a fresh limit, and then none for as long.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use policy::{Clock, Timestamp};

use crate::core::{Now, STEP_MS};

/// The wall clock with what the cluster says it is off by. Reading it takes no lock.
#[derive(Debug)]
pub(crate) struct ClusterClock {
    wall: Arc<dyn Clock>,
    started: Instant,
    /// Milliseconds to add to the wall clock.
    offset: AtomicI64,
    /// Cluster time less the monotonic one, in milliseconds, when the driver last looked;
    /// `i64::MIN`: it never did.
    anchor: AtomicI64,
}

// === impl ClusterClock ===

impl ClusterClock {
    pub(crate) fn new(wall: Arc<dyn Clock>) -> Self {
        Self {
            wall,
            started: Instant::now(),
            offset: AtomicI64::new(0),
            anchor: AtomicI64::new(i64::MIN),
        }
    }

    /// For the driver, which has to see that the wall clock was set.
    pub(crate) fn read(&self) -> Now {
        Now {
            mono: self.started.elapsed(),
            wall: self.unguarded(),
        }
    }

    /// What the core made of `read`: `millis` are to be added to the wall clock.
    pub(crate) fn follow(&self, read: Now, millis: i64) {
        let before = self.offset.swap(millis, Ordering::AcqRel);
        let wall = signed(read.wall).saturating_add(millis.saturating_sub(before));
        let anchor = wall.saturating_sub(millis_of(read.mono));
        self.anchor.store(anchor, Ordering::Release);
    }

    fn unguarded(&self) -> Timestamp {
        let offset = self.offset.load(Ordering::Acquire);
        Timestamp(self.wall.now().0.saturating_add_signed(offset))
    }

    fn guarded(&self, mono: Duration) -> Timestamp {
        let anchor = self.anchor.load(Ordering::Acquire);
        let now = self.unguarded();
        if anchor == i64::MIN {
            return now;
        }
        let expected = anchor.saturating_add(millis_of(mono));
        match signed(now).abs_diff(expected) >= STEP_MS.unsigned_abs() {
            true => Timestamp(u64::try_from(expected).unwrap_or(0)),
            false => now,
        }
    }
}

impl Clock for ClusterClock {
    fn now(&self) -> Timestamp {
        self.guarded(self.started.elapsed())
    }
}

fn signed(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

fn millis_of(mono: Duration) -> i64 {
    i64::try_from(mono.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use policy::ManualClock;

    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_moves_nothing() {
        let wall = Arc::new(ManualClock::new(Timestamp(1_000_000)));
        let clock = ClusterClock::new(Arc::clone(&wall) as Arc<dyn Clock>);
        let at = |ms| Duration::from_millis(ms);
        assert_eq!(clock.guarded(at(0)), Timestamp(1_000_000));
        let read = |ms, wall| Now {
            mono: at(ms),
            wall: Timestamp(wall),
        };
        clock.follow(read(100, 1_000_000), 0);
        wall.advance(Duration::from_millis(10));
        assert_eq!(clock.guarded(at(110)), Timestamp(1_000_010));
        // An hour ahead; the driver has not looked yet.
        wall.advance(Duration::from_secs(3_600));
        assert_eq!(clock.guarded(at(115)), Timestamp(1_000_015));
        assert_eq!(clock.read().wall, Timestamp(4_600_010));
        clock.follow(read(120, 4_600_010), -3_599_990);
        assert_eq!(clock.guarded(at(121)), Timestamp(1_000_020));
        // The offset creeps.
        clock.follow(read(130, 1_000_030), -3_599_989);
        assert_eq!(clock.guarded(at(900)), Timestamp(1_000_801));
    }
}
