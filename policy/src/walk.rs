//! Which scopes judge a request, in order.
//!
//! Those that do not depend on where it goes come first: virtual key, team,
//! customer, user, global. Those of an upstream choice follow: the key's
//! provider, the provider, the model by its bare name, the provider's model.
//! A scope that does not exist is no part of the walk.

use std::sync::Arc;

use crate::model::ModelId;
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::virtual_key::VirtualKey;

/// The scopes that judge a request wherever it goes.
pub(crate) fn common<'a>(
    snapshot: &'a Snapshot,
    key: &'a VirtualKey,
    user: Option<&'a Arc<Scope>>,
) -> impl Iterator<Item = &'a Arc<Scope>> {
    let team = key.team.as_deref().and_then(|name| snapshot.team(name));
    let customer = snapshot
        .customer_of(key)
        .and_then(|name| snapshot.customer(name));
    [
        key.scope.as_ref(),
        team.and_then(|team| team.scope.as_ref()),
        customer.and_then(|customer| customer.scope.as_ref()),
        user,
        snapshot.global(),
    ]
    .into_iter()
    .flatten()
}

/// The scopes that judge a request when it goes to `model`.
pub(crate) fn of_choice<'a>(
    snapshot: &'a Snapshot,
    key: &'a VirtualKey,
    model: ModelId,
) -> impl Iterator<Item = &'a Arc<Scope>> {
    let model = snapshot.model(model);
    let grant = snapshot.grant_of(key, model);
    [
        grant.and_then(|grant| grant.scope.as_ref()),
        snapshot.provider(model.provider).scope.as_ref(),
        snapshot.bare_model_scope(&model.name),
        model.scope.as_ref(),
    ]
    .into_iter()
    .flatten()
}
