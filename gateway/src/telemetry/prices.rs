//! How the price list fares, as metrics.

use policy::Timestamp;
use prometheus::{Gauge, IntCounterVec, IntGauge};

use super::metrics::{Maker, whole};

/// Counters and gauges of the price list.
#[derive(Debug)]
pub struct Prices {
    fetches: IntCounterVec,
    fetched_at: Gauge,
    models: IntGauge,
    unpriced: IntGauge,
}

impl Prices {
    #[rustfmt::skip] // one metric a line: this is the table of names
    pub(super) fn new(make: &Maker) -> Self {
        let new = Prices {
            fetches: make.counters("tyr_catalogue_fetches_total", "Times this node asked for the price list.", &["outcome"]),
            fetched_at: make.real_gauge("tyr_catalogue_fetched_timestamp_seconds", "Unix time at which the price list in use was last found to be what its source says."),
            models: make.gauge("tyr_catalogue_models", "Models with a price in the list in use."),
            unpriced: make.gauge("tyr_catalogue_unpriced_models", "Configured models that are not served because their price is not known."),
        };
        for outcome in ["fetched", "unchanged", "failed"] {
            new.fetches.with_label_values(&[outcome]);
        }
        new
    }

    /// Counts one try to fetch the list.
    pub fn fetch(&self, outcome: &'static str) {
        self.fetches.with_label_values(&[outcome]).inc();
    }

    /// Notes the list in use.
    pub fn took(&self, models: usize, fetched_at: Timestamp) {
        self.models.set(whole(models as u64));
        self.fetched_at.set(fetched_at.0 as f64 / 1_000.0);
    }

    /// Notes how many models of a configuration have no known price.
    pub fn configure(&self, unpriced: usize) {
        self.unpriced.set(whole(unpriced as u64));
    }
}
