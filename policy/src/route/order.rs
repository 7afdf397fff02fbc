//! What a model's name means, and the order of its choices without rules.

use std::cmp::Reverse;

use super::{Call, RouteRefusal, SkipReason, Skipped};
use crate::model::{Dialect, ModelId};
use crate::snapshot::Snapshot;
use crate::virtual_key::VirtualKey;

/// A name that clients may ask for, resolved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// Empty unless the name begins with a provider's.
    pub(super) provider: &'a str,
    /// The bare name or alias.
    pub(super) model: &'a str,
    choices: &'a [ModelId],
    /// Whether the choices are tried in their order; otherwise one is drawn.
    ordered: bool,
}

/// Looks a name up: an alias, a bare name, or `provider/name`.
pub(super) fn resolve<'a>(snapshot: &'a Snapshot, name: &'a str) -> Option<Asked<'a>> {
    if let Some(choices) = snapshot.aliases().get(name) {
        return Some(Asked {
            provider: "",
            model: name,
            choices,
            ordered: true,
        });
    }
    if let Some(choices) = snapshot.names().get(name) {
        return Some(Asked {
            provider: "",
            model: name,
            choices,
            ordered: false,
        });
    }
    let one = snapshot.qualified().get(name)?;
    let model = snapshot.model(*one);
    Some(Asked {
        provider: &snapshot.provider(model.provider).name,
        model: &model.name,
        choices: std::slice::from_ref(one),
        ordered: true,
    })
}

/// Those of `ids` that the key may use, with the weights the key gives them.
pub(super) fn allowed(
    snapshot: &Snapshot,
    key: &VirtualKey,
    ids: &[ModelId],
) -> Vec<(ModelId, u32)> {
    ids.iter()
        .filter_map(|id| {
            snapshot
                .grant_of(key, snapshot.model(*id))
                .map(|grant| (*id, grant.weight))
        })
        .collect()
}

/// Whether a model speaks `dialect`.
pub(super) fn speaks(snapshot: &Snapshot, id: ModelId, dialect: Dialect) -> bool {
    snapshot.provider(snapshot.model(id).provider).dialect == dialect
}

/// A position, each as likely as its weight; the first when all weigh nothing.
pub(super) fn pick<T>(weighted: &[(T, u32)], random: u64) -> Option<usize> {
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

/// The weighted pick first, of the nearest ones; then the rest: the nearest
/// first, of these the heaviest, equals in their order. What weighs nothing is
/// a last resort, however near it is.
fn drawn_first(
    snapshot: &Snapshot,
    mut weighted: Vec<(ModelId, u32)>,
    random: u64,
) -> Vec<ModelId> {
    let tier = |(id, weight): &(ModelId, u32)| (*weight == 0, snapshot.nearness(*id));
    weighted.sort_by_key(tier);
    let first = weighted.first().map(tier);
    let near = weighted.partition_point(|one| first.is_some_and(|first| tier(one) <= first));
    let drawn = pick(&weighted[..near], random).map(|position| weighted.remove(position));
    weighted.sort_by_key(|one| (tier(one), Reverse(one.1)));
    drawn
        .into_iter()
        .chain(weighted)
        .map(|(id, _)| id)
        .collect()
}

/// Puts the nearest first; what is as near as another keeps its place.
pub(super) fn nearest_first(snapshot: &Snapshot, ids: &mut [ModelId]) {
    if snapshot.is_regional() {
        ids.sort_by_key(|id| snapshot.nearness(*id));
    }
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// Every choice, whoever may use it.
    pub(super) fn choices(&self) -> &'a [ModelId] {
        self.choices
    }

    /// Whether the key may use any of the choices.
    pub(super) fn is_allowed(&self, snapshot: &Snapshot, key: &VirtualKey) -> bool {
        self.choices
            .iter()
            .any(|id| snapshot.grant_of(key, snapshot.model(*id)).is_some())
    }

    /// Usable choices in the order they are tried.
    pub(super) fn arranged(
        &self,
        snapshot: &Snapshot,
        usable: Vec<(ModelId, u32)>,
        random: u64,
    ) -> Vec<ModelId> {
        if self.ordered {
            let mut ids: Vec<ModelId> = usable.into_iter().map(|(id, _)| id).collect();
            nearest_first(snapshot, &mut ids);
            return ids;
        }
        drawn_first(snapshot, usable, random)
    }

    /// The choices that the key may use, that speak the endpoint's dialect and
    /// whose price is known, in the order they are tried. Those without a price
    /// go to `skipped`.
    pub(super) fn plain(
        &self,
        snapshot: &Snapshot,
        key: &VirtualKey,
        call: &Call<'_>,
        skipped: &mut Vec<Skipped>,
    ) -> Result<Vec<ModelId>, RouteRefusal> {
        let mut usable = allowed(snapshot, key, self.choices);
        if usable.is_empty() {
            return Err(RouteRefusal::ModelNotAllowed);
        }
        usable.retain(|(id, _)| speaks(snapshot, *id, call.dialect));
        if usable.is_empty() {
            return Err(RouteRefusal::NoCompatibleProvider);
        }
        usable.retain(|(id, _)| {
            let known = snapshot.model(*id).price.is_known();
            if !known {
                skipped.push(Skipped::of(snapshot, *id, SkipReason::PriceUnknown));
            }
            known
        });
        if usable.is_empty() {
            return Err(RouteRefusal::PriceUnknown);
        }
        Ok(self.arranged(snapshot, usable, call.random))
    }
}
