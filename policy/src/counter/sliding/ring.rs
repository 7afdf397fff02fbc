//! The ring of sub-windows under a sliding count: how much, and when each part
//! of it leaves.
//!
//! Law: an amount enters `total` before its slot, and leaves its slot before
//! `total`, each exactly once. So `total` is never less than the sum of the
//! live slots, and an amount admitted by one CAS on `total` is exact under any
//! interleaving. It rests on three facts:
//! - `newest` only grows, and is raised before a slot is tagged with the new
//!   sub-window. Reading a slot first and `newest` after bounds the slot's
//!   sub-window from above by `newest + SLOTS - 31`, the last that the slots
//!   tell from an expired one.
//! - A non-empty slot loses its content only together with its tag, and tags
//!   of a slot only grow; a compare-and-swap on an expired slot fails.
//! - An amount is booked in the newest sub-window seen *after* it entered
//!   `total`, so it stays at least as long as its admission justified.
//!
//! Time that steps backwards counts as the newest time seen. A sub-window
//! holds at most 2^40 - 1.

use std::time::Duration;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicI64, AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::Booked;
use crate::time::Timestamp;

/// Previous sub-windows that still count.
pub(super) const PREVIOUS: i64 = 30;
const VALUE_BITS: u32 = 40;
/// The largest amount of one sub-window, and the largest ceiling.
pub(in crate::counter) const MAX_VALUE: u64 = (1 << VALUE_BITS) - 1;
const TAG_MASK: u64 = (1 << (64 - VALUE_BITS)) - 1;

/// A sum over the last `30 * sub_window_ms` milliseconds, by sub-window.
/// `SLOTS` is at least 32: the current sub-window, the previous ones and one
/// to spare; more of them let amounts stand in sub-windows still to come.
#[derive(Debug)]
pub(in crate::counter) struct Ring<const SLOTS: usize> {
    pub(super) sub_window_ms: u64,
    /// Whether the oldest sub-window counts only by the part not yet passed.
    smooth: bool,
    /// What the window holds.
    pub(super) total: AtomicU64,
    /// The newest sub-window seen.
    newest: AtomicI64,
    /// By sub-window modulo `SLOTS`: a tag (its index modulo 2^24) and an
    /// amount. An empty slot may keep an old tag.
    slots: [AtomicU64; SLOTS],
}

// === impl Ring ===

impl<const SLOTS: usize> Ring<SLOTS> {
    /// The last sub-window after the newest in which an amount may stand.
    pub(super) const AHEAD: i64 = SLOTS as i64 - 32;

    pub(in crate::counter) fn new(length: Duration, smooth: bool) -> Self {
        Self {
            sub_window_ms: sub_window_ms(length),
            smooth,
            total: AtomicU64::new(0),
            newest: AtomicI64::new(0),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// What counts at `now`; the window is there already.
    pub(super) fn counted(&self, now: Timestamp) -> u64 {
        let total = self.total.load(Ordering::Acquire);
        total.saturating_sub(self.passed_part(now))
    }

    /// The newest sub-window seen.
    pub(super) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Acquire)
    }

    /// When nothing counts any more, if nothing else comes; the window is at
    /// `now` already.
    pub(in crate::counter) fn resets_at(&self, now: Timestamp) -> Timestamp {
        let newest = self.newest();
        (newest - PREVIOUS..=newest + Self::AHEAD)
            .rev()
            .find(|index| self.amount_at(*index) > 0)
            .map_or(now, |index| leaves_at(index, self.sub_window_ms).max(now))
    }

    /// Counts an amount in sub-window `index`; `None` when that has left.
    pub(super) fn put(&self, index: i64, amount: u64) -> Option<Booked> {
        self.total.fetch_add(amount, Ordering::AcqRel);
        let booked = self.try_book(index, amount);
        if booked.is_none() {
            self.total.fetch_sub(amount, Ordering::AcqRel);
        }
        booked
    }

    /// Replaces `from` by `to` in sub-window `index`, unless that has left by
    /// `now`. One too far ahead counts in the present one.
    pub(in crate::counter) fn change(&self, index: i64, from: u64, to: u64, now: Timestamp) {
        let newest = self.advance(now);
        // Sub-windows before 1970 were never written.
        if index < 0 || newest - index > PREVIOUS {
            return;
        }
        let far = index - newest > Self::AHEAD;
        if to > from {
            self.put(if far { newest } else { index }, (to - from).min(MAX_VALUE));
        } else {
            self.take_out(index.min(newest + Self::AHEAD), from - to);
        }
    }

    /// What counts at `now`.
    pub(in crate::counter) fn total(&self, now: Timestamp) -> u64 {
        self.advance(now);
        self.counted(now)
    }

    /// What stands in sub-windows after the newest.
    pub(in crate::counter) fn ahead(&self) -> u64 {
        let newest = self.newest();
        (newest + 1..=newest + Self::AHEAD)
            .map(|index| self.amount_at(index))
            .sum()
    }

    /// Takes an amount out of sub-window `index`, and what is not there out of
    /// the ones before: it counts in those while its own is too far ahead.
    fn take_out(&self, index: i64, amount: u64) {
        let oldest = self.newest() - PREVIOUS;
        let mut left = amount;
        for index in (oldest..=index).rev() {
            if left == 0 {
                break;
            }
            let owned = self.unbook(Booked {
                index,
                amount: left,
            });
            self.total.fetch_sub(owned, Ordering::AcqRel);
            left -= owned;
        }
    }

    /// When `part` of the `amount` in sub-window `index` no longer counts.
    pub(super) fn gone_at(&self, index: i64, part: u64, amount: u64) -> Timestamp {
        let leaves_at = leaves_at(index, self.sub_window_ms);
        if !self.smooth {
            return leaves_at;
        }
        // It fades evenly over its last sub-window.
        let left = u128::from(amount - part) * u128::from(self.sub_window_ms);
        let early = u64::try_from(left / u128::from(amount)).unwrap_or(0);
        Timestamp(leaves_at.0.saturating_sub(early))
    }

    /// Moves the window to `now`, and tells the newest sub-window seen.
    pub(super) fn advance(&self, now: Timestamp) -> i64 {
        self.raise(index_of(now, self.sub_window_ms))
    }

    pub(super) fn raise(&self, index: i64) -> i64 {
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
    pub(in crate::counter) fn sweep(&self) {
        let slots = SLOTS as i64;
        for (position, slot) in (0_i64..).zip(&self.slots) {
            let mut word = slot.load(Ordering::Acquire);
            while amount_of(word) > 0 {
                let oldest = self.newest.load(Ordering::Acquire) - PREVIOUS;
                let live = oldest + (position - oldest).rem_euclid(slots);
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
    pub(super) fn take(&self, amount: u64, ceiling: u64, now: Timestamp) -> bool {
        self.exchange(0, amount, ceiling, now)
    }

    /// Puts `more` in the place of `less` in the total unless the window would
    /// hold more than `ceiling`. In one step, so that nobody is admitted in
    /// between.
    pub(super) fn exchange(&self, less: u64, more: u64, ceiling: u64, now: Timestamp) -> bool {
        self.total
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| {
                let sum = total.checked_sub(less)?.checked_add(more)?;
                (sum.saturating_sub(self.passed_part(now)) <= ceiling).then_some(sum)
            })
            .is_ok()
    }

    /// What of the oldest sub-window no longer counts: nothing, or if smooth
    /// the share of the current sub-window that has passed.
    pub(super) fn passed_part(&self, now: Timestamp) -> u64 {
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
    pub(super) fn book(&self, amount: u64) -> Booked {
        loop {
            let newest = self.newest.load(Ordering::Acquire);
            if let Some(booked) = self.try_book(newest, amount) {
                return booked;
            }
        }
    }

    /// Books in sub-window `index`; `None` when it has left the window.
    pub(super) fn try_book(&self, index: i64, amount: u64) -> Option<Booked> {
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
    pub(super) fn unbook(&self, hold: Booked) -> u64 {
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

    pub(super) fn amount_at(&self, index: i64) -> u64 {
        amount_in(self.slot(index), index)
    }

    fn slot(&self, index: i64) -> &AtomicU64 {
        &self.slots[position::<SLOTS>(index)]
    }
}

/// The length of a sub-window; rounded up, so that 30 of them never cover
/// less than the window.
pub(in crate::counter) fn sub_window_ms(length: Duration) -> u64 {
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    length_ms.div_ceil(30).max(1)
}

/// When the sub-window `index` no longer counts at all.
pub(in crate::counter) fn leaves_at(index: i64, sub_window_ms: u64) -> Timestamp {
    let after = u64::try_from(index.saturating_add(PREVIOUS + 1)).unwrap_or(0);
    Timestamp(after.saturating_mul(sub_window_ms))
}

/// The sub-window of an instant.
pub(in crate::counter) fn index_of(now: Timestamp, sub_window_ms: u64) -> i64 {
    i64::try_from(now.0 / sub_window_ms).unwrap_or(i64::MAX)
}

/// What a slot holds of sub-window `index`.
pub(super) fn amount_in(slot: &AtomicU64, index: i64) -> u64 {
    let word = slot.load(Ordering::Acquire);
    if tag_of(word) == tag(index) {
        amount_of(word)
    } else {
        0
    }
}

pub(super) fn position<const SLOTS: usize>(index: i64) -> usize {
    usize::try_from(index.rem_euclid(SLOTS as i64)).unwrap_or(0)
}

pub(super) fn tag(index: i64) -> u64 {
    index.cast_unsigned() & TAG_MASK
}

pub(super) fn tag_of(word: u64) -> u64 {
    word >> VALUE_BITS
}

pub(super) fn amount_of(word: u64) -> u64 {
    word & MAX_VALUE
}

pub(super) fn pack(index: i64, amount: u64) -> u64 {
    tag(index) << VALUE_BITS | amount
}
