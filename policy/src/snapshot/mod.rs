//! The resolved configuration as far as decisions need it: immutable, read
//! without locks.
//!
//! Two halves. The base (providers, models, teams, customers, rules) is
//! resolved as a whole. Virtual keys are changed one at a time and sit in
//! persistent maps, so a snapshot with one key changed shares all the rest
//! with the one before. Cloning costs three reference counts.
//!
//! A key names its team, customer and providers; a name that the base lacks
//! gives neither limits nor access.

mod base;
mod keys;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use base::BaseParts;
pub use keys::KeyRefusal;

use crate::model::{Model, ModelId, Provider, ProviderId};
use crate::route::Nearness;
use crate::rule::RuleSet;
use crate::scope::{Customer, Scope, Team};
use crate::time::Timestamp;
use crate::user_limits::UserLimits;
use crate::virtual_key::{Grant, KeyHash, VirtualKey};
use base::Base;
use keys::Keys;

/// Who may call what, where it goes, and within which limits.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    revision: u64,
    base: Arc<Base>,
    keys: Keys,
}

// === impl Snapshot: making one from another ===

impl Snapshot {
    /// Builds the indexes. Ids out of range are the caller's mistake and
    /// panic. Names and hashes of `keys` should be unique; a later one takes
    /// the place of an earlier one (`with_key`).
    #[must_use]
    pub fn new(
        revision: u64,
        parts: BaseParts,
        keys: impl IntoIterator<Item = VirtualKey>,
    ) -> Self {
        let mut made = Keys::default();
        for key in keys {
            made.put(key);
        }
        Self {
            revision,
            base: Arc::new(Base::new(parts)),
            keys: made,
        }
    }

    /// The same keys on another base.
    #[must_use]
    pub fn with_base(&self, revision: u64, parts: BaseParts) -> Self {
        Self {
            revision,
            base: Arc::new(Base::new(parts)),
            keys: self.keys.clone(),
        }
    }

    /// With this key in the place of the one of its name, whose hashes go.
    ///
    /// A hash belongs to the key that was put last: one that another key had
    /// is taken from it, so no value ever means two keys.
    #[must_use]
    pub fn with_key(&self, revision: u64, key: VirtualKey) -> Self {
        self.with_keys(revision, |keys| keys.put(key))
    }

    /// Without the key of this name.
    #[must_use]
    pub fn without_key(&self, revision: u64, name: &str) -> Self {
        self.with_keys(revision, |keys| keys.remove(name))
    }

    /// With this hash refused, whoever has it now or later.
    #[must_use]
    pub fn with_revoked(&self, revision: u64, hash: KeyHash) -> Self {
        self.with_keys(revision, |keys| keys.revoke(hash))
    }

    /// With this hash no longer refused.
    #[must_use]
    pub fn without_revoked(&self, revision: u64, hash: &KeyHash) -> Self {
        self.with_keys(revision, |keys| keys.pardon(hash))
    }

    fn with_keys(&self, revision: u64, change: impl FnOnce(&mut Keys)) -> Self {
        let mut next = self.clone();
        next.revision = revision;
        change(&mut next.keys);
        next
    }
}

// === impl Snapshot: the base ===

impl Snapshot {
    /// Grows with every change of the configuration.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All providers, by `ProviderId`.
    #[must_use]
    pub fn providers(&self) -> &[Provider] {
        &self.base.providers
    }

    /// All models, by `ModelId`.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        &self.base.models
    }

    /// A provider of this snapshot.
    #[must_use]
    pub fn provider(&self, id: ProviderId) -> &Provider {
        &self.base.providers[usize::from(id.0)]
    }

    /// A model of this snapshot.
    #[must_use]
    pub fn model(&self, id: ModelId) -> &Model {
        &self.base.models[id.0 as usize]
    }

    /// The provider with this name.
    #[must_use]
    pub fn provider_named(&self, name: &str) -> Option<ProviderId> {
        self.base.provider_names.get(name).copied()
    }

    /// The model that clients may ask for as `provider/model`.
    #[must_use]
    pub fn model_of(&self, provider: &str, model: &str) -> Option<ModelId> {
        let provider = self.provider_named(provider)?;
        self.base
            .names
            .get(model)?
            .iter()
            .copied()
            .find(|id| self.model(*id).provider == provider)
    }

    /// The limits of a bare model name across providers.
    #[must_use]
    pub fn bare_model_scope(&self, name: &str) -> Option<&Arc<Scope>> {
        self.base.model_scopes.get(name)
    }

    /// The team with this name.
    #[must_use]
    pub fn team(&self, name: &str) -> Option<&Team> {
        self.base.teams.get(name)
    }

    /// The customer with this name.
    #[must_use]
    pub fn customer(&self, name: &str) -> Option<&Customer> {
        self.base.customers.get(name)
    }

    /// The teams, in no order.
    pub fn teams(&self) -> impl Iterator<Item = &Team> {
        self.base.teams.values()
    }

    /// The customers, in no order.
    pub fn customers(&self) -> impl Iterator<Item = &Customer> {
        self.base.customers.values()
    }

    /// The limits of bare model names, in no order.
    pub fn model_scopes(&self) -> impl Iterator<Item = &Arc<Scope>> {
        self.base.model_scopes.values()
    }

    /// The name of the customer a key belongs to: its own, else its team's.
    #[must_use]
    pub fn customer_of<'a>(&'a self, key: &'a VirtualKey) -> Option<&'a Arc<str>> {
        key.customer
            .as_ref()
            .or_else(|| self.team(key.team.as_deref()?)?.customer.as_ref())
    }

    /// The limits of the whole gateway.
    #[must_use]
    pub fn global(&self) -> Option<&Arc<Scope>> {
        self.base.global.as_ref()
    }

    /// The limits of each end user.
    #[must_use]
    pub fn users(&self) -> Option<&UserLimits> {
        self.base.users.as_ref()
    }

    /// The routing rules.
    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        &self.base.rules
    }

    /// Where the node is; `None` = it does not know.
    #[must_use]
    pub fn region(&self) -> Option<&Arc<str>> {
        self.base.region.as_ref()
    }

    /// Whether some provider is nearer than another may be.
    #[must_use]
    pub fn is_regional(&self) -> bool {
        !self.base.nearness.is_empty()
    }

    /// How near the provider of a model is.
    #[must_use]
    pub fn nearness(&self, id: ModelId) -> Nearness {
        let provider = usize::from(self.model(id).provider.0);
        let nearness = self.base.nearness.get(provider);
        nearness.copied().unwrap_or_default()
    }

    /// The grant by which a key may use a model; the first that allows it.
    pub(crate) fn grant_of<'a>(&self, key: &'a VirtualKey, model: &Model) -> Option<&'a Grant> {
        let provider = &self.provider(model.provider).name;
        key.grants
            .iter()
            .find(|grant| grant.provider == *provider && grant.models.allows(&model.name))
    }

    /// Bare model names; a name may have several providers.
    pub(crate) fn names(&self) -> &BTreeMap<Arc<str>, Vec<ModelId>> {
        &self.base.names
    }

    /// Models by `provider/name`.
    pub(crate) fn qualified(&self) -> &HashMap<Box<str>, ModelId> {
        &self.base.qualified
    }

    /// Aliases with their choices in order.
    pub(crate) fn aliases(&self) -> &BTreeMap<Arc<str>, Vec<ModelId>> {
        &self.base.aliases
    }
}

// === impl Snapshot: keys ===

impl Snapshot {
    /// The key that a presented value means at `now`.
    ///
    /// # Errors
    /// Why it may not be used.
    pub fn authenticate(
        &self,
        hash: &KeyHash,
        now: Timestamp,
    ) -> Result<&Arc<VirtualKey>, KeyRefusal> {
        self.keys.authenticate(hash, now)
    }

    /// The key with this hash, a retiring one too, whatever its state.
    #[must_use]
    pub fn key(&self, hash: &KeyHash) -> Option<&Arc<VirtualKey>> {
        self.keys.by_hash(hash)
    }

    /// The key with this name.
    #[must_use]
    pub fn key_named(&self, name: &str) -> Option<&Arc<VirtualKey>> {
        self.keys.named(name)
    }

    /// All keys, sorted by name.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<VirtualKey>> {
        self.keys.all()
    }

    /// The keys whose names come after `name`, sorted; all without one.
    pub fn keys_after(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<VirtualKey>> {
        self.keys.after(name)
    }

    /// How many keys there are.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Whether this hash is refused.
    #[must_use]
    pub fn is_revoked(&self, hash: &KeyHash) -> bool {
        self.keys.is_revoked(hash)
    }
}

#[cfg(test)]
mod tests;
