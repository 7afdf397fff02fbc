//! `GET /api/limits` and `POST /api/limits/reset`.
//!
//! Limits are listed by their id. Those of end users are left out: they come
//! and go with the users.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use policy::{CounterId, Scope, ScopeKind, Snapshot, Timestamp, VirtualKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::answer::{Failure, Page};
use super::auth::Caller;
use super::cluster::{InForce, Spread};
use super::entities::{ListQuery, parse};
use super::standing::{LimitStanding, of_scope};

/// A page of limits.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LimitPage {
    data: Vec<LimitStanding>,
    /// What `after` has to be for the next page; null: there is none.
    next: Option<String>,
}

/// Which limit is to count from zero.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reset {
    /// Its `id` as limits are listed.
    limit: String,
}

/// A limit that counts from zero.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ResetDone {
    /// Its `id`.
    limit: String,
    /// On how many of the live nodes it does, as `2/3`.
    applied_on: InForce,
    /// Where it stands on this node now; empty when no limit has this id at
    /// the moment.
    standing: Vec<LimitStanding>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<LimitPage>, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = Page::of(query.limit)?.limit;
    let live = shared.state.live.load_full();
    let now = shared.state.clock.now();
    // A million keys take a while: not on the thread that serves the port.
    let page =
        tokio::task::spawn_blocking(move || page(&live.policy, query.after.as_deref(), limit, now));
    Ok(Json(page.await.map_err(|_| Failure::internal())?))
}

pub(super) async fn reset(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Json<ResetDone>, Failure> {
    let Reset { limit } = parse(&body)?;
    let (id, actor) = (limit.clone(), caller.actor());
    let revision = shared
        .change(move |entities| entities.reset_limit(&id, &actor))
        .await??;
    let applied_on = shared.in_force(Spread::Revision(revision)).await;
    let live = shared.state.live.load();
    let standing = find(&live.policy, &limit, shared.state.clock.now());
    Ok(Json(ResetDone {
        limit,
        applied_on,
        standing,
    }))
}

/// Where the limit of this id stands; empty or one.
pub(super) fn find(snapshot: &Snapshot, id: &str, now: Timestamp) -> Vec<LimitStanding> {
    let Ok(counter) = id.parse::<CounterId>() else {
        return Vec::new();
    };
    let name = counter.entity.as_ref();
    let key_at = |text: &str| {
        let (key, provider) = text.rsplit_once('/')?;
        let grants = &snapshot.key_named(key)?.grants;
        let grant = grants.iter().find(|grant| *grant.provider == *provider)?;
        grant.scope.clone()
    };
    let scope = match counter.scope {
        ScopeKind::VirtualKey => snapshot.key_named(name).and_then(|key| key.scope.clone()),
        ScopeKind::VirtualKeyProvider => key_at(name),
        ScopeKind::User => snapshot.users().and_then(|users| users.peek(name, now)),
        _ => scopes_of_base(snapshot)
            .find(|scope| (scope.kind, scope.entity.as_ref()) == (counter.scope, name)),
    };
    let standings = scope.into_iter().flat_map(|scope| {
        let standings: Vec<_> = of_scope(&scope, now).collect();
        standings
    });
    standings.filter(|standing| standing.id == id).collect()
}

/// At most `limit` limits after the one of this id: first those of everything
/// but keys, by id, then those of each key and of its providers, by key.
fn page(snapshot: &Snapshot, after: Option<&str>, limit: usize, now: Timestamp) -> LimitPage {
    let after_key = after.and_then(key_of);
    let base: BTreeMap<String, LimitStanding> = match after_key {
        Some(_) => BTreeMap::new(),
        None => scopes_of_base(snapshot)
            .flat_map(|scope| of_scope(&scope, now).collect::<Vec<_>>())
            .filter(|standing| after.is_none_or(|after| *standing.id > *after))
            .map(|standing| (standing.id.clone(), standing))
            .collect(),
    };
    let begun = after_key.as_deref().and_then(|key| snapshot.key_named(key));
    let begun = begun.map_or_else(Vec::new, |key| {
        let all: Vec<_> = of_key(key, now).collect();
        let shown = all.iter().position(|one| Some(one.id.as_str()) == after);
        // A limit that has gone since tells nothing of those beside it.
        all.into_iter().skip(shown.map_or(0, |at| at + 1)).collect()
    });
    let keys = snapshot.keys_after(after_key.as_deref());
    let mut rest = base
        .into_values()
        .chain(begun)
        .chain(keys.flat_map(|key| of_key(key, now)));
    let data: Vec<_> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let next = data.last().filter(|_| more).map(|last| last.id.clone());
    LimitPage { data, next }
}

/// The virtual key that a limit of this id is about, if one is.
fn key_of(id: &str) -> Option<String> {
    let counter: CounterId = id.parse().ok()?;
    match counter.scope {
        ScopeKind::VirtualKey => Some(counter.entity.as_ref().to_owned()),
        ScopeKind::VirtualKeyProvider => {
            let (key, _provider) = counter.entity.rsplit_once('/')?;
            Some(key.to_owned())
        }
        _ => None,
    }
}

fn of_key(key: &VirtualKey, now: Timestamp) -> impl Iterator<Item = LimitStanding> {
    let grants = key.grants.iter().filter_map(|grant| grant.scope.as_ref());
    let scopes = key.scope.iter().chain(grants);
    scopes.flat_map(move |scope| of_scope(scope, now))
}

/// Everything that has limits but virtual keys and end users.
fn scopes_of_base(snapshot: &Snapshot) -> impl Iterator<Item = Arc<Scope>> {
    let providers = snapshot.providers().iter().map(|provider| &provider.scope);
    let models = snapshot.models().iter().map(|model| &model.scope);
    let bare = snapshot.model_scopes().cloned();
    let teams = snapshot.teams().map(|team| &team.scope);
    let customers = snapshot.customers().map(|customer| &customer.scope);
    let of_entities = providers.chain(models).chain(teams).chain(customers);
    of_entities
        .filter_map(Clone::clone)
        .chain(bare)
        .chain(snapshot.global().cloned())
        .collect::<Vec<_>>()
        .into_iter()
}
