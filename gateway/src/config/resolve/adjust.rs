//! What the API changed of limits without touching the entities they stand
//! on: resets and overrides.

use std::sync::Arc;

use policy::{Amendment, CounterId, NanoUsd, Override, ScopeKind, Unit};

use crate::config::catalogue::{Class, Entries, Kind};
use crate::config::file::LimitOverride;

/// The identity of a limit's counter in its present generation, and the amount
/// that holds in place of its own.
pub(in crate::config) fn adjusted_limit(
    entries: &Entries,
    id: &CounterId,
) -> (CounterId, Option<Override>) {
    let resets = entries.has_stored(Class::LimitReset);
    let overrides = entries.has_stored(Kind::LimitOverride);
    if !resets && !overrides {
        return (id.clone(), None);
    }
    let text = id.to_string();
    let amendment = amendment(entries, id, &text);
    let id = CounterId {
        generation: amendment.generation,
        ..id.clone()
    };
    (id, amendment.overridden)
}

/// All that was changed of limits of users.
pub(super) fn of_users(entries: &Entries) -> Vec<(CounterId, Amendment)> {
    let resets = entries.all_stored(Class::LimitReset);
    let overrides = entries.all_stored(Kind::LimitOverride);
    let mut ids: Vec<&Arc<str>> = resets.chain(overrides).map(|(name, _)| name).collect();
    ids.sort();
    ids.dedup();
    let ids = ids.into_iter().filter_map(|text| {
        let id: CounterId = text.parse().ok()?;
        (id.scope == ScopeKind::User).then(|| {
            let amendment = amendment(entries, &id, text);
            (id, amendment)
        })
    });
    ids.collect()
}

fn amendment(entries: &Entries, id: &CounterId, text: &str) -> Amendment {
    let generation = entries
        .stored(Class::LimitReset, text)
        .and_then(|stored| stored.value()["generation"].as_u64())
        .and_then(|generation| u32::try_from(generation).ok());
    let overridden = entries
        .stored(Kind::LimitOverride, text)
        .and_then(|stored| serde_json::from_str::<LimitOverride>(&stored.body).ok())
        .and_then(|body| amount(&body, id.unit).map(|amount| (body, amount)))
        .map(|(body, amount)| Override {
            amount,
            until: body.until.as_ref().and_then(|until| until.at()),
        });
    Amendment {
        generation: generation.unwrap_or(0),
        overridden,
    }
}

/// An override's amount in the unit of its limit; `None` in another unit.
fn amount(body: &LimitOverride, unit: Unit) -> Option<u64> {
    match (unit, &body.limit_usd, body.amount) {
        (Unit::Usd, Some(money), None) => NanoUsd::from_decimal(&money.0).ok().map(|usd| usd.0),
        (Unit::Usd, _, _) => None,
        (_, None, amount) => amount,
        _ => None,
    }
}

/// The virtual key that a limit belongs to, when it belongs to one.
pub(in crate::config) fn is_of_key(id: &CounterId) -> Option<&str> {
    match id.scope {
        ScopeKind::VirtualKey => Some(&id.entity),
        // `key/provider`, and providers have no slash.
        ScopeKind::VirtualKeyProvider => id.entity.rsplit_once('/').map(|(key, _)| key),
        _ => None,
    }
}
