//! Sealing in Postgres: cells of calendar periods that have passed move to the sealed ones.
//!
//! A record counts in a sealed window or in what came late, never in both: it is in the one
//! transaction that takes its cell away.

use tokio_postgres::types::ToSql;

use super::{Client, Outcome, fleet, signed, unsigned};
use crate::store::{CLUSTER_SCOPE, SEAL_AFTER_MS, SEAL_TASK, Sealed, Sealing};

// A cell that is written just now stays, and is late. A node whose clock is ahead ends no period.
// As `is_sealed` says it: the fifth part of a counter's text is its window and generation.
const SEAL: &str = "
    WITH past AS MATERIALIZED (
        SELECT least($1, (extract(epoch FROM now()) * 1000)::bigint - $4::bigint) AS until_ms
    ), ended AS MATERIALIZED (
        SELECT DISTINCT counter, epoch FROM counter_cells
        WHERE expires_at_ms <= (SELECT until_ms FROM past) AND amount > 0
            AND split_part(split_part(counter, '/', 5), '#', 1) = 'calendar'
        LIMIT $2
    ), free AS MATERIALIZED (
        SELECT counter, epoch, boot FROM counter_cells AS cell JOIN ended USING (counter, epoch)
        WHERE cell.expires_at_ms <= (SELECT until_ms FROM past)
        FOR UPDATE OF cell SKIP LOCKED
    ), taken AS (
        DELETE FROM counter_cells WHERE (counter, epoch, boot) IN (SELECT * FROM free)
        RETURNING counter, epoch, amount, expires_at_ms
    ), sums AS (
        SELECT counter, epoch, sum(amount) AS amount, max(expires_at_ms) AS ended_ms
        FROM taken GROUP BY counter, epoch
    ), sealed AS (
        INSERT INTO usage_sealed (counter, epoch, amount, ended_ms, term)
        SELECT counter, epoch, amount, ended_ms, $3 FROM sums
        ON CONFLICT DO NOTHING
        RETURNING counter, epoch
    ), late AS (
        INSERT INTO usage_late (counter, epoch, amount, term)
        SELECT counter, epoch, amount, $3 FROM sums
        WHERE amount > 0 AND (counter, epoch) NOT IN (SELECT counter, epoch FROM sealed)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM ended), (SELECT count(*) FROM sealed),
        (SELECT count(*) FROM late)";

const FORGET: &str = "
    WITH old AS MATERIALIZED (
        SELECT counter, epoch FROM usage_sealed WHERE ended_ms <= $1
        ORDER BY ended_ms LIMIT $2
        FOR UPDATE
    ), gone AS (
        DELETE FROM usage_sealed WHERE (counter, epoch) IN (SELECT * FROM old) RETURNING 1
    ), late AS (
        DELETE FROM usage_late WHERE (counter, epoch) IN (SELECT * FROM old) RETURNING 1
    )
    SELECT (SELECT count(*) FROM old), (SELECT count(*) FROM gone), (SELECT count(*) FROM late)";

/// Removes old books.
pub(super) async fn forget(client: &mut Client, sealing: Sealing) -> Outcome<Sealed> {
    let (before, most) = (signed(sealing.before.0), i64::from(sealing.most));
    under_term(client, sealing, FORGET, &[&before, &most]).await
}

pub(super) async fn seal(client: &mut Client, sealing: Sealing) -> Outcome<Sealed> {
    let (before, most) = (signed(sealing.before.0), i64::from(sealing.most));
    let (term, after) = (signed(sealing.term), signed(SEAL_AFTER_MS));
    under_term(client, sealing, SEAL, &[&before, &most, &term, &after]).await
}

/// Runs a statement that tells how many periods it found, did and was late with, if the term is held.
async fn under_term(
    client: &mut Client,
    sealing: Sealing,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Outcome<Sealed> {
    let transaction = client.transaction().await?;
    let (me, term) = (sealing.me, sealing.term);
    if !fleet::is_held(&transaction, CLUSTER_SCOPE, SEAL_TASK, me, term).await? {
        return Ok(Sealed {
            stale: true,
            ..Sealed::default()
        });
    }
    let statement = transaction.prepare_cached(statement).await?;
    let row = transaction.query_one(&statement, parameters).await?;
    transaction.commit().await?;
    Ok(Sealed {
        windows: unsigned(row.try_get(1)?),
        late: unsigned(row.try_get(2)?),
        stale: false,
        more: row.try_get::<_, i64>(0)? >= i64::from(sealing.most),
    })
}
