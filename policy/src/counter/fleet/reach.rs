//! What a counter may reach with others beside it, and how full it is then.

use std::sync::atomic::Ordering;

use super::{FleetPart, Mode};
use crate::counter::remote::Remote;
use crate::counter::{Bound, Count, Counter, Level};
use crate::limit::Enforcement;
use crate::time::Timestamp;

// === impl Counter ===

impl Counter {
    /// Whether no other node has to do with it, nor ever has to hear of it.
    /// A node alone pays for nothing else here.
    #[inline]
    fn is_alone(&self) -> bool {
        self.tracked.is_none() && self.fleet.get().is_none()
    }

    /// What others count at `now`.
    pub(in crate::counter) fn remote_total(&self, now: Timestamp) -> u64 {
        let remote = self.fleet.get().and_then(|fleet| fleet.remote.get());
        remote.map_or(0, |remote| remote.total(self.present(now), now))
    }

    /// Adds what others have.
    pub(in crate::counter) fn with_remote(&self, mut level: Level, now: Timestamp) -> Level {
        let Some(fleet) = self.fleet.get() else {
            return level;
        };
        fleet.sweep();
        let remote = self.remote_total(now);
        self.note_total(fleet, level.own.saturating_add(remote), now);
        // Requests in flight are shown as used, here as elsewhere.
        let held = match &self.count {
            Count::Gauge(_) => 0,
            _ => fleet.held.load(Ordering::Acquire).min(remote),
        };
        level.used = level.used.saturating_add(remote - held);
        level.reserved = level.reserved.saturating_add(held);
        let resets_at = match fleet.remote.get() {
            Some(Remote::Sliding(others)) => others.resets_at(now),
            _ => now,
        };
        level.resets_at = level.resets_at.max(resets_at);
        level
    }

    /// What this node's own part may reach.
    #[inline]
    pub(crate) fn own_ceiling(&self, bound: Bound, now: Timestamp) -> u64 {
        if self.is_alone() {
            return bound.amount.min(self.countable());
        }
        self.own_ceiling_among_nodes(bound, now)
    }

    #[inline(never)]
    fn own_ceiling_among_nodes(&self, bound: Bound, now: Timestamp) -> u64 {
        let together = self.shared_ceiling(bound);
        let left = together.saturating_sub(self.remote_total(now));
        match self.share(bound) {
            Some(share) => left.min(self.own_share(share, now)),
            None => left,
        }
    }

    /// After a refusal at `own`: what this node's own part may reach, if that
    /// is more. Others' amounts may have expired and not be taken out yet; a
    /// refusal must not rest on them.
    #[inline(never)]
    pub(in crate::counter) fn swept_ceiling(
        &self,
        bound: Bound,
        own: u64,
        now: Timestamp,
    ) -> Option<u64> {
        self.fleet.get()?.sweep();
        let swept = self.own_ceiling(bound, now);
        (swept > own).then_some(swept)
    }

    /// What this node and the others may reach together.
    pub(in crate::counter) fn shared_ceiling(&self, bound: Bound) -> u64 {
        let limit = bound.amount.min(self.countable());
        if self.share(bound).is_some() {
            return limit;
        }
        match self.fleet.get().and_then(|fleet| fleet.ceiling()) {
            Some(ceiling) => limit.min(ceiling),
            // It was not in use when the nodes parted.
            None => {
                let tracked = self.tracked.as_ref();
                tracked.map_or(limit, |tracked| tracked.tracker.side.part(limit))
            }
        }
    }

    /// This node's part of a limit that is divided.
    pub(in crate::counter) fn share(&self, bound: Bound) -> Option<u64> {
        let tracked = self.tracked.as_ref()?;
        if bound.enforcement != Enforcement::Strict {
            return None;
        }
        let limit = bound.amount.min(self.countable());
        tracked.tracker.division.share(limit)
    }

    /// What earlier starts of this node have left of its share.
    pub(in crate::counter) fn own_share(&self, share: u64, now: Timestamp) -> u64 {
        let past = self.fleet.get().and_then(|fleet| fleet.past.get());
        share.saturating_sub(past.map_or(0, |past| past.total(self.present(now), now)))
    }

    /// What a limit may reach here.
    #[inline]
    pub(crate) fn ceiling(&self, bound: Bound) -> u64 {
        if self.is_alone() {
            return bound.amount.min(self.countable());
        }
        self.ceiling_among_nodes(bound)
    }

    #[inline(never)]
    fn ceiling_among_nodes(&self, bound: Bound) -> u64 {
        let together = self.shared_ceiling(bound);
        self.share(bound)
            .map_or(together, |share| share.min(together))
    }

    /// How a limit is held, and by how much all nodes may pass it.
    pub(crate) fn mode(&self, bound: Bound) -> (Mode, Option<u64>) {
        let fleet = self.fleet.get();
        let overshoot_bound = fleet.and_then(|fleet| fleet.overshoot_bound());
        if self.share(bound).is_some() {
            return (Mode::Divided, overshoot_bound);
        }
        (
            fleet.map_or(Mode::Single, |fleet| fleet.mode()),
            overshoot_bound,
        )
    }

    /// Keeps by how much `total` is beyond the limit.
    pub(super) fn note_total(&self, fleet: &FleetPart, total: u64, now: Timestamp) {
        let Some(bound) = self.asked.bound() else {
            return;
        };
        let over = if total > bound.amount {
            // What stands in an epoch still to come here takes the place of
            // what has left where it was used.
            let remote = fleet.remote.get();
            let ahead = remote.map_or(0, |remote| remote.ahead(self.present(now)));
            total.saturating_sub(ahead).saturating_sub(bound.amount)
        } else {
            0
        };
        let since_left = now.0 >= fleet.overshoot_until.load(Ordering::Acquire);
        if total == 0 || since_left {
            fleet.overshoot.store(over, Ordering::Release);
        } else {
            fleet.overshoot.fetch_max(over, Ordering::AcqRel);
        }
        if over > 0 {
            let until = self.id.expires_at(self.id.epoch(now));
            let until = until.unwrap_or(Timestamp::NEVER);
            fleet.overshoot_until.store(until.0, Ordering::Release);
        }
    }
}
