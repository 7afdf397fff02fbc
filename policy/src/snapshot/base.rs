//! The half of the configuration that is resolved as a whole, with indexes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::{Model, ModelId, Provider, ProviderId};
use crate::route::Nearness;
use crate::rule::RuleSet;
use crate::scope::{Customer, Scope, Team};
use crate::user_limits::UserLimits;

/// What the base of a snapshot is built from. Ids are indexes into these
/// lists; names are unique within each list.
#[derive(Debug, Default)]
pub struct BaseParts {
    /// Providers, by `ProviderId`.
    pub providers: Vec<Provider>,
    /// Models, by `ModelId`.
    pub models: Vec<Model>,
    /// Further names for models, each with its choices in order.
    pub aliases: Vec<(Arc<str>, Vec<ModelId>)>,
    /// Limits of bare model names across providers, by their entity.
    pub model_scopes: Vec<Arc<Scope>>,
    /// Teams.
    pub teams: Vec<Team>,
    /// Customers.
    pub customers: Vec<Customer>,
    /// Limits of each end user.
    pub users: Option<UserLimits>,
    /// Limits of the whole gateway.
    pub global: Option<Arc<Scope>>,
    /// Routing rules.
    pub rules: RuleSet,
    /// Where the node is; `None` = it does not know.
    pub region: Option<Arc<str>>,
}

/// The parts with their indexes.
#[derive(Debug, Default)]
pub(super) struct Base {
    pub(super) providers: Vec<Provider>,
    pub(super) models: Vec<Model>,
    pub(super) provider_names: HashMap<Arc<str>, ProviderId>,
    pub(super) names: BTreeMap<Arc<str>, Vec<ModelId>>,
    pub(super) qualified: HashMap<Box<str>, ModelId>,
    pub(super) aliases: BTreeMap<Arc<str>, Vec<ModelId>>,
    pub(super) model_scopes: HashMap<Arc<str>, Arc<Scope>>,
    pub(super) teams: HashMap<Arc<str>, Team>,
    pub(super) customers: HashMap<Arc<str>, Customer>,
    pub(super) users: Option<UserLimits>,
    pub(super) global: Option<Arc<Scope>>,
    pub(super) rules: RuleSet,
    pub(super) region: Option<Arc<str>>,
    /// By `ProviderId`; empty when no provider is nearer than another.
    pub(super) nearness: Vec<Nearness>,
}

// === impl Base ===

impl Base {
    pub(super) fn new(parts: BaseParts) -> Self {
        let mut names: BTreeMap<Arc<str>, Vec<ModelId>> = BTreeMap::new();
        let mut qualified = HashMap::with_capacity(parts.models.len());
        for (index, model) in parts.models.iter().enumerate() {
            let id = ModelId(u32::try_from(index).expect("fewer than 2^32 models fit in memory"));
            names.entry(Arc::clone(&model.name)).or_default().push(id);
            let provider = &parts.providers[usize::from(model.provider.0)].name;
            qualified.insert(format!("{provider}/{}", model.name).into_boxed_str(), id);
        }
        let provider_names = (0..=u16::MAX)
            .zip(&parts.providers)
            .map(|(index, provider)| (Arc::clone(&provider.name), ProviderId(index)))
            .collect();
        Self {
            nearness: nearness(parts.region.as_ref(), &parts.providers),
            region: parts.region,
            provider_names,
            names,
            qualified,
            aliases: parts.aliases.into_iter().collect(),
            model_scopes: parts
                .model_scopes
                .into_iter()
                .map(|scope| (Arc::clone(&scope.entity), scope))
                .collect(),
            teams: parts
                .teams
                .into_iter()
                .map(|team| (Arc::clone(&team.name), team))
                .collect(),
            customers: parts
                .customers
                .into_iter()
                .map(|customer| (Arc::clone(&customer.name), customer))
                .collect(),
            providers: parts.providers,
            models: parts.models,
            users: parts.users,
            global: parts.global,
            rules: parts.rules,
        }
    }
}

fn nearness(region: Option<&Arc<str>>, providers: &[Provider]) -> Vec<Nearness> {
    let of = |provider: &Provider| Nearness::between(region, provider.region.as_ref());
    let all: Vec<Nearness> = providers.iter().map(of).collect();
    match all.iter().all(|one| *one == Nearness::Anywhere) {
        true => Vec::new(),
        false => all,
    }
}
