//! The pool, and whether the database is there at all.
//!
//! Promise: while it is away, calls fail at once instead of waiting each for itself, and one task
//! looks for it twice a second; it counts as back once its schema was looked at again. A connection
//! that saw an error is not used again, so none is handed out in an unknown state.
//! Owner: this value; the pool is never larger than it was told.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::config::PostgresConfig;
use super::connect::{CONNECT_TIMEOUT, Connector, Pooled};
use super::{Client, Outcome, schema};
use crate::error::StoreError;

/// For a whole call once it has a connection: several statements, each with a timeout of its own at
/// the server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call waits for one of the pool's connections.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a database that is away is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a start waits for a database that does not answer.
const START_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 3 });

/// The way to one database.
pub(super) struct Link {
    connector: Arc<Connector>,
    pool: Pool,
    migrate: bool,
    /// Why the database is away; `None`: as far as known it is there.
    outage: Mutex<Option<String>>,
    lost: Notify,
}

// === impl Link ===

impl Link {
    pub(super) fn new(config: &PostgresConfig) -> Result<Self, StoreError> {
        let connector = Arc::new(Connector::new(config)?);
        // The connector has the settings of its own; the pool need not know the password.
        let manager = Manager::from_connect(
            tokio_postgres::Config::new(),
            Pooled(Arc::clone(&connector)),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(config.pool.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(TURN_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|source| StoreError::failed("prepare its connections", source))?;
        Ok(Self {
            connector,
            pool,
            migrate: config.migrate,
            outage: Mutex::default(),
            lost: Notify::new(),
        })
    }

    /// Looks for the database for some seconds. Errors if it is there and of no use; if it is not
    /// there, that is kept as the outage.
    pub(super) async fn first(&self) -> Result<(), StoreError> {
        let until = Instant::now() + START_PATIENCE;
        let mut ticks = interval_at(Instant::now(), LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let over = Instant::now() + LOOK_EVERY > until;
            match self.look().await {
                Ok(()) => return Ok(()),
                Err(StoreError::Away { reason }) if over => {
                    self.lose(&reason);
                    return Ok(());
                }
                Err(StoreError::Away { .. }) => {}
                Err(refused) => return Err(refused),
            }
        }
    }

    /// Looks for the database whenever it is away. Ends with its runtime.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            self.lost.notified().await;
            let mut ticks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.outage().is_some() {
                ticks.tick().await;
                match self.look().await {
                    Ok(()) => {
                        *self.slot() = None;
                        tracing::info!("the store is back");
                    }
                    Err(error) => *self.slot() = Some(reason_of(error)),
                }
            }
        }
    }

    /// Why the database is away, if it is.
    pub(super) fn outage(&self) -> Option<String> {
        self.slot().clone()
    }

    /// Makes connections beside the pool.
    pub(super) fn connector(&self) -> Arc<Connector> {
        Arc::clone(&self.connector)
    }

    /// Does the work on one connection.
    pub(super) async fn run<T>(
        &self,
        action: &'static str,
        work: impl AsyncFnOnce(&mut Client) -> Outcome<T>,
    ) -> Result<T, StoreError> {
        if let Some(reason) = self.outage() {
            return Err(StoreError::Away { reason });
        }
        let mut client = match self.pool.get().await {
            Ok(client) => client,
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                return Err(StoreError::failed(action, "every connection is busy"));
            }
            Err(error) => {
                let reason = self.reason(error);
                self.lose(&reason);
                return Err(StoreError::Away { reason });
            }
        };
        let fault = match timeout(CALL_TIMEOUT, work(&mut client)).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(trouble)) => StoreError::failed(action, trouble),
            Err(_) => StoreError::failed(action, "no answer in time"),
        };
        drop(Object::take(client));
        Err(fault)
    }

    /// Whether the database is there and its schema is good.
    async fn look(&self) -> Result<(), StoreError> {
        let away = |reason| StoreError::Away { reason };
        let mut direct = self.connector.direct().await.map_err(away)?;
        schema::prepare(&mut direct, self.migrate).await?;
        drop(direct);
        match self.pool.get().await {
            Ok(_) => Ok(()),
            Err(error) => Err(away(self.reason(error))),
        }
    }

    fn lose(&self, reason: &str) {
        let mut slot = self.slot();
        if slot.is_none() {
            tracing::warn!(reason, "the store is away");
        }
        *slot = Some(reason.to_owned());
        drop(slot);
        self.lost.notify_one();
    }

    fn reason(&self, error: PoolError) -> String {
        match error {
            PoolError::Backend(error) => self.connector.reason(error),
            PoolError::Timeout(_) => self.connector.timed_out(),
            other => other.to_string(),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<String>> {
        // Each change is one assignment.
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bare reason of an outage, and any other fault in full.
fn reason_of(error: StoreError) -> String {
    match error {
        StoreError::Away { reason } => reason,
        other => other.to_string(),
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("connector", &self.connector)
            .field("outage", &self.outage())
            .finish_non_exhaustive()
    }
}
