//! `models`: models, their prices, and aliases.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{ModelId, PerMillion, ProviderId, ScopeKind, TokenRatio};

use super::limit::{ScopePlan, scope};
use super::names::Names;
use super::{Checks, unknown};
use crate::config::file::{File, ModelEntry, Money, Price, PriceTable};
use crate::config::problem::FieldPath;

/// One model, its counters apart.
pub(super) struct ModelPlan {
    pub(super) policy: policy::Model,
    pub(super) price: PriceFrom,
    pub(super) scope: ScopePlan,
}

/// Whose word a model's price is.
pub(super) enum PriceFrom {
    /// The configuration's.
    Written,
    /// That of the price list, in which it may have a name of its own.
    List(Option<String>),
}

pub(super) fn models(checks: &mut Checks<'_>, names: &Names, file: &File) -> Vec<ModelPlan> {
    let mut models = Vec::with_capacity(names.entries.len());
    for index in &names.entries {
        let entry = &file.models[*index];
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
        let limits = (entry.rate_limits.as_slice(), entry.budgets.as_slice());
        let scope = scope(checks, &at, ScopeKind::Model, &entry.full_name(), limits);
        let policy = policy::Model {
            name: entry.name.as_str().into(),
            provider: id,
            upstream_name: entry
                .upstream_name
                .as_ref()
                .unwrap_or(&entry.name)
                .as_str()
                .into(),
            price: price(checks, &at, file, entry),
            max_output_tokens: entry.max_output_tokens,
            estimate: Arc::new(TokenRatio::new()),
            scope: None,
        };
        let price = match entry.price {
            Some(Price::Catalogue) => PriceFrom::List(entry.catalogue_name.clone()),
            _ => PriceFrom::Written,
        };
        models.push(ModelPlan {
            policy,
            price,
            scope,
        });
    }
    models
}

fn price(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    file: &File,
    entry: &ModelEntry,
) -> policy::Price {
    if entry.catalogue_name.is_some() && entry.price != Some(Price::Catalogue) {
        let message = "is of use with `price: catalogue` only";
        checks.problem(&at.key("catalogue_name"), message);
    }
    match &entry.price {
        None => {
            checks.problem(
                at,
                "`price` is missing; `price: free` says that it costs nothing",
            );
            policy::Price::FREE
        }
        Some(Price::Free) => policy::Price::FREE,
        Some(Price::Catalogue) => {
            if file.catalogue.is_none() {
                let message =
                    "`catalogue` needs the section `catalogue`, which says where prices come from";
                checks.problem(&at.key("price"), message);
            }
            policy::Price::UNKNOWN
        }
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

pub(super) fn aliases(
    checks: &mut Checks<'_>,
    names: &Names,
    file: &File,
) -> Vec<(Arc<str>, Vec<ModelId>)> {
    let mut seen = BTreeMap::new();
    let mut resolved = Vec::new();
    for (index, entry) in file.models.iter().enumerate() {
        let (Some(choices), None) = (&entry.choices, &entry.provider) else {
            continue;
        };
        let at = FieldPath::root().key("models").index(index);
        refuse_model_fields(checks, &at, entry);
        checks.once(&mut seen, "alias", &entry.name, &at.key("name"));
        if names.has_bare(&entry.name) || names.qualified(&entry.name).is_some() {
            let message = format!("'{}' is also the name of a model", entry.name);
            checks.problem(&at.key("name"), message);
        }
        let mut ids = Vec::with_capacity(choices.len());
        for (position, choice) in choices.iter().enumerate() {
            let at = at.key("choices").index(position);
            match choose(names, choice) {
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
        ("catalogue_name", entry.catalogue_name.is_some()),
        ("price", entry.price.is_some()),
        ("max_output_tokens", entry.max_output_tokens.is_some()),
        ("rate_limits", !entry.rate_limits.is_empty()),
        ("budgets", !entry.budgets.is_empty()),
    ];
    for (name, _) in fields.iter().filter(|(_, given)| *given) {
        checks.problem(&at.key(name), "an alias has only `name` and `choices`");
    }
}

pub(super) fn choose(names: &Names, choice: &str) -> Result<ModelId, String> {
    if let Some(id) = names.qualified(choice) {
        return Ok(id);
    }
    if names.has_alias(choice) {
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
