//! `GET /api/usage` and `GET /api/usage/{request_id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{Failure, Page};

/// The store is away or failed; nothing was changed, a later try may do.
#[derive(Debug, thiserror::Error)]
#[error("usage records cannot be read now: {reason}")]
pub struct UsageUnavailable {
    /// For the log and the caller; no secret.
    pub reason: String,
}

/// Which records a list shows, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsagePage {
    /// Most records in the answer, 1 to 1,000.
    pub limit: usize,
    /// Only records older than this request id.
    pub after: Option<String>,
    /// Only records of this virtual key.
    pub key: Option<String>,
}

/// Reads usage records as JSON objects that hold a `request_id`. Called on a
/// thread that may block.
pub trait UsageReader: Send + Sync {
    /// The record of one request.
    fn record(&self, request_id: &str) -> Result<Option<Value>, UsageUnavailable>;
    /// The newest records.
    fn recent(&self, page: &UsagePage) -> Result<Vec<Value>, UsageUnavailable>;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    key: Option<String>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = Page::of(query.limit)?.limit;
    let page = UsagePage {
        limit,
        after: query.after,
        key: query.key,
    };
    let records = read(&shared, move |reader| reader.recent(&page)).await?;
    let next = (records.len() == limit)
        .then(|| records.last()?.get("request_id").cloned())
        .flatten();
    Ok(Json(json!({"items": records, "next": next})))
}

pub(super) async fn show(
    State(shared): State<Shared>,
    Path(request_id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let record = read(&shared, move |reader| reader.record(&request_id)).await?;
    record
        .map(Json)
        .ok_or_else(|| Failure::not_found("no usage record of this request id"))
}

async fn read<T: Send + 'static>(
    shared: &Shared,
    ask: impl FnOnce(&dyn UsageReader) -> Result<T, UsageUnavailable> + Send + 'static,
) -> Result<T, Failure> {
    let unavailable =
        |reason: String| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", reason);
    let reader = shared.state.usage.as_ref().map(Arc::clone);
    let reader = reader
        .ok_or_else(|| unavailable("this node keeps no readable usage records".to_owned()))?;
    tokio::task::spawn_blocking(move || ask(reader.as_ref()))
        .await
        .map_err(|_| Failure::internal())?
        .map_err(|error| {
            tracing::warn!(%error, "admin API could not read usage records");
            unavailable(error.to_string())
        })
}
