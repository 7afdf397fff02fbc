//! The cells of one origin, by counter and by version.

use std::collections::BTreeMap;
use std::ops::Bound;

use policy::Timestamp;

use super::{Amounts, CellKey, Slot, is_expired};

/// One cell's newest state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellState {
    /// The origin's number of it; 0: read from the store, which keeps none.
    pub(crate) ver: u64,
    pub(crate) used: u64,
    pub(crate) held: u64,
    pub(crate) expires_at: Timestamp,
}

/// Cells of one origin.
#[derive(Debug, Default)]
pub(crate) struct OriginCells {
    cells: BTreeMap<CellKey, CellState>,
    /// Those with a version.
    by_ver: BTreeMap<u64, CellKey>,
    seen: u64,
}

/// What one step of a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) looked: usize,
    pub(super) removed: usize,
    /// Where to go on; `None`: at the end.
    pub(super) stopped: Option<CellKey>,
}

// === impl CellState ===

impl CellState {
    pub(crate) fn amounts(self) -> Amounts {
        Amounts {
            used: self.used,
            held: self.held,
        }
    }

    /// The newer version decides about holds and for how long they matter; settled totals only grow.
    pub(crate) fn joined(self, other: Self) -> Self {
        let newer = |state: Self| (state.ver, state.held, state.expires_at);
        let newer = newer(self).max(newer(other));
        Self {
            ver: newer.0,
            held: newer.1,
            used: self.used.max(other.used),
            expires_at: newer.2,
        }
    }
}

// === impl OriginCells ===

impl OriginCells {
    /// Up to which version everything is here.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// It is not known what is here.
    pub(super) fn doubt(&mut self) {
        self.seen = 0;
    }

    pub(super) fn advance(&mut self, ver: u64) {
        self.seen = self.seen.max(ver);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub(crate) fn state(&self, key: CellKey) -> Option<CellState> {
        self.cells.get(&key).copied()
    }

    /// All cells, by counter and epoch.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CellKey, CellState)> {
        self.cells.iter().map(|(key, state)| (*key, *state))
    }

    /// The cells of one counter, by epoch.
    pub(crate) fn of(&self, slot: Slot) -> impl Iterator<Item = (i64, CellState)> {
        self.cells
            .range((slot, i64::MIN)..=(slot, i64::MAX))
            .map(|((_, epoch), state)| (*epoch, *state))
    }

    /// Cells with a version above `after`, by version.
    pub(crate) fn newer(&self, after: u64) -> impl Iterator<Item = (CellKey, CellState)> {
        self.by_ver
            .range((Bound::Excluded(after), Bound::Unbounded))
            .filter_map(|(_, key)| Some((*key, self.state(*key)?)))
    }

    /// At most `most` cells, by counter and epoch: all, or those without a version.
    pub(crate) fn some(
        &self,
        after: Option<CellKey>,
        most: usize,
        all: bool,
    ) -> Vec<(CellKey, CellState)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.cells
            .range((from, Bound::Unbounded))
            .filter(|(_, state)| all || state.ver == 0)
            .take(most)
            .map(|(key, state)| (*key, *state))
            .collect()
    }

    /// Joins a state to what is known; tells the state before and after.
    pub(super) fn merge(
        &mut self,
        key: CellKey,
        state: CellState,
    ) -> (Option<CellState>, CellState) {
        let before = self.cells.get(&key).copied();
        let after = before.map_or(state, |before| before.joined(state));
        if before == Some(after) {
            return (before, after);
        }
        self.cells.insert(key, after);
        let old = before.map_or(0, |before| before.ver);
        if old != after.ver {
            if self.by_ver.get(&old) == Some(&key) {
                self.by_ver.remove(&old);
            }
            self.by_ver.insert(after.ver, key);
        }
        (before, after)
    }

    /// Removes expired cells among the next `most` ones.
    pub(super) fn sweep(
        &mut self,
        after: Option<CellKey>,
        most: usize,
        now: Timestamp,
        mut removed: impl FnMut(CellKey, Amounts),
    ) -> Swept {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut swept = Swept::default();
        let mut gone = Vec::new();
        let mut last = None;
        for (key, state) in self.cells.range((from, Bound::Unbounded)).take(most) {
            swept.looked += 1;
            last = Some(*key);
            if is_expired(state.expires_at, now) {
                gone.push((*key, *state));
            }
        }
        swept.stopped = last.filter(|_| swept.looked == most);
        swept.removed = gone.len();
        for (key, state) in gone {
            self.cells.remove(&key);
            if self.by_ver.get(&state.ver) == Some(&key) {
                self.by_ver.remove(&state.ver);
            }
            removed(key, state.amounts());
        }
        swept
    }
}
