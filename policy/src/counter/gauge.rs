//! Requests in flight: a count that only open holds make up.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count without time; nothing of it is ever charged or stored.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    in_flight: AtomicU64,
}

// === impl Gauge ===

impl Gauge {
    /// Takes `amount` unless the count would pass `ceiling`.
    pub(super) fn reserve(&self, amount: u64, ceiling: u64) -> bool {
        self.in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                count.checked_add(amount).filter(|sum| *sum <= ceiling)
            })
            .is_ok()
    }

    /// Takes `amount` even beyond every limit.
    pub(super) fn add(&self, amount: u64) {
        self.in_flight.fetch_add(amount, Ordering::AcqRel);
    }

    /// Gives back what `add` or a successful `reserve` took.
    pub(super) fn release(&self, amount: u64) {
        self.in_flight.fetch_sub(amount, Ordering::AcqRel);
    }

    pub(super) fn count(&self) -> u64 {
        self.in_flight.load(Ordering::Acquire)
    }
}
