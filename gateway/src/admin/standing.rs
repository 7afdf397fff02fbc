//! Where limits stand, as every answer shows it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use policy::{Enforcement, Mode, NanoUsd, Scope, Snapshot, Standing, Timestamp, Unit, VirtualKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entities::{Kind, Shown};

/// One of a few words.
type Word = Cow<'static, str>;

/// A limit and how full it is. Money is exact in both forms: dollars as a
/// decimal text, and nano-dollars as an integer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitStanding {
    /// Its name in resets and overrides.
    pub id: String,
    /// The kind of entity that it belongs to.
    scope: Word,
    /// That entity's name.
    name: String,
    /// What it counts: requests, tokens, concurrent or usd.
    unit: Word,
    /// The window's length; null for requests in flight.
    every: Option<String>,
    /// How the window moves.
    window: Word,
    /// The limit's own name.
    limit_name: Option<String>,
    /// What may be reached.
    limit: Amount,
    /// What is settled.
    used: Amount,
    /// What requests in flight hold.
    reserved: Amount,
    /// What is left.
    remaining: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_nano_usd: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_nano_usd: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserved_nano_usd: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remaining_nano_usd: Option<u64>,
    /// When the limit is full again, if nothing else comes.
    resets_at: String,
    /// `eventual` or `strict`.
    enforcement: Word,
    /// How it is held: `single` is this node alone; in a cluster `live` counts
    /// all nodes, `guard_band` gives each a part of the rest, `share` each side
    /// of a split its part, `divided` each node its part of the whole.
    mode: Word,
    /// How much more than the limit may be admitted by all nodes together; null
    /// where that is not known yet.
    overshoot_bound: Option<Amount>,
    /// Whether an answer may turn out larger than what was held for it: then
    /// the limit is passed by what is in flight, which no bound on admission
    /// shows.
    answers_may_exceed_hold: bool,
    /// Whether an override stands in for the limit's own amount.
    overridden: bool,
    /// Whether it counts without refusing.
    shadow: bool,
}

/// An integer, or dollars as a decimal text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Amount {
    /// Requests or tokens.
    Count(u64),
    /// US dollars, exact.
    Usd(String),
}

/// An amount of nano-dollars or of anything else, by `unit`.
pub(crate) fn amount(unit: Unit, amount: u64) -> Amount {
    match unit {
        Unit::Usd => Amount::Usd(dollars(NanoUsd(amount))),
        _ => Amount::Count(amount),
    }
}

/// `$0.05` or `12`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Usd(dollars) => write!(f, "${dollars}"),
        }
    }
}

/// `team/search/tokens/1m/sliding: 40 of 5000 left until 2026-…`.
impl fmt::Display for LimitStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, left, limit, until) = (&self.id, &self.remaining, &self.limit, &self.resets_at);
        write!(f, "{id}: {left} of {limit} left until {until}")
    }
}

impl LimitStanding {
    /// Whether it counts without refusing.
    pub fn is_shadow(&self) -> bool {
        self.shadow
    }
}

impl From<&Standing> for LimitStanding {
    fn from(standing: &Standing) -> Self {
        let amount = |settled| amount(standing.unit, settled);
        let exact = |amount| (standing.unit == Unit::Usd).then_some(amount);
        LimitStanding {
            id: standing.id_text(),
            scope: standing.scope.as_str().into(),
            name: standing.name.as_ref().to_owned(),
            unit: standing.unit.as_str().into(),
            every: standing.period.map(|period| period.to_string()),
            window: standing.window.as_str().into(),
            limit_name: standing.limit_name.as_deref().map(str::to_owned),
            limit: amount(standing.limit),
            used: amount(standing.used),
            reserved: amount(standing.reserved),
            remaining: amount(standing.remaining),
            limit_nano_usd: exact(standing.limit),
            used_nano_usd: exact(standing.used),
            reserved_nano_usd: exact(standing.reserved),
            remaining_nano_usd: exact(standing.remaining),
            resets_at: standing.resets_at.to_rfc3339(),
            enforcement: match standing.enforcement {
                Enforcement::Eventual => "eventual".into(),
                Enforcement::Strict => "strict".into(),
            },
            mode: standing.mode.as_str().into(),
            overshoot_bound: match standing.mode {
                // This node alone counts: no request is admitted past the limit.
                Mode::Single => Some(amount(0)),
                _ => standing.overshoot_bound.map(amount),
            },
            answers_may_exceed_hold: standing.enforcement == Enforcement::Eventual
                && matches!(standing.unit, Unit::Tokens | Unit::Usd),
            overridden: standing.overridden,
            shadow: standing.shadow,
        }
    }
}

/// Where the limits of one scope stand.
pub(super) fn of_scope(scope: &Scope, now: Timestamp) -> impl Iterator<Item = LimitStanding> {
    scope
        .limits
        .iter()
        .map(move |limit| LimitStanding::from(&limit.standing(now)))
}

/// Where the limits of an entity stand; of a virtual key, those of everything
/// that its requests pass whatever their model.
pub(super) fn of_entity(snapshot: &Snapshot, shown: &Shown, now: Timestamp) -> Vec<LimitStanding> {
    let scopes: Vec<&Arc<Scope>> = match shown.kind {
        Kind::VirtualKey => match snapshot.key_named(&shown.name) {
            Some(key) => walk_of(snapshot, key),
            None => Vec::new(),
        },
        Kind::Team => one(snapshot
            .team(&shown.name)
            .and_then(|team| team.scope.as_ref())),
        Kind::Customer => {
            let customer = snapshot.customer(&shown.name);
            one(customer.and_then(|customer| customer.scope.as_ref()))
        }
        Kind::Provider => {
            let provider = snapshot.provider_named(&shown.name);
            one(provider.and_then(|id| snapshot.provider(id).scope.as_ref()))
        }
        Kind::Model => {
            let model = shown.name.split_once('/');
            let model = model.and_then(|(provider, model)| snapshot.model_of(provider, model));
            one(model.and_then(|id| snapshot.model(id).scope.as_ref()))
        }
        Kind::RoutingRule | Kind::AdminToken | Kind::Role => Vec::new(),
        Kind::LimitOverride => return super::limits::find(snapshot, &shown.name, now),
    };
    let standings = scopes.into_iter().flat_map(|scope| of_scope(scope, now));
    standings.collect()
}

fn one(scope: Option<&Arc<Scope>>) -> Vec<&Arc<Scope>> {
    scope.into_iter().collect()
}

/// The key's own limits, those of its team and customer, the gateway's, and
/// those of the key at each of its providers.
fn walk_of<'a>(snapshot: &'a Snapshot, key: &'a VirtualKey) -> Vec<&'a Arc<Scope>> {
    let team = key.team.as_deref().and_then(|team| snapshot.team(team));
    let customer = snapshot.customer_of(key);
    let customer = customer.and_then(|customer| snapshot.customer(customer));
    key.scope
        .iter()
        .chain(team.and_then(|team| team.scope.as_ref()))
        .chain(customer.and_then(|customer| customer.scope.as_ref()))
        .chain(snapshot.global())
        .chain(key.grants.iter().filter_map(|grant| grant.scope.as_ref()))
        .collect()
}

/// "10", "0.15", "0.000000001": exact, without trailing zeros.
pub(crate) fn dollars(amount: NanoUsd) -> String {
    const NANOS: u64 = 1_000_000_000;
    let (whole, nanos) = (amount.0 / NANOS, amount.0 % NANOS);
    if nanos == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod amounts {
    use super::*;

    #[test]
    fn dollars_are_exact_and_short() {
        let cases = [
            (0, "0"),
            (1, "0.000000001"),
            (150_000_000, "0.15"),
            (10_000_000_000, "10"),
            (u64::MAX, "18446744073.709551615"),
        ];
        for (nanos, text) in cases {
            assert_eq!(dollars(NanoUsd(nanos)), text);
        }
    }
}
