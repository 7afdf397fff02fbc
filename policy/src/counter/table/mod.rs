//! All counters of a node by identity.
//!
//! Owner of the counters across reloads: limits of a new snapshot take the
//! same `Arc<Counter>`. Nothing here takes a lock, as end users get counters
//! while a request is judged.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::counter::track::Tracker;
use crate::counter::{Cell, Counter, CounterId};
use crate::time::Timestamp;

/// Counters by identity.
#[derive(Debug, Default)]
pub struct CounterTable {
    counters: papaya::HashMap<ById, ()>,
    /// `None` where nobody asks what has changed.
    tracker: Option<Arc<Tracker>>,
}

/// A counter that is found by its own identity, which so exists once.
#[derive(Debug)]
struct ById(Arc<Counter>);

// === impl ById ===

impl Borrow<CounterId> for ById {
    fn borrow(&self) -> &CounterId {
        self.0.id()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for ById {}

// === impl CounterTable ===

impl CounterTable {
    /// A table without counters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A table without counters that remembers which of them change.
    #[must_use]
    pub fn tracking() -> Self {
        Self {
            tracker: Some(Arc::default()),
            counters: papaya::HashMap::default(),
        }
    }

    /// At most `most` counters that have changed since they were last taken,
    /// the longest waiting first. What changes meanwhile is in the next ones.
    /// None where the table does not track.
    #[must_use]
    pub fn take_changed(&self, most: usize) -> Vec<Arc<Counter>> {
        let tracker = self.tracker.as_ref();
        tracker.map_or_else(Vec::new, |tracker| tracker.take(most))
    }

    /// Whether some counter grew by its trigger since this was last asked.
    #[must_use]
    pub fn take_urgent(&self) -> bool {
        let tracker = self.tracker.as_ref();
        tracker.is_some_and(|tracker| tracker.take_urgent())
    }

    /// Divides strict limits among `nodes`, of which this is number `rank`
    /// from 0: its own part may reach its share of a limit, and all shares
    /// together are the limit. With one node, the default, nothing is divided.
    /// Only a tracking table can be divided.
    pub fn divide(&self, nodes: u64, rank: u64) {
        if let Some(tracker) = &self.tracker {
            tracker.division.set(nodes, rank);
        }
    }

    /// While nodes are missing: `visible` of `nodes` are on this side, and a
    /// limit whose counter has no ceiling of its own may reach that part of
    /// its amount. With all of them visible, the default, it is the limit.
    /// Only a tracking table can be parted.
    pub fn part(&self, visible: u64, nodes: u64) {
        if let Some(tracker) = &self.tracker {
            tracker.side.set(visible, nodes);
        }
    }

    /// The counter of this identity, made at zero if there is none.
    #[must_use]
    pub fn counter(&self, id: &CounterId) -> Arc<Counter> {
        let counters = self.counters.pin();
        loop {
            let found = match counters.get_key_value(id) {
                Some((found, ())) => Arc::clone(&found.0),
                None => {
                    let made = Counter::tracked(id, self.tracker.as_ref());
                    if counters.try_insert(ById(Arc::clone(&made)), ()).is_err() {
                        continue;
                    }
                    made
                }
            };
            if found.keep_alive() {
                return found;
            }
            // It was dropped in this moment; the next one starts at zero, as
            // this one stood.
            remove(&counters, &found);
        }
    }

    /// Whether there is a counter of this identity that is not at zero.
    pub(crate) fn is_counting(&self, id: &CounterId, now: Timestamp) -> bool {
        let counters = self.counters.pin();
        counters
            .get_key_value(id)
            .is_some_and(|(counter, ())| !counter.0.is_idle(now))
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
        for (counter, ()) in &self.counters.pin() {
            counter.0.cells(now, &mut cells);
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
            .map(|(counter, ())| (counter.0.id().clone(), Arc::clone(&counter.0)))
            .filter(|(_, counter)| counter.keep_alive())
            .collect();
        counters.sort_by(|left, right| left.0.cmp(&right.0));
        counters
    }

    /// Drops counters that no limit uses and that hold nothing at `now`.
    pub fn drop_idle(&self, now: Timestamp) {
        let counters = self.counters.pin();
        for (ById(counter), ()) in &counters {
            if Arc::strong_count(counter) == 1 && Counter::try_end(counter, now) {
                remove(&counters, counter);
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

impl Drop for CounterTable {
    fn drop(&mut self) {
        if let Some(tracker) = &self.tracker {
            tracker.close();
        }
    }
}

/// Removes exactly this counter.
fn remove<G: papaya::Guard>(
    counters: &papaya::HashMapRef<'_, ById, (), std::hash::RandomState, G>,
    counter: &Arc<Counter>,
) {
    // Whoever comes second finds another counter, or none.
    let _ = counters.remove_if(counter.id(), |present, ()| Arc::ptr_eq(&present.0, counter));
}

#[cfg(test)]
mod tests;
