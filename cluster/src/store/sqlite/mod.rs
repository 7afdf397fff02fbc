//! The store of a single node: one SQLite file. All of its SQL is in this folder and in
//! `migrations/`.
//!
//! WAL, so that a report never holds up a commit (readers have their own connection).
//! `synchronous = FULL`: in WAL mode `NORMAL` leaves the newest commits to the next checkpoint, and
//! a power cut takes them back; but a journal segment is deleted on the strength of a commit, so a
//! commit must last. The price is one more sync per transaction, some ten a second, off every
//! request's path.
//!
//! Numbers are kept as SQLite's signed 64-bit integers; a value above `i64::MAX` (nine billion
//! dollars in nano-dollars) is kept as `i64::MAX` instead of failing the batch that carries it.

mod cells;
mod entities;
mod fleet;
mod seal;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use policy::{NanoUsd, Timestamp, Usage};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Statement, Transaction,
    TransactionBehavior, params,
};

use self::cells::Additions;
use super::{Added, Loaded, Position, Store, UsagePage, UsageQuery, Written};
use crate::audit::{AuditHead, AuditKey, AuditRow};
use crate::data_dir::NodeKey;
use crate::entity::{Change, Entity, EntityWrite};
use crate::error::{StoreError, WriteError};
use crate::origin::Origin;
use crate::record::{UsageRecord, append_charges, charges_from_json};

/// In order, never edited once released; `user_version` counts how many a file has seen.
/// While a new program takes over from an old one, the old one goes on with its own statements: what
/// a migration makes them fail at waits in its usage files, for the new one to take up.
const MIGRATIONS: [&str; 5] = [
    include_str!("../migrations/0001_usage_and_cells.sql"),
    include_str!("../migrations/0002_boots.sql"),
    include_str!("../migrations/0003_entities.sql"),
    include_str!("../migrations/0004_fleet.sql"),
    include_str!("../migrations/0005_sealed_by_end.sql"),
];

/// How long a call waits for another process (a successor, a backup, a shell) that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How soon it is tried again where SQLite itself does not wait.
const BUSY_AGAIN: Duration = Duration::from_millis(5);

/// What the write-ahead log is cut back to after a checkpoint, in bytes.
const WAL_LIMIT_BYTES: i64 = 16 * 1024 * 1024;

/// Of a new file; one that is there keeps its own. Each page costs calls of its own, to write it to
/// the log and to copy it to the file.
const PAGE_BYTES: i64 = 16 * 1024;

/// Pages in the write-ahead log that start a checkpoint: as much as it may keep. Each one syncs twice
/// more, and writes the pages that every batch changes once instead of once a batch.
const CHECKPOINT_PAGES: i64 = WAL_LIMIT_BYTES / PAGE_BYTES;

/// Holds what a full batch changes, so that no page is written twice.
const CACHE_KIB: i64 = 8 * 1024;

const INSERT_USAGE: &str = "
    INSERT OR IGNORE INTO usage_record (
        request_id, virtual_key, team, customer, model_requested, model_served, provider,
        credential, endpoint, stream, input_tokens, cache_read_tokens, cache_write_tokens,
        cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, basis, status,
        started_at_ms, first_byte_ms, duration_ms, attempts, end_reason, upstream_request_id,
        charges, boot, user_name, rule, node)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const SELECT_USAGE: &str = "SELECT * FROM usage_record WHERE request_id = ?1";

// Read row by row, and no further than needed.
const SELECT_RECENT: &str =
    "SELECT * FROM usage_record WHERE request_id < ?1 ORDER BY request_id DESC";

const COUNT_USAGE: &str = "SELECT count(*) FROM usage_record";

/// A store in one SQLite file (with its `-wal` and `-shm` beside it).
#[derive(Debug)]
pub(crate) struct SqliteStore {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens or creates the file and brings its tables up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = Connection::open(path).map_err(|source| failed("open", source))?;
        prepare(&writer).map_err(|source| failed("prepare", source))?;
        migrate(&mut writer)?;
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|reader| reader.busy_timeout(BUSY_TIMEOUT).map(|()| reader))
            .map_err(|source| failed("open for reading", source))?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
        })
    }

    /// A setting of the writing connection, as text.
    #[cfg(test)]
    pub(crate) fn setting(&self, name: &str) -> String {
        let read = |row: &Row<'_>| row.get::<_, rusqlite::types::Value>(0);
        match lock(&self.writer).pragma_query_value(None, name, read) {
            Ok(rusqlite::types::Value::Text(text)) => text,
            Ok(rusqlite::types::Value::Integer(number)) => number.to_string(),
            other => panic!("{name}: {other:?}"),
        }
    }
}

impl Store for SqliteStore {
    fn record_usage(&self, origin: Origin, batch: &[UsageRecord]) -> Result<u64, StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| failed("begin", source))?;
        let (fresh, additions) = insert(&transaction, origin, batch)?;
        cells::add(&transaction, origin, additions)
            .map_err(|source| failed("add charges", source))?;
        transaction
            .commit()
            .map_err(|source| failed("commit", source))?;
        Ok(fresh)
    }

    fn load_cells(&self, now: Timestamp) -> Result<Loaded, StoreError> {
        cells::load(&mut lock(&self.reader), now).map_err(|source| failed("load cells", source))
    }

    fn added_cells(&self, origin: Origin, after: Position, most: u32) -> Result<Added, StoreError> {
        cells::added(&lock(&self.reader), origin, after, most)
            .map_err(|source| failed("read added usage", source))
    }

    fn expire_cells(&self, now: Timestamp) -> Result<u64, StoreError> {
        cells::expire(&lock(&self.writer), now).map_err(|source| failed("expire cells", source))
    }

    fn usage(&self, request_id: &str) -> Result<Option<UsageRecord>, StoreError> {
        let reader = lock(&self.reader);
        reader
            .prepare_cached(SELECT_USAGE)
            .and_then(|mut statement| statement.query_row([request_id], read_row).optional())
            .map_err(|source| failed("read usage", source))
    }

    fn recent_usage(&self, query: UsageQuery<'_>) -> Result<UsagePage, StoreError> {
        recent(&lock(&self.reader), query).map_err(|source| failed("read recent usage", source))
    }

    fn usage_count(&self) -> Result<u64, StoreError> {
        let reader = lock(&self.reader);
        reader
            .query_row(COUNT_USAGE, [], |row| row.get::<_, i64>(0))
            .map(unsigned)
            .map_err(|source| failed("count usage", source))
    }

    fn write_entities(
        &self,
        writes: &[EntityWrite],
        change: &Change,
        key: &AuditKey,
    ) -> Result<Written, WriteError> {
        let mut writer = lock(&self.writer);
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| failed("begin", source))?;
        let written = entities::write(&transaction, writes, change, key)?;
        transaction
            .commit()
            .map_err(|source| failed("commit", source))?;
        Ok(written)
    }

    fn entities_since(&self, after: u64, most: u32) -> Result<Vec<Entity>, StoreError> {
        entities::since(&lock(&self.reader), after, most)
            .map_err(|source| failed("read entities", source))
    }

    fn audit_rows(&self, after_seq: u64, most: u32) -> Result<Vec<AuditRow>, StoreError> {
        entities::rows(&lock(&self.reader), after_seq, most)
            .map_err(|source| failed("read the audit log", source))
    }

    fn audit_head(&self) -> Result<Option<AuditHead>, StoreError> {
        entities::head(&lock(&self.reader)).map_err(|source| failed("read the audit head", source))
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A panic while it was held rolled its transaction back; the connection itself is sound.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prepare(writer: &Connection) -> rusqlite::Result<()> {
    writer.busy_timeout(BUSY_TIMEOUT)?;
    writer.pragma_update(None, "page_size", PAGE_BYTES)?;
    use_wal(writer)?;
    writer.pragma_update(None, "synchronous", "FULL")?;
    writer.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    writer.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    writer.pragma_update(None, "cache_size", -CACHE_KIB)
}

/// SQLite does not wait for another process that changes the mode of the same new file: both would
/// wait for each other, so one is told at once that it is busy, and begins again.
fn use_wal(writer: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match writer.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && begun.elapsed() < BUSY_TIMEOUT =>
            {
                thread::sleep(BUSY_AGAIN);
            }
            done => return done,
        }
    }
}

fn migrate(writer: &mut Connection) -> Result<(), StoreError> {
    let known = MIGRATIONS.len() as i64;
    loop {
        // Read under the lock: another process may migrate the same file just now.
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| failed("begin", source))?;
        let done: i64 = transaction
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|source| failed("read the schema version", source))?;
        if done > known {
            return Err(StoreError::SchemaTooNew { found: done, known });
        }
        let Some(migration) = MIGRATIONS.get(usize::try_from(done).unwrap_or(0)) else {
            return Ok(());
        };
        let version = done + 1;
        transaction
            .execute_batch(migration)
            .and_then(|()| transaction.pragma_update(None, "user_version", version))
            .and_then(|()| transaction.commit())
            .map_err(|source| failed("migrate", source))?;
        tracing::info!(version, "store schema migrated");
    }
}

/// Inserts the records that are new; returns how many were, and the sums of their charges.
fn insert<'a>(
    transaction: &Transaction<'_>,
    origin: Origin,
    batch: &'a [UsageRecord],
) -> Result<(u64, Additions<'a>), StoreError> {
    let mut statement = transaction
        .prepare_cached(INSERT_USAGE)
        .map_err(|source| failed("prepare to insert usage", source))?;
    let (mut fresh, mut additions) = (0, Additions::default());
    let mut charges = Vec::new();
    for record in batch {
        charges.clear();
        append_charges(&record.charges, &mut charges);
        let charges = std::str::from_utf8(&charges).expect("JSON text made of texts");
        let inserted = insert_one(&mut statement, origin, record, charges)
            .map_err(|source| failed("insert usage", source))?;
        if inserted {
            additions.add(&record.charges);
            fresh += 1;
        }
    }
    Ok((fresh, additions))
}

fn insert_one(
    statement: &mut Statement<'_>,
    origin: Origin,
    record: &UsageRecord,
    charges: &str,
) -> rusqlite::Result<bool> {
    let usage = &record.usage;
    // By position: to look up names costs more than to insert the row.
    let inserted = statement.execute(params![
        record.request_id,
        record.key,
        record.team,
        record.customer,
        record.model_requested,
        record.model_served,
        record.provider,
        record.credential,
        record.endpoint,
        record.stream,
        signed(usage.input),
        signed(usage.cache_read),
        signed(usage.cache_write),
        signed(usage.cache_write_1h),
        signed(usage.output),
        signed(usage.reasoning),
        signed(record.cost.0),
        record.basis.as_str(),
        record.status,
        signed(record.started_at.0),
        record.first_byte_ms.map(signed),
        signed(record.duration_ms),
        record.attempts,
        record.end.as_str(),
        record.upstream_request_id,
        charges,
        signed(origin.boot),
        record.user,
        record.rule,
        bytes(origin.node),
    ])?;
    Ok(inserted == 1)
}

fn recent(reader: &Connection, query: UsageQuery<'_>) -> rusqlite::Result<UsagePage> {
    let mut statement = reader.prepare_cached(SELECT_RECENT)?;
    let mut rows = statement.query([query.upper()])?;
    let (mut records, mut looked_at, mut last) = (Vec::new(), 0, None);
    while records.len() < query.wanted() {
        let Some(row) = rows.next()? else {
            last = None;
            break;
        };
        if let Some(key) = query.key {
            if looked_at == key.scan {
                break;
            }
            looked_at += 1;
            last = Some(row.get("request_id")?);
            if row.get_ref("virtual_key")?.as_str()? != key.name {
                continue;
            }
        }
        records.push(read_row(row)?);
    }
    Ok(query.page(records, last))
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<UsageRecord> {
    let tokens = |name| row.get::<_, i64>(name).map(unsigned);
    let text = |name| -> rusqlite::Result<(usize, String)> {
        let column = row.as_ref().column_index(name)?;
        Ok((column, row.get(column)?))
    };
    let (basis, end, charges) = (text("basis")?, text("end_reason")?, text("charges")?);
    Ok(UsageRecord {
        request_id: row.get("request_id")?,
        key: row.get("virtual_key")?,
        team: row.get("team")?,
        customer: row.get("customer")?,
        user: row.get("user_name")?,
        rule: row.get("rule")?,
        model_requested: row.get("model_requested")?,
        model_served: row.get("model_served")?,
        provider: row.get("provider")?,
        credential: row.get("credential")?,
        endpoint: row.get("endpoint")?,
        stream: row.get("stream")?,
        usage: Usage {
            input: tokens("input_tokens")?,
            cache_read: tokens("cache_read_tokens")?,
            cache_write: tokens("cache_write_tokens")?,
            cache_write_1h: tokens("cache_write_1h_tokens")?,
            output: tokens("output_tokens")?,
            reasoning: tokens("reasoning_tokens")?,
        },
        cost: NanoUsd(tokens("cost_nano_usd")?),
        basis: parsed(basis.0, &basis.1, str::parse)?,
        status: row.get("status")?,
        started_at: Timestamp(tokens("started_at_ms")?),
        first_byte_ms: row.get::<_, Option<i64>>("first_byte_ms")?.map(unsigned),
        duration_ms: tokens("duration_ms")?,
        attempts: row.get("attempts")?,
        end: parsed(end.0, &end.1, str::parse)?,
        upstream_request_id: row.get("upstream_request_id")?,
        charges: parsed(charges.0, &charges.1, charges_from_json)?,
    })
}

/// The value of the text in a column, given by its index for the error.
fn parsed<T, E>(
    column: usize,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> rusqlite::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    parse(text).map_err(|source| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(source),
        )
    })
}

/// A node's key as the tables have it.
fn bytes(node: NodeKey) -> [u8; 16] {
    node.0.to_be_bytes()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn failed(action: &'static str, source: rusqlite::Error) -> StoreError {
    StoreError::Failed {
        action,
        source: Box::new(source),
    }
}
