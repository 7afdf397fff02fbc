//! `cluster`: several nodes as one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{AddressText, Length, NAME, SecretText};

/// Several nodes sharing their limits.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Whether this node looks for others. Needs `store.type: postgres`.
    pub enabled: bool,
    /// How nodes reach each other; only `mesh` is supported.
    #[serde(rename = "type")]
    pub kind: ClusterType,
    /// The cluster's name; nodes of another name never join.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// This node's name, unique in the cluster; default: the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME))]
    pub node_id: Option<String>,
    /// Where this node is.
    #[schemars(regex(pattern = NAME))]
    pub region: String,
    /// The part of the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME))]
    pub zone: Option<String>,
    /// Shared by all nodes: 32 or more characters. Seals gossip and stands
    /// behind the certificates; may be left out while every address is loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretText>,
    /// Also accepted, never used to seal: the next secret, then the last one,
    /// while a new one is brought to all nodes.
    #[schemars(length(max = 3))]
    pub additional_secrets: Vec<SecretText>,
    /// Nodes to join by: `host:port` of their gossip. One's own is left out.
    pub peers: Vec<AddressText>,
    /// Who is there.
    pub gossip: Gossip,
    /// What they tell each other.
    pub grpc: Grpc,
    /// How often counters are exchanged.
    pub sync_interval: Length,
    /// What a part of a split cluster may spend.
    pub partition: Partition,
    /// After this time without a sign a node's share is given to the others,
    /// at once if the store knows that it has gone.
    pub forget_after: Length,
    /// The newest protocol to speak with other nodes; default: the newest known.
    /// Pins the old one while nodes are upgraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub protocol_max: Option<u8>,
    /// Certificates between nodes; default: made from the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClusterTls>,
    /// Finding nodes by a service; only `enabled: false` is supported.
    pub discovery: Discovery,
    /// The relay of broker mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<Broker>,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            enabled: false,
            kind: ClusterType::Mesh,
            name: "tyr".to_owned(),
            node_id: None,
            region: "unknown".to_owned(),
            zone: None,
            secret: None,
            additional_secrets: Vec::new(),
            peers: Vec::new(),
            gossip: Gossip::default(),
            grpc: Grpc::default(),
            sync_interval: Length::millis(100),
            partition: Partition::Share,
            forget_after: Length::seconds(600),
            protocol_max: None,
            tls: None,
            discovery: Discovery::default(),
            broker: None,
        }
    }
}

/// How nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ClusterType {
    /// Each with each.
    Mesh,
}

/// What a part of a split cluster may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Partition {
    /// Its share of each limit.
    Share,
    /// Each limit as if it were alone.
    Available,
}

/// Who is there.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gossip {
    /// The address to listen on.
    pub bind: AddressText,
    /// The IP address others use; default: `bind`, or that of the default route
    /// where `bind` is unspecified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<AddressText>,
    /// UDP and TCP port.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// Times and thresholds.
    pub config: GossipTiming,
}

impl Default for Gossip {
    fn default() -> Self {
        Gossip {
            bind: AddressText("127.0.0.1".to_owned()),
            advertise: None,
            port: 10_101,
            config: GossipTiming::default(),
        }
    }
}

/// Times and thresholds of gossip.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GossipTiming {
    /// How long a suspicion lasts, in seconds.
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: u32,
    /// Does nothing; accepted because files of others have it.
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u32,
    /// Failed probes that start a suspicion.
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
}

impl Default for GossipTiming {
    fn default() -> Self {
        GossipTiming {
            timeout_seconds: 10,
            success_threshold: 3,
            failure_threshold: 3,
        }
    }
}

/// What nodes tell each other.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grpc {
    /// The address to listen on; default: `gossip.bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<AddressText>,
    /// TCP port.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// How long connecting may take, in seconds.
    #[schemars(range(min = 1, max = 3_600))]
    pub dial_timeout_seconds: u32,
}

impl Default for Grpc {
    fn default() -> Self {
        Grpc {
            bind: None,
            port: 10_102,
            dial_timeout_seconds: 5,
        }
    }
}

/// Certificates between nodes, PEM.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterTls {
    /// Who signs nodes: `file.PATH` or a path.
    pub ca: AddressText,
    /// This node's certificate: `file.PATH` or a path.
    pub cert: AddressText,
    /// Its private key: `file.PATH` or a path.
    pub key: AddressText,
}

/// Finding nodes by a service.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// Whether it runs; only `false` is supported by this version.
    pub enabled: bool,
    /// By what.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<DiscoveryType>,
    /// The service's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// The gossip port of the nodes found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub bind_port: Option<u16>,
    /// How long a question may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial_timeout: Option<Length>,
    /// Networks that nodes may be in, in CIDR form.
    pub allowed_address_space: Vec<String>,
    /// Kubernetes: the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
    /// Kubernetes: the label selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_label_selector: Option<String>,
    /// DNS: the names.
    pub dns_names: Vec<String>,
    /// Consul: its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consul_address: Option<AddressText>,
    /// etcd: its addresses.
    pub etcd_endpoints: Vec<AddressText>,
    /// UDP: the broadcast port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub udp_broadcast_port: Option<u16>,
    /// mDNS: the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mdns_service: Option<String>,
}

/// By what nodes are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DiscoveryType {
    /// Pods of a label.
    Kubernetes,
    /// A and AAAA records.
    Dns,
    /// Services of a Consul.
    Consul,
    /// Keys of an etcd.
    Etcd,
    /// Broadcast on the local network.
    Udp,
    /// Multicast DNS.
    Mdns,
}

/// The relay of broker mode.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// `host:port`.
    pub address: AddressText,
    /// Whether it is reached by TLS.
    #[serde(default = "super::yes")]
    pub tls: bool,
    /// What it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<SecretText>,
    /// The port the relay itself listens on.
    #[serde(default = "broker_port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub listen_port: u16,
}

fn broker_port() -> u16 {
    50_051
}
