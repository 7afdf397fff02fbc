//! From a plan without problems to a `Live`.
//!
//! The only place of this module that touches what outlives a revision:
//! counters, connections, and what was learnt about models.

use std::collections::HashMap;
use std::sync::Arc;

use policy::{Limit, Scope, Snapshot, SnapshotParts, VirtualKey};

use super::access::KeyPlan;
use super::limit::ScopePlan;
use super::{Plan, ResolveInto};
use crate::config::load::Document;
use crate::config::problem::{FieldPath, Problem};
use crate::state::Live;
use crate::upstream::Upstream;

pub(super) fn live(
    document: &Document,
    mut plan: Plan,
    into: &ResolveInto<'_>,
) -> Result<Live, Vec<Problem>> {
    let mut providers = Vec::with_capacity(plan.providers.len());
    let mut upstreams: Vec<Arc<Upstream>> = Vec::with_capacity(plan.providers.len());
    let mut problems = Vec::new();
    for (index, provider) in plan.providers.into_iter().enumerate() {
        match into.clients.upstream(provider.upstream) {
            Ok(upstream) => upstreams.push(Arc::new(upstream)),
            Err(error) => {
                let at = FieldPath::root().key("providers").index(index);
                problems.push(document.problem(&at, error.to_string()));
            }
        }
        providers.push(provider.policy);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if let Some(previous) = into.previous {
        keep_learnt(&mut plan.models, &providers, &previous.policy);
    }
    let customers = scopes(into, plan.access.customers);
    let teams = scopes(into, plan.access.teams);
    let keys = plan
        .access
        .keys
        .into_iter()
        .map(|key| virtual_key(into, key, &teams, &customers))
        .collect();
    Ok(Live {
        policy: Snapshot::new(SnapshotParts {
            revision: into.revision,
            providers,
            models: plan.models,
            aliases: plan.aliases,
            keys,
        }),
        upstreams,
        bounds: plan.bounds,
        budget_status: document.file.governance.budget_status,
        admin_tokens: plan.admin_tokens,
        redacted: super::super::redacted(document),
    })
}

/// Models that stay keep their ratio of tokens to bytes.
fn keep_learnt(models: &mut [policy::Model], providers: &[policy::Provider], previous: &Snapshot) {
    let learnt: HashMap<(&str, &str), &policy::Model> = previous
        .models
        .iter()
        .map(|model| {
            let provider = &previous.provider(model.provider).name;
            ((&**provider, &*model.name), model)
        })
        .collect();
    for model in models {
        let provider = &providers[usize::from(model.provider.0)].name;
        if let Some(earlier) = learnt.get(&(&**provider, &*model.name)) {
            model.estimate = Arc::clone(&earlier.estimate);
        }
    }
}

fn scopes(into: &ResolveInto<'_>, plans: Vec<ScopePlan>) -> HashMap<Arc<str>, Arc<Scope>> {
    plans
        .into_iter()
        .filter_map(|plan| with_counters(into, plan))
        .map(|scope| (Arc::clone(&scope.entity), scope))
        .collect()
}

/// `None` for an entity without limits: there is nothing to walk.
fn with_counters(into: &ResolveInto<'_>, plan: ScopePlan) -> Option<Arc<Scope>> {
    if plan.limits.is_empty() {
        return None;
    }
    let limits = plan
        .limits
        .into_iter()
        .map(|limit| Limit {
            counter: into.counters.counter(&limit.id),
            id: limit.id,
            amount: limit.amount,
            enforcement: limit.enforcement,
        })
        .collect();
    Some(Arc::new(Scope {
        kind: plan.kind,
        entity: plan.entity,
        limits,
    }))
}

fn virtual_key(
    into: &ResolveInto<'_>,
    plan: KeyPlan,
    teams: &HashMap<Arc<str>, Arc<Scope>>,
    customers: &HashMap<Arc<str>, Arc<Scope>>,
) -> VirtualKey {
    let own = with_counters(into, plan.scope);
    let team = plan.team.as_ref().and_then(|team| teams.get(team));
    let customer = plan
        .customer
        .as_ref()
        .and_then(|customer| customers.get(customer));
    VirtualKey {
        name: plan.name,
        hash: plan.hash,
        scopes: own
            .into_iter()
            .chain(team.cloned())
            .chain(customer.cloned())
            .collect(),
        team: plan.team,
        customer: plan.customer,
        grants: plan.grants,
    }
}
