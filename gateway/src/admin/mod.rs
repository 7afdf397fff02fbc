//! The admin port: health, metrics and the API under `/api/`.
//!
//! Promises: everything under `/api/` is judged before it is looked at (closed
//! when no admin token is configured); no answer carries a secret's value, as
//! only fields named here leave; the port keeps answering while the data plane
//! is loaded, drains or waits for its store, because it has its own thread.
//!
//! Owns [`Readiness`] and the throttle of wrong tokens; reads everything else
//! through [`AdminState`]. Must not change the configuration other than by
//! asking for a reload. Failure answer: JSON `{"error": {"type", "message"}}`.
//!
//! | route | who | answers |
//! |---|---|---|
//! | `GET /livez` | anyone | 200 `ok` while the process runs |
//! | `GET /readyz`, `/healthz` | anyone | 200 or 503 with the reasons |
//! | `GET /metrics` | anyone | Prometheus text |
//! | `GET /api/config` | viewer | the configuration in use, secrets masked |
//! | `GET /api/virtual-keys`, `/{name}` | viewer | keys and where their limits stand |
//! | `GET /api/usage`, `/{request_id}` | viewer | usage records |
//! | `POST /api/reload` | operator | the new revision, or every problem |
//! | `POST /api/drain` | operator | readiness fails from now on |

mod answer;
mod auth;
mod configuration;
mod health;
mod readiness;
mod server;
mod throttle;
mod usage;
mod virtual_keys;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue, header};
use policy::Clock;

use crate::state::Live;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::UsageStatus;

use answer::Failure;
use throttle::Throttle;

pub use configuration::ReloadProblem;
pub use readiness::{Degraded, Readiness};
pub use server::{AdminServer, ServeError, bind, serve};
pub use usage::{UsagePage, UsageReader, UsageUnavailable};

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
    /// Usage records; without it `/api/usage` answers 503.
    pub usage: Option<Arc<dyn UsageReader>>,
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
}

/// All routes of the admin port.
pub fn router(state: AdminState) -> Router {
    let shared = Shared {
        state,
        throttle: Arc::default(),
        reloading: Arc::default(),
    };
    let keys = get(virtual_keys::list).fallback(virtual_keys::refuse_creation);
    let key = get(virtual_keys::show).fallback(virtual_keys::refuse_write);
    let api = Router::new()
        .route("/config", get(configuration::show))
        .route("/reload", post(configuration::reload))
        .route("/drain", post(health::drain))
        .route("/virtual-keys", keys)
        .route("/virtual-keys/{name}", key)
        .route("/usage", get(usage::list))
        .route("/usage/{request_id}", get(usage::show))
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
