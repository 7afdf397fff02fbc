//! The label sets of one (provider, model), resolved once so that a request
//! pays for additions only: no hashing, no lock, no allocation.
//!
//! A child is created with its first observation, so a model that nobody calls
//! adds no line to a scrape. Owner: `Metrics` keeps every `ModelSeries` for
//! the life of the process, hence counters never go backwards on a reload.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use policy::{NanoUsd, Usage};
use prometheus::{Histogram, IntCounter};

use super::metrics::Families;
use crate::api::Endpoint;

/// Ends whose children are kept at hand; others are looked up by name.
const COMMON_ENDS: [&str; 7] = [
    "success",
    "upstream_error",
    "client_gone",
    "timeout",
    "refused",
    "shutdown",
    "panic",
];
/// 1xx to 5xx, and whatever is none of them.
const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// The token kinds in the order of [`kinds`].
pub(super) const TOKEN_KINDS: [&str; 6] = [
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "output",
    "reasoning",
];

/// How one request ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// The HTTP status sent to the client; 0 when nothing was sent.
    pub status: u16,
    /// Why it ended, as in the usage record.
    pub end: &'static str,
    /// From the first byte of the request to the last byte of the answer.
    pub total: Duration,
    /// From the first byte of the request to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// Time spent in Tyr itself: `total` less all waiting for others.
    pub overhead: Duration,
}

/// The metrics of one model of one provider. Shared, cheap to keep.
pub struct ModelSeries {
    provider: Arc<str>,
    model: Arc<str>,
    families: Arc<Families>,
    endpoints: [OnceLock<Box<EndpointSeries>>; Endpoint::ALL.len()],
    tokens: [OnceLock<IntCounter>; TOKEN_KINDS.len()],
    cost: OnceLock<IntCounter>,
}

#[derive(Default)]
struct EndpointSeries {
    durations: [[OnceLock<Histogram>; COMMON_ENDS.len()]; CLASSES.len()],
    first_byte: OnceLock<Histogram>,
    /// Status 200 that ended well: nearly every request.
    succeeded: OnceLock<IntCounter>,
}

impl ModelSeries {
    pub(super) fn new(families: Arc<Families>, provider: Arc<str>, model: Arc<str>) -> Self {
        ModelSeries {
            provider,
            model,
            families,
            endpoints: Default::default(),
            tokens: Default::default(),
            cost: OnceLock::new(),
        }
    }

    /// The value of the label `provider`.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The value of the label `model`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Counts one request that has ended.
    pub fn request(&self, finished: &Finished) {
        let index = position(finished.endpoint);
        let series = self.endpoints[index].get_or_init(Box::default);
        self.count(series, finished);
        self.duration(series, finished)
            .observe(finished.total.as_secs_f64());
        if let Some(first_byte) = finished.first_byte {
            let [provider, model, endpoint] = self.labels(finished.endpoint);
            series
                .first_byte
                .get_or_init(|| {
                    let labels = [endpoint, provider, model];
                    self.families.first_byte.with_label_values(&labels)
                })
                .observe(first_byte.as_secs_f64());
        }
        self.families.overhead[index].observe(finished.overhead.as_secs_f64());
    }

    /// Adds tokens by kind, as the provider reported or as estimated.
    pub fn tokens(&self, usage: &Usage) {
        for ((kind, amount), counter) in TOKEN_KINDS.iter().zip(kinds(usage)).zip(&self.tokens) {
            if amount > 0 {
                let labels = [&*self.provider, &*self.model, kind];
                counter
                    .get_or_init(|| self.families.tokens.with_label_values(&labels))
                    .inc_by(amount);
            }
        }
    }

    /// Adds cost in nano-dollars.
    pub fn cost(&self, cost: NanoUsd) {
        if cost.0 > 0 {
            let labels = [&*self.provider, &*self.model];
            self.cost
                .get_or_init(|| self.families.cost.with_label_values(&labels))
                .inc_by(cost.0);
        }
    }

    /// Counts one attempt at the provider.
    pub fn attempt(&self, outcome: &'static str) {
        let labels = [&*self.provider, outcome];
        self.families.attempts.with_label_values(&labels).inc();
    }

    fn labels(&self, endpoint: Endpoint) -> [&str; 3] {
        [&self.provider, &self.model, endpoint.as_str()]
    }

    fn count(&self, series: &EndpointSeries, finished: &Finished) {
        let [provider, model, endpoint] = self.labels(finished.endpoint);
        let mut digits = [0; 3];
        let status = status_text(finished.status, &mut digits);
        let child = || {
            let labels = [endpoint, provider, model, status, finished.end];
            self.families.requests.with_label_values(&labels)
        };
        if finished.status == 200 && finished.end == COMMON_ENDS[0] {
            series.succeeded.get_or_init(child).inc();
        } else {
            child().inc();
        }
    }

    fn duration(&self, series: &EndpointSeries, finished: &Finished) -> Histogram {
        let [provider, model, endpoint] = self.labels(finished.endpoint);
        let class = class(finished.status);
        let child = || {
            let labels = [endpoint, provider, model, CLASSES[class], finished.end];
            self.families.durations.with_label_values(&labels)
        };
        match COMMON_ENDS.iter().position(|end| *end == finished.end) {
            Some(end) => series.durations[class][end].get_or_init(child).clone(),
            None => child(),
        }
    }
}

impl fmt::Debug for ModelSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSeries")
            .field("provider", &self.provider)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// The index of `endpoint` in `Endpoint::ALL`.
pub(super) fn position(endpoint: Endpoint) -> usize {
    match endpoint {
        Endpoint::ChatCompletions => 0,
        Endpoint::Completions => 1,
        Endpoint::Embeddings => 2,
        Endpoint::Responses => 3,
        Endpoint::Messages => 4,
        Endpoint::CountTokens => 5,
    }
}

fn class(status: u16) -> usize {
    match status {
        100..=599 => usize::from(status / 100),
        _ => 0,
    }
}

/// The status as a label, in three digits; "other" for what is no status.
fn status_text(status: u16, digits: &mut [u8; 3]) -> &str {
    if class(status) == 0 {
        return "other";
    }
    for (place, divisor) in digits.iter_mut().zip([100, 10, 1]) {
        // A remainder by 10 always fits.
        *place = b'0' + (status / divisor % 10) as u8;
    }
    std::str::from_utf8(digits).unwrap_or("other")
}

fn kinds(usage: &Usage) -> [u64; TOKEN_KINDS.len()] {
    [
        usage.input,
        usage.cache_read,
        usage.cache_write,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
    ]
}
