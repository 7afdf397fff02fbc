//! Which credential of a provider a request uses.

use super::order::pick;
use crate::model::Provider;

/// The index of the credential to try next for a model: a weighted pick by
/// `random` among those allowed and not yet `tried`, among all allowed ones
/// once every one was tried, `None` when none is allowed. A credential of
/// weight 0 is used only when the others were tried. `pinned` leaves the one
/// of that name alone, whatever its weight.
#[must_use]
pub fn credential(
    provider: &Provider,
    model: &str,
    pinned: Option<&str>,
    tried: &[usize],
    random: u64,
) -> Option<usize> {
    let allowed: Vec<(usize, u32)> = provider
        .credentials
        .iter()
        .enumerate()
        .filter(|(_, credential)| pinned.is_none_or(|name| *credential.name == *name))
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
