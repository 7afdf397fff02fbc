//! The fleet's side of the store in SQLite: for one node, which is its own cluster.

use std::time::Duration;

use policy::{Cell, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{SqliteStore, bytes, cells, failed, lock, seal, signed, unsigned};
use crate::core::HeartbeatRow;
use crate::data_dir::NodeKey;
use crate::error::StoreError;
use crate::message::{Outcome, WireCell};
use crate::origin::Origin;
use crate::store::fleet::{heartbeat_kept_ms, millis};
use crate::store::{FleetStore, Sealed, Sealing};

/// Unix milliseconds, by the machine's clock.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}
pub(super) use now;

const BEAT: &str = concat!(
    "INSERT INTO node_heartbeat (node, boot, name, region, beat_at_ms) VALUES (?1, ?2, ?3, ?4, ",
    now!(),
    ") ON CONFLICT (node) DO UPDATE SET
        boot = excluded.boot, name = excluded.name, region = excluded.region,
        beat_at_ms = excluded.beat_at_ms
    WHERE boot <= excluded.boot"
);

const SELECT_BEATS: &str = concat!(
    "SELECT node, boot, name, region, ",
    now!(),
    " - beat_at_ms FROM node_heartbeat ORDER BY node"
);

const FORGET_BEATS: &str = concat!(
    "DELETE FROM node_heartbeat WHERE beat_at_ms < ",
    now!(),
    " - ?1"
);

// The same term only for who holds it now; a larger one for who may take it.
const TAKE_TERM: &str = concat!(
    "INSERT INTO leader_term (scope, task, term, node, boot, lease_until_ms)
    VALUES (?1, ?2, 1, ?3, ?4, ",
    now!(),
    " + ?5) ON CONFLICT (scope, task) DO UPDATE SET
        term = term + (node <> excluded.node OR boot <> excluded.boot OR lease_until_ms <= ",
    now!(),
    "), node = excluded.node, boot = excluded.boot, lease_until_ms = excluded.lease_until_ms
    WHERE lease_until_ms <= ",
    now!(),
    " OR node = excluded.node RETURNING term"
);

const RELEASE_TERM: &str = concat!(
    "UPDATE leader_term SET lease_until_ms = ",
    now!(),
    " WHERE scope = ?1 AND task = ?2 AND node = ?3 AND boot = ?4 AND term = ?5"
);

const SELECT_TERM: &str = "SELECT term FROM leader_term WHERE scope = ?1 AND task = ?2";

const KEEP_OUTCOME: &str = "
    INSERT INTO leader_outcome (scope, task, term, hash, at_ms, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (scope, task) DO UPDATE SET
        term = excluded.term, hash = excluded.hash, at_ms = excluded.at_ms, body = excluded.body
    WHERE term <= excluded.term";

const SELECT_OUTCOMES: &str =
    "SELECT scope, task, term, hash, at_ms, body FROM leader_outcome ORDER BY scope, task";

impl FleetStore for SqliteStore {
    fn cells_by_origin(&self, now: Timestamp) -> Result<Vec<(Origin, Cell)>, StoreError> {
        cells::by_origin(&lock(&self.reader), now).map_err(|source| failed("load cells", source))
    }

    fn flush_cells(&self, cells: &[(Origin, WireCell)]) -> Result<(), StoreError> {
        self.write("flush cells", |transaction| {
            cells::raise(transaction, cells)
        })
    }

    fn expire_windows(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write("expire cells", |transaction| {
            transaction.execute(FORGET_BEATS, [heartbeat_kept_ms()])?;
            seal::expire_rest(transaction, now)
        })
    }

    fn heartbeat(&self, origin: Origin, name: &str, region: &str) -> Result<(), StoreError> {
        self.write("keep a heartbeat", |transaction| {
            let row = params![bytes(origin.node), signed(origin.boot), name, region];
            transaction.execute(BEAT, row).map(drop)
        })
    }

    fn heartbeats(&self) -> Result<Vec<HeartbeatRow>, StoreError> {
        let reader = lock(&self.reader);
        beats(&reader).map_err(|source| failed("read heartbeats", source))
    }

    fn take_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        lease: Duration,
    ) -> Result<Option<u64>, StoreError> {
        self.write("take a term", |transaction| {
            let (node, boot) = (bytes(me.node), signed(me.boot));
            let taken = params![scope, task, node, boot, millis(lease)];
            let term = transaction.query_row(TAKE_TERM, taken, |row| row.get(0));
            Ok(term.optional()?.map(unsigned))
        })
    }

    fn release_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        term: u64,
    ) -> Result<(), StoreError> {
        self.write("release a term", |transaction| {
            let held = params![scope, task, bytes(me.node), signed(me.boot), signed(term)];
            transaction.execute(RELEASE_TERM, held).map(drop)
        })
    }

    fn present_term(&self, scope: &str, task: &str) -> Result<Option<u64>, StoreError> {
        let reader = lock(&self.reader);
        let term = reader.query_row(SELECT_TERM, [scope, task], |row| row.get(0));
        let term = term.optional();
        term.map(|term| term.map(unsigned))
            .map_err(|source| failed("read a term", source))
    }

    fn save_outcome(&self, outcome: &Outcome) -> Result<bool, StoreError> {
        self.write("keep an outcome", |transaction| {
            let place = [&outcome.scope, &outcome.task];
            let taken = transaction.query_row(SELECT_TERM, place, |row| row.get(0));
            if taken.optional()?.map(unsigned) > Some(outcome.term) {
                return Ok(false);
            }
            let row = params![
                outcome.scope,
                outcome.task,
                signed(outcome.term),
                outcome.hash,
                signed(outcome.at.0),
                &*outcome.body,
            ];
            Ok(transaction.execute(KEEP_OUTCOME, row)? == 1)
        })
    }

    fn outcomes(&self) -> Result<Vec<Outcome>, StoreError> {
        let reader = lock(&self.reader);
        outcomes(&reader).map_err(|source| failed("read outcomes", source))
    }

    fn seal_windows(&self, sealing: Sealing) -> Result<Sealed, StoreError> {
        self.write("seal windows", |transaction| {
            seal::seal(transaction, sealing)
        })
    }

    fn forget_sealed(&self, sealing: Sealing) -> Result<Sealed, StoreError> {
        self.write("forget sealed windows", |transaction| {
            seal::forget(transaction, sealing)
        })
    }
}

impl SqliteStore {
    /// Does the work in one transaction, which has the file for itself.
    fn write<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut writer = lock(&self.writer);
        let write = || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        write().map_err(|source| failed(action, source))
    }
}

fn beats(reader: &Connection) -> rusqlite::Result<Vec<HeartbeatRow>> {
    let read = |row: &Row<'_>| {
        let node = NodeKey(u128::from_be_bytes(row.get(0)?));
        let boot = unsigned(row.get(1)?);
        Ok(HeartbeatRow {
            origin: Origin { node, boot },
            name: row.get(2)?,
            region: row.get(3)?,
            stale_for: Duration::from_millis(unsigned(row.get(4)?)),
        })
    };
    reader
        .prepare_cached(SELECT_BEATS)?
        .query_map([], read)?
        .collect()
}

fn outcomes(reader: &Connection) -> rusqlite::Result<Vec<Outcome>> {
    let read = |row: &Row<'_>| {
        Ok(Outcome {
            scope: row.get(0)?,
            task: row.get(1)?,
            term: unsigned(row.get(2)?),
            hash: row.get(3)?,
            at: Timestamp(unsigned(row.get(4)?)),
            body: row.get::<_, Vec<u8>>(5)?.into(),
        })
    };
    reader
        .prepare_cached(SELECT_OUTCOMES)?
        .query_map([], read)?
        .collect()
}
