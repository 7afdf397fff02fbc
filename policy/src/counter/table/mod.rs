//! All counters of a node by identity.
//!
//! Owner of the counters across reloads: limits of a new snapshot take the
//! same `Arc<Counter>`. Nothing here takes a lock, as end users get counters
//! while a request is judged.

use std::sync::Arc;

use crate::counter::{Cell, Counter, CounterId};
use crate::time::Timestamp;

/// Counters by identity.
#[derive(Debug, Default)]
pub struct CounterTable {
    counters: papaya::HashMap<CounterId, Arc<Counter>>,
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
        let counters = self.counters.pin();
        loop {
            let found = counters.get(id).unwrap_or_else(|| {
                counters.get_or_insert_with(id.clone(), || Arc::new(Counter::new(id)))
            });
            let counter = Arc::clone(found);
            if counter.keep_alive() {
                return counter;
            }
            // It was dropped in this moment; the next one starts at zero, as
            // this one stood.
            remove(&counters, id, &counter);
        }
    }

    /// Whether there is a counter of this identity that is not at zero.
    pub(crate) fn is_counting(&self, id: &CounterId, now: Timestamp) -> bool {
        let counters = self.counters.pin();
        counters
            .get(id)
            .is_some_and(|counter| !counter.is_idle(now))
    }

    /// Puts settled amounts back. A cell whose window has passed on its
    /// counter is left out; one from a window still to come (the clock was
    /// ahead) counts until that ends. Tells how many cells name no counter
    /// that this version knows.
    pub fn restore(&self, cells: &[Cell]) -> usize {
        self.each_cell(cells, |counter, cell| {
            counter.restore(cell.epoch, cell.amount);
        })
    }

    /// Makes the settled amount of each cell at least what it says; doing it
    /// twice changes nothing. Otherwise like `restore`.
    pub fn raise(&self, cells: &[Cell]) -> usize {
        self.each_cell(cells, |counter, cell| {
            counter.raise(cell.epoch, cell.amount);
        })
    }

    /// What is settled and still counts at `now`, holds left out; sorted by
    /// counter and epoch. Amounts settled at the same time may be missing.
    #[must_use]
    pub fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (_, counter) in &self.counters.pin() {
            counter.cells(now, &mut cells);
        }
        cells
            .sort_by(|left, right| (&left.counter, left.epoch).cmp(&(&right.counter, right.epoch)));
        cells
    }

    /// All counters, sorted by identity.
    #[must_use]
    pub fn counters(&self) -> Vec<(CounterId, Arc<Counter>)> {
        let mut counters: Vec<_> = self
            .counters
            .pin()
            .iter()
            .map(|(id, counter)| (id.clone(), Arc::clone(counter)))
            .filter(|(_, counter)| counter.keep_alive())
            .collect();
        counters.sort_by(|left, right| left.0.cmp(&right.0));
        counters
    }

    /// Drops counters that no limit uses and that hold nothing at `now`.
    pub fn drop_idle(&self, now: Timestamp) {
        let counters = self.counters.pin();
        for (id, counter) in &counters {
            if Arc::strong_count(counter) == 1 && Counter::try_end(counter, now) {
                remove(&counters, id, counter);
            }
        }
    }

    fn each_cell(&self, cells: &[Cell], put: impl Fn(&Counter, &Cell)) -> usize {
        let mut unknown = 0;
        for cell in cells {
            match cell.counter.parse::<CounterId>() {
                Ok(id) => put(&self.counter(&id), cell),
                Err(_) => unknown += 1,
            }
        }
        unknown
    }
}

/// Removes exactly this counter.
fn remove<G: papaya::Guard>(
    counters: &papaya::HashMapRef<'_, CounterId, Arc<Counter>, std::hash::RandomState, G>,
    id: &CounterId,
    counter: &Arc<Counter>,
) {
    // Whoever comes second finds another counter, or none.
    let _ = counters.remove_if(id, |_, present| Arc::ptr_eq(present, counter));
}

#[cfg(test)]
mod tests;
