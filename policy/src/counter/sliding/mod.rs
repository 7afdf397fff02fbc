//! Counts over a sliding window, lock-free.
//!
//! The window's length is split into 30 sub-windows; the current and the 30
//! previous ones count in full, so no interval of that length ever holds more
//! than the limit. `total` is what admission compares; `slots` say when each
//! part of it leaves.
//!
//! Law: an amount enters `total` before its slot, and leaves its slot before
//! `total`, each exactly once. So `total` is never less than the sum of the
//! live slots, and a hold admitted by one CAS on `total` is exact under any
//! interleaving. It rests on three facts:
//! - `newest` only grows, and is raised before a slot is tagged with the new
//!   sub-window. Reading a slot first and `newest` after bounds the slot's
//!   sub-window from above by `newest + 1`.
//! - A non-empty slot loses its content only together with its tag, and tags
//!   of a slot only grow; a compare-and-swap on an expired slot fails.
//! - An amount is booked in the newest sub-window seen *after* it entered
//!   `total`, so it stays at least as long as its admission justified.
//!
//! Time that steps backwards counts as the newest time seen. A sub-window
//! holds at most 2^40 - 1; larger limits are capped to that by `Counter`, and
//! what a settlement books beyond it is not counted.

use std::time::Duration;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicI64, AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::time::Timestamp;

/// Previous sub-windows that still count.
const PREVIOUS: i64 = 30;
/// Slots: the current, the previous ones, and one to spare.
const SLOTS: usize = 32;
const VALUE_BITS: u32 = 40;
/// The largest amount of one sub-window, and the largest ceiling.
pub(super) const MAX_VALUE: u64 = (1 << VALUE_BITS) - 1;
const TAG_MASK: u64 = (1 << (64 - VALUE_BITS)) - 1;

/// A count over the last `30 * sub_window_ms` milliseconds.
#[derive(Debug)]
pub(super) struct Sliding {
    sub_window_ms: u64,
    /// Whether the oldest sub-window counts only by the part not yet passed.
    smooth: bool,
    /// Settled and held amounts of the window.
    total: AtomicU64,
    /// Open holds, for show; a hold stays here even when it left the window.
    held: AtomicU64,
    /// The newest sub-window seen.
    newest: AtomicI64,
    /// By sub-window modulo 32: a tag (its index modulo 2^24) and an amount.
    /// An empty slot may keep an old tag.
    slots: [AtomicU64; SLOTS],
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
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self {
            // Rounded up: 30 of them never cover less than the length.
            sub_window_ms: length_ms.div_ceil(30).max(1),
            smooth,
            total: AtomicU64::new(0),
            held: AtomicU64::new(0),
            newest: AtomicI64::new(0),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
            settled: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Takes `amount` unless the window would hold more than `ceiling`. Zero
    /// is always given. In the instant another thread moves the window, a
    /// refusal may still count what that thread is just taking out.
    pub(super) fn reserve(&self, amount: u64, ceiling: u64, now: Timestamp) -> Option<Booked> {
        self.advance(now);
        if amount == 0 {
            return Some(Booked {
                index: self.newest.load(Ordering::Acquire),
                amount,
            });
        }
        if !self.take(amount, ceiling, now) {
            // Whoever moved the window may not have swept it yet; a refusal
            // must not rest on amounts that have expired.
            self.sweep();
            if !self.take(amount, ceiling, now) {
                return None;
            }
        }
        let booked = self.book(amount);
        self.held.fetch_add(booked.amount, Ordering::AcqRel);
        Some(booked)
    }

    /// Takes `amount`, even beyond every ceiling.
    pub(super) fn hold_always(&self, amount: u64, now: Timestamp) -> Booked {
        self.advance(now);
        let amount = amount.min(MAX_VALUE);
        self.total.fetch_add(amount, Ordering::AcqRel);
        let booked = self.book(amount);
        self.held.fetch_add(booked.amount, Ordering::AcqRel);
        booked
    }

    /// What of a hold still counts.
    pub(super) fn held_now(&self, hold: Booked, now: Timestamp) -> u64 {
        let live = self.advance(now) - hold.index <= PREVIOUS;
        if live { hold.amount } else { 0 }
    }

    /// Makes a hold `to` large and moves it to the present, unless the window
    /// would hold more than `ceiling` then; `false` if so, and what still
    /// counted of it is moved all the same.
    pub(super) fn resize(&self, hold: &mut Booked, to: u64, ceiling: u64, now: Timestamp) -> bool {
        self.advance(now);
        let to = to.min(MAX_VALUE);
        let owned = self.unbook(*hold);
        let mut fits = self.exchange(owned, to, ceiling, now);
        if !fits {
            self.sweep();
            fits = self.exchange(owned, to, ceiling, now);
        }
        let booked = self.book(if fits { to } else { owned });
        self.held.fetch_add(booked.amount, Ordering::AcqRel);
        self.held.fetch_sub(hold.amount, Ordering::AcqRel);
        *hold = booked;
        fits
    }

    /// Gives a hold back; one that left the window has expired by itself.
    pub(super) fn release(&self, hold: Booked, now: Timestamp) {
        self.advance(now);
        let owned = self.unbook(hold);
        self.total.fetch_sub(owned, Ordering::AcqRel);
        self.held.fetch_sub(hold.amount, Ordering::AcqRel);
    }

    /// Replaces a hold by what was used, booked at `now`.
    pub(super) fn settle(&self, hold: Booked, used: u64, now: Timestamp) -> Booked {
        self.advance(now);
        let used = used.min(MAX_VALUE);
        let owned = self.unbook(hold);
        // One step, so that nobody is admitted between giving back and booking.
        if used >= owned {
            self.total.fetch_add(used - owned, Ordering::AcqRel);
        } else {
            self.total.fetch_sub(owned - used, Ordering::AcqRel);
        }
        let booked = self.book(used);
        self.held.fetch_sub(hold.amount, Ordering::AcqRel);
        self.add_settled(booked);
        booked
    }

    /// Turns a hold into use in the sub-window of its admission; `None` when
    /// that has left the window.
    pub(super) fn keep(&self, hold: Booked, now: Timestamp) -> Option<Booked> {
        self.held.fetch_sub(hold.amount, Ordering::AcqRel);
        let newest = self.advance(now);
        let live = newest - hold.index <= PREVIOUS;
        if live {
            self.add_settled(hold);
        }
        live.then_some(hold)
    }

    /// Settled and held amounts, and when the limit is full again.
    pub(super) fn level(&self, now: Timestamp) -> (u64, u64, Timestamp) {
        let newest = self.advance(now);
        self.sweep();
        let total = self.total.load(Ordering::Acquire);
        let counted = total.saturating_sub(self.passed_part(now));
        let held = self.held.load(Ordering::Acquire).min(counted);
        let resets_at = (newest - PREVIOUS..=newest)
            .rev()
            .find(|index| self.amount_at(*index) > 0)
            .map_or(now, |index| self.leaves_at(index).max(now));
        (counted - held, held, resets_at)
    }

    /// When `amount` fits if nothing else comes; the oldest leave first.
    pub(super) fn fits_at(&self, amount: u64, ceiling: u64, now: Timestamp) -> Timestamp {
        let newest = self.advance(now);
        self.sweep();
        let total = self.total.load(Ordering::Acquire);
        let mut excess = total.saturating_add(amount).saturating_sub(ceiling);
        if excess == 0 {
            return now;
        }
        for index in newest - PREVIOUS..=newest {
            let leaving = self.amount_at(index);
            if leaving >= excess {
                return self.gone_at(index, excess, leaving).max(now);
            }
            excess -= leaving;
        }
        self.leaves_at(newest).max(now)
    }

    /// Puts a stored amount back into its sub-window, unless that has left.
    pub(super) fn restore(&self, index: i64, amount: u64) {
        // Sub-windows before 1970 were never written.
        if amount == 0 || index < 0 || self.raise(index) - index > PREVIOUS {
            return;
        }
        if let Some(booked) = self.put(index, amount.min(MAX_VALUE)) {
            self.add_settled(booked);
        }
    }

    /// Makes the settled amount of a sub-window at least `amount`, unless that
    /// has left.
    pub(super) fn raise_settled(&self, index: i64, amount: u64) {
        if amount == 0 || index < 0 || self.raise(index) - index > PREVIOUS {
            return;
        }
        let least = amount.min(MAX_VALUE);
        let missing = self.change_settled(index, |settled| settled.max(least));
        if missing > 0 {
            self.put(index, missing);
        }
    }

    /// Tells the settled amounts that still count: sub-window, amount and when
    /// it leaves, oldest first.
    pub(super) fn settled(&self, now: Timestamp, mut tell: impl FnMut(i64, u64, Timestamp)) {
        let newest = self.advance(now);
        for index in newest - PREVIOUS..=newest {
            let amount = amount_in(&self.settled[position(index)], index);
            if amount > 0 {
                tell(index, amount, self.leaves_at(index));
            }
        }
    }

    /// Counts an amount in sub-window `index`; `None` when that has left.
    fn put(&self, index: i64, amount: u64) -> Option<Booked> {
        self.total.fetch_add(amount, Ordering::AcqRel);
        let booked = self.try_book(index, amount);
        if booked.is_none() {
            self.total.fetch_sub(amount, Ordering::AcqRel);
        }
        booked
    }

    fn add_settled(&self, booked: Booked) {
        self.change_settled(booked.index, |settled| {
            settled.saturating_add(booked.amount)
        });
    }

    /// Replaces the settled amount of a sub-window, and tells by how much it
    /// grew; by nothing when the sub-window has left.
    fn change_settled(&self, index: i64, change: impl Fn(u64) -> u64) -> u64 {
        let slot = &self.settled[position(index)];
        loop {
            let word = slot.load(Ordering::Acquire);
            if self.newest.load(Ordering::Acquire) - index > PREVIOUS {
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
        let after = u64::try_from(index.saturating_add(PREVIOUS + 1)).unwrap_or(0);
        Timestamp(after.saturating_mul(self.sub_window_ms))
    }

    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.level(now).2 <= now && self.held.load(Ordering::Acquire) == 0
    }

    /// When `part` of the `amount` in sub-window `index` no longer counts.
    fn gone_at(&self, index: i64, part: u64, amount: u64) -> Timestamp {
        let leaves_at = self.leaves_at(index);
        if !self.smooth {
            return leaves_at;
        }
        // It fades evenly over its last sub-window.
        let left = u128::from(amount - part) * u128::from(self.sub_window_ms);
        let early = u64::try_from(left / u128::from(amount)).unwrap_or(0);
        Timestamp(leaves_at.0.saturating_sub(early))
    }

    /// Moves the window to `now`, and tells the newest sub-window seen.
    fn advance(&self, now: Timestamp) -> i64 {
        self.raise(i64::try_from(now.0 / self.sub_window_ms).unwrap_or(i64::MAX))
    }

    fn raise(&self, index: i64) -> i64 {
        let seen = self.newest.load(Ordering::Acquire);
        if index <= seen {
            return seen;
        }
        let seen = self.newest.fetch_max(index, Ordering::AcqRel);
        if index > seen {
            self.sweep();
        }
        seen.max(index)
    }

    /// Takes expired amounts out of their slots, then out of the total.
    fn sweep(&self) {
        for (position, slot) in (0_i64..).zip(&self.slots) {
            let mut word = slot.load(Ordering::Acquire);
            while amount_of(word) > 0 {
                let oldest = self.newest.load(Ordering::Acquire) - PREVIOUS;
                let live = oldest + (position - oldest).rem_euclid(SLOTS as i64);
                if tag_of(word) == tag(live) {
                    break;
                }
                let empty = pack(live, 0);
                match slot.compare_exchange(word, empty, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        self.total.fetch_sub(amount_of(word), Ordering::AcqRel);
                        break;
                    }
                    Err(present) => word = present,
                }
            }
        }
    }

    /// Adds to the total unless the window would hold more than `ceiling`.
    fn take(&self, amount: u64, ceiling: u64, now: Timestamp) -> bool {
        self.exchange(0, amount, ceiling, now)
    }

    /// Puts `more` in the place of `less` in the total unless the window would
    /// hold more than `ceiling`. In one step, so that nobody is admitted in
    /// between.
    fn exchange(&self, less: u64, more: u64, ceiling: u64, now: Timestamp) -> bool {
        self.total
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| {
                let sum = total.checked_sub(less)?.checked_add(more)?;
                (sum.saturating_sub(self.passed_part(now)) <= ceiling).then_some(sum)
            })
            .is_ok()
    }

    /// What of the oldest sub-window no longer counts: nothing, or if smooth
    /// the share of the current sub-window that has passed.
    fn passed_part(&self, now: Timestamp) -> u64 {
        if !self.smooth {
            return 0;
        }
        let newest = self.newest.load(Ordering::Acquire);
        let start = u64::try_from(newest)
            .unwrap_or(0)
            .saturating_mul(self.sub_window_ms);
        let passed = now.0.saturating_sub(start).min(self.sub_window_ms);
        let part = u128::from(self.amount_at(newest - PREVIOUS)) * u128::from(passed)
            / u128::from(self.sub_window_ms);
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// Books an amount that is in the total already.
    fn book(&self, amount: u64) -> Booked {
        loop {
            let newest = self.newest.load(Ordering::Acquire);
            if let Some(booked) = self.try_book(newest, amount) {
                return booked;
            }
        }
    }

    /// Books in sub-window `index`; `None` when it has left the window.
    fn try_book(&self, index: i64, amount: u64) -> Option<Booked> {
        let slot = self.slot(index);
        loop {
            let word = slot.load(Ordering::Acquire);
            if self.newest.load(Ordering::Acquire) - index > PREVIOUS {
                return None;
            }
            // With the index still live, any other tag is an older one.
            let same = tag_of(word) == tag(index);
            let before = if same { amount_of(word) } else { 0 };
            let expired = amount_of(word) - before;
            let after = before.saturating_add(amount).min(MAX_VALUE);
            let next = pack(index, after);
            if slot
                .compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                let booked = after - before;
                self.total
                    .fetch_sub(expired + (amount - booked), Ordering::AcqRel);
                return Some(Booked {
                    index,
                    amount: booked,
                });
            }
        }
    }

    /// Takes a hold out of its slot and tells how much of it is still in the
    /// total, for the caller to take out.
    fn unbook(&self, hold: Booked) -> u64 {
        let slot = self.slot(hold.index);
        loop {
            let word = slot.load(Ordering::Acquire);
            let newest = self.newest.load(Ordering::Acquire);
            if newest - hold.index > PREVIOUS || tag_of(word) != tag(hold.index) {
                return 0;
            }
            let owned = hold.amount.min(amount_of(word));
            let next = pack(hold.index, amount_of(word) - owned);
            if slot
                .compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                return owned;
            }
        }
    }

    fn amount_at(&self, index: i64) -> u64 {
        amount_in(self.slot(index), index)
    }

    fn slot(&self, index: i64) -> &AtomicU64 {
        &self.slots[position(index)]
    }
}

/// What a slot holds of sub-window `index`.
fn amount_in(slot: &AtomicU64, index: i64) -> u64 {
    let word = slot.load(Ordering::Acquire);
    if tag_of(word) == tag(index) {
        amount_of(word)
    } else {
        0
    }
}

fn position(index: i64) -> usize {
    usize::try_from(index.rem_euclid(SLOTS as i64)).unwrap_or(0)
}

fn tag(index: i64) -> u64 {
    index.cast_unsigned() & TAG_MASK
}

fn tag_of(word: u64) -> u64 {
    word >> VALUE_BITS
}

fn amount_of(word: u64) -> u64 {
    word & MAX_VALUE
}

fn pack(index: i64, amount: u64) -> u64 {
    tag(index) << VALUE_BITS | amount
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
mod tests;
