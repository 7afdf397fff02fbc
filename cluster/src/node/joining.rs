//! A node's way into its cluster.
//!
//! Promise: what this node counted in earlier boots, and what others did, reaches the core per origin
//! and is counted once, from the store or, while that is away, from the node's own copy. Nothing that
//! waits for the store holds up the driver.

use std::sync::Arc;

use policy::{Clock, CounterTable};
use tokio::sync::mpsc;

use super::desk::{DeskParts, StoreDesk};
use super::opening::Kept;
use crate::config::ClusterConfig;
use crate::driver::{ClusterClock, Mesh, MeshParts};
use crate::entity::EntityLog;
use crate::error::StartError;
use crate::handle::ClusterHandle;
use crate::origin::Origin;
use crate::status::NodeStatus;
use crate::store::{News, Store};

/// Answers of the store that wait for the driver.
const ANSWERS: usize = 64;

/// What is configured of the cluster, and what it counts with.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) config: ClusterConfig,
    pub(super) counters: Arc<CounterTable>,
}

/// What the node has for it by then.
#[derive(Debug)]
pub(super) struct Grounds {
    pub(super) me: Origin,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Arc<dyn Store>,
    pub(super) entities: EntityLog,
    pub(super) status: Arc<NodeStatus>,
    /// The node's own copy of the cells, if the store is away.
    pub(super) kept: Kept,
    /// Whether the store is away and nothing of an earlier run is there.
    pub(super) empty: bool,
}

impl Joining {
    /// Makes everything ready; the driver begins to talk when it runs.
    pub(super) fn join(self, grounds: Grounds) -> Result<(Mesh, ClusterHandle), StartError> {
        let Grounds {
            me,
            clock,
            store,
            entities,
            status,
            kept,
            empty,
        } = grounds;
        let starts_empty = empty || matches!(kept, Kept::Nothing);
        let clock = Arc::new(ClusterClock::new(clock));
        let follows = status.taking_over();
        let (replies, answers) = mpsc::channel(ANSWERS);
        let desk = DeskParts {
            store: Arc::clone(&store),
            entities: entities.clone(),
            status,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            me,
            name: self.config.node_id.clone(),
            region: self.config.region.clone(),
            kept: kept.cells(),
            fatal: self.config.fatal,
        };
        let (mesh, handle) = Mesh::open(MeshParts {
            config: self.config,
            me,
            counters: self.counters,
            clock,
            entities: entities.clone(),
            desk: StoreDesk::start(desk, replies)?,
            replies: answers,
            follows,
            starts_empty,
        })?;
        let told = handle.clone();
        store.listen(News::new(move || told.tell_news()));
        let told = handle.clone();
        entities.on_brought(move |hash| told.revocation_persisted(hash));
        // Those of an earlier run, which whoever loads the entities has in force.
        for (hash, change) in entities.pending_revocations() {
            handle.revoke(&hash, &change);
        }
        Ok((mesh, handle))
    }
}
