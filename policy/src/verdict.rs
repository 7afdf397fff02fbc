//! The outcome of judging a request against its limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::counter::CounterId;
use crate::limit::{Enforcement, OnTight};
use crate::money::NanoUsd;
use crate::reservation::Reservation;
use crate::scope::{ScopeKind, Unit};
use crate::time::Timestamp;
use crate::window::{Period, WindowKind};

/// Whether a request may run.
#[must_use]
#[derive(Debug)]
pub enum Verdict {
    /// It may.
    Admit(Admitted),
    /// It may not; nothing is held.
    Reject(Rejection),
}

/// A request that may run.
#[derive(Debug)]
pub struct Admitted {
    /// What it holds until it is settled or released.
    pub reservation: Reservation,
    /// The first candidate with room, by its position.
    pub chosen: usize,
    /// What shadow limits would have refused.
    pub shadowed: Vec<Rejection>,
}

/// Which kind of limit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionKind {
    /// Requests, tokens or requests in flight.
    RateLimit,
    /// Money.
    Budget,
    /// More than the whole of a strict limit: waiting does not help.
    TooLargeForLimit {
        /// The largest `max_tokens` with which it fits an unused limit;
        /// `None` when the prompt alone is too large.
        max_tokens_that_fits: Option<u64>,
    },
}

/// The first limit that refused, as it stood at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which kind of limit.
    pub kind: RejectionKind,
    /// The kind of entity the limit belongs to.
    pub scope: ScopeKind,
    /// Its name.
    pub entity: Arc<str>,
    /// What the limit counts.
    pub unit: Unit,
    /// The window's length; `None` for requests in flight.
    pub period: Option<Period>,
    /// How the window moves.
    pub window: WindowKind,
    /// The limit's own name.
    pub name: Option<Arc<str>>,
    /// How the limit holds.
    pub enforcement: Enforcement,
    /// What a strict limit of tokens or money does near its end.
    pub on_tight: OnTight,
    /// For a strict limit of tokens or money: the largest `max_tokens` with
    /// which the request fits what is left now.
    pub max_tokens_left: Option<u64>,
    /// The limit in its unit (nano-dollars for money).
    pub limit: u64,
    /// Settled part.
    pub used: u64,
    /// Part held by requests in flight.
    pub reserved: u64,
    /// What this request asked for.
    pub asked: u64,
    /// Until this request would fit, if nothing else comes.
    pub retry_after: Duration,
    /// When the limit is full again, if nothing else comes.
    pub resets_at: Timestamp,
}

// === impl Rejection ===

impl Rejection {
    /// `scope/entity/unit/every`, with the limit's name after it if it has
    /// one; `every` is left out for requests in flight.
    #[must_use]
    pub fn limit_label(&self) -> String {
        let mut label = format!("{}/{}/{}", self.scope, self.entity, self.unit);
        if let Some(period) = &self.period {
            label.push_str(&format!("/{period}"));
        }
        if let Some(name) = &self.name {
            label.push_str(&format!("/{name}"));
        }
        label
    }

    /// The limit's name in the admin API: the counter's text without its
    /// generation, so that a reset does not rename it.
    #[must_use]
    pub fn id_text(&self) -> String {
        CounterId {
            scope: self.scope,
            entity: Arc::clone(&self.entity),
            unit: self.unit,
            period: self.period,
            window: self.window,
            name: self.name.clone(),
            generation: 0,
        }
        .to_string()
    }

    /// An amount in the words of the unit: `$1.25`, `12 tokens`.
    fn amount(&self, amount: u64) -> String {
        match (self.unit, amount) {
            (Unit::Usd, _) => NanoUsd(amount).to_string(),
            (Unit::Tokens, _) => format!("{amount} tokens"),
            (Unit::Requests, _) => format!("{amount} requests"),
            (Unit::Concurrent, _) => format!("{amount} concurrent requests"),
        }
    }

    /// The same without the unit's word.
    fn plain(&self, amount: u64) -> String {
        match self.unit {
            Unit::Usd => NanoUsd(amount).to_string(),
            _ => amount.to_string(),
        }
    }

    /// `limit of 10 requests per 1m`.
    fn noun(&self) -> String {
        let word = if self.unit == Unit::Usd {
            "budget"
        } else {
            "limit"
        };
        let mut noun = format!("{word} of {}", self.amount(self.limit));
        if let Some(period) = &self.period {
            noun.push_str(&format!(" per {period}"));
        }
        if let Some(name) = &self.name {
            noun.push_str(&format!(" ({name})"));
        }
        noun
    }
}

/// A sentence for the client: whose limit, which, how full, until when.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}': ", self.scope.words(), self.entity)?;
        if let RejectionKind::TooLargeForLimit {
            max_tokens_that_fits,
        } = self.kind
        {
            let (asked, noun) = (self.amount(self.asked), self.noun());
            write!(
                f,
                "this request may use {asked}, more than the whole {noun}"
            )?;
            return match max_tokens_that_fits {
                Some(tokens) => write!(f, "; it fits with max_tokens of at most {tokens}"),
                None => f.write_str("; its prompt alone is too large"),
            };
        }
        let taken = self.used.saturating_add(self.reserved);
        let noun = self.noun();
        if taken >= self.limit {
            write!(f, "{noun} is used up (")?;
        } else {
            let left = self.plain(self.limit - taken);
            let asked = self.plain(self.asked);
            write!(f, "{noun} has {left} left and this request needs {asked} (")?;
        }
        write!(f, "{} used", self.plain(self.used))?;
        if self.reserved > 0 {
            write!(f, ", {} reserved", self.plain(self.reserved))?;
        }
        f.write_str(")")?;
        if self.unit != Unit::Concurrent {
            write!(f, ", resets at {}", self.resets_at)?;
        }
        Ok(())
    }
}
