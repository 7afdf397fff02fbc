//! Every metric of Tyr: names, help, labels and buckets stand here and nowhere
//! else. Operators read the same list in `conf/METRICS.md`; a test compares.
//!
//! Units: seconds, bytes, tokens and nano-dollars (10^-9 USD), named last.
//!
//! | histogram | buckets in seconds |
//! |---|---|
//! | `tyr_request_duration_seconds` | [`DURATION_BUCKETS`], 25 ms to 10 min |
//! | `tyr_time_to_first_byte_seconds` | [`FIRST_BYTE_BUCKETS`], 5 ms to 60 s |
//! | `tyr_overhead_seconds` | [`OVERHEAD_BUCKETS`], 50 µs to 1 s |
//!
//! Label values come from the configuration ([`Metrics::configure`]) or from
//! constants in code; any other provider or model is counted as `other`, an
//! absent one as `none`. Hence a client cannot add a series. Series are kept
//! until the process ends: a counter never goes backwards.
//!
//! Owns its registry. Failure answer: nothing here fails after `new`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cluster::ClusterView;
use policy::{NanoUsd, Timestamp, Usage};
use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::cluster::ClusterSeries;
use super::governance::Governance;
use super::prices::Prices;
use super::process;
use super::series::{Finished, ModelSeries};
use crate::api::Endpoint;

/// Bounds of the request histogram, in seconds.
pub const DURATION_BUCKETS: [f64; 16] = [
    0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0,
];
/// Bounds of the histogram of the time to the first byte, in seconds.
pub const FIRST_BYTE_BUCKETS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Bounds of the histogram of our own time, in seconds.
pub const OVERHEAD_BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_15, 0.000_2, 0.000_25, 0.000_3, 0.000_4, 0.000_5, 0.000_75, 0.001,
    0.001_5, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0,
];

/// The label of a provider or model that the configuration does not name.
pub const OTHER: &str = "other";
/// The label of a provider or model that the request never got to.
pub const NONE: &str = "none";

/// Most (provider, model) pairs with series of their own over the life of the
/// process; those configured later are counted as `other`.
const MAX_PAIRS: usize = 20_000;
const SHARDS: usize = 16;

/// The families that a [`ModelSeries`] draws its children from.
pub(super) struct Families {
    pub(super) requests: IntCounterVec,
    pub(super) durations: HistogramVec,
    pub(super) first_byte: HistogramVec,
    /// By position in `Endpoint::ALL`.
    pub(super) overhead: [Histogram; Endpoint::ALL.len()],
    pub(super) tokens: IntCounterVec,
    pub(super) cost: IntCounterVec,
    pub(super) attempts: IntCounterVec,
}

/// What the store of usage records says of itself; read at each scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageStatus {
    /// The store took the last call.
    pub store_ok: bool,
    /// The usage file took the last write.
    pub journal_ok: bool,
    /// Records made durable in the usage file since the start.
    pub written: u64,
    /// Records taken over by the store since the start.
    pub stored: u64,
    /// Records that passed a full queue and were written by their caller.
    pub overflowed: u64,
    /// Records given up: neither disk nor store nor memory took them.
    pub lost: u64,
    /// Records that wait for the usage file.
    pub queue_depth: u64,
    /// Bytes of usage files that the store does not have yet.
    pub waiting_bytes: u64,
}

/// The labels of one request, for [`Metrics::request`].
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels<'a> {
    /// Name of the provider that answered; empty when none was asked.
    pub provider: &'a str,
    /// Name of the model served or asked for; empty when none was named.
    pub model: &'a str,
}

type OpenConnections = Box<dyn Fn() -> usize + Send + Sync>;
type Shard = HashMap<Arc<str>, HashMap<Arc<str>, Arc<ModelSeries>>>;

/// All metrics of the process. Made once, shared by `Arc`.
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    shards: [Mutex<Shard>; SHARDS],
    /// Taken for a scrape, so that two at once do not add the same growth twice.
    scrape: Mutex<()>,
    pairs: Mutex<usize>,
    refusals: IntCounterVec,
    governance: Governance,
    prices: Prices,
    /// Of a node that is part of a cluster.
    cluster: OnceLock<ClusterSeries>,
    in_flight: IntGauge,
    streams: IntGauge,
    connections: IntGauge,
    open_connections: OnceLock<OpenConnections>,
    connections_refused: IntCounterVec,
    reload_successful: IntGauge,
    reload_at: Gauge,
    reload_success_at: Gauge,
    revision: IntGauge,
    usage_written: IntCounter,
    usage_stored: IntCounter,
    usage_overflowed: IntCounter,
    usage_lost: IntCounter,
    usage_queue_depth: IntGauge,
    usage_waiting: IntGauge,
    store_up: IntGauge,
    journal_up: IntGauge,
    ready: IntGauge,
    degraded: IntGaugeVec,
    admin_auth_failures: IntCounter,
    panics: IntCounter,
    log_lines_dropped: IntCounter,
    process: ProcessMetrics,
}

struct ProcessMetrics {
    resident: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    cpu: Counter,
    started_at: Gauge,
}

/// Holds a gauge one higher for as long as it lives.
#[derive(Debug)]
#[must_use = "the gauge falls when this is dropped"]
pub struct Held(IntGauge);

impl Held {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Held(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all families.
    #[rustfmt::skip] // one metric a line: this is the table of names
    pub fn new() -> Self {
        let make = Maker::new(Registry::new());
        make.build_info();
        let metrics = Metrics {
            families: Arc::new(Families::new(&make)),
            shards: Default::default(),
            scrape: Mutex::new(()),
            pairs: Mutex::new(0),
            refusals: make.counters("tyr_refusals_total", "Requests refused by Tyr itself.", &["reason"]),
            governance: Governance::new(&make),
            prices: Prices::new(&make),
            cluster: OnceLock::new(),
            in_flight: make.gauge("tyr_in_flight_requests", "Requests being served."),
            streams: make.gauge("tyr_streams", "Streamed answers being relayed."),
            connections: make.gauge("tyr_connections", "Client connections open on the data port."),
            open_connections: OnceLock::new(),
            connections_refused: make.counters("tyr_connections_refused_total", "Client connections refused, or closed for a faulty head.", &["reason"]),
            reload_successful: make.gauge("tyr_config_last_reload_successful", "1 when the last load of the configuration was accepted, else 0."),
            reload_at: make.real_gauge("tyr_config_last_reload_timestamp_seconds", "Unix time of the last load of the configuration, accepted or not."),
            reload_success_at: make.real_gauge("tyr_config_last_reload_success_timestamp_seconds", "Unix time of the last accepted load of the configuration."),
            revision: make.gauge("tyr_config_revision", "Revision of the configuration in use."),
            usage_written: make.counter("tyr_usage_records_written_total", "Usage records made durable in the usage file."),
            usage_stored: make.counter("tyr_usage_records_stored_total", "Usage records taken over by the store."),
            usage_overflowed: make.counter("tyr_usage_records_overflowed_total", "Usage records that passed a full queue and were written at once; none is lost."),
            usage_lost: make.counter("tyr_usage_records_lost_total", "Usage records given up: neither disk nor store nor memory took them."),
            usage_queue_depth: make.gauge("tyr_usage_queue_depth", "Usage records waiting for the usage file."),
            usage_waiting: make.gauge("tyr_usage_waiting_bytes", "Bytes of usage files that the store does not have yet."),
            store_up: make.gauge("tyr_store_up", "1 when the store took the last call, else 0."),
            journal_up: make.gauge("tyr_usage_file_up", "1 when the usage file took the last write, else 0."),
            ready: make.gauge("tyr_ready", "1 when /readyz answers 200, else 0."),
            degraded: make.gauges("tyr_degraded", "1 while the node serves without this part.", &["reason"]),
            admin_auth_failures: make.counter("tyr_admin_auth_failures_total", "Calls of the admin API with a wrong token."),
            panics: make.counter("tyr_panics_total", "Panics caught; each ended one request at most."),
            log_lines_dropped: make.counter("tyr_log_lines_dropped_total", "Log lines dropped because the reader of standard output stalled."),
            process: ProcessMetrics {
                resident: make.gauge("tyr_process_resident_memory_bytes", "Resident memory."),
                open_fds: make.gauge("tyr_process_open_fds", "Open file descriptors."),
                max_fds: make.gauge("tyr_process_max_fds", "Soft limit of open file descriptors."),
                threads: make.gauge("tyr_process_threads", "Threads."),
                cpu: make.real_counter("tyr_process_cpu_seconds_total", "CPU time in user and system mode."),
                started_at: make.real_gauge("tyr_process_start_time_seconds", "Unix time of the start of the process."),
            },
            registry: make.0,
        };
        for (provider, model) in [(OTHER, OTHER), (NONE, OTHER), (NONE, NONE)] {
            metrics.add_pair(&provider.into(), &model.into());
        }
        metrics
    }

    /// Makes the (provider, model) pairs of a configuration known as labels.
    /// Call it before a snapshot with them goes live. Pairs are never removed.
    pub fn configure<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (provider, model) in pairs {
            let (provider, model) = (Arc::from(provider), Arc::from(model));
            self.add_pair(&provider, &OTHER.into());
            self.add_pair(&NONE.into(), &model);
            self.add_pair(&provider, &model);
        }
    }

    /// The series of a pair. Names that [`Metrics::configure`] has not seen
    /// are `other`, empty ones `none`; so the text may come from a client.
    /// Costs two hashes and a short lock; a snapshot may keep the result.
    pub fn series(&self, provider: &str, model: &str) -> Arc<ModelSeries> {
        let or_none = |name| if str::is_empty(name) { NONE } else { name };
        let (provider, model) = (or_none(provider), or_none(model));
        self.find(provider, model)
            .or_else(|| self.find(provider, OTHER))
            .or_else(|| self.find(OTHER, OTHER))
            .expect("`new` adds the pair (other, other) and none is removed")
    }

    /// Counts one request that has ended, by names.
    pub fn request(&self, labels: RequestLabels<'_>, finished: &Finished) {
        self.series(labels.provider, labels.model).request(finished);
    }

    /// Adds tokens by kind. Not by virtual key: a million of those would be a
    /// million series; the usage records have them.
    pub fn tokens(&self, provider: &str, model: &str, usage: &Usage) {
        self.series(provider, model).tokens(usage);
    }

    /// Adds cost.
    pub fn cost(&self, provider: &str, model: &str, cost: NanoUsd) {
        self.series(provider, model).cost(cost);
    }

    /// Counts one attempt at a provider.
    pub fn attempt(&self, provider: &str, outcome: &'static str) {
        self.series(provider, OTHER).attempt(outcome);
    }

    /// Counts one request that Tyr itself refused.
    pub fn refusal(&self, reason: &'static str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    /// How the price list fares.
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// What limits and routing rules did.
    pub fn governance(&self) -> &Governance {
        &self.governance
    }

    /// One more request in flight until the guard is dropped.
    pub fn in_flight(&self) -> Held {
        Held::new(&self.in_flight)
    }

    /// Requests in flight now.
    pub fn in_flight_now(&self) -> u64 {
        u64::try_from(self.in_flight.get()).unwrap_or(0)
    }

    /// One more streamed answer until the guard is dropped.
    pub fn stream(&self) -> Held {
        Held::new(&self.streams)
    }

    /// Has the open client connections counted by `open` at each scrape. Only
    /// the first call counts.
    pub fn watch_connections(&self, open: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.open_connections.set(Box::new(open));
    }

    /// Counts one client connection refused, or closed for a faulty head.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    /// Notes a load of the configuration: `Ok` with the revision now in use.
    pub fn reload(&self, outcome: Result<u64, ()>, now: Timestamp) {
        let seconds = now.0 as f64 / 1_000.0;
        self.reload_at.set(seconds);
        self.reload_successful.set(i64::from(outcome.is_ok()));
        if let Ok(revision) = outcome {
            self.reload_success_at.set(seconds);
            self.revision.set(whole(revision));
        }
    }

    /// Counts one panic. The hook of `telemetry::count_panics` calls it.
    pub fn panic(&self) {
        self.panics.inc();
    }

    /// Counts one call of the admin API with a wrong token.
    pub fn admin_auth_failure(&self) {
        self.admin_auth_failures.inc();
    }

    /// Takes over what the store says; to be called before [`Metrics::render`].
    pub fn observe_usage(&self, status: UsageStatus) {
        let _one_at_a_time = locked(&self.scrape);
        raise(&self.usage_written, status.written);
        raise(&self.usage_stored, status.stored);
        raise(&self.usage_overflowed, status.overflowed);
        raise(&self.usage_lost, status.lost);
        self.usage_queue_depth.set(whole(status.queue_depth));
        self.usage_waiting.set(whole(status.waiting_bytes));
        self.store_up.set(i64::from(status.store_ok));
        self.journal_up.set(i64::from(status.journal_ok));
    }

    /// Takes over what a node sees of its cluster; to be called before
    /// [`Metrics::render`]. A node that stands alone has none of these metrics.
    pub fn observe_cluster(&self, view: &ClusterView) {
        let _one_at_a_time = locked(&self.scrape);
        let make = || ClusterSeries::new(&Maker(self.registry.clone()));
        self.cluster.get_or_init(make).observe(view);
    }

    /// Takes over readiness and every reason with whether it holds now.
    pub fn observe_readiness<'a>(
        &self,
        ready: bool,
        reasons: impl IntoIterator<Item = (&'a str, bool)>,
    ) {
        self.ready.set(i64::from(ready));
        for (reason, holds) in reasons {
            let gauge = self.degraded.with_label_values(&[reason]);
            gauge.set(i64::from(holds));
        }
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let _one_at_a_time = locked(&self.scrape);
        self.process.observe();
        raise(&self.log_lines_dropped, super::dropped_lines());
        if let Some(open) = self.open_connections.get() {
            self.connections.set(whole(open() as u64));
        }
        let mut text = String::with_capacity(64 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written as text");
        }
        text
    }

    fn find(&self, provider: &str, model: &str) -> Option<Arc<ModelSeries>> {
        let shard = locked(&self.shards[shard_of(model)]);
        Some(Arc::clone(shard.get(provider)?.get(model)?))
    }

    fn add_pair(&self, provider: &Arc<str>, model: &Arc<str>) {
        if self.find(provider, model).is_some() {
            return;
        }
        let mut pairs = locked(&self.pairs);
        if *pairs >= MAX_PAIRS {
            tracing::warn!(%provider, %model, "too many models for series of their own, counted as other");
            return;
        }
        *pairs += 1;
        let series = ModelSeries::new(
            Arc::clone(&self.families),
            Arc::clone(provider),
            Arc::clone(model),
        );
        locked(&self.shards[shard_of(model)])
            .entry(Arc::clone(provider))
            .or_default()
            .entry(Arc::clone(model))
            .or_insert_with(|| Arc::new(series));
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Families {
    #[rustfmt::skip] // one metric a line: this is the table of names
    fn new(make: &Maker) -> Self {
        let overhead = make.histograms("tyr_overhead_seconds", "Time a request spent in Tyr itself, waiting for others left out.", &["endpoint"], &OVERHEAD_BUCKETS);
        Families {
            requests: make.counters("tyr_requests_total", "Requests ended.", &["endpoint", "provider", "model", "status", "end"]),
            durations: make.histograms("tyr_request_duration_seconds", "From the first byte of the request to the last of the answer.", &["endpoint", "provider", "model", "status", "end"], &DURATION_BUCKETS),
            first_byte: make.histograms("tyr_time_to_first_byte_seconds", "From the first byte of the request to the first of the answer.", &["endpoint", "provider", "model"], &FIRST_BYTE_BUCKETS),
            overhead: Endpoint::ALL.map(|endpoint| overhead.with_label_values(&[endpoint.as_str()])),
            tokens: make.counters("tyr_tokens_total", "Tokens reported or estimated; the kinds are disjoint.", &["provider", "model", "kind"]),
            cost: make.counters("tyr_cost_nano_usd_total", "Cost in nano-dollars (1e-9 USD).", &["provider", "model"]),
            attempts: make.counters("tyr_upstream_attempts_total", "Attempts at a provider.", &["provider", "outcome"]),
        }
    }
}

impl ProcessMetrics {
    fn observe(&self) {
        let facts = process::read();
        let gauges = [
            (&self.resident, facts.resident_bytes),
            (&self.open_fds, facts.open_fds),
            (&self.max_fds, facts.max_fds),
            (&self.threads, facts.threads),
        ];
        for (gauge, value) in gauges {
            if let Some(value) = value {
                gauge.set(whole(value));
            }
        }
        if let Some(seconds) = facts.cpu_seconds {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Some(seconds) = facts.started_at_seconds {
            self.started_at.set(seconds);
        }
    }
}

// === impl Maker ===

/// Makes metrics and registers them. The names are constants of this file, so
/// a mistake shows in the first test that makes a `Metrics`.
pub(super) struct Maker(Registry);

impl Maker {
    pub(super) fn new(registry: Registry) -> Self {
        Maker(registry)
    }

    fn register<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        let metric = made.expect("names and labels in this file are valid");
        self.0
            .register(Box::new(metric.clone()))
            .expect("names in this file are distinct");
        metric
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn real_counter(&self, name: &str, help: &str) -> Counter {
        self.register(Counter::new(name, help))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    pub(super) fn real_gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn real_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels))
    }

    fn build_info(&self) {
        let name = "tyr_build_info";
        let info = self.gauges(name, "Always 1; the version is a label.", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }
}

/// Brings a counter up to a total that is kept elsewhere. It never falls.
pub(super) fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

pub(super) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A panic elsewhere cannot leave these maps half written.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// FNV-1a over the name. The maps inside the shards are keyed at random, so a
/// chosen name can crowd a shard's lock and nothing else.
fn shard_of(model: &str) -> usize {
    let hash = model.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash % SHARDS as u64) as usize
}
