//! All counters of a node by identity.
//!
//! Owner of the counters across reloads: limits of a new snapshot take the
//! same `Arc<Counter>`. The lock is taken at load, reload, restore and in the
//! admin API, never while a request is judged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counter::{Cell, Counter, CounterId};
use crate::time::Timestamp;

/// Counters by identity.
#[derive(Debug, Default)]
pub struct CounterTable {
    counters: Mutex<HashMap<CounterId, Arc<Counter>>>,
}

// === impl CounterTable ===

impl CounterTable {
    /// A table without counters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of this identity, made at zero if there is none.
    #[must_use]
    pub fn counter(&self, id: &CounterId) -> Arc<Counter> {
        let mut counters = self.lock();
        if let Some(counter) = counters.get(id) {
            return Arc::clone(counter);
        }
        let counter = Arc::new(Counter::new(id));
        counters.insert(id.clone(), Arc::clone(&counter));
        counter
    }

    /// Puts settled amounts back. A cell whose window has passed on its
    /// counter is left out; one from a window still to come (the clock was
    /// ahead) counts until that ends. Tells how many cells name no counter
    /// that this version knows.
    pub fn restore(&self, cells: &[Cell]) -> usize {
        let mut unknown = 0;
        for cell in cells {
            match cell.counter.parse::<CounterId>() {
                Ok(id) => self.counter(&id).restore(cell.epoch, cell.amount),
                Err(_) => unknown += 1,
            }
        }
        unknown
    }

    /// All counters, sorted by identity.
    #[must_use]
    pub fn counters(&self) -> Vec<(CounterId, Arc<Counter>)> {
        let mut counters: Vec<_> = self
            .lock()
            .iter()
            .map(|(id, counter)| (id.clone(), Arc::clone(counter)))
            .collect();
        counters.sort_by(|left, right| left.0.cmp(&right.0));
        counters
    }

    /// Drops counters that no limit uses and that hold nothing at `now`.
    pub fn drop_idle(&self, now: Timestamp) {
        self.lock()
            .retain(|_, counter| Arc::strong_count(counter) > 1 || !counter.is_idle(now));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CounterId, Arc<Counter>>> {
        // The map is whole between any two of its operations.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
