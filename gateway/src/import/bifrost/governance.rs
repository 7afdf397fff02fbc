//! `governance`: who may call what, and within which limits.

use super::Import;
use super::limits::Owner;
use crate::config::file::Moment;
use crate::import::amount::{per_million, shares};
use crate::import::names::{Alphabet, Names};
use crate::import::plan::{self, Grant, Price, VirtualKey};
use crate::import::source::Node;

impl<'a> Import<'a> {
    pub(super) fn governance(&mut self, governance: &'a Node) {
        self.owners("customer", governance.items("customers"));
        self.owners("team", governance.items("teams"));
        self.virtual_keys(governance.items("virtual_keys"));
        self.rules(governance.items("routing_rules"));
        for node in governance.items("providers") {
            self.provider_limits(node);
        }
        for node in governance.items("model_configs") {
            self.model_config(node);
        }
        for node in governance.items("pricing_overrides") {
            self.price(node);
        }
    }

    fn owners(&mut self, kind: &'static str, nodes: &'a [Node]) {
        let mut names = Names::default();
        for node in nodes {
            let wanted = node.text("name").unwrap_or(kind);
            let name = names.take(self.notes, &node.at, wanted, Alphabet::Any);
            let id = node.text("id").unwrap_or(wanted);
            self.owners.insert((kind, id), name.clone());
            let field = if kind == "team" {
                "team_id"
            } else {
                "customer_id"
            };
            let customer = match kind {
                "team" => self.owner(node, "customer", "customer_id"),
                _ => None,
            };
            let owner = Owner {
                node,
                field,
                id,
                aligned: node.flag("calendar_aligned").unwrap_or(false),
            };
            let owner = plan::Owner {
                name,
                comment: node.text("description").unwrap_or_default().to_owned(),
                customer,
                limits: self.limits(owner),
            };
            match kind {
                "team" => self.plan.teams.push(owner),
                _ => self.plan.customers.push(owner),
            }
        }
    }

    /// The name of the owner that a field names by its id.
    fn owner(&mut self, node: &'a Node, kind: &'static str, field: &str) -> Option<String> {
        let id = node.text(field)?;
        let name = self.owners.get(&(kind, id)).cloned();
        if name.is_none()
            && let Some(field) = node.field(field)
        {
            self.notes.add(field, format!("there is no such {kind}"));
        }
        name
    }

    fn virtual_keys(&mut self, nodes: &'a [Node]) {
        let mut names = Names::default();
        for node in nodes {
            let wanted = node.text("name").unwrap_or("key");
            let name = names.take(self.notes, &node.at, wanted, Alphabet::Any);
            let id = node.text("id").unwrap_or(wanted);
            self.owners.insert(("virtual_key", id), name.clone());
            let value = match node.field("value") {
                Some(value) => self.secrets.reference(self.notes, value, &["key", &name]),
                None => {
                    let why = "the key's value is only in Bifrost's database";
                    self.secrets.missing(self.notes, node, &["key", &name], why)
                }
            };
            let aligned = node.flag("calendar_aligned").unwrap_or(false);
            let owner = Owner {
                node,
                field: "virtual_key_id",
                id,
                aligned,
            };
            let mut key = VirtualKey {
                name,
                comment: node.text("description").unwrap_or_default().to_owned(),
                value,
                active: node.flag("is_active").unwrap_or(true),
                team: self.owner(node, "team", "team_id"),
                customer: self.owner(node, "customer", "customer_id"),
                limits: self.limits(owner),
                ..VirtualKey::default()
            };
            self.expiry(&mut key, node);
            key.grants = self.grants(node, aligned);
            self.plan.keys.push(key);
        }
    }

    /// A key must not outlive its source: one whose end cannot be read is off.
    fn expiry(&mut self, key: &mut VirtualKey, node: &'a Node) {
        let Some(field) = node.field("expires_at") else {
            return;
        };
        match field.as_text() {
            Some(text) if Moment(text.to_owned()).at().is_some() => {
                key.expires_at = Some(text.to_owned());
            }
            _ => {
                self.notes
                    .add(field, "not a time: the key was switched off instead");
                key.active = false;
            }
        }
    }

    fn grants(&mut self, key: &'a Node, aligned: bool) -> Vec<Grant> {
        let nodes = key.items("provider_configs");
        let weights = self.grant_weights(nodes);
        let mut grants: Vec<Grant> = Vec::new();
        for (node, weight) in nodes.iter().zip(weights) {
            let Some(source) = node.text("provider") else {
                continue;
            };
            let providers = self.providers_of(node, source);
            if providers.is_empty() {
                continue;
            }
            let models = self.model_list(node, "allowed_models", &providers);
            let models = self.without_blocked(node, models);
            self.all_keys(node);
            node.see(&["virtual_key_id"]);
            let id = node.peek("id").unwrap_or_default();
            for (index, provider) in providers.iter().enumerate() {
                let name = self.plan.providers[*provider].name.clone();
                if grants.iter().any(|grant| grant.provider == name) {
                    self.notes
                        .add(node, "the key has this provider already: it was left out");
                    continue;
                }
                let field = "provider_config_id";
                let owner = Owner {
                    node,
                    field,
                    id,
                    aligned,
                };
                if index == 1 {
                    self.notes.at(
                        &node.at,
                        "has several addresses: its limits stand at the first",
                    );
                }
                let limits = match index {
                    0 => self.limits(owner),
                    _ => plan::Limits::default(),
                };
                grants.push(Grant {
                    provider: name,
                    models: models.clone(),
                    weight,
                    limits,
                });
            }
        }
        grants
    }

    /// Without any weight all are equal; a lone absence means: never first.
    fn grant_weights(&mut self, nodes: &'a [Node]) -> Vec<u64> {
        let none = nodes.iter().all(|node| node.field("weight").is_none());
        let mut numbers = Vec::new();
        for node in nodes {
            let weight = node.number("weight");
            if weight.is_none() && !none {
                self.notes.at(
                    &node.at,
                    "has no weight: it is used only when the others fail",
                );
            }
            let absent = if none { "1" } else { "0" };
            numbers.push(weight.unwrap_or(absent).to_owned());
        }
        shares(&numbers)
    }

    fn without_blocked(
        &mut self,
        node: &'a Node,
        models: Option<Vec<String>>,
    ) -> Option<Vec<String>> {
        let blocked = node.texts("blacklisted_models").unwrap_or_default();
        if blocked.is_empty() {
            return models;
        }
        if blocked.contains(&"*") {
            return Some(Vec::new());
        }
        match models {
            Some(mut models) => {
                models.retain(|model| !blocked.contains(&model.as_str()));
                Some(models)
            }
            None => {
                // Failing open would be worse than a key that misses a model.
                if let Some(list) = node.field("blacklisted_models") {
                    let why = "there is no list to take these from: the key gets no model until you list them";
                    self.notes.add(list, why);
                }
                Some(Vec::new())
            }
        }
    }

    /// A virtual key cannot be tied to some keys of a provider.
    fn all_keys(&mut self, node: &'a Node) {
        let ids = node.field("key_ids");
        if let Some(ids) = ids
            && ids.as_items().iter().all(|id| id.as_text() != Some("*"))
        {
            self.notes.add(
                ids,
                "a virtual key is not tied to keys of a provider: it may use all of them",
            );
        }
    }

    fn provider_limits(&mut self, node: &'a Node) {
        let Some(name) = node.text("name") else {
            return;
        };
        let providers = self.providers_of(node, name);
        let Some(first) = providers.first() else {
            return;
        };
        let field = "provider_id";
        let limits = self.limits(Owner {
            node,
            field,
            id: "",
            aligned: false,
        });
        if providers.len() > 1 {
            self.notes.at(
                &node.at,
                "has several addresses: its limits stand at the first",
            );
        }
        self.plan.providers[*first].limits.append(limits);
    }

    /// Limits of a model, for everybody.
    fn model_config(&mut self, node: &'a Node) {
        let scope = node.text("scope").unwrap_or("global");
        let Some(model) = node.text("model_name") else {
            return;
        };
        if scope != "global" {
            let why =
                "limits of one model within a virtual key: limit the key at the provider instead";
            self.notes.add(node, why);
            return;
        }
        let provider = node.text("provider");
        let providers = match provider {
            Some(name) => self.providers_of(node, name),
            None => Vec::new(),
        };
        if provider.is_some() && providers.is_empty() {
            return;
        }
        let owner = Owner {
            node,
            field: "model_config_id",
            id: node.text("id").unwrap_or_default(),
            aligned: node.flag("calendar_aligned").unwrap_or(false),
        };
        let limits = self.limits(owner);
        match (providers.first(), model) {
            (Some(provider), "*") => self.plan.providers[*provider].limits.append(limits),
            (Some(provider), model) => {
                self.model(node, *provider, model, None);
                let provider = self.plan.providers[*provider].name.clone();
                let known =
                    |known: &&mut plan::Model| known.name == model && known.provider == provider;
                if let Some(known) = self.plan.models.iter_mut().find(known) {
                    known.limits.append(limits);
                }
            }
            (None, "*") => self.plan.global.append(limits),
            (None, model) => self.plan.model_limits.push((model.to_owned(), limits)),
        }
    }

    /// A price for exactly one model, for everybody.
    fn price(&mut self, node: &'a Node) {
        let provider = node.text("provider_id").or_else(|| node.text("provider"));
        let scope = node.text("scope_kind").unwrap_or("global");
        let exact = node.text("match_type").unwrap_or("exact") == "exact";
        let patch = node.field("patch").or_else(|| node.field("pricing_patch"));
        let (Some(model), Some(patch), true) = (node.text("pattern"), patch, exact) else {
            self.notes
                .add(node, "only a price for exactly one model can be taken over");
            return;
        };
        if !matches!(scope, "global" | "provider") {
            self.notes.add(
                node,
                "a price holds for everybody: this one is for some only",
            );
            return;
        }
        let names: Vec<String> = match provider.map(|name| (name, self.providers.get(name))) {
            Some((name, None)) => vec![name.to_owned()],
            Some((_, Some(found))) => found
                .iter()
                .map(|index| self.plan.providers[*index].name.clone())
                .collect(),
            None => Vec::new(),
        };
        let fields = [
            "input_cost_per_token",
            "output_cost_per_token",
            "cache_read_input_token_cost",
            "cache_creation_input_token_cost",
        ];
        let mut read = |name: &str| patch.number(name).and_then(per_million);
        let [input, output, cache_read, cache_write] = fields.map(&mut read);
        if input.is_none() && output.is_none() {
            self.notes
                .add(patch, "no price per token that can be kept exactly");
            return;
        }
        let price = Price {
            input: input.unwrap_or_else(|| "0".to_owned()),
            output: output.unwrap_or_else(|| "0".to_owned()),
            cache_read,
            cache_write,
        };
        let mut found = names.is_empty() && self.set_price(None, model, &price);
        for name in &names {
            found |= self.set_price(Some(name), model, &price);
        }
        node.see(&["id"]);
        if !found {
            self.notes.add(node, "no model of that name is listed");
        }
    }
}
