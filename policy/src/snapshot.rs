//! The resolved configuration as far as decisions need it: immutable, built
//! once per revision, read without locks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::{Model, ModelId, Provider, ProviderId};
use crate::virtual_key::{KeyHash, VirtualKey};

/// Who may call what, and where it goes.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows with every change of the configuration.
    pub revision: u64,
    /// By `ProviderId`.
    pub providers: Vec<Provider>,
    /// By `ModelId`.
    pub models: Vec<Model>,
    /// Bare model names; a name may have several providers.
    pub(crate) names: BTreeMap<Arc<str>, Vec<ModelId>>,
    /// `provider/name`.
    pub(crate) qualified: HashMap<Box<str>, ModelId>,
    /// Alias to its choices in order.
    pub(crate) aliases: BTreeMap<Arc<str>, Vec<ModelId>>,
    keys: HashMap<KeyHash, Arc<VirtualKey>>,
    key_names: BTreeMap<Arc<str>, Arc<VirtualKey>>,
}

/// What a snapshot is built from. Ids are indexes into these lists.
#[derive(Debug, Default)]
pub struct SnapshotParts {
    /// Grows with every change of the configuration.
    pub revision: u64,
    /// Providers, by `ProviderId`.
    pub providers: Vec<Provider>,
    /// Models, by `ModelId`.
    pub models: Vec<Model>,
    /// Further names for models, each with its choices in order.
    pub aliases: Vec<(Arc<str>, Vec<ModelId>)>,
    /// Virtual keys; names and hashes are unique.
    pub keys: Vec<VirtualKey>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Builds the indexes. Ids out of range are the caller's mistake and
    /// panic when used.
    #[must_use]
    pub fn new(parts: SnapshotParts) -> Self {
        let mut names: BTreeMap<Arc<str>, Vec<ModelId>> = BTreeMap::new();
        let mut qualified = HashMap::with_capacity(parts.models.len());
        for (index, model) in parts.models.iter().enumerate() {
            let id = ModelId(u32::try_from(index).expect("fewer than 2^32 models fit in memory"));
            names.entry(Arc::clone(&model.name)).or_default().push(id);
            let provider = &parts.providers[usize::from(model.provider.0)].name;
            qualified.insert(format!("{provider}/{}", model.name).into_boxed_str(), id);
        }
        let keys: Vec<_> = parts.keys.into_iter().map(Arc::new).collect();
        Self {
            revision: parts.revision,
            providers: parts.providers,
            models: parts.models,
            names,
            qualified,
            aliases: parts.aliases.into_iter().collect(),
            keys: keys.iter().map(|key| (key.hash, Arc::clone(key))).collect(),
            key_names: keys
                .iter()
                .map(|key| (Arc::clone(&key.name), Arc::clone(key)))
                .collect(),
        }
    }

    /// The key with this hash.
    #[must_use]
    pub fn key(&self, hash: &KeyHash) -> Option<&Arc<VirtualKey>> {
        self.keys.get(hash)
    }

    /// The key with this name.
    #[must_use]
    pub fn key_named(&self, name: &str) -> Option<&Arc<VirtualKey>> {
        self.key_names.get(name)
    }

    /// All keys, sorted by name.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<VirtualKey>> {
        self.key_names.values()
    }

    /// A provider of this snapshot.
    #[must_use]
    pub fn provider(&self, id: ProviderId) -> &Provider {
        &self.providers[usize::from(id.0)]
    }

    /// A model of this snapshot.
    #[must_use]
    pub fn model(&self, id: ModelId) -> &Model {
        &self.models[id.0 as usize]
    }
}
