//! What one request carries through its phases.
//!
//! Owner of the request's state: its own phases. `Drop` settles whatever is
//! still held, because Pingora's `logging` phase is not called for a request
//! whose task is dropped at the end of a drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cluster::Recorder;
use policy::{Clock, Predictor, Timestamp};
use tokio::sync::watch;

use super::reject::{Reason, Refusal};
use super::settle::Account;
use super::tokenizer::TokenCounter;
use crate::admin::Readiness;
use crate::api::Shape;
use crate::clock;
use crate::state::Live;
use crate::telemetry::metrics::{Held, Metrics};

/// When a client that was shed may come again.
const SHED_RETRY: Duration = Duration::from_secs(1);

/// What all requests share.
#[derive(Debug)]
pub struct Services {
    /// The configuration that a new request takes.
    pub live: Arc<ArcSwap<Live>>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where usage records go.
    pub recorder: Recorder,
    /// Counters and histograms; also knows how many requests are in flight.
    pub metrics: Arc<Metrics>,
    /// Whether the node still wants requests.
    pub readiness: Arc<Readiness>,
    /// What earlier answers teach about the length of the next.
    pub predictor: Arc<Predictor>,
    /// Counts prompts near the end of a strict limit.
    pub tokens: TokenCounter,
    /// Bytes of request bodies held now.
    pub held_bytes: AtomicU64,
    /// Says `true` when requests that still run are out of time.
    pub cut: watch::Receiver<bool>,
}

/// One request, from its head to its end.
pub struct RequestContext {
    pub(super) services: Arc<Services>,
    /// The configuration this request began with.
    pub(super) live: Arc<Live>,
    pub(super) started: Instant,
    pub(super) started_at: Timestamp,
    /// As told to the caller: the caller's own id if it sent a sound one.
    pub(super) request_id: String,
    /// Always ours, because it identifies the usage record: a caller that
    /// could choose it could have a second request counted as the first.
    pub(super) record_id: String,
    pub(super) shape: Shape,
    /// Open from admission to settlement.
    pub(super) account: Option<Account>,
    /// Bytes of the body that count as held.
    held_bytes: u64,
    /// Counts the request as in flight; falls after the account is settled.
    _in_flight: Held,
}

impl RequestContext {
    pub(super) fn new(services: &Arc<Services>) -> Self {
        RequestContext {
            live: services.live.load_full(),
            started: clock::monotonic(),
            started_at: services.clock.now(),
            request_id: String::new(),
            record_id: String::new(),
            shape: Shape::OpenAi,
            account: None,
            held_bytes: 0,
            _in_flight: services.metrics.in_flight(),
            services: services.clone(),
        }
    }

    /// Counts bytes of the body as held until the request ends; refuses when
    /// all requests together would hold more than the node may.
    pub(super) fn hold_bytes(&mut self, bytes: usize) -> Result<(), Refusal> {
        let bytes = bytes as u64;
        self.held_bytes += bytes;
        let before = self.services.held_bytes.fetch_add(bytes, Ordering::AcqRel);
        if before.saturating_add(bytes) <= self.live.bounds.max_held_bodies {
            return Ok(());
        }
        let message = "the gateway holds as many request bodies as it may";
        let mut refusal = Refusal::new(Reason::Overloaded, message);
        refusal.retry_after = Some(SHED_RETRY);
        Err(refusal.closing())
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        if let Some(mut account) = self.account.take() {
            account.abandon();
        }
        let all = &self.services.held_bytes;
        all.fetch_sub(self.held_bytes, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestContext")
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}
