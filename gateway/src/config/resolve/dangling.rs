//! Virtual keys of the API that name what a new base no longer has.

use std::sync::Arc;

use super::names::Names;
use crate::config::catalogue::{Entries, Kind};
use crate::config::problem::{Problem, api_place};
use crate::state::Live;

/// Most keys that are told of one by one.
const TOLD: usize = 20;

/// No list of names allows this one: a list that does allows everything.
const NOBODY: &str = "*";

/// What a new base lacks of an old one.
#[derive(Default)]
struct Lost {
    teams: Vec<Arc<str>>,
    customers: Vec<Arc<str>>,
    providers: Vec<Arc<str>>,
    /// (provider, model), of providers that stay.
    models: Vec<(Arc<str>, Arc<str>)>,
}

/// One problem for each key of the API that would dangle. Visits all keys only
/// when a name is gone. Keys that dangle already are no news.
pub(super) fn keys(previous: Option<&Live>, names: &Names, entries: &Entries) -> Vec<Problem> {
    let Some(previous) = previous else {
        return Vec::new();
    };
    let lost = Lost::between(previous.entries.names(), names);
    if lost.is_nothing() || !entries.has_stored(Kind::VirtualKey) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut more = 0_usize;
    for key in previous.policy.keys() {
        let Some((pointer, message)) = lost.named_by(key) else {
            continue;
        };
        let dangles = previous.unresolved.contains_key(&key.name);
        if dangles || entries.stored(Kind::VirtualKey, &key.name).is_none() {
            continue;
        }
        if problems.len() == TOLD {
            more += 1;
            continue;
        }
        problems.push(Problem {
            file: api_place(Kind::VirtualKey.path(), &key.name),
            line: 0,
            path: pointer.to_owned(),
            message,
        });
    }
    if more > 0
        && let Some(last) = problems.last_mut()
    {
        last.message
            .push_str(&format!("; so do {more} more virtual keys"));
    }
    problems
}

impl Lost {
    fn between(before: &Names, after: &Names) -> Self {
        let own = |name: &str| -> Arc<str> { name.into() };
        let mut lost = Lost {
            teams: before
                .team_names()
                .filter(|name| !after.has_team(name))
                .map(own)
                .collect(),
            customers: before
                .customer_names()
                .filter(|name| !after.has_customer(name))
                .map(own)
                .collect(),
            providers: before
                .provider_names()
                .filter(|name| !after.has_provider(name))
                .map(own)
                .collect(),
            models: Vec::new(),
        };
        for (provider, model) in before.models() {
            if after.has_provider(provider) && !after.has(provider, model) {
                lost.models.push((own(provider), own(model)));
            }
        }
        lost
    }

    fn is_nothing(&self) -> bool {
        self.teams.is_empty()
            && self.customers.is_empty()
            && self.providers.is_empty()
            && self.models.is_empty()
    }

    /// Which of them a key names, and where.
    fn named_by(&self, key: &policy::VirtualKey) -> Option<(&'static str, String)> {
        if let Some(team) = key.team.as_ref().filter(|team| self.teams.contains(team)) {
            return Some(("/team", format!("there would be no team '{team}'")));
        }
        let customer = key.customer.as_ref();
        if let Some(name) = customer.filter(|name| self.customers.contains(name)) {
            return Some(("/customer", format!("there would be no customer '{name}'")));
        }
        for grant in &key.grants {
            if self.providers.contains(&grant.provider) {
                let message = format!("there would be no provider '{}'", grant.provider);
                return Some(("/providers", message));
            }
            let model = self.models.iter().find(|(provider, model)| {
                *provider == grant.provider
                    && grant.models.allows(model)
                    && !grant.models.allows(NOBODY)
            });
            if let Some((provider, model)) = model {
                let message = format!("there would be no model '{model}' of provider '{provider}'");
                return Some(("/providers", message));
            }
        }
        None
    }
}
