//! `GET /v1/usage`: where the caller itself stands.
//!
//! Promise: limits that a request of this caller meets, and nothing of other
//! keys, teams, customers or users; asking takes nothing from any limit.
//! State: none. Failure: none.

use std::sync::Arc;

use bytes::Bytes;
use policy::{Enforcement, NanoUsd, Scope, Snapshot, Standing, Timestamp, Unit};
use serde_json::{Value, json};

use super::auth::Identity;
use crate::admin::explain::dollars;

/// The caller's limits and how much of each is left.
pub(super) fn document(snapshot: &Snapshot, caller: &Identity, now: Timestamp) -> Bytes {
    let scopes = scopes(snapshot, caller);
    let limits = scopes.flat_map(|scope| &scope.limits);
    // A shadow limit is the operator's experiment and tells a caller nothing.
    let shown = limits.filter(|limit| !limit.shadow);
    let limits: Vec<Value> = shown.map(|limit| entry(&limit.standing(now))).collect();
    let key = &caller.key;
    let document = json!({
        "object": "usage",
        "key": key.name,
        "team": key.team,
        "customer": snapshot.customer_of(key),
        "user": caller.user,
        "limits": limits,
    });
    Bytes::from(document.to_string())
}

/// Those of every request, in the order in which they are judged, then those
/// of the key with each provider.
fn scopes<'a>(
    snapshot: &'a Snapshot,
    caller: &'a Identity,
) -> impl Iterator<Item = &'a Arc<Scope>> {
    let key = &caller.key;
    let team = key.team.as_deref().and_then(|name| snapshot.team(name));
    let customer = snapshot
        .customer_of(key)
        .and_then(|name| snapshot.customer(name));
    let grants = key.grants.iter().filter_map(|grant| grant.scope.as_ref());
    [
        key.scope.as_ref(),
        team.and_then(|team| team.scope.as_ref()),
        customer.and_then(|customer| customer.scope.as_ref()),
        caller.user_scope.as_ref(),
        snapshot.global(),
    ]
    .into_iter()
    .flatten()
    .chain(grants)
}

/// Money is in US dollars as decimal text, exact; all else are integers.
fn entry(standing: &Standing) -> Value {
    let amount = |amount: u64| match standing.unit {
        Unit::Usd => json!(dollars(NanoUsd(amount))),
        _ => json!(amount),
    };
    json!({
        "scope": standing.scope.as_str(),
        "name": standing.name,
        "unit": standing.unit.as_str(),
        "every": standing.period.map(|period| period.to_string()),
        "window": standing.window.as_str(),
        "limit_name": standing.limit_name,
        "limit": amount(standing.limit),
        "used": amount(standing.used),
        "reserved": amount(standing.reserved),
        "remaining": amount(standing.remaining),
        "resets_at": standing.resets_at.to_rfc3339(),
        "enforcement": match standing.enforcement {
            Enforcement::Eventual => "eventual",
            Enforcement::Strict => "strict",
        },
    })
}
