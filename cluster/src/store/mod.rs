//! The durable home of usage records and settled counter cells.
//!
//! Promise: [`Store::record_usage`] is all or nothing, and a record counts once however often it is
//! handed over. Settled cells are exactly the sum of the charges of the stored records.
//! Owner: the thread `tyr-store` writes; start-up and reports read.
//! Failure: every call may fail and may be repeated as it is; a caller that got an error does not
//! know whether the transaction was committed, and need not.

#[cfg(test)]
mod memory;
mod sqlite;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;

use policy::{Cell, Charge, Timestamp};

#[cfg(test)]
pub(crate) use memory::MemoryStore;
pub(crate) use sqlite::SqliteStore;

use crate::error::StoreError;
use crate::record::UsageRecord;

/// How many records a store had taken: a place in the order in which it took them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(pub(crate) i64);

/// All settled cells at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Sums over all boots, sorted by counter and epoch.
    pub(crate) cells: Vec<Cell>,
    /// What these cells contain: every record up to here and none after.
    pub(crate) position: Position,
}

/// What one boot added between two positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// Sums of the charges, sorted by counter and epoch.
    pub(crate) cells: Vec<Cell>,
    /// Where to read on.
    pub(crate) position: Position,
    /// Whether that was the end.
    pub(crate) complete: bool,
}

/// What the node needs from a database. Calls block; none is made on a request's path. Two
/// processes may use it at once, each under its own boot.
pub(crate) trait Store: Send + Sync + Debug {
    /// Keeps the records and adds the charges of those not seen before to the cells of `boot`, the
    /// one that settled them, in one transaction. Returns how many were new.
    fn record_usage(&self, boot: u64, batch: &[UsageRecord]) -> Result<u64, StoreError>;

    /// Settled cells that still matter at `now`.
    fn load_cells(&self, now: Timestamp) -> Result<Loaded, StoreError>;

    /// What the records of `boot` among the next `most` after `after` were charged with.
    fn added_cells(&self, boot: u64, after: Position, most: u32) -> Result<Added, StoreError>;

    /// Removes cells that no longer matter at `now`; returns how many.
    fn expire_cells(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// One record by its request id.
    fn usage(&self, request_id: &str) -> Result<Option<UsageRecord>, StoreError>;

    /// The newest records, newest first.
    fn recent_usage(&self, limit: u32) -> Result<Vec<UsageRecord>, StoreError>;

    /// How many records are kept.
    fn usage_count(&self) -> Result<u64, StoreError>;
}

/// Adds up amounts by counter and epoch, in that order. Stops at the largest that a store can keep.
#[derive(Debug, Default)]
struct Sums(BTreeMap<(String, i64), (u64, Timestamp)>);

impl Sums {
    fn add(&mut self, cell: Cell) {
        let sum = self.0.entry((cell.counter, cell.epoch));
        let (amount, expires_at) = sum.or_insert((0, cell.expires_at));
        *amount = amount.saturating_add(cell.amount).min(i64::MAX as u64);
        *expires_at = cell.expires_at.max(*expires_at);
    }

    fn add_charges(&mut self, charges: &[Charge]) {
        for charge in charges {
            self.add(Cell {
                counter: charge.counter.to_string(),
                epoch: charge.epoch,
                amount: charge.amount,
                expires_at: charge.expires_at,
            });
        }
    }

    fn cells(self) -> Vec<Cell> {
        let sums = self.0.into_iter();
        sums.map(|((counter, epoch), (amount, expires_at))| Cell {
            counter,
            epoch,
            amount,
            expires_at,
        })
        .collect()
    }
}
