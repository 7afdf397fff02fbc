//! Usage records as they stand in the store.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};

/// One row of `usage_record`.
#[derive(Clone, Debug)]
pub struct Record {
    pub request_id: String,
    pub key: String,
    pub team: Option<String>,
    pub customer: Option<String>,
    pub model_requested: String,
    pub model_served: Option<String>,
    pub provider: Option<String>,
    pub credential: Option<String>,
    pub endpoint: String,
    pub stream: bool,
    pub input: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub cache_write_1h: u64,
    pub output: u64,
    pub reasoning: u64,
    pub cost_nano_usd: u64,
    pub basis: String,
    pub status: u16,
    pub started_at_ms: u64,
    pub first_byte_ms: Option<u64>,
    pub duration_ms: u64,
    pub attempts: u32,
    pub end_reason: String,
    pub user: Option<String>,
    pub rule: Option<String>,
}

const QUERY: &str = "SELECT request_id, virtual_key, team, customer, model_requested, model_served,
    provider, credential, endpoint, stream, input_tokens, cache_read_tokens, cache_write_tokens,
    cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, basis, status,
    started_at_ms, first_byte_ms, duration_ms, attempts, end_reason,
    user_name, rule FROM usage_record ORDER BY request_id";

/// All records; none while the store is not there yet or is being written.
pub fn read_records(database: &Path) -> Vec<Record> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(connection) = Connection::open_with_flags(database, flags) else {
        return Vec::new();
    };
    let read = || -> rusqlite::Result<Vec<Record>> {
        connection.prepare(QUERY)?.query_map([], record)?.collect()
    };
    read().unwrap_or_default()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        request_id: row.get(0)?,
        key: row.get(1)?,
        team: row.get(2)?,
        customer: row.get(3)?,
        model_requested: row.get(4)?,
        model_served: row.get(5)?,
        provider: row.get(6)?,
        credential: row.get(7)?,
        endpoint: row.get(8)?,
        stream: row.get(9)?,
        input: count(row, 10)?,
        cache_read: count(row, 11)?,
        cache_write: count(row, 12)?,
        cache_write_1h: count(row, 13)?,
        output: count(row, 14)?,
        reasoning: count(row, 15)?,
        cost_nano_usd: count(row, 16)?,
        basis: row.get(17)?,
        status: row.get(18)?,
        started_at_ms: count(row, 19)?,
        first_byte_ms: row
            .get::<_, Option<i64>>(20)?
            .and_then(|ms| u64::try_from(ms).ok()),
        duration_ms: count(row, 21)?,
        attempts: row.get(22)?,
        end_reason: row.get(23)?,
        user: row.get(24)?,
        rule: row.get(25)?,
    })
}

/// A column that is never negative.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    Ok(u64::try_from(value).expect("the store holds no negative count"))
}
