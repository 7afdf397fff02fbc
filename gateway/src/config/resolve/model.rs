//! `models`: models, their prices, and aliases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::{ModelId, PerMillion, ProviderId, TokenRatio};

use super::{Checks, unknown};
use crate::config::file::{ModelEntry, Money, Price, PriceTable};
use crate::config::problem::FieldPath;

/// The names that other sections may refer to.
pub(super) struct Names<'a> {
    providers: BTreeMap<&'a str, ProviderId>,
    /// (provider, model).
    models: BTreeMap<(&'a str, &'a str), ModelId>,
    /// Which entries of the file became models, in order of their id.
    entries: Vec<usize>,
}

impl<'a> Names<'a> {
    pub(super) fn provider(&self, name: &str) -> Option<ProviderId> {
        self.providers.get(name).copied()
    }

    pub(super) fn has_provider(&self, name: &str) -> bool {
        self.providers.contains_key(name)
    }

    pub(super) fn provider_names(&self) -> impl Iterator<Item = &'a str> {
        self.providers.keys().copied()
    }

    pub(super) fn has(&self, provider: &str, model: &str) -> bool {
        self.models.contains_key(&(provider, model))
    }

    pub(super) fn models_of(&self, provider: &str) -> impl Iterator<Item = &'a str> {
        self.models
            .keys()
            .filter(move |(owner, _)| *owner == provider)
            .map(|(_, model)| *model)
    }

    /// A `provider/model` name: the first slash divides, models may have more.
    fn qualified(&self, name: &str) -> Option<ModelId> {
        let (provider, model) = name.split_once('/')?;
        self.models.get(&(provider, model)).copied()
    }
}

/// Collects the names; models that are wrong as such are reported here.
pub(super) fn names<'a>(checks: &mut Checks<'a>) -> Names<'a> {
    let file = &checks.document.file;
    let mut names = Names {
        providers: BTreeMap::new(),
        models: BTreeMap::new(),
        entries: Vec::new(),
    };
    for (index, provider) in file.providers.iter().enumerate() {
        let id = ProviderId(u16::try_from(index).unwrap_or(u16::MAX));
        names.providers.entry(&provider.name).or_insert(id);
    }
    for (index, entry) in file.models.iter().enumerate() {
        let Some(provider) = is_model(checks, index, entry) else {
            continue;
        };
        let path = FieldPath::root().key("models").index(index).key("name");
        if let Some(twin) = names.models.get(&(provider, entry.name.as_str())) {
            let first = names.entries[twin.0 as usize];
            let first = checks
                .document
                .place(&FieldPath::root().key("models").index(first));
            let name = &entry.name;
            let message =
                format!("model '{name}' of provider '{provider}' is already defined at {first}");
            checks.problem(&path, message);
            continue;
        }
        let id = ModelId(u32::try_from(names.entries.len()).unwrap_or(u32::MAX));
        names.models.insert((provider, &entry.name), id);
        names.entries.push(index);
    }
    names
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

pub(super) fn models(checks: &mut Checks<'_>, names: &Names<'_>) -> Vec<policy::Model> {
    let document = checks.document;
    let mut models = Vec::with_capacity(names.entries.len());
    for index in &names.entries {
        let entry = &document.file.models[*index];
        let at = FieldPath::root().key("models").index(*index);
        let provider = entry.provider.as_deref().unwrap_or_default();
        let id = names.provider(provider).unwrap_or_else(|| {
            let message = unknown("provider", provider, names.provider_names());
            checks.problem(&at.key("provider"), message);
            ProviderId(0)
        });
        if names.qualified(&entry.name).is_some() {
            let message = format!("'{}' is also the full name of another model", entry.name);
            checks.problem(&at.key("name"), message);
        }
        models.push(policy::Model {
            name: entry.name.as_str().into(),
            provider: id,
            upstream_name: entry
                .upstream_name
                .as_ref()
                .unwrap_or(&entry.name)
                .as_str()
                .into(),
            price: price(checks, &at, entry.price.as_ref()),
            max_output_tokens: entry.max_output_tokens,
            estimate: Arc::new(TokenRatio::new()),
        });
    }
    models
}

fn price(checks: &mut Checks<'_>, at: &FieldPath, price: Option<&Price>) -> policy::Price {
    match price {
        None => {
            checks.problem(
                at,
                "`price` is missing; `price: free` says that it costs nothing",
            );
            policy::Price::FREE
        }
        Some(Price::Free) => policy::Price::FREE,
        Some(Price::PerMillion(table)) => price_table(checks, &at.key("price"), table),
    }
}

fn price_table(checks: &mut Checks<'_>, at: &FieldPath, table: &PriceTable) -> policy::Price {
    if table.cache_read.is_some() && table.cached_input.is_some() {
        let message = "means the same as `cache_read`: give one of them";
        checks.problem(&at.key("cached_input"), message);
    }
    let mut read = |name: &str, money: &Money| per_million(checks, &at.key(name), money);
    let input = read("input", &table.input);
    let output = read("output", &table.output);
    let mut optional =
        |name: &str, money: &Option<Money>| money.as_ref().map(|money| read(name, money));
    let cache_read = optional("cache_read", &table.cache_read);
    let cached_input = optional("cached_input", &table.cached_input);
    let cache_write = optional("cache_write", &table.cache_write).unwrap_or(input);
    let cache_write_1h = optional("cache_write_1h", &table.cache_write_1h);
    let reasoning = optional("reasoning", &table.reasoning);
    policy::Price {
        input,
        cache_read: cache_read.or(cached_input).unwrap_or(input),
        cache_write,
        cache_write_1h: cache_write_1h.unwrap_or(cache_write),
        output,
        reasoning: reasoning.unwrap_or(output),
    }
}

fn per_million(checks: &mut Checks<'_>, at: &FieldPath, money: &Money) -> PerMillion {
    PerMillion::from_decimal(&money.0).unwrap_or_else(|error| {
        checks.problem(at, format!("`{}`: {error}", money.0.escape_debug()));
        PerMillion::default()
    })
}

pub(super) fn aliases(checks: &mut Checks<'_>, names: &Names<'_>) -> Vec<(Arc<str>, Vec<ModelId>)> {
    let entries = &checks.document.file.models;
    let aliases: BTreeSet<&str> = entries
        .iter()
        .filter(|entry| entry.choices.is_some() && entry.provider.is_none())
        .map(|entry| entry.name.as_str())
        .collect();
    let models: BTreeSet<&str> = names.models.keys().map(|(_, model)| *model).collect();
    let mut seen = BTreeMap::new();
    let mut resolved = Vec::with_capacity(aliases.len());
    for (index, entry) in entries.iter().enumerate() {
        let (Some(choices), None) = (&entry.choices, &entry.provider) else {
            continue;
        };
        let at = FieldPath::root().key("models").index(index);
        refuse_model_fields(checks, &at, entry);
        checks.once(&mut seen, "alias", &entry.name, &at.key("name"));
        if models.contains(entry.name.as_str()) || names.qualified(&entry.name).is_some() {
            let message = format!("'{}' is also the name of a model", entry.name);
            checks.problem(&at.key("name"), message);
        }
        let mut ids = Vec::with_capacity(choices.len());
        for (position, choice) in choices.iter().enumerate() {
            let at = at.key("choices").index(position);
            match choose(names, &aliases, choice) {
                Ok(id) if ids.contains(&id) => checks.problem(&at, "is listed twice"),
                Ok(id) => ids.push(id),
                Err(message) => checks.problem(&at, message),
            }
        }
        resolved.push((Arc::from(entry.name.as_str()), ids));
    }
    resolved
}

fn refuse_model_fields(checks: &mut Checks<'_>, at: &FieldPath, entry: &ModelEntry) {
    let fields = [
        ("upstream_name", entry.upstream_name.is_some()),
        ("price", entry.price.is_some()),
        ("max_output_tokens", entry.max_output_tokens.is_some()),
    ];
    for (name, _) in fields.iter().filter(|(_, given)| *given) {
        checks.problem(&at.key(name), "an alias has only `name` and `choices`");
    }
}

fn choose(names: &Names<'_>, aliases: &BTreeSet<&str>, choice: &str) -> Result<ModelId, String> {
    if let Some(id) = names.qualified(choice) {
        return Ok(id);
    }
    if aliases.contains(choice) {
        return Err(format!(
            "'{choice}' is an alias: choices are `provider/model`"
        ));
    }
    match choice.split_once('/') {
        None => Err(format!(
            "'{choice}' names no provider: choices are `provider/model`"
        )),
        Some((provider, _)) if !names.has_provider(provider) => {
            Err(unknown("provider", provider, names.provider_names()))
        }
        Some((provider, model)) => {
            let what = format!("model of provider '{provider}' called");
            Err(unknown(&what, model, names.models_of(provider)))
        }
    }
}
