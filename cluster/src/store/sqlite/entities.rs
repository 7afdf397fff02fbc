//! Entities, their revision and the audit log in SQLite.
//!
//! A write takes the file's write lock before it reads anything, so the revision, the expectations
//! and the head of the log hold until its commit, whichever process is at work beside it.

use policy::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{failed, signed, unsigned};
use crate::audit::{self, AuditHead, AuditKey, AuditRow};
use crate::entity::{Change, Entity, EntityWrite};
use crate::error::WriteError;
use crate::store::{Written, judge};

const RAISE_REVISION: &str =
    "UPDATE entity_revision SET revision = revision + ?1 RETURNING revision";

const SELECT_REVISION_OF: &str =
    "SELECT revision FROM entity WHERE kind = ?1 AND name = ?2 AND body IS NOT NULL";

const WRITE_ENTITY: &str = "
    INSERT INTO entity (kind, name, revision, body, changed_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (kind, name) DO UPDATE SET
        revision = excluded.revision,
        body = excluded.body,
        changed_at_ms = excluded.changed_at_ms";

// Up to the revision that the last row of the page has, and all of that one.
const SELECT_SINCE: &str = "
    SELECT kind, name, revision, body, changed_at_ms FROM entity
    WHERE revision > ?1 AND revision <= coalesce(
        (SELECT revision FROM entity WHERE revision > ?1 ORDER BY revision LIMIT 1 OFFSET ?2),
        9223372036854775807)
    ORDER BY revision, kind, name";

const SELECT_HEAD: &str = "SELECT seq, hash, key_id, mac FROM audit_head";

const WRITE_HEAD: &str = "
    INSERT INTO audit_head (one, seq, hash, key_id, mac) VALUES (1, ?1, ?2, ?3, ?4)
    ON CONFLICT (one) DO UPDATE SET
        seq = excluded.seq, hash = excluded.hash, key_id = excluded.key_id, mac = excluded.mac";

const INSERT_AUDIT: &str = "
    INSERT INTO audit_log (
        seq, revision, at_ms, actor, peer, action, kind, name, before, after, key_id, previous, hash)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const SELECT_AUDIT: &str = "
    SELECT seq, revision, at_ms, actor, peer, action, kind, name, before, after, key_id, previous,
        hash
    FROM audit_log WHERE seq > ?1 ORDER BY seq LIMIT ?2";

/// Everything of one write, for the caller to commit.
pub(super) fn write(
    transaction: &Transaction<'_>,
    writes: &[EntityWrite],
    change: &Change,
    key: &AuditKey,
) -> Result<Written, WriteError> {
    let raise = i64::from(!writes.is_empty());
    let revision: u64 = transaction
        .query_row(RAISE_REVISION, [raise], |row| row.get(0))
        .map(unsigned)
        .map_err(|source| failed("raise the revision", source))?;
    let mut entities = Vec::with_capacity(writes.len());
    for write in writes {
        entities.push(write_one(transaction, write, revision, change.at)?);
    }
    let head = head(transaction).map_err(|source| failed("read the audit head", source))?;
    let before = head.as_ref().map_or(0, |head| head.seq.saturating_sub(1));
    let last = rows(transaction, before, 2);
    let last = last.map_err(|source| failed("read the end of the audit log", source))?;
    audit::attest(head.as_ref(), &last, key)?;
    let (row, head) = audit::next(head.as_ref(), change, revision, key)?;
    append(transaction, &row, &head).map_err(|source| failed("append to the audit log", source))?;
    Ok(Written { entities, row })
}

fn write_one(
    transaction: &Transaction<'_>,
    write: &EntityWrite,
    revision: u64,
    at: Timestamp,
) -> Result<Entity, WriteError> {
    let found = transaction
        .prepare_cached(SELECT_REVISION_OF)
        .and_then(|mut statement| {
            let place = [&write.kind, &write.name];
            statement.query_row(place, |row| row.get(0)).optional()
        })
        .map_err(|source| failed("read an entity", source))?;
    judge(write, found.map(unsigned))?;
    transaction
        .prepare_cached(WRITE_ENTITY)
        .and_then(|mut statement| {
            statement.execute(params![
                write.kind,
                write.name,
                signed(revision),
                write.body,
                signed(at.0),
            ])
        })
        .map_err(|source| failed("write an entity", source))?;
    Ok(Entity {
        kind: write.kind.clone(),
        name: write.name.clone(),
        revision,
        body: write.body.as_deref().map(Into::into),
        changed_at: at,
    })
}

fn append(transaction: &Transaction<'_>, row: &AuditRow, head: &AuditHead) -> rusqlite::Result<()> {
    let change = &row.change;
    transaction.prepare_cached(INSERT_AUDIT)?.execute(params![
        signed(row.seq),
        signed(row.revision),
        signed(change.at.0),
        change.actor,
        change.peer,
        change.action,
        change.kind,
        change.name,
        change.before,
        change.after,
        row.key_id,
        row.previous,
        row.hash,
    ])?;
    transaction.prepare_cached(WRITE_HEAD)?.execute(params![
        signed(head.seq),
        head.hash,
        head.key_id,
        head.mac
    ])?;
    Ok(())
}

pub(super) fn since(reader: &Connection, after: u64, most: u32) -> rusqlite::Result<Vec<Entity>> {
    reader
        .prepare_cached(SELECT_SINCE)?
        .query_map(params![signed(after), most.max(1) - 1], |row| {
            Ok(Entity {
                kind: row.get(0)?,
                name: row.get(1)?,
                revision: unsigned(row.get(2)?),
                body: row.get::<_, Option<String>>(3)?.map(Into::into),
                changed_at: Timestamp(unsigned(row.get(4)?)),
            })
        })?
        .collect()
}

pub(super) fn rows(
    reader: &Connection,
    after_seq: u64,
    most: u32,
) -> rusqlite::Result<Vec<AuditRow>> {
    reader
        .prepare_cached(SELECT_AUDIT)?
        .query_map(params![signed(after_seq), most], read_row)?
        .collect()
}

pub(super) fn head(connection: &Connection) -> rusqlite::Result<Option<AuditHead>> {
    let read = |row: &Row<'_>| {
        Ok(AuditHead {
            seq: unsigned(row.get(0)?),
            hash: row.get(1)?,
            key_id: row.get(2)?,
            mac: row.get(3)?,
        })
    };
    connection
        .prepare_cached(SELECT_HEAD)?
        .query_row([], read)
        .optional()
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        seq: unsigned(row.get(0)?),
        revision: unsigned(row.get(1)?),
        change: Change {
            at: Timestamp(unsigned(row.get(2)?)),
            actor: row.get(3)?,
            peer: row.get(4)?,
            action: row.get(5)?,
            kind: row.get(6)?,
            name: row.get(7)?,
            before: row.get(8)?,
            after: row.get(9)?,
        },
        key_id: row.get(10)?,
        previous: row.get(11)?,
        hash: row.get(12)?,
    })
}
