//! `model_list`: models, where they are and with which credential.

use super::Import;
use crate::import::amount::{per_million, seconds, shares};
use crate::import::names::{Alphabet, is_model};
use crate::import::plan::{Credential, Model, Network, Price, Provider};
use crate::import::secret::variable;
use crate::import::source::{Node, Value};
use crate::import::vendor::{Vendor, is_private, vendor};

/// Where a provider of ours is, and what its credentials were made of.
#[derive(Debug)]
pub(super) struct Place {
    /// The provider's name in the source.
    vendor: String,
    url: String,
    network: NetworkText,
    /// What each credential is in the source, compared and never shown.
    secrets: Vec<String>,
    /// Each credential's share as text.
    weights: Vec<Vec<String>>,
}

/// What has to be equal for entries to share a provider.
type NetworkText = (Option<String>, Option<u64>);

impl<'a> Import<'a> {
    pub(super) fn deployment(&mut self, node: &'a Node) {
        let (Some(name), Some(params)) = (node.text("model_name"), node.field("litellm_params"))
        else {
            self.notes
                .add(node, "an entry needs `model_name` and `litellm_params`");
            return;
        };
        let Some(wire) = params.text("model") else {
            self.notes
                .add(node, "an entry needs `litellm_params.model`");
            return;
        };
        if name.contains('*') || wire.contains('*') {
            let why = "Tyr serves listed models only: replace the wildcard by the models you use";
            self.notes.add(node, why);
            return;
        }
        let Some((source, upstream)) = split(params, wire) else {
            let why = "the provider of this model is not told: write `provider/model`";
            self.notes.add(node, why);
            return;
        };
        let Some(vendor) = vendor(source) else {
            let why = format!("Tyr does not speak the wire of `{source}`: the entry was left out");
            self.notes.add(node, why);
            return;
        };
        if !is_model(name) || !is_model(upstream) {
            self.notes.add(
                node,
                "a model's name is 1 to 200 printable ASCII characters",
            );
            return;
        }
        let Some(url) = self.url(params, source, &vendor) else {
            self.notes.add(
                node,
                "the provider has no address: set `litellm_params.api_base`",
            );
            return;
        };
        // `openai/gpt-4o` of provider `openai` is what `gpt-4o` of it is called anyway.
        let short = name.strip_prefix(source);
        let short = short.and_then(|rest| rest.strip_prefix('/'));
        let short = short.filter(|rest| *rest == upstream);
        let place = (source, &vendor, url);
        let provider = self.place(node, params, place, (short.unwrap_or(name), upstream));
        let called = match short {
            Some(short) if self.plan.providers[provider].name == source => short,
            _ => name,
        };
        self.credential(params, provider, (source, &vendor), called);
        let full = format!("{}/{called}", self.plan.providers[provider].name);
        let group = self.groups.entry(name).or_default();
        if !group.contains(&full) {
            group.push(full);
        }
        self.model(node, params, provider, (called, upstream));
    }

    fn url(&mut self, params: &'a Node, source: &str, vendor: &Vendor) -> Option<String> {
        let field = ["api_base", "base_url"]
            .into_iter()
            .find_map(|name| params.field(name));
        let Some(field) = field else {
            return vendor.base_url.map(str::to_owned);
        };
        let url = self.address(field, &[source, "base_url"])?;
        let url = url.trim_end_matches('/').to_owned();
        let end = match source {
            "azure" => "/openai/v1",
            "ollama" | "ollama_chat" => "/v1",
            _ => return Some(url),
        };
        if url.starts_with("env.") {
            self.notes
                .at(&field.at, format!("add `{end}` to the value"));
            return Some(url);
        }
        Some(if url.ends_with(end) {
            url
        } else {
            format!("{url}{end}")
        })
    }

    /// Our provider for an entry: one of the same address that does not call
    /// another model by this name, or a new one.
    fn place(
        &mut self,
        node: &'a Node,
        params: &'a Node,
        (source, vendor, url): (&str, &Vendor, String),
        (name, upstream): (&str, &str),
    ) -> usize {
        let timeout = params
            .number("timeout")
            .or_else(|| params.number("request_timeout"));
        let retries = params.whole("max_retries");
        let retries = retries
            .or_else(|| params.whole("num_retries"))
            .map(|most| most.min(10));
        let network = (timeout.map(str::to_owned), retries);
        let clash = |place: usize| {
            let provider = &self.plan.providers[place].name;
            let known = |model: &&Model| model.name == name && model.provider == *provider;
            let model = self.plan.models.iter().find(known);
            model.is_some_and(|model| model.upstream.as_deref().unwrap_or(name) != upstream)
        };
        let same =
            |place: &Place| place.vendor == source && place.url == url && place.network == network;
        let found = self
            .places
            .iter()
            .enumerate()
            .find(|(index, place)| same(place) && !clash(*index));
        if let Some((index, _)) = found {
            return index;
        }
        let at = &node.at;
        let ours = self
            .provider_names
            .take(self.notes, at, source, Alphabet::Provider);
        let own = Network {
            first_byte: timeout.and_then(first_byte),
            retries,
            ..Network::default()
        };
        let known = vendor.base_url == Some(url.as_str()) && vendor.kind != source;
        self.plan.providers.push(Provider {
            name: ours,
            kind: vendor.kind,
            comment: match known && vendor.kind == "openai" {
                true => format!("the OpenAI-compatible endpoint of {source}"),
                false => String::new(),
            },
            private: is_private(&url),
            base_url: url.clone(),
            network: or_shared(own, &self.network),
            ..Provider::default()
        });
        self.places.push(Place {
            vendor: source.to_owned(),
            url,
            network,
            secrets: Vec::new(),
            weights: Vec::new(),
        });
        self.plan.providers.len() - 1
    }

    /// The entry's credential among those of its provider.
    fn credential(
        &mut self,
        params: &'a Node,
        provider: usize,
        (source, vendor): (&str, &Vendor),
        model: &str,
    ) {
        let field = params.field("api_key");
        let text = field.map_or_else(String::new, |field| match variable(field) {
            Some(name) => format!("env.{name}"),
            None => match &field.value {
                Value::Text(text) => text.clone(),
                other => format!("{other:?}"),
            },
        });
        let weight = ["weight", "rpm", "tpm"]
            .into_iter()
            .find_map(|name| params.peek(name));
        params.see(&["weight"]);
        let weight = weight.unwrap_or("1").to_owned();
        let place = &mut self.places[provider];
        if let Some(index) = place.secrets.iter().position(|known| *known == text) {
            if let Some(field) = field {
                field.see_all();
            }
            place.weights[index].push(weight);
            let models = &mut self.plan.providers[provider].keys[index].models;
            if let Some(models) = models
                && !models.iter().any(|known| known == model)
            {
                models.push(model.to_owned());
            }
            return;
        }
        place.secrets.push(text);
        place.weights.push(vec![weight]);
        let number = place.secrets.len();
        let local = vendor.base_url.is_none() && source != "azure";
        let (value, comment) = match field {
            Some(field) => {
                let hint = [self.plan.providers[provider].name.as_str(), "key"];
                (self.secrets.reference(self.notes, field, &hint), "")
            }
            None if local => ("none".to_owned(), "the server asks for no key"),
            None => (
                format!("env.{}", vendor.variable),
                "LiteLLM's variable for it",
            ),
        };
        self.plan.providers[provider].keys.push(Credential {
            name: if number == 1 {
                "main".to_owned()
            } else {
                format!("key-{number}")
            },
            value,
            weight: 1,
            models: Some(vec![model.to_owned()]),
            comment: comment.to_owned(),
        });
    }

    fn model(
        &mut self,
        node: &'a Node,
        params: &'a Node,
        provider: usize,
        (name, upstream): (&str, &str),
    ) {
        let provider = self.plan.providers[provider].name.clone();
        let info = node.field("model_info");
        let price = self.price(params, info);
        let most = ["max_output_tokens", "max_tokens"];
        let most = most
            .into_iter()
            .find_map(|name| info?.whole(name))
            .filter(|most| *most > 0);
        if let Some(info) = info {
            info.see(&["id"]);
        }
        let known = |model: &Model| model.name == name && model.provider == provider;
        let index = self.plan.models.iter().position(known);
        let index = index.unwrap_or_else(|| {
            self.plan.models.push(Model {
                name: name.to_owned(),
                provider,
                upstream: (upstream != name).then(|| upstream.to_owned()),
                ..Model::default()
            });
            self.plan.models.len() - 1
        });
        let model = &mut self.plan.models[index];
        if let (Some(price), Some(other)) = (&price, &model.price)
            && price != other
        {
            self.notes.at(
                &node.at,
                "another entry of this model has another price: that one is used",
            );
        }
        model.price = model.price.take().or(price);
        model.max_output_tokens = model.max_output_tokens.or(most);
        // Entries with different credentials add up.
        for (field, unit, every) in [
            ("rpm", "requests", Some("1m")),
            ("tpm", "tokens", Some("1m")),
            ("max_parallel_requests", "concurrent", None),
        ] {
            if let Some(amount) = params.whole(field) {
                model.limits.add_rate(unit, amount, every);
            }
        }
    }

    fn price(&mut self, params: &'a Node, info: Option<&'a Node>) -> Option<Price> {
        let mut read = |name: &str| {
            let holder = [Some(params), info].into_iter().flatten();
            let field = holder.filter_map(|node| node.field(name)).next()?;
            let price = field.as_number().and_then(per_million);
            if price.is_none() {
                self.notes
                    .add(field, "no price per token that can be kept exactly");
            }
            price
        };
        let input = read("input_cost_per_token");
        let output = read("output_cost_per_token");
        let cache_read = read("cache_read_input_token_cost");
        let cache_write = read("cache_creation_input_token_cost");
        (input.is_some() || output.is_some()).then(|| Price {
            input: input.unwrap_or_else(|| "0".to_owned()),
            output: output.unwrap_or_else(|| "0".to_owned()),
            cache_read,
            cache_write,
        })
    }

    /// What is known only when all entries were seen: the credentials' shares,
    /// and which serve all models of their provider.
    pub(super) fn finish_providers(&mut self) {
        for (place, provider) in self.places.iter().zip(&mut self.plan.providers) {
            let weights: Vec<String> = place
                .weights
                .iter()
                .map(|weights| weights.first().cloned().unwrap_or_default())
                .collect();
            let all = self
                .plan
                .models
                .iter()
                .filter(|model| model.provider == provider.name);
            let all = all.count();
            for (key, share) in provider.keys.iter_mut().zip(shares(&weights)) {
                key.weight = share;
                if key
                    .models
                    .as_ref()
                    .is_some_and(|models| models.len() == all)
                {
                    key.models = None;
                }
            }
        }
    }
}

/// Provider and model of `provider/model`; some names tell their provider.
fn split<'a>(params: &'a Node, wire: &'a str) -> Option<(&'a str, &'a str)> {
    if let Some(provider) = params.text("custom_llm_provider") {
        let rest = wire
            .strip_prefix(provider)
            .and_then(|rest| rest.strip_prefix('/'));
        return Some((provider, rest.unwrap_or(wire)));
    }
    if let Some((provider, model)) = wire.split_once('/')
        && !provider.is_empty()
    {
        return Some((provider, model));
    }
    let starts = |words: &[&str]| words.iter().any(|word| wire.starts_with(word));
    if starts(&["gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-"]) {
        return Some(("openai", wire));
    }
    starts(&["claude-"]).then_some(("anthropic", wire))
}

/// Until the answer begins, as text and in seconds.
pub(super) fn first_byte(number: &str) -> Option<(String, u64)> {
    let text = seconds(number)?;
    let whole = text.strip_suffix("ms").map(|_| 1);
    let whole = whole.or_else(|| text.strip_suffix('s')?.parse().ok())?;
    Some((text, whole))
}

fn or_shared(own: Network, shared: &Network) -> Network {
    Network {
        first_byte: own.first_byte.or_else(|| shared.first_byte.clone()),
        retries: own.retries.or(shared.retries),
        ..own
    }
}
