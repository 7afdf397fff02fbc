//! A store in memory: the reference that the database store is compared with.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::{Cell, Timestamp};

use super::{Added, Loaded, Position, Store, Sums};
use crate::error::StoreError;
use crate::record::UsageRecord;

/// Keeps everything in two maps; gone with the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    usage: BTreeMap<String, UsageRecord>,
    /// Request ids with their boots, in the order of coming.
    order: Vec<(String, u64)>,
    /// By counter, epoch and boot.
    cells: BTreeMap<(String, i64, u64), (u64, Timestamp)>,
}

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Each call changes the maps without a point where it could panic half way.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn record_usage(&self, boot: u64, batch: &[UsageRecord]) -> Result<u64, StoreError> {
        let mut tables = self.tables();
        let mut fresh = 0;
        for record in batch {
            if tables.usage.contains_key(&record.request_id) {
                continue;
            }
            for charge in &record.charges {
                let key = (charge.counter.to_string(), charge.epoch, boot);
                let (amount, expires_at) =
                    tables.cells.entry(key).or_insert((0, charge.expires_at));
                *amount = amount.saturating_add(charge.amount).min(i64::MAX as u64);
                *expires_at = charge.expires_at.max(*expires_at);
            }
            tables
                .usage
                .insert(record.request_id.clone(), record.clone());
            tables.order.push((record.request_id.clone(), boot));
            fresh += 1;
        }
        Ok(fresh)
    }

    fn load_cells(&self, now: Timestamp) -> Result<Loaded, StoreError> {
        let tables = self.tables();
        let mut sums = Sums::default();
        for ((counter, epoch, _), (amount, expires_at)) in &tables.cells {
            if *expires_at > now {
                sums.add(Cell {
                    counter: counter.clone(),
                    epoch: *epoch,
                    amount: *amount,
                    expires_at: *expires_at,
                });
            }
        }
        Ok(Loaded {
            cells: sums.cells(),
            position: Position(tables.order.len() as i64),
        })
    }

    fn added_cells(&self, boot: u64, after: Position, most: u32) -> Result<Added, StoreError> {
        let tables = self.tables();
        let rest = tables.order.get(after.0 as usize..).unwrap_or_default();
        let page = &rest[..rest.len().min(most as usize)];
        let mut sums = Sums::default();
        for (id, _) in page.iter().filter(|(_, of)| *of == boot) {
            sums.add_charges(&tables.usage[id].charges);
        }
        Ok(Added {
            cells: sums.cells(),
            position: Position(after.0 + page.len() as i64),
            complete: page.len() < most as usize,
        })
    }

    fn expire_cells(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tables = self.tables();
        let before = tables.cells.len();
        tables.cells.retain(|_, (_, expires_at)| *expires_at > now);
        Ok((before - tables.cells.len()) as u64)
    }

    fn usage(&self, request_id: &str) -> Result<Option<UsageRecord>, StoreError> {
        Ok(self.tables().usage.get(request_id).cloned())
    }

    fn recent_usage(&self, limit: u32) -> Result<Vec<UsageRecord>, StoreError> {
        let tables = self.tables();
        Ok(tables
            .usage
            .values()
            .rev()
            .take(limit as usize)
            .cloned()
            .collect())
    }

    fn usage_count(&self) -> Result<u64, StoreError> {
        Ok(self.tables().usage.len() as u64)
    }
}
