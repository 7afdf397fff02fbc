//! The entities of the configuration: one shape of call for every kind.
//!
//! A read shows the entity as it can be written, with its source, revision and
//! where its limits stand; these are ignored when they come back in a write.
//! Entities of the file are read-only here. What a kind has of its own stands
//! in a file of its name.

mod access;
mod body;
mod port;
mod precondition;
mod providers;
mod refusal;
mod shape;
mod twice;
mod virtual_keys;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::answer::{Failure, Page};
use super::auth::Caller;
use super::cluster::Spread;
use super::rights::Operation;
use super::standing;
use precondition::Precondition;

pub(super) use crate::config::catalogue::{
    Kind, PointerProblem, Shown, Source, WriteRefusal, Written,
};
pub(super) use body::{parse, problem};
pub use port::Entities;
pub(super) use shape::shapes;
pub(super) use virtual_keys::{REVOKING, Revocation, Rotation, revoke, rotate};

/// What a read adds to an entity.
const READ_ONLY: [&str; 4] = ["source", "revision", "standing", "applied_on"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    pub(super) limit: Option<usize>,
    pub(super) after: Option<String>,
}

/// The path of one entity, as axum matches it. Names of models and limits hold
/// slashes, which may stand there as they are.
pub(super) fn path_of_one(kind: Kind) -> String {
    match kind {
        Kind::Model | Kind::LimitOverride => format!("/{}/{{*name}}", kind.path()),
        _ => format!("/{}/{{name}}", kind.path()),
    }
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(kind): Extension<Kind>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = Page::of(query.limit)?.limit;
    let entities = &shared.state.entities;
    let mut shown = entities.list(kind, query.after.as_deref(), limit + 1);
    let more = shown.len() > limit;
    shown.truncate(limit);
    let next = shown.last().filter(|_| more).map(|last| last.name.clone());
    let data: Vec<Value> = shown
        .into_iter()
        .map(|one| with_standing(&shared, one))
        .collect();
    Ok(Json(json!({"data": data, "next": next})))
}

pub(super) async fn show(
    State(shared): State<Shared>,
    Extension(kind): Extension<Kind>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let name = named(name)?;
    let shown = current(&shared, kind, &name).ok_or_else(unknown)?;
    let tag = precondition::tag(&shown);
    if super::answer::is_unchanged(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let body = with_standing(&shared, shown);
    Ok(([(header::ETAG, tag)], Json(body)).into_response())
}

pub(super) async fn create(
    State(shared): State<Shared>,
    Extension(kind): Extension<Kind>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let condition = Precondition::of(&headers)?;
    condition.for_new()?;
    let mut body = body::entity(&body)?;
    access::vouch(&shared, kind, &caller, None, Some(&mut body))?;
    let actor = caller.actor();
    let written = shared
        .change(move |entities| entities.create(kind, body, &actor))
        .await?
        .map_err(|refusal| condition.explain(refusal))?;
    Ok(answer(&shared, written, StatusCode::CREATED).await)
}

pub(super) async fn replace(
    State(shared): State<Shared>,
    Extension(kind): Extension<Kind>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let name = named(name)?;
    let condition = Precondition::of(&headers)?;
    let found = current(&shared, kind, &name);
    condition.judge(found.as_ref())?;
    if found.is_none() {
        caller.needs(kind.resource(), Operation::Create)?;
    }
    let mut body = body::entity(&body)?;
    body::name(kind, &mut body, &name)?;
    access::vouch(&shared, kind, &caller, found.as_ref(), Some(&mut body))?;
    if let (Kind::Provider, Some(found)) = (kind, &found) {
        providers::keep_credentials_where_they_are(&found.body, &body)?;
    }
    let actor = caller.actor();
    let expected = expected(kind, &condition, found.as_ref());
    let written = shared
        .change(move |entities| match found {
            Some(_) => entities.replace(kind, &name, body, expected, &actor),
            None => entities.create(kind, body, &actor),
        })
        .await?
        .map_err(|refusal| condition.explain(refusal))?;
    let status = match written.created {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok(answer(&shared, written, status).await)
}

pub(super) async fn delete(
    State(shared): State<Shared>,
    Extension(kind): Extension<Kind>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let name = named(name)?;
    let condition = Precondition::of(&headers)?;
    let found = current(&shared, kind, &name);
    condition.judge(found.as_ref())?;
    access::vouch(&shared, kind, &caller, found.as_ref(), None)?;
    let expected = expected(kind, &condition, found.as_ref());
    let actor = caller.actor();
    let revision = shared
        .change(move |entities| entities.delete(kind, &name, expected, &actor))
        .await?
        .map_err(|refusal| condition.explain(refusal))?;
    let in_force = shared.in_force(Spread::Revision(revision)).await;
    Ok((StatusCode::NO_CONTENT, in_force.header()).into_response())
}

/// The revision that a write must still find. Where what is there decides who
/// may change it, that is the one that was judged, whatever the caller asks.
fn expected(kind: Kind, condition: &Precondition, found: Option<&Shown>) -> Option<u64> {
    match kind {
        Kind::Provider | Kind::AdminToken | Kind::Role => found.map(|found| found.revision),
        _ => condition.revision(found),
    }
}

fn named(name: Result<Path<String>, PathRejection>) -> Result<String, Failure> {
    name.map(|Path(name)| name)
        .map_err(|rejection| Failure::invalid(rejection.body_text()))
}

fn unknown() -> Failure {
    Failure::not_found("nothing of this kind has this name")
}

fn current(shared: &Shared, kind: Kind, name: &str) -> Option<Shown> {
    shared.state.entities.show(kind, name)
}

/// The answer to a write, with what is shown this once, when the other nodes
/// had their time to follow.
async fn answer(shared: &Shared, written: Written, status: StatusCode) -> Response {
    let revision = Spread::Revision(written.shown.revision);
    let in_force = shared.in_force(revision).await;
    let tag = precondition::tag(&written.shown);
    let place = format!(
        "/api/{}/{}",
        written.shown.kind.path(),
        body::percent_encoded(&written.shown.name)
    );
    let mut entity = with_standing(shared, written.shown);
    if let Some(entity) = entity.as_object_mut() {
        entity.insert("applied_on".to_owned(), json!(in_force));
        if let Some(value) = &written.value {
            entity.insert("value".to_owned(), json!(value.expose()));
        }
    }
    let tag = [(header::ETAG, tag)];
    let mut response = (status, tag, in_force.header(), Json(entity)).into_response();
    if let (StatusCode::CREATED, Ok(place)) = (status, HeaderValue::from_str(&place)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// An entity as a read shows it.
fn with_standing(shared: &Shared, shown: Shown) -> Value {
    let live = shared.state.live.load();
    let now = shared.state.clock.now();
    let standing = standing::of_entity(&live.policy, &shown, now);
    let mut entity = match shown.body {
        Value::Object(entity) => entity,
        _ => Map::new(),
    };
    let source = match shown.source {
        Source::File { .. } => "file",
        Source::Api => "api",
    };
    entity.insert("source".to_owned(), json!(source));
    entity.insert("revision".to_owned(), json!(shown.revision));
    entity.insert("standing".to_owned(), json!(standing));
    Value::Object(entity)
}

impl Shared {
    /// Changes the configuration on a thread that may block. Changes follow one
    /// another anyway: those behind the first wait without holding a thread.
    /// What was begun is brought to its end also when the caller leaves.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&dyn Entities) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = Arc::clone(&self.changing).lock_owned().await;
        let entities = Arc::clone(&self.state.entities);
        let change = move || {
            let changed = change(entities.as_ref());
            drop(turn);
            changed
        };
        tokio::task::spawn_blocking(change)
            .await
            .map_err(|_| Failure::internal())
    }
}
