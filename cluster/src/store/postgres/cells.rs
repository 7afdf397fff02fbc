//! Counter cells in Postgres.
//!
//! Everything takes its locks in one order, so that nothing waits in a circle: the lock that those
//! share who add usage, rows of `usage_record`, of `origin` by number, cells by counter, epoch and
//! origin; whoever removes cells waits for none of theirs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use policy::{Cell, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Client, Outcome, Transaction, Trouble, clean, node_of, signed, unsigned};
use crate::message::WireCell;
use crate::origin::Origin;
use crate::record::{UsageRecord, charges_from_json};
use crate::store::fleet::ENDED_KEPT_MS;
use crate::store::{Added, Loaded, NOBODY, Position, Sums, owner};

/// Longest counter name kept as it is, in bytes: Postgres refuses an index entry of more than 2,704.
const COUNTER_BYTES: usize = 1_024;

/// Cells removed by one statement, and how long such statements may follow each other.
const EXPIRE_AT_ONCE: i64 = 10_000;
const EXPIRE_FOR: Duration = Duration::from_secs(3);

const KNOW_ORIGINS: &str = "
    INSERT INTO origin (number, node, boot)
    SELECT number, node::uuid, boot
    FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS known (number, node, boot)
    ON CONFLICT DO NOTHING";

// A sum too large for its column would fail the batch that carries it for ever.
const ADD_CHARGES: &str = "
    INSERT INTO counter_cells AS cell (counter, epoch, boot, expires_at_ms, amount)
    SELECT counter, epoch, $1::bigint, expires_at_ms, amount
    FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS addition (counter, epoch, expires_at_ms, amount)
    ORDER BY counter COLLATE \"C\", epoch
    ON CONFLICT (counter, epoch, boot) DO UPDATE SET
        amount = CASE
            WHEN cell.amount > 9223372036854775807 - excluded.amount THEN 9223372036854775807
            ELSE cell.amount + excluded.amount
        END,
        expires_at_ms = greatest(cell.expires_at_ms, excluded.expires_at_ms)";

const RAISE_CELLS: &str = "
    INSERT INTO counter_cells AS cell (counter, epoch, boot, expires_at_ms, amount, live)
    SELECT counter, epoch, number, expires_at_ms, 0, used
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS told (counter, epoch, number, expires_at_ms, used)
    ORDER BY counter COLLATE \"C\", epoch, number
    ON CONFLICT (counter, epoch, boot) DO UPDATE SET
        live = greatest(cell.live, excluded.live),
        expires_at_ms = greatest(cell.expires_at_ms, excluded.expires_at_ms)
    WHERE cell.live < excluded.live";

// Every transaction that adds usage shares this lock. Who holds it alone waits for all of them, and
// the next ones wait in turn: what is read then is exact, over all nodes. Taken at a start only. A
// lock on the table would wait for its vacuum, too, which may take hours.
pub(super) const SHARE_USAGE: &str = "SELECT pg_advisory_xact_lock_shared(8391747294018458)";
const HOLD_USAGE: &str = "SELECT pg_advisory_xact_lock(8391747294018458)";

const SELECT_POSITION: &str =
    "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM usage_record_seq_seq";

const SELECT_CELLS: &str = "
    SELECT counter, epoch, greatest(amount, live), expires_at_ms, cell.boot, node::text, origin.boot
    FROM counter_cells AS cell LEFT JOIN origin ON number = cell.boot
    WHERE expires_at_ms > $1";

// Of one boot alone: its records are numbered in the order of their commits, as one thread stores
// them; those of different boots are not.
const SELECT_ADDED: &str = "
    SELECT seq, charges FROM usage_record
    WHERE boot = $1 AND seq > $2 AND node IN ($4::text::uuid, $5::text::uuid)
    ORDER BY seq LIMIT $3";

const EXPIRE_CELLS: &str = "
    DELETE FROM counter_cells WHERE (counter, epoch, boot) IN (
        SELECT counter, epoch, boot FROM counter_cells WHERE expires_at_ms <= $1
        LIMIT $2 FOR UPDATE SKIP LOCKED)";

// As `is_sealed` says it: the fifth part of a counter's text is its window and generation.
const EXPIRE_REST: &str = "
    DELETE FROM counter_cells WHERE (counter, epoch, boot) IN (
        SELECT counter, epoch, boot FROM counter_cells
        WHERE expires_at_ms <= least($1, (extract(epoch FROM now()) * 1000)::bigint) - $3::bigint
        AND NOT (amount > 0 AND split_part(split_part(counter, '/', 5), '#', 1) = 'calendar')
        LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// Which of the cells that no longer matter are removed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Old {
    All,
    /// Those that are not to be sealed, and ended ten minutes ago also by the server's clock.
    Rest,
}

/// Adds what new records of the origin charge.
pub(super) async fn add(
    transaction: &Transaction<'_>,
    origin: Origin,
    additions: &Additions<'_>,
) -> Outcome<()> {
    if additions.counters.is_empty() {
        return Ok(());
    }
    know(transaction, [origin]).await?;
    let number = owner::number(origin);
    let add = transaction.prepare_cached(ADD_CHARGES).await?;
    transaction
        .execute(&add, &additions.parameters(&number))
        .await?;
    Ok(())
}

/// Raises cells to what their origins told; changes nothing where as much is known.
pub(super) async fn raise(client: &mut Client, cells: &[(Origin, WireCell)]) -> Outcome<()> {
    let told = Told::of(cells);
    let transaction = client.transaction().await?;
    let origins: BTreeSet<Origin> = cells.iter().map(|(origin, _)| *origin).collect();
    know(&transaction, origins).await?;
    let raise = transaction.prepare_cached(RAISE_CELLS).await?;
    transaction.execute(&raise, &told.parameters()).await?;
    transaction.commit().await?;
    Ok(())
}

/// Writes down whose their numbers are.
async fn know(
    transaction: &Transaction<'_>,
    origins: impl IntoIterator<Item = Origin>,
) -> Outcome<()> {
    let named = origins.into_iter().filter(|origin| origin.node != NOBODY);
    let mut rows: Vec<_> = named
        .map(|origin| (owner::number(origin), origin))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_unstable();
    let numbers: Vec<i64> = rows.iter().map(|(number, _)| *number).collect();
    let nodes: Vec<String> = rows.iter().map(|(_, of)| of.node.to_string()).collect();
    let boots: Vec<i64> = rows.iter().map(|(_, of)| signed(of.boot)).collect();
    let know = transaction.prepare_cached(KNOW_ORIGINS).await?;
    transaction
        .execute(&know, &[&numbers, &nodes, &boots])
        .await?;
    Ok(())
}

/// All cells that matter at `now`, and what they contain.
pub(super) async fn load(client: &mut Client, now: Timestamp) -> Outcome<Loaded> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(HOLD_USAGE).await?;
    let position = transaction.query_one(SELECT_POSITION, &[]).await?;
    let select = transaction.prepare_cached(SELECT_CELLS).await?;
    let rows = transaction.query(&select, &[&signed(now.0)]).await?;
    transaction.commit().await?;
    Ok(Loaded {
        by_origin: rows.iter().map(read_cell).collect::<Outcome<_>>()?,
        position: Position(position.try_get(0)?),
    })
}

/// The same beside everybody who writes: some of them may be seen and some not.
pub(super) async fn by_origin(client: &mut Client, now: Timestamp) -> Outcome<Vec<(Origin, Cell)>> {
    let select = client.prepare_cached(SELECT_CELLS).await?;
    let rows = client.query(&select, &[&signed(now.0)]).await?;
    rows.iter().map(read_cell).collect()
}

fn read_cell(row: &Row) -> Outcome<(Origin, Cell)> {
    let origin = match row.try_get::<_, Option<&str>>(5)? {
        Some(node) => Origin {
            node: node_of(node)?,
            boot: unsigned(row.try_get(6)?),
        },
        None => owner::unknown(row.try_get(4)?),
    };
    let cell = Cell {
        counter: row.try_get(0)?,
        epoch: row.try_get(1)?,
        amount: unsigned(row.try_get(2)?),
        expires_at: Timestamp(unsigned(row.try_get(3)?)),
    };
    Ok((origin, cell))
}

/// What the next `most` records of the origin were charged with.
pub(super) async fn added(
    client: &mut Client,
    origin: Origin,
    after: Position,
    most: u32,
) -> Outcome<Added> {
    let select = client.prepare_cached(SELECT_ADDED).await?;
    let parameters: [&(dyn ToSql + Sync); 5] = [
        &signed(origin.boot),
        &after.0,
        &i64::from(most),
        &origin.node.to_string(),
        &NOBODY.to_string(),
    ];
    let rows = client.query(&select, &parameters).await?;
    let (mut sums, mut position) = (Sums::default(), after);
    for row in &rows {
        position = Position(row.try_get(0)?);
        sums.add_charges(&charges_from_json(row.try_get(1)?).map_err(Trouble::content)?);
    }
    Ok(Added {
        cells: sums.cells(),
        position,
        complete: rows.len() < most as usize,
    })
}

/// Removes cells that no longer matter; those that are being written are left for the next time, and
/// so are those that there is no time for. A few at once: one statement for millions would run into
/// its timeout, and with more of them each time it would never succeed again.
pub(super) async fn expire(client: &mut Client, now: Timestamp, old: Old) -> Outcome<u64> {
    let (now, kept) = (signed(now.0), signed(ENDED_KEPT_MS));
    let parameters: [&(dyn ToSql + Sync); 3] = [&now, &EXPIRE_AT_ONCE, &kept];
    let (expire, parameters) = match old {
        Old::All => (EXPIRE_CELLS, &parameters[..2]),
        Old::Rest => (EXPIRE_REST, &parameters[..]),
    };
    let expire = client.prepare_cached(expire).await?;
    let (begun, mut removed) = (Instant::now(), 0);
    loop {
        let some = client.execute(&expire, parameters).await?;
        removed += some;
        if some < EXPIRE_AT_ONCE.unsigned_abs() || begun.elapsed() > EXPIRE_FOR {
            return Ok(removed);
        }
    }
}

/// What new records add to each cell, as one array for each column.
#[derive(Default)]
pub(super) struct Additions<'a> {
    counters: Vec<Cow<'a, str>>,
    epochs: Vec<i64>,
    expiries: Vec<i64>,
    amounts: Vec<i64>,
}

impl<'a> Additions<'a> {
    /// Takes each id out of `fresh` with the first record that has it: that one was inserted.
    pub(super) fn of(batch: &'a [UsageRecord], fresh: &mut HashSet<&str>) -> Self {
        let mut names: HashMap<&str, Cow<'a, str>> = HashMap::new();
        let mut sums: BTreeMap<(Cow<'a, str>, i64), (u64, Timestamp)> = BTreeMap::new();
        for record in batch {
            if !fresh.remove(&*clean(&record.request_id)) {
                continue;
            }
            for charge in &record.charges {
                let name = names
                    .entry(&charge.counter)
                    .or_insert_with(|| counter_name(&charge.counter));
                let sum = sums.entry((name.clone(), charge.epoch)).or_default();
                sum.0 = sum.0.saturating_add(charge.amount);
                sum.1 = charge.expires_at.max(sum.1);
            }
        }
        let mut additions = Self::default();
        for ((counter, epoch), (amount, expires_at)) in sums {
            additions.counters.push(counter);
            additions.epochs.push(epoch);
            additions.expiries.push(signed(expires_at.0));
            additions.amounts.push(signed(amount));
        }
        additions
    }

    fn parameters<'b>(&'b self, number: &'b i64) -> [&'b (dyn ToSql + Sync); 5] {
        [
            number,
            &self.counters,
            &self.epochs,
            &self.expiries,
            &self.amounts,
        ]
    }
}

/// Cells as their origins told them, each once, as one array for each column.
#[derive(Default)]
struct Told<'a> {
    counters: Vec<Cow<'a, str>>,
    epochs: Vec<i64>,
    numbers: Vec<i64>,
    expiries: Vec<i64>,
    used: Vec<i64>,
}

impl<'a> Told<'a> {
    fn of(cells: &'a [(Origin, WireCell)]) -> Self {
        // Of one that is there twice, the larger: a statement may write a row only once.
        let mut largest: BTreeMap<(Cow<'a, str>, i64, i64), (u64, Timestamp)> = BTreeMap::new();
        for (origin, cell) in cells {
            let key = (
                counter_name(&cell.counter),
                cell.epoch,
                owner::number(*origin),
            );
            let (used, expires_at) = largest.entry(key).or_default();
            *used = cell.used.max(*used);
            *expires_at = cell.expires_at.max(*expires_at);
        }
        let mut told = Self::default();
        for ((counter, epoch, number), (used, expires_at)) in largest {
            told.counters.push(counter);
            told.epochs.push(epoch);
            told.numbers.push(number);
            told.expiries.push(signed(expires_at.0));
            told.used.push(signed(used));
        }
        told
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 5] {
        [
            &self.counters,
            &self.epochs,
            &self.numbers,
            &self.expiries,
            &self.used,
        ]
    }
}

/// A name too long for an index is cut: the counter starts anew with the process, as nothing finds
/// it under that name, but no batch fails.
fn counter_name(counter: &str) -> Cow<'_, str> {
    match counter.len() > COUNTER_BYTES {
        true => {
            tracing::warn!(
                bytes = counter.len(),
                "a counter's name is too long for the store"
            );
            clean(&counter[..counter.floor_char_boundary(COUNTER_BYTES)])
        }
        false => clean(counter),
    }
}
