//! Opening the store for a node, and what the node falls back to when it is away.

use std::path::Path;
use std::sync::Arc;

use policy::{Cell, Timestamp};

use super::StoreConfig;
use crate::audit::AuditKey;
use crate::data_dir::DataDir;
use crate::entity::{EntityLog, LastGood};
use crate::error::{StartError, StoreError};
use crate::journal::{Keeping, Recovery};
use crate::origin::Origin;
use crate::settled::{Contents, SettledLog};
use crate::store::{Position, PostgresStore, SqliteStore, Store, sums};

/// A store, and the node's own copy of what it would need from it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    /// The settled cells; `None` for a store on the node's own disk, which is never away.
    pub(super) settled: Option<Arc<SettledLog>>,
    /// Why the store is away. Only if the node's own copies are there, or others may have theirs.
    pub(super) outage: Option<String>,
    /// Whether it is away and there is no own copy either.
    pub(super) empty: bool,
}

impl Opened {
    /// Without a copy.
    pub(super) fn local(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            settled: None,
            outage: None,
            empty: false,
        }
    }

    /// With a copy in `data_dir`. A store that is away is an error unless the node can start without
    /// it: something of an earlier run is there, and no process of that run. In a cluster the others
    /// may have what is not there.
    pub(super) fn remote(
        store: Arc<dyn Store>,
        outage: Option<String>,
        data_dir: &DataDir,
        in_cluster: bool,
    ) -> Result<Self, StartError> {
        let settled = SettledLog::new(data_dir.path());
        if outage.is_none() && data_dir.predecessor().is_none() {
            // What the replay removes from the usage files must stand there, should it be cut short.
            settled.go_on();
        }
        let mut empty = false;
        if let Some(reason) = &outage {
            if data_dir.predecessor().is_some() {
                let reason = reason.clone();
                return Err(StartError::Store(StoreError::Away { reason }));
            }
            empty = !settled.exists() || !LastGood::file(data_dir.path()).exists();
            if empty && !in_cluster {
                return Err(StartError::NothingKept {
                    path: data_dir.path().to_owned(),
                    reason: reason.clone(),
                });
            }
        }
        Ok(Self {
            store,
            settled: Some(Arc::new(settled)),
            outage,
            empty,
        })
    }

    /// What the journal is to keep in step.
    pub(super) fn keeping(&self, entities: &EntityLog, in_cluster: bool) -> Keeping {
        Keeping {
            entities: Some(entities.clone()),
            settled: self.settled.clone(),
            recovery: Arc::new(Recovery::new(self.outage.is_some())),
            in_cluster,
        }
    }

    /// The entities of the store, or those that the node kept.
    pub(super) fn entities(&self, key: AuditKey, data_dir: &Path) -> Result<EntityLog, StartError> {
        let store = Arc::clone(&self.store);
        match &self.outage {
            None => EntityLog::open(store, key, data_dir),
            Some(reason) if self.empty => {
                tracing::warn!(
                    reason,
                    "the node starts without the store and with nothing of an earlier run: \
                     it is not ready until another node has told what it knows"
                );
                EntityLog::open_last_good(store, key, data_dir)
            }
            Some(reason) => {
                tracing::warn!(
                    reason,
                    "the node starts without the store, from its own files"
                );
                EntityLog::open_last_good(store, key, data_dir)
            }
        }
    }
}

/// The cells that a node starts with.
#[derive(Debug)]
pub(super) struct Known {
    /// Sums over all origins.
    pub(super) cells: Vec<Cell>,
    /// What of the store they contain.
    pub(super) position: Position,
    /// Each origin's apart, if they are the node's own copy; whether some are not told apart.
    kept: Option<(Vec<(Origin, Cell)>, bool)>,
}

impl Known {
    /// The node's own copy with its usage files, or what the store has: read after the replay, so that
    /// the last run's usage is in it.
    pub(super) fn of(
        own: Option<Contents>,
        store: &dyn Store,
        settled: Option<&SettledLog>,
        now: Timestamp,
    ) -> Result<Self, StartError> {
        match own {
            Some(contents) => Ok(Self::kept(contents, now)),
            None => Self::of_store(store, settled, now),
        }
    }

    /// What the store has; it is put into the node's own copy.
    fn of_store(
        store: &dyn Store,
        settled: Option<&SettledLog>,
        now: Timestamp,
    ) -> Result<Self, StartError> {
        let loaded = store.load_cells(now).map_err(StartError::Store)?;
        if let Some(settled) = settled {
            settled.replace(&loaded.by_origin, &[]);
        }
        Ok(Self {
            cells: loaded.cells(),
            position: loaded.position,
            kept: None,
        })
    }

    /// What the node's own copy and its usage files have.
    pub(super) fn kept(contents: Contents, now: Timestamp) -> Self {
        let is_mixed = contents.is_mixed();
        let by_origin = contents.by_origin(now);
        Self {
            cells: sums(&by_origin),
            position: Position::default(),
            kept: Some((by_origin, is_mixed)),
        }
    }

    /// Leaves the cells to the cluster: with those of the store it has them from there, else these
    /// are all there is, and none at all if they are not told apart: these would count twice once the
    /// store is back.
    pub(super) fn hand_over(&mut self) -> Kept {
        self.cells = Vec::new();
        match self.kept.take() {
            None => Kept::NotNeeded,
            Some((_, true)) => Kept::Nothing,
            Some((cells, false)) => Kept::Cells(cells),
        }
    }
}

/// What the node's own copy gives its cluster.
#[derive(Debug)]
pub(super) enum Kept {
    /// The store is there.
    NotNeeded,
    Nothing,
    Cells(Vec<(Origin, Cell)>),
}

// === impl Kept ===

impl Kept {
    pub(super) fn cells(self) -> Option<Vec<(Origin, Cell)>> {
        match self {
            Self::Cells(cells) => Some(cells),
            Self::NotNeeded | Self::Nothing => None,
        }
    }
}

// === impl StoreConfig ===

impl StoreConfig {
    /// Opens the store and brings its schema up to date.
    pub(super) fn open(&self) -> Result<Arc<dyn Store>, StartError> {
        match self {
            Self::Sqlite { path } => open_sqlite(path),
            Self::Postgres(config) => {
                let store = PostgresStore::open(config).map_err(StartError::Store)?;
                Ok(Arc::new(store))
            }
        }
    }

    /// As [`StoreConfig::open`], but goes without the store if it is away and `data_dir` allows it.
    pub(super) fn open_for(
        &self,
        data_dir: &DataDir,
        in_cluster: bool,
    ) -> Result<Opened, StartError> {
        match self {
            Self::Sqlite { .. } => Ok(Opened::local(self.open()?)),
            Self::Postgres(config) => {
                let store = PostgresStore::open_or_wait(config).map_err(StartError::Store)?;
                let outage = store.outage();
                Opened::remote(Arc::new(store), outage, data_dir, in_cluster)
            }
        }
    }
}

fn open_sqlite(path: &Path) -> Result<Arc<dyn Store>, StartError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| StartError::DataDir {
            action: "create",
            path: folder.to_owned(),
            source,
        })?;
    }
    let store = SqliteStore::open(path).map_err(StartError::Store)?;
    Ok(Arc::new(store))
}
