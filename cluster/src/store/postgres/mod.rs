//! The store of a fleet: one Postgres database. All of its SQL is here and in
//! `migrations/postgres/`: static statements with bound parameters, prepared once a connection.
//!
//! A runtime with one thread of its own, `tyr-postgres`, serves the connections; calls block their
//! caller, and never one that serves requests.
//!
//! Numbers are kept as Postgres' signed 64-bit integers; a value above `i64::MAX` is kept as
//! `i64::MAX` instead of failing the batch that carries it.

mod cells;
mod config;
mod connect;
mod entities;
mod fleet;
mod link;
mod listener;
mod schema;
mod seal;
mod tls;
mod usage;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper as Client, Transaction};
use policy::{Cell, Timestamp};
use tokio::runtime::{Handle, Runtime};
use tokio_postgres::Row;

pub use self::config::{PasswordSource, PostgresConfig, PostgresUrlError, TlsMode};

use self::cells::Old;
use self::connect::Fault;
use self::link::Link;
use super::{
    Added, FleetStore, Loaded, News, Position, Sealed, Sealing, Store, UsagePage, UsageQuery,
    Written,
};
use crate::audit::{AuditHead, AuditKey, AuditRow};
use crate::core::HeartbeatRow;
use crate::data_dir::NodeKey;
use crate::entity::{Change, Entity, EntityWrite};
use crate::error::{StoreError, WriteError};
use crate::message::{self, WireCell};
use crate::origin::Origin;
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
    fn record_usage(&self, origin: Origin, batch: &[UsageRecord]) -> Result<u64, StoreError> {
        if batch.is_empty() {
            return Ok(0);
        }
        self.call("keep usage", async |client| {
            usage::record(client, origin, batch).await
        })
    }

    fn load_cells(&self, now: Timestamp) -> Result<Loaded, StoreError> {
        self.call("load cells", async |client| cells::load(client, now).await)
    }

    fn added_cells(&self, origin: Origin, after: Position, most: u32) -> Result<Added, StoreError> {
        self.call("read added usage", async |client| {
            cells::added(client, origin, after, most).await
        })
    }

    fn expire_cells(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.call("expire cells", async |client| {
            cells::expire(client, now, Old::All).await
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

impl FleetStore for PostgresStore {
    fn cells_by_origin(&self, now: Timestamp) -> Result<Vec<(Origin, Cell)>, StoreError> {
        self.call("load cells", async |client| {
            cells::by_origin(client, now).await
        })
    }

    fn flush_cells(&self, told: &[(Origin, WireCell)]) -> Result<(), StoreError> {
        if told.is_empty() {
            return Ok(());
        }
        self.call("flush cells", async |client| {
            cells::raise(client, told).await
        })
    }

    fn expire_windows(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.call("expire cells", async |client| {
            fleet::forget_beats(client).await?;
            cells::expire(client, now, Old::Rest).await
        })
    }

    fn heartbeat(&self, origin: Origin, name: &str, region: &str) -> Result<(), StoreError> {
        self.call("keep a heartbeat", async |client| {
            fleet::beat(client, origin, name, region).await
        })
    }

    fn heartbeats(&self) -> Result<Vec<HeartbeatRow>, StoreError> {
        self.call("read heartbeats", async |client| fleet::beats(client).await)
    }

    fn take_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        lease: Duration,
    ) -> Result<Option<u64>, StoreError> {
        self.call("take a term", async |client| {
            fleet::take_term(client, scope, task, me, lease).await
        })
    }

    fn release_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        term: u64,
    ) -> Result<(), StoreError> {
        self.call("release a term", async |client| {
            fleet::release_term(client, scope, task, me, term).await
        })
    }

    fn present_term(&self, scope: &str, task: &str) -> Result<Option<u64>, StoreError> {
        self.call("read a term", async |client| {
            fleet::present_term(client, scope, task).await
        })
    }

    fn save_outcome(&self, outcome: &message::Outcome) -> Result<bool, StoreError> {
        self.call("keep an outcome", async |client| {
            fleet::save_outcome(client, outcome).await
        })
    }

    fn outcomes(&self) -> Result<Vec<message::Outcome>, StoreError> {
        self.call("read outcomes", async |client| {
            fleet::outcomes(client).await
        })
    }

    fn seal_windows(&self, sealing: Sealing) -> Result<Sealed, StoreError> {
        self.call("seal windows", async |client| {
            seal::seal(client, sealing).await
        })
    }

    fn forget_sealed(&self, sealing: Sealing) -> Result<Sealed, StoreError> {
        self.call("forget sealed windows", async |client| {
            seal::forget(client, sealing).await
        })
    }

    fn listen(&self, news: News) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(listener::listen(self.link.connector(), news));
        }
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

/// Postgres keeps no NUL in a text; one must not fail the batch that carries it for ever.
fn clean(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
    }
}

/// A node's key, of a UUID's text.
fn node_of(text: &str) -> Outcome<NodeKey> {
    let digits = text.replace('-', "");
    let key = u128::from_str_radix(&digits, 16).map_err(Trouble::content)?;
    Ok(NodeKey(key))
}

fn digest(row: &Row, column: usize) -> Outcome<[u8; 32]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(Trouble::content)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
