//! The admin port: health, metrics and the API under `/api/`.
//!
//! Promises: everything under `/api/` is judged before it is looked at (closed
//! when no admin token is configured); no answer carries a secret's value, as
//! only fields named here leave; the port keeps answering while the data plane
//! is loaded, drains or waits for its store, because it has its own thread.
//!
//! Owns [`Readiness`] and the throttle of wrong tokens; reads everything else
//! through [`AdminState`]. Must not change the configuration other than through
//! [`Entities`] or by asking for a reload. Failure answer: JSON
//! `{"error": {"type", "message"}}`, with `problems` where a body is at fault.
//!
//! `/livez`, `/readyz`, `/healthz` and `/metrics` are open to anyone; everything
//! under `/api/` stands in the one table in `routes`, with the right it needs.

mod answer;
mod audit;
mod auth;
mod cluster;
mod configuration;
mod entities;
pub mod explain;
mod health;
mod limits;
mod openapi;
mod prices;
mod readiness;
pub mod rights;
mod routes;
mod server;
mod standing;
mod throttle;
mod usage;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderName, HeaderValue, header};
use policy::{Clock, Predictor};

use crate::prices::PriceBoard;
use crate::state::Live;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::UsageStatus;

use answer::Failure;
use auth::Caller;
use throttle::Throttle;

pub use audit::{AuditReader, AuditUnavailable, AuditedChange};
pub use cluster::{
    Cluster, ClusterShown, DegradedShown, DiagnosisLine, Finding, MemberShown, state_word,
};
pub use configuration::ReloadProblem;
pub use entities::Entities;
pub use readiness::{Degraded, Readiness};
pub use server::{AdminServer, ServeError, bind, serve};
pub use usage::{UsageFound, UsageQuery, UsageReader, UsageUnavailable};

/// Reads of the store at a time. With one change and one reload this leaves
/// threads of the port for whatever waits for nobody.
const STORE_READS: usize = 2;

/// Reads the configuration again: the revision now in use, or why the old one
/// stays. Called on a thread that may block, one call at a time.
pub type Reload = Arc<dyn Fn() -> Result<u64, Vec<ReloadProblem>> + Send + Sync>;

/// What the store of usage records says now. Must not block.
pub type StoreStatus = Arc<dyn Fn() -> UsageStatus + Send + Sync>;

/// What the admin port reads and calls.
#[derive(Clone)]
pub struct AdminState {
    /// The configuration in use.
    pub live: Arc<ArcSwap<Live>>,
    /// The registry behind `GET /metrics`.
    pub metrics: Arc<Metrics>,
    /// The time of windows and of the throttle.
    pub clock: Arc<dyn Clock>,
    /// Whether the node wants traffic.
    pub readiness: Arc<Readiness>,
    /// Asked by `POST /api/reload`.
    pub reload: Reload,
    /// Asked at each scrape and each `GET /readyz`.
    pub store_status: StoreStatus,
    /// The name of this node.
    pub node: Arc<str>,
    /// The entities of the file and of the store.
    pub entities: Arc<dyn Entities>,
    /// Who changed what.
    pub audit: Arc<dyn AuditReader>,
    /// What earlier answers say of the next, for explanations.
    pub predictor: Arc<Predictor>,
    /// The other nodes; `None` where the node stands alone.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// Usage records; without it `/api/usage` answers 503.
    pub usage: Option<Arc<dyn UsageReader>>,
    /// How the price list fares.
    pub prices: Arc<PriceBoard>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

/// [`AdminState`] and what the port itself keeps.
#[derive(Clone)]
struct Shared {
    state: AdminState,
    throttle: Arc<Throttle>,
    /// One reload at a time; those behind it wait without holding a thread.
    reloading: Arc<tokio::sync::Mutex<()>>,
    /// One change of entities at a time, as they follow one another anyway.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Reads of the store, so that a slow one leaves threads for the rest.
    reading: Arc<tokio::sync::Semaphore>,
    /// Revocations that wait behind another change.
    revoking: Arc<tokio::sync::Semaphore>,
    /// Writes that wait for the other nodes.
    spreading: Arc<tokio::sync::Semaphore>,
    /// One diagnosis at a time.
    diagnosing: Arc<tokio::sync::Semaphore>,
}

/// All routes of the admin port.
pub fn router(state: AdminState) -> Router {
    let shared = Shared {
        state,
        throttle: Arc::default(),
        reloading: Arc::default(),
        changing: Arc::default(),
        reading: Arc::new(tokio::sync::Semaphore::new(STORE_READS)),
        revoking: Arc::new(tokio::sync::Semaphore::new(entities::REVOKING)),
        spreading: Arc::new(tokio::sync::Semaphore::new(cluster::WAITERS)),
        diagnosing: Arc::new(tokio::sync::Semaphore::new(1)),
    };
    let api = routes::router()
        .fallback(async || Failure::not_found("no such path in the admin API"))
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        // Around the fallbacks too: who may not call learns no path.
        .layer(middleware::from_fn_with_state(shared.clone(), auth::guard));
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/healthz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .nest("/api", api)
        .fallback(async || Failure::not_found("no such path on the admin port"))
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .layer(middleware::from_fn(harden))
        .with_state(shared)
}

/// Headers of every answer of the port: nothing is cached, sniffed or framed.
async fn harden(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Shared {
    /// Reads the store on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = Arc::clone(&self.reading).acquire_owned().await;
        let turn = turn.map_err(|_| Failure::internal())?;
        let read = move || {
            let read = read();
            drop(turn);
            read
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| Failure::internal())
    }

    /// Puts into the audit trail what was done to the node itself. It is done
    /// whether or not the trail can be written: a node must drain also when
    /// its store is away.
    async fn note(&self, action: &'static str, caller: &Caller) {
        let actor = caller.actor();
        let noted = self
            .change(move |entities| entities.note(action, &actor))
            .await;
        let failed = match noted {
            Ok(Ok(())) => return,
            Ok(Err(refusal)) => format!("{refusal:?}"),
            Err(failure) => format!("{failure:?}"),
        };
        tracing::error!(action, by = %caller.name, failed, "not in the audit trail");
    }
}
