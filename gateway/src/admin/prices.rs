//! `GET /api/catalogue`.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::Shared;

/// Most models without a price that are named.
const NAMED_MAX: usize = 100;

/// The price list, and how it fares.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CatalogueShown {
    /// Where it comes from, without what an address may hold beside its path;
    /// null: no `catalogue` is configured.
    source: Option<String>,
    /// Seconds between two fetches.
    every_seconds: Option<u64>,
    /// The number of the configuration that runs; it grows when a price
    /// changes.
    revision: u64,
    /// Models in it that have a price; 0 = there is no list yet.
    models: usize,
    /// When some node last found it to be what the source says.
    fetched_at: Option<String>,
    /// When this node last asked the source.
    tried_at: Option<String>,
    /// Why the last try failed; null: it did not.
    error: Option<String>,
    /// Configured models that are not served because their price is not known,
    /// as `provider/model`; the first hundred.
    unpriced: Vec<String>,
}

pub(super) async fn show(State(shared): State<Shared>) -> Json<CatalogueShown> {
    let live = shared.state.live.load();
    let state = shared.state.prices.state();
    let source = live.pricing.source.as_deref();
    let unpriced = live.policy.models().iter();
    let unpriced = unpriced
        .filter(|model| !model.price.is_known())
        .map(|model| {
            let provider = &live.policy.provider(model.provider).name;
            format!("{provider}/{}", model.name)
        });
    Json(CatalogueShown {
        source: source.map(ToString::to_string),
        every_seconds: source.map(|source| source.every.as_secs()),
        revision: live.policy.revision(),
        models: state.models,
        fetched_at: state.fetched_at.map(policy::Timestamp::to_rfc3339),
        tried_at: state.tried_at.map(policy::Timestamp::to_rfc3339),
        error: state.error,
        unpriced: unpriced.take(NAMED_MAX).collect(),
    })
}
