//! The plan as YAML: what has our default is left out, and a comment says where
//! something was decided.

use super::super::yaml::{Block, Out, line, plain, text};
use super::{
    Credential, Grant, Limit, Limits, Model, Network, Owner, Plan, Price, Provider, Rule, Target,
    VirtualKey,
};

impl Limits {
    fn write(&self, block: &mut Block) {
        let mut rates = Vec::new();
        let mut budgets = Vec::new();
        for (index, limit) in self.0.iter().enumerate() {
            let twin = |other: &&Limit| other.unit == limit.unit && other.every == limit.every;
            let twins = self.0.iter().take(index).filter(twin).count();
            let mut pairs = vec![(limit.unit, plain(&limit.amount))];
            pairs.extend(limit.every.as_ref().map(|every| ("every", plain(every))));
            pairs.extend(
                limit
                    .fiscal_start
                    .map(|month| ("fiscal_start", plain(month))),
            );
            if limit.strict {
                pairs.push(("enforcement", plain("strict")));
            }
            if twins > 0 {
                // Two that count the same are told apart by a name.
                pairs.push(("name", plain(format!("n{}", twins + 1))));
            }
            let mut item = Out::Pairs(pairs);
            if !limit.comment.is_empty() {
                item = Out::Noted(Box::new(item), limit.comment);
            }
            match limit.unit {
                "limit_usd" => budgets.push(item),
                _ => rates.push(item),
            }
        }
        block
            .put_items("rate_limits", rates)
            .put_items("budgets", budgets);
    }
}

impl Plan {
    pub(in crate::import) fn to_yaml(&self) -> String {
        let mut root = Block::default();
        root.put("version", plain(1));
        self.head.iter().for_each(|line| {
            root.above(line);
        });
        if let Some(size) = &self.max_body {
            let mut server = Block::default();
            server.put("max_body", plain(size));
            root.put("server", Out::Block(server));
        }
        self.write_admin(&mut root);
        let providers = self.providers.iter().map(Provider::write).collect();
        root.put_items("providers", providers);
        let aliases = self.aliases.iter().map(|(name, choices)| {
            Out::Pairs(vec![("name", text(name)), ("choices", line(choices))])
        });
        let models = self
            .models
            .iter()
            .map(Model::write)
            .chain(aliases)
            .collect();
        root.put_items("models", models);
        root.put_items(
            "customers",
            self.customers.iter().map(Owner::write).collect(),
        );
        root.put_items("teams", self.teams.iter().map(Owner::write).collect());
        let keys = self.keys.iter().map(VirtualKey::write).collect();
        root.put_items("virtual_keys", keys);
        let rules = self.rules.iter().map(|(_, rule)| rule.write()).collect();
        root.put_items("routing_rules", rules);
        self.write_governance(&mut root);
        if let Some(cluster) = &self.cluster {
            root.put("cluster", Out::Block(cluster.clone()));
        }
        root.write()
    }

    fn write_admin(&self, root: &mut Block) {
        let token = |(name, value): &(String, String)| {
            Out::Pairs(vec![
                ("name", text(name)),
                ("role", plain("admin")),
                ("value", text(value)),
            ])
        };
        if !self.admin_tokens.is_empty() {
            let mut admin = Block::default();
            admin.put_items("tokens", self.admin_tokens.iter().map(token).collect());
            root.put("admin", Out::Block(admin));
        }
        if !self.encryption_keys.is_empty() {
            let keys = self
                .encryption_keys
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    Out::Pairs(vec![
                        ("id", plain(format!("k{}", index + 1))),
                        ("value", text(value)),
                    ])
                });
            let mut encryption = Block::default();
            encryption.put_items("keys", keys.collect());
            root.put("encryption", Out::Block(encryption));
        }
    }

    fn write_governance(&self, root: &mut Block) {
        let mut governance = Block::default();
        if !self.global.is_empty() {
            let mut global = Block::default();
            self.global.write(&mut global);
            governance.put("global", Out::Block(global));
        }
        let models = self.model_limits.iter().map(|(name, limits)| {
            let mut block = Block::default();
            block.put("name", text(name));
            limits.write(&mut block);
            Out::Block(block)
        });
        let models: Vec<_> = models.collect();
        let empty = self.global.is_empty() && models.is_empty();
        governance.put_items("models", models);
        if !empty {
            root.put("governance", Out::Block(governance));
        }
    }
}

impl Provider {
    fn write(&self) -> Out {
        let mut block = Block::default();
        block.put("name", text(&self.name)).above(&self.comment);
        block.put("kind", plain(self.kind));
        block.put("base_url", text(&self.base_url));
        if self.private {
            block.put("allow_private_addresses", plain(true));
        }
        block.put_items("keys", self.keys.iter().map(Credential::write).collect());
        self.network.write(&mut block);
        self.limits.write(&mut block);
        Out::Block(block)
    }
}

/// Our own defaults that others have to fit to.
const TOTAL_SECONDS: u64 = 600;
const BACKOFF_MIN: u64 = 100;
const BACKOFF_MAX: u64 = 2_000;

impl Network {
    fn write(&self, block: &mut Block) {
        let mut timeouts = Vec::new();
        if let Some((length, seconds)) = &self.first_byte {
            timeouts.push(("first_byte", plain(length)));
            if *seconds > TOTAL_SECONDS {
                timeouts.push(("total", plain(length)));
            }
        }
        timeouts.extend(self.idle.as_ref().map(|idle| ("idle", plain(idle))));
        if !timeouts.is_empty() {
            block.put("timeouts", Out::Pairs(timeouts));
        }
        let mut retries = Vec::new();
        retries.extend(self.retries.map(|most| ("max", plain(most))));
        if self.backoff_min.is_some() || self.backoff_max.is_some() {
            let longest = self.backoff_max.unwrap_or(BACKOFF_MAX);
            let first = self.backoff_min.unwrap_or(BACKOFF_MIN.min(longest));
            retries.push(("backoff_min", plain(format!("{first}ms"))));
            retries.push(("backoff_max", plain(format!("{}ms", longest.max(first)))));
        }
        if !retries.is_empty() {
            block.put("retries", Out::Pairs(retries));
        }
        if let Some(ca) = &self.ca {
            block.put("tls", Out::Pairs(vec![("ca", text(ca))]));
        }
    }
}

impl Credential {
    fn write(&self) -> Out {
        let mut block = Block::default();
        block.put("name", text(&self.name));
        block.put("value", text(&self.value)).beside(&self.comment);
        if self.weight != 1 {
            block.put("weight", plain(self.weight));
        }
        block.put_some("models", self.models.as_ref().map(line));
        Out::Block(block)
    }
}

impl Model {
    fn write(&self) -> Out {
        let mut block = Block::default();
        block.put("name", text(&self.name));
        block.put("provider", text(&self.provider));
        block.put_some("upstream_name", self.upstream.as_ref().map(text));
        match &self.price {
            Some(price) => block.put("price", price.write()),
            None => block
                .put("price", plain("free"))
                .beside("no price in the source: set it, budgets do not move without it"),
        };
        block.put_some("max_output_tokens", self.max_output_tokens.map(plain));
        self.limits.write(&mut block);
        Out::Block(block)
    }
}

impl Price {
    fn write(&self) -> Out {
        let mut pairs = vec![("input", plain(&self.input))];
        pairs.extend(
            self.cache_read
                .as_ref()
                .map(|price| ("cache_read", plain(price))),
        );
        pairs.extend(
            self.cache_write
                .as_ref()
                .map(|price| ("cache_write", plain(price))),
        );
        pairs.push(("output", plain(&self.output)));
        Out::Pairs(pairs)
    }
}

impl Owner {
    fn write(&self) -> Out {
        let mut block = Block::default();
        block.put("name", text(&self.name)).above(&self.comment);
        block.put_some("customer", self.customer.as_ref().map(text));
        self.limits.write(&mut block);
        Out::Block(block)
    }
}

impl VirtualKey {
    fn write(&self) -> Out {
        let mut block = Block::default();
        block.put("name", text(&self.name)).above(&self.comment);
        block.put("value", text(&self.value));
        block.put_some("team", self.team.as_ref().map(text));
        block.put_some("customer", self.customer.as_ref().map(text));
        if !self.active {
            block.put("active", plain(false));
        }
        block.put_some("expires_at", self.expires_at.as_ref().map(text));
        block.put_items("providers", self.grants.iter().map(Grant::write).collect());
        self.limits.write(&mut block);
        Out::Block(block)
    }
}

impl Grant {
    fn write(&self) -> Out {
        let mut block = Block::default();
        block.put("name", text(&self.provider));
        let all = ["*".to_owned()];
        let models = self.models.as_deref().unwrap_or(&all);
        block.put("models", line(models));
        if self.weight != 1 {
            block.put("weight", plain(self.weight));
        }
        self.limits.write(&mut block);
        Out::Block(block)
    }
}

impl Rule {
    fn write(&self) -> Out {
        let mut block = Block::default();
        block.put("name", text(&self.name)).above(&self.comment);
        block.put("scope", plain(self.scope));
        block.put_some("subject", self.subject.as_ref().map(text));
        block.put("priority", plain(self.priority));
        block.put("when", Out::Text(self.when.clone()));
        let target = |target: &Target| {
            let mut pairs = Vec::new();
            pairs.extend(
                target
                    .provider
                    .as_ref()
                    .map(|name| ("provider", text(name))),
            );
            pairs.extend(target.model.as_ref().map(|name| ("model", text(name))));
            pairs.extend(target.key.as_ref().map(|name| ("key", text(name))));
            pairs.push(("weight", plain(target.weight)));
            Out::Pairs(pairs)
        };
        block.put_items("targets", self.targets.iter().map(target).collect());
        if !self.fallbacks.is_empty() {
            block.put("fallbacks", line(&self.fallbacks));
        }
        if self.chain {
            block.put("chain", plain(true));
        }
        if self.disabled {
            block.put("enabled", plain(false));
        }
        Out::Block(block)
    }
}
