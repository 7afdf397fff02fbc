//! `admin`: tokens, roles and what they allow.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{NAME, SHA256, SecretText};

/// Who may use the admin API.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Bearer tokens; without any, only health and metrics are served.
    pub tokens: Vec<AdminTokenEntry>,
    /// Roles beside the built-in `admin` (everything), `operator` (everything
    /// but tokens, roles and providers, which it reads) and `viewer` (reads).
    pub roles: Vec<RoleEntry>,
}

/// One bearer token of the admin API.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTokenEntry {
    /// The name in logs and in the audit trail.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// What the bearer may do: `admin`, `operator`, `viewer` or a role of `roles`.
    #[schemars(regex(pattern = NAME))]
    pub role: String,
    /// The token: 16 or more printable characters. Either this or `sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SecretText>,
    /// SHA-256 of the token, hexadecimal. Either this or `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SHA256))]
    pub sha256: Option<String>,
    /// The most it may do, whatever its role says later: rights such as
    /// `virtual-keys:read`; default: what its role says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Vec<String>>,
}

/// A role: what its bearers may do.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleEntry {
    /// Its name; not one of the built-in ones.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// What it allows; absent or `[]` is nothing.
    #[serde(default)]
    pub permissions: Vec<Permission>,
}

/// Operations on one kind of thing.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// On what: the word in the path after `/api/`, or `*` for all.
    pub resource: Resource,
    /// What may be done; `[]` is nothing, `["*"]` everything.
    pub operations: Vec<Operation>,
}

/// What a call of the admin API is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Resource {
    /// All of them.
    #[serde(rename = "*")]
    All,
    /// Customers.
    Customers,
    /// Teams.
    Teams,
    /// Providers.
    Providers,
    /// Models and aliases.
    Models,
    /// Virtual keys.
    VirtualKeys,
    /// Routing rules.
    RoutingRules,
    /// Tokens of the admin API.
    AdminTokens,
    /// Roles of the admin API.
    Roles,
    /// Amounts that replace those of limits.
    LimitOverrides,
    /// The configuration in use.
    Config,
    /// Usage records.
    Usage,
    /// Where limits stand, and their reset.
    Limits,
    /// Who changed what.
    Audit,
    /// Taking the node out of service.
    Drain,
    /// Reading the configuration again.
    Reload,
    /// What would happen to a request.
    Explain,
    /// The nodes of a cluster.
    Cluster,
}

impl Resource {
    /// The word in paths and in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Resource::All => "*",
            Resource::Customers => "customers",
            Resource::Teams => "teams",
            Resource::Providers => "providers",
            Resource::Models => "models",
            Resource::VirtualKeys => "virtual-keys",
            Resource::RoutingRules => "routing-rules",
            Resource::AdminTokens => "admin-tokens",
            Resource::Roles => "roles",
            Resource::LimitOverrides => "limit-overrides",
            Resource::Config => "config",
            Resource::Usage => "usage",
            Resource::Limits => "limits",
            Resource::Audit => "audit",
            Resource::Drain => "drain",
            Resource::Reload => "reload",
            Resource::Explain => "explain",
            Resource::Cluster => "cluster",
        }
    }
}

/// What a call of the admin API does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Operation {
    /// All of them.
    #[serde(rename = "*")]
    All,
    /// Looking.
    Read,
    /// Making a new one.
    Create,
    /// Changing one.
    Update,
    /// Removing one.
    Delete,
    /// Starting what the resource does.
    Run,
}

impl Operation {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::All => "*",
            Operation::Read => "read",
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Run => "run",
        }
    }
}
