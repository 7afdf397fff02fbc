//! The configuration as operators write it.
//!
//! Promise: these types are the only list of fields and defaults; the JSON
//! Schema, the checks and what `GET /api/config` shows all come from them.
//! Unknown fields are errors. Nothing here judges meaning; that is `resolve`.

mod access;
mod adjustment;
mod admin;
mod catalogue;
mod cluster;
mod governance;
mod moment;
mod provider;
mod rule;
mod server;
mod store;
pub(crate) mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{
    Budget, Customer, Enforcement, Grant, KeyMaterial, OnTight, RateLimit, Retiring, Team,
    VirtualKey, Window,
};
pub use adjustment::LimitOverride;
pub use admin::{Admin, AdminTokenEntry, Operation, Permission, Resource, RoleEntry};
pub use catalogue::PriceCatalogue;
pub use cluster::{
    Broker, Cluster, ClusterTls, ClusterType, Discovery, DiscoveryType, Gossip, GossipTiming, Grpc,
    Partition,
};
pub use governance::{Governance, Jwt, Limits, ModelLimits, Users};
pub use provider::{
    ClientCredential, Http2, Kind, ModelEntry, Price, PriceTable, Provider, ProviderKey,
    ProviderTls, Retries, Timeouts, UsageInStream,
};
pub use rule::{RoutingRule, RuleScope, RuleTarget};
pub use server::{Listen, Server, ServerTls};
pub use store::{Encryption, EncryptionKey, Store, StoreTls, StoreTlsMode, StoreType};
pub use text::{
    AddressText, Every, EveryUnit, Length, Moment, Money, RevisionLabel, SecretText, Size,
};

/// The configuration of a Tyr node. Durations: `250ms`, `30s`, `5m`, `1h`.
/// Sizes: `32MiB`. Money: US dollars, exact to the nano-dollar. Lists: `[]`
/// allows nothing, `["*"]` everything. `env.NAME` and `file.PATH` stand for a
/// value of the environment or of a file, where a secret or an address stands.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tyr configuration")]
pub struct File {
    /// The version of this format: 1.
    #[schemars(extend("const" = 1))]
    pub version: u32,
    /// Your own label of this revision of the file, shown by `GET /api/config`.
    /// Where nodes of a cluster have different files, the larger number is the
    /// newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionLabel>,
    /// Addresses and the bounds on connections and requests.
    #[serde(default)]
    pub server: Server,
    /// Who may use the admin API.
    #[serde(default)]
    pub admin: Admin,
    /// Where usage, and what is made by the admin API, is kept.
    #[serde(default)]
    pub store: Store,
    /// Keys for secrets at rest.
    #[serde(default)]
    pub encryption: Encryption,
    /// The LLM providers that requests go to.
    #[serde(default)]
    pub providers: Vec<Provider>,
    /// The models clients may ask for, and aliases of them.
    #[serde(default)]
    pub models: Vec<ModelEntry>,
    /// Where models with `price: catalogue` have their price from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<PriceCatalogue>,
    /// Customers: limits over teams and keys that belong to them.
    #[serde(default)]
    pub customers: Vec<Customer>,
    /// Teams: limits over the keys that belong to them.
    #[serde(default)]
    pub teams: Vec<Team>,
    /// The credentials of clients.
    #[serde(default)]
    pub virtual_keys: Vec<VirtualKey>,
    /// Rules that choose where a request goes.
    #[serde(default)]
    pub routing_rules: Vec<RoutingRule>,
    /// How limits answer, and limits over everything, over models and users.
    #[serde(default)]
    pub governance: Governance,
    /// Several nodes sharing their limits.
    #[serde(default)]
    pub cluster: Cluster,
}

pub(crate) fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}

pub(crate) fn one() -> u32 {
    1
}

pub(crate) fn yes() -> bool {
    true
}
