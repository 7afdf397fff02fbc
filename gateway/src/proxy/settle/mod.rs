//! From reservation to real spend, exactly once on every exit.
//!
//! An `Account` is open from admission on. The phases write into it what they
//! learn; whichever way the request ends, `settle` runs once and the rest is a
//! no-op. A task that is dropped or panics settles through `abandon`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Basis, EndReason, UsageRecord};
use policy::{Actual, Model, ModelId, NanoUsd, Reservation, Timestamp, Tokens, Usage, VirtualKey};

use super::context::Services;
use super::meter::Meter;
use crate::api::Endpoint;
use crate::state::Live;
use crate::telemetry::Finished;

/// What is known of a call when it is admitted.
#[derive(Debug)]
pub(super) struct Call {
    pub endpoint: Endpoint,
    pub key: Arc<VirtualKey>,
    /// As the caller wrote it.
    pub model_requested: String,
    pub stream: bool,
    /// Bytes of the body that the prompt estimate counts.
    pub prompt_bytes: u64,
    pub prompt_estimate: Tokens,
}

/// The model and provider of the current attempt.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub live: Arc<Live>,
    pub model: ModelId,
    pub provider: Arc<str>,
    pub credential: Arc<str>,
}

impl Served {
    fn model(&self) -> &Model {
        self.live.policy.model(self.model)
    }
}

/// One admitted request's open account.
#[derive(Debug)]
pub(super) struct Account {
    services: Arc<Services>,
    record_id: String,
    started: Instant,
    started_at: Timestamp,
    pub call: Call,
    reservation: Option<Reservation>,
    pub served: Option<Served>,
    /// Reads the answer that is being relayed.
    pub meter: Option<Meter>,
    pub attempts: u32,
    /// Whether a provider may have seen the request.
    pub reached: bool,
    /// Whether a provider may be at work on it now.
    pub in_attempt: bool,
    pub status: u16,
    pub first_byte: Option<Duration>,
    pub overhead: Duration,
    pub upstream_request_id: Option<String>,
    /// The end to record if nothing better becomes known.
    pub end: EndReason,
}

impl Account {
    pub(super) fn open(
        services: &Arc<Services>,
        record_id: &str,
        started: (Instant, Timestamp),
        call: Call,
        reservation: Reservation,
    ) -> Self {
        Account {
            services: services.clone(),
            record_id: record_id.to_owned(),
            started: started.0,
            started_at: started.1,
            call,
            reservation: Some(reservation),
            served: None,
            meter: None,
            attempts: 0,
            reached: false,
            in_attempt: false,
            status: 0,
            first_byte: None,
            overhead: Duration::ZERO,
            upstream_request_id: None,
            end: EndReason::Shutdown,
        }
    }

    /// What is reserved, for the answer's limit headers.
    pub(super) fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    /// Settles with the end that the last phase wrote, if nobody has yet.
    pub(super) fn abandon(&mut self) {
        self.settle(self.end);
    }

    /// Turns the reservation into spend and leaves the usage record. Only the
    /// first call does anything.
    pub(super) fn settle(&mut self, end: EndReason) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let (usage, basis) = self.usage(end);
        let cost = match &self.served {
            Some(served) => served.model().price.cost(&usage),
            None => NanoUsd::ZERO,
        };
        // A request that reached no provider gives its place back.
        let requests = u64::from(self.reached);
        let actual = Actual {
            requests,
            tokens: usage.limited(),
            cost,
        };
        let charges = reservation.settle(&actual, self.services.clock.now());
        self.learn(&usage, basis);
        self.count(&usage, cost, end);
        self.log(&usage, cost, end);
        self.services.recorder.record(UsageRecord {
            request_id: std::mem::take(&mut self.record_id),
            key: self.call.key.name.to_string(),
            team: self.call.key.team.as_deref().map(str::to_owned),
            customer: self.call.key.customer.as_deref().map(str::to_owned),
            model_requested: std::mem::take(&mut self.call.model_requested),
            model_served: self.served.as_ref().map(|s| s.model().name.to_string()),
            provider: self.served.as_ref().map(|s| s.provider.to_string()),
            credential: self.served.as_ref().map(|s| s.credential.to_string()),
            endpoint: self.call.endpoint.as_str().to_owned(),
            stream: self.call.stream,
            usage,
            cost,
            basis,
            status: self.status,
            started_at: self.started_at,
            first_byte_ms: self.first_byte.map(millis),
            duration_ms: millis(self.started.elapsed()),
            attempts: self.attempts,
            end,
            upstream_request_id: self.upstream_request_id.take(),
            charges,
            user: None,
            rule: None,
        });
    }

    /// What was used, and how that is known. An error's text never counts.
    fn usage(&self, end: EndReason) -> (Usage, Basis) {
        if let Some(usage) = self.meter.as_ref().and_then(Meter::reported) {
            return (usage, Basis::Reported);
        }
        match &self.meter {
            Some(meter) if meter.output_seen() || meter.usage_seen() => {
                let usage = meter.partial(self.call.prompt_estimate);
                (usage, Basis::PartialEstimate)
            }
            meter if self.is_prompt_spent(meter.is_some(), end) => {
                let input = self.call.prompt_estimate.0;
                let usage = Usage {
                    input,
                    ..Usage::default()
                };
                (usage, Basis::PartialEstimate)
            }
            _ => (Usage::default(), Basis::None),
        }
    }

    /// Whether the provider bills a prompt whose answer nobody saw: it had
    /// begun a good answer, or the client itself broke the call off. Otherwise
    /// leaving early would be a way to spend past any budget.
    fn is_prompt_spent(&self, answered: bool, end: EndReason) -> bool {
        let left = matches!(end, EndReason::ClientGone | EndReason::Shutdown);
        let free = self.call.endpoint == Endpoint::CountTokens;
        !free && (answered || (left && self.in_attempt))
    }

    /// Since the request began.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn learn(&self, usage: &Usage, basis: Basis) {
        if let (Some(served), Basis::Reported) = (&self.served, basis) {
            let prompt = usage.input + usage.cache_read + usage.cache_write + usage.cache_write_1h;
            let ratio = &served.model().estimate;
            ratio.learn(self.call.prompt_bytes, prompt);
        }
    }

    /// The one access line of an admitted request.
    fn log(&self, usage: &Usage, cost: NanoUsd, end: EndReason) {
        let served = self.served.as_ref();
        tracing::info!(
            target: "tyr::access",
            record_id = %self.record_id,
            endpoint = self.call.endpoint.as_str(),
            key = %self.call.key.name,
            model = %self.call.model_requested,
            served = served.map(|served| served.model().name.as_ref()),
            provider = served.map(|served| served.provider.as_ref()),
            status = self.status,
            end = end.as_str(),
            stream = self.call.stream,
            attempts = self.attempts,
            tokens = usage.total(),
            cost_nano_usd = cost.0,
            first_byte_ms = self.first_byte.map(millis),
            duration_ms = millis(self.elapsed()),
            "request",
        );
    }

    fn count(&self, usage: &Usage, cost: NanoUsd, end: EndReason) {
        let (provider, model) = match &self.served {
            Some(served) => (served.provider.as_ref(), served.model().name.as_ref()),
            None => ("none", "none"),
        };
        let series = self.services.metrics.series(provider, model);
        series.request(&Finished {
            endpoint: self.call.endpoint,
            status: self.status,
            end: end.as_str(),
            total: self.elapsed(),
            first_byte: self.first_byte,
            overhead: self.overhead,
        });
        series.tokens(usage);
        series.cost(cost);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
