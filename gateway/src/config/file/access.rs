//! `customers`, `teams`, `virtual_keys` and the limits on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Every, Moment, Money, NAME, PROVIDER_NAME, SHA256, SecretText};
use super::{everything, one, yes};

/// A customer: limits over all its teams and keys.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// Its name.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// Requests, tokens or concurrency over time.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// Money over time.
    #[serde(default)]
    pub budgets: Vec<Budget>,
}

/// A team: limits over all its keys.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// Its name.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// The customer it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// Requests, tokens or concurrency over time.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// Money over time.
    #[serde(default)]
    pub budgets: Vec<Budget>,
}

/// A credential of clients.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VirtualKey {
    /// Its name in logs, metrics and limits.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// The key itself: 16 or more printable characters. Either this or `sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SecretText>,
    /// SHA-256 of the key, hexadecimal. Either this or `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SHA256))]
    pub sha256: Option<String>,
    /// Former values that are still accepted for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retiring: Vec<Retiring>,
    /// The team it belongs to. Either this or `customer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The customer it belongs to. Either this or `team`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// Whether it is accepted.
    #[serde(default = "yes")]
    pub active: bool,
    /// When it begins to be accepted, RFC 3339; default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Moment>,
    /// From when it is no longer accepted, RFC 3339; default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// What it may use; absent or `[]` is nothing.
    #[serde(default)]
    pub providers: Vec<Grant>,
    /// Requests, tokens or concurrency over time.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// Money over time.
    #[serde(default)]
    pub budgets: Vec<Budget>,
}

/// A former value of a virtual key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retiring {
    /// SHA-256 of the former value, hexadecimal.
    #[schemars(regex(pattern = SHA256))]
    pub sha256: String,
    /// Until when it is accepted, RFC 3339.
    pub until: Moment,
}

/// Where a virtual key's secret comes from.
#[derive(Clone, Copy, Debug)]
pub enum KeyMaterial<'a> {
    /// Its value, or a reference to it.
    Value(&'a SecretText),
    /// Its SHA-256, hexadecimal.
    Sha256(&'a str),
}

impl VirtualKey {
    /// Value or hash; `None` when both or neither are given.
    pub fn material(&self) -> Option<KeyMaterial<'_>> {
        match (&self.value, &self.sha256) {
            (Some(value), None) => Some(KeyMaterial::Value(value)),
            (None, Some(hash)) => Some(KeyMaterial::Sha256(hash)),
            _ => None,
        }
    }
}

/// A provider that a virtual key may use.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The provider.
    #[schemars(regex(pattern = PROVIDER_NAME))]
    pub name: String,
    /// Its models by `name`; `["*"]` is all, `[]` none.
    #[serde(default = "everything")]
    pub models: Vec<String>,
    /// Its share of the requests for a model that several providers have.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
    /// Requests, tokens or concurrency of this key at this provider.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// Money of this key at this provider.
    #[serde(default)]
    pub budgets: Vec<Budget>,
}

/// How much may be asked for: exactly one of `requests`, `tokens`, `concurrent`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests per `every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_000_u64))]
    pub requests: Option<u64>,
    /// Tokens per `every`: input, cache writes and output; not cache reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_000_u64))]
    pub tokens: Option<u64>,
    /// Requests at the same time; without `every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_000_u64))]
    pub concurrent: Option<u64>,
    /// The length of time: a number with `s`, `m`, `h`, `d` or `w`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Every>,
    /// How time is divided; default: `sliding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// How exactly it holds while answers are under way.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// With `tokens` and `strict`: what happens to a request that may use more
    /// than is left; default: `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_tight: Option<OnTight>,
    /// Counts and shows what it would refuse, but refuses nothing.
    #[serde(default)]
    pub shadow: bool,
    /// Tells limits apart that are otherwise of the same kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME))]
    pub name: Option<String>,
}

/// How time is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Window {
    /// No interval of that length holds more than the limit.
    Sliding,
    /// Sliding, with the oldest part interpolated.
    Smooth,
    /// Aligned to the Unix epoch.
    Fixed,
}

/// How exactly a limit holds while answers are under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Enforcement {
    /// A request holds what it is predicted to use.
    #[default]
    Eventual,
    /// A request holds the most it can use; the limit is never passed.
    Strict,
}

/// What happens to a request that may use more than is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OnTight {
    /// It is refused.
    #[default]
    Refuse,
    /// Its longest answer is shortened to what is left.
    Clamp,
}

/// How much money may be spent.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// US dollars per `every`.
    pub limit_usd: Money,
    /// `1d`, `1w`, `1M`, `1Q`, `1Y` are calendar periods in UTC; a number with
    /// `s`, `m` or `h` is a length of time aligned to the Unix epoch.
    pub every: Every,
    /// With `1Q` and `1Y`: the month in which the year starts; default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 12))]
    pub fiscal_start: Option<u8>,
    /// How exactly it holds while answers are under way.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// With `strict`: what happens to a request that may use more
    /// than is left; default: `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_tight: Option<OnTight>,
    /// Counts and shows what it would refuse, but refuses nothing.
    #[serde(default)]
    pub shadow: bool,
    /// Tells budgets apart that are otherwise of the same kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME))]
    pub name: Option<String>,
}
