//! `GET /api/config` and `POST /api/reload`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::answer::{Failure, RefusalReason, entity_tag, is_unchanged};
use super::auth::Caller;
use super::{Degraded, Shared};

/// One reason why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReloadProblem {
    /// The file, as given on the command line.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The field, like `virtual_keys[0].team`.
    pub path: String,
    /// What is wrong and how to put it right; no secret.
    pub message: String,
}

/// The configuration in use.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ConfigurationShown {
    /// Its number in this process.
    revision: u64,
    /// As it was written, secrets masked.
    config: Value,
}

/// A reload that worked.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ReloadDone {
    /// The number of the configuration that runs now.
    revision: u64,
}

/// A reload that changed nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ReloadRefused {
    error: RefusalReason,
    /// Everything that is wrong.
    errors: Vec<ReloadProblem>,
}

/// The configuration in use as written, secrets masked by who resolved it.
pub(super) async fn show(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let live = shared.state.live.load();
    let tag = entity_tag(&live.redacted);
    if is_unchanged(&headers, &tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let body = ConfigurationShown {
        revision: live.policy.revision(),
        config: live.redacted.as_ref().clone(),
    };
    ([(header::ETAG, tag)], Json(body)).into_response()
}

/// Reads the configuration again; a bad one changes nothing. Runs to its end
/// also when the caller leaves.
pub(super) async fn reload(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failure> {
    let turn = Arc::clone(&shared.reloading).lock_owned().await;
    let reload = Arc::clone(&shared.state.reload);
    let outcome = tokio::task::spawn_blocking(move || {
        let outcome = reload();
        drop(turn);
        outcome
    })
    .await
    .map_err(|_| Failure::internal())?;
    let readiness = &shared.state.readiness;
    readiness.set_degraded(Degraded::Configuration, outcome.is_err());
    match outcome {
        Ok(revision) => {
            shared.note("reload", &caller).await;
            Ok(Json(ReloadDone { revision }).into_response())
        }
        Err(errors) => {
            let message = "the configuration was refused; the old one stays in use";
            let error = RefusalReason::new("invalid_configuration", message);
            let body = ReloadRefused { error, errors };
            Ok((StatusCode::BAD_REQUEST, Json(body)).into_response())
        }
    }
}
