//! The store for commands that run beside a node, or without one.
//!
//! Whatever is written here reaches running nodes with their next poll.

use std::sync::Arc;

use super::StoreConfig;
use crate::audit::{self, AuditKey, AuditRow, Verified, VerifyError};
use crate::entity::{Change, Entity, EntityWrite, announce, keep_newest};
use crate::error::{StartError, StoreError, WriteError};
use crate::store::Store;

/// Entities read at once.
const PAGE: u32 = 4_096;

/// An opened store without a node. Calls block.
#[derive(Clone, Debug)]
pub struct OpenStore {
    store: Arc<dyn Store>,
}

/// Opens the store, creating it if needed, and brings its schema up to date. No `data_dir` is locked
/// and no thread is started.
pub fn open_store(config: &StoreConfig) -> Result<OpenStore, StartError> {
    let store = config.open()?;
    Ok(OpenStore { store })
}

impl OpenStore {
    /// Every entity, without deleted ones, in the order of their last changes.
    pub fn entities(&self) -> Result<Vec<Entity>, StoreError> {
        let (mut after, mut all) = (0, Vec::new());
        loop {
            let page = self.store.entities_since(after, PAGE)?;
            let Some(last) = page.last() else {
                keep_newest(&mut all);
                all.retain(|entity| entity.body.is_some());
                return Ok(all);
            };
            after = last.revision;
            all.extend(page);
        }
    }

    /// Writes all of them and the change's audit row, or nothing. Returns them in their order, all
    /// with the same new revision.
    pub fn write(
        &self,
        writes: &[EntityWrite],
        change: &Change,
        key: &AuditKey,
    ) -> Result<Vec<Entity>, WriteError> {
        let written = self.store.write_entities(writes, change, key)?;
        announce(&written.row);
        Ok(written.entities)
    }

    /// Keeps the audit row of a change that wrote no entities.
    pub fn record(&self, change: &Change, key: &AuditKey) -> Result<(), StoreError> {
        announce(&self.store.record_change(change, key)?);
        Ok(())
    }

    /// The next `most` rows of the audit log after a number (0: from the first), in their order.
    pub fn audit(&self, after_seq: u64, most: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.store.audit_rows(after_seq, most)
    }

    /// Walks the whole audit log. `keys` are all that it was ever written with.
    pub fn verify_audit(&self, keys: &[AuditKey]) -> Result<Verified, VerifyError> {
        audit::verify_store(&*self.store, keys)
    }
}
