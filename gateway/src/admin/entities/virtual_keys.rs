//! What virtual keys have of their own: a new value, and refusal for good.

use std::sync::Arc;
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
use super::{Entities, Kind, answer, body, current, named, unknown};
use crate::admin::Shared;
use crate::admin::answer::Failure;
use crate::admin::auth::Caller;
use crate::admin::cluster::{InForce, Spread};
use crate::config::catalogue::{Actor, Revoked, WriteRefusal};
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
    /// Whether the store has it; if not, or if that is not known after two
    /// seconds, this node keeps it and brings it there as soon as it can.
    persisted: bool,
}

/// Longest time until a revocation is answered. It is in force before.
const PATIENCE: Duration = Duration::from_secs(2);

/// Revocations that may wait behind a change that waits for the store, when
/// their callers have their answers. Others are kept all the same.
pub(in crate::admin) const REVOKING: usize = 64;

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
    let begun = crate::clock::monotonic();
    // Before anything that may wait, for a thread even.
    let refused = shared.state.entities.refuse(&name, &actor);
    let revoking = shared.revoke(name.clone(), actor.clone());
    let until = tokio::time::Instant::from_std(begun + PATIENCE);
    let revoked = match tokio::time::timeout_at(until, revoking).await {
        Ok(Some(revoked)) => revoked??,
        // There is none, unless the change that is waited for makes it.
        Ok(None) | Err(_) if refused.is_empty() => return Err(busy()),
        Ok(None) | Err(_) => {
            let (entities, hashes) = (Arc::clone(&shared.state.entities), refused.clone());
            let keep = move || entities.keep_refused(&hashes, &name, &actor);
            tokio::task::spawn_blocking(keep)
                .await
                .map_err(|_| Failure::internal())?;
            Revoked {
                persisted: false,
                hashes: refused,
            }
        }
    };
    let spread = Spread::Revoked(revoked.hashes);
    let in_force = shared.in_force_since(begun, spread).await;
    let body = Revocation {
        applied_on: in_force,
        persisted: revoked.persisted,
    };
    Ok((in_force.header(), Json(body)).into_response())
}

fn busy() -> Failure {
    let message = "another change waits for the store, and there is no key of this name yet";
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
}

impl Shared {
    /// Revokes a key for good, behind the changes that came before. It is
    /// brought to its end also when nobody waits for that any more; `None`: so
    /// many are under way that it was not begun.
    async fn revoke(
        &self,
        name: String,
        actor: Actor,
    ) -> Option<Result<Result<Revoked, WriteRefusal>, Failure>> {
        let place = Arc::clone(&self.revoking).try_acquire_owned().ok()?;
        let shared = self.clone();
        let revoking = tokio::spawn(async move {
            let revoke = move |entities: &dyn Entities| entities.revoke(&name, &actor);
            let revoked = shared.change(revoke).await;
            drop(place);
            revoked
        });
        let revoked = revoking.await;
        Some(revoked.unwrap_or_else(|_| Err(Failure::internal())))
    }
}
