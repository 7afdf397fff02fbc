//! `GET /api/config` and `POST /api/reload`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::answer::{Failure, entity_tag, is_unchanged};
use super::{Degraded, Shared};

/// One reason why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

/// The configuration in use as written, secrets masked by who resolved it.
pub(super) async fn show(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let live = shared.state.live.load();
    let tag = entity_tag(&live.redacted);
    if is_unchanged(&headers, &tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let body = json!({"revision": live.policy.revision, "config": live.redacted});
    ([(header::ETAG, tag)], Json(body)).into_response()
}

/// Reads the configuration again; a bad one changes nothing. Runs to its end
/// also when the caller leaves.
pub(super) async fn reload(State(shared): State<Shared>) -> Result<Response, Failure> {
    let turn = shared.reloading.lock_owned().await;
    let reload = shared.state.reload;
    let outcome = tokio::task::spawn_blocking(move || {
        let outcome = reload();
        drop(turn);
        outcome
    })
    .await
    .map_err(|_| Failure::internal())?;
    let readiness = &shared.state.readiness;
    readiness.set_degraded(Degraded::Configuration, outcome.is_err());
    Ok(match outcome {
        Ok(revision) => Json(json!({"revision": revision})).into_response(),
        Err(problems) => {
            let message = "the configuration was refused; the old one stays in use";
            let body = json!({
                "error": {"type": "invalid_configuration", "message": message},
                "errors": problems,
            });
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    })
}
