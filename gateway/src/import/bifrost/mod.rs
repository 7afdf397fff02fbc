//! What Bifrost's `config.json` means here.
//!
//! Its ids become names. Its models are those that the file names anywhere:
//! Tyr serves only models that are listed.

mod cluster;
mod governance;
mod limits;
mod provider;
mod reason;
mod rule;

use std::collections::BTreeMap;

use super::names::{Names, is_model};
use super::plan::{Model, Plan, Price};
use super::secret::{Secrets, address};
use super::source::{Node, Notes};

pub(super) use reason::reason;

/// The import under way.
struct Import<'a> {
    notes: &'a mut Notes,
    secrets: Secrets,
    plan: Plan,
    /// Whether absent and empty lists of models mean all (`version: 1`).
    empty_is_all: bool,
    provider_names: Names,
    /// Our providers of one of the source: several when it has several addresses.
    providers: BTreeMap<&'a str, Vec<usize>>,
    /// Names of credentials by their id or name.
    credentials: BTreeMap<&'a str, String>,
    /// Names of customers, teams and virtual keys by (kind, id).
    owners: BTreeMap<(&'static str, &'a str), String>,
    budgets: &'a [Node],
    rate_limits: &'a [Node],
}

pub(super) fn plan(root: &Node, notes: &mut Notes) -> Plan {
    let governance = root.field("governance");
    let list = |name| governance.map_or(&[][..], |governance: &Node| governance.items(name));
    let mut import = Import {
        notes,
        secrets: Secrets::default(),
        plan: Plan::default(),
        empty_is_all: root.whole("version") == Some(1),
        provider_names: Names::default(),
        providers: BTreeMap::new(),
        credentials: BTreeMap::new(),
        owners: BTreeMap::new(),
        budgets: list("budgets"),
        rate_limits: list("rate_limits"),
    };
    if let Some(version) = root.field("version")
        && !matches!(root.whole("version"), Some(1 | 2))
    {
        import
            .notes
            .add(version, "an unknown version: it was read as version 2");
    }
    root.see(&["$schema"]);
    import.head();
    import.server(root);
    for (name, provider) in root.entries("providers") {
        import.provider(name, provider);
    }
    if let Some(governance) = governance {
        import.governance(governance);
    }
    if let Some(cluster) = root.field("cluster_config") {
        import.cluster(cluster);
    }
    import.without_models(root);
    import.plan
}

impl<'a> Import<'a> {
    fn head(&mut self) {
        self.plan.head = [
            "Imported from Bifrost. What is not here has Tyr's default.",
            "Rate limits slide: no interval of their length holds more than the limit",
            "(`window: fixed` restarts them at fixed times).",
        ]
        .map(str::to_owned)
        .to_vec();
    }

    fn server(&mut self, root: &'a Node) {
        if let Some(client) = root.field("client")
            && let Some(megabytes) = client.whole("max_request_body_size_mb")
        {
            self.plan.max_body = Some(format!("{megabytes}MiB"));
        }
        if let Some(key) = root.field("encryption_key") {
            let why = "32 or more characters; what Bifrost stored is not read with it";
            self.notes.at(&key.at, why);
            let value = self.secrets.reference(self.notes, key, &["encryption_key"]);
            self.plan.encryption_keys.push(value);
        }
        let governance = root.field("governance");
        let auth = governance.and_then(|governance| governance.field("auth_config"));
        if let Some(auth) = auth.or_else(|| root.field("auth_config"))
            && let Some(password) = auth.field("admin_password")
        {
            let why = "becomes a bearer token of the admin API, 16 or more characters";
            self.notes.at(&password.at, why);
            let value = self
                .secrets
                .reference(self.notes, password, &["admin_token"]);
            self.plan.admin_tokens.push(("admin".to_owned(), value));
        }
    }

    /// Our providers that stand for one of the source; one that was not
    /// imported is noted at `node`.
    fn providers_of(&mut self, node: &Node, name: &str) -> Vec<usize> {
        match self.providers.get(name) {
            Some(found) => found.clone(),
            None => {
                self.notes
                    .add(node, format!("provider `{name}` was not imported"));
                Vec::new()
            }
        }
    }

    /// Makes a model known; what cannot be one is noted.
    fn model(&mut self, node: &Node, provider: usize, name: &str, upstream: Option<&str>) {
        if name == "*" {
            return;
        }
        if !is_model(name) || !upstream.is_none_or(is_model) {
            let why = "a model's name is 1 to 200 printable ASCII characters without `*`";
            self.notes.add(node, why);
            return;
        }
        let upstream = upstream.filter(|upstream| *upstream != name);
        let provider = self.plan.providers[provider].name.clone();
        let known = |model: &&mut Model| model.name == name && model.provider == provider;
        match self.plan.models.iter_mut().find(known) {
            Some(model) => match (&model.upstream, upstream) {
                (None, Some(other)) => model.upstream = Some(other.to_owned()),
                (Some(first), Some(other)) if first != other => {
                    let why =
                        format!("`{name}` is `{first}` already: one model has one name there");
                    self.notes.add(node, why);
                }
                _ => {}
            },
            None => self.plan.models.push(Model {
                name: name.to_owned(),
                provider,
                upstream: upstream.map(str::to_owned),
                ..Model::default()
            }),
        }
    }

    /// The names of a list of models; `None` is all.
    fn model_list(
        &mut self,
        owner: &'a Node,
        field: &str,
        providers: &[usize],
    ) -> Option<Vec<String>> {
        let list = owner.field(field);
        let names = owner.texts(field).unwrap_or_default();
        for (index, name) in names.iter().enumerate() {
            let node = list
                .and_then(|list| list.as_items().get(index))
                .unwrap_or(owner);
            for provider in providers {
                self.model(node, *provider, name, None);
            }
        }
        let all = names.contains(&"*") || (names.is_empty() && self.empty_is_all);
        let kept = names.iter().filter(|name| is_model(name));
        (!all).then(|| kept.map(|name| (*name).to_owned()).collect())
    }

    /// Tells of providers that serve nothing yet, and of prices.
    fn without_models(&mut self, root: &Node) {
        for provider in &self.plan.providers {
            let none = self
                .plan
                .models
                .iter()
                .all(|model| model.provider != provider.name);
            if none {
                let why = format!(
                    "no model of provider `{}` is named anywhere: list those that clients may ask for in `models`",
                    provider.name
                );
                self.notes.at(&root.at, why);
            }
        }
        for model in self
            .plan
            .models
            .iter()
            .filter(|model| model.price.is_none())
        {
            let why = format!(
                "model `{}/{}` has no price in the source: it is `free` until you set one",
                model.provider, model.name
            );
            self.notes.at(&root.at, why);
        }
    }

    fn set_price(&mut self, provider: Option<&str>, model: &str, price: &Price) -> bool {
        let mut found = false;
        for known in &mut self.plan.models {
            if known.name == model && provider.is_none_or(|name| known.provider == name) {
                known.price = Some(price.clone());
                found = true;
            }
        }
        found
    }

    fn address(&mut self, node: &Node, hint: &[&str]) -> Option<String> {
        address(&mut self.secrets, self.notes, node, hint)
    }
}
