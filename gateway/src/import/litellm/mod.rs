//! What LiteLLM's `config.yaml` means here.
//!
//! One entry of `model_list` is a model at an address with a credential:
//! entries with the same address become one provider, those with the same
//! model name there one model with several credentials. Keys, teams and
//! budgets of its database are not in the file.

mod deployment;
mod reason;
mod settings;

use std::collections::BTreeMap;

use super::names::Names;
use super::plan::{Grant, Limits, Network, Plan, VirtualKey};
use super::secret::{Secrets, address};
use super::source::{Node, Notes};
use deployment::Place;

pub(super) use reason::reason;

/// The import under way.
struct Import<'a> {
    notes: &'a mut Notes,
    secrets: Secrets,
    plan: Plan,
    provider_names: Names,
    /// Of each provider of ours, in their order.
    places: Vec<Place>,
    /// The full names of a public model name, in their order.
    groups: BTreeMap<&'a str, Vec<String>>,
    /// What holds for all providers without their own.
    network: Network,
}

pub(super) fn plan(root: &Node, notes: &mut Notes) -> Plan {
    let mut import = Import {
        notes,
        secrets: Secrets::default(),
        plan: Plan::default(),
        provider_names: Names::default(),
        places: Vec::new(),
        groups: BTreeMap::new(),
        network: Network::default(),
    };
    import.plan.head = vec![
        "Imported from LiteLLM. What is not here has Tyr's default.".to_owned(),
        "Its database (keys, teams, spend) is not part of the file and not imported.".to_owned(),
    ];
    import.general(root);
    import.network = import.shared_network(root);
    for node in root.items("model_list") {
        import.deployment(node);
    }
    import.finish_providers();
    import.aliases(root);
    import.fallbacks(root);
    import.default_key(root);
    import.plan
}

impl<'a> Import<'a> {
    fn address(&mut self, node: &Node, hint: &[&str]) -> Option<String> {
        address(&mut self.secrets, self.notes, node, hint)
    }

    /// The file has no virtual keys, and nothing is served without one.
    fn default_key(&mut self, root: &Node) {
        let why = "the virtual key `default` is new: the file has none; give each client its own";
        let value = self
            .secrets
            .missing(self.notes, root, &["default_key"], why);
        let grant = |provider: &super::plan::Provider| Grant {
            provider: provider.name.clone(),
            models: None,
            weight: 1,
            limits: Limits::default(),
        };
        self.plan.keys.push(VirtualKey {
            name: "default".to_owned(),
            comment: "For all clients until each has its own.".to_owned(),
            value,
            active: true,
            grants: self.plan.providers.iter().map(grant).collect(),
            ..VirtualKey::default()
        });
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
}
