//! What membership wants done, is told at its start, and can show.

use std::net::SocketAddr;
use std::time::Duration;

use crate::data_dir::NodeKey;
use crate::origin::Origin;

/// What membership is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct MembershipConfig {
    /// How long a silent member is only suspected. 10 s.
    pub(crate) suspicion: Duration,
    /// By how many others a member is probed before it is suspected. 3.
    pub(crate) failure_threshold: u32,
    /// Addresses to join by.
    pub(crate) seeds: Vec<SocketAddr>,
    /// The cluster's name. Nodes of another name are strangers.
    pub(crate) cluster: String,
}

/// One thing to do, or to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MembershipEffect {
    /// Send this by UDP. At most [`super::DATAGRAM_BYTES`].
    Datagram { to: SocketAddr, bytes: Vec<u8> },
    /// Ask this over TCP; answered by `exchange_answered`. Member lists, or datagrams that UDP does
    /// not carry to this peer.
    Exchange { to: SocketAddr, bytes: Vec<u8> },
    /// Find out whether this port can be connected to; answered by `link_probed`.
    ProbeLink { node: NodeKey, addr: SocketAddr },
    /// Ask all live peers over their links what they see of it; answered by `confirmed`.
    AskOthers { about: Origin },
    /// It is a live member now, with or without a link.
    Up(Origin),
    /// It is no live member any more: down, replaced by a larger boot of its node, or `left`.
    Down { origin: Origin, left: bool },
    /// Something else about it changed: its state among the live ones, its link, what it announced.
    Changed(Origin),
    /// Another live node bears this node's name, and this node came later.
    NameTaken { by: Origin, name: String },
    /// It answered a ping of `Membership::ping`.
    Answered(Ping),
    /// Another live process has this node's key, or none has any more.
    KeyTaken(Option<super::Twin>),
}

/// A ping beside those of gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ping {
    pub(crate) to: NodeKey,
    pub(crate) by_tcp: bool,
    /// As `Membership::ping_numbers` gave it.
    pub(crate) number: u8,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GossipStats {
    pub(crate) datagrams_sent: u64,
    pub(crate) datagrams_received: u64,
    /// Without seals and headers.
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// Datagrams and exchanges that could not be understood.
    pub(crate) malformed: u64,
    pub(crate) exchanges_asked: u64,
    pub(crate) exchanges_answered: u64,
    pub(crate) exchanges_failed: u64,
    /// Datagrams that went over TCP instead.
    pub(crate) wrapped: u64,
    /// Direct probes that were answered.
    pub(crate) probes_answered: u64,
    /// Direct probes of members that answered later ones.
    pub(crate) probes_lost: u64,
    /// How often the others took this living process for dead.
    pub(crate) rejoins: u64,
    /// Down members that were forgotten because there were too many.
    pub(crate) forgotten: u64,
}

/// An exchange was not accepted. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MembershipError {
    /// It is not what nodes of this cluster send, or too much of it. Dropped and counted.
    #[error("the exchange cannot be understood")]
    Malformed,
    /// The sender belongs to a cluster of another name. Its operator has a wrong address.
    #[error("the sender belongs to another cluster")]
    OtherCluster,
    /// The sender is this process, by another address of its own.
    #[error("the sender is this node itself")]
    Ourselves,
    /// This node has left.
    #[error("this node has left the cluster")]
    Left,
}
