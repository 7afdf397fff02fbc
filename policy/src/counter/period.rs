//! Counts of whole periods: budgets and rate limits of kind `fixed`.
//!
//! A new period is a new `PeriodCount`, swapped in by whoever sees it first.
//! A hold keeps the count it was taken on, so a request is settled into the
//! period of its admission however long it runs. Time that steps backwards
//! stays on the newest period.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::time::Timestamp;
use crate::window::Period;

/// The count of the newest period.
#[derive(Debug)]
pub(super) struct Periodic {
    period: Period,
    newest: ArcSwap<PeriodCount>,
}

/// The count of one period.
#[derive(Debug)]
pub(crate) struct PeriodCount {
    epoch: i64,
    /// Settled and held together: the number admission compares.
    total: AtomicU64,
    /// The held part, for show.
    held: AtomicU64,
    /// The settled part, for the store. It lags behind the total and is never
    /// more.
    settled: AtomicU64,
}

// === impl Periodic ===

impl Periodic {
    pub(super) fn new(period: Period) -> Self {
        Self {
            period,
            newest: ArcSwap::from_pointee(PeriodCount::new(i64::MIN)),
        }
    }

    /// Takes `amount` in the period of `now` unless its total would pass
    /// `ceiling`. Zero is always given.
    pub(super) fn reserve(
        &self,
        amount: u64,
        ceiling: u64,
        now: Timestamp,
    ) -> Option<Arc<PeriodCount>> {
        let count = self.enter(self.period.epoch(now));
        count.reserve(amount, ceiling).then_some(count)
    }

    /// Takes `amount` in the period of `now`, even beyond every ceiling, and
    /// tells how much of it could be counted.
    pub(super) fn hold_always(&self, amount: u64, now: Timestamp) -> (Arc<PeriodCount>, u64) {
        let count = self.enter(self.period.epoch(now));
        let mut held = 0;
        count.resize(&mut held, amount, u64::MAX);
        (count, held)
    }

    /// Settled and held amounts, and when the period ends.
    pub(super) fn level(&self, now: Timestamp) -> (u64, u64, Timestamp) {
        let count = self.enter(self.period.epoch(now));
        let total = count.total.load(Ordering::Acquire);
        let held = count.held.load(Ordering::Acquire).min(total);
        (total - held, held, self.end(&count).max(now))
    }

    /// When `amount` fits: now, or at the end of the period.
    pub(super) fn fits_at(&self, amount: u64, ceiling: u64, now: Timestamp) -> Timestamp {
        let count = self.enter(self.period.epoch(now));
        let total = count.total.load(Ordering::Acquire);
        match total.checked_add(amount) {
            Some(sum) if sum <= ceiling => now,
            _ => self.end(&count).max(now),
        }
    }

    /// Puts a stored amount back, unless its period has passed.
    pub(super) fn restore(&self, epoch: i64, amount: u64) {
        let count = self.enter(epoch);
        if count.epoch == epoch {
            count.change(0, amount);
            count.grow_settled(|settled| settled.saturating_add(amount));
        }
    }

    /// Makes the settled amount of a period at least `amount`, unless it has
    /// passed.
    pub(super) fn raise_settled(&self, epoch: i64, amount: u64) {
        let count = self.enter(epoch);
        if count.epoch == epoch {
            let missing = count.grow_settled(|settled| settled.max(amount));
            count.change(0, missing);
        }
    }

    /// The settled amount of the newest period if that has not ended: epoch,
    /// amount and end.
    pub(super) fn settled(&self, now: Timestamp) -> Option<(i64, u64, Timestamp)> {
        let count = self.newest.load();
        let amount = count.settled.load(Ordering::Acquire);
        let end = self.end(&count);
        (amount > 0 && now < end).then_some((count.epoch, amount, end))
    }

    /// The newest period, with what is settled and held in it, and its end;
    /// `None` when that is nothing.
    pub(super) fn live(&self, now: Timestamp) -> Option<(i64, u64, u64, Timestamp)> {
        let count = self.enter(self.period.epoch(now));
        // The settled part first: meanwhile the total loses holds only.
        let settled = count.settled.load(Ordering::Acquire);
        let total = count.total.load(Ordering::Acquire).max(settled);
        (total > 0).then(|| (count.epoch, settled, total - settled, self.end(&count)))
    }

    /// What counts at `now`, settled and held.
    pub(super) fn total(&self, now: Timestamp) -> u64 {
        let count = self.enter(self.period.epoch(now));
        count.total.load(Ordering::Acquire)
    }

    /// The period that counts at `now`.
    pub(super) fn present(&self, now: Timestamp) -> i64 {
        self.enter(self.period.epoch(now)).epoch
    }

    pub(super) fn end(&self, count: &PeriodCount) -> Timestamp {
        self.period.end(count.epoch)
    }

    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        let (used, held, _) = self.level(now);
        used == 0 && held == 0
    }

    /// The count of period `epoch`, or of a newer one that has begun.
    fn enter(&self, epoch: i64) -> Arc<PeriodCount> {
        loop {
            let newest = self.newest.load();
            if newest.epoch >= epoch {
                return Guard::into_inner(newest);
            }
            // Whoever loses the race finds the winner's count next time round.
            let fresh = Arc::new(PeriodCount::new(epoch));
            self.newest.compare_and_swap(&newest, fresh);
        }
    }
}

// === impl PeriodCount ===

impl PeriodCount {
    fn new(epoch: i64) -> Self {
        Self {
            epoch,
            total: AtomicU64::new(0),
            held: AtomicU64::new(0),
            settled: AtomicU64::new(0),
        }
    }

    pub(super) fn epoch(&self) -> i64 {
        self.epoch
    }

    fn reserve(&self, amount: u64, ceiling: u64) -> bool {
        if amount == 0 {
            return true;
        }
        let taken = self
            .total
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| {
                total.checked_add(amount).filter(|sum| *sum <= ceiling)
            });
        if taken.is_ok() {
            self.held.fetch_add(amount, Ordering::AcqRel);
        }
        taken.is_ok()
    }

    /// Makes a hold `to` large unless the total would pass `ceiling`; `false`
    /// if so, and it stays. Without a ceiling (`u64::MAX`) it becomes as large
    /// as can be counted.
    pub(super) fn resize(&self, hold: &mut u64, to: u64, ceiling: u64) -> bool {
        let changed = self
            .total
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| {
                let sum = total.saturating_sub(*hold).saturating_add(to);
                (sum <= ceiling).then_some(sum)
            });
        let Ok(before) = changed else {
            return false;
        };
        let counted = to.min(u64::MAX - before.saturating_sub(*hold));
        self.held.fetch_add(counted, Ordering::AcqRel);
        self.held.fetch_sub(*hold, Ordering::AcqRel);
        *hold = counted;
        true
    }

    /// Replaces a hold by what was used; `used` 0 releases it.
    pub(super) fn settle(&self, hold: u64, used: u64) {
        self.held.fetch_sub(hold, Ordering::AcqRel);
        self.change(hold, used);
        self.grow_settled(|settled| settled.saturating_add(used));
    }

    /// Replaces the settled amount and tells by how much it grew.
    fn grow_settled(&self, change: impl Fn(u64) -> u64) -> u64 {
        let before = self
            .settled
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |settled| {
                Some(change(settled))
            })
            .expect("the closure always gives a value");
        change(before) - before
    }

    /// One step, so that nobody is admitted between giving back and booking.
    fn change(&self, less: u64, more: u64) {
        self.total
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| {
                Some(total.saturating_sub(less).saturating_add(more))
            })
            .expect("the closure always gives a value");
    }
}
