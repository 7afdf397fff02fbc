//! One node: its folder, its store, its threads, in the order in which they start and stop.

mod predecessor;

use std::path::PathBuf;
use std::sync::Arc;

use policy::{Cell, Clock};

pub use self::predecessor::Predecessor;

use crate::data_dir::{DataDir, Entrance, NodeKey};
use crate::driver::Driver;
use crate::error::{StartError, StoreError};
use crate::journal::{Journal, Recorder, Sizes};
use crate::record::UsageRecord;
use crate::status::NodeStatus;
use crate::store::{SqliteStore, Store};

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's own folder; created if needed, one running node each.
    pub data_dir: PathBuf,
    /// Whether a process that still works on `data_dir` is about to go and this node is to follow it.
    /// If not, such a process makes the start fail.
    pub take_over: bool,
    pub store: StoreConfig,
}

/// Where settled usage is kept.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// One SQLite file; its folder is created if needed.
    Sqlite { path: PathBuf },
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
    journal: Journal,
    driver: Driver,
}

/// Reads usage out of the store. Calls block for the disk: not for threads that serve requests.
#[derive(Clone, Debug)]
pub struct UsageLog {
    store: Arc<dyn Store>,
}

/// Locks `data_dir` (or, to take over, stands beside the process that has it), opens and migrates the store, brings usage files of earlier runs into it, loads
/// the settled cells, and starts the node's threads. Blocks until done.
pub fn start(config: NodeConfig, clock: Arc<dyn Clock>) -> Result<Node, StartError> {
    let entrance = match config.take_over {
        true => Entrance::TakeOver,
        false => Entrance::Alone,
    };
    let data_dir = DataDir::open(&config.data_dir, clock.now(), entrance)?;
    let StoreConfig::Sqlite { path } = config.store;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| StartError::DataDir {
            action: "create",
            path: folder.to_owned(),
            source,
        })?;
    }
    let store = SqliteStore::open(&path).map_err(StartError::Store)?;
    start_with(data_dir, Arc::new(store), clock, Sizes::default())
}

pub(crate) fn start_with(
    data_dir: DataDir,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    sizes: Sizes,
) -> Result<Node, StartError> {
    let status = Arc::new(NodeStatus::new());
    let (node_key, boot) = (data_dir.node_key(), data_dir.boot());
    let predecessor = data_dir.predecessor();
    status.set_taking_over(predecessor.is_some());
    let journal = Journal::start(data_dir, Arc::clone(&store), Arc::clone(&status), sizes)?;
    // After the replay, so that the last run's usage is in them.
    let loaded = store.load_cells(clock.now()).map_err(StartError::Store)?;
    let predecessor = predecessor.map(|boot| {
        Predecessor::new(
            boot,
            loaded.position,
            Arc::clone(&store),
            Arc::clone(&status),
        )
    });
    let cells = loaded.cells;
    let driver = Driver::start(clock, journal.recorder())?;
    let beside = predecessor.is_some();
    tracing::info!(%node_key, boot, cells = cells.len(), beside, "node started");
    Ok(Node {
        node_key,
        boot,
        cells,
        predecessor,
        status,
        store,
        journal,
        driver,
    })
}

// === impl Node ===

impl Node {
    /// The settled cells as they were at start, without those that had expired.
    pub fn cells(&self) -> Vec<Cell> {
        self.cells.clone()
    }

    /// The process that this node follows, if it still lived at the start. Given once.
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

    /// The newest records, newest first.
    pub fn recent(&self, limit: u32) -> Result<Vec<UsageRecord>, StoreError> {
        self.store.recent_usage(limit)
    }

    /// How many records are kept.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.store.usage_count()
    }
}

#[cfg(test)]
mod tests;
