//! Several real nodes as one cluster, with a real Postgres, and everything that can happen to them.
//!
//! Times are a twentieth and rates a tenth of what is promised for the field, so that the tests fit
//! into a build; `TYR_SOAK=1` runs them at full length. One fleet runs at a time: they share the
//! machine with everything else.

// Figures of a run at full length are read off its output.
#![allow(clippy::print_stdout)]

mod certificates;
mod changes;
mod gossip;
mod joining;
mod kills;
mod leaders;
mod limits;
mod outages;
mod partitions;
mod pauses;
mod regions;
mod restarts;
mod seeds;
mod windows;

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::harness::Node;

/// All times and rates of these tests.
pub struct Scale {
    /// Length of a short limit, as YAML.
    pub window: &'static str,
    pub window_length: Duration,
    /// Requests in such a window.
    pub limit: u64,
    /// How many windows a limit is pressed for.
    pub windows: u32,
    /// How long nodes are parted.
    pub partition: Duration,
    /// How long a node is stopped: longer than any suspicion.
    pub pause: Duration,
    /// How long the weather is bad.
    pub storm: Duration,
    /// How long Postgres is away.
    pub outage: Duration,
    /// Meanwhile six clients ask once in this time.
    pub pace: Duration,
    /// How many changes are made under load.
    pub changes: usize,
    /// Streams at a time on each node while all are restarted; how many tokens each has, and how
    /// far these are apart.
    pub streams: usize,
    pub stream_tokens: u64,
    pub token_ms: u64,
    /// How long a node that ends waits for its streams.
    pub grace: Duration,
    /// How many times what is promised something may take: a build's machine does much besides.
    pub patience: u32,
}

const SHORT: Scale = Scale {
    window: "5s",
    window_length: Duration::from_secs(5),
    limit: 100,
    windows: 4,
    partition: Duration::from_secs(10),
    pause: Duration::from_secs(20),
    storm: Duration::from_secs(20),
    outage: Duration::from_secs(6),
    pace: Duration::from_millis(20),
    changes: 12,
    streams: 25,
    stream_tokens: 20,
    token_ms: 100,
    grace: Duration::from_secs(20),
    patience: 3,
};

const FULL: Scale = Scale {
    window: "1m",
    window_length: Duration::from_secs(60),
    limit: 1_000,
    windows: 10,
    partition: Duration::from_secs(120),
    pause: Duration::from_secs(30),
    storm: Duration::from_secs(600),
    outage: Duration::from_secs(1_800),
    pace: Duration::from_millis(60),
    changes: 100,
    streams: 500,
    stream_tokens: 40,
    token_ms: 500,
    grace: Duration::from_secs(60),
    patience: 1,
};

pub fn scale() -> &'static Scale {
    match std::env::var_os("TYR_SOAK") {
        Some(_) => &FULL,
        None => &SHORT,
    }
}

/// A short limit for all nodes.
pub fn limits() -> String {
    let Scale { limit, window, .. } = scale();
    format!("rate_limits: [{{requests: {limit}, every: {window}}}]")
}

/// One of the checks that are promised; its fleet runs alone while the value lives.
pub struct Check {
    name: &'static str,
    begun: Instant,
    _alone: MutexGuard<'static, ()>,
}

impl Check {
    pub fn begin(name: &'static str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            name,
            begun: Instant::now(),
            _alone: alone,
        }
    }

    /// Prints a row of what was measured beside what is promised; `scripts/soak` collects these.
    pub fn measured(&self, measured: impl Display, promised: impl Display) {
        let seconds = self.begun.elapsed().as_secs();
        println!(
            "check: {} | {measured} | {promised} | {seconds} s",
            self.name
        );
    }
}

/// By how much a node says that this limit may be passed now.
#[track_caller]
pub fn bound(node: &Node, unit: &str) -> u64 {
    let standing = node.standing_of("demo", unit);
    standing["overshoot_bound"].as_u64().unwrap_or(0)
}
