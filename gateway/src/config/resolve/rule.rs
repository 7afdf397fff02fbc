//! `routing_rules`: whose requests they look at, and where they send them.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{Rule, RuleError, RuleSpec, Target};

use super::model::choose;
use super::names::Names;
use super::{Checks, unknown};
use crate::config::catalogue::{Entries, Kind};
use crate::config::file::{File, RoutingRule, RuleScope, RuleTarget};
use crate::config::problem::FieldPath;

/// `api` knows further virtual keys, when `file` has the entities of the API.
pub(super) fn rules(
    checks: &mut Checks<'_>,
    names: &Names,
    file: &File,
    api: Option<&Entries>,
) -> Vec<Rule> {
    let all = FieldPath::root().key("routing_rules");
    let mut seen = BTreeMap::new();
    let mut plans = Vec::with_capacity(file.routing_rules.len());
    for (index, rule) in file.routing_rules.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "routing rule", &rule.name, &at.key("name"));
        subject(checks, names, &at, rule, |key| {
            let in_file = || file.virtual_keys.iter().any(|known| known.name == key);
            let of_api = |api: &Entries| {
                api.stored(Kind::VirtualKey, key).is_some()
                    || api.owned(Kind::VirtualKey, key).is_some()
            };
            api.map_or_else(in_file, of_api)
        });
        for (index, target) in rule.targets.iter().enumerate() {
            self::target(checks, names, &at.key("targets").index(index), target);
        }
        for (index, fallback) in rule.fallbacks.iter().enumerate() {
            if let Err(message) = choose(names, fallback) {
                checks.problem(&at.key("fallbacks").index(index), message);
            }
        }
        match Rule::compile(spec(rule)) {
            Ok(rule) => plans.push(rule),
            // Told above with its place, and what a schema can say as well.
            Err(RuleError::Targets(_)) => {}
            Err(error) => checks.problem(&at.key("when"), error.to_string()),
        }
    }
    plans
}

fn spec(rule: &RoutingRule) -> RuleSpec {
    let own = |name: &String| -> Arc<str> { name.as_str().into() };
    let subject = || rule.subject.as_ref().map(own).unwrap_or_default();
    let targets = rule.targets.iter().map(|target| Target {
        provider: target.provider.as_ref().map(own),
        model: target.model.as_ref().map(own),
        credential: target.key.as_ref().map(own),
        weight: target.weight,
    });
    RuleSpec {
        name: own(&rule.name),
        scope: match rule.scope {
            RuleScope::Global => policy::RuleScope::Global,
            RuleScope::Customer => policy::RuleScope::Customer(subject()),
            RuleScope::Team => policy::RuleScope::Team(subject()),
            RuleScope::VirtualKey => policy::RuleScope::VirtualKey(subject()),
            RuleScope::User => policy::RuleScope::User(subject()),
        },
        priority: rule.priority,
        when: rule.when.clone(),
        targets: targets.collect(),
        fallbacks: rule.fallbacks.iter().map(own).collect(),
        chain: rule.chain,
        shadow: rule.shadow,
        enabled: rule.enabled,
    }
}

fn subject(
    checks: &mut Checks<'_>,
    names: &Names,
    at: &FieldPath,
    rule: &RoutingRule,
    is_key: impl Fn(&str) -> bool,
) {
    let at_subject = at.key("subject");
    let name = match (rule.scope, &rule.subject) {
        (RuleScope::Global, None) => return,
        (RuleScope::Global, Some(_)) => {
            let message = "has no meaning with `scope: global`: give a scope or leave it out";
            checks.problem(&at_subject, message);
            return;
        }
        (_, None) => {
            checks.problem(at, "`subject` is missing: whose requests are meant?");
            return;
        }
        (_, Some(name)) => name,
    };
    let message = match rule.scope {
        RuleScope::Customer if !names.has_customer(name) => {
            unknown("customer", name, names.customer_names())
        }
        RuleScope::Team if !names.has_team(name) => unknown("team", name, names.team_names()),
        RuleScope::VirtualKey if !is_key(name) => format!("there is no virtual key '{name}'"),
        _ => return,
    };
    checks.problem(&at_subject, message);
}

fn target(checks: &mut Checks<'_>, names: &Names, at: &FieldPath, target: &RuleTarget) {
    let model = target.model.as_deref();
    let Some(provider) = target.provider.as_deref() else {
        if let Some(model) = model
            && !names.has_bare(model)
            && !names.has_alias(model)
            && names.qualified(model).is_none()
        {
            let known = names.bare_names().chain(names.alias_names());
            checks.problem(&at.key("model"), unknown("model", model, known));
        }
        if target.key.is_some() {
            checks.problem(&at.key("key"), "needs `provider`: whose key is meant?");
        }
        return;
    };
    if !names.has_provider(provider) {
        let message = unknown("provider", provider, names.provider_names());
        checks.problem(&at.key("provider"), message);
        return;
    }
    if let Some(model) = model
        && !names.has(provider, model)
    {
        let what = format!("model of provider '{provider}' called");
        let message = unknown(&what, model, names.models_of(provider));
        checks.problem(&at.key("model"), message);
    }
    if let Some(key) = target.key.as_deref()
        && !names.has_credential(provider, key)
    {
        let what = format!("key of provider '{provider}' called");
        let message = unknown(&what, key, names.credentials_of(provider));
        checks.problem(&at.key("key"), message);
    }
}
