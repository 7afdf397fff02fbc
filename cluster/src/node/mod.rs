//! One node: its folder, its store, its threads, in the order in which they start and stop.

mod desk;
mod joining;
mod open_store;
mod opening;
mod predecessor;

use std::path::PathBuf;
use std::sync::Arc;

use policy::{Cell, Clock, CounterTable, Timestamp};

#[cfg(test)]
pub(crate) use self::desk::DeskParts;
pub(crate) use self::desk::StoreDesk;
pub use self::open_store::{OpenStore, open_store};
pub use self::predecessor::Predecessor;

use self::joining::{Grounds, Joining};
use self::opening::{Known, Opened};

use crate::audit::AuditKey;
use crate::config::ClusterConfig;
use crate::data_dir::{DataDir, Entrance, NodeKey};
use crate::driver::Driver;
use crate::entity::EntityLog;
use crate::error::{StartError, StoreError};
use crate::handle::ClusterHandle;
use crate::journal::{Journal, Recorder, Recovery, Sizes};
use crate::origin::Origin;
use crate::record::UsageRecord;
use crate::status::NodeStatus;
use crate::store::{OfKey, PostgresConfig, Store, UsagePage, UsageQuery};

/// Most records that are looked at for one page of a virtual key's: well under a second's work.
const KEY_SCAN: u32 = 50_000;

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's own folder; created if needed, one running node each.
    pub data_dir: PathBuf,
    /// Whether a process that still works on `data_dir` is about to go and this node is to follow it.
    /// If not, such a process makes the start fail.
    pub take_over: bool,
    pub store: StoreConfig,
    /// The key that rows of the audit log are made with.
    pub audit: AuditKey,
    /// The cluster to be a member of; needs Postgres.
    pub cluster: Option<ClusterConfig>,
    /// What the limits of this process count with; the cluster adds what others have. It has to track
    /// its changes (`CounterTable::tracking`) for a cluster.
    pub counters: Arc<CounterTable>,
}

/// Where settled usage is kept.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// One SQLite file; its folder is created if needed.
    Sqlite { path: PathBuf },
    /// One Postgres database, for any number of nodes.
    Postgres(PostgresConfig),
}

/// A started node.
#[derive(Debug)]
pub struct Node {
    node_key: NodeKey,
    boot: u64,
    cells: Vec<Cell>,
    predecessor: Option<Predecessor>,
    status: Arc<NodeStatus>,
    store: Arc<dyn Store>,
    entities: EntityLog,
    recovery: Arc<Recovery>,
    journal: Journal,
    driver: Driver,
    cluster: Option<ClusterHandle>,
}

/// Reads usage out of the store. Calls block for the disk: not for threads that serve requests.
#[derive(Clone, Debug)]
pub struct UsageLog {
    store: Arc<dyn Store>,
}

/// Locks `data_dir` (or, to take over, stands beside the process that has it), opens and migrates
/// the store, brings usage files of earlier runs into it, loads the settled cells, and starts the
/// node's threads. Blocks until done.
///
/// A Postgres that cannot be reached for some seconds does not keep a node from starting that has
/// run before: it then begins with its last-good entities and its own copy of the cells
/// ([`Node::degraded`]). In a cluster one that has not run before begins with nothing and waits for
/// another node to tell it. To take over needs the store.
pub fn start(config: NodeConfig, clock: Arc<dyn Clock>) -> Result<Node, StartError> {
    let counters = config.counters;
    let joining = config.cluster.map(|config| Joining { config, counters });
    if joining.is_some() && matches!(config.store, StoreConfig::Sqlite { .. }) {
        return Err(StartError::ClusterOnOneFile);
    }
    let entrance = match config.take_over {
        true => Entrance::TakeOver,
        false => Entrance::Alone,
    };
    let data_dir = DataDir::open(&config.data_dir, clock.now(), entrance)?;
    let opened = config.store.open_for(&data_dir, joining.is_some())?;
    start_with(data_dir, opened, config.audit, clock, joining)
}

fn start_with(
    data_dir: DataDir,
    opened: Opened,
    audit: AuditKey,
    clock: Arc<dyn Clock>,
    joining: Option<Joining>,
) -> Result<Node, StartError> {
    let me = data_dir.origin();
    let path = data_dir.path().to_owned();
    let predecessor = data_dir.predecessor();
    let status = Arc::new(NodeStatus::new());
    status.set_taking_over(predecessor.is_some());
    status.note_store(opened.outage.as_ref());
    let entities = opened.entities(audit, &path)?;
    let keeping = opened.keeping(&entities, joining.is_some());
    let recovery = Arc::clone(&keeping.recovery);
    let Opened {
        store,
        settled,
        empty,
        ..
    } = opened;
    let (stored, shared) = (Arc::clone(&store), Arc::clone(&status));
    let (journal, own) = Journal::start(data_dir, stored, keeping, shared, Sizes::default())?;
    let beside = predecessor.is_some();
    // Of a cluster's windows its own time says which have passed; that is not known yet.
    let now = joining
        .as_ref()
        .map_or_else(|| clock.now(), |_| Timestamp(0));
    let mut known = Known::of(own, &*store, settled.as_deref(), now)?;
    let joined = joining.map(|joining| {
        joining.join(Grounds {
            me,
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            entities: entities.clone(),
            status: Arc::clone(&status),
            empty,
            kept: known.hand_over(),
        })
    });
    let (mesh, cluster) = joined.transpose()?.unzip();
    // In a cluster they are an origin like others.
    let predecessor = predecessor.filter(|_| cluster.is_none()).map(|boot| {
        let (store, status) = (Arc::clone(&store), Arc::clone(&status));
        let origin = Origin { boot, ..me };
        Predecessor::new(origin, known.position, store, status, settled)
    });
    let clock = cluster.as_ref().map_or(clock, ClusterHandle::clock);
    let (recorder, recovering) = (journal.recorder(), Arc::clone(&recovery));
    let driver = Driver::start(clock, recorder, entities.clone(), recovering, mesh)?;
    let cells = known.cells;
    tracing::info!(node_key = %me.node, boot = me.boot, cells = cells.len(), beside, "node started");
    Ok(Node {
        node_key: me.node,
        boot: me.boot,
        cells,
        predecessor,
        status,
        store,
        entities,
        recovery,
        journal,
        driver,
        cluster,
    })
}

// === impl StoreConfig ===

impl StoreConfig {
    /// The same, bringing an older schema up to date.
    #[must_use]
    pub fn migrating(mut self) -> Self {
        if let Self::Postgres(config) = &mut self {
            config.migrate = true;
        }
        self
    }
}

// === impl Node ===

impl Node {
    /// The settled cells as they were at start, without those that had expired: as the store had
    /// them or, if it was away, as this node last knew them and added to them. Empty in a cluster:
    /// there they count as what others did.
    pub fn cells(&self) -> Vec<Cell> {
        self.cells.clone()
    }

    /// Whether the node started without the store and does not know yet what the store has.
    pub fn degraded(&self) -> bool {
        self.recovery.is_pending()
    }

    /// After a start without the store, once it is back and has everything that this node settled:
    /// its cells, to which the node's own are to be raised. Given once, about a second after
    /// that; what is settled at that very moment may be missing in them. Never in a cluster.
    pub fn take_recovered(&self) -> Option<Vec<Cell>> {
        let recovered = self.recovery.take();
        recovered.filter(|_| self.cluster.is_none())
    }

    /// The process that this node follows, if it still lived at the start. Given once, and never in a
    /// cluster, which learns by itself what that one settles.
    pub fn predecessor(&mut self) -> Option<Predecessor> {
        self.predecessor.take()
    }

    /// The way in for settled requests.
    pub fn recorder(&self) -> Recorder {
        self.journal.recorder()
    }

    /// Live figures.
    pub fn status(&self) -> Arc<NodeStatus> {
        Arc::clone(&self.status)
    }

    /// The stored usage, for reports.
    pub fn usage_log(&self) -> UsageLog {
        UsageLog {
            store: Arc::clone(&self.store),
        }
    }

    /// The way to its cluster, if it is a member of one.
    pub fn cluster(&self) -> Option<ClusterHandle> {
        self.cluster.clone()
    }

    /// The entities made through the API.
    pub fn entities(&self) -> EntityLog {
        self.entities.clone()
    }

    /// The node's 128-bit number, drawn once per `data_dir`.
    pub fn node_key(&self) -> NodeKey {
        self.node_key
    }

    /// Unix milliseconds of this start, made larger than every start before.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Writes and stores everything recorded so far and joins the threads. Blocks. Usage that the
    /// store refuses stays in its files for the next start; `data_dir` stays locked until the last
    /// [`Recorder`] is dropped.
    pub fn stop(self) {
        self.driver.stop();
        self.journal.stop();
        let status = self.status.snapshot();
        tracing::info!(
            stored = status.records_stored,
            waiting_bytes = status.waiting_bytes,
            "node stopped"
        );
    }
}

// === impl UsageLog ===

impl UsageLog {
    /// One record by its request id.
    pub fn usage(&self, request_id: &str) -> Result<Option<UsageRecord>, StoreError> {
        self.store.usage(request_id)
    }

    /// At most `limit` records, newest first: those whose request id is before `older_than` (the
    /// `next` of the page before), and of one virtual key if `key` names it.
    pub fn recent(
        &self,
        limit: u32,
        older_than: Option<&str>,
        key: Option<&str>,
    ) -> Result<UsagePage, StoreError> {
        let scan = KEY_SCAN;
        self.store.recent_usage(UsageQuery {
            limit,
            older_than,
            key: key.map(|name| OfKey { name, scan }),
        })
    }

    /// How many records are kept.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.store.usage_count()
    }
}

#[cfg(test)]
mod tests;
