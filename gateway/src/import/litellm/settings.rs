//! `general_settings`, `router_settings`, `litellm_settings`.

use super::Import;
use super::deployment::first_byte;
use crate::import::names::is_model;
use crate::import::plan::{BudgetNode, Network, Rule, Target};
use crate::import::source::Node;

/// Sections in which the same settings may stand; the first one counts.
const SECTIONS: [&str; 2] = ["router_settings", "litellm_settings"];

/// Behind all rules for one model.
const LAST: u64 = 1_000;

impl<'a> Import<'a> {
    pub(super) fn general(&mut self, root: &'a Node) {
        let general = root.field("general_settings");
        if let Some(key) = general.and_then(|general| general.field("master_key")) {
            let why = "becomes a bearer token of the admin API, 16 or more characters; clients need virtual keys";
            self.notes.at(&key.at, why);
            let value = self.secrets.reference(self.notes, key, &["admin_token"]);
            self.plan.admin_tokens.push(("master".to_owned(), value));
        }
        if let Some(general) = general
            && let Some(megabytes) = general.whole("max_request_size_mb")
        {
            self.plan.max_body = Some(format!("{megabytes}MiB"));
        }
        let Some(settings) = root.field("litellm_settings") else {
            return;
        };
        match (
            settings.field("max_budget"),
            settings.field("budget_duration"),
        ) {
            (Some(amount), Some(period)) => {
                let budget = BudgetNode {
                    amount,
                    period,
                    aligned: false,
                    fiscal_start: None,
                };
                self.plan.global.budget(self.notes, budget);
            }
            (Some(amount), None) => {
                self.notes
                    .add(amount, "a budget needs a period: it was left out");
            }
            (None, _) => {}
        }
    }

    /// What holds for all providers.
    pub(super) fn shared_network(&mut self, root: &'a Node) -> Network {
        let first = |names: [&str; 2], read: &dyn Fn(&'a Node, &str) -> Option<String>| {
            let sections = SECTIONS.iter().zip(names);
            let mut found = sections.filter_map(|(section, name)| read(root.field(section)?, name));
            found.next()
        };
        let timeout = first(["timeout", "request_timeout"], &|node, name| {
            node.number(name).map(str::to_owned)
        });
        let retries = first(["num_retries", "num_retries"], &|node, name| {
            node.whole(name).map(|most| most.to_string())
        });
        Network {
            first_byte: timeout.as_deref().and_then(first_byte),
            retries: retries
                .and_then(|most| most.parse::<u64>().ok())
                .map(|most| most.min(10)),
            ..Network::default()
        }
    }

    /// Other names for models.
    pub(super) fn aliases(&mut self, root: &'a Node) {
        let names = ["model_group_alias", "model_alias_map"];
        for (section, name) in SECTIONS.iter().zip(names) {
            let Some(section) = root.field(section) else {
                continue;
            };
            for (alias, target) in section.entries(name) {
                let model = target.as_text().or_else(|| target.text("model"));
                let choices = model.and_then(|model| self.groups.get(model));
                let known = self.plan.aliases.iter().any(|(known, _)| known == alias);
                match choices {
                    Some(choices)
                        if is_model(alias)
                            && !known
                            && !self.groups.contains_key(alias.as_str()) =>
                    {
                        self.plan.aliases.push((alias.clone(), choices.clone()));
                    }
                    _ => self
                        .notes
                        .add(target, "names no model that was imported, or is one itself"),
                }
            }
        }
    }

    /// Where requests go when a model fails.
    pub(super) fn fallbacks(&mut self, root: &'a Node) {
        for section in SECTIONS {
            let Some(section) = root.field(section) else {
                continue;
            };
            for node in section.items("fallbacks") {
                for (model, targets) in node.as_entries() {
                    self.fallback(model, targets);
                }
            }
            if let Some(node) = section.field("default_fallbacks") {
                self.rule(node, "fallbacks", "true".to_owned(), LAST, "*");
            }
        }
    }

    fn fallback(&mut self, model: &'a str, targets: &'a Node) {
        if model == "*" {
            self.rule(targets, "fallbacks", "true".to_owned(), LAST, model);
            return;
        }
        if !self.groups.contains_key(model) {
            self.notes.add(targets, "names no model that was imported");
            return;
        }
        // A name is 1 to 200 printable characters; quotes end the literal.
        let literal = model.replace('\\', "\\\\").replace('\'', "\\'");
        let when = format!("model == '{literal}'");
        self.rule(targets, &format!("fallbacks of {model}"), when, 0, model);
    }

    /// A rule that changes nothing but what comes after a failure.
    fn rule(&mut self, node: &'a Node, name: &str, when: String, priority: u64, model: &str) {
        let mut fallbacks = Vec::new();
        for target in node.as_items() {
            let choices = target.as_text().and_then(|name| self.groups.get(name));
            match choices {
                Some(choices) => {
                    let new = choices.iter().filter(|choice| !fallbacks.contains(*choice));
                    let new: Vec<String> = new.cloned().collect();
                    fallbacks.extend(new);
                }
                None => self.notes.add(target, "names no model that was imported"),
            }
        }
        let taken = self.plan.rules.iter().any(|(_, rule)| rule.name == name);
        if fallbacks.is_empty() || taken {
            self.notes.add(
                node,
                format!("no fallback of `{model}` is left, or it has some already"),
            );
            return;
        }
        let rule = Rule {
            name: name.to_owned(),
            scope: "global",
            priority,
            when,
            targets: vec![Target {
                weight: 1,
                ..Target::default()
            }],
            fallbacks,
            ..Rule::default()
        };
        self.plan.rules.push((node.at.clone(), rule));
    }
}
