//! From the model a client asks for to the upstream choices in order.
//!
//! The allow-list is judged before anything else, so a key learns nothing of
//! models it may not use beyond that they exist. Randomness is an argument.

use std::sync::Arc;

use crate::model::{Dialect, ModelId, Provider};
use crate::snapshot::Snapshot;
use crate::virtual_key::VirtualKey;

/// Why no upstream can serve a request; a value, not a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    /// No model, alias or `provider/name` of that name.
    #[error("no such model")]
    UnknownModel,
    /// It exists, but the key may not use it.
    #[error("this key may not use the model")]
    ModelNotAllowed,
    /// Every choice speaks another dialect.
    #[error("no provider of the model serves this endpoint")]
    NoCompatibleProvider,
}

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

/// The upstream choices for `requested` in the order they are tried.
///
/// An alias gives its choices in order; a bare name a weighted pick by
/// `random` with the rest as fallbacks, heaviest first; `provider/name` one.
///
/// # Errors
/// The refusal to show the client.
pub fn choices(
    snapshot: &Snapshot,
    key: &VirtualKey,
    requested: &str,
    dialect: Dialect,
    random: u64,
) -> Result<Vec<ModelId>, RouteRefusal> {
    if let Some(ordered) = snapshot.aliases.get(requested) {
        return usable(snapshot, key, ordered, dialect)
            .map(|usable| usable.into_iter().map(|(id, _)| id).collect());
    }
    if let Some(named) = snapshot.names.get(requested) {
        return usable(snapshot, key, named, dialect).map(|usable| pick_first(usable, random));
    }
    if let Some(one) = snapshot.qualified.get(requested) {
        return usable(snapshot, key, &[*one], dialect)
            .map(|usable| usable.into_iter().map(|(id, _)| id).collect());
    }
    Err(RouteRefusal::UnknownModel)
}

/// The index of the credential to try next for a model: a weighted pick by
/// `random` among those allowed and not yet `tried`, among all allowed ones
/// once every one was tried, `None` when none is allowed. A credential of
/// weight 0 is used only when the others were tried.
#[must_use]
pub fn credential(provider: &Provider, model: &str, tried: &[usize], random: u64) -> Option<usize> {
    let allowed: Vec<(usize, u32)> = provider
        .credentials
        .iter()
        .enumerate()
        .filter(|(_, credential)| credential.models.allows(model))
        .map(|(index, credential)| (index, credential.weight))
        .collect();
    let fresh: Vec<(usize, u32)> = allowed
        .iter()
        .copied()
        .filter(|(index, _)| !tried.contains(index))
        .collect();
    let pool = if fresh.is_empty() { allowed } else { fresh };
    pick(&pool, random).map(|position| pool[position].0)
}

/// The bare names and aliases a key may use, sorted by name.
#[must_use]
pub fn visible_models(snapshot: &Snapshot, key: &VirtualKey) -> Vec<VisibleModel> {
    let mut visible: Vec<VisibleModel> = snapshot
        .aliases
        .iter()
        .chain(
            snapshot
                .names
                .iter()
                .filter(|(name, _)| !snapshot.aliases.contains_key(*name)),
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

/// Those of `ids` that the key may use and that speak `dialect`, with the
/// weights the key gives them.
fn usable(
    snapshot: &Snapshot,
    key: &VirtualKey,
    ids: &[ModelId],
    dialect: Dialect,
) -> Result<Vec<(ModelId, u32)>, RouteRefusal> {
    let mut usable = allowed(snapshot, key, ids);
    if usable.is_empty() {
        return Err(RouteRefusal::ModelNotAllowed);
    }
    usable.retain(|(id, _)| snapshot.provider(snapshot.model(*id).provider).dialect == dialect);
    if usable.is_empty() {
        return Err(RouteRefusal::NoCompatibleProvider);
    }
    Ok(usable)
}

fn allowed(snapshot: &Snapshot, key: &VirtualKey, ids: &[ModelId]) -> Vec<(ModelId, u32)> {
    ids.iter()
        .filter_map(|id| {
            let model = snapshot.model(*id);
            key.grants
                .iter()
                .find(|grant| grant.provider == model.provider && grant.models.allows(&model.name))
                .map(|grant| (*id, grant.weight))
        })
        .collect()
}

/// The weighted pick first, the rest heaviest first, equals in their order.
fn pick_first(mut usable: Vec<(ModelId, u32)>, random: u64) -> Vec<ModelId> {
    let first = pick(&usable, random).map(|position| usable.remove(position));
    usable.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    first.into_iter().chain(usable).map(|(id, _)| id).collect()
}

/// A position, each as likely as its weight; the first when all weigh nothing.
fn pick<T>(weighted: &[(T, u32)], random: u64) -> Option<usize> {
    let total: u64 = weighted.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        return (!weighted.is_empty()).then_some(0);
    }
    let mut point = random % total;
    weighted.iter().position(|(_, weight)| {
        let hit = point < u64::from(*weight);
        point = point.saturating_sub(u64::from(*weight));
        hit
    })
}

#[cfg(test)]
mod tests;
