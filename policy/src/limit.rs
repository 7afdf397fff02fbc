//! One limit: an amount on a counter.

use std::sync::Arc;

use crate::counter::{Bound, Counter, CounterId, Level};
use crate::demand::Demand;
use crate::scope::Unit;
use crate::standing::Standing;
use crate::time::Timestamp;

/// How much a limit holds for a request before its real usage is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// A likely amount; a request larger than the limit passes alone.
    Eventual,
    /// The largest amount the request can use.
    Strict,
}

/// What a strict limit of tokens or money does with a request that asks for
/// more than it has. Other limits always refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnTight {
    /// Refuses it.
    #[default]
    Refuse,
    /// Lets the caller ask again with a smaller answer, where one fits
    /// (`Rejection::max_tokens_left`).
    Clamp,
}

/// Another amount in the place of a limit's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Requests, tokens or nano-dollars.
    pub amount: u64,
    /// The first instant at which the limit's own amount holds again; `None`
    /// = for ever.
    pub until: Option<Timestamp>,
}

/// An amount that a counter may reach.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The identity of the counter; the amount is no part of it.
    pub id: CounterId,
    /// Requests, tokens or nano-dollars, by `id.unit`; what holds at a moment
    /// is `amount_at`.
    pub amount: u64,
    /// How much is held.
    pub enforcement: Enforcement,
    /// The count, shared by every snapshot that has this limit.
    pub counter: Arc<Counter>,
    /// Counts everything and refuses nothing.
    pub shadow: bool,
    /// What happens near its end.
    pub on_tight: OnTight,
    /// Another amount for a while.
    pub overridden: Option<Override>,
}

// === impl Limit ===

impl Limit {
    /// How full the limit is at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        Standing::of(self, now)
    }

    /// The amount that holds at `now`: its own, or that of a running override.
    #[must_use]
    pub fn amount_at(&self, now: Timestamp) -> u64 {
        self.running(now)
            .map_or(self.amount, |running| running.amount)
    }

    /// The override that holds at `now`.
    pub(crate) fn running(&self, now: Timestamp) -> Option<Override> {
        self.overridden
            .filter(|other| other.until.is_none_or(|until| now < until))
    }

    /// What the counter may reach: the amount at `now`, or less where the
    /// counter was lowered.
    pub(crate) fn ceiling(&self, now: Timestamp) -> u64 {
        self.counter.ceiling(self.bound(now))
    }

    /// The amount at `now` and how it holds, for the counter.
    pub(crate) fn bound(&self, now: Timestamp) -> Bound {
        Bound {
            amount: self.amount_at(now),
            enforcement: self.enforcement,
        }
    }

    /// What is left at `now` on a counter that stands at `level`.
    pub(crate) fn left(&self, level: &Level, now: Timestamp) -> u64 {
        self.counter
            .own_ceiling(self.bound(now), now)
            .saturating_sub(level.own)
    }

    /// What `demand` asks of this limit; zero = this limit is not concerned.
    pub(crate) fn asked(&self, demand: &Demand) -> u64 {
        match (self.id.unit, self.enforcement) {
            (Unit::Requests | Unit::Concurrent, _) => 1,
            (Unit::Tokens, Enforcement::Eventual) => demand.tokens.0,
            (Unit::Tokens, Enforcement::Strict) => demand.strict_tokens.0,
            (Unit::Usd, Enforcement::Eventual) => demand.cost.0,
            (Unit::Usd, Enforcement::Strict) => demand.strict_cost.0,
        }
    }
}
