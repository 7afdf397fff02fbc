//! What an explanation says.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::standing::{Amount, LimitStanding};

/// The whole decision about one request.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// `admit` or `refuse`.
    pub verdict: String,
    /// The key that it would come with.
    pub key: KeyShown,
    /// The end user, if one is named.
    pub user: Option<String>,
    /// The endpoint's name.
    pub endpoint: String,
    /// The model as it was asked for.
    pub model: String,
    /// The routing rules that were looked at, in order.
    pub rules: Vec<RuleShown>,
    /// The rule that decided where it goes; null: none did.
    pub decided_by: Option<String>,
    /// The region of this node, if it knows it and providers say theirs:
    /// choices there come first.
    #[serde(default)]
    pub region: Option<String>,
    /// Where it could go, in order.
    pub choices: Vec<ChoiceShown>,
    /// Where it could not go, and why.
    pub skipped: Vec<SkippedShown>,
    /// Where it would go first, as `provider/model`.
    pub chosen: Option<String>,
    /// The limits that hold wherever it goes.
    pub limits: Vec<JudgedLimit>,
    /// The bound that limits would set on its answer, in tokens.
    pub clamped_to: Option<u64>,
    /// What the caller would be told instead of an answer.
    pub refusal: Option<RefusalShown>,
}

/// A virtual key at this moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct KeyShown {
    /// Its name.
    pub name: String,
    /// `active`, `unknown`, `revoked`, `inactive`, `not_yet_valid`, `expired`
    /// or `unresolved`.
    pub state: String,
    /// Since or until when, or why.
    pub says: Option<String>,
    /// The team that it belongs to.
    pub team: Option<String>,
    /// The customer that it or its team belongs to.
    pub customer: Option<String>,
}

/// A routing rule that was looked at.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RuleShown {
    /// Its name.
    pub rule: String,
    /// `matched`, `shadowed`, `not_matched`, `failed` or `depth_exceeded`.
    pub outcome: String,
    /// Why it failed.
    pub says: Option<String>,
}

/// A place where the request could go.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChoiceShown {
    /// `provider/model`.
    pub model: String,
    /// The provider's credential that a rule names; null: any.
    pub credential: Option<String>,
    /// The region of its provider; null: none.
    #[serde(default)]
    pub region: Option<String>,
    /// How near that is: `here`, `anywhere` (it has no region, or this node
    /// knows none) or `elsewhere`.
    #[serde(default)]
    pub nearness: String,
    /// What it would need there.
    pub demand: DemandShown,
    /// The limits that hold for this choice alone.
    pub limits: Vec<JudgedLimit>,
    /// Whether each of them has room.
    pub fits: bool,
}

/// What is held for a request before its real usage is known.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DemandShown {
    /// Likely tokens: what eventual limits hold.
    pub tokens: u64,
    /// Likely cost in US dollars.
    pub cost_usd: String,
    /// The most tokens that it can use: what strict limits hold.
    pub strict_tokens: u64,
    /// The most that it can cost in US dollars.
    pub strict_cost_usd: String,
}

/// A limit, and what the request asks of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct JudgedLimit {
    /// How full it is.
    pub standing: LimitStanding,
    /// What the request asks of it, in its unit.
    pub asked: Amount,
    /// Whether that would be admitted.
    pub fits: bool,
}

/// A place where the request could not go.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SkippedShown {
    /// `provider/model`, or the name that a rule has.
    pub model: String,
    /// Why not.
    pub why: String,
}

/// The answer that a caller would get from Tyr itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RefusalShown {
    /// The HTTP status.
    pub status: u16,
    /// The headers that tell how to go on.
    pub headers: BTreeMap<String, String>,
    /// The body in the shape of the endpoint.
    pub body: serde_json::Value,
}
