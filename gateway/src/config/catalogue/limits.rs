//! What only limits can: another amount for a while, and a count from zero.

use std::sync::Arc;

use cluster::Expect;
use policy::{CounterId, Limit, Scope, ScopeKind, Timestamp, Unit};
use serde_json::json;

use super::body::{Draft, invalid};
use super::entries::Entries;
use super::kind::{Class, Kind};
use super::write::{Step, with_key};
use super::{Actor, Catalogue, WriteRefusal};
use crate::config::file::{LimitOverride, Moment};
use crate::config::problem::Problem;
use crate::config::resolve;
use crate::config::running::{Running, State};
use crate::state::Live;

impl Catalogue {
    /// Starts the count of a limit at zero; `id` is its name as limits are
    /// listed. What is held goes on counting where it was taken. Returns the
    /// revision of the change.
    pub fn reset_limit(&self, id: &str, actor: &Actor) -> Result<u64, WriteRefusal> {
        let mut state = self.running.lock();
        let live = self.running.live.load_full();
        let now = self.running.parts.clock.now();
        let limit = find(&live, id, now).ok_or(WriteRefusal::NotFound)?;
        if limit.id.unit == Unit::Concurrent {
            let message = "requests in flight are not counted over time: there is nothing to reset";
            return Err(invalid("", message));
        }
        let stored = live.entries.stored(Class::LimitReset, id);
        let generation = limit.id.generation.saturating_add(1);
        let step = Step {
            class: Class::LimitReset,
            name: id,
            expect: match stored {
                Some(stored) => Expect::Revision(stored.revision),
                None => Expect::Absent,
            },
            body: Some(json!({ "generation": generation }).to_string()),
            action: "reset",
            actor,
        };
        self.write(&mut state, &live, step)
    }
}

/// The limit of this name, which has no generation in it.
fn find(live: &Live, id: &str, now: Timestamp) -> Option<Limit> {
    let text = id;
    let id: CounterId = text.parse().ok()?;
    // Another spelling would be stored, and found by nobody.
    if id.generation != 0 || id.to_string() != text {
        return None;
    }
    let scope = scope(live, &id, now)?;
    let limits = scope.limits.iter();
    let mut found = limits.filter(|limit| limit.id.without_generation() == id);
    found.next().cloned()
}

fn scope(live: &Live, id: &CounterId, now: Timestamp) -> Option<Arc<Scope>> {
    let policy = &live.policy;
    let entity = &*id.entity;
    let scope = match id.scope {
        ScopeKind::VirtualKey => policy.key_named(entity)?.scope.as_ref(),
        ScopeKind::VirtualKeyProvider => {
            let (key, provider) = entity.rsplit_once('/')?;
            let mut grants = policy.key_named(key)?.grants.iter();
            let grant = grants.find(|grant| &*grant.provider == provider)?;
            grant.scope.as_ref()
        }
        ScopeKind::Team => policy.team(entity)?.scope.as_ref(),
        ScopeKind::Customer => policy.customer(entity)?.scope.as_ref(),
        ScopeKind::Provider => {
            let provider = policy.provider_named(entity)?;
            policy.provider(provider).scope.as_ref()
        }
        ScopeKind::Model => {
            let of_provider = entity
                .split_once('/')
                .and_then(|(provider, model)| policy.model_of(provider, model));
            match of_provider {
                Some(model) => policy.model(model).scope.as_ref(),
                None => policy.bare_model_scope(entity),
            }
        }
        ScopeKind::Global => policy.global(),
        ScopeKind::User => return policy.users()?.peek(entity, now),
    };
    scope.cloned()
}

/// Judges an override by the limit it is for, and turns periods into a time.
pub(super) fn judge_override(
    live: &Live,
    mut draft: Draft,
    now: Timestamp,
) -> Result<Draft, WriteRefusal> {
    let body: LimitOverride = serde_json::from_value(draft.body.clone())
        .map_err(|error| invalid("", &error.to_string()))?;
    let Some(limit) = find(live, &body.limit, now) else {
        let message = format!("there is no limit '{}'", body.limit.escape_debug());
        return Err(invalid("/limit", &message));
    };
    match (limit.id.unit, &body.limit_usd, body.amount) {
        (Unit::Usd, Some(money), None) => {
            policy::NanoUsd::from_decimal(&money.0)
                .map_err(|error| invalid("/limit_usd", &error.to_string()))?;
        }
        (Unit::Usd, _, _) => return Err(invalid("", "a budget needs `limit_usd`, not `amount`")),
        (_, None, Some(_)) => {}
        (_, _, _) => return Err(invalid("", "a rate limit needs `amount`, not `limit_usd`")),
    }
    let until = match (&body.until, body.periods) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "/periods",
                "stands beside `until`: give one of them",
            ));
        }
        (Some(until), None) => match until.at() {
            Some(at) if at <= now => return Err(invalid("/until", "is over already")),
            Some(at) => Some(at),
            None => return Err(invalid("/until", "is no time of the calendar")),
        },
        (None, Some(periods)) => Some(end(&limit, now, periods)?),
        (None, None) => None,
    };
    if let Some(fields) = draft.body.as_object_mut() {
        fields.remove("periods");
        if let Some(until) = until {
            fields.insert("until".to_owned(), Moment::of(until).0.into());
        }
    }
    Ok(draft)
}

/// The end of the last of so many periods, the present one being the first.
fn end(limit: &Limit, now: Timestamp, periods: u32) -> Result<Timestamp, WriteRefusal> {
    let Some(period) = &limit.id.period else {
        return Err(invalid(
            "/periods",
            "requests in flight have no periods: give `until`",
        ));
    };
    Ok(period.start(period.epoch(now).saturating_add(i64::from(periods))))
}

/// With a limit changed without its entity: of one key, or of the base.
pub(super) fn next(
    running: &Running,
    state: &State,
    live: &Live,
    entries: Entries,
    id: &str,
) -> Result<Live, Vec<Problem>> {
    let id: Option<CounterId> = id.parse().ok();
    let key = id.as_ref().and_then(resolve::is_of_key);
    let Some(name) = key else {
        let into = running.resolve_with(state, Some(live));
        return resolve::base(&state.document, live, &entries, &state.ring, &into);
    };
    rebuild_key(running, state, live, entries, name)
}

/// With one key, of the API or of the file, resolved again.
pub(super) fn rebuild_key(
    running: &Running,
    state: &State,
    live: &Live,
    entries: Entries,
    name: &str,
) -> Result<Live, Vec<Problem>> {
    if entries.stored(Kind::VirtualKey, name).is_some() {
        return with_key(running, state, live, entries, name);
    }
    let mut next = live.clone();
    if let Some(owned) = entries.owned(Kind::VirtualKey, name) {
        let into = running.resolve_with(state, Some(live));
        let plan = resolve::key_of_file(&state.document, owned.index, entries.names(), &into)?;
        let key = resolve::build_key(plan, &into, &entries);
        next.policy = live.policy.with_key(into.revision, key);
    }
    next.entries = entries;
    Ok(next)
}
