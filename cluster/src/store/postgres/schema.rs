//! Bringing the tables up to date, forward only.
//!
//! Promise: however many nodes start at once, each migration is applied once, whole or not at all:
//! each is one transaction that holds an advisory lock from its first statement on.
//! A schema newer than this program is accepted when the newest migration says that programs as old
//! as this one may go on with it (`works_with`): so a fleet is upgraded node by node.
//! Failure: the schema stays as the last whole migration left it.

use tokio_postgres::Client;

use super::connect::{Direct, Fault};
use crate::error::StoreError;

/// One step, never edited once released.
struct Migration {
    /// The oldest schema version that a program may have been made for to go on with this one:
    /// its own version if older programs would fail or do harm.
    works_with: i64,
    sql: &'static str,
}

/// In order; the first is version 1.
const MIGRATIONS: [Migration; 4] = [
    Migration {
        works_with: 1,
        sql: include_str!("../migrations/postgres/0001_usage_and_cells.sql"),
    },
    Migration {
        works_with: 1,
        sql: include_str!("../migrations/postgres/0002_entities.sql"),
    },
    Migration {
        works_with: 1,
        sql: include_str!("../migrations/postgres/0003_fleet.sql"),
    },
    Migration {
        works_with: 1,
        sql: include_str!("../migrations/postgres/0004_sealed_by_end.sql"),
    },
];

/// The version that this program was made for.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

// Any number that no other program uses in the same database.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8391747294018457)";

// A migration may take its time; who waits for it gives up before an operator does.
const PATIENCE: &str = "SET statement_timeout = 0; SET lock_timeout = '60s'";

const HAS_VERSIONS: &str = "SELECT to_regclass('tyr_schema') IS NOT NULL";

const CREATE_VERSIONS: &str = "
    CREATE TABLE IF NOT EXISTS tyr_schema (
        version    BIGINT      NOT NULL PRIMARY KEY,
        works_with BIGINT      NOT NULL, -- the oldest program's version that may use this one
        applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )";

const SELECT_VERSIONS: &str = "
    SELECT coalesce(max(version), 0),
        coalesce(max(works_with) FILTER (WHERE version > $1), 0)
    FROM tyr_schema";

const NOTE_VERSION: &str = "INSERT INTO tyr_schema (version, works_with) VALUES ($1, $2)";

/// What the database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// 0: nothing.
    version: i64,
    /// What a program must know at least to use it; 0 if it is not newer than this program.
    needs: i64,
}

/// Makes sure that this program can work with the schema; migrates it if `migrate`.
pub(super) async fn prepare(direct: &mut Direct, migrate: bool) -> Result<(), StoreError> {
    let client = &mut direct.client;
    let found = look(client)
        .await
        .map_err(|error| failed("read the schema version", error))?;
    judge(found)?;
    if found.version >= KNOWN {
        return Ok(());
    }
    if !migrate {
        return Err(StoreError::SchemaTooOld {
            found: found.version,
            known: KNOWN,
        });
    }
    client
        .batch_execute(PATIENCE)
        .await
        .map_err(|error| failed("prepare to migrate", error))?;
    while step(client).await? {}
    Ok(())
}

fn judge(found: Found) -> Result<(), StoreError> {
    if found.version <= KNOWN {
        return Ok(());
    }
    if found.needs > KNOWN {
        return Err(StoreError::SchemaTooNew {
            found: found.version,
            known: KNOWN,
        });
    }
    let version = found.version;
    tracing::info!(
        version,
        known = KNOWN,
        "store schema is newer, and compatible"
    );
    Ok(())
}

async fn look(client: &Client) -> Result<Found, tokio_postgres::Error> {
    if !client.query_one(HAS_VERSIONS, &[]).await?.try_get(0)? {
        return Ok(Found {
            version: 0,
            needs: 0,
        });
    }
    let row = client.query_one(SELECT_VERSIONS, &[&KNOWN]).await?;
    Ok(Found {
        version: row.try_get(0)?,
        needs: row.try_get(1)?,
    })
}

/// Applies the next migration, if there is one that nobody applied meanwhile.
async fn step(client: &mut Client) -> Result<bool, StoreError> {
    let apply = async {
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK).await?;
        transaction.batch_execute(CREATE_VERSIONS).await?;
        let row = transaction.query_one(SELECT_VERSIONS, &[&KNOWN]).await?;
        let done: i64 = row.try_get(0)?;
        let next = usize::try_from(done).ok();
        let Some(migration) = next.and_then(|next| MIGRATIONS.get(next)) else {
            transaction.rollback().await?;
            return Ok(None);
        };
        let version = done + 1;
        transaction.batch_execute(migration.sql).await?;
        let note = [&version as _, &migration.works_with as _];
        transaction.execute(NOTE_VERSION, &note).await?;
        transaction.commit().await?;
        Ok(Some(version))
    };
    match apply.await {
        Ok(Some(version)) => {
            tracing::info!(version, "store schema migrated");
            Ok(true)
        }
        Ok(None) => Ok(false),
        Err(error) => Err(failed("migrate", error)),
    }
}

fn failed(action: &'static str, error: tokio_postgres::Error) -> StoreError {
    StoreError::failed(action, Fault::from(error))
}
