//! Holds on the limits of some scopes of one request.

use std::sync::Arc;

use crate::admit::no_room_for;
use crate::counter::{Charge, Hold};
use crate::demand::Actual;
use crate::limit::{Enforcement, Limit};
use crate::money::{NanoUsd, Tokens};
use crate::scope::{Scope, Unit};
use crate::time::Timestamp;
use crate::verdict::Rejection;

/// Holds in walk order. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct Part {
    held: Vec<Held>,
    taken_at: Timestamp,
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

/// The amounts that raised holds had before, by position, for `restore`.
pub(super) type Undo = Vec<(usize, u64)>;

// === impl Part ===

impl Part {
    pub(crate) fn empty(now: Timestamp) -> Self {
        Self {
            held: Vec::new(),
            taken_at: now,
        }
    }

    pub(crate) fn push(&mut self, scope: &Arc<Scope>, index: usize, hold: Hold) {
        self.held.push(Held {
            scope: Arc::clone(scope),
            index,
            hold,
        });
    }

    /// Books what was used; charges go to `charges`.
    pub(super) fn settle(mut self, actual: &Actual, now: Timestamp, charges: &mut Vec<Charge>) {
        for Held { scope, index, hold } in std::mem::take(&mut self.held) {
            let limit = &scope.limits[index];
            let amount = match limit.id.unit {
                Unit::Requests => actual.requests,
                Unit::Tokens => actual.tokens.0,
                Unit::Usd => actual.cost.0,
                Unit::Concurrent => 0,
            };
            charges.extend(limit.counter.settle(hold, amount, now));
        }
    }

    /// Gives everything back.
    pub(crate) fn release(mut self, now: Timestamp) {
        self.give_back(now);
    }

    /// Raises the holds that never refuse to at least these totals.
    pub(super) fn follow(&mut self, tokens: Tokens, cost: NanoUsd, now: Timestamp) {
        for held in &mut self.held {
            let limit = &held.scope.limits[held.index];
            let follows = limit.shadow || limit.enforcement == Enforcement::Eventual;
            if let Some(total) = total_of(limit.id.unit, tokens, cost).filter(|_| follows) {
                limit.counter.top_up(&mut held.hold, total, now);
            }
        }
    }

    /// Raises the strict holds to at least these totals, all or none.
    #[expect(
        clippy::result_large_err,
        reason = "a refusal is moved once, to the caller"
    )]
    pub(super) fn raise_strict(
        &mut self,
        tokens: Tokens,
        cost: NanoUsd,
        now: Timestamp,
    ) -> Result<Undo, Rejection> {
        let mut undo = Undo::new();
        for (position, held) in self.held.iter_mut().enumerate() {
            let limit = &held.scope.limits[held.index];
            let strict = !limit.shadow && limit.enforcement == Enforcement::Strict;
            let Some(total) = total_of(limit.id.unit, tokens, cost).filter(|_| strict) else {
                continue;
            };
            let before = limit.counter.held_now(&held.hold, now);
            let bound = limit.bound(now);
            if !limit
                .counter
                .top_up_within(&mut held.hold, total, bound, now)
            {
                let rejection = no_room_for(limit, total, now);
                self.restore(undo, now);
                return Err(rejection);
            }
            undo.push((position, before));
        }
        Ok(undo)
    }

    /// Takes raised holds back to what they were.
    pub(super) fn restore(&mut self, undo: Undo, now: Timestamp) {
        for (position, before) in undo {
            let held = &mut self.held[position];
            let limit = &held.scope.limits[held.index];
            limit.counter.lower(&mut held.hold, before, now);
        }
    }

    pub(super) fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.held.iter().map(|held| &held.scope.limits[held.index])
    }

    /// The amounts held on limits of `unit`.
    pub(super) fn holds(&self, unit: Unit) -> impl Iterator<Item = u64> {
        self.held
            .iter()
            .filter(move |held| held.scope.limits[held.index].id.unit == unit)
            .map(|held| held.hold.amount())
    }

    fn give_back(&mut self, now: Timestamp) {
        // Last taken, first returned.
        while let Some(Held { scope, index, hold }) = self.held.pop() {
            scope.limits[index].counter.release(hold, now);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.give_back(self.taken_at);
    }
}

/// What a request has used so far of a unit that grows while it runs.
fn total_of(unit: Unit, tokens: Tokens, cost: NanoUsd) -> Option<u64> {
    match unit {
        Unit::Tokens => Some(tokens.0),
        Unit::Usd => Some(cost.0),
        Unit::Requests | Unit::Concurrent => None,
    }
}
