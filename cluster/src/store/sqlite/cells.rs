//! Counter cells in SQLite.

use std::collections::HashMap;

use policy::{Cell, Charge, Timestamp};
use rusqlite::{Connection, Row, Transaction, params};

use super::{bytes, parsed, signed, unsigned};
use crate::data_dir::NodeKey;
use crate::message::WireCell;
use crate::origin::Origin;
use crate::record::charges_from_json;
use crate::store::{Added, Loaded, NOBODY, Position, Sums, owner};

const KNOW_ORIGIN: &str = "INSERT OR IGNORE INTO origin (number, node, boot) VALUES (?1, ?2, ?3)";

// SQLite turns an integer sum that overflows into a float, hence the comparison first.
// Changes nothing when the cell is to live longer than it was: writing the expiry, even an equal
// one, would write its index with every addition.
const ADD_CHARGE: &str = "
    INSERT INTO counter_cells (counter, epoch, boot, expires_at_ms, amount)
    VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (counter, epoch, boot) DO UPDATE SET
        amount = CASE
            WHEN amount > 9223372036854775807 - excluded.amount THEN 9223372036854775807
            ELSE amount + excluded.amount
        END
    WHERE expires_at_ms >= excluded.expires_at_ms";

const PROLONG_CELL: &str = "
    UPDATE counter_cells SET expires_at_ms = ?4
    WHERE counter = ?1 AND epoch = ?2 AND boot = ?3";

const RAISE_CELL: &str = "
    INSERT INTO counter_cells (counter, epoch, boot, expires_at_ms, amount, live)
    VALUES (?1, ?2, ?3, ?4, 0, ?5)
    ON CONFLICT (counter, epoch, boot) DO UPDATE SET
        live = excluded.live,
        expires_at_ms = max(expires_at_ms, excluded.expires_at_ms)
    WHERE live < excluded.live";

const SELECT_CELLS: &str = "
    SELECT counter, epoch, max(amount, live), expires_at_ms, counter_cells.boot, node, origin.boot
    FROM counter_cells LEFT JOIN origin ON number = counter_cells.boot
    WHERE expires_at_ms > ?1";

// Rows are numbered in the order in which they are committed, as only one writer is at work.
const SELECT_POSITION: &str = "SELECT coalesce(max(rowid), 0) FROM usage_record";

// Rows of other origins count towards the limit, so that the work is bounded.
const SELECT_ADDED: &str = "
    SELECT rowid, CASE WHEN boot = ?1 AND node IN (?2, ?3) THEN charges END FROM usage_record
    WHERE rowid > ?4 ORDER BY rowid LIMIT ?5";

const EXPIRE_CELLS: &str = "DELETE FROM counter_cells WHERE expires_at_ms <= ?1";

/// What a batch adds to each cell.
#[derive(Debug, Default)]
pub(super) struct Additions<'a>(HashMap<(&'a str, i64), (u64, Timestamp)>);

impl<'a> Additions<'a> {
    pub(super) fn add(&mut self, charges: &'a [Charge]) {
        for charge in charges {
            let key = (&*charge.counter, charge.epoch);
            let (amount, expires_at) = self.0.entry(key).or_default();
            *amount = amount.saturating_add(charge.amount);
            *expires_at = charge.expires_at.max(*expires_at);
        }
    }
}

pub(super) fn add(
    transaction: &Transaction<'_>,
    origin: Origin,
    additions: Additions<'_>,
) -> rusqlite::Result<()> {
    let mut sums: Vec<_> = additions.0.into_iter().collect();
    // In the order of the table, which visits each of its pages once.
    sums.sort_unstable_by_key(|(cell, _)| *cell);
    if !sums.is_empty() {
        know(transaction, origin)?;
    }
    let number = owner::number(origin);
    let mut statement = transaction.prepare_cached(ADD_CHARGE)?;
    for ((counter, epoch), (amount, expires_at)) in sums {
        let expires_at = signed(expires_at.0);
        let addition = params![counter, epoch, number, expires_at, signed(amount)];
        if statement.execute(addition)? == 0 {
            transaction
                .prepare_cached(PROLONG_CELL)?
                .execute(params![counter, epoch, number, expires_at])?;
            statement.execute(addition)?;
        }
    }
    Ok(())
}

pub(super) fn raise(
    transaction: &Transaction<'_>,
    cells: &[(Origin, WireCell)],
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(RAISE_CELL)?;
    for (origin, cell) in cells {
        know(transaction, *origin)?;
        statement.execute(params![
            &*cell.counter,
            cell.epoch,
            owner::number(*origin),
            signed(cell.expires_at.0),
            signed(cell.used),
        ])?;
    }
    Ok(())
}

/// Writes down whose number it is.
fn know(transaction: &Transaction<'_>, origin: Origin) -> rusqlite::Result<()> {
    if origin.node != NOBODY {
        let number = owner::number(origin);
        let boot = signed(origin.boot);
        transaction.prepare_cached(KNOW_ORIGIN)?.execute(params![
            number,
            bytes(origin.node),
            boot
        ])?;
    }
    Ok(())
}

pub(super) fn load(reader: &mut Connection, now: Timestamp) -> rusqlite::Result<Loaded> {
    // Both readings see the same moment.
    let transaction = reader.transaction()?;
    let position = transaction.query_row(SELECT_POSITION, [], |row| row.get(0))?;
    Ok(Loaded {
        by_origin: by_origin(&transaction, now)?,
        position: Position(position),
    })
}

pub(super) fn by_origin(
    reader: &Connection,
    now: Timestamp,
) -> rusqlite::Result<Vec<(Origin, Cell)>> {
    reader
        .prepare_cached(SELECT_CELLS)?
        .query_map([signed(now.0)], |row| Ok((origin(row)?, cell(row)?)))?
        .collect()
}

fn cell(row: &Row<'_>) -> rusqlite::Result<Cell> {
    Ok(Cell {
        counter: row.get(0)?,
        epoch: row.get(1)?,
        amount: unsigned(row.get(2)?),
        expires_at: Timestamp(unsigned(row.get(3)?)),
    })
}

fn origin(row: &Row<'_>) -> rusqlite::Result<Origin> {
    match row.get::<_, Option<[u8; 16]>>(5)? {
        Some(node) => Ok(Origin {
            node: NodeKey(u128::from_be_bytes(node)),
            boot: unsigned(row.get(6)?),
        }),
        None => Ok(owner::unknown(row.get(4)?)),
    }
}

pub(super) fn added(
    reader: &Connection,
    origin: Origin,
    after: Position,
    most: u32,
) -> rusqlite::Result<Added> {
    let mut statement = reader.prepare_cached(SELECT_ADDED)?;
    let (node, nobody) = (bytes(origin.node), bytes(NOBODY));
    let mut rows = statement.query(params![signed(origin.boot), node, nobody, after.0, most])?;
    let (mut sums, mut position, mut seen) = (Sums::default(), after, 0);
    while let Some(row) = rows.next()? {
        seen += 1;
        position = Position(row.get(0)?);
        if let Some(text) = row.get::<_, Option<String>>(1)? {
            sums.add_charges(&parsed(1, &text, charges_from_json)?);
        }
    }
    Ok(Added {
        cells: sums.cells(),
        position,
        complete: seen < most,
    })
}

pub(super) fn expire(writer: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    let removed = writer.execute(EXPIRE_CELLS, params![signed(now.0)])?;
    Ok(removed as u64)
}
