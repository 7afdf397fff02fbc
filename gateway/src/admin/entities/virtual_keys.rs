//! What virtual keys have of their own: a new value, and refusal for good.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::precondition::Precondition;
use super::{Kind, answer, body, current, named, unknown};
use crate::admin::Shared;
use crate::admin::answer::Failure;
use crate::admin::auth::Caller;
use crate::admin::cluster::{InForce, Spread};
use crate::config::file::Length;

/// How a key gets its new value.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Rotation {
    /// How long the old value is still accepted, such as `24h`; default: not
    /// at all.
    #[serde(default)]
    grace: Option<Length>,
}

/// A key that is refused from now on.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Revocation {
    /// On how many of the live nodes it is refused, as `2/3`.
    applied_on: InForce,
    /// Whether the store has it; if not, this node keeps it and brings it
    /// there as soon as the store is back.
    persisted: bool,
}

pub(in crate::admin) async fn rotate(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let name = named(name)?;
    let condition = Precondition::of(&headers)?;
    let found = current(&shared, Kind::VirtualKey, &name);
    condition.judge(found.as_ref())?;
    found.ok_or_else(unknown)?;
    let rotation: Rotation = match body.is_empty() {
        true => Rotation::default(),
        false => body::parse(&body)?,
    };
    let grace = rotation.grace.map_or(Duration::ZERO, |grace| grace.get());
    let actor = caller.actor();
    let written = shared
        .change(move |entities| entities.rotate(&name, grace, &actor))
        .await??;
    Ok(answer(&shared, written, StatusCode::OK).await)
}

pub(in crate::admin) async fn revoke(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let name = named(name)?;
    let actor = caller.actor();
    // Before anything that may wait, for a thread even.
    shared.state.entities.refuse(&name, &actor);
    let revoked = shared
        .change(move |entities| entities.revoke(&name, &actor))
        .await??;
    let in_force = shared.in_force(Spread::Revoked(revoked.hashes)).await;
    let body = Revocation {
        applied_on: in_force,
        persisted: revoked.persisted,
    };
    Ok((in_force.header(), Json(body)).into_response())
}
