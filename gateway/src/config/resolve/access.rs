//! `customers`, `teams`, `virtual_keys`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use policy::{Grant, KeyHash, ScopeKind};

use super::limit::{ScopePlan, scope};
use super::model::Names;
use super::provider::allow_list;
use super::server::LEAST_TOKEN;
use super::{Checks, unknown};
use crate::config::file::{KeyMaterial, VirtualKey};
use crate::config::problem::FieldPath;

/// Who may call, and within which limits.
pub(super) struct AccessPlan {
    pub(super) customers: Vec<ScopePlan>,
    pub(super) teams: Vec<ScopePlan>,
    /// Active ones only: to clients an inactive key does not exist.
    pub(super) keys: Vec<KeyPlan>,
}

/// One virtual key.
pub(super) struct KeyPlan {
    pub(super) name: Arc<str>,
    pub(super) hash: KeyHash,
    pub(super) team: Option<Arc<str>>,
    /// Its own or its team's.
    pub(super) customer: Option<Arc<str>>,
    pub(super) grants: Vec<Grant>,
    pub(super) scope: ScopePlan,
}

pub(super) fn access(checks: &mut Checks<'_>, names: &Names<'_>) -> AccessPlan {
    AccessPlan {
        customers: customers(checks),
        teams: teams(checks),
        keys: keys(checks, names),
    }
}

fn customers(checks: &mut Checks<'_>) -> Vec<ScopePlan> {
    let document = checks.document;
    let all = FieldPath::root().key("customers");
    let mut seen = BTreeMap::new();
    let mut plans = Vec::new();
    for (index, customer) in document.file.customers.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "customer", &customer.name, &at.key("name"));
        let limits = (customer.rate_limits.as_slice(), customer.budgets.as_slice());
        plans.push(scope(
            checks,
            &at,
            ScopeKind::Customer,
            &customer.name,
            limits,
        ));
    }
    plans
}

fn teams(checks: &mut Checks<'_>) -> Vec<ScopePlan> {
    let document = checks.document;
    let all = FieldPath::root().key("teams");
    let mut seen = BTreeMap::new();
    let mut plans = Vec::new();
    for (index, team) in document.file.teams.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "team", &team.name, &at.key("name"));
        known_customer(checks, &at.key("customer"), team.customer.as_deref());
        let limits = (team.rate_limits.as_slice(), team.budgets.as_slice());
        plans.push(scope(checks, &at, ScopeKind::Team, &team.name, limits));
    }
    plans
}

fn known_customer(checks: &mut Checks<'_>, at: &FieldPath, name: Option<&str>) {
    let customers = &checks.document.file.customers;
    if let Some(name) = name
        && !customers.iter().any(|customer| customer.name == name)
    {
        let message = unknown("customer", name, customers.iter().map(|known| &known.name));
        checks.problem(at, message);
    }
}

fn keys(checks: &mut Checks<'_>, names: &Names<'_>) -> Vec<KeyPlan> {
    let document = checks.document;
    let all = FieldPath::root().key("virtual_keys");
    let teams: HashMap<&str, Option<&str>> = document
        .file
        .teams
        .iter()
        .map(|team| (team.name.as_str(), team.customer.as_deref()))
        .collect();
    let mut seen = BTreeMap::new();
    let mut hashes: HashMap<KeyHash, &str> = HashMap::new();
    let mut plans = Vec::with_capacity(document.file.virtual_keys.len());
    for (index, key) in document.file.virtual_keys.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "virtual key", &key.name, &at.key("name"));
        let hash = hash(checks, &at, key);
        if let Some(hash) = hash
            && let Some(twin) = hashes.insert(hash, &key.name)
        {
            let message = format!("has the same value as virtual key '{twin}'");
            let field = if key.value.is_some() {
                "value"
            } else {
                "sha256"
            };
            checks.problem(&at.key(field), message);
        }
        let plan = KeyPlan {
            name: key.name.as_str().into(),
            hash: hash.unwrap_or(KeyHash([0; 32])),
            team: key.team.as_deref().map(Arc::from),
            customer: owner(checks, &at, key, &teams),
            grants: grants(checks, names, &at, key),
            scope: scope(
                checks,
                &at,
                ScopeKind::VirtualKey,
                &key.name,
                (&key.rate_limits, &key.budgets),
            ),
        };
        if key.active {
            plans.push(plan);
        }
    }
    plans
}

fn hash(checks: &mut Checks<'_>, at: &FieldPath, key: &VirtualKey) -> Option<KeyHash> {
    match key.material() {
        Some(KeyMaterial::Value(value)) => {
            let secret = checks.secret(&at.key("value"), &value.0, LEAST_TOKEN);
            Some(KeyHash::of(secret.expose().as_bytes()))
        }
        Some(KeyMaterial::Sha256(text)) => {
            let mut hash = [0; 32];
            match hex::decode_to_slice(text, &mut hash) {
                Ok(()) => Some(KeyHash(hash)),
                Err(_) => {
                    checks.problem(&at.key("sha256"), "expected 64 hexadecimal digits");
                    None
                }
            }
        }
        None => {
            checks.problem(at, "needs exactly one of `value`, `sha256`");
            None
        }
    }
}

/// The customer that pays for a key; who it belongs to is judged here.
fn owner(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    key: &VirtualKey,
    teams: &HashMap<&str, Option<&str>>,
) -> Option<Arc<str>> {
    if key.team.is_some() && key.customer.is_some() {
        let message = "a key belongs to a `team` or to a `customer`, not to both";
        checks.problem(&at.key("customer"), message);
    }
    known_customer(checks, &at.key("customer"), key.customer.as_deref());
    let Some(team) = key.team.as_deref() else {
        return key.customer.as_deref().map(Arc::from);
    };
    match teams.get(team) {
        Some(customer) => customer.map(Arc::from),
        None => {
            let message = unknown("team", team, teams.keys());
            checks.problem(&at.key("team"), message);
            None
        }
    }
}

fn grants(
    checks: &mut Checks<'_>,
    names: &Names<'_>,
    at: &FieldPath,
    key: &VirtualKey,
) -> Vec<Grant> {
    let all = at.key("providers");
    if key.providers.is_empty() && key.active {
        let message = format!(
            "virtual key '{}' has no `providers` and may use nothing",
            key.name
        );
        checks.warning(at, message);
    }
    let mut seen = BTreeMap::new();
    let mut grants = Vec::with_capacity(key.providers.len());
    for (index, grant) in key.providers.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "provider", &grant.name, &at.key("name"));
        let models = allow_list(checks, names, &at.key("models"), &grant.name, &grant.models);
        match names.provider(&grant.name) {
            Some(provider) => grants.push(Grant {
                provider,
                models,
                weight: grant.weight,
            }),
            None => {
                let message = unknown("provider", &grant.name, names.provider_names());
                checks.problem(&at.key("name"), message);
            }
        }
    }
    grants
}
