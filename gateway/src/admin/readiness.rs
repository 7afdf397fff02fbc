//! Whether the node wants traffic, and what it does without.
//!
//! Atomics only: written by start-up, drain and whoever watches a part; read
//! by `/readyz`. A lost part degrades the node, it does not unready it, but for a
//! name or a key that another node has, and for a cluster's thread that hangs.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// A part that the node can serve without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degraded {
    /// The store does not take writes; records wait in `data_dir`.
    Store,
    /// The disk does not take usage records; they go to the store or wait.
    UsageFile,
    /// The last edit of the configuration was refused; the old one is in use.
    Configuration,
    /// Something that another process wrote does not fit this node's file and
    /// does not run here.
    Entities,
    /// No other node of the cluster is in reach.
    Peers,
    /// Another node is there, but its gRPC port cannot be reached.
    StreamsBlocked,
    /// Another live node has this node's name.
    NameTaken,
    /// Another live process came first and has this node's key: the
    /// `data_dir` was copied.
    KeyTaken,
    /// The same, but this process came first.
    KeyShared,
    /// Another node has another file.
    ConfigurationMismatch,
    /// Nodes are missing: limits are held as `cluster.partition` says.
    Partition,
    /// Most of the others and the store are out of reach: the node takes nothing
    /// more of limits.
    Isolated,
    /// A node's clock is off.
    ClockSkew,
    /// The others count more than this node can keep.
    TooManyCells,
    /// The thread that talks to the other nodes hangs.
    ClusterStalled,
}

impl Degraded {
    /// All parts, in the order in which they are listed.
    pub const ALL: [Degraded; 15] = [
        Degraded::Store,
        Degraded::UsageFile,
        Degraded::Configuration,
        Degraded::Entities,
        Degraded::Peers,
        Degraded::StreamsBlocked,
        Degraded::NameTaken,
        Degraded::KeyTaken,
        Degraded::KeyShared,
        Degraded::ConfigurationMismatch,
        Degraded::Partition,
        Degraded::Isolated,
        Degraded::ClockSkew,
        Degraded::TooManyCells,
        Degraded::ClusterStalled,
    ];

    /// Those that the view of a cluster tells of.
    pub const OF_CLUSTER: [Degraded; 10] = [
        Degraded::Peers,
        Degraded::StreamsBlocked,
        Degraded::NameTaken,
        Degraded::KeyTaken,
        Degraded::KeyShared,
        Degraded::ConfigurationMismatch,
        Degraded::Partition,
        Degraded::Isolated,
        Degraded::ClockSkew,
        Degraded::TooManyCells,
    ];

    /// The name in `/readyz` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Degraded::Store => "store",
            Degraded::UsageFile => "usage_file",
            Degraded::Configuration => "configuration",
            Degraded::Entities => "entities",
            Degraded::Peers => "peers",
            Degraded::StreamsBlocked => "streams_blocked",
            Degraded::NameTaken => "name_taken",
            Degraded::KeyTaken => "key_taken",
            Degraded::KeyShared => "key_shared",
            Degraded::ConfigurationMismatch => "configuration_mismatch",
            Degraded::Partition => "partition",
            Degraded::Isolated => "isolated",
            Degraded::ClockSkew => "clock_skew",
            Degraded::TooManyCells => "too_many_cells",
            Degraded::ClusterStalled => "cluster_stalled",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// Starts as not ready, not draining and whole.
#[derive(Debug, Default)]
pub struct Readiness {
    ready: AtomicBool,
    draining: AtomicBool,
    /// Whether it is not known yet what the other nodes have.
    catching_up: AtomicBool,
    degraded: AtomicU16,
}

impl Readiness {
    /// Says that the configuration is loaded and the listeners are up, or not.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Says that it is not known yet what the other nodes have counted, or that
    /// it is. Until then the data port serves no call.
    pub fn set_catching_up(&self, catching_up: bool) {
        self.catching_up.store(catching_up, Ordering::Release);
    }

    /// Whether it is not known yet what the other nodes have counted. Asked by
    /// each request; what it then reads is in atomics of its own.
    pub fn is_catching_up(&self) -> bool {
        self.catching_up.load(Ordering::Relaxed)
    }

    /// Says that the node is about to go and wants no new traffic. For good.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the node is about to go.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the node wants traffic.
    pub fn wants_traffic(&self) -> bool {
        self.reasons().is_empty()
    }

    /// Says whether the node is without `part` now.
    pub fn set_degraded(&self, part: Degraded, without: bool) {
        if without {
            self.degraded.fetch_or(part.bit(), Ordering::AcqRel);
        } else {
            self.degraded.fetch_and(!part.bit(), Ordering::AcqRel);
        }
    }

    /// Whether the node is without `part` now.
    pub fn is_degraded(&self, part: Degraded) -> bool {
        self.degraded.load(Ordering::Acquire) & part.bit() != 0
    }

    /// Why the node wants no traffic; empty when it does.
    pub(super) fn reasons(&self) -> Vec<&'static str> {
        let starting = !self.ready.load(Ordering::Acquire);
        let reasons = [
            (starting, "starting"),
            (self.is_catching_up(), "catching_up"),
            // Two nodes of one name cannot be told apart; the later one waits.
            (self.is_degraded(Degraded::NameTaken), "name_taken"),
            (self.is_degraded(Degraded::KeyTaken), "key_taken"),
            // What it admits reaches nobody, and what it knows is old.
            (
                self.is_degraded(Degraded::ClusterStalled),
                Degraded::ClusterStalled.as_str(),
            ),
            (self.is_draining(), "draining"),
        ];
        reasons
            .into_iter()
            .filter_map(|(holds, reason)| holds.then_some(reason))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_node_from_traffic() {
        let readiness = Readiness::default();
        assert_eq!(readiness.reasons(), ["starting"]);
        readiness.set_ready(true);
        assert!(readiness.wants_traffic());
        for part in Degraded::ALL {
            readiness.set_degraded(part, true);
            let keeps = [
                Degraded::NameTaken,
                Degraded::KeyTaken,
                Degraded::ClusterStalled,
            ];
            let keeps = keeps.contains(&part);
            assert_eq!(readiness.wants_traffic(), !keeps, "{}", part.as_str());
            readiness.set_degraded(part, false);
        }
        readiness.set_catching_up(true);
        readiness.start_draining();
        assert_eq!(readiness.reasons(), ["catching_up", "draining"]);
    }
}
