//! Entities, their revision and the audit log in Postgres.
//!
//! A write raises the one revision row before it reads anything, and so holds its lock: the
//! expectations and the head of the log stay as read until its commit, whichever node is at work
//! beside it.

use policy::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Client, Outcome, Transaction, digest, listener, signed, unsigned};
use crate::audit::{self, AuditHead, AuditKey, AuditRow};
use crate::entity::{Change, Entity, EntityWrite};
use crate::error::WriteError;
use crate::store::{Written, judge};

const RAISE_REVISION: &str =
    "UPDATE entity_revision SET revision = revision + $1 RETURNING revision";

const SELECT_REVISION_OF: &str =
    "SELECT revision FROM entity WHERE kind = $1 AND name = $2 AND body IS NOT NULL";

const WRITE_ENTITY: &str = "
    INSERT INTO entity (kind, name, revision, body, changed_at_ms) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (kind, name) DO UPDATE SET
        revision = excluded.revision,
        body = excluded.body,
        changed_at_ms = excluded.changed_at_ms";

// Up to the revision that the last row of the page has, and all of that one.
const SELECT_SINCE: &str = "
    SELECT kind, name, revision, body, changed_at_ms FROM entity
    WHERE revision > $1 AND revision <= coalesce(
        (SELECT revision FROM entity WHERE revision > $1 ORDER BY revision LIMIT 1 OFFSET $2),
        9223372036854775807)
    ORDER BY revision, kind, name";

const SELECT_HEAD: &str = "SELECT seq, hash, key_id, mac FROM audit_head";

const WRITE_HEAD: &str = "
    INSERT INTO audit_head (one, seq, hash, key_id, mac) VALUES (1, $1, $2, $3, $4)
    ON CONFLICT (one) DO UPDATE SET
        seq = excluded.seq, hash = excluded.hash, key_id = excluded.key_id, mac = excluded.mac";

const INSERT_AUDIT: &str = "
    INSERT INTO audit_log (
        seq, revision, at_ms, actor, peer, action, kind, name, before, after, key_id, previous, hash)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

const SELECT_AUDIT: &str = "
    SELECT seq, revision, at_ms, actor, peer, action, kind, name, before, after, key_id, previous,
        hash
    FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2";

/// One write with its audit row, committed. The inner error is a refusal that left nothing.
pub(super) async fn write(
    client: &mut Client,
    writes: &[EntityWrite],
    change: &Change,
    key: &AuditKey,
) -> Outcome<Result<Written, WriteError>> {
    let transaction = client.transaction().await?;
    let raise = i64::from(!writes.is_empty());
    let raised = transaction.prepare_cached(RAISE_REVISION).await?;
    let raised = transaction.query_one(&raised, &[&raise]).await?;
    let revision = unsigned(raised.try_get(0)?);
    let mut entities = Vec::with_capacity(writes.len());
    for write in writes {
        match write_one(&transaction, write, revision, change.at).await? {
            Ok(entity) => entities.push(entity),
            Err(refused) => {
                transaction.rollback().await?;
                return Ok(Err(refused));
            }
        }
    }
    let head = transaction.prepare_cached(SELECT_HEAD).await?;
    let head = transaction.query_opt(&head, &[]).await?;
    let head = head.as_ref().map(read_head).transpose()?;
    let last = last_rows(&transaction, head.as_ref()).await?;
    let next = audit::attest(head.as_ref(), &last, key)
        .and_then(|()| audit::next(head.as_ref(), change, revision, key));
    let (row, head) = match next {
        Ok(next) => next,
        Err(refused) => {
            transaction.rollback().await?;
            return Ok(Err(refused.into()));
        }
    };
    append(&transaction, &row, &head).await?;
    if !entities.is_empty() {
        // Comes to those who listen with the commit, or not at all.
        transaction.batch_execute(listener::NOTIFY).await?;
    }
    transaction.commit().await?;
    Ok(Ok(Written { entities, row }))
}

async fn write_one(
    transaction: &Transaction<'_>,
    write: &EntityWrite,
    revision: u64,
    at: Timestamp,
) -> Outcome<Result<Entity, WriteError>> {
    let found = transaction.prepare_cached(SELECT_REVISION_OF).await?;
    let found = transaction
        .query_opt(&found, &[&write.kind, &write.name])
        .await?;
    let found = found.map(|row| row.try_get(0)).transpose()?.map(unsigned);
    if let Err(refused) = judge(write, found) {
        return Ok(Err(refused));
    }
    let keep = transaction.prepare_cached(WRITE_ENTITY).await?;
    let parameters: [&(dyn ToSql + Sync); 5] = [
        &write.kind,
        &write.name,
        &signed(revision),
        &write.body,
        &signed(at.0),
    ];
    transaction.execute(&keep, &parameters).await?;
    Ok(Ok(Entity {
        kind: write.kind.clone(),
        name: write.name.clone(),
        revision,
        body: write.body.as_deref().map(Into::into),
        changed_at: at,
    }))
}

/// The first two rows from that of the head on.
async fn last_rows(
    transaction: &Transaction<'_>,
    head: Option<&AuditHead>,
) -> Outcome<Vec<AuditRow>> {
    let before = signed(head.map_or(0, |head| head.seq.saturating_sub(1)));
    let select = transaction.prepare_cached(SELECT_AUDIT).await?;
    let rows = transaction.query(&select, &[&before, &2_i64]).await?;
    rows.iter().map(read_row).collect()
}

async fn append(transaction: &Transaction<'_>, row: &AuditRow, head: &AuditHead) -> Outcome<()> {
    let change = &row.change;
    let insert = transaction.prepare_cached(INSERT_AUDIT).await?;
    let parameters: [&(dyn ToSql + Sync); 13] = [
        &signed(row.seq),
        &signed(row.revision),
        &signed(change.at.0),
        &change.actor,
        &change.peer,
        &change.action,
        &change.kind,
        &change.name,
        &change.before,
        &change.after,
        &row.key_id,
        &row.previous.as_slice(),
        &row.hash.as_slice(),
    ];
    transaction.execute(&insert, &parameters).await?;
    let keep = transaction.prepare_cached(WRITE_HEAD).await?;
    let parameters: [&(dyn ToSql + Sync); 4] = [
        &signed(head.seq),
        &head.hash.as_slice(),
        &head.key_id,
        &head.mac.as_slice(),
    ];
    transaction.execute(&keep, &parameters).await?;
    Ok(())
}

/// Entities after a revision, by revision.
pub(super) async fn since(client: &mut Client, after: u64, most: u32) -> Outcome<Vec<Entity>> {
    let select = client.prepare_cached(SELECT_SINCE).await?;
    let last = i64::from(most.max(1) - 1);
    let rows = client.query(&select, &[&signed(after), &last]).await?;
    let entity = |row: &Row| -> Outcome<Entity> {
        Ok(Entity {
            kind: row.try_get(0)?,
            name: row.try_get(1)?,
            revision: unsigned(row.try_get(2)?),
            body: row.try_get::<_, Option<String>>(3)?.map(Into::into),
            changed_at: Timestamp(unsigned(row.try_get(4)?)),
        })
    };
    rows.iter().map(entity).collect()
}

pub(super) async fn audit_rows(
    client: &mut Client,
    after_seq: u64,
    most: u32,
) -> Outcome<Vec<AuditRow>> {
    let select = client.prepare_cached(SELECT_AUDIT).await?;
    let parameters: [&(dyn ToSql + Sync); 2] = [&signed(after_seq), &i64::from(most)];
    let rows = client.query(&select, &parameters).await?;
    rows.iter().map(read_row).collect()
}

pub(super) async fn audit_head(client: &mut Client) -> Outcome<Option<AuditHead>> {
    let select = client.prepare_cached(SELECT_HEAD).await?;
    let row = client.query_opt(&select, &[]).await?;
    row.as_ref().map(read_head).transpose()
}

fn read_head(row: &Row) -> Outcome<AuditHead> {
    Ok(AuditHead {
        seq: unsigned(row.try_get(0)?),
        hash: digest(row, 1)?,
        key_id: row.try_get(2)?,
        mac: digest(row, 3)?,
    })
}

fn read_row(row: &Row) -> Outcome<AuditRow> {
    Ok(AuditRow {
        seq: unsigned(row.try_get(0)?),
        revision: unsigned(row.try_get(1)?),
        change: Change {
            at: Timestamp(unsigned(row.try_get(2)?)),
            actor: row.try_get(3)?,
            peer: row.try_get(4)?,
            action: row.try_get(5)?,
            kind: row.try_get(6)?,
            name: row.try_get(7)?,
            before: row.try_get(8)?,
            after: row.try_get(9)?,
        },
        key_id: row.try_get(10)?,
        previous: digest(row, 11)?,
        hash: digest(row, 12)?,
    })
}
