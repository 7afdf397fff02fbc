//! Heartbeats, terms and outcomes in Postgres. Time is the server's, so that leases end everywhere at
//! once.

use std::time::Duration;

use policy::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Client, Outcome, Transaction, node_of, signed, unsigned};
use crate::core::HeartbeatRow;
use crate::message;
use crate::origin::Origin;
use crate::store::fleet::{heartbeat_kept_ms, millis};

const BEAT: &str = "
    INSERT INTO node_heartbeat AS known (node, boot, name, region, beat_at)
    VALUES ($1::text::uuid, $2, $3, $4, now())
    ON CONFLICT (node) DO UPDATE SET
        boot = excluded.boot, name = excluded.name, region = excluded.region,
        beat_at = excluded.beat_at
    WHERE known.boot <= excluded.boot";

const SELECT_BEATS: &str = "
    SELECT node::text, boot, name, region,
        (extract(epoch FROM now() - beat_at) * 1000)::bigint
    FROM node_heartbeat ORDER BY node";

const FORGET_BEATS: &str =
    "DELETE FROM node_heartbeat WHERE beat_at < now() - $1::bigint * interval '1 millisecond'";

// The same term only for who holds it now; a larger one for who may take it. The clock is read when
// the row is locked, not when the transaction began.
const TAKE_TERM: &str = "
    INSERT INTO leader_term AS held (scope, task, term, node, boot, lease_until)
    VALUES ($1, $2, 1, $3::text::uuid, $4,
        clock_timestamp() + $5::bigint * interval '1 millisecond')
    ON CONFLICT (scope, task) DO UPDATE SET
        term = held.term + CASE
            WHEN held.node = excluded.node AND held.boot = excluded.boot
                AND held.lease_until > clock_timestamp() THEN 0
            ELSE 1
        END,
        node = excluded.node,
        boot = excluded.boot,
        lease_until = clock_timestamp() + $5::bigint * interval '1 millisecond'
    WHERE held.lease_until <= clock_timestamp() OR held.node = excluded.node
    RETURNING term";

const RELEASE_TERM: &str = "
    UPDATE leader_term SET lease_until = clock_timestamp()
    WHERE scope = $1 AND task = $2 AND node = $3::text::uuid AND boot = $4 AND term = $5";

// Holds off whoever is about to take the next one.
const SELECT_TERM: &str = "SELECT term FROM leader_term WHERE scope = $1 AND task = $2 FOR SHARE";

const READ_TERM: &str = "SELECT term FROM leader_term WHERE scope = $1 AND task = $2";

const IS_HELD: &str = "
    SELECT 1 FROM leader_term
    WHERE scope = $1 AND task = $2 AND node = $3::text::uuid AND boot = $4 AND term = $5
        AND lease_until > clock_timestamp()
    FOR SHARE";

const KEEP_OUTCOME: &str = "
    INSERT INTO leader_outcome AS kept (scope, task, term, hash, at_ms, body)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (scope, task) DO UPDATE SET
        term = excluded.term, hash = excluded.hash, at_ms = excluded.at_ms, body = excluded.body
    WHERE kept.term <= excluded.term";

const SELECT_OUTCOMES: &str =
    "SELECT scope, task, term, hash, at_ms, body FROM leader_outcome ORDER BY scope, task";

pub(super) async fn beat(
    client: &mut Client,
    origin: Origin,
    name: &str,
    region: &str,
) -> Outcome<()> {
    let beat = client.prepare_cached(BEAT).await?;
    let row: [&(dyn ToSql + Sync); 4] = [
        &origin.node.to_string(),
        &signed(origin.boot),
        &name,
        &region,
    ];
    client.execute(&beat, &row).await?;
    Ok(())
}

pub(super) async fn beats(client: &mut Client) -> Outcome<Vec<HeartbeatRow>> {
    let select = client.prepare_cached(SELECT_BEATS).await?;
    let rows = client.query(&select, &[]).await?;
    let beat = |row: &Row| -> Outcome<HeartbeatRow> {
        let node = node_of(row.try_get(0)?)?;
        let boot = unsigned(row.try_get(1)?);
        Ok(HeartbeatRow {
            origin: Origin { node, boot },
            name: row.try_get(2)?,
            region: row.try_get(3)?,
            stale_for: Duration::from_millis(unsigned(row.try_get(4)?)),
        })
    };
    rows.iter().map(beat).collect()
}

/// Removes the rows of nodes that have been silent for days.
pub(super) async fn forget_beats(client: &mut Client) -> Outcome<()> {
    let forget = client.prepare_cached(FORGET_BEATS).await?;
    client.execute(&forget, &[&heartbeat_kept_ms()]).await?;
    Ok(())
}

pub(super) async fn take_term(
    client: &mut Client,
    scope: &str,
    task: &str,
    me: Origin,
    lease: Duration,
) -> Outcome<Option<u64>> {
    let take = client.prepare_cached(TAKE_TERM).await?;
    let row: [&(dyn ToSql + Sync); 5] = [
        &scope,
        &task,
        &me.node.to_string(),
        &signed(me.boot),
        &millis(lease),
    ];
    let taken = client.query_opt(&take, &row).await?;
    Ok(taken.map(|row| row.try_get(0)).transpose()?.map(unsigned))
}

pub(super) async fn release_term(
    client: &mut Client,
    scope: &str,
    task: &str,
    me: Origin,
    term: u64,
) -> Outcome<()> {
    let release = client.prepare_cached(RELEASE_TERM).await?;
    let row: [&(dyn ToSql + Sync); 5] = [
        &scope,
        &task,
        &me.node.to_string(),
        &signed(me.boot),
        &signed(term),
    ];
    client.execute(&release, &row).await?;
    Ok(())
}

pub(super) async fn present_term(
    client: &mut Client,
    scope: &str,
    task: &str,
) -> Outcome<Option<u64>> {
    let read = client.prepare_cached(READ_TERM).await?;
    let row = client.query_opt(&read, &[&scope, &task]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(unsigned))
}

/// Whether this term is held; until the transaction's end nobody takes the next one.
pub(super) async fn is_held(
    transaction: &Transaction<'_>,
    scope: &str,
    task: &str,
    me: Origin,
    term: u64,
) -> Outcome<bool> {
    let held = transaction.prepare_cached(IS_HELD).await?;
    let row: [&(dyn ToSql + Sync); 5] = [
        &scope,
        &task,
        &me.node.to_string(),
        &signed(me.boot),
        &signed(term),
    ];
    Ok(transaction.query_opt(&held, &row).await?.is_some())
}

/// `false`: a larger term is known.
pub(super) async fn save_outcome(client: &mut Client, outcome: &message::Outcome) -> Outcome<bool> {
    let transaction = client.transaction().await?;
    let taken = transaction.prepare_cached(SELECT_TERM).await?;
    let taken = transaction
        .query_opt(&taken, &[&outcome.scope, &outcome.task])
        .await?;
    let taken = taken.map(|row| row.try_get(0)).transpose()?.map(unsigned);
    if taken > Some(outcome.term) {
        return Ok(false);
    }
    let keep = transaction.prepare_cached(KEEP_OUTCOME).await?;
    let row: [&(dyn ToSql + Sync); 6] = [
        &outcome.scope,
        &outcome.task,
        &signed(outcome.term),
        &outcome.hash.as_slice(),
        &signed(outcome.at.0),
        &&*outcome.body,
    ];
    let kept = transaction.execute(&keep, &row).await?;
    transaction.commit().await?;
    Ok(kept == 1)
}

pub(super) async fn outcomes(client: &mut Client) -> Outcome<Vec<message::Outcome>> {
    let select = client.prepare_cached(SELECT_OUTCOMES).await?;
    let rows = client.query(&select, &[]).await?;
    let outcome = |row: &Row| -> Outcome<message::Outcome> {
        Ok(message::Outcome {
            scope: row.try_get(0)?,
            task: row.try_get(1)?,
            term: unsigned(row.try_get(2)?),
            hash: super::digest(row, 3)?,
            at: Timestamp(unsigned(row.try_get(4)?)),
            body: row.try_get::<_, &[u8]>(5)?.into(),
        })
    };
    rows.iter().map(outcome).collect()
}
