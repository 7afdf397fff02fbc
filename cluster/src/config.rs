//! What a member of a cluster is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one member.
#[derive(Clone)]
pub struct ClusterConfig {
    /// The cluster's name. Nodes of another name are strangers.
    pub name: String,
    /// This node's name, unique in the cluster.
    pub node_id: String,
    /// Empty if there is none.
    pub region: String,
    /// Empty if there is none.
    pub zone: String,
    /// The first seals, all open. Empty only if every address is a loopback one.
    pub secrets: Vec<Vec<u8>>,
    /// Where datagrams and exchanges come in.
    pub gossip_bind: SocketAddr,
    /// What others are told to reach that; must not be unspecified.
    pub gossip_advertise: SocketAddr,
    /// Where links come in.
    pub grpc_bind: SocketAddr,
    /// The port that others are told to dial, at the advertised address.
    pub grpc_port: u16,
    /// `host:port` of others; the node's own address among them is ignored.
    pub peers: Vec<String>,
    /// How long a silent member is only suspected. Default 10 s.
    pub suspicion: Duration,
    /// How many failed probes start a suspicion. Default 3.
    pub failure_threshold: u32,
    /// How long a dial may take. Default 10 s.
    pub dial_timeout: Duration,
    /// How long a change of a counter waits to be sent at most, near its limit. Default 100 ms.
    pub sync_interval: Duration,
    /// What a limit may give while members are missing.
    pub partition: Partition,
    /// When a missing member no longer takes its share with it. Default 10 min.
    pub forget_after: Duration,
    /// The operator's own certificates; `None`: those made of the secret.
    pub tls: Option<TlsFiles>,
    /// The newest protocol to speak, for the time of an upgrade. Default: the newest known.
    pub protocol_max: u8,
    /// Version of this build, to show.
    pub build: String,
    /// What leaders do.
    pub tasks: Vec<Task>,
    /// Ends the process, and tells why: a thread of the cluster is lost, without which the node must
    /// not go on as if it were a member. Called at most once by each thread.
    pub fatal: fn(&str),
}

/// What a limit may give while members are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partition {
    /// Each side its share of what was left: together no more than the limit.
    #[default]
    Share,
    /// Each side the whole limit.
    Available,
}

/// PEM files, read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Something that one node does for all, or for its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub name: String,
    pub every: Duration,
    pub scope: TaskScope,
    /// Whether running it twice does no harm: then it runs without the store, too.
    pub idempotent: bool,
}

/// For whom a task is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskScope {
    Cluster,
    /// Once in each region.
    Region,
}

// === impl ClusterConfig ===

/// Without the secrets.
impl std::fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterConfig")
            .field("name", &self.name)
            .field("node_id", &self.node_id)
            .field("region", &self.region)
            .field("zone", &self.zone)
            .field("gossip_bind", &self.gossip_bind)
            .field("gossip_advertise", &self.gossip_advertise)
            .field("grpc_bind", &self.grpc_bind)
            .field("grpc_port", &self.grpc_port)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
