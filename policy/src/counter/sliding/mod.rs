//! Counts over a sliding window, lock-free.
//!
//! The window's length is split into 30 sub-windows; the current and the 30
//! previous ones count in full, so no interval of that length ever holds more
//! than the limit. `total` is what admission compares; `slots` say when each
//! part of it leaves (`ring`).
//!
//! Larger limits than a sub-window can hold, 2^40 - 1, are capped to that by
//! `Counter`, and what a settlement books beyond it is not counted.

mod ring;

use std::time::Duration;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Timestamp;
pub(super) use ring::{MAX_VALUE, index_of, leaves_at, sub_window_ms};
use ring::{PREVIOUS, Ring, amount_in, amount_of, pack, position, tag, tag_of};

/// Slots: the current, the previous ones, and one to spare.
const SLOTS: usize = 32;

/// What others have: also in sub-windows that have not begun here.
pub(super) type Others = Ring<64>;

/// A count over the last `30 * sub_window_ms` milliseconds.
#[derive(Debug)]
pub(super) struct Sliding {
    /// Settled and held amounts.
    ring: Ring<SLOTS>,
    /// Open holds, for show; a hold stays here even when it left the window.
    held: AtomicU64,
    /// The settled part of each slot, in the same form. It lags behind its
    /// slot and is never more.
    settled: [AtomicU64; SLOTS],
}

/// An amount in the sub-window it was booked in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Booked {
    pub(super) index: i64,
    pub(super) amount: u64,
}

// === impl Sliding ===

impl Sliding {
    pub(super) fn new(length: Duration, smooth: bool) -> Self {
        Self {
            ring: Ring::new(length, smooth),
            held: AtomicU64::new(0),
            settled: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Takes `amount` unless the window would hold more than `ceiling`. Zero
    /// is always given. In the instant another thread moves the window, a
    /// refusal may still count what that thread is just taking out.
    pub(super) fn reserve(&self, amount: u64, ceiling: u64, now: Timestamp) -> Option<Booked> {
        self.ring.advance(now);
        if amount == 0 {
            return Some(Booked {
                index: self.ring.newest(),
                amount,
            });
        }
        if !self.ring.take(amount, ceiling, now) {
            // Whoever moved the window may not have swept it yet; a refusal
            // must not rest on amounts that have expired.
            self.ring.sweep();
            if !self.ring.take(amount, ceiling, now) {
                return None;
            }
        }
        let booked = self.ring.book(amount);
        self.held.fetch_add(booked.amount, Ordering::AcqRel);
        Some(booked)
    }

    /// Takes `amount`, even beyond every ceiling.
    pub(super) fn hold_always(&self, amount: u64, now: Timestamp) -> Booked {
        self.ring.advance(now);
        let amount = amount.min(MAX_VALUE);
        self.ring.total.fetch_add(amount, Ordering::AcqRel);
        let booked = self.ring.book(amount);
        self.held.fetch_add(booked.amount, Ordering::AcqRel);
        booked
    }

    /// What of a hold still counts.
    pub(super) fn held_now(&self, hold: Booked, now: Timestamp) -> u64 {
        let live = self.ring.advance(now) - hold.index <= PREVIOUS;
        if live { hold.amount } else { 0 }
    }

    /// Makes a hold `to` large and moves it to the present, unless the window
    /// would hold more than `ceiling` then; `false` if so, and what still
    /// counted of it is moved all the same.
    pub(super) fn resize(&self, hold: &mut Booked, to: u64, ceiling: u64, now: Timestamp) -> bool {
        self.ring.advance(now);
        let to = to.min(MAX_VALUE);
        let owned = self.ring.unbook(*hold);
        let mut fits = self.ring.exchange(owned, to, ceiling, now);
        if !fits {
            self.ring.sweep();
            fits = self.ring.exchange(owned, to, ceiling, now);
        }
        let booked = self.ring.book(if fits { to } else { owned });
        self.held.fetch_add(booked.amount, Ordering::AcqRel);
        self.held.fetch_sub(hold.amount, Ordering::AcqRel);
        *hold = booked;
        fits
    }

    /// Gives a hold back; one that left the window has expired by itself.
    pub(super) fn release(&self, hold: Booked, now: Timestamp) {
        self.ring.advance(now);
        let owned = self.ring.unbook(hold);
        self.ring.total.fetch_sub(owned, Ordering::AcqRel);
        self.held.fetch_sub(hold.amount, Ordering::AcqRel);
    }

    /// Replaces a hold by what was used, booked at `now`.
    pub(super) fn settle(&self, hold: Booked, used: u64, now: Timestamp) -> Booked {
        self.ring.advance(now);
        let used = used.min(MAX_VALUE);
        let owned = self.ring.unbook(hold);
        // One step, so that nobody is admitted between giving back and booking.
        if used >= owned {
            self.ring.total.fetch_add(used - owned, Ordering::AcqRel);
        } else {
            self.ring.total.fetch_sub(owned - used, Ordering::AcqRel);
        }
        let booked = self.ring.book(used);
        self.held.fetch_sub(hold.amount, Ordering::AcqRel);
        self.add_settled(booked);
        booked
    }

    /// Turns a hold into use in the sub-window of its admission; `None` when
    /// that has left the window.
    pub(super) fn keep(&self, hold: Booked, now: Timestamp) -> Option<Booked> {
        self.held.fetch_sub(hold.amount, Ordering::AcqRel);
        let newest = self.ring.advance(now);
        let live = newest - hold.index <= PREVIOUS;
        if live {
            self.add_settled(hold);
        }
        live.then_some(hold)
    }

    /// Settled and held amounts, and when the limit is full again.
    pub(super) fn level(&self, now: Timestamp) -> (u64, u64, Timestamp) {
        self.ring.advance(now);
        self.ring.sweep();
        let counted = self.ring.counted(now);
        let held = self.held.load(Ordering::Acquire).min(counted);
        (counted - held, held, self.ring.resets_at(now))
    }

    /// What counts at `now`, settled and held.
    pub(super) fn total(&self, now: Timestamp) -> u64 {
        self.ring.total(now)
    }

    /// When `amount` fits if nothing else comes; the oldest leave first.
    /// `others` count too and leave by their own sub-windows.
    pub(super) fn fits_at(
        &self,
        amount: u64,
        ceiling: u64,
        others: Option<&Others>,
        now: Timestamp,
    ) -> Timestamp {
        let newest = self.ring.advance(now);
        self.ring.sweep();
        let mut total = self.ring.total.load(Ordering::Acquire);
        let mut last = newest;
        if let Some(others) = others {
            others.raise(newest);
            others.sweep();
            total = total.saturating_add(others.total.load(Ordering::Acquire));
            last += Others::AHEAD;
        }
        let mut excess = total.saturating_add(amount).saturating_sub(ceiling);
        if excess == 0 {
            return now;
        }
        for index in newest - PREVIOUS..=last {
            let theirs = others.map_or(0, |others| others.amount_at(index));
            let leaving = self.ring.amount_at(index) + theirs;
            if leaving >= excess {
                return self.ring.gone_at(index, excess, leaving).max(now);
            }
            excess -= leaving;
        }
        self.leaves_at(newest).max(now)
    }

    /// Puts a stored amount back into its sub-window, unless that has left.
    pub(super) fn restore(&self, index: i64, amount: u64) {
        // Sub-windows before 1970 were never written.
        if amount == 0 || index < 0 || self.ring.raise(index) - index > PREVIOUS {
            return;
        }
        if let Some(booked) = self.ring.put(index, amount.min(MAX_VALUE)) {
            self.add_settled(booked);
        }
    }

    /// Makes the settled amount of a sub-window at least `amount`, unless that
    /// has left.
    pub(super) fn raise_settled(&self, index: i64, amount: u64) {
        if amount == 0 || index < 0 || self.ring.raise(index) - index > PREVIOUS {
            return;
        }
        let least = amount.min(MAX_VALUE);
        let missing = self.change_settled(index, |settled| settled.max(least));
        if missing > 0 {
            self.ring.put(index, missing);
        }
    }

    /// Tells the settled amounts that still count: sub-window, amount and when
    /// it leaves, oldest first.
    pub(super) fn settled(&self, now: Timestamp, mut tell: impl FnMut(i64, u64, Timestamp)) {
        let newest = self.ring.advance(now);
        for index in newest - PREVIOUS..=newest {
            let amount = amount_in(&self.settled[position::<SLOTS>(index)], index);
            if amount > 0 {
                tell(index, amount, self.leaves_at(index));
            }
        }
    }

    /// Tells what still counts: sub-window, settled and held amounts and when
    /// it leaves, oldest first.
    pub(super) fn live(&self, now: Timestamp, mut tell: impl FnMut(i64, u64, u64, Timestamp)) {
        let newest = self.ring.advance(now);
        for index in newest - PREVIOUS..=newest {
            // The settled part first: meanwhile the slot loses holds only.
            let settled = amount_in(&self.settled[position::<SLOTS>(index)], index);
            let held = self.ring.amount_at(index).saturating_sub(settled);
            if settled > 0 || held > 0 {
                tell(index, settled, held, self.leaves_at(index));
            }
        }
    }

    fn add_settled(&self, booked: Booked) {
        self.change_settled(booked.index, |settled| {
            settled.saturating_add(booked.amount)
        });
    }

    /// Replaces the settled amount of a sub-window, and tells by how much it
    /// grew; by nothing when the sub-window has left.
    fn change_settled(&self, index: i64, change: impl Fn(u64) -> u64) -> u64 {
        let slot = &self.settled[position::<SLOTS>(index)];
        loop {
            let word = slot.load(Ordering::Acquire);
            if self.ring.newest() - index > PREVIOUS {
                return 0;
            }
            // As in `try_book`, any other tag is an older one.
            let before = if tag_of(word) == tag(index) {
                amount_of(word)
            } else {
                0
            };
            let after = change(before).min(MAX_VALUE);
            let next = pack(index, after);
            if slot
                .compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                return after.saturating_sub(before);
            }
        }
    }

    /// When the sub-window `index` no longer counts at all.
    pub(super) fn leaves_at(&self, index: i64) -> Timestamp {
        leaves_at(index, self.ring.sub_window_ms)
    }

    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.level(now).2 <= now && self.held.load(Ordering::Acquire) == 0
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
mod tests;
