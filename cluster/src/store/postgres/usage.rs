//! Usage records and counter cells in Postgres.
//!
//! Everything takes its locks in one order, so that nothing waits in a circle: the lock that those
//! share who add usage, rows of `usage_record`, cells by counter and epoch; the removal of old cells
//! waits for no lock at all.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use policy::{Cell, NanoUsd, Timestamp, Usage};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Client, Outcome, Trouble, signed, unsigned};
use crate::record::{UsageRecord, append_charges, charges_from_json};
use crate::store::{Added, Loaded, Position, Sums, UsagePage, UsageQuery};

/// Longest counter name kept as it is, in bytes: Postgres refuses an index entry of more than 2,704.
const COUNTER_BYTES: usize = 1_024;

/// Cells removed by one statement, and how long such statements may follow each other.
const EXPIRE_AT_ONCE: i64 = 10_000;
const EXPIRE_FOR: Duration = Duration::from_secs(3);

const INSERT_USAGE: &str = "
    INSERT INTO usage_record (
        boot, request_id, virtual_key, team, customer, user_name, rule, model_requested,
        model_served, provider, credential, endpoint, stream, input_tokens, cache_read_tokens,
        cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd,
        basis, status, started_at_ms, first_byte_ms, duration_ms, attempts, end_reason,
        upstream_request_id, charges)
    SELECT $1::bigint, fresh.* FROM unnest(
        $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::boolean[], $14::bigint[],
        $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[],
        $21::text[], $22::integer[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[],
        $27::text[], $28::text[], $29::text[]) AS fresh
    ON CONFLICT (request_id) DO NOTHING
    RETURNING request_id";

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

// Every transaction that adds usage shares this lock. Who holds it alone waits for all of them, and
// the next ones wait in turn: what is read then is exact, over all nodes. Taken at a start only. A
// lock on the table would wait for its vacuum, too, which may take hours.
const SHARE_USAGE: &str = "SELECT pg_advisory_xact_lock_shared(8391747294018458)";
const HOLD_USAGE: &str = "SELECT pg_advisory_xact_lock(8391747294018458)";

const SELECT_POSITION: &str =
    "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM usage_record_seq_seq";

const SELECT_CELLS: &str = "
    SELECT counter, epoch, least(sum(amount), 9223372036854775807)::bigint, max(expires_at_ms)
    FROM counter_cells WHERE expires_at_ms > $1
    GROUP BY counter, epoch ORDER BY counter, epoch";

// Of one boot alone: its records are numbered in the order of their commits, as one thread stores
// them; those of different boots are not.
const SELECT_ADDED: &str = "
    SELECT seq, charges FROM usage_record
    WHERE boot = $1 AND seq > $2 ORDER BY seq LIMIT $3";

const EXPIRE_CELLS: &str = "
    DELETE FROM counter_cells WHERE (counter, epoch, boot) IN (
        SELECT counter, epoch, boot FROM counter_cells WHERE expires_at_ms <= $1
        LIMIT $2 FOR UPDATE SKIP LOCKED)";

// By name, never `*`: a column that a newer node adds must not change what is read.
macro_rules! select_usage {
    ($rest:literal) => {
        concat!(
            "SELECT request_id, virtual_key, team, customer, user_name, rule, model_requested,
                model_served, provider, credential, endpoint, stream, input_tokens,
                cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens,
                reasoning_tokens, cost_nano_usd, basis, status, started_at_ms, first_byte_ms,
                duration_ms, attempts, end_reason, upstream_request_id, charges
            FROM usage_record ",
            $rest
        )
    };
}

const SELECT_USAGE: &str = select_usage!("WHERE request_id = $1");

const SELECT_RECENT: &str =
    select_usage!("WHERE request_id < $1 ORDER BY request_id DESC LIMIT $2");

// The last of the records that are looked at for a key, and the one before it if there is one.
const SELECT_BOUND: &str = "
    SELECT request_id FROM usage_record WHERE request_id < $1
    ORDER BY request_id DESC OFFSET $2 LIMIT 2";

const SELECT_RECENT_OF_KEY: &str = select_usage!(
    "WHERE request_id < $1 AND request_id >= $3 AND virtual_key = $4
    ORDER BY request_id DESC LIMIT $2"
);

const COUNT_USAGE: &str = "SELECT count(*) FROM usage_record";

/// Keeps the records and adds what the new ones charge; returns how many were new.
pub(super) async fn record(client: &mut Client, boot: u64, batch: &[UsageRecord]) -> Outcome<u64> {
    let boot = signed(boot);
    let columns = Columns::of(batch);
    let transaction = client.transaction().await?;
    let insert = transaction.prepare_cached(INSERT_USAGE).await?;
    let parameters = columns.parameters(&boot);
    // Sent in this order, without waiting for the first answer.
    let (_, rows) = tokio::try_join!(
        biased;
        transaction.batch_execute(SHARE_USAGE),
        transaction.query(&insert, &parameters),
    )?;
    let mut fresh = HashSet::with_capacity(rows.len());
    for row in &rows {
        fresh.insert(row.try_get::<_, &str>(0)?);
    }
    let additions = Additions::of(batch, &mut fresh);
    if !additions.counters.is_empty() {
        let add = transaction.prepare_cached(ADD_CHARGES).await?;
        transaction
            .execute(&add, &additions.parameters(&boot))
            .await?;
    }
    transaction.commit().await?;
    Ok(rows.len() as u64)
}

/// All cells that matter at `now`, and what they contain.
pub(super) async fn load(client: &mut Client, now: Timestamp) -> Outcome<Loaded> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(HOLD_USAGE).await?;
    let position = transaction.query_one(SELECT_POSITION, &[]).await?;
    let select = transaction.prepare_cached(SELECT_CELLS).await?;
    let rows = transaction.query(&select, &[&signed(now.0)]).await?;
    transaction.commit().await?;
    let cell = |row: &Row| -> Outcome<Cell> {
        Ok(Cell {
            counter: row.try_get(0)?,
            epoch: row.try_get(1)?,
            amount: unsigned(row.try_get(2)?),
            expires_at: Timestamp(unsigned(row.try_get(3)?)),
        })
    };
    Ok(Loaded {
        cells: rows.iter().map(cell).collect::<Outcome<_>>()?,
        position: Position(position.try_get(0)?),
    })
}

/// What the next `most` records of the boot were charged with.
pub(super) async fn added(
    client: &mut Client,
    boot: u64,
    after: Position,
    most: u32,
) -> Outcome<Added> {
    let select = client.prepare_cached(SELECT_ADDED).await?;
    let parameters: [&(dyn ToSql + Sync); 3] = [&signed(boot), &after.0, &i64::from(most)];
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
pub(super) async fn expire(client: &mut Client, now: Timestamp) -> Outcome<u64> {
    let expire = client.prepare_cached(EXPIRE_CELLS).await?;
    let (begun, mut removed) = (Instant::now(), 0);
    loop {
        let some = client
            .execute(&expire, &[&signed(now.0), &EXPIRE_AT_ONCE])
            .await?;
        removed += some;
        if some < EXPIRE_AT_ONCE.unsigned_abs() || begun.elapsed() > EXPIRE_FOR {
            return Ok(removed);
        }
    }
}

pub(super) async fn one(client: &mut Client, request_id: &str) -> Outcome<Option<UsageRecord>> {
    let select = client.prepare_cached(SELECT_USAGE).await?;
    let row = client.query_opt(&select, &[&clean(request_id)]).await?;
    row.as_ref().map(read_row).transpose()
}

/// Newest first.
pub(super) async fn recent(client: &mut Client, query: UsageQuery<'_>) -> Outcome<UsagePage> {
    let upper = clean(query.upper());
    let wanted = signed(query.wanted() as u64);
    let Some(key) = query.key else {
        let select = client.prepare_cached(SELECT_RECENT).await?;
        let rows = client.query(&select, &[&upper, &wanted]).await?;
        return Ok(query.page(rows.iter().map(read_row).collect::<Outcome<_>>()?, None));
    };
    let bound = client.prepare_cached(SELECT_BOUND).await?;
    let skipped = i64::from(key.scan.max(1)) - 1;
    let bound = client.query(&bound, &[&upper, &skipped]).await?;
    // The search ends early only if something is left behind its last record.
    let scanned: Option<String> = match bound.as_slice() {
        [last, _] => Some(last.try_get(0)?),
        _ => None,
    };
    let lower = scanned.as_deref().unwrap_or_default();
    let select = client.prepare_cached(SELECT_RECENT_OF_KEY).await?;
    let parameters: [&(dyn ToSql + Sync); 4] = [&upper, &wanted, &lower, &clean(key.name)];
    let rows = client.query(&select, &parameters).await?;
    Ok(query.page(rows.iter().map(read_row).collect::<Outcome<_>>()?, scanned))
}

pub(super) async fn count(client: &mut Client) -> Outcome<u64> {
    let row = client.query_one(COUNT_USAGE, &[]).await?;
    Ok(unsigned(row.try_get(0)?))
}

/// A batch as one array for each column.
#[derive(Default)]
struct Columns<'a> {
    texts: [Vec<Cow<'a, str>>; 7],
    optional: [Vec<Option<Cow<'a, str>>>; 8],
    stream: Vec<bool>,
    numbers: [Vec<i64>; 10],
    first_byte_ms: Vec<Option<i64>>,
    status: Vec<i32>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [UsageRecord]) -> Self {
        let mut columns = Self::default();
        for record in batch {
            columns.push(record);
        }
        columns
    }

    fn push(&mut self, record: &'a UsageRecord) {
        let mut charges = Vec::new();
        append_charges(&record.charges, &mut charges);
        let charges = String::from_utf8(charges).expect("JSON text made of texts");
        let texts = [
            clean(&record.request_id),
            clean(&record.key),
            clean(&record.model_requested),
            clean(&record.endpoint),
            record.basis.as_str().into(),
            record.end.as_str().into(),
            charges.into(),
        ];
        let optional = [
            &record.team,
            &record.customer,
            &record.user,
            &record.rule,
            &record.model_served,
            &record.provider,
            &record.credential,
            &record.upstream_request_id,
        ];
        let usage = &record.usage;
        let numbers = [
            usage.input,
            usage.cache_read,
            usage.cache_write,
            usage.cache_write_1h,
            usage.output,
            usage.reasoning,
            record.cost.0,
            record.started_at.0,
            record.duration_ms,
            record.attempts.into(),
        ];
        fill(&mut self.texts, texts);
        let optional = optional.map(|text| text.as_deref().map(clean));
        fill(&mut self.optional, optional);
        fill(&mut self.numbers, numbers.map(signed));
        self.stream.push(record.stream);
        self.first_byte_ms.push(record.first_byte_ms.map(signed));
        self.status.push(record.status.into());
    }

    /// In the order of the statement.
    fn parameters<'b>(&'b self, boot: &'b i64) -> [&'b (dyn ToSql + Sync); 29] {
        let [id, key, model, endpoint, basis, end, charges] = &self.texts;
        let [
            team,
            customer,
            user,
            rule,
            served,
            provider,
            credential,
            upstream,
        ] = &self.optional;
        let [
            input,
            read,
            write,
            write_1h,
            output,
            reasoning,
            cost,
            started,
            duration,
            attempts,
        ] = &self.numbers;
        [
            boot,
            id,
            key,
            team,
            customer,
            user,
            rule,
            model,
            served,
            provider,
            credential,
            endpoint,
            &self.stream,
            input,
            read,
            write,
            write_1h,
            output,
            reasoning,
            cost,
            basis,
            &self.status,
            started,
            &self.first_byte_ms,
            duration,
            attempts,
            end,
            upstream,
            charges,
        ]
    }
}

fn fill<T, const N: usize>(columns: &mut [Vec<T>; N], values: [T; N]) {
    for (column, value) in columns.iter_mut().zip(values) {
        column.push(value);
    }
}

/// What new records add to each cell, as one array for each column.
#[derive(Default)]
struct Additions<'a> {
    counters: Vec<Cow<'a, str>>,
    epochs: Vec<i64>,
    expiries: Vec<i64>,
    amounts: Vec<i64>,
}

impl<'a> Additions<'a> {
    /// Takes each id out of `fresh` with the first record that has it: that one was inserted.
    fn of(batch: &'a [UsageRecord], fresh: &mut HashSet<&str>) -> Self {
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

    fn parameters<'b>(&'b self, boot: &'b i64) -> [&'b (dyn ToSql + Sync); 5] {
        [
            boot,
            &self.counters,
            &self.epochs,
            &self.expiries,
            &self.amounts,
        ]
    }
}

/// Postgres keeps no NUL in a text; one must not fail the batch that carries it for ever.
fn clean(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
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

fn read_row(row: &Row) -> Outcome<UsageRecord> {
    let tokens = |name| row.try_get::<_, i64>(name).map(unsigned);
    let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(UsageRecord {
        request_id: row.try_get("request_id")?,
        key: row.try_get("virtual_key")?,
        team: row.try_get("team")?,
        customer: row.try_get("customer")?,
        user: row.try_get("user_name")?,
        rule: row.try_get("rule")?,
        model_requested: row.try_get("model_requested")?,
        model_served: row.try_get("model_served")?,
        provider: row.try_get("provider")?,
        credential: row.try_get("credential")?,
        endpoint: row.try_get("endpoint")?,
        stream: row.try_get("stream")?,
        usage: Usage {
            input: tokens("input_tokens")?,
            cache_read: tokens("cache_read_tokens")?,
            cache_write: tokens("cache_write_tokens")?,
            cache_write_1h: tokens("cache_write_1h_tokens")?,
            output: tokens("output_tokens")?,
            reasoning: tokens("reasoning_tokens")?,
        },
        cost: NanoUsd(tokens("cost_nano_usd")?),
        basis: word(row, "basis")?,
        status: u16::try_from(row.try_get::<_, i32>("status")?).unwrap_or(0),
        started_at: Timestamp(tokens("started_at_ms")?),
        first_byte_ms: row
            .try_get::<_, Option<i64>>("first_byte_ms")?
            .map(unsigned),
        duration_ms: tokens("duration_ms")?,
        attempts: small(row.try_get("attempts")?),
        end: word(row, "end_reason")?,
        upstream_request_id: row.try_get("upstream_request_id")?,
        charges: charges_from_json(row.try_get("charges")?).map_err(Trouble::content)?,
    })
}

fn word<T>(row: &Row, column: &str) -> Outcome<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let word: &str = row.try_get(column)?;
    word.parse().map_err(Trouble::content)
}
