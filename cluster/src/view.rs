//! What a member sees of its cluster, as plain values for the admin API, metrics and readiness.
//!
//! Promise: a view is whole, of one moment, and bounded: at most [`VIEW_LIMITS`] limits and 512
//! members. Owner: the core makes it; readers hold it by `Arc`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use policy::{CounterId, Mode};

pub use crate::core::MemberState;
use crate::data_dir::NodeKey;
use crate::transport::keys::KeyId;

/// Most limits of a view: those nearest their end.
pub const VIEW_LIMITS: usize = 200;

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterView {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// By name, this node among them.
    pub members: Vec<MemberView>,
    /// Whether this node has merged what the others had, and may serve.
    pub caught_up: bool,
    /// What is wrong; empty if nothing is.
    pub degraded: Vec<DegradedReason>,
    /// Features that wait for members that lack them.
    pub waiting: Vec<WaitingFeature>,
    /// The protocol that all live members speak.
    pub protocol: u8,
    /// Among how many nodes strict limits are divided; `None`: it is not known what was used, so
    /// this node has no part of them.
    pub divided_among: Option<u64>,
    pub leaders: LeadersView,
    /// Terms that this node holds now.
    pub terms: Vec<TermView>,
    /// At most [`VIEW_LIMITS`], nearest their end first.
    pub limits: Vec<LimitView>,
    /// What is added to this node's wall clock, in milliseconds.
    pub clock_offset_ms: i64,
    /// On how many live members a revocation is in force, by hash; the newest 256.
    pub revocations: BTreeMap<String, AppliedOn>,
    pub figures: Figures,
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberView {
    /// Its name.
    pub node: String,
    pub key: NodeKey,
    pub boot: u64,
    pub state: MemberState,
    pub region: String,
    pub zone: String,
    /// Of its build; empty until a link was up.
    pub version: String,
    /// The newest protocol it speaks.
    pub protocol: u8,
    pub capabilities: u64,
    /// Where it gossips.
    pub address: SocketAddr,
    /// Whether it leads the cluster.
    pub leader: bool,
    /// Whether it leads its region.
    pub regional_leader: bool,
    pub is_self: bool,
    pub link_up: bool,
    /// Round trip over the link, best of the last 8.
    pub rtt: Option<Duration>,
    /// From sending cells to their acknowledgement, worst of the last seconds.
    pub lag: Option<Duration>,
    /// Versions of this node's cells that it has not acknowledged.
    pub unacked: u64,
    /// Its wall clock less this node's.
    pub clock_offset_ms: Option<i64>,
    pub configuration_hash: Option<[u8; 32]>,
    pub configuration_revision: Option<u64>,
    /// The revision of entities that it serves by.
    pub applied_revision: Option<u64>,
    /// Since something was last heard over the link; `None` without a link ever.
    pub silent_for: Option<Duration>,
}

/// One limit as the fleet holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitView {
    pub counter: CounterId,
    /// In the limit's unit, nano-dollars for money; so are the other amounts.
    pub limit: u64,
    /// Own and others', holds included.
    pub total: u64,
    /// This node's part.
    pub own: u64,
    pub mode: Mode,
    /// Per second, of all nodes.
    pub rate: f64,
    /// By how much the limit can be passed at most, from measured rates and delays.
    pub overshoot_bound: Option<u64>,
    /// By how much it was passed at most, as seen here.
    pub overshoot_observed: u64,
}

/// Why a cluster, or this node's place in it, is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DegradedReason {
    /// No other node is in reach, or nobody's state was merged, though others are expected.
    Peers,
    /// The store does not answer.
    Store,
    /// A member gossips, but no link to it can be made.
    StreamsBlocked { node: String },
    /// A live member has this node's name.
    NameTaken { by: NodeKey },
    /// A live process that came first has this node's key: its `data_dir` was copied.
    KeyTaken { at: SocketAddr },
    /// The same, of one that came later.
    KeyShared { at: SocketAddr },
    /// A member has another configuration; which parts, if known.
    ConfigurationMismatch { node: String, parts: Vec<String> },
    /// Nodes are missing that had not said that they go: limits are held as `Partition` says.
    Partition { missing: Vec<String> },
    /// Neither most of the others nor the store are in reach: others may have taken this node's part
    /// of limits, and it takes nothing more.
    Isolated,
    /// A clock is off by more than 100 ms.
    ClockSkew { node: String, ms: i64 },
    /// So many cells of others that new ones are refused.
    TooManyCells,
}

/// A feature that is off because a live member lacks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingFeature {
    pub feature: String,
    /// Names of the members.
    pub nodes: Vec<String>,
}

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadersView {
    pub cluster: Option<String>,
    /// By region.
    pub regions: BTreeMap<String, String>,
}

/// A term that this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermView {
    pub task: String,
    pub scope: String,
    pub term: u64,
}

/// On how many live members something is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedOn {
    pub on: usize,
    /// Live members, this node among them.
    pub of: usize,
}

/// Counts since the start, and gauges, for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub cells_sent: u64,
    pub cells_received: u64,
    /// Cells received that were known already.
    pub cells_stale: u64,
    /// Cells refused because there are too many.
    pub cells_refused: u64,
    /// Cells refused because their window begins more than a minute ahead: a clock is wrong.
    pub cells_ahead: u64,
    pub batches_sent: u64,
    pub batches_received: u64,
    /// Batches after a gap.
    pub gaps: u64,
    pub acks_received: u64,
    pub digests_sent: u64,
    pub entities_received: u64,
    /// Changes of entities too large for a link, each time one was to be sent.
    pub revisions_too_large: u64,
    pub revocations_received: u64,
    pub outcomes_received: u64,
    /// Outcomes of a term that had passed.
    pub outcomes_stale: u64,
    /// Outcomes that are not what their hash says, or of a term that was never given.
    pub outcomes_refused: u64,
    pub links_up: u64,
    pub links_down: u64,
    pub leader_changes: u64,
    /// Members that came up, that were found gone, and that said that they leave.
    pub members_up: u64,
    pub members_down: u64,
    pub members_left: u64,
    /// Cells of all origins kept now.
    pub cells: u64,
    pub origins: u64,
    /// Own cells that the store does not have yet.
    pub unflushed: u64,
    /// Age of the oldest of them.
    pub flush_lag: Duration,
    /// The worst measured time from an admission to its being seen everywhere.
    pub sync_lag: Duration,
    pub gossip_local_health: u32,
    /// Members that datagrams do not reach, so that TCP is used.
    pub peers_over_tcp: u64,
    /// Direct probes of gossip that were answered, and those that were lost.
    pub probes_answered: u64,
    pub probes_lost: u64,
    /// Exchanges of member lists that failed.
    pub exchanges_failed: u64,
    /// How often the others took this living process for dead.
    pub rejoins: u64,
    /// Filled by the driver: bytes and packets by way.
    pub gossip_bytes_sent: u64,
    pub gossip_bytes_received: u64,
    pub gossip_packets_sent: u64,
    pub gossip_packets_received: u64,
    pub gossip_packets_refused: u64,
    pub link_bytes_sent: u64,
    pub link_bytes_received: u64,
    pub link_frames_dropped: u64,
    /// The secret that this node seals with.
    pub secret: Option<KeyId>,
    /// How many others, of those heard within a minute, seal with each secret.
    pub secrets_in_use: Vec<(KeyId, usize)>,
}

// === impl DegradedReason ===

impl DegradedReason {
    /// Names of the members that it concerns; empty where it concerns this node or all.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        match self {
            Self::StreamsBlocked { node }
            | Self::ConfigurationMismatch { node, .. }
            | Self::ClockSkew { node, .. } => std::slice::from_ref(node),
            Self::Partition { missing } => missing,
            Self::Peers
            | Self::Store
            | Self::NameTaken { .. }
            | Self::KeyTaken { .. }
            | Self::KeyShared { .. }
            | Self::Isolated
            | Self::TooManyCells => &[],
        }
    }

    /// The word used in `degraded` and as a metric's label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Store => "store",
            Self::StreamsBlocked { .. } => "streams_blocked",
            Self::NameTaken { .. } => "name_taken",
            Self::KeyTaken { .. } => "key_taken",
            Self::KeyShared { .. } => "key_shared",
            Self::ConfigurationMismatch { .. } => "configuration_mismatch",
            Self::Partition { .. } => "partition",
            Self::Isolated => "isolated",
            Self::ClockSkew { .. } => "clock_skew",
            Self::TooManyCells => "too_many_cells",
        }
    }
}
