//! `GET /api/audit`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Shared;
use super::answer::{Failure, Page};

/// The store is away or failed; a later try may do.
#[derive(Debug, thiserror::Error)]
#[error("the audit trail cannot be read now: {reason}")]
pub struct AuditUnavailable {
    /// For the log and the caller; no secret.
    pub reason: String,
}

/// Reads the audit trail. Called on a thread that may block.
pub trait AuditReader: Send + Sync {
    /// At most `most` changes after number `after`, oldest first.
    fn after(&self, after: u64, most: usize) -> Result<Vec<AuditedChange>, AuditUnavailable>;
}

/// One change, as the trail has it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AuditedChange {
    /// Its number, without gaps.
    pub seq: u64,
    /// When it was made, RFC 3339.
    pub at: String,
    /// The admin token that made it.
    pub actor: String,
    /// The address that it came from.
    pub peer: String,
    /// What was done, such as `create` or `rotate`.
    pub action: String,
    /// To what kind of entity.
    pub kind: String,
    /// To which.
    pub name: String,
    /// What was there, secrets masked; null: nothing.
    pub before: Option<Value>,
    /// What is there since, secrets masked; null: nothing.
    pub after: Option<Value>,
    /// The revision of the entity since; null where no entity was written.
    pub revision: Option<u64>,
    /// Seals this change and the one before, hexadecimal; `tyr audit verify`
    /// checks the chain.
    pub hash: String,
    /// The encryption key that the seal was made with; null: without one.
    pub key_id: Option<String>,
}

/// A page of the trail.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AuditPage {
    data: Vec<AuditedChange>,
    /// What `after` has to be for the next page; null: there is none.
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<u64>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<AuditPage>, Failure> {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = Page::of(query.limit)?.limit;
    let after = query.after.unwrap_or(0);
    let reader = Arc::clone(&shared.state.audit);
    let mut data = shared
        .read(move || reader.after(after, limit + 1))
        .await?
        .map_err(|error| {
            tracing::warn!(%error, "admin API could not read the audit trail");
            Failure::unavailable(error.to_string())
        })?;
    let more = data.len() > limit;
    data.truncate(limit);
    let next = data
        .last()
        .filter(|_| more)
        .map(|last| last.seq.to_string());
    Ok(Json(AuditPage { data, next }))
}
