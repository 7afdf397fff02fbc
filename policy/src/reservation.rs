//! What one request holds on its limits until its real usage is known.
//!
//! Ends exactly once: `settle` books what was used, `release` and dropping
//! give everything back. Consumed by value, so it cannot end twice.

use std::sync::Arc;

use crate::counter::{Charge, Hold};
use crate::demand::Actual;
use crate::limit::Limit;
use crate::scope::{Scope, Unit};
use crate::standing::Standing;
use crate::time::Timestamp;

/// Holds on every limit of one request. Dropping it releases them.
#[must_use]
#[derive(Debug)]
pub struct Reservation {
    /// In walk order; empty once ended.
    held: Vec<Held>,
    admitted_at: Timestamp,
}

/// One hold on one limit.
#[derive(Debug)]
struct Held {
    /// Keeps the limit alive across a reload.
    scope: Arc<Scope>,
    /// Position in `scope.limits`.
    index: usize,
    hold: Hold,
}

/// The limits nearest to their end, for the rate-limit headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tightest {
    /// Among limits of requests.
    pub requests: Option<Standing>,
    /// Among limits of tokens.
    pub tokens: Option<Standing>,
}

// === impl Reservation ===

impl Reservation {
    pub(crate) fn empty(now: Timestamp) -> Self {
        Self {
            held: Vec::new(),
            admitted_at: now,
        }
    }

    pub(crate) fn push(&mut self, scope: &Arc<Scope>, index: usize, hold: Hold) {
        self.held.push(Held {
            scope: Arc::clone(scope),
            index,
            hold,
        });
    }

    /// When the request was admitted.
    #[must_use]
    pub fn admitted_at(&self) -> Timestamp {
        self.admitted_at
    }

    /// Turns the holds into real use, even beyond the limits, and tells what
    /// was booked where. Zero amounts make no charge.
    #[must_use = "charges have to be recorded, or a restart forgets them"]
    pub fn settle(mut self, actual: &Actual, now: Timestamp) -> Vec<Charge> {
        std::mem::take(&mut self.held)
            .into_iter()
            .filter_map(|Held { scope, index, hold }| {
                let limit = &scope.limits[index];
                let amount = match limit.id.unit {
                    Unit::Requests => actual.requests,
                    Unit::Tokens => actual.tokens.0,
                    Unit::Usd => actual.cost.0,
                    Unit::Concurrent => 0,
                };
                limit.counter.settle(hold, amount, now)
            })
            .collect()
    }

    /// Gives everything back; nothing is charged.
    pub fn release(mut self, now: Timestamp) {
        self.give_back(now);
    }

    /// The tightest limits of requests and of tokens: those with the smallest
    /// part left, this request's own hold included.
    #[must_use]
    pub fn standings(&self, now: Timestamp) -> Tightest {
        let mut tightest = Tightest::default();
        for held in &self.held {
            let limit = held.limit();
            let place = match limit.id.unit {
                Unit::Requests => &mut tightest.requests,
                Unit::Tokens => &mut tightest.tokens,
                Unit::Concurrent | Unit::Usd => continue,
            };
            let standing = limit.standing(now);
            if place
                .as_ref()
                .is_none_or(|other| standing.is_tighter_than(other))
            {
                *place = Some(standing);
            }
        }
        tightest
    }

    fn give_back(&mut self, now: Timestamp) {
        // Last taken, first returned.
        while let Some(Held { scope, index, hold }) = self.held.pop() {
            scope.limits[index].counter.release(hold, now);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.admitted_at);
    }
}

// === impl Held ===

impl Held {
    fn limit(&self) -> &Limit {
        &self.scope.limits[self.index]
    }
}
