//! One limit: an amount on a counter.

use std::sync::Arc;

use crate::counter::{Counter, CounterId};
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

/// An amount that a counter may reach.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The identity of the counter; the amount is no part of it.
    pub id: CounterId,
    /// Requests, tokens or nano-dollars, by `id.unit`.
    pub amount: u64,
    /// How much is held.
    pub enforcement: Enforcement,
    /// The count, shared by every snapshot that has this limit.
    pub counter: Arc<Counter>,
}

// === impl Limit ===

impl Limit {
    /// How full the limit is at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        Standing::of(self, now)
    }

    /// What the counter may reach: the amount, or less where the counter was
    /// lowered.
    pub(crate) fn ceiling(&self) -> u64 {
        self.counter.ceiling(self.amount)
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
