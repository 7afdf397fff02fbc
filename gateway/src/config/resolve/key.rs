//! `virtual_keys`: each judged by itself, by the names of the base.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use policy::{AllowList, KeyHash, ScopeKind, Timestamp};

use super::access::known_customer;
use super::limit::{ScopePlan, scope};
use super::names::Names;
use super::provider::allow_list;
use super::server::LEAST_TOKEN;
use super::{Checks, unknown};
use crate::config::file::{File, KeyMaterial, Moment, VirtualKey};
use crate::config::problem::FieldPath;

/// One virtual key, its counters apart.
pub(in crate::config) struct KeyPlan {
    pub(super) name: Arc<str>,
    /// Zeros for one that has none; a problem says so.
    pub(in crate::config) hash: KeyHash,
    pub(super) retiring: Vec<(KeyHash, Timestamp)>,
    pub(super) team: Option<Arc<str>>,
    pub(super) customer: Option<Arc<str>>,
    pub(super) grants: Vec<GrantPlan>,
    pub(super) scope: ScopePlan,
    pub(super) active: bool,
    pub(super) not_before: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
}

/// A provider that a key may use.
pub(super) struct GrantPlan {
    pub(super) provider: Arc<str>,
    pub(super) models: AllowList,
    pub(super) weight: u32,
    pub(super) scope: ScopePlan,
}

impl KeyPlan {
    /// The key's name.
    pub(in crate::config) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Every hash that leads to the key.
    pub(in crate::config) fn hashes(&self) -> impl Iterator<Item = KeyHash> {
        let retiring = self.retiring.iter().map(|(hash, _)| *hash);
        std::iter::once(self.hash).chain(retiring)
    }
}

/// The keys of a file.
pub(super) fn keys(checks: &mut Checks<'_>, names: &Names, file: &File) -> Vec<KeyPlan> {
    let all = FieldPath::root().key("virtual_keys");
    let mut seen = BTreeMap::new();
    let mut hashes: HashMap<KeyHash, &str> = HashMap::new();
    let mut plans = Vec::with_capacity(file.virtual_keys.len());
    for (index, key) in file.virtual_keys.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "virtual key", &key.name, &at.key("name"));
        let plan = plan(checks, names, &at, key);
        if key.material().is_some()
            && let Some(twin) = hashes.insert(plan.hash, &key.name)
        {
            let message = format!("has the same value as virtual key '{twin}'");
            checks.problem(&at.key(material_field(key)), message);
        }
        plans.push(plan);
    }
    plans
}

/// The field that holds a key's value.
pub(in crate::config) fn material_field(key: &VirtualKey) -> &'static str {
    match key.value {
        Some(_) => "value",
        None => "sha256",
    }
}

/// One key, with its fields below `at`.
pub(in crate::config) fn plan(
    checks: &mut Checks<'_>,
    names: &Names,
    at: &FieldPath,
    key: &VirtualKey,
) -> KeyPlan {
    let hash = hash(checks, at, key);
    let limits = (key.rate_limits.as_slice(), key.budgets.as_slice());
    let scope = scope(checks, at, ScopeKind::VirtualKey, &key.name, limits);
    belongs(checks, names, at, key);
    let not_before = moment(checks, &at.key("not_before"), key.not_before.as_ref());
    let expires_at = moment(checks, &at.key("expires_at"), key.expires_at.as_ref());
    if let (Some(from), Some(until)) = (not_before, expires_at)
        && until <= from
    {
        checks.problem(&at.key("expires_at"), "is not after `not_before`");
    }
    KeyPlan {
        name: key.name.as_str().into(),
        hash: hash.unwrap_or(KeyHash([0; 32])),
        retiring: retiring(checks, at, key),
        team: key.team.as_deref().map(Arc::from),
        customer: key.customer.as_deref().map(Arc::from),
        grants: grants(checks, names, at, key),
        scope,
        active: key.active,
        not_before,
        expires_at,
    }
}

fn hash(checks: &mut Checks<'_>, at: &FieldPath, key: &VirtualKey) -> Option<KeyHash> {
    match key.material() {
        Some(KeyMaterial::Value(value)) => {
            let secret = checks.secret(&at.key("value"), &value.0, LEAST_TOKEN);
            Some(KeyHash::of(secret.expose().as_bytes()))
        }
        Some(KeyMaterial::Sha256(text)) => from_hex(checks, &at.key("sha256"), text),
        None => {
            checks.problem(at, "needs exactly one of `value`, `sha256`");
            None
        }
    }
}

pub(super) fn from_hex(checks: &mut Checks<'_>, at: &FieldPath, text: &str) -> Option<KeyHash> {
    let mut hash = [0; 32];
    match hex::decode_to_slice(text, &mut hash) {
        Ok(()) => Some(KeyHash(hash)),
        Err(_) => {
            checks.problem(at, "expected 64 hexadecimal digits");
            None
        }
    }
}

fn retiring(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    key: &VirtualKey,
) -> Vec<(KeyHash, Timestamp)> {
    let mut all = Vec::with_capacity(key.retiring.len());
    for (index, former) in key.retiring.iter().enumerate() {
        let at = at.key("retiring").index(index);
        let hash = from_hex(checks, &at.key("sha256"), &former.sha256);
        let until = moment(checks, &at.key("until"), Some(&former.until));
        all.extend(hash.zip(until));
    }
    all
}

fn moment(checks: &mut Checks<'_>, at: &FieldPath, text: Option<&Moment>) -> Option<Timestamp> {
    let text = text?;
    let moment = text.at();
    if moment.is_none() {
        let message = format!(
            "`{}` is no time of the calendar after 1970",
            text.0.escape_debug()
        );
        checks.problem(at, message);
    }
    moment
}

fn belongs(checks: &mut Checks<'_>, names: &Names, at: &FieldPath, key: &VirtualKey) {
    if key.team.is_some() && key.customer.is_some() {
        let message = "a key belongs to a `team` or to a `customer`, not to both";
        checks.problem(&at.key("customer"), message);
    }
    known_customer(checks, names, &at.key("customer"), key.customer.as_deref());
    if let Some(team) = key.team.as_deref()
        && !names.has_team(team)
    {
        let message = unknown("team", team, names.team_names());
        checks.problem(&at.key("team"), message);
    }
}

fn grants(
    checks: &mut Checks<'_>,
    names: &Names,
    at: &FieldPath,
    key: &VirtualKey,
) -> Vec<GrantPlan> {
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
        if !names.has_provider(&grant.name) {
            let message = unknown("provider", &grant.name, names.provider_names());
            checks.problem(&at.key("name"), message);
        }
        let entity = format!("{}/{}", key.name, grant.name);
        let limits = (grant.rate_limits.as_slice(), grant.budgets.as_slice());
        grants.push(GrantPlan {
            provider: grant.name.as_str().into(),
            models,
            weight: grant.weight,
            scope: scope(checks, &at, ScopeKind::VirtualKeyProvider, &entity, limits),
        });
    }
    grants
}
