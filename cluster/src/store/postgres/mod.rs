//! The store of a fleet: one Postgres database. All of its SQL is here and in
//! `migrations/postgres/`: static statements with bound parameters, prepared once a connection.
//!
//! A runtime with one thread of its own, `tyr-postgres`, serves the connections; calls block their
//! caller, and never one that serves requests.
//!
//! Numbers are kept as Postgres' signed 64-bit integers; a value above `i64::MAX` is kept as
//! `i64::MAX` instead of failing the batch that carries it.

mod config;
mod connect;
mod entities;
mod link;
mod schema;
mod tls;
mod usage;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::Arc;
use std::thread;

use deadpool_postgres::{ClientWrapper as Client, Transaction};
use policy::Timestamp;
use tokio::runtime::{Handle, Runtime};

pub use self::config::{PasswordSource, PostgresConfig, PostgresUrlError, TlsMode};

use self::connect::Fault;
use self::link::Link;
use super::{Added, Loaded, Position, Store, UsagePage, UsageQuery, Written};
use crate::audit::{AuditHead, AuditKey, AuditRow};
use crate::entity::{Change, Entity, EntityWrite};
use crate::error::{StoreError, WriteError};
use crate::record::UsageRecord;

const THREAD: &str = "tyr-postgres";

/// A store in one Postgres database.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    link: Arc<Link>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// Why a piece of work failed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Database(#[from] Fault),
    /// What was read is not what a node writes.
    #[error("what is stored cannot be understood: {0}")]
    Content(Box<dyn Error + Send + Sync>),
}

type Outcome<T> = Result<T, Trouble>;

impl PostgresStore {
    /// Connects, for some seconds if need be, and brings the schema up to date.
    pub(crate) fn open(config: &PostgresConfig) -> Result<Self, StoreError> {
        let store = Self::open_or_wait(config)?;
        match store.outage() {
            None => Ok(store),
            Some(reason) => Err(StoreError::Away { reason }),
        }
    }

    /// As [`PostgresStore::open`], but a database that cannot be reached is no error: the store goes
    /// on looking for it, and every call fails until it was found and its schema is good.
    pub(crate) fn open_or_wait(config: &PostgresConfig) -> Result<Self, StoreError> {
        let link = Arc::new(Link::new(config)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name(THREAD)
            .enable_all()
            .build()
            .map_err(|source| StoreError::failed("start its thread", source))?;
        runtime.spawn(Arc::clone(&link).watch());
        let store = Self {
            link,
            runtime: Some(runtime),
        };
        store.block(async |link| link.first().await)?;
        Ok(store)
    }

    /// Why the database is away, if it is.
    pub(crate) fn outage(&self) -> Option<String> {
        self.link.outage()
    }

    /// Does the work on a connection of the pool, and waits for it.
    fn call<T, W>(&self, action: &'static str, work: W) -> Result<T, StoreError>
    where
        T: Send,
        W: AsyncFnOnce(&mut Client) -> Outcome<T> + Send,
    {
        self.block(async move |link| link.run(action, work).await)
    }

    fn block<T, W>(&self, work: W) -> T
    where
        T: Send,
        W: AsyncFnOnce(&Link) -> T + Send,
    {
        let runtime = self.runtime.as_ref().expect("there until the drop");
        let run = || runtime.block_on(work(&self.link));
        if Handle::try_current().is_err() {
            return run();
        }
        // A thread that belongs to a runtime may not wait for another one.
        let done = thread::scope(|scope| scope.spawn(run).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        // Does not wait, so that it may be dropped anywhere; connections are closed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for PostgresStore {
    fn record_usage(&self, boot: u64, batch: &[UsageRecord]) -> Result<u64, StoreError> {
        if batch.is_empty() {
            return Ok(0);
        }
        self.call("keep usage", async |client| {
            usage::record(client, boot, batch).await
        })
    }

    fn load_cells(&self, now: Timestamp) -> Result<Loaded, StoreError> {
        self.call("load cells", async |client| usage::load(client, now).await)
    }

    fn added_cells(&self, boot: u64, after: Position, most: u32) -> Result<Added, StoreError> {
        self.call("read added usage", async |client| {
            usage::added(client, boot, after, most).await
        })
    }

    fn expire_cells(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.call("expire cells", async |client| {
            usage::expire(client, now).await
        })
    }

    fn usage(&self, request_id: &str) -> Result<Option<UsageRecord>, StoreError> {
        self.call("read usage", async |client| {
            usage::one(client, request_id).await
        })
    }

    fn recent_usage(&self, query: UsageQuery<'_>) -> Result<UsagePage, StoreError> {
        self.call("read recent usage", async |client| {
            usage::recent(client, query).await
        })
    }

    fn usage_count(&self) -> Result<u64, StoreError> {
        self.call("count usage", async |client| usage::count(client).await)
    }

    fn write_entities(
        &self,
        writes: &[EntityWrite],
        change: &Change,
        key: &AuditKey,
    ) -> Result<Written, WriteError> {
        self.call("write entities", async |client| {
            entities::write(client, writes, change, key).await
        })?
    }

    fn entities_since(&self, after: u64, most: u32) -> Result<Vec<Entity>, StoreError> {
        self.call("read entities", async |client| {
            entities::since(client, after, most).await
        })
    }

    fn audit_rows(&self, after_seq: u64, most: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.call("read the audit log", async |client| {
            entities::audit_rows(client, after_seq, most).await
        })
    }

    fn audit_head(&self) -> Result<Option<AuditHead>, StoreError> {
        self.call("read the audit head", async |client| {
            entities::audit_head(client).await
        })
    }
}

// === impl Trouble ===

impl Trouble {
    fn content(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Content(Box::new(error))
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
