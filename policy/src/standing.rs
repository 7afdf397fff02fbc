//! How full a limit is, for response headers and the admin API.

use std::sync::Arc;

use crate::counter::{CounterId, Mode};
use crate::limit::{Enforcement, Limit};
use crate::scope::{ScopeKind, Unit};
use crate::time::Timestamp;
use crate::window::{Period, WindowKind};

/// A limit as it stands at one moment. Amounts are in the limit's unit,
/// nano-dollars for money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The kind of entity the limit belongs to.
    pub scope: ScopeKind,
    /// That entity's name.
    pub name: Arc<str>,
    /// What is counted.
    pub unit: Unit,
    /// The window's length; `None` for requests in flight.
    pub period: Option<Period>,
    /// How the window moves.
    pub window: WindowKind,
    /// The limit's own name.
    pub limit_name: Option<Arc<str>>,
    /// How the limit holds.
    pub enforcement: Enforcement,
    /// What may be reached.
    pub limit: u64,
    /// Settled part, other nodes' included. A hold that outlives a sliding window leaves it like
    /// everything else, so `used + reserved` is what admission counts.
    pub used: u64,
    /// Part held by requests in flight, other nodes' included.
    pub reserved: u64,
    /// What is left to this node.
    pub remaining: u64,
    /// When the limit is full again, if nothing else comes.
    pub resets_at: Timestamp,
    /// Whether `limit` is an override's amount.
    pub overridden: bool,
    /// Whether the limit only counts.
    pub shadow: bool,
    /// How the limit is held among nodes.
    pub mode: Mode,
    /// By how much all nodes together may pass the limit; `None` = not known,
    /// or no other nodes.
    pub overshoot_bound: Option<u64>,
}

// === impl Standing ===

impl Standing {
    pub(crate) fn of(limit: &Limit, now: Timestamp) -> Self {
        let level = limit.counter.level(now);
        let (mode, overshoot_bound) = limit.counter.mode(limit.bound(now));
        Self {
            scope: limit.id.scope,
            name: Arc::clone(&limit.id.entity),
            unit: limit.id.unit,
            period: limit.id.period,
            window: limit.id.window,
            limit_name: limit.id.name.clone(),
            enforcement: limit.enforcement,
            limit: limit.amount_at(now),
            used: level.used,
            reserved: level.reserved,
            remaining: limit.left(&level, now),
            resets_at: level.resets_at,
            overridden: limit.running(now).is_some(),
            shadow: limit.shadow,
            mode,
            overshoot_bound,
        }
    }

    /// The limit's name in the admin API: the counter's text without its
    /// generation, so that a reset does not rename it.
    #[must_use]
    pub fn id_text(&self) -> String {
        CounterId {
            scope: self.scope,
            entity: Arc::clone(&self.name),
            unit: self.unit,
            period: self.period,
            window: self.window,
            name: self.limit_name.clone(),
            generation: 0,
        }
        .to_string()
    }

    /// Whether a smaller part of this limit is left than of the other.
    pub(crate) fn is_tighter_than(&self, other: &Self) -> bool {
        u128::from(self.remaining) * u128::from(other.limit)
            < u128::from(other.remaining) * u128::from(self.limit)
    }
}
