//! On how many nodes a write is in force.
//!
//! Promise: the answer to a write waits for the other nodes for two seconds at
//! most, and never holds up the next write. Waiters are bounded: beyond that,
//! the answer says what is so at that moment.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::view::AppliedOn;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::Cluster;
use crate::admin::Shared;

/// Longest wait for the other nodes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes that wait for the other nodes at a time: each holds a thread.
pub(in crate::admin) const WAITERS: usize = 3;

/// What has to reach the other nodes.
#[derive(Clone, Debug)]
pub(in crate::admin) enum Spread {
    /// Everything up to this revision.
    Revision(u64),
    /// The refusal of the keys with these hashes.
    Revoked(Vec<String>),
}

/// On how many of the live nodes, as `2/3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", inline)]
pub(in crate::admin) struct InForce(AppliedOn);

impl InForce {
    /// On this node, which stands alone.
    const HERE: InForce = InForce(AppliedOn { on: 1, of: 1 });
}

/// The same beside answers that have no body.
const HEADER: HeaderName = HeaderName::from_static("x-tyr-applied-on");

impl InForce {
    /// As a header of the answer.
    pub(in crate::admin) fn header(self) -> [(HeaderName, HeaderValue); 1] {
        let text = HeaderValue::from_str(&self.to_string());
        let text = text.unwrap_or(HeaderValue::from_static(""));
        [(HEADER, text)]
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.on, self.0.of)
    }
}

impl Serialize for InForce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Spread {
    /// Blocks until it is in force on all nodes, or for `at_most`.
    fn wait(&self, cluster: &dyn Cluster, at_most: Duration) -> AppliedOn {
        match self {
            Spread::Revision(revision) => cluster.wait_applied(*revision, at_most),
            Spread::Revoked(hashes) => {
                let until = crate::clock::monotonic() + at_most;
                let reached = hashes.iter().map(|hash| {
                    let left = until.saturating_duration_since(crate::clock::monotonic());
                    cluster.wait_revoked(hash, left)
                });
                reached.min_by_key(|reached| reached.on).unwrap_or_default()
            }
        }
    }
}

impl Shared {
    /// On how many nodes a write of this node is in force, once it is on all
    /// of them or the wait is over.
    pub(in crate::admin) async fn in_force(&self, spread: Spread) -> InForce {
        self.in_force_since(crate::clock::monotonic(), spread).await
    }

    /// The same for a write that waits since `begun`.
    pub(in crate::admin) async fn in_force_since(&self, begun: Instant, spread: Spread) -> InForce {
        let Some(cluster) = self.state.cluster.clone() else {
            return InForce::HERE;
        };
        let turn = Arc::clone(&self.spreading).acquire_owned();
        let turn = tokio::time::timeout_at((begun + PATIENCE).into(), turn).await;
        let Ok(Ok(turn)) = turn else {
            return InForce(spread.wait(cluster.as_ref(), Duration::ZERO));
        };
        let wait = move || {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let reached = spread.wait(cluster.as_ref(), left);
            drop(turn);
            reached
        };
        let reached = tokio::task::spawn_blocking(wait).await;
        InForce(reached.unwrap_or_default())
    }
}
