//! Whether the node wants traffic, and what it does without.
//!
//! Atomics only: written by start-up, drain and whoever watches a part; read
//! by `/readyz`. A lost part degrades the node, it does not unready it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

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
}

impl Degraded {
    /// All parts, in the order in which they are listed.
    pub const ALL: [Degraded; 5] = [
        Degraded::Store,
        Degraded::UsageFile,
        Degraded::Configuration,
        Degraded::Entities,
        Degraded::Peers,
    ];

    /// The name in `/readyz` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Degraded::Store => "store",
            Degraded::UsageFile => "usage_file",
            Degraded::Configuration => "configuration",
            Degraded::Entities => "entities",
            Degraded::Peers => "peers",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Starts as not ready, not draining and whole.
#[derive(Debug, Default)]
pub struct Readiness {
    ready: AtomicBool,
    draining: AtomicBool,
    degraded: AtomicU8,
}

impl Readiness {
    /// Says that the configuration is loaded and the listeners are up, or not.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
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
        self.ready.load(Ordering::Acquire) && !self.is_draining()
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
        let reasons = [(starting, "starting"), (self.is_draining(), "draining")];
        reasons
            .into_iter()
            .filter_map(|(holds, reason)| holds.then_some(reason))
            .collect()
    }
}
