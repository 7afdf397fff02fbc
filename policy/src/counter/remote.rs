//! What others have on one counter. It counts beside the own amounts and
//! leaves with its own window, without any call.

use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::CounterId;
use super::sliding::Others;
use crate::time::Timestamp;
use crate::window::WindowKind;

/// The three ways to count, as in `Counter`.
#[derive(Debug)]
pub(super) enum Remote {
    Sliding(Box<Others>),
    Period(Periods),
    Gauge(AtomicU64),
}

/// Amounts by epoch of periods. Few: the present one, and the next ones of
/// nodes whose clock is ahead.
#[derive(Debug, Default)]
pub(super) struct Periods {
    /// Sorted by epoch, no amount zero.
    amounts: ArcSwap<Vec<(i64, u64)>>,
}

/// How many epochs are told apart; more come only from clocks that are wrong
/// by many periods, and count in the last one.
const MOST_EPOCHS: usize = 32;

// === impl Remote ===

impl Remote {
    pub(super) fn new(id: &CounterId) -> Self {
        match (id.length(), id.window) {
            (None, _) => Self::Gauge(AtomicU64::new(0)),
            (Some(period), WindowKind::Sliding | WindowKind::Smooth) => {
                let smooth = id.window == WindowKind::Smooth;
                Self::Sliding(Box::new(Others::new(period.longest(), smooth)))
            }
            (Some(_), WindowKind::Fixed | WindowKind::Calendar) => Self::Period(Periods::default()),
        }
    }

    /// Replaces `from` by `to` in an epoch, unless that has passed; `present`
    /// is the newest epoch of a counter of periods.
    pub(super) fn change(&self, epoch: i64, from: u64, to: u64, present: i64, now: Timestamp) {
        match self {
            Self::Sliding(others) => others.change(epoch, from, to, now),
            Self::Period(periods) => periods.change(epoch, from, to, present),
            Self::Gauge(count) => {
                count
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                        Some(replaced(count, from, to))
                    })
                    .expect("the closure always gives a value");
            }
        }
    }

    /// What counts at `now`.
    pub(super) fn total(&self, present: i64, now: Timestamp) -> u64 {
        match self {
            Self::Sliding(others) => others.total(now),
            Self::Period(periods) => periods.total(present),
            Self::Gauge(count) => count.load(Ordering::Acquire),
        }
    }

    /// What of that stands in epochs after the present one.
    pub(super) fn ahead(&self, present: i64) -> u64 {
        match self {
            Self::Sliding(others) => others.ahead(),
            Self::Period(periods) => periods.total(present.saturating_add(1)),
            Self::Gauge(_) => 0,
        }
    }
}

// === impl Periods ===

impl Periods {
    fn change(&self, epoch: i64, from: u64, to: u64, present: i64) {
        if epoch < present || from == to {
            return;
        }
        self.amounts.rcu(|amounts| {
            let mut next: Vec<_> = amounts
                .iter()
                .copied()
                .filter(|(epoch, _)| *epoch >= present)
                .collect();
            change_in(&mut next, epoch, from, to);
            next
        });
    }

    fn total(&self, present: i64) -> u64 {
        self.amounts
            .load()
            .iter()
            .filter(|(epoch, _)| *epoch >= present)
            .fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }
}

fn change_in(amounts: &mut Vec<(i64, u64)>, epoch: i64, from: u64, to: u64) {
    match amounts.binary_search_by_key(&epoch, |(epoch, _)| *epoch) {
        Ok(place) => {
            let amount = &mut amounts[place].1;
            *amount = amount.saturating_add(to.saturating_sub(from));
        }
        Err(_) if amounts.len() >= MOST_EPOCHS => {
            if let Some((_, last)) = amounts.last_mut() {
                *last = last.saturating_add(to.saturating_sub(from));
            }
        }
        Err(place) => amounts.insert(place, (epoch, to.saturating_sub(from))),
    }
    // Out of its own epoch first, then out of the last ones: it counts there
    // when there were too many.
    let own = amounts.iter().position(|(other, _)| *other == epoch);
    let mut left = from.saturating_sub(to);
    for place in own.into_iter().chain((0..amounts.len()).rev()) {
        let part = left.min(amounts[place].1);
        amounts[place].1 -= part;
        left -= part;
    }
    amounts.retain(|(_, amount)| *amount > 0);
}

fn replaced(amount: u64, from: u64, to: u64) -> u64 {
    amount
        .saturating_add(to.saturating_sub(from))
        .saturating_sub(from.saturating_sub(to))
}
