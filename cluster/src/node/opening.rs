//! Opening the store for a node, and what the node falls back to when it is away.

use std::path::Path;
use std::sync::Arc;

use super::StoreConfig;
use crate::data_dir::DataDir;
use crate::entity::LastGood;
use crate::error::{StartError, StoreError};
use crate::settled::SettledLog;
use crate::store::{PostgresStore, SqliteStore, Store};

/// A store, and the node's own copy of what it would need from it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    /// The settled cells; `None` for a store on the node's own disk, which is never away.
    pub(super) settled: Option<Arc<SettledLog>>,
    /// Why the store is away. Only if the node's own copies are there.
    pub(super) outage: Option<String>,
}

impl Opened {
    /// Without a copy.
    pub(super) fn local(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            settled: None,
            outage: None,
        }
    }

    /// With a copy in `data_dir`. A store that is away is an error unless the node can start without
    /// it: something of an earlier run is there, and no process of that run.
    pub(super) fn remote(
        store: Arc<dyn Store>,
        outage: Option<String>,
        data_dir: &DataDir,
    ) -> Result<Self, StartError> {
        let settled = SettledLog::new(data_dir.path());
        if outage.is_none() && data_dir.predecessor().is_none() {
            // What the replay removes from the usage files must stand there, should it be cut short.
            settled.go_on();
        }
        if let Some(reason) = &outage {
            if data_dir.predecessor().is_some() {
                let reason = reason.clone();
                return Err(StartError::Store(StoreError::Away { reason }));
            }
            if !settled.exists() || !LastGood::file(data_dir.path()).exists() {
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
        })
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
    pub(super) fn open_for(&self, data_dir: &DataDir) -> Result<Opened, StartError> {
        match self {
            Self::Sqlite { .. } => Ok(Opened::local(self.open()?)),
            Self::Postgres(config) => {
                let store = PostgresStore::open_or_wait(config).map_err(StartError::Store)?;
                let outage = store.outage();
                Opened::remote(Arc::new(store), outage, data_dir)
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
