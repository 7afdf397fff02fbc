//! `governance.routing_rules`.

use super::Import;
use crate::import::amount::shares;
use crate::import::names::{Alphabet, Names};
use crate::import::plan::{Rule, Target};
use crate::import::source::Node;

impl<'a> Import<'a> {
    pub(super) fn rules(&mut self, nodes: &'a [Node]) {
        let mut names = Names::default();
        for node in nodes {
            let wanted = node.text("name").unwrap_or("rule");
            let name = names.take(self.notes, &node.at, wanted, Alphabet::Any);
            node.see(&["id"]);
            let Some((scope, subject)) = self.scope(node) else {
                continue;
            };
            let rule = Rule {
                name,
                comment: node.text("description").unwrap_or_default().to_owned(),
                scope,
                subject,
                priority: self.priority(node),
                when: self.condition(node),
                targets: self.targets(node),
                fallbacks: self.fallbacks(node),
                chain: node.flag("chain_rule").unwrap_or(false),
                disabled: node.flag("enabled") == Some(false),
            };
            match rule.targets.is_empty() {
                true => self
                    .notes
                    .add(node, "no target is left: the rule was left out"),
                false => self.plan.rules.push((node.at.clone(), rule)),
            }
        }
    }

    /// Whose requests it looks at; `None` when that was noted as unknown.
    fn scope(&mut self, node: &'a Node) -> Option<(&'static str, Option<String>)> {
        let written = node.text("scope").unwrap_or("global");
        let scope = match written {
            "global" => {
                node.see(&["scope_id"]);
                return Some(("global", None));
            }
            "customer" => "customer",
            "team" => "team",
            "virtual_key" => "virtual_key",
            "user" => "user",
            _ => {
                self.notes.add(
                    node,
                    "a scope that Tyr does not have: the rule was left out",
                );
                return None;
            }
        };
        let id = node.text("scope_id").unwrap_or_default();
        let subject = match scope {
            "user" => Some(id.to_owned()),
            _ => self.owners.get(&(scope, id)).cloned(),
        };
        if subject.is_none() {
            self.notes.add(
                node,
                format!("there is no such {scope}: the rule was left out"),
            );
        }
        subject.map(|subject| (scope, Some(subject)))
    }

    fn priority(&mut self, node: &'a Node) -> u64 {
        let Some(number) = node.number("priority") else {
            return 0;
        };
        number.parse::<u64>().unwrap_or_else(|_| {
            self.notes.at(
                &node.at,
                "a priority is a whole number from 0: it is 0 here",
            );
            0
        })
    }

    /// The condition, with ids replaced by the names that rules see here.
    fn condition(&mut self, node: &'a Node) -> String {
        let text = node.text("cel_expression").unwrap_or_default().trim();
        if text.is_empty() {
            return "true".to_owned();
        }
        let mut when = text.to_owned();
        let mut replaced = Vec::new();
        for ((_, id), name) in &self.owners {
            for quote in ['"', '\''] {
                let literal = format!("{quote}{id}{quote}");
                let plain = !name.contains(['"', '\'', '\\']);
                if id != name && plain && when.contains(&literal) {
                    when = when.replace(&literal, &format!("{quote}{name}{quote}"));
                    replaced.push(name.clone());
                }
            }
        }
        if let Some(field) = node.field("cel_expression")
            && !replaced.is_empty()
        {
            let names = replaced.join("`, `");
            self.notes
                .at(&field.at, format!("ids became names: `{names}`"));
        }
        when
    }

    fn targets(&mut self, rule: &'a Node) -> Vec<Target> {
        let nodes = rule.items("targets");
        let weights: Vec<String> = nodes
            .iter()
            .map(|node| node.number("weight").unwrap_or("1").to_owned())
            .collect();
        let mut targets = Vec::new();
        for (node, weight) in nodes.iter().zip(shares(&weights)) {
            let model = node.text("model");
            let provider = match node.text("provider") {
                None => None,
                Some(name) => match self.target_provider(node, name) {
                    Some(index) => Some(index),
                    None => continue,
                },
            };
            if let (Some(provider), Some(model)) = (provider, model) {
                self.model(node, provider, model, None);
            }
            let key = node
                .text("provider_key_name")
                .or_else(|| node.text("key_id"));
            let known = key.and_then(|key| self.credentials.get(key).cloned());
            if key.is_some() && known.is_none() {
                self.notes.at(
                    &node.at,
                    "names a key that does not exist: any key may be used",
                );
            }
            targets.push(Target {
                provider: provider.map(|index| self.plan.providers[index].name.clone()),
                model: model.map(str::to_owned),
                key: known,
                weight,
            });
        }
        targets
    }

    fn target_provider(&mut self, node: &'a Node, name: &str) -> Option<usize> {
        let providers = self.providers_of(node, name);
        if providers.len() > 1 {
            self.notes.at(
                &node.at,
                "the provider has several addresses: the first is used",
            );
        }
        providers.first().copied()
    }

    /// `provider/model` names: as text or as a mapping.
    fn fallbacks(&mut self, rule: &'a Node) -> Vec<String> {
        let mut fallbacks = Vec::new();
        for node in rule.items("fallbacks") {
            let pair = match node.as_text() {
                Some(text) => text.split_once('/'),
                None => node.text("provider").zip(node.text("model")),
            };
            let Some((provider, model)) = pair else {
                self.notes.add(
                    node,
                    "a fallback names a provider and a model: it was left out",
                );
                continue;
            };
            if let Some(index) = self.target_provider(node, provider) {
                self.model(node, index, model, None);
                let provider = &self.plan.providers[index].name;
                fallbacks.push(format!("{provider}/{model}"));
            }
        }
        fallbacks
    }
}
