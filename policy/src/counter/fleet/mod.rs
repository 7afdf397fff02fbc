//! The part of a counter that other nodes have: what they used, how far this
//! node may go, and what is told to them.
//!
//! Owner: whoever keeps the nodes together writes it; admission only reads.
//! What others used leaves by time alone, so a writer that stands still
//! freezes nothing. `reach` is what admission makes of it.

mod reach;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::remote::Remote;
use super::sliding::Others;
use super::track::Tracked;
use super::{Bound, Count, Counter};
use crate::limit::Enforcement;
use crate::time::Timestamp;

/// How a limit is held among nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One node alone; exact.
    #[default]
    Single,
    /// Against what all nodes are known to have used.
    Live,
    /// Near its end: each node has a part of the rest.
    GuardBand,
    /// Nodes are missing: each side has its part of the rest.
    Share,
    /// Each node has its part of the whole.
    Divided,
}

/// How far a counter may go among nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// What this node's and the others' use may reach together, by admissions
    /// here; `u64::MAX` = the limit alone decides. Before one is set, it is the
    /// part of the limit that `CounterTable::part` gives.
    pub ceiling: u64,
    /// How the limit is held, for show.
    pub mode: Mode,
    /// By how much all nodes together may pass the limit; `None` = not known.
    pub overshoot_bound: Option<u64>,
    /// How much this node may take before the others should hear of it at
    /// once; `u64::MAX` = they never have to.
    pub trigger: u64,
}

/// What this node counts in one epoch, since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnCell {
    /// Index of the period or sub-window; 0 for requests in flight.
    pub epoch: i64,
    /// Requests, tokens or nano-dollars, settled.
    pub used: u64,
    /// The same, held by requests in flight.
    pub held: u64,
    /// When it no longer counts.
    pub expires_at: Timestamp,
}

/// How strict limits are divided among nodes: nodes and rank in one word.
#[derive(Debug, Default)]
pub(super) struct Division(AtomicU64);

/// The part of all limits that is this side's while nodes are missing: all
/// nodes and those on this side in one word; 0 while none is.
#[derive(Debug, Default)]
pub(super) struct Side(AtomicU64);

/// Made when there are other nodes that the counter has to do with.
#[derive(Debug)]
pub(super) struct FleetPart {
    remote: OnceLock<Remote>,
    /// The part of it that earlier starts of this node have.
    past: OnceLock<Remote>,
    /// The held part of it, for show.
    held: AtomicU64,
    ceiling: AtomicU64,
    mode: AtomicU8,
    /// `u64::MAX` = not known.
    overshoot_bound: AtomicU64,
    trigger: AtomicU64,
    /// By how much the counter grew since the others last heard of it.
    unpublished: AtomicU64,
    /// By how much the total was beyond the limit at most.
    overshoot: AtomicU64,
    /// When the last of that has left the window, in milliseconds since 1970.
    overshoot_until: AtomicU64,
}

/// No ceiling was set: the side's part of the limit decides.
const UNSET: u64 = u64::MAX;

const MODES: [Mode; 5] = [
    Mode::Single,
    Mode::Live,
    Mode::GuardBand,
    Mode::Share,
    Mode::Divided,
];

// === impl Mode ===

impl Mode {
    /// The word used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Live => "live",
            Self::GuardBand => "guard_band",
            Self::Share => "share",
            Self::Divided => "divided",
        }
    }
}

// === impl Fleet ===

impl Default for Fleet {
    fn default() -> Self {
        Self {
            ceiling: u64::MAX,
            mode: Mode::Single,
            overshoot_bound: None,
            trigger: u64::MAX,
        }
    }
}

// === impl Division ===

impl Division {
    pub(super) fn set(&self, nodes: u64, rank: u64) {
        let low = |number: u64| number.min(u64::from(u32::MAX));
        self.0
            .store(low(nodes) << 32 | low(rank), Ordering::Release);
    }

    /// This node's part of `limit`; `None` when it is not divided.
    pub(super) fn share(&self, limit: u64) -> Option<u64> {
        let word = self.0.load(Ordering::Acquire);
        let (nodes, rank) = (word >> 32, word & u64::from(u32::MAX));
        (nodes > 1).then(|| limit / nodes + u64::from(rank < limit % nodes))
    }
}

// === impl Side ===

impl Side {
    pub(super) fn set(&self, visible: u64, nodes: u64) {
        let low = |number: u64| number.min(u64::from(u32::MAX));
        let word = match visible < nodes {
            true => low(nodes) << 32 | low(visible),
            false => 0,
        };
        // Nothing else is read by who sees it.
        self.0.store(word, Ordering::Relaxed);
    }

    /// This side's part of `limit`, rounded down.
    fn part(&self, limit: u64) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        let (nodes, visible) = (word >> 32, word & u64::from(u32::MAX));
        if nodes == 0 {
            return limit;
        }
        let part = u128::from(limit) * u128::from(visible) / u128::from(nodes);
        u64::try_from(part).unwrap_or(limit)
    }
}

// === impl FleetPart ===

impl Default for FleetPart {
    fn default() -> Self {
        Self {
            remote: OnceLock::new(),
            past: OnceLock::new(),
            held: AtomicU64::new(0),
            ceiling: AtomicU64::new(UNSET),
            mode: AtomicU8::new(0),
            overshoot_bound: AtomicU64::new(u64::MAX),
            trigger: AtomicU64::new(u64::MAX),
            unpublished: AtomicU64::new(0),
            overshoot: AtomicU64::new(0),
            overshoot_until: AtomicU64::new(0),
        }
    }
}

impl FleetPart {
    /// What others have, where that is a sliding count.
    pub(super) fn others(&self) -> Option<&Others> {
        match self.remote.get() {
            Some(Remote::Sliding(others)) => Some(others),
            _ => None,
        }
    }

    /// Takes out what has expired and is still being taken out by somebody
    /// else.
    pub(super) fn sweep(&self) {
        if let Some(others) = self.others() {
            others.sweep();
        }
    }

    /// Adds to what the others have not heard of, and tells whether they
    /// should now.
    fn weighs(&self, more: u64) -> bool {
        let before = self.unpublished.fetch_add(more, Ordering::AcqRel);
        more > 0 && before.saturating_add(more) >= self.trigger.load(Ordering::Acquire)
    }

    /// How far the counter may go, if that was said.
    fn ceiling(&self) -> Option<u64> {
        let ceiling = self.ceiling.load(Ordering::Acquire);
        (ceiling != UNSET).then_some(ceiling)
    }

    fn mode(&self) -> Mode {
        MODES[usize::from(self.mode.load(Ordering::Acquire)).min(MODES.len() - 1)]
    }

    fn overshoot_bound(&self) -> Option<u64> {
        let bound = self.overshoot_bound.load(Ordering::Acquire);
        (bound != u64::MAX).then_some(bound)
    }
}

// === impl Counter ===

impl Counter {
    /// Tells this node's own amounts that still count at `now`, by epoch,
    /// oldest first: of sliding windows every sub-window, of periods the
    /// present one, of requests in flight epoch 0. An epoch that was told and
    /// is no more holds nothing now.
    pub fn own(&self, now: Timestamp, mut tell: impl FnMut(OwnCell)) {
        let mut tell = |epoch, used, held, expires_at| {
            tell(OwnCell {
                epoch,
                used,
                held,
                expires_at,
            });
        };
        match &self.count {
            Count::Sliding(sliding) => sliding.live(now, tell),
            Count::Period(periodic) => {
                if let Some((epoch, used, held, end)) = periodic.live(now) {
                    tell(epoch, used, held, end);
                }
            }
            Count::Gauge(gauge) => {
                let held = gauge.count();
                if held > 0 {
                    tell(0, 0, held, Timestamp::NEVER);
                }
            }
        }
    }

    /// Notes that what others have in `epoch`, settled and held, was `from`
    /// and is `to`. It leaves by itself with its window; for an epoch that
    /// has passed nothing happens, and one still to come counts at once.
    /// Requests in flight have epoch 0 only, and stay until taken back.
    pub fn change_remote(&self, epoch: i64, from: u64, to: u64, now: Timestamp) {
        let fleet = self.fleet_part();
        self.change_in(&fleet.remote, epoch, from, to, now);
        self.note_total(fleet, self.total(now), now);
    }

    /// The same for what an earlier start of this node has. It counts as
    /// others' use does, and as this node's own against its share of a limit
    /// that is divided.
    pub fn change_past(&self, epoch: i64, from: u64, to: u64, now: Timestamp) {
        self.change_remote(epoch, from, to, now);
        self.change_in(&self.fleet_part().past, epoch, from, to, now);
    }

    fn change_in(&self, place: &OnceLock<Remote>, epoch: i64, from: u64, to: u64, now: Timestamp) {
        let remote = place.get_or_init(|| Remote::new(&self.id));
        remote.change(epoch, from, to, self.present(now), now);
    }

    /// Sets how much of what others have is held by requests in flight; for
    /// show only.
    pub fn set_remote_held(&self, held: u64) {
        if held > 0 || self.fleet.get().is_some() {
            self.fleet_part().held.store(held, Ordering::Release);
        }
    }

    /// Sets how far the counter may go among nodes.
    pub fn set_fleet(&self, fleet: Fleet) {
        if self.fleet.get().is_none() && fleet == Fleet::default() {
            return;
        }
        let part = self.fleet_part();
        let mode = MODES.iter().position(|mode| *mode == fleet.mode);
        let bound = fleet.overshoot_bound.unwrap_or(u64::MAX);
        let ceiling = fleet.ceiling.min(UNSET - 1);
        part.ceiling.store(ceiling, Ordering::Release);
        part.mode.store(
            mode.and_then(|mode| u8::try_from(mode).ok()).unwrap_or(0),
            Ordering::Release,
        );
        part.overshoot_bound.store(bound, Ordering::Release);
        part.trigger.store(fleet.trigger, Ordering::Release);
    }

    /// Takes the ceiling back, as nobody looks after the counter any more.
    pub fn unset_ceiling(&self) {
        if let Some(fleet) = self.fleet.get() {
            fleet.ceiling.store(UNSET, Ordering::Release);
        }
    }

    /// Notes that the others have heard of everything here.
    pub fn note_published(&self) {
        if let Some(fleet) = self.fleet.get() {
            fleet.unpublished.store(0, Ordering::Release);
        }
    }

    /// What this node counts at `now`, settled and held.
    #[must_use]
    pub fn own_total(&self, now: Timestamp) -> u64 {
        match &self.count {
            Count::Sliding(sliding) => sliding.total(now),
            Count::Period(periodic) => periodic.total(now),
            Count::Gauge(gauge) => gauge.count(),
        }
    }

    /// What all nodes count at `now`, settled and held, as far as known here.
    #[must_use]
    pub fn total(&self, now: Timestamp) -> u64 {
        self.own_total(now).saturating_add(self.remote_total(now))
    }

    /// The limit that admission last compared with; `None` = never asked here.
    #[must_use]
    pub fn asked_limit(&self) -> Option<(u64, Enforcement)> {
        let bound = self.asked.bound()?;
        Some((bound.amount, bound.enforcement))
    }

    /// By how much the total was seen beyond the limit at most, since it last
    /// was within the limit for a whole window or at zero. What is still to
    /// come in others' clocks is no part of it.
    #[must_use]
    pub fn overshoot_observed(&self) -> u64 {
        self.fleet
            .get()
            .map_or(0, |fleet| fleet.overshoot.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn note_asked(&self, bound: Bound) {
        if self.tracked.is_some() {
            self.asked.set(bound);
        }
    }

    /// Tells that the counter has changed, and grew by `more`; after the last
    /// write.
    #[inline]
    pub(super) fn changed(&self, more: u64) {
        if let Some(tracked) = &self.tracked {
            self.tell_change(tracked, more);
        }
    }

    #[inline(never)]
    fn tell_change(&self, tracked: &Tracked, more: u64) {
        tracked.changed();
        let fleet = self.fleet.get();
        if fleet.is_some_and(|fleet| fleet.weighs(more)) {
            tracked.tracker.set_urgent();
        }
    }

    fn fleet_part(&self) -> &FleetPart {
        self.fleet.get_or_init(Box::default)
    }

    /// The newest epoch of a counter of periods.
    fn present(&self, now: Timestamp) -> i64 {
        match &self.count {
            Count::Period(periodic) => periodic.present(now),
            Count::Sliding(_) | Count::Gauge(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests;
