//! `providers`: where they are, their credentials and models.

use std::collections::BTreeMap;

use super::Import;
use crate::import::amount::shares;
use crate::import::names::{Alphabet, Names, is_model};
use crate::import::plan::{Credential, Network, Provider};
use crate::import::source::Node;
use crate::import::vendor::{is_loopback, is_private, vendor};

/// Where credentials of one provider lead: the index of ours.
type Addresses = BTreeMap<String, usize>;

impl<'a> Import<'a> {
    pub(super) fn provider(&mut self, name: &'a str, node: &'a Node) {
        let custom = node.field("custom_provider_config");
        let base = custom.and_then(|custom| custom.text("base_provider_type"));
        let Some(vendor) = vendor(base.unwrap_or(name)) else {
            let why = "Tyr does not speak this provider's wire: it was left out";
            self.notes.add(node, why);
            return;
        };
        let network_node = node.field("network_config");
        let own = network_node.and_then(|network| network.field("base_url"));
        let given = own.and_then(|url| self.address(url, &[name, "base_url"]));
        let known = vendor.base_url.filter(|_| base.is_none());
        let network = network_node.map_or_else(Network::default, |node| self.network(node));
        let allowed = network_node.and_then(|network| network.flag("allow_private_network"));
        let template = Template {
            source: name,
            kind: vendor.kind,
            given: given.map(|url| self.with_version(own, vendor.kind, url)),
            known,
            allowed,
            network,
        };
        let keys = node.items("keys");
        let weights: Vec<String> = keys.iter().map(weight).collect();
        let mut addresses = Addresses::new();
        let mut names = Names::default();
        for (key, weight) in keys.iter().zip(shares(&weights)) {
            self.key(&template, &mut addresses, &mut names, key, weight);
        }
        if addresses.is_empty() {
            let why = "a provider needs an address and a key: it was left out";
            self.notes.add(node, why);
            return;
        }
        let mut ours: Vec<usize> = addresses.into_values().collect();
        ours.sort_unstable();
        self.providers.insert(name, ours);
    }

    /// Bifrost adds `/v1` to the address of an OpenAI-compatible server.
    fn with_version(&mut self, node: Option<&Node>, kind: &str, url: String) -> String {
        let url = url.trim_end_matches('/').to_owned();
        if kind != "openai" || url.ends_with("/v1") || url.ends_with("/openai") {
            return url;
        }
        if url.starts_with("env.") {
            if let Some(node) = node {
                self.notes
                    .at(&node.at, "Bifrost adds `/v1` to it: add that to the value");
            }
            return url;
        }
        format!("{url}/v1")
    }

    fn network(&mut self, node: &'a Node) -> Network {
        let seconds = node.whole("default_request_timeout_in_seconds");
        let retries = node.whole("max_retries");
        if let (Some(most), Some(field)) = (retries, node.field("max_retries"))
            && most > 10
        {
            self.notes.at(&field.at, "10 is the most");
        }
        let ca = node.field("ca_cert_pem");
        Network {
            first_byte: seconds.map(|seconds| (format!("{seconds}s"), seconds)),
            idle: node
                .whole("stream_idle_timeout_in_seconds")
                .map(|seconds| format!("{seconds}s")),
            retries: retries.map(|most| most.min(10)),
            backoff_min: node.whole("retry_backoff_initial"),
            backoff_max: node.whole("retry_backoff_max"),
            ca: ca.and_then(|ca| self.address(ca, &["ca"])),
        }
    }

    fn key(
        &mut self,
        template: &Template<'_>,
        addresses: &mut Addresses,
        names: &mut Names,
        node: &'a Node,
        weight: u64,
    ) {
        if node.flag("enabled") == Some(false) {
            self.notes
                .add(node, "the key is switched off: it was left out");
            return;
        }
        let wanted = node.text("name").unwrap_or("key");
        let name = names.take(self.notes, &node.at, wanted, Alphabet::Any);
        let Some(provider) = self.at_address(template, addresses, node, &name) else {
            let why = "the provider has no address: set `network_config.base_url`";
            self.notes.add(node, why);
            return;
        };
        for known in [node.peek("id"), node.peek("name")].into_iter().flatten() {
            self.credentials.insert(known, name.clone());
        }
        node.see(&["id", "weight"]);
        let blocked = node.texts("blacklisted_models").unwrap_or_default();
        let mut models = self.model_list(node, "models", &[provider]);
        let aliases = self.aliases(node, provider);
        if let Some(models) = &mut models {
            let new = aliases.into_iter().filter(|alias| !models.contains(alias));
            let new: Vec<_> = new.collect();
            models.extend(new);
            models.retain(|model| !blocked.contains(&model.as_str()));
        } else if !blocked.is_empty() {
            let why = "with all models allowed there is no list to take these from: list the key's models";
            node.field("blacklisted_models")
                .into_iter()
                .for_each(|list| self.notes.add(list, why));
        }
        let (value, comment) = match node.field("value") {
            Some(value) if value.as_text() != Some("") => {
                let hint = [template.source, &name, "key"];
                (self.secrets.reference(self.notes, value, &hint), "")
            }
            _ => ("none".to_owned(), "the server asks for no key"),
        };
        self.plan.providers[provider].keys.push(Credential {
            name,
            value,
            weight,
            models,
            comment: comment.to_owned(),
        });
    }

    /// Our provider at the address of a key, made when it is the first there.
    fn at_address(
        &mut self,
        template: &Template<'_>,
        addresses: &mut Addresses,
        node: &'a Node,
        key: &str,
    ) -> Option<usize> {
        let url = match self.own_address(template, node) {
            Some(url) => url,
            None => template
                .given
                .clone()
                .or_else(|| template.known.map(str::to_owned))?,
        };
        if let Some(known) = addresses.get(&url) {
            return Some(*known);
        }
        let wanted = match addresses.is_empty() {
            true => template.source.to_owned(),
            // A further address needs a name that says which it is.
            false => format!("{}-{key}", template.source),
        };
        let wanted = wanted.replace(' ', "-");
        let name = self
            .provider_names
            .take(self.notes, &node.at, &wanted, Alphabet::Provider);
        let comment = match template.known == Some(url.as_str())
            && template.kind == "openai"
            && template.source != "openai"
        {
            true => format!("the OpenAI-compatible endpoint of {}", template.source),
            false => String::new(),
        };
        let index = self.plan.providers.len();
        self.plan.providers.push(Provider {
            name,
            kind: template.kind,
            comment,
            private: template.allowed.unwrap_or_else(|| is_private(&url)) || is_loopback(&url),
            base_url: url.clone(),
            network: template.network.clone(),
            ..Provider::default()
        });
        addresses.insert(url, index);
        Some(index)
    }

    /// The address that belongs to one key: of a deployment or a server.
    fn own_address(&mut self, template: &Template<'_>, node: &'a Node) -> Option<String> {
        let azure = node.field("azure_key_config");
        if let Some(endpoint) = azure.and_then(|azure| azure.field("endpoint")) {
            let url = self.address(endpoint, &[template.source, "endpoint"])?;
            if url.starts_with("env.") {
                self.notes.at(&endpoint.at, "add `/openai/v1` to the value");
                return Some(url);
            }
            return Some(format!("{}/openai/v1", url.trim_end_matches('/')));
        }
        for config in ["vllm_key_config", "ollama_key_config", "sgl_key_config"] {
            if let Some(url) = node.field(config).and_then(|config| config.field("url")) {
                let text = self.address(url, &[template.source, "url"])?;
                return Some(self.with_version(Some(url), template.kind, text));
            }
        }
        None
    }

    /// Models under another name than the provider's; their names.
    fn aliases(&mut self, node: &'a Node, provider: usize) -> Vec<String> {
        let mut names = Vec::new();
        let azure = node.field("azure_key_config");
        let deployments = azure.map_or(&[][..], |azure| azure.entries("deployments"));
        for (alias, target) in node.entries("aliases").iter().chain(deployments) {
            let upstream = target.as_text().or_else(|| target.text("model_id"));
            if let Some(upstream) = upstream {
                self.model(target, provider, alias, Some(upstream));
                names.extend(is_model(alias).then(|| alias.clone()));
            }
        }
        let vllm = node.field("vllm_key_config");
        if let Some(model) = vllm.and_then(|vllm| vllm.text("model_name")) {
            self.model(node, provider, model, None);
            names.push(model.to_owned());
        }
        names
    }
}

/// What all keys of one provider of the source have in common.
struct Template<'a> {
    source: &'a str,
    kind: &'static str,
    /// The address in the source.
    given: Option<String>,
    /// The one that everybody uses.
    known: Option<&'static str>,
    /// Whether the source allows private addresses.
    allowed: Option<bool>,
    network: Network,
}

/// A key's share as text; 1 without one.
fn weight(node: &Node) -> String {
    node.peek("weight").unwrap_or("1").to_owned()
}
