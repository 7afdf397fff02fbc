//! What only the admin API makes: amounts that replace those of limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Moment, Money};

/// An amount that replaces a limit's own for a while.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitOverride {
    /// The limit: `virtual_key/demo/requests/1m/sliding`, as limits are listed.
    pub limit: String,
    /// Requests or tokens. Either this or `limit_usd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_u64))]
    pub amount: Option<u64>,
    /// US dollars, for budgets. Either this or `amount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_usd: Option<Money>,
    /// Until when it holds, RFC 3339; default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Instead of `until`: for how many of the limit's periods, this one
    /// included; turned into `until` when it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub periods: Option<u32>,
}
