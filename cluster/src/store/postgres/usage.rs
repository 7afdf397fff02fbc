//! Usage records in Postgres.

use std::borrow::Cow;
use std::collections::HashSet;

use policy::{NanoUsd, Timestamp, Usage};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::cells::{self, Additions};
use super::{Client, Outcome, Trouble, clean, signed, unsigned};
use crate::origin::Origin;
use crate::record::{UsageRecord, append_charges, charges_from_json};
use crate::store::{UsagePage, UsageQuery};

const INSERT_USAGE: &str = "
    INSERT INTO usage_record (
        node, boot, request_id, virtual_key, team, customer, user_name, rule, model_requested,
        model_served, provider, credential, endpoint, stream, input_tokens, cache_read_tokens,
        cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd,
        basis, status, started_at_ms, first_byte_ms, duration_ms, attempts, end_reason,
        upstream_request_id, charges)
    SELECT $30::text::uuid, $1::bigint, fresh.* FROM unnest(
        $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::boolean[], $14::bigint[],
        $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[],
        $21::text[], $22::integer[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[],
        $27::text[], $28::text[], $29::text[]) AS fresh
    ON CONFLICT (request_id) DO NOTHING
    RETURNING request_id";

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
pub(super) async fn record(
    client: &mut Client,
    origin: Origin,
    batch: &[UsageRecord],
) -> Outcome<u64> {
    let (boot, node) = (signed(origin.boot), origin.node.to_string());
    let columns = Columns::of(batch);
    let transaction = client.transaction().await?;
    let insert = transaction.prepare_cached(INSERT_USAGE).await?;
    let parameters = columns.parameters(&boot, &node);
    // Sent in this order, without waiting for the first answer.
    let (_, rows) = tokio::try_join!(
        biased;
        transaction.batch_execute(cells::SHARE_USAGE),
        transaction.query(&insert, &parameters),
    )?;
    let mut fresh = HashSet::with_capacity(rows.len());
    for row in &rows {
        fresh.insert(row.try_get::<_, &str>(0)?);
    }
    let additions = Additions::of(batch, &mut fresh);
    cells::add(&transaction, origin, &additions).await?;
    transaction.commit().await?;
    Ok(rows.len() as u64)
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
    fn parameters<'b>(&'b self, boot: &'b i64, node: &'b String) -> [&'b (dyn ToSql + Sync); 30] {
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
            node,
        ]
    }
}

fn fill<T, const N: usize>(columns: &mut [Vec<T>; N], values: [T; N]) {
    for (column, value) in columns.iter_mut().zip(values) {
        column.push(value);
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
