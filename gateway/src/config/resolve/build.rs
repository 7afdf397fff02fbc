//! From plans without problems to what runs.
//!
//! The only place of this module that touches what outlives a revision:
//! counters, connections, keys of token issuers, and what was learnt about
//! models.

use std::sync::Arc;

use policy::{
    BaseParts, Customer, Grant, Limit, LimitTemplate, RuleSet, Scope, Snapshot, Team, UserLimits,
    VirtualKey,
};

use super::adjust::{adjusted_limit, of_users};
use super::governance::{KeysPlan, TokenPlan, UsersPlan};
use super::key::KeyPlan;
use super::limit::{LimitPlan, ScopePlan};
use super::model::{ModelPlan, PriceFrom};
use super::prices::SourcePlan;
use super::{BasePlan, ResolveInto, prices};
use crate::config::catalogue::Entries;
use crate::config::file::Cluster;
use crate::config::load::Document;
use crate::config::problem::{FieldPath, Problem};
use crate::prices::PriceSource;
use crate::upstream::Upstream;
use crate::users::{Jwks, TokenRule, UserRule};

/// What a base becomes.
pub(super) struct BuiltBase {
    pub(super) parts: BaseParts,
    pub(super) upstreams: Arc<[Arc<Upstream>]>,
    pub(super) users: Arc<UserRule>,
    pub(super) prices: Option<Arc<PriceSource>>,
}

/// What limits are made with.
#[derive(Clone, Copy)]
struct Making<'a> {
    into: &'a ResolveInto<'a>,
    entries: &'a Entries,
}

pub(super) fn base(
    document: &Document,
    plan: BasePlan,
    into: &ResolveInto<'_>,
    entries: &Entries,
) -> Result<BuiltBase, Vec<Problem>> {
    let making = Making { into, entries };
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
        providers.push(policy::Provider {
            scope: making.scope(provider.scope),
            ..provider.policy
        });
    }
    let governance = plan.governance;
    let users = user_rule(governance.users.as_ref(), into).unwrap_or_else(|message| {
        let at = ["governance", "users", "jwt", "jwks"];
        let at = at.iter().fold(FieldPath::root(), |at, name| at.key(name));
        problems.push(document.problem(&at, message));
        UserRule::default()
    });
    let prices = price_source(plan.prices.as_ref(), into).unwrap_or_else(|message| {
        let at = FieldPath::root().key("catalogue").key("source");
        problems.push(document.problem(&at, message));
        None
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    let models = making.models(plan.models, &providers);
    let teams = plan.teams.into_iter().map(|team| Team {
        name: Arc::clone(&team.scope.entity),
        customer: team.customer,
        scope: making.scope(team.scope),
    });
    let customers = plan.customers.into_iter().map(|scope| Customer {
        name: Arc::clone(&scope.entity),
        scope: making.scope(scope),
    });
    let model_scopes = governance.models.into_iter();
    let parts = BaseParts {
        teams: teams.collect(),
        customers: customers.collect(),
        model_scopes: model_scopes
            .filter_map(|scope| making.scope(scope))
            .collect(),
        users: governance.users.map(|users| making.user_limits(users)),
        global: making.scope(governance.global),
        rules: RuleSet::new(plan.rules),
        region: region(&document.file.cluster.region),
        aliases: plan.aliases,
        providers,
        models,
    };
    Ok(BuiltBase {
        parts,
        upstreams: upstreams.into(),
        users: Arc::new(users),
        prices,
    })
}

fn price_source(
    plan: Option<&SourcePlan>,
    into: &ResolveInto<'_>,
) -> Result<Option<Arc<PriceSource>>, String> {
    let source = plan.map(|source| source.build(into)).transpose()?;
    Ok(source.flatten().map(Arc::new))
}

/// Where the node is; the default says that it does not know.
fn region(name: &str) -> Option<Arc<str>> {
    (name != Cluster::default().region).then(|| name.into())
}

/// Models that stay keep their ratio of tokens to bytes.
fn keep_learnt(models: &mut [policy::Model], providers: &[policy::Provider], previous: &Snapshot) {
    for model in models {
        let provider = &providers[usize::from(model.provider.0)].name;
        if let Some(earlier) = previous.model_of(provider, &model.name) {
            model.estimate = Arc::clone(&previous.model(earlier).estimate);
        }
    }
}

/// Keys of an issuer's address are kept as they were fetched.
fn user_rule(plan: Option<&UsersPlan>, into: &ResolveInto<'_>) -> Result<UserRule, String> {
    let Some(plan) = plan else {
        return Ok(UserRule::default());
    };
    let token = match &plan.token {
        Some(token) => token_rule(token, into)?,
        None => None,
    };
    Ok(UserRule::new(
        plan.header.clone(),
        plan.trusted_from.clone(),
        token,
        plan.required,
    ))
}

fn token_rule(plan: &TokenPlan, into: &ResolveInto<'_>) -> Result<Option<TokenRule>, String> {
    let keys = match &plan.keys {
        KeysPlan::Known(keys) => Arc::clone(keys),
        KeysPlan::At { uri, allow_private } => {
            let before = into.previous.and_then(|live| live.users.keys());
            match before.filter(|keys| keys.is_of_address(uri, *allow_private)) {
                Some(keys) => keys,
                None => Jwks::of_address(uri, *allow_private, into.clients)
                    .map(Arc::new)
                    .map_err(|error| error.to_string())?,
            }
        }
        KeysPlan::Unread => return Ok(None),
    };
    Ok(Some(TokenRule {
        header: plan.header.clone(),
        issuer: Some(plan.issuer.clone()),
        audience: vec![plan.audience.clone()],
        claim: plan.claim.clone(),
        keys,
    }))
}

/// A key with its counters.
pub(super) fn key(plan: KeyPlan, into: &ResolveInto<'_>, entries: &Entries) -> VirtualKey {
    let making = Making { into, entries };
    let grants = plan.grants.into_iter().map(|grant| Grant {
        provider: grant.provider,
        models: grant.models,
        weight: grant.weight,
        scope: making.scope(grant.scope),
    });
    VirtualKey {
        grants: grants.collect(),
        scope: making.scope(plan.scope),
        name: plan.name,
        hash: plan.hash,
        retiring: plan.retiring,
        team: plan.team,
        customer: plan.customer,
        active: plan.active,
        not_before: plan.not_before,
        expires_at: plan.expires_at,
    }
}

// === impl Making ===

impl Making<'_> {
    fn models(self, plans: Vec<ModelPlan>, providers: &[policy::Provider]) -> Vec<policy::Model> {
        let models = plans.into_iter().map(|plan| {
            let mut model = policy::Model {
                scope: self.scope(plan.scope),
                ..plan.policy
            };
            if let PriceFrom::List(name) = plan.price {
                let provider = &providers[usize::from(model.provider.0)];
                prices::from_list(&mut model, name.as_deref(), provider, self.into);
            }
            model
        });
        let mut models: Vec<policy::Model> = models.collect();
        if let Some(previous) = self.into.previous {
            keep_learnt(&mut models, providers, &previous.policy);
        }
        models
    }

    /// `None` for an entity without limits: there is nothing to walk.
    fn scope(self, plan: ScopePlan) -> Option<Arc<Scope>> {
        if plan.limits.is_empty() {
            return None;
        }
        let limits = plan.limits.into_iter().map(|limit| self.limit(limit));
        Some(Arc::new(Scope {
            kind: plan.kind,
            entity: plan.entity,
            limits: limits.collect(),
        }))
    }

    fn limit(self, plan: LimitPlan) -> Limit {
        let (id, overridden) = adjusted_limit(self.entries, &plan.id);
        Limit {
            counter: self.into.counters.counter(&id),
            id,
            amount: plan.amount,
            enforcement: plan.enforcement,
            shadow: plan.shadow,
            on_tight: plan.on_tight,
            overridden,
        }
    }

    fn user_limits(self, plan: UsersPlan) -> UserLimits {
        let templates = plan.scope.limits.into_iter().map(|limit| LimitTemplate {
            unit: limit.id.unit,
            period: limit.id.period,
            window: limit.id.window,
            name: limit.id.name,
            amount: limit.amount,
            enforcement: limit.enforcement,
            shadow: limit.shadow,
            on_tight: limit.on_tight,
        });
        let counters = Arc::clone(self.into.counters);
        UserLimits::new(templates.collect(), counters, plan.max_tracked)
            .amended(of_users(self.entries))
    }
}
