//! What every origin counted, as this node knows it.
//!
//! Promise: merging is commutative, associative and idempotent; a cell's settled total never falls.
//! So a cell may come twice, late or by any way. Owner of the cells of all origins, this process's
//! published ones among them. Bounded: beyond [`CellStore::most`] new cells of others are refused.
//! Failure: none; what cannot be kept is told to the caller.

mod origin_cells;
mod slots;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;

use policy::Timestamp;

pub(crate) use self::origin_cells::{CellState, OriginCells};
pub(crate) use self::slots::{Slot, Slots};

use crate::origin::Origin;

/// Most cells of all origins.
pub(crate) const MOST_CELLS: usize = 1_000_000;

/// Most origins, live ones and those whose windows have not passed.
const MOST_ORIGINS: usize = 4_096;

/// Largest amount that is believed: beyond, sums of many origins could pass a `u64`.
const LARGEST: u64 = 1 << 56;

/// How long an expired cell is kept, for nodes whose clock is behind.
pub(crate) const GRACE_MS: u64 = 5_000;

/// A cell of one origin: which counter, which epoch.
pub(crate) type CellKey = (Slot, i64);

/// What a cell adds to its counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) used: u64,
    pub(crate) held: u64,
}

/// What merging one cell did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// The amounts may have changed.
    News { before: Amounts, after: Amounts },
    /// Nothing new.
    Known,
    /// Its window has passed.
    Expired,
    /// Its window begins too far in the future.
    Ahead,
    /// There is no room.
    Refused,
}

/// A cell that was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) origin: Origin,
    pub(crate) key: CellKey,
    pub(crate) amounts: Amounts,
}

/// Cells of all origins.
#[derive(Debug)]
pub(crate) struct CellStore {
    origins: BTreeMap<Origin, OriginCells>,
    count: usize,
    most: usize,
    /// Where the next sweep goes on.
    cursor: Option<(Origin, CellKey)>,
}

// === impl CellStore ===

impl CellStore {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            origins: BTreeMap::new(),
            count: 0,
            most,
            cursor: None,
        }
    }

    /// Cells of all origins.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn origin(&self, origin: Origin) -> Option<&OriginCells> {
        self.origins.get(&origin)
    }

    pub(crate) fn origins(&self) -> impl Iterator<Item = (Origin, &OriginCells)> {
        self.origins.iter().map(|(origin, cells)| (*origin, cells))
    }

    /// Up to which version everything of an origin is here.
    pub(crate) fn seen(&self, origin: Origin) -> u64 {
        self.origins.get(&origin).map_or(0, OriginCells::seen)
    }

    /// What is here of others may lack something: all of it is to be asked for again.
    pub(crate) fn doubt(&mut self, me: Origin) {
        let others = self.origins.iter_mut().filter(|(origin, _)| **origin != me);
        others.for_each(|(_, cells)| cells.doubt());
    }

    /// Everything up to `ver` is here.
    pub(crate) fn advance(&mut self, origin: Origin, ver: u64) {
        if self.has_room_for(origin) {
            self.origins.entry(origin).or_default().advance(ver);
        }
    }

    /// Takes over a cell.
    pub(crate) fn merge(
        &mut self,
        origin: Origin,
        key: CellKey,
        mut state: CellState,
        now: Timestamp,
    ) -> Merged {
        if is_expired(state.expires_at, now) {
            return Merged::Expired;
        }
        if !self.has_room_for(origin) {
            return Merged::Refused;
        }
        let cells = self.origins.entry(origin).or_default();
        if self.count >= self.most && cells.state(key).is_none() {
            return Merged::Refused;
        }
        state.used = state.used.min(LARGEST);
        state.held = state.held.min(LARGEST);
        let (before, after) = cells.merge(key, state);
        if before.is_none() {
            self.count += 1;
        }
        if before == Some(after) {
            return Merged::Known;
        }
        Merged::News {
            before: before.map(CellState::amounts).unwrap_or_default(),
            after: after.amounts(),
        }
    }

    /// Gives a cell of this process its next version, if its amounts are new; tells the amounts
    /// before. The own cells are always kept.
    pub(crate) fn publish(
        &mut self,
        me: Origin,
        key: CellKey,
        amounts: Amounts,
        expires_at: Timestamp,
    ) -> Option<Amounts> {
        let cells = self.origins.entry(me).or_default();
        let before = cells.state(key);
        let known = before.map(CellState::amounts).unwrap_or_default();
        if known == amounts {
            return None;
        }
        let ver = cells.seen() + 1;
        cells.merge(
            key,
            CellState {
                ver,
                used: amounts.used,
                held: amounts.held,
                expires_at,
            },
        );
        cells.advance(ver);
        if before.is_none() {
            self.count += 1;
        }
        Some(known)
    }

    /// Looks at about `most` cells and removes those whose window has passed; those of origins that
    /// `dropped` names go with all they have.
    pub(crate) fn sweep(
        &mut self,
        most: usize,
        now: Timestamp,
        keep_empty: impl Fn(Origin) -> bool,
        mut removed: impl FnMut(Removed),
    ) {
        let mut left = most;
        let mut cursor = self.cursor.take();
        let from = cursor.map_or(Bound::Unbounded, |(origin, _)| Bound::Included(origin));
        let due: Vec<Origin> = self
            .origins
            .range((from, Bound::Unbounded))
            .map(|(origin, _)| *origin)
            .take(64)
            .collect();
        let all = due.len() < 64;
        for origin in due {
            let Some(cells) = self.origins.get_mut(&origin) else {
                continue;
            };
            let after = cursor.take().filter(|(at, _)| *at == origin);
            let step = cells.sweep(after.map(|(_, key)| key), left, now, |key, amounts| {
                removed(Removed {
                    origin,
                    key,
                    amounts,
                });
            });
            self.count -= step.removed;
            left = left.saturating_sub(step.looked);
            if let Some(key) = step.stopped {
                self.cursor = Some((origin, key));
                return;
            }
            if cells.is_empty() && !keep_empty(origin) {
                self.origins.remove(&origin);
            }
            self.cursor = Some((origin, (Slot::LAST, i64::MAX)));
            if left == 0 {
                return;
            }
        }
        if all {
            self.cursor = None;
        }
    }

    fn has_room_for(&self, origin: Origin) -> bool {
        self.origins.len() < MOST_ORIGINS || self.origins.contains_key(&origin)
    }
}

/// Whether a cell no longer matters to any node whose clock is about right.
pub(crate) fn is_expired(expires_at: Timestamp, now: Timestamp) -> bool {
    expires_at.0.saturating_add(GRACE_MS) <= now.0
}
