//! The durable home of usage records and settled counter cells.
//!
//! Promise: [`Store::record_usage`] is all or nothing, and a record counts once however often it is
//! handed over. Settled cells are exactly the sum of the charges of the stored records. Entities are
//! written with the audit row of their change or not at all.
//! Owner: the thread `tyr-store` writes usage, the admin API entities; start-up and reports read.
//! Failure: every call may fail and may be repeated as it is; a caller that got an error does not
//! know whether the transaction was committed, and need not.

mod fleet;
#[cfg(test)]
mod memory;
mod owner;
mod postgres;
mod sqlite;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;

use policy::{Cell, Charge, Timestamp};

pub(crate) use fleet::{
    CLUSTER_SCOPE, FleetStore, News, SEAL_AFTER_MS, SEAL_TASK, SEALED_KEPT_MS, Sealed, Sealing,
};
#[cfg(test)]
pub(crate) use memory::MemoryStore;
pub(crate) use owner::NOBODY;
pub(crate) use postgres::PostgresStore;
pub use postgres::{PasswordSource, PostgresConfig, PostgresUrlError, TlsMode};
pub(crate) use sqlite::SqliteStore;

use crate::audit::{AuditHead, AuditKey, AuditRow};
use crate::entity::{Change, Entity, EntityWrite, Expect};
use crate::error::{StoreError, WriteError};
use crate::origin::Origin;
use crate::record::UsageRecord;

/// A place in the order in which a store took the records of one origin. Places of different origins
/// compare only with those of [`Loaded`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(pub(crate) i64);

/// All settled cells at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Each origin's apart.
    pub(crate) by_origin: Vec<(Origin, Cell)>,
    /// What these cells contain: every record up to here and none after.
    pub(crate) position: Position,
}

/// What one origin added between two positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// Sums of the charges, sorted by counter and epoch.
    pub(crate) cells: Vec<Cell>,
    /// Where to read on.
    pub(crate) position: Position,
    /// Whether that was the end.
    pub(crate) complete: bool,
}

/// Which records a page has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsageQuery<'a> {
    /// Most records of the page.
    pub(crate) limit: u32,
    /// Only records whose request id is before this one: the `next` of the page before.
    pub(crate) older_than: Option<&'a str>,
    /// Only records of one virtual key.
    pub(crate) key: Option<OfKey<'a>>,
}

/// Records are not indexed by key, as that would cost every request; so the search is bounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfKey<'a> {
    /// The virtual key's name.
    pub(crate) name: &'a str,
    /// Most records that are looked at, those of other keys included.
    pub(crate) scan: u32,
}

/// One page of records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsagePage {
    /// Newest first. May be fewer than asked for, or none, while `next` says that there may be more.
    pub records: Vec<UsageRecord>,
    /// The request id before which the next page begins; `None`: there are no more.
    pub next: Option<String>,
}

/// What the node needs from a database. Calls block; none is made on a request's path. Any number of
/// processes may use it at once, each under its own origin.
pub(crate) trait Store: FleetStore + Send + Sync + Debug {
    /// Keeps the records and adds the charges of those not seen before to the cells of the origin
    /// that settled them, in one transaction. Returns how many were new.
    fn record_usage(&self, origin: Origin, batch: &[UsageRecord]) -> Result<u64, StoreError>;

    /// Settled cells that still matter at `now`.
    fn load_cells(&self, now: Timestamp) -> Result<Loaded, StoreError>;

    /// What the next records of `origin` after `after`, `most` at most, were charged with. Those that
    /// a program wrote which did not say its node are taken by their boot alone.
    fn added_cells(&self, origin: Origin, after: Position, most: u32) -> Result<Added, StoreError>;

    /// Removes cells that no longer matter at `now`; returns how many.
    fn expire_cells(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// One record by its request id.
    fn usage(&self, request_id: &str) -> Result<Option<UsageRecord>, StoreError>;

    /// Records, newest first. Pages that follow one another have every record that was there before
    /// the first of them once.
    fn recent_usage(&self, query: UsageQuery<'_>) -> Result<UsagePage, StoreError>;

    /// How many records are kept.
    fn usage_count(&self) -> Result<u64, StoreError>;

    /// Writes the entities one after the other, and the audit row of the change, in one transaction:
    /// all or nothing. All get the same new revision. Without writes only the row is kept, and the
    /// revision stays. Bodies and the change's texts come back byte for byte.
    fn write_entities(
        &self,
        writes: &[EntityWrite],
        change: &Change,
        key: &AuditKey,
    ) -> Result<Written, WriteError>;

    /// Entities whose last change is after revision `after`, tombstones too, ordered by revision,
    /// kind and name (as bytes). About `most`, at least one if there is any: a revision is never cut
    /// in two, so the last one's is where to read on.
    fn entities_since(&self, after: u64, most: u32) -> Result<Vec<Entity>, StoreError>;

    /// The next `most` rows of the audit log after a number, in their order.
    fn audit_rows(&self, after_seq: u64, most: u32) -> Result<Vec<AuditRow>, StoreError>;

    /// The head of the audit log; `None` as long as it is empty.
    fn audit_head(&self) -> Result<Option<AuditHead>, StoreError>;

    /// Keeps the audit row of a change that wrote no entities.
    fn record_change(&self, change: &Change, key: &AuditKey) -> Result<AuditRow, StoreError> {
        match self.write_entities(&[], change, key) {
            Ok(written) => Ok(written.row),
            Err(WriteError::Store(error)) => Err(error),
            Err(WriteError::Stale { .. }) => unreachable!("nothing was expected of any entity"),
        }
    }
}

/// What one transaction left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// In the order of the writes.
    pub(crate) entities: Vec<Entity>,
    pub(crate) row: AuditRow,
}

/// Whether a write may be done to an entity that has the revision `found`, if it is there.
fn judge(write: &EntityWrite, found: Option<u64>) -> Result<(), WriteError> {
    let as_expected = match write.expect {
        Expect::Any => write.body.is_some() || found.is_some(),
        Expect::Absent => found.is_none() && write.body.is_some(),
        Expect::Revision(revision) => found == Some(revision),
    };
    match as_expected {
        true => Ok(()),
        false => Err(WriteError::Stale { found }),
    }
}

/// Sums over all origins, sorted by counter and epoch.
pub(crate) fn sums(by_origin: &[(Origin, Cell)]) -> Vec<Cell> {
    let mut sums = Sums::default();
    for (_, cell) in by_origin {
        sums.add(cell.clone());
    }
    sums.cells()
}

// === impl Loaded ===

impl Loaded {
    /// Sums over all origins, sorted by counter and epoch.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        sums(&self.by_origin)
    }
}

// === impl UsageQuery ===

impl UsageQuery<'_> {
    /// After every request id: Unicode ends here.
    const END: &'static str = "\u{10ffff}";

    /// The request id that all records of the page are before.
    fn upper(&self) -> &str {
        self.older_than.unwrap_or(Self::END)
    }

    /// How many records have to be found to know whether there are more than the page may have.
    fn wanted(&self) -> usize {
        self.limit as usize + 1
    }

    /// The page, of `wanted` records or all there are up to `scanned`, where the search ended early.
    fn page(&self, mut records: Vec<UsageRecord>, scanned: Option<String>) -> UsagePage {
        let more = records.len() >= self.wanted();
        records.truncate(self.limit as usize);
        let last = records.last().map(|record| record.request_id.clone());
        UsagePage {
            next: if more { last } else { scanned },
            records,
        }
    }
}

/// Adds up amounts by counter and epoch, in that order. Stops at the largest that a store can keep.
#[derive(Debug, Default)]
pub(crate) struct Sums(BTreeMap<(String, i64), (u64, Timestamp)>);

impl Sums {
    pub(crate) fn add(&mut self, cell: Cell) {
        let sum = self.0.entry((cell.counter, cell.epoch));
        let (amount, expires_at) = sum.or_insert((0, cell.expires_at));
        *amount = amount.saturating_add(cell.amount).min(i64::MAX as u64);
        *expires_at = cell.expires_at.max(*expires_at);
    }

    pub(crate) fn add_charges(&mut self, charges: &[Charge]) {
        for charge in charges {
            self.add(Cell {
                counter: charge.counter.to_string(),
                epoch: charge.epoch,
                amount: charge.amount,
                expires_at: charge.expires_at,
            });
        }
    }

    pub(crate) fn cells(self) -> Vec<Cell> {
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
