//! What limits give while members are apart: to each side its part of what was left, or, where
//! sides are to be available, the whole to each.
//!
//! Promise: under `share` all sides together take no more than was left when they parted, and what
//! was taken before that was noticed, which the bounds tell. What a side learns of the others
//! meanwhile is neither taken from its part nor given to it.

use std::time::Duration;

use policy::Counter;

use super::heartbeats::STALE;
use super::{Core, Now};
use crate::cell::Slot;
use crate::config::Partition;
use crate::data_dir::NodeKey;
use crate::enforcement;

/// What this side may do while members are missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Up to where it may go.
    pub(super) ceiling: u64,
    /// What was left for all sides.
    rest: u64,
    /// The most sides that there may be besides this one.
    others: u64,
}

// === impl Core ===

impl Core {
    /// While members are apart, what is not judged yet may go as far as this side's share of it.
    pub(super) fn part(&mut self) {
        let (apart, configured) = (&self.split.apart, self.config.configured_nodes);
        let parts = match (self.shares(), self.split.stopped) {
            (true, true) => (0, 1),
            (true, false) => self.split.parts(apart, configured),
            (false, _) => (1, 1),
        };
        if parts != self.judging.parts {
            self.judging.parts = parts;
            self.counting.table.part(parts.0, parts.1);
        }
    }

    /// Whether members are apart, and limits give shares then.
    fn shares(&self) -> bool {
        self.config.partition == Partition::Share
            && (!self.split.apart.is_empty() || self.split.stopped)
    }

    /// Where each side has the whole of its limits: how many others there may be. Every node that is
    /// apart may be a side of its own, and so may all others if nothing is known of any.
    fn free_sides(&self, now: Now) -> u64 {
        let apart = self.split.apart.len() as u64;
        match self.config.partition {
            Partition::Share => 0,
            Partition::Available if apart == 0 && self.knows_of_nobody(now.mono) => {
                self.config.configured_nodes.saturating_sub(1)
            }
            Partition::Available => apart,
        }
    }

    /// Up to where this side may go, while members are missing: what was used when they went, its part
    /// of the rest, and what the store has told since of the use of theirs.
    pub(super) fn share_of(&mut self, slot: Slot, counter: &Counter, now: Now) -> Option<Share> {
        if !self.shares() {
            return None;
        }
        let (apart, stopped) = (&self.split.apart, self.split.stopped);
        let (visible, members) = self.split.parts(apart, self.config.configured_nodes);
        let (limit, base) = self.limit_and_base(slot, counter, now)?;
        let limited = self.counting.counters.at(slot)?.limited.as_ref()?;
        let grown = match counter.id().expires_at(0) {
            Some(_) => limited.elsewhere.grown(),
            // What is held is part of the base.
            None => 0,
        };
        let part = enforcement::share_ceiling(limit, base, visible, members);
        let ceiling = match stopped {
            true => 0,
            false => part.saturating_add(grown).min(limit),
        };
        Some(Share {
            ceiling,
            rest: limit.saturating_sub(base),
            others: self.split.apart.len() as u64,
        })
    }

    /// What the other sides may take while each has the whole limit.
    pub(super) fn taken_elsewhere(
        &mut self,
        slot: Slot,
        counter: &Counter,
        now: Now,
    ) -> Option<u64> {
        let sides = self.free_sides(now);
        if sides == 0 {
            return None;
        }
        let (limit, base) = self.limit_and_base(slot, counter, now)?;
        Some(limit.saturating_sub(base).saturating_mul(sides))
    }

    /// A limit, and what all had used of it when members parted; of what is in flight at a time, what
    /// those who are apart hold.
    fn limit_and_base(&mut self, slot: Slot, counter: &Counter, now: Now) -> Option<(u64, u64)> {
        let id = counter.id();
        let held = match id.expires_at(0) {
            Some(_) => None,
            None => Some(self.held_apart(slot)),
        };
        let limited = self.counting.counters.at_mut(slot)?.limited()?;
        let counts = |epoch| id.expires_at(epoch).is_some_and(|end| end > now.wall);
        let base = held.unwrap_or_else(|| limited.base.live(counts));
        Some((limited.limit, base))
    }

    pub(super) fn held_apart(&self, slot: Slot) -> u64 {
        let (apart, counting) = (&self.split.apart, &self.counting);
        let origins = counting.store.origins();
        origins
            .filter(|(origin, _)| apart.contains(&origin.node))
            .filter(|(origin, _)| counting.holds_count(*origin))
            .flat_map(|(_, cells)| cells.of(slot).filter(|(epoch, _)| *epoch == 0))
            .fold(0, |sum, (_, state)| sum.saturating_add(state.held))
    }

    /// Keeps what was seen while every member was heard.
    pub(super) fn note_base(&mut self, slot: Slot, told: &[(i64, u64)], now: Now) {
        if !self.split.apart.is_empty() {
            return;
        }
        let (heard, me) = (self.split.heard, self.config.me);
        let cells = self.counting.store.origin(me);
        let own: Vec<(i64, u64)> = cells.map_or_else(Vec::new, |cells| {
            let amount = |state: crate::cell::CellState| state.used.saturating_add(state.held);
            cells
                .of(slot)
                .map(|(epoch, state)| (epoch, amount(state)))
                .collect()
        });
        let totals = || own.iter().chain(told).copied().collect();
        if let Some(limited) = self
            .counting
            .counters
            .at_mut(slot)
            .and_then(|tracked| tracked.limited.as_mut())
        {
            limited.base.note(heard, now.mono, totals);
        }
    }

    /// Keeps what those who are apart have of a counter.
    pub(super) fn note_elsewhere(&mut self, slot: Slot, counter: &Counter, now: Now) {
        let apart = &self.split.apart;
        let id = counter.id();
        let counts = |epoch| id.expires_at(epoch).is_none_or(|end| end > now.wall);
        let theirs = match apart.is_empty() {
            true => 0,
            false => self.counting.of_nodes(apart, slot, counts),
        };
        let tracked = self.counting.counters.at_mut(slot);
        if let Some(limited) = tracked.and_then(|tracked| tracked.limited()) {
            limited.note_elsewhere(self.split.changes, theirs);
            let keep = |node, epoch| apart.contains(&node) && counts(epoch);
            limited.elsewhere.keep(keep);
        }
    }

    /// The store told more of a node. What peers tell of one that is apart is no reason to go on: then
    /// who is cut off from whom differs from node to node, and parts overlap.
    pub(super) fn store_told(&mut self, node: NodeKey, slot: Slot, epoch: i64, more: u64) {
        if !self.split.apart.contains(&node) {
            return;
        }
        let tracked = self.counting.counters.at_mut(slot);
        if let Some(limited) = tracked.and_then(|tracked| tracked.limited()) {
            limited.elsewhere.grew(node, epoch, more);
        }
    }
}

// === impl Share ===

impl Share {
    /// What may be taken beyond the shares: until a split is noticed each side goes on as before, to the
    /// whole limit at most; and one whose part is taken had not stopped before its row was old.
    pub(super) fn beyond(self, rate: f64, gap: Duration) -> (u64, u64) {
        let within = |time: Duration| (rate * time.as_secs_f64()).ceil() as u64;
        let unnoticed = within(gap).min(self.rest.saturating_mul(self.others));
        (unnoticed, within(STALE).min(self.rest))
    }
}
