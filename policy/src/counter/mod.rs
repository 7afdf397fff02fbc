//! Lock-free counts behind the limits, their identities and the table that
//! keeps them across reloads.
//!
//! Promise: `reserve` never lets settled and held amounts together pass the
//! ceiling, under any interleaving of threads. `settle` always books, even
//! beyond it. Nothing here fails.

mod gauge;
mod id;
mod life;
mod period;
mod sliding;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use id::{CounterId, CounterIdError};
pub use table::CounterTable;

use crate::scope::Unit;
use crate::time::Timestamp;
use crate::window::WindowKind;
use gauge::Gauge;
use life::Life;
use period::{PeriodCount, Periodic};
use sliding::{Booked, Sliding};

/// How long to wait before asking again for a place among the requests in
/// flight; when one ends is not known.
const CONCURRENT_RETRY: Duration = Duration::from_secs(1);

/// One logical count, shared by all limits of its identity.
#[derive(Debug)]
pub struct Counter {
    /// `CounterId` as text, as charges carry it.
    text: Arc<str>,
    /// Whether a hold becomes use in the sub-window of its admission.
    booked_at_admission: bool,
    /// Lowers the limit's amount where other nodes have a share in it.
    ceiling: AtomicU64,
    /// What other nodes have used.
    remote: AtomicU64,
    /// Ends when the table drops it.
    life: Life,
    count: Count,
}

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
    /// Held amount.
    pub(crate) reserved: u64,
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

// === impl Counter ===

impl Counter {
    /// A counter at zero.
    pub(crate) fn new(id: &CounterId) -> Self {
        let count = match (id.unit, &id.period, id.window) {
            (Unit::Concurrent, ..) | (_, None, _) => Count::Gauge(Gauge::default()),
            (_, Some(period), WindowKind::Sliding) => {
                Count::Sliding(Box::new(Sliding::new(period.longest(), false)))
            }
            (_, Some(period), WindowKind::Smooth) => {
                Count::Sliding(Box::new(Sliding::new(period.longest(), true)))
            }
            (_, Some(period), WindowKind::Fixed | WindowKind::Calendar) => {
                Count::Period(Periodic::new(*period))
            }
        };
        Self {
            text: id.to_string().into(),
            // A request counts when it starts; its tokens when they are known.
            booked_at_admission: id.unit == Unit::Requests,
            ceiling: AtomicU64::new(u64::MAX),
            remote: AtomicU64::new(0),
            life: Life::default(),
            count,
        }
    }

    /// Lowers what may be reached below the limits' amounts; `u64::MAX` takes
    /// that back.
    pub fn set_ceiling(&self, ceiling: u64) {
        self.ceiling.store(ceiling, Ordering::Release);
    }

    /// Sets what other nodes have used.
    pub fn set_remote(&self, used: u64) {
        self.remote.store(used, Ordering::Release);
    }

    /// What a limit of `amount` may reach.
    pub(crate) fn ceiling(&self, amount: u64) -> u64 {
        let countable = match &self.count {
            Count::Sliding(_) => sliding::MAX_VALUE,
            Count::Period(_) | Count::Gauge(_) => u64::MAX,
        };
        amount
            .min(self.ceiling.load(Ordering::Acquire))
            .min(countable)
    }

    /// Holds `amount` unless a limit of `limit` would be passed. An amount of
    /// zero is always held.
    pub(crate) fn reserve(&self, amount: u64, limit: u64, now: Timestamp) -> Option<Hold> {
        let own = self.own_ceiling(limit);
        match &self.count {
            Count::Sliding(sliding) => sliding.reserve(amount, own, now).map(Hold::Sliding),
            Count::Period(periodic) => periodic
                .reserve(amount, own, now)
                .map(|count| Hold::Period(count, amount)),
            Count::Gauge(gauge) => gauge.reserve(amount, own).then_some(Hold::Gauge(amount)),
        }
    }

    /// Holds `amount`, even beyond every limit.
    pub(crate) fn hold_always(&self, amount: u64, now: Timestamp) -> Hold {
        match &self.count {
            Count::Sliding(sliding) => Hold::Sliding(sliding.hold_always(amount, now)),
            Count::Period(periodic) => {
                let (count, amount) = periodic.hold_always(amount, now);
                Hold::Period(count, amount)
            }
            Count::Gauge(gauge) => {
                gauge.add(amount);
                Hold::Gauge(amount)
            }
        }
    }

    /// Whether `reserve` would hold `amount`.
    pub(crate) fn fits(&self, amount: u64, limit: u64, now: Timestamp) -> bool {
        let own = self.own_ceiling(limit);
        amount == 0
            || match &self.count {
                Count::Sliding(sliding) => sliding.fits_at(amount, own, now) <= now,
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
        limit: u64,
        now: Timestamp,
    ) -> bool {
        to <= self.held_now(hold, now) || self.resize(hold, to, self.own_ceiling(limit), now)
    }

    /// Lowers a hold to `to`.
    pub(crate) fn lower(&self, hold: &mut Hold, to: u64, now: Timestamp) {
        self.resize(hold, to, u64::MAX, now);
    }

    fn resize(&self, hold: &mut Hold, to: u64, ceiling: u64, now: Timestamp) -> bool {
        match (&self.count, hold) {
            (Count::Sliding(sliding), Hold::Sliding(booked)) => {
                sliding.resize(booked, to, ceiling, now)
            }
            (_, Hold::Period(count, amount)) => count.resize(amount, to, ceiling),
            (Count::Gauge(_), Hold::Gauge(_)) => true,
            _ => unreachable!("a hold comes back to the counter that gave it"),
        }
    }

    /// Gives a hold back.
    pub(crate) fn release(&self, hold: Hold, now: Timestamp) {
        match (&self.count, hold) {
            (Count::Sliding(sliding), Hold::Sliding(booked)) => sliding.release(booked, now),
            (_, Hold::Period(count, amount)) => count.settle(amount, 0),
            (Count::Gauge(gauge), Hold::Gauge(amount)) => gauge.release(amount),
            _ => unreachable!("a hold comes back to the counter that gave it"),
        }
    }

    /// Replaces a hold by what was used, and tells what to store.
    pub(crate) fn settle(&self, hold: Hold, used: u64, now: Timestamp) -> Option<Charge> {
        if used == 0 {
            self.release(hold, now);
            return None;
        }
        let (epoch, amount, expires_at) = match (&self.count, hold) {
            (Count::Sliding(sliding), Hold::Sliding(booked)) => {
                let booked = if self.booked_at_admission {
                    sliding.keep(booked, now)?
                } else {
                    sliding.settle(booked, used, now)
                };
                (booked.index, booked.amount, sliding.leaves_at(booked.index))
            }
            (Count::Period(periodic), Hold::Period(count, held)) => {
                count.settle(held, used);
                (count.epoch(), used, periodic.end(&count))
            }
            (Count::Gauge(gauge), Hold::Gauge(amount)) => {
                gauge.release(amount);
                return None;
            }
            _ => unreachable!("a hold comes back to the counter that gave it"),
        };
        Some(Charge {
            counter: Arc::clone(&self.text),
            epoch,
            amount,
            expires_at,
        })
    }

    /// How full the counter is.
    pub(crate) fn level(&self, now: Timestamp) -> Level {
        let (used, reserved, resets_at) = match &self.count {
            Count::Sliding(sliding) => sliding.level(now),
            Count::Period(periodic) => periodic.level(now),
            Count::Gauge(gauge) => (gauge.count(), 0, now),
        };
        let used = used.saturating_add(self.remote.load(Ordering::Acquire));
        Level {
            used,
            reserved,
            resets_at,
        }
    }

    /// How long until `amount` fits a limit of `limit`, if nothing else comes.
    pub(crate) fn retry_after(&self, amount: u64, limit: u64, now: Timestamp) -> Duration {
        let own = self.own_ceiling(limit);
        match &self.count {
            Count::Sliding(sliding) => sliding.fits_at(amount, own, now).since(now),
            Count::Period(periodic) => periodic.fits_at(amount, own, now).since(now),
            Count::Gauge(_) => CONCURRENT_RETRY,
        }
    }

    /// Puts a stored amount back.
    pub(crate) fn restore(&self, epoch: i64, amount: u64) {
        match &self.count {
            Count::Sliding(sliding) => sliding.restore(epoch, amount),
            Count::Period(periodic) => periodic.restore(epoch, amount),
            Count::Gauge(_) => {}
        }
    }

    /// Makes the settled amount of an epoch at least `amount`.
    pub(crate) fn raise(&self, epoch: i64, amount: u64) {
        match &self.count {
            Count::Sliding(sliding) => sliding.raise_settled(epoch, amount),
            Count::Period(periodic) => periodic.raise_settled(epoch, amount),
            Count::Gauge(_) => {}
        }
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

    /// Whether nothing is counted or held at `now`.
    pub(crate) fn is_idle(&self, now: Timestamp) -> bool {
        match &self.count {
            Count::Sliding(sliding) => sliding.is_idle(now),
            Count::Period(periodic) => periodic.is_idle(now),
            Count::Gauge(gauge) => gauge.count() == 0,
        }
    }

    /// What this node's own part may reach.
    fn own_ceiling(&self, limit: u64) -> u64 {
        self.ceiling(limit)
            .saturating_sub(self.remote.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests;
