//! `governance`: how limits answer, and limits that belong to no entity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{Budget, RateLimit};
use super::text::{AddressText, HEADER, MODEL_NAME};

/// How limits answer, and limits over everything, over models and over users.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Governance {
    /// HTTP status of a refusal for a spent budget; default: 429 on OpenAI's
    /// wire, 402 on Anthropic's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 499))]
    pub budget_status: Option<u16>,
    /// Limits over all requests.
    pub global: Limits,
    /// Limits over a model at all its providers.
    pub models: Vec<ModelLimits>,
    /// Limits of each end user, and who that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<Users>,
}

/// Limits over all requests.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests, tokens or concurrency over time.
    pub rate_limits: Vec<RateLimit>,
    /// Money over time.
    pub budgets: Vec<Budget>,
}

/// Limits over a model at all its providers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelLimits {
    /// The model's name, without provider.
    #[schemars(regex(pattern = MODEL_NAME))]
    pub name: String,
    /// Requests, tokens or concurrency over time.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// Money over time.
    #[serde(default)]
    pub budgets: Vec<Budget>,
}

/// Who the end user of a request is, and the limits of each.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Users {
    /// The header that names the user.
    #[schemars(regex(pattern = HEADER))]
    pub header: String,
    /// Networks whose clients may name the user by `header`, in CIDR form;
    /// `[]` is nobody, `["*"]` everybody.
    pub trusted_from: Vec<String>,
    /// Whether a request without a user is refused.
    pub required: bool,
    /// Most users that are counted one by one; further ones share one count.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_tracked: u32,
    /// Signed tokens that name the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Requests, tokens or concurrency of each user.
    pub rate_limits: Vec<RateLimit>,
    /// Money of each user.
    pub budgets: Vec<Budget>,
}

impl Default for Users {
    fn default() -> Self {
        Users {
            header: "x-tyr-user".to_owned(),
            trusted_from: Vec::new(),
            required: false,
            max_tracked: 100_000,
            jwt: None,
            rate_limits: Vec::new(),
            budgets: Vec::new(),
        }
    }
}

/// Signed tokens that name the user.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The keys that sign: the URL of a JWKS, or `file.PATH` of one.
    pub jwks: AddressText,
    /// Whether the URL may be at a loopback or private address.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// What `iss` has to be.
    pub issuer: String,
    /// What `aud` has to hold.
    pub audience: String,
    /// The claim that names the user.
    #[serde(default = "subject")]
    pub claim: String,
    /// The header that carries the token.
    #[serde(default = "user_token")]
    #[schemars(regex(pattern = HEADER))]
    pub header: String,
}

fn subject() -> String {
    "sub".to_owned()
}

fn user_token() -> String {
    "x-tyr-user-token".to_owned()
}
