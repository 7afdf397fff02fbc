//! What one request holds on its limits until its real usage is known.
//!
//! Two parts: the limits that judge the request wherever it goes, and those
//! of the upstream choice it goes to, which `move_to` replaces on fail-over.
//!
//! Ends exactly once: `settle` books what was used, `release` and dropping
//! give everything back. Consumed by value, so it cannot end twice.

mod part;

pub(crate) use part::Part;

use crate::admit::{Candidate, take};
use crate::counter::Charge;
use crate::demand::Actual;
use crate::limit::Limit;
use crate::money::{NanoUsd, Tokens};
use crate::scope::Unit;
use crate::snapshot::Snapshot;
use crate::standing::Standing;
use crate::time::Timestamp;
use crate::verdict::Rejection;
use crate::virtual_key::VirtualKey;
use crate::walk;

/// Holds on every limit of one request. Dropping it releases them, and forgets
/// to tell what choices left behind have charged; `release` tells it.
#[must_use]
#[derive(Debug)]
pub struct Reservation {
    /// Held wherever the request goes.
    common: Part,
    /// Held for the upstream choice; empty after a refused move.
    choice: Part,
    /// What choices left behind have charged.
    charges: Vec<Charge>,
    /// What shadow limits would have refused since `take_shadowed`.
    shadowed: Vec<Rejection>,
    admitted_at: Timestamp,
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
    pub(crate) fn new(common: Part, choice: Part, now: Timestamp) -> Self {
        Self {
            common,
            choice,
            charges: Vec::new(),
            shadowed: Vec::new(),
            admitted_at: now,
        }
    }

    /// When the request was admitted.
    #[must_use]
    pub fn admitted_at(&self) -> Timestamp {
        self.admitted_at
    }

    /// Goes to another upstream choice: ends the holds of the one before,
    /// which counts one request if it was `reached` and nothing otherwise, and
    /// takes those of `to`.
    ///
    /// # Errors
    /// The limit of `to` that refused. Nothing is held for a choice then;
    /// another move may follow.
    #[expect(
        clippy::result_large_err,
        reason = "a refusal is moved once, to the caller"
    )]
    pub fn move_to(
        &mut self,
        snapshot: &Snapshot,
        key: &VirtualKey,
        to: &Candidate,
        reached: bool,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        self.leave_choice(reached, now);
        let scopes = walk::of_choice(snapshot, key, to.model);
        let mut shadowed = Vec::new();
        self.choice = take(scopes, &to.demand, now, &mut shadowed)?;
        self.shadowed.append(&mut shadowed);
        Ok(())
    }

    /// Ends the holds of the present choice, which counts one request if it
    /// was `reached` and nothing otherwise. A request that ends without an
    /// answer leaves so a choice that it never got to.
    pub fn leave_choice(&mut self, reached: bool, now: Timestamp) {
        let left = std::mem::replace(&mut self.choice, Part::empty(now));
        let used = Actual {
            requests: u64::from(reached),
            ..Actual::default()
        };
        left.settle(&used, now, &mut self.charges);
    }

    /// What shadow limits would have refused in moves since the last call;
    /// those of the admission are told by `Admitted`.
    #[must_use]
    pub fn take_shadowed(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.shadowed)
    }

    /// Raises the holds of tokens and money to at least these totals of the
    /// request so far. Eventual and shadow limits always follow, strict ones
    /// all or none.
    ///
    /// # Errors
    /// The first strict limit without room; all strict holds stay as they
    /// were.
    #[expect(
        clippy::result_large_err,
        reason = "a refusal is moved once, to the caller"
    )]
    pub fn top_up(
        &mut self,
        tokens: Tokens,
        cost: NanoUsd,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        self.common.follow(tokens, cost, now);
        self.choice.follow(tokens, cost, now);
        let undo = self.common.raise_strict(tokens, cost, now)?;
        if let Err(rejection) = self.choice.raise_strict(tokens, cost, now) {
            self.common.restore(undo, now);
            return Err(rejection);
        }
        Ok(())
    }

    /// Turns the holds into real use, even beyond the limits, and tells what
    /// was booked where, choices left behind included. Zero amounts make no
    /// charge.
    #[must_use = "charges have to be recorded, or a restart forgets them"]
    pub fn settle(mut self, actual: &Actual, now: Timestamp) -> Vec<Charge> {
        let mut charges = std::mem::take(&mut self.charges);
        let common = std::mem::replace(&mut self.common, Part::empty(now));
        let choice = std::mem::replace(&mut self.choice, Part::empty(now));
        common.settle(actual, now, &mut charges);
        choice.settle(actual, now, &mut charges);
        charges
    }

    /// Gives everything back. Nothing is charged but what choices left behind
    /// have used, which is told as by `settle`.
    pub fn release(self, now: Timestamp) -> Vec<Charge> {
        self.settle(&Actual::default(), now)
    }

    /// The most tokens held on any limit; 0 without a limit of tokens.
    #[must_use]
    pub fn held_tokens(&self) -> Tokens {
        Tokens(self.holds(Unit::Tokens).max().unwrap_or(0))
    }

    /// The most money held on any limit; 0 without a budget.
    #[must_use]
    pub fn held_cost(&self) -> NanoUsd {
        NanoUsd(self.holds(Unit::Usd).max().unwrap_or(0))
    }

    /// The tightest limits of requests and of tokens: those with the smallest
    /// part left, this request's own hold included. Shadow limits are left
    /// out.
    #[must_use]
    pub fn standings(&self, now: Timestamp) -> Tightest {
        let mut tightest = Tightest::default();
        for limit in self.limits().filter(|limit| !limit.shadow) {
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

    /// Every limit this request holds on, in walk order.
    #[must_use]
    pub fn all_standings(&self, now: Timestamp) -> Vec<Standing> {
        self.limits().map(|limit| limit.standing(now)).collect()
    }

    fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.common.limits().chain(self.choice.limits())
    }

    /// The amounts held on limits of `unit`.
    pub(crate) fn holds(&self, unit: Unit) -> impl Iterator<Item = u64> {
        self.common.holds(unit).chain(self.choice.holds(unit))
    }
}

#[cfg(test)]
mod tests;
