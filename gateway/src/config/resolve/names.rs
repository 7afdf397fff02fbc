//! The names that entities refer to each other by.
//!
//! Collected from the base once, and kept with it: a virtual key that is
//! written later is judged by them without reading the base again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::{ModelId, ProviderId};

use super::Checks;
use crate::config::file::{File, ModelEntry};
use crate::config::problem::FieldPath;

/// The names of one base.
#[derive(Debug, Default)]
pub(in crate::config) struct Names {
    providers: BTreeMap<Arc<str>, ProviderNames>,
    /// By provider, known or not.
    models: BTreeMap<Arc<str>, BTreeMap<Arc<str>, ModelId>>,
    aliases: BTreeSet<Arc<str>>,
    teams: BTreeSet<Arc<str>>,
    customers: BTreeSet<Arc<str>>,
    /// Which entries of `models` became models, in order of their id.
    pub(super) entries: Vec<usize>,
}

#[derive(Debug)]
struct ProviderNames {
    id: ProviderId,
    credentials: BTreeSet<Arc<str>>,
}

impl Names {
    pub(super) fn provider(&self, name: &str) -> Option<ProviderId> {
        self.providers.get(name).map(|provider| provider.id)
    }

    pub(in crate::config) fn has_provider(&self, name: &str) -> bool {
        self.providers.contains_key(name)
    }

    pub(super) fn provider_names(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(|name| &**name)
    }

    pub(super) fn has_credential(&self, provider: &str, name: &str) -> bool {
        let provider = self.providers.get(provider);
        provider.is_some_and(|provider| provider.credentials.contains(name))
    }

    pub(super) fn credentials_of(&self, provider: &str) -> impl Iterator<Item = &str> {
        let provider = self.providers.get(provider).into_iter();
        provider.flat_map(|provider| provider.credentials.iter().map(|name| &**name))
    }

    pub(in crate::config) fn has(&self, provider: &str, model: &str) -> bool {
        let models = self.models.get(provider);
        models.is_some_and(|models| models.contains_key(model))
    }

    pub(super) fn models_of(&self, provider: &str) -> impl Iterator<Item = &str> {
        let models = self.models.get(provider).into_iter();
        models.flat_map(|models| models.keys().map(|name| &**name))
    }

    /// All (provider, model) pairs.
    pub(in crate::config) fn models(&self) -> impl Iterator<Item = (&str, &str)> {
        self.models
            .iter()
            .flat_map(|(provider, models)| models.keys().map(|model| (&**provider, &**model)))
    }

    /// The id of a model.
    pub(super) fn model(&self, provider: &str, model: &str) -> Option<ModelId> {
        self.models.get(provider)?.get(model).copied()
    }

    /// A `provider/model` name: the first slash divides, models may have more.
    pub(super) fn qualified(&self, name: &str) -> Option<ModelId> {
        let (provider, model) = name.split_once('/')?;
        self.model(provider, model)
    }

    /// Whether some provider has a model of this name.
    pub(super) fn has_bare(&self, model: &str) -> bool {
        self.models
            .values()
            .any(|models| models.contains_key(model))
    }

    pub(super) fn bare_names(&self) -> impl Iterator<Item = &str> {
        self.models().map(|(_, model)| model)
    }

    pub(super) fn has_alias(&self, name: &str) -> bool {
        self.aliases.contains(name)
    }

    pub(super) fn alias_names(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(|name| &**name)
    }

    pub(in crate::config) fn has_team(&self, name: &str) -> bool {
        self.teams.contains(name)
    }

    pub(super) fn team_names(&self) -> impl Iterator<Item = &str> {
        self.teams.iter().map(|name| &**name)
    }

    pub(in crate::config) fn has_customer(&self, name: &str) -> bool {
        self.customers.contains(name)
    }

    pub(super) fn customer_names(&self) -> impl Iterator<Item = &str> {
        self.customers.iter().map(|name| &**name)
    }
}

/// Collects the names; models that are wrong as such are reported here.
pub(super) fn names(checks: &mut Checks<'_>, file: &File) -> Names {
    let mut names = Names {
        teams: file.teams.iter().map(|team| text(&team.name)).collect(),
        customers: file
            .customers
            .iter()
            .map(|customer| text(&customer.name))
            .collect(),
        ..Names::default()
    };
    for (index, provider) in file.providers.iter().enumerate() {
        let id = ProviderId(u16::try_from(index).unwrap_or(u16::MAX));
        let credentials = provider.keys.iter().map(|key| text(&key.name)).collect();
        let provider = names.providers.entry(text(&provider.name));
        provider.or_insert(ProviderNames { id, credentials });
    }
    for (index, entry) in file.models.iter().enumerate() {
        let Some(provider) = is_model(checks, index, entry) else {
            if entry.choices.is_some() && entry.provider.is_none() {
                names.aliases.insert(text(&entry.name));
            }
            continue;
        };
        let path = FieldPath::root().key("models").index(index).key("name");
        if let Some(twin) = names.model(provider, &entry.name) {
            let first = names.entries[twin.0 as usize];
            let first = checks.place(&FieldPath::root().key("models").index(first));
            let name = &entry.name;
            let message =
                format!("model '{name}' of provider '{provider}' is already defined at {first}");
            checks.problem(&path, message);
            continue;
        }
        let id = ModelId(u32::try_from(names.entries.len()).unwrap_or(u32::MAX));
        let models = names.models.entry(text(provider)).or_default();
        models.insert(text(&entry.name), id);
        names.entries.push(index);
    }
    names
}

fn text(name: &str) -> Arc<str> {
    name.into()
}

/// The provider of an entry that is a model; what is neither model nor alias
/// is reported.
fn is_model<'a>(checks: &mut Checks<'_>, index: usize, entry: &'a ModelEntry) -> Option<&'a str> {
    let at = FieldPath::root().key("models").index(index);
    match (&entry.provider, &entry.choices) {
        (Some(provider), None) => Some(provider),
        (None, Some(_)) => None,
        (Some(_), Some(_)) => {
            let message =
                "has both `provider` and `choices`: a model has a provider, an alias has choices";
            checks.problem(&at, message);
            None
        }
        (None, None) => {
            checks.problem(&at, "needs `provider` (a model) or `choices` (an alias)");
            None
        }
    }
}
