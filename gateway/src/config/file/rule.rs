//! `routing_rules`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{MODEL_NAME, NAME, PROVIDER_NAME};
use super::{one, yes};

/// A rule that chooses where requests go.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoutingRule {
    /// Its name in explanations, metrics and usage records.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// Whose requests it looks at. Rules of a virtual key come first, then
    /// those of the user, the team, the customer, and of all.
    #[serde(default)]
    pub scope: RuleScope,
    /// The virtual key, user, team or customer; not with `global`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME))]
    pub subject: Option<String>,
    /// Order within a scope: lower ones first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub priority: u32,
    /// The condition, a CEL expression; default: always.
    #[serde(default = "always")]
    pub when: String,
    /// Where the request goes: one of them, by weight.
    #[schemars(length(min = 1))]
    pub targets: Vec<RuleTarget>,
    /// `provider/model` names to try after that, in order.
    #[serde(default)]
    pub fallbacks: Vec<String>,
    /// Whether rules are looked at again with the new provider and model.
    #[serde(default)]
    pub chain: bool,
    /// Whether it is looked at.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Says what it would choose, but chooses nothing.
    #[serde(default)]
    pub shadow: bool,
}

/// Whose requests a rule looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RuleScope {
    /// Everybody's.
    #[default]
    Global,
    /// One customer's.
    Customer,
    /// One team's.
    Team,
    /// One virtual key's.
    VirtualKey,
    /// One end user's.
    User,
}

/// Where a rule sends a request.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleTarget {
    /// The provider; default: any that has the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PROVIDER_NAME))]
    pub provider: Option<String>,
    /// The model; default: the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = MODEL_NAME))]
    pub model: Option<String>,
    /// The name of one of the provider's keys; default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME))]
    pub key: Option<String>,
    /// Its share of the requests among the targets.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

fn always() -> String {
    "true".to_owned()
}
