//! `providers` and `models`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::access::{Budget, RateLimit};
use super::text::{AddressText, Length, MODEL_NAME, Money, NAME, PROVIDER_NAME, SecretText};
use super::{everything, one};

/// An LLM vendor, or a server of one's own.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name in models, keys and metrics; without `/`.
    #[schemars(regex(pattern = PROVIDER_NAME))]
    pub name: String,
    /// The wire it speaks; any OpenAI-compatible server is `openai`.
    pub kind: Kind,
    /// Where it is, with the path all endpoints stand below:
    /// `https://api.openai.com/v1`, `https://api.anthropic.com`.
    pub base_url: AddressText,
    /// Whether it may be at a loopback or private address.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// Where it is: nodes of this region go there first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME))]
    pub region: Option<String>,
    /// Our credentials for it.
    #[schemars(length(min = 1))]
    pub keys: Vec<ProviderKey>,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Further attempts after a failure.
    #[serde(default)]
    pub retries: Retries,
    /// Whether usage is asked for in streams whose client did not ask.
    #[serde(default)]
    pub usage_in_stream: UsageInStream,
    /// Whether the client's own provider credential is passed on when the
    /// virtual key came in `x-tyr-key`.
    #[serde(default)]
    pub client_credential: ClientCredential,
    /// Trust beyond the public certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProviderTls>,
    /// Which HTTP to speak: `auto` is what TLS negotiates.
    #[serde(default)]
    pub http2: Http2,
    /// Requests, tokens or concurrency of all keys at it.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// Money of all keys at it.
    #[serde(default)]
    pub budgets: Vec<Budget>,
}

/// The wire a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Kind {
    /// OpenAI's, and every server compatible with it.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

/// One of our credentials for a provider.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderKey {
    /// Its name in logs and usage records.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// The credential itself.
    pub value: SecretText,
    /// Its share of the requests among the provider's keys.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
    /// The models it serves, by `name`.
    #[serde(default = "everything")]
    pub models: Vec<String>,
}

/// How long one attempt may take.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Name, TCP and TLS together.
    pub connect: Length,
    /// From sending the request to the head of the answer.
    pub first_byte: Length,
    /// Longest silence between two parts of an answer.
    pub idle: Length,
    /// The whole attempt.
    pub total: Length,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Length::seconds(2),
            first_byte: Length::seconds(60),
            idle: Length::seconds(60),
            total: Length::seconds(600),
        }
    }
}

/// Further attempts at one provider before the next choice.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Attempts after the first.
    #[schemars(range(min = 0, max = 10))]
    pub max: u32,
    /// First pause.
    pub backoff_min: Length,
    /// Longest pause.
    pub backoff_max: Length,
}

impl Default for Retries {
    fn default() -> Self {
        Retries {
            max: 2,
            backoff_min: Length::millis(100),
            backoff_max: Length::seconds(2),
        }
    }
}

/// Whether usage is asked for in streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum UsageInStream {
    /// `stream_options.include_usage` is set to true.
    #[default]
    Always,
    /// The body stays as it is; usage is estimated when the stream has none.
    Never,
}

/// What happens to a client's own provider credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ClientCredential {
    /// It stays here.
    #[default]
    Drop,
    /// It is sent instead of ours.
    Pass,
}

/// Trust beyond the public certificate authorities.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderTls {
    /// Certificates in PEM: `file.PATH`, `env.NAME` or the text itself.
    pub ca: AddressText,
}

/// Which HTTP to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Http2 {
    /// What TLS negotiates; HTTP/1.1 without TLS.
    #[default]
    Auto,
    /// HTTP/2 without asking.
    PriorKnowledge,
    /// HTTP/1.1 only.
    Never,
}

/// A model (with `provider`) or an alias (with `choices`).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// What clients ask for.
    #[schemars(regex(pattern = MODEL_NAME))]
    pub name: String,
    /// Model: the provider that serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Model: the name sent to the provider; default: `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = MODEL_NAME))]
    pub upstream_name: Option<String>,
    /// Model: its name in the list of `catalogue`; default: found by provider
    /// and `upstream_name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = MODEL_NAME))]
    pub catalogue_name: Option<String>,
    /// Model: `free`, `catalogue` (what the list of `catalogue` says), or US
    /// dollars per million tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Model: most tokens of one answer; default: what the list says, with
    /// `price: catalogue`. Holds of strict limits use it, or 131072 when it is
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_output_tokens: Option<u64>,
    /// Alias: `provider/model` names, tried in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub choices: Option<Vec<String>>,
    /// Model: requests, tokens or concurrency of all keys, at this provider.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// Model: money of all keys, at this provider.
    #[serde(default)]
    pub budgets: Vec<Budget>,
}

impl ModelEntry {
    /// `provider/name`, or an alias's name.
    pub fn full_name(&self) -> String {
        match &self.provider {
            Some(provider) => format!("{provider}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// What a model costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Price {
    /// Nothing, said so on purpose.
    Free,
    /// What the list of `catalogue` says; not served until it says it.
    Catalogue,
    /// US dollars per million tokens.
    PerMillion(PriceTable),
}

/// US dollars per million tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// Input that is not in a cache.
    pub input: Money,
    /// Input read from the provider's cache; default: `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<Money>,
    /// The same as `cache_read`, by OpenAI's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<Money>,
    /// Input written to the cache; default: `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<Money>,
    /// Input written to the cache for an hour; default: `cache_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<Money>,
    /// Output; 0 for embeddings.
    pub output: Money,
    /// Output that is reasoning; default: `output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Money>,
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FreeOrTable;

        impl<'de> Visitor<'de> for FreeOrTable {
            type Value = Price;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`free`, `catalogue` or a table of prices")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Price, E> {
                match text {
                    "free" => Ok(Price::Free),
                    "catalogue" => Ok(Price::Catalogue),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Price, A::Error> {
                PriceTable::deserialize(MapAccessDeserializer::new(map)).map(Price::PerMillion)
            }
        }

        deserializer.deserialize_any(FreeOrTable)
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Price::Free => serializer.serialize_str("free"),
            Price::Catalogue => serializer.serialize_str("catalogue"),
            Price::PerMillion(table) => table.serialize(serializer),
        }
    }
}

impl JsonSchema for Price {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Price".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<PriceTable>();
        let word = |word: &str| json_schema!({"type": "string", "const": word});
        json_schema!({"anyOf": [word("free"), word("catalogue"), table]})
    }
}
