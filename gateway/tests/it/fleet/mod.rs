//! Several real nodes as one cluster, with a real Postgres, and everything that can happen to them.
//!
//! Times are a twentieth and rates a tenth of what is promised for the field, so that the tests fit
//! into a build; `TYR_SOAK=1` runs them at full length. One fleet runs at a time: they share the
//! machine with everything else.

// Figures of a run at full length are read off its output.
#![allow(clippy::print_stdout)]

mod changes;
mod faults;
mod gossip;
mod leaders;
mod limits;
mod restarts;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::harness::Node;
use crate::harness::node::number;

/// All times and rates of these tests.
pub struct Scale {
    /// Length of a short limit, as YAML.
    pub window: &'static str,
    pub window_length: Duration,
    /// Requests in such a window.
    pub limit: u64,
    /// How long nodes are parted.
    pub partition: Duration,
    /// How long a node is stopped: longer than any suspicion.
    pub pause: Duration,
    /// How long the weather is bad.
    pub storm: Duration,
    /// How long Postgres is away.
    pub outage: Duration,
}

const SHORT: Scale = Scale {
    window: "5s",
    window_length: Duration::from_secs(5),
    limit: 100,
    partition: Duration::from_secs(3),
    pause: Duration::from_secs(20),
    storm: Duration::from_secs(20),
    outage: Duration::from_secs(6),
};

const FULL: Scale = Scale {
    window: "1m",
    window_length: Duration::from_secs(60),
    limit: 1_000,
    partition: Duration::from_secs(60),
    pause: Duration::from_secs(30),
    storm: Duration::from_secs(600),
    outage: Duration::from_secs(1_800),
};

pub fn scale() -> &'static Scale {
    match std::env::var_os("TYR_SOAK") {
        Some(_) => &FULL,
        None => &SHORT,
    }
}

/// A short limit for all nodes, and one that only counts.
pub fn limits() -> String {
    let Scale { limit, window, .. } = scale();
    format!(
        "rate_limits: [{{requests: {limit}, every: {window}}}, {{requests: 1000000, every: 1d}}]"
    )
}

/// Held by the test whose fleet runs.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one unit of the demo key has used in the eyes of a node, in its own scope.
#[track_caller]
pub fn used(node: &Node, unit: &str) -> u64 {
    let standing = node.standing_of("demo", unit);
    let used = standing["used_nano_usd"].as_u64();
    used.unwrap_or_else(|| number(&standing["used"]) as u64)
}

/// By how much a node says that this limit may be passed now.
#[track_caller]
pub fn bound(node: &Node, unit: &str) -> u64 {
    let standing = node.standing_of("demo", unit);
    standing["overshoot_bound"].as_u64().unwrap_or(0)
}
