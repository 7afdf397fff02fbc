//! Which counters have changed since somebody last looked, lock-free.
//!
//! Promise: no change is lost. Whoever changes a counter marks it after the
//! last write; whoever looks takes the mark away before the first read. So a
//! mark that was already there when a change came is taken away later, by
//! somebody who sees the change. A marked counter stands in the queue once.

use std::sync::atomic::AtomicBool as Flag;
use std::sync::{Arc, Weak};

use crossbeam_queue::SegQueue;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, Ordering};

use super::Counter;
use super::fleet::{Division, Side};

/// Whether a counter changed since its mark was last taken away.
#[derive(Debug)]
pub(super) struct Mark {
    set: AtomicBool,
}

/// What the counters of one tracking table have in common.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    changed: SegQueue<Arc<Counter>>,
    /// Some counter grew by its trigger.
    urgent: Flag,
    /// The table is gone, and nobody takes anything any more.
    closed: Flag,
    pub(super) division: Division,
    pub(super) side: Side,
}

/// A counter's way to its table's tracker.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) tracker: Arc<Tracker>,
    me: Weak<Counter>,
    mark: Mark,
}

// === impl Mark ===

impl Default for Mark {
    fn default() -> Self {
        Self {
            set: AtomicBool::new(false),
        }
    }
}

impl Mark {
    /// After the last write; whether it was not set before.
    pub(super) fn set(&self) -> bool {
        !self.set.swap(true, Ordering::AcqRel)
    }

    /// Before the first read.
    pub(super) fn clear(&self) {
        // A swap and not a store: it sees what everybody wrote who found the
        // mark set.
        self.set.swap(false, Ordering::AcqRel);
    }
}

// === impl Tracked ===

impl Tracked {
    pub(super) fn new(tracker: Arc<Tracker>, me: Weak<Counter>) -> Self {
        Self {
            tracker,
            me,
            mark: Mark::default(),
        }
    }

    /// Tells that the counter has changed; after the last write.
    pub(super) fn changed(&self) {
        if self.mark.set()
            && let Some(counter) = self.me.upgrade()
        {
            self.tracker.put(counter);
        }
    }
}

// === impl Tracker ===

impl Tracker {
    fn put(&self, counter: Arc<Counter>) {
        if !self.closed.load(Ordering::Acquire) {
            self.changed.push(counter);
        }
    }

    pub(super) fn take(&self, most: usize) -> Vec<Arc<Counter>> {
        // What comes while this runs is left for the next time.
        let count = self.changed.len().min(most);
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let Some(counter) = self.changed.pop() else {
                break;
            };
            if let Some(tracked) = &counter.tracked {
                tracked.mark.clear();
            }
            taken.push(counter);
        }
        taken
    }

    pub(super) fn set_urgent(&self) {
        self.urgent.store(true, Ordering::Release);
    }

    pub(super) fn take_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::AcqRel)
    }

    /// Counters in the queue hold the tracker; without this both stay.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        while self.changed.pop().is_some() {}
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
mod tests;
