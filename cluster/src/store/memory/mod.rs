//! A store in memory: the reference that the database store is compared with.

mod fleet;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use policy::Timestamp;

use self::fleet::Term;
use super::{Added, Loaded, NOBODY, Position, Store, Sums, UsagePage, UsageQuery, Written, judge};
use crate::audit::{self, AuditHead, AuditKey, AuditRow};
use crate::core::HeartbeatRow;
use crate::data_dir::NodeKey;
use crate::entity::{Change, Entity, EntityWrite};
use crate::error::{StoreError, WriteError};
use crate::message::Outcome;
use crate::origin::Origin;
use crate::record::UsageRecord;

/// Keeps everything in maps; gone with the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    usage: BTreeMap<String, UsageRecord>,
    /// Request ids with their origins, in the order of coming.
    order: Vec<(String, Origin)>,
    /// By counter, epoch and origin.
    cells: BTreeMap<(String, i64, Origin), Kept>,
    heartbeats: BTreeMap<NodeKey, (HeartbeatRow, Instant)>,
    /// By scope and task, as are outcomes.
    terms: BTreeMap<(String, String), Term>,
    outcomes: BTreeMap<(String, String), Outcome>,
    /// By counter and epoch; the ends.
    sealed: BTreeMap<(String, i64), Timestamp>,
    late: Vec<((String, i64), u64)>,
    revision: u64,
    /// By kind and name.
    entities: BTreeMap<(String, String), Entity>,
    audit: Vec<AuditRow>,
    head: Option<AuditHead>,
}

/// One cell.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Of its records.
    amount: u64,
    /// As its origin told.
    live: u64,
    expires_at: Timestamp,
}

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Each call changes the maps without a point where it could panic half way.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn record_usage(&self, origin: Origin, batch: &[UsageRecord]) -> Result<u64, StoreError> {
        let mut tables = self.tables();
        let mut fresh = 0;
        for record in batch {
            if tables.usage.contains_key(&record.request_id) {
                continue;
            }
            for charge in &record.charges {
                let key = (charge.counter.to_string(), charge.epoch, origin);
                let kept = tables.cells.entry(key).or_default();
                kept.amount = kept
                    .amount
                    .saturating_add(charge.amount)
                    .min(i64::MAX as u64);
                kept.expires_at = charge.expires_at.max(kept.expires_at);
            }
            tables
                .usage
                .insert(record.request_id.clone(), record.clone());
            tables.order.push((record.request_id.clone(), origin));
            fresh += 1;
        }
        Ok(fresh)
    }

    fn load_cells(&self, now: Timestamp) -> Result<Loaded, StoreError> {
        let tables = self.tables();
        Ok(Loaded {
            by_origin: tables.live_cells(now),
            position: Position(tables.order.len() as i64),
        })
    }

    fn added_cells(&self, origin: Origin, after: Position, most: u32) -> Result<Added, StoreError> {
        let is_of_it = |of: Origin| of == origin || (of.node == NOBODY && of.boot == origin.boot);
        let tables = self.tables();
        let rest = tables.order.get(after.0 as usize..).unwrap_or_default();
        let page = &rest[..rest.len().min(most as usize)];
        let mut sums = Sums::default();
        for (id, _) in page.iter().filter(|(_, of)| is_of_it(*of)) {
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
        tables.cells.retain(|_, kept| kept.expires_at > now);
        Ok((before - tables.cells.len()) as u64)
    }

    fn usage(&self, request_id: &str) -> Result<Option<UsageRecord>, StoreError> {
        Ok(self.tables().usage.get(request_id).cloned())
    }

    fn recent_usage(&self, query: UsageQuery<'_>) -> Result<UsagePage, StoreError> {
        let tables = self.tables();
        let older = tables.usage.range(..query.upper().to_owned()).rev();
        let older: Vec<&UsageRecord> = older.map(|(_, record)| record).collect();
        let Some(key) = query.key else {
            let found = older.into_iter().take(query.wanted()).cloned();
            return Ok(query.page(found.collect(), None));
        };
        let (looked_at, rest) = older.split_at(older.len().min(key.scan as usize));
        let found = looked_at.iter().filter(|record| record.key == key.name);
        let found = found.take(query.wanted()).map(|record| (*record).clone());
        let scanned = looked_at.last().filter(|_| !rest.is_empty());
        Ok(query.page(
            found.collect(),
            scanned.map(|record| record.request_id.clone()),
        ))
    }

    fn usage_count(&self) -> Result<u64, StoreError> {
        Ok(self.tables().usage.len() as u64)
    }

    fn write_entities(
        &self,
        writes: &[EntityWrite],
        change: &Change,
        key: &AuditKey,
    ) -> Result<Written, WriteError> {
        let mut tables = self.tables();
        let mut entities = tables.entities.clone();
        let revision = tables.revision + u64::from(!writes.is_empty());
        let mut written = Vec::new();
        for write in writes {
            let place = (write.kind.clone(), write.name.clone());
            let live = entities.get(&place).filter(|entity| entity.body.is_some());
            judge(write, live.map(|entity| entity.revision))?;
            let entity = Entity {
                kind: write.kind.clone(),
                name: write.name.clone(),
                revision,
                body: write.body.as_deref().map(Into::into),
                changed_at: change.at,
            };
            entities.insert(place, entity.clone());
            written.push(entity);
        }
        let from = tables.head.as_ref().map_or(1, |head| head.seq);
        let rest = tables.audit.iter().filter(|row| row.seq >= from);
        let last: Vec<_> = rest.take(2).cloned().collect();
        audit::attest(tables.head.as_ref(), &last, key)?;
        let (row, head) = audit::next(tables.head.as_ref(), change, revision, key)?;
        tables.entities = entities;
        tables.revision = revision;
        tables.audit.push(row.clone());
        tables.head = Some(head);
        Ok(Written {
            entities: written,
            row,
        })
    }

    fn entities_since(&self, after: u64, most: u32) -> Result<Vec<Entity>, StoreError> {
        let tables = self.tables();
        let mut found: Vec<Entity> = tables
            .entities
            .values()
            .filter(|entity| entity.revision > after)
            .cloned()
            .collect();
        found.sort_by_key(|entity| entity.revision);
        if let Some(last) = found.get((most.max(1) - 1) as usize) {
            let last = last.revision;
            found.retain(|entity| entity.revision <= last);
        }
        Ok(found)
    }

    fn audit_rows(&self, after_seq: u64, most: u32) -> Result<Vec<AuditRow>, StoreError> {
        let tables = self.tables();
        let rows = tables.audit.iter().filter(|row| row.seq > after_seq);
        Ok(rows.take(most as usize).cloned().collect())
    }

    fn audit_head(&self) -> Result<Option<AuditHead>, StoreError> {
        Ok(self.tables().head.clone())
    }
}
