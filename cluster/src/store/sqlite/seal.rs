//! Sealing in SQLite: cells of calendar periods that have passed move to the sealed ones.

use policy::Timestamp;
use rusqlite::{Transaction, params};

use super::fleet::now;
use super::{bytes, signed, unsigned};
use crate::store::fleet::{ENDED_KEPT_MS, is_sealed};
use crate::store::{CLUSTER_SCOPE, SEAL_AFTER_MS, SEAL_TASK, Sealed, Sealing};

const IS_HELD: &str = concat!(
    "SELECT count(*) FROM leader_term WHERE scope = ?1 AND task = ?2 AND node = ?3 AND boot = ?4
        AND term = ?5 AND lease_until_ms > ",
    now!()
);

// No later than that, whatever a node's clock says.
const SELECT_LATEST: &str = concat!("SELECT min(?1, ", now!(), " - ?2)");

const SELECT_ENDED: &str = "
    SELECT DISTINCT counter, epoch FROM counter_cells WHERE expires_at_ms <= ?1 AND amount > 0
    ORDER BY counter, epoch";

const TAKE_CELLS: &str = "
    DELETE FROM counter_cells WHERE counter = ?1 AND epoch = ?2 AND expires_at_ms <= ?3
    RETURNING amount, expires_at_ms";

const SEAL: &str = "
    INSERT OR IGNORE INTO usage_sealed (counter, epoch, amount, ended_ms, term)
    VALUES (?1, ?2, ?3, ?4, ?5)";

const ADD_LATE: &str =
    "INSERT INTO usage_late (counter, epoch, amount, term) VALUES (?1, ?2, ?3, ?4)";

const SELECT_OLD: &str = "
    SELECT counter, epoch, boot, amount FROM counter_cells WHERE expires_at_ms <= ?1";

const DELETE_CELL: &str =
    "DELETE FROM counter_cells WHERE counter = ?1 AND epoch = ?2 AND boot = ?3";

const SELECT_FORGOTTEN: &str = "
    SELECT counter, epoch FROM usage_sealed WHERE ended_ms <= ?1 ORDER BY ended_ms LIMIT ?2";

const DELETE_SEALED: &str = "DELETE FROM usage_sealed WHERE counter = ?1 AND epoch = ?2";

const DELETE_LATE: &str = "DELETE FROM usage_late WHERE counter = ?1 AND epoch = ?2";

fn is_held(transaction: &Transaction<'_>, sealing: Sealing) -> rusqlite::Result<bool> {
    let (node, boot) = (bytes(sealing.me.node), signed(sealing.me.boot));
    let held = params![CLUSTER_SCOPE, SEAL_TASK, node, boot, signed(sealing.term)];
    let held: i64 = transaction.query_row(IS_HELD, held, |row| row.get(0))?;
    Ok(held > 0)
}

/// Removes old books.
pub(super) fn forget(transaction: &Transaction<'_>, sealing: Sealing) -> rusqlite::Result<Sealed> {
    let mut done = Sealed::default();
    if !is_held(transaction, sealing)? {
        done.stale = true;
        return Ok(done);
    }
    let old = transaction
        .prepare_cached(SELECT_FORGOTTEN)?
        .query_map(params![signed(sealing.before.0), sealing.most], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<Vec<(String, i64)>>>()?;
    done.more = old.len() >= sealing.most as usize;
    for (counter, epoch) in old {
        let window = params![counter, epoch];
        done.windows += transaction.prepare_cached(DELETE_SEALED)?.execute(window)? as u64;
        done.late += transaction.prepare_cached(DELETE_LATE)?.execute(window)? as u64;
    }
    Ok(done)
}

pub(super) fn seal(transaction: &Transaction<'_>, sealing: Sealing) -> rusqlite::Result<Sealed> {
    let term = signed(sealing.term);
    let mut done = Sealed::default();
    if !is_held(transaction, sealing)? {
        done.stale = true;
        return Ok(done);
    }
    let before = latest(transaction, sealing.before, SEAL_AFTER_MS)?;
    let mut windows = transaction
        .prepare_cached(SELECT_ENDED)?
        .query_map([before], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, i64)>>>()?;
    windows.retain(|(counter, _)| is_sealed(counter));
    done.more = windows.len() > sealing.most as usize;
    windows.truncate(sealing.most as usize);
    for (counter, epoch) in windows {
        let (mut amount, mut ended) = (0_u64, 0);
        let mut taken = transaction.prepare_cached(TAKE_CELLS)?;
        let mut rows = taken.query(params![counter, epoch, before])?;
        while let Some(row) = rows.next()? {
            amount = amount.saturating_add(unsigned(row.get(0)?));
            ended = ended.max(row.get(1)?);
        }
        let amount = signed(amount);
        let row = params![counter, epoch, amount, ended, term];
        if transaction.prepare_cached(SEAL)?.execute(row)? == 1 {
            done.windows += 1;
        } else {
            let row = params![counter, epoch, amount, term];
            transaction.prepare_cached(ADD_LATE)?.execute(row)?;
            done.late += 1;
        }
    }
    Ok(done)
}

/// The earlier of `at` and a time so many milliseconds before the present one.
fn latest(transaction: &Transaction<'_>, at: Timestamp, ago: u64) -> rusqlite::Result<i64> {
    let times = params![signed(at.0), signed(ago)];
    transaction.query_row(SELECT_LATEST, times, |row| row.get(0))
}

/// Removes cells that no longer matter, except those that are to be sealed.
pub(super) fn expire_rest(transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<u64> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?))
    };
    let ended = Timestamp(now.0.saturating_sub(ENDED_KEPT_MS));
    let ended = latest(transaction, ended, ENDED_KEPT_MS)?;
    let old = transaction
        .prepare_cached(SELECT_OLD)?
        .query_map([ended], read)?
        .collect::<rusqlite::Result<Vec<(String, i64, i64, i64)>>>()?;
    let mut delete = transaction.prepare_cached(DELETE_CELL)?;
    let mut removed = 0;
    for (counter, epoch, boot, amount) in old {
        if amount == 0 || !is_sealed(&counter) {
            removed += delete.execute(params![counter, epoch, boot])?;
        }
    }
    Ok(removed as u64)
}
