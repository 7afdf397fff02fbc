//! `GET /api/usage` and `GET /api/usage/{request_id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use schemars::JsonSchema;
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
pub struct UsageQuery {
    /// Most records in the answer, 1 to 1,000.
    pub limit: usize,
    /// Only records older than this request id.
    pub after: Option<String>,
    /// Only records of this virtual key.
    pub key: Option<String>,
}

/// One page of records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageFound {
    /// Newest first; may be fewer than asked for while `next` is there.
    pub records: Vec<Value>,
    /// What `after` has to be for the next page; `None`: there is none.
    pub next: Option<String>,
}

/// Reads usage records as JSON objects that hold a `request_id`. Called on a
/// thread that may block.
pub trait UsageReader: Send + Sync {
    /// The record of one request.
    fn record(&self, request_id: &str) -> Result<Option<Value>, UsageUnavailable>;
    /// The newest records.
    fn recent(&self, query: &UsageQuery) -> Result<UsageFound, UsageUnavailable>;
}

/// A usage record; fields are added over time.
#[derive(Debug, JsonSchema)]
pub(super) struct Record {
    #[allow(dead_code, reason = "only its schema is used: records come as JSON")]
    request_id: String,
}

/// A page of usage records.
#[derive(Debug, JsonSchema)]
#[allow(dead_code, reason = "only its schema is used: records come as JSON")]
pub(super) struct RecordPage {
    /// With `key` there may be fewer than asked for, or none, before the end.
    data: Vec<Record>,
    /// What `after` has to be for the next page; null: there is none.
    next: Option<String>,
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
    let query = UsageQuery {
        limit: Page::of(query.limit)?.limit,
        after: query.after,
        key: query.key,
    };
    let found = read(&shared, move |reader| reader.recent(&query)).await?;
    Ok(Json(json!({"data": found.records, "next": found.next})))
}

pub(super) async fn show(
    State(shared): State<Shared>,
    request_id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let Path(request_id) =
        request_id.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let record = read(&shared, move |reader| reader.record(&request_id)).await?;
    record
        .map(Json)
        .ok_or_else(|| Failure::not_found("no usage record of this request id"))
}

async fn read<T: Send + 'static>(
    shared: &Shared,
    ask: impl FnOnce(&dyn UsageReader) -> Result<T, UsageUnavailable> + Send + 'static,
) -> Result<T, Failure> {
    let reader = shared.state.usage.as_ref().map(Arc::clone);
    let reader =
        reader.ok_or_else(|| Failure::unavailable("this node keeps no readable usage records"))?;
    shared
        .read(move || ask(reader.as_ref()))
        .await?
        .map_err(|error| {
            tracing::warn!(%error, "admin API could not read usage records");
            Failure::unavailable(error.to_string())
        })
}
