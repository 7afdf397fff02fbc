//! `GET /v1/models`: what the caller's key may use, in its protocol's shape.

use bytes::Bytes;
use policy::{Snapshot, VirtualKey, VisibleModel};
use serde_json::{Value, json};

use super::reject::{Reason, Refusal};
use crate::api::Shape;

/// Largest page; the same as Anthropic's.
const PAGE_MAX: usize = 1000;

/// The whole list. `query` may page Anthropic's form (`limit`, `after_id`).
pub(super) fn list(snapshot: &Snapshot, key: &VirtualKey, shape: Shape, query: &str) -> Bytes {
    let models = policy::visible_models(snapshot, key);
    let value = match shape {
        Shape::OpenAi => json!({
            "object": "list",
            "data": models.iter().map(|model| entry(model, shape)).collect::<Vec<_>>(),
        }),
        Shape::Anthropic => page(&models, query),
    };
    Bytes::from(value.to_string())
}

/// One model, or 404 for one that is not there or not allowed: a key does not
/// learn of models it may not use.
pub(super) fn one(
    snapshot: &Snapshot,
    key: &VirtualKey,
    shape: Shape,
    id: &str,
) -> Result<Bytes, Refusal> {
    let models = policy::visible_models(snapshot, key);
    // `provider/name` names a model as well as its bare name does.
    let bare = id.split_once('/').map(|(_, name)| name);
    let found = models.iter().find(|model| model.name == id).or_else(|| {
        let (provider, name) = (id.split_once('/')?.0, bare?);
        let serves = |model: &&VisibleModel| {
            model.name == name && model.owned_by.split(',').any(|owner| owner == provider)
        };
        models.iter().find(serves)
    });
    match found {
        Some(model) => Ok(Bytes::from(entry(model, shape).to_string())),
        None => {
            let shown: String = id.chars().take(128).collect();
            let message = format!("the model '{shown}' does not exist");
            Err(Refusal::new(Reason::ModelNotFound, message).param(Some("model")))
        }
    }
}

fn entry(model: &VisibleModel, shape: Shape) -> Value {
    match shape {
        Shape::OpenAi => json!({
            "id": model.name,
            "object": "model",
            "created": 0,
            "owned_by": &*model.owned_by,
        }),
        Shape::Anthropic => json!({
            "type": "model",
            "id": model.name,
            "display_name": model.name,
            "created_at": "1970-01-01T00:00:00Z",
        }),
    }
}

fn page(models: &[VisibleModel], query: &str) -> Value {
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let limit = parameter("limit").and_then(|limit| limit.parse().ok());
    let limit: usize = limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    let start = parameter("after_id")
        .and_then(|id| models.iter().position(|model| model.name == id))
        .map_or(0, |position| position + 1);
    let rest = &models[start..];
    let shown = &rest[..rest.len().min(limit)];
    json!({
        "data": shown.iter().map(|model| entry(model, Shape::Anthropic)).collect::<Vec<_>>(),
        "has_more": shown.len() < rest.len(),
        "first_id": shown.first().map(|model| &model.name),
        "last_id": shown.last().map(|model| &model.name),
    })
}
