//! The models that `GET /v1/models` shows to a key.

use std::sync::Arc;

use super::order::allowed;
use crate::model::ModelId;
use crate::snapshot::Snapshot;
use crate::virtual_key::VirtualKey;

/// A model as `GET /v1/models` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisibleModel {
    /// The bare name or alias.
    pub name: String,
    /// The providers that may serve it to this key, joined by commas.
    pub owned_by: Arc<str>,
    /// The longest answer of any of them, in tokens.
    pub max_output_tokens: Option<u64>,
}

/// The bare names and aliases a key may use, sorted by name.
#[must_use]
pub fn visible_models(snapshot: &Snapshot, key: &VirtualKey) -> Vec<VisibleModel> {
    let mut visible: Vec<VisibleModel> = snapshot
        .aliases()
        .iter()
        .chain(
            snapshot
                .names()
                .iter()
                .filter(|(name, _)| !snapshot.aliases().contains_key(*name)),
        )
        .filter_map(|(name, ids)| visible_model(snapshot, key, name, ids))
        .collect();
    visible.sort_by(|left, right| left.name.cmp(&right.name));
    visible
}

fn visible_model(
    snapshot: &Snapshot,
    key: &VirtualKey,
    name: &str,
    ids: &[ModelId],
) -> Option<VisibleModel> {
    let allowed = allowed(snapshot, key, ids);
    let mut owners: Vec<&str> = Vec::new();
    for (id, _) in &allowed {
        let owner = &*snapshot.provider(snapshot.model(*id).provider).name;
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    (!allowed.is_empty()).then(|| VisibleModel {
        name: name.to_owned(),
        owned_by: owners.join(",").into(),
        max_output_tokens: allowed
            .iter()
            .filter_map(|(id, _)| snapshot.model(*id).max_output_tokens)
            .max(),
    })
}
