//! `GET /api/virtual-keys` and `GET /api/virtual-keys/{name}`.
//!
//! A key is shown from fields named here, never by copying what was written
//! and taking secrets out: neither its value nor its hash can leave. Keys of
//! the file are read-only in the API.

use std::collections::HashMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use policy::{Enforcement, Grant, NanoUsd, Standing, Timestamp, Unit, VirtualKey};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::answer::{Failure, Page, entity_tag};
use crate::state::Live;

/// Fields of a key that are shown as written.
const SHOWN_AS_WRITTEN: [&str; 5] = [
    "rate_limits",
    "budgets",
    "active",
    "not_before",
    "expires_at",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// Keys by name, a page at a time.
pub(super) async fn list(
    State(shared): State<Shared>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let page = Page::of(query.limit)?;
    let live = shared.state.live.load_full();
    let now = shared.state.clock.now();
    let written = Written::of(&live.redacted);
    let after = query.after.as_deref();
    let is_shown = |name: &str| after.is_some_and(|after| name <= after);
    let mut keys = live.policy.keys().skip_while(|key| is_shown(&key.name));
    let shown: Vec<_> = keys
        .by_ref()
        .take(page.limit)
        .map(|key| with_standing(entity(&live, &written, key), key, now))
        .collect();
    let more = keys.next().is_some();
    let next = more.then(|| shown.last()?.get("name").cloned()).flatten();
    Ok(Json(json!({"items": shown, "next": next})))
}

/// One key and where each of its limits stands now.
pub(super) async fn show(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let live = shared.state.live.load_full();
    let key = live.policy.key_named(&name).ok_or_else(unknown)?;
    let entity = entity(&live, &Written::of(&live.redacted), key);
    // Of the part that can be written: standing changes with every request.
    let tag = entity_tag(&Value::Object(entity.clone()));
    let body = with_standing(entity, key, shared.state.clock.now());
    Ok(([(header::ETAG, tag)], Json(body)).into_response())
}

/// Nothing can be made through the API.
pub(super) async fn refuse_creation() -> Failure {
    const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD");
    let message = "virtual keys are defined in the configuration file; add one there and reload";
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "defined_in_the_file",
        message,
    )
    .with_header(header::ALLOW, ALLOWED)
}

/// A key of the file cannot be changed through the API.
pub(super) async fn refuse_write(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Failure {
    if shared.state.live.load().policy.key_named(&name).is_none() {
        return unknown();
    }
    let message = "this virtual key is defined in the file; change it there and reload";
    Failure::new(StatusCode::CONFLICT, "defined_in_the_file", message)
}

fn unknown() -> Failure {
    Failure::not_found("no virtual key of this name")
}

/// The virtual keys of the configuration as written, by name.
struct Written<'a>(HashMap<&'a str, &'a Value>);

impl<'a> Written<'a> {
    fn of(redacted: &'a Value) -> Self {
        let keys = redacted.get("virtual_keys").and_then(Value::as_array);
        let named = |key: &'a Value| Some((key.get("name")?.as_str()?, key));
        Written(keys.into_iter().flatten().filter_map(named).collect())
    }
}

/// What can be written of a key, with its source and revision.
fn entity(live: &Live, written: &Written<'_>, key: &VirtualKey) -> Map<String, Value> {
    let mut entity = Map::new();
    let mut put = |field: &str, value: Value| entity.insert(field.to_owned(), value);
    put("name", json!(key.name));
    if let Some(team) = &key.team {
        put("team", json!(team));
    }
    if let Some(customer) = &key.customer {
        put("customer", json!(customer));
    }
    put("active", json!(true));
    let grants = key.grants.iter().map(|grant| {
        let provider = live.policy.provider(grant.provider);
        json!({
            "name": provider.name,
            "models": allowed(live, grant),
            "weight": grant.weight,
        })
    });
    put("providers", grants.collect());
    if let Some(as_written) = written.0.get(&*key.name) {
        for field in SHOWN_AS_WRITTEN {
            if let Some(value) = as_written.get(field) {
                put(field, value.clone());
            }
        }
    }
    put("source", json!("file"));
    put("revision", json!(live.policy.revision));
    entity
}

/// The allow-list as names that exist: everything, or the provider's models
/// that are in it.
fn allowed<'a>(live: &'a Live, grant: &Grant) -> Vec<&'a str> {
    // No list of names allows this one: only "*" stands for every name.
    if grant.models.allows("*") {
        return vec!["*"];
    }
    let models = live.policy.models.iter();
    models
        .filter(|model| model.provider == grant.provider && grant.models.allows(&model.name))
        .map(|model| &*model.name)
        .collect()
}

fn with_standing(mut entity: Map<String, Value>, key: &VirtualKey, now: Timestamp) -> Value {
    let limits = key.scopes.iter().flat_map(|scope| &scope.limits);
    let standing = limits.map(|limit| standing(&limit.standing(now)));
    entity.insert("standing".to_owned(), standing.collect());
    Value::Object(entity)
}

/// Money is exact in both forms: dollars as a decimal text, and nano-dollars
/// as an integer. Everything else is an integer.
fn standing(standing: &Standing) -> Value {
    let amount = |amount: u64| match standing.unit {
        Unit::Usd => json!(dollars(NanoUsd(amount))),
        _ => json!(amount),
    };
    let mut shown = json!({
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
        "enforcement": enforcement(standing.enforcement),
        // This node alone counts: no request is admitted past the limit.
        "mode": "local",
        "overshoot_bound": amount(0),
        "answers_may_exceed_hold": may_exceed_hold(standing),
    });
    if let (Unit::Usd, Some(shown)) = (standing.unit, shown.as_object_mut()) {
        let exact = [
            ("limit_nano_usd", standing.limit),
            ("used_nano_usd", standing.used),
            ("reserved_nano_usd", standing.reserved),
            ("remaining_nano_usd", standing.remaining),
        ];
        for (field, amount) in exact {
            shown.insert(field.to_owned(), json!(amount));
        }
    }
    shown
}

fn enforcement(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Eventual => "eventual",
        Enforcement::Strict => "strict",
    }
}

/// Whether an answer may turn out larger than what was held for it: then the
/// limit is passed by what is in flight, which no bound on admission shows.
fn may_exceed_hold(standing: &Standing) -> bool {
    standing.enforcement == Enforcement::Eventual
        && matches!(standing.unit, Unit::Tokens | Unit::Usd)
}

/// "10", "0.15", "0.000000001": exact, without trailing zeros.
fn dollars(amount: NanoUsd) -> String {
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
