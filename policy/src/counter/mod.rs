//! Lock-free counts behind the limits, their identities and the table that
//! keeps them across reloads.
//!
//! Promise: `reserve` never lets settled and held amounts together pass the
//! ceiling, under any interleaving of threads. `settle` always books, even
//! beyond it. Nothing here fails.

mod fleet;
mod gauge;
mod id;
mod life;
mod period;
mod remote;
mod sliding;
mod table;
mod track;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

pub use fleet::{Fleet, Mode, OwnCell};
pub use id::{CounterId, CounterIdError};
pub use table::CounterTable;

use crate::limit::Enforcement;
use crate::scope::Unit;
use crate::time::Timestamp;
use crate::window::WindowKind;
use fleet::FleetPart;
use gauge::Gauge;
use life::Life;
use period::{PeriodCount, Periodic};
use sliding::{Booked, Sliding};
use track::{Tracked, Tracker};

/// How long to wait before asking again for a place among the requests in
/// flight; when one ends is not known.
const CONCURRENT_RETRY: Duration = Duration::from_secs(1);

/// One logical count, shared by all limits of its identity.
#[derive(Debug)]
pub struct Counter {
    id: CounterId,
    /// `id` as text, as charges carry it.
    text: Arc<str>,
    /// Where changes are told; `None` where nobody asks.
    tracked: Option<Tracked>,
    /// What other nodes have to do with it; most counters never need it.
    fleet: OnceLock<Box<FleetPart>>,
    /// The last limit that admission compared with.
    asked: LastBound,
    /// Ends when the table drops it.
    life: Life,
    count: Count,
}

/// What a limit lets a counter reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) amount: u64,
    pub(crate) enforcement: Enforcement,
}

/// A `Bound` in one word: the amount, capped to 2^63 - 2, and whether it is
/// strict; all ones before the first.
#[derive(Debug)]
struct LastBound(AtomicU64);

/// The three ways to count.
#[derive(Debug)]
enum Count {
    Sliding(Box<Sliding>),
    Period(Periodic),
    Gauge(Gauge),
}

/// An amount taken from a counter. Has to come back by `settle` or `release`.
#[must_use]
#[derive(Debug)]
pub(crate) enum Hold {
    Sliding(Booked),
    Period(Arc<PeriodCount>, u64),
    Gauge(u64),
}

/// How full a counter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// Settled amount, other nodes' included.
    pub(crate) used: u64,
    /// Held amount, other nodes' included.
    pub(crate) reserved: u64,
    /// This node's part of both.
    pub(crate) own: u64,
    /// When nothing is left of both, if nothing else comes.
    pub(crate) resets_at: Timestamp,
}

/// A stored amount of one counter in one period or sub-window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// `CounterId` as text.
    pub counter: String,
    /// Index of the period, or of the sub-window (a thirtieth of the length).
    pub epoch: i64,
    /// Requests, tokens or nano-dollars, settled.
    pub amount: u64,
    /// When it no longer counts.
    pub expires_at: Timestamp,
}

/// A settled amount to add to the cell of the same counter and epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// `CounterId` as text.
    pub counter: Arc<str>,
    /// As in `Cell`.
    pub epoch: i64,
    /// Requests, tokens or nano-dollars, not zero.
    pub amount: u64,
    /// As in `Cell`.
    pub expires_at: Timestamp,
}

// === impl Hold ===

impl Hold {
    /// What was taken.
    pub(crate) fn amount(&self) -> u64 {
        match self {
            Self::Sliding(booked) => booked.amount,
            Self::Period(_, amount) | Self::Gauge(amount) => *amount,
        }
    }
}

// === impl Bound ===

#[cfg(test)]
impl From<u64> for Bound {
    fn from(amount: u64) -> Self {
        Self {
            amount,
            enforcement: Enforcement::Eventual,
        }
    }
}

// === impl LastBound ===

impl LastBound {
    const NONE: u64 = u64::MAX;

    fn set(&self, bound: Bound) {
        let strict = u64::from(bound.enforcement == Enforcement::Strict);
        let word = bound.amount.min(u64::MAX / 2 - 1) << 1 | strict;
        // It hardly ever changes, and a write is dear where many threads read.
        if self.0.load(Ordering::Relaxed) != word {
            self.0.store(word, Ordering::Relaxed);
        }
    }

    fn bound(&self) -> Option<Bound> {
        let word = self.0.load(Ordering::Relaxed);
        (word != Self::NONE).then_some(Bound {
            amount: word >> 1,
            enforcement: if word & 1 == 1 {
                Enforcement::Strict
            } else {
                Enforcement::Eventual
            },
        })
    }
}

// === impl Counter ===

impl Counter {
    /// A counter at zero that nobody watches.
    #[cfg(test)]
    pub(crate) fn new(id: &CounterId) -> Self {
        Self::with(id, None)
    }

    /// A counter at zero that tells `tracker`, if any, when it changes.
    fn tracked(id: &CounterId, tracker: Option<&Arc<Tracker>>) -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| {
            let tracked = |tracker| Tracked::new(Arc::clone(tracker), Weak::clone(me));
            Self::with(id, tracker.map(tracked))
        })
    }

    fn with(id: &CounterId, tracked: Option<Tracked>) -> Self {
        let count = match (id.length(), id.window) {
            (None, _) => Count::Gauge(Gauge::default()),
            (Some(period), WindowKind::Sliding) => {
                Count::Sliding(Box::new(Sliding::new(period.longest(), false)))
            }
            (Some(period), WindowKind::Smooth) => {
                Count::Sliding(Box::new(Sliding::new(period.longest(), true)))
            }
            (Some(period), WindowKind::Fixed | WindowKind::Calendar) => {
                Count::Period(Periodic::new(period))
            }
        };
        Self {
            id: id.clone(),
            text: id.to_string().into(),
            tracked,
            fleet: OnceLock::new(),
            asked: LastBound(AtomicU64::new(LastBound::NONE)),
            life: Life::default(),
            count,
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> &CounterId {
        &self.id
    }

    /// Its identity as text, as cells and charges carry it.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Holds `amount` unless a limit of `limit` would be passed. An amount of
    /// zero is always held.
    pub(crate) fn reserve(
        &self,
        amount: u64,
        limit: impl Into<Bound>,
        now: Timestamp,
    ) -> Option<Hold> {
        let bound = limit.into();
        self.note_asked(bound);
        let mut own = self.own_ceiling(bound, now);
        let hold = loop {
            let taken = match &self.count {
                Count::Sliding(sliding) => sliding.reserve(amount, own, now).map(Hold::Sliding),
                Count::Period(periodic) => periodic
                    .reserve(amount, own, now)
                    .map(|count| Hold::Period(count, amount)),
                Count::Gauge(gauge) => gauge.reserve(amount, own).then_some(Hold::Gauge(amount)),
            };
            match taken {
                Some(hold) => break hold,
                None => own = self.swept_ceiling(bound, own, now)?,
            }
        };
        if amount > 0 {
            self.changed(amount);
        }
        Some(hold)
    }

    /// Holds `amount`, even beyond every limit.
    pub(crate) fn hold_always(&self, amount: u64, now: Timestamp) -> Hold {
        let hold = match &self.count {
            Count::Sliding(sliding) => Hold::Sliding(sliding.hold_always(amount, now)),
            Count::Period(periodic) => {
                let (count, amount) = periodic.hold_always(amount, now);
                Hold::Period(count, amount)
            }
            Count::Gauge(gauge) => {
                gauge.add(amount);
                Hold::Gauge(amount)
            }
        };
        if amount > 0 {
            self.changed(amount);
        }
        hold
    }

    /// Whether `reserve` would hold `amount`.
    pub(crate) fn fits(&self, amount: u64, limit: impl Into<Bound>, now: Timestamp) -> bool {
        let own = self.own_ceiling(limit.into(), now);
        amount == 0
            || match &self.count {
                Count::Sliding(sliding) => sliding.fits_at(amount, own, None, now) <= now,
                Count::Period(periodic) => periodic.fits_at(amount, own, now) <= now,
                Count::Gauge(gauge) => gauge.count().saturating_add(amount) <= own,
            }
    }

    /// What of a hold still counts.
    pub(crate) fn held_now(&self, hold: &Hold, now: Timestamp) -> u64 {
        match (&self.count, hold) {
            (Count::Sliding(sliding), Hold::Sliding(booked)) => sliding.held_now(*booked, now),
            (_, hold) => hold.amount(),
        }
    }

    /// Raises a hold to at least `to`, even beyond every limit. In a sliding
    /// window it moves to the present; one that had left it comes back.
    pub(crate) fn top_up(&self, hold: &mut Hold, to: u64, now: Timestamp) {
        if to > self.held_now(hold, now) {
            self.resize(hold, to, u64::MAX, now);
        }
    }

    /// The same unless a limit of `limit` would be passed; `false` if so, and
    /// the hold stays.
    pub(crate) fn top_up_within(
        &self,
        hold: &mut Hold,
        to: u64,
        limit: impl Into<Bound>,
        now: Timestamp,
    ) -> bool {
        let bound = limit.into();
        self.note_asked(bound);
        to <= self.held_now(hold, now) || self.resize(hold, to, self.own_ceiling(bound, now), now)
    }

    /// Lowers a hold to `to`.
    pub(crate) fn lower(&self, hold: &mut Hold, to: u64, now: Timestamp) {
        self.resize(hold, to, u64::MAX, now);
    }

    fn resize(&self, hold: &mut Hold, to: u64, ceiling: u64, now: Timestamp) -> bool {
        let before = hold.amount();
        let fits = match (&self.count, &mut *hold) {
            (Count::Sliding(sliding), Hold::Sliding(booked)) => {
                sliding.resize(booked, to, ceiling, now)
            }
            (_, Hold::Period(count, amount)) => count.resize(amount, to, ceiling),
            (Count::Gauge(_), Hold::Gauge(_)) => true,
            _ => unreachable!("a hold comes back to the counter that gave it"),
        };
        // Even a refused one has moved what it held.
        self.changed(hold.amount().saturating_sub(before));
        fits
    }

    /// Gives a hold back.
    pub(crate) fn release(&self, hold: Hold, now: Timestamp) {
        match (&self.count, hold) {
            (Count::Sliding(sliding), Hold::Sliding(booked)) => sliding.release(booked, now),
            (_, Hold::Period(count, amount)) => count.settle(amount, 0),
            (Count::Gauge(gauge), Hold::Gauge(amount)) => gauge.release(amount),
            _ => unreachable!("a hold comes back to the counter that gave it"),
        }
        self.changed(0);
    }

    /// Replaces a hold by what was used, and tells what to store.
    pub(crate) fn settle(&self, hold: Hold, used: u64, now: Timestamp) -> Option<Charge> {
        if used == 0 {
            self.release(hold, now);
            return None;
        }
        let held = hold.amount();
        let booked = match (&self.count, hold) {
            (Count::Sliding(sliding), Hold::Sliding(booked)) => {
                let booked = if self.is_booked_at_admission() {
                    sliding.keep(booked, now)
                } else {
                    Some(sliding.settle(booked, used, now))
                };
                booked.map(|booked| (booked.index, booked.amount, sliding.leaves_at(booked.index)))
            }
            (Count::Period(periodic), Hold::Period(count, held)) => {
                count.settle(held, used);
                Some((count.epoch(), used, periodic.end(&count)))
            }
            (Count::Gauge(gauge), Hold::Gauge(amount)) => {
                gauge.release(amount);
                None
            }
            _ => unreachable!("a hold comes back to the counter that gave it"),
        };
        self.changed(booked.map_or(0, |(_, amount, _)| amount.saturating_sub(held)));
        booked.map(|(epoch, amount, expires_at)| Charge {
            counter: Arc::clone(&self.text),
            epoch,
            amount,
            expires_at,
        })
    }

    /// A request counts when it starts; its tokens when they are known.
    fn is_booked_at_admission(&self) -> bool {
        self.id.unit == Unit::Requests
    }

    /// How full the counter is.
    pub(crate) fn level(&self, now: Timestamp) -> Level {
        let (used, reserved, resets_at) = match &self.count {
            Count::Sliding(sliding) => sliding.level(now),
            Count::Period(periodic) => periodic.level(now),
            Count::Gauge(gauge) => (gauge.count(), 0, now),
        };
        let own = used.saturating_add(reserved);
        let level = Level {
            used,
            reserved,
            own,
            resets_at,
        };
        match self.fleet.get() {
            Some(_) => self.with_remote(level, now),
            None => level,
        }
    }

    /// How long until `amount` fits a limit of `limit`, if nothing else comes.
    pub(crate) fn retry_after(
        &self,
        amount: u64,
        limit: impl Into<Bound>,
        now: Timestamp,
    ) -> Duration {
        let bound = limit.into();
        let fits_at = match &self.count {
            Count::Sliding(sliding) => {
                let fits_at = |ceiling, others| sliding.fits_at(amount, ceiling, others, now);
                let fleet = self.fleet.get();
                let together = fits_at(
                    self.shared_ceiling(bound),
                    fleet.and_then(|fleet| fleet.others()),
                );
                let share = self
                    .share(bound)
                    .map_or(now, |share| fits_at(self.own_share(share, now), None));
                together.max(share)
            }
            Count::Period(periodic) => periodic.fits_at(amount, self.own_ceiling(bound, now), now),
            Count::Gauge(_) => return CONCURRENT_RETRY,
        };
        fits_at.since(now)
    }

    /// Puts a stored amount back.
    pub(crate) fn restore(&self, epoch: i64, amount: u64) {
        match &self.count {
            Count::Sliding(sliding) => sliding.restore(epoch, amount),
            Count::Period(periodic) => periodic.restore(epoch, amount),
            Count::Gauge(_) => {}
        }
        self.changed(0);
    }

    /// Makes the settled amount of an epoch at least `amount`.
    pub(crate) fn raise(&self, epoch: i64, amount: u64) {
        match &self.count {
            Count::Sliding(sliding) => sliding.raise_settled(epoch, amount),
            Count::Period(periodic) => periodic.raise_settled(epoch, amount),
            Count::Gauge(_) => {}
        }
        self.changed(0);
    }

    /// Adds the settled amounts that still count at `now` to `cells`.
    pub(crate) fn cells(&self, now: Timestamp, cells: &mut Vec<Cell>) {
        let mut push = |epoch, amount, expires_at| {
            cells.push(Cell {
                counter: self.text.to_string(),
                epoch,
                amount,
                expires_at,
            });
        };
        match &self.count {
            Count::Sliding(sliding) => sliding.settled(now, push),
            Count::Period(periodic) => {
                if let Some((epoch, amount, expires_at)) = periodic.settled(now) {
                    push(epoch, amount, expires_at);
                }
            }
            Count::Gauge(_) => {}
        }
    }

    /// For whoever has just taken a reference from the table: `false` when
    /// the table has dropped it.
    pub(crate) fn keep_alive(&self) -> bool {
        self.life.keep()
    }

    /// Ends the counter if the table alone has it and it is idle.
    pub(crate) fn try_end(counter: &Arc<Self>, now: Timestamp) -> bool {
        counter
            .life
            .end(|| Arc::strong_count(counter) > 1 || !counter.is_idle(now))
    }

    /// Whether nothing is counted or held at `now`, by anybody.
    pub(crate) fn is_idle(&self, now: Timestamp) -> bool {
        let own = match &self.count {
            Count::Sliding(sliding) => sliding.is_idle(now),
            Count::Period(periodic) => periodic.is_idle(now),
            Count::Gauge(gauge) => gauge.count() == 0,
        };
        own && self.remote_total(now) == 0
    }

    /// The largest limit that can be counted.
    fn countable(&self) -> u64 {
        match &self.count {
            Count::Sliding(_) => sliding::MAX_VALUE,
            Count::Period(_) | Count::Gauge(_) => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests;
