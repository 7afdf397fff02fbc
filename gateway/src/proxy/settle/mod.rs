//! From reservation to real spend, exactly once on every exit.
//!
//! An `Account` is open from admission on. The phases write into it what they
//! learn; whichever way the request ends, `settle` runs once and the rest is a
//! no-op. A task that is dropped or panics settles through `abandon`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Basis, EndReason, UsageRecord};
use policy::{Actual, Candidate, Model, ModelId, NanoUsd, Reservation, Timestamp, Tokens, Usage};

use super::auth::Identity;
use super::context::Services;
use super::demand::Ask;
use super::meter::Meter;
use crate::api::Endpoint;
use crate::state::Live;
use crate::telemetry::Finished;

/// Output after which a stream's holds are looked at again, in tokens.
const TOP_UP_EVERY: u64 = 256;

/// What is known of a call when it is admitted.
#[derive(Debug)]
pub(super) struct Call {
    pub ask: Ask,
    pub caller: Identity,
    /// As the caller wrote it.
    pub model_requested: String,
    pub stream: bool,
    /// The routing rule that chose the way.
    pub rule: Option<Arc<str>>,
    /// The bound on each answer that limits asked for.
    pub clamp: Option<u64>,
    /// What the request needs of each upstream choice.
    pub candidates: Vec<Candidate>,
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

/// Whether a provider may have seen the request.
#[derive(Clone, Copy, Debug, Default)]
struct Reach {
    /// Any of them.
    any: bool,
    /// That of the current choice.
    here: bool,
}

/// One admitted request's open account.
#[derive(Debug)]
pub(super) struct Account {
    services: Arc<Services>,
    /// The configuration that the request runs with.
    live: Arc<Live>,
    record_id: String,
    started: Instant,
    started_at: Timestamp,
    pub call: Call,
    reservation: Option<Reservation>,
    pub served: Option<Served>,
    /// Reads the answer that is being relayed.
    pub meter: Option<Meter>,
    attempts: u32,
    /// What the prompt is taken to be at the current choice.
    prompt_estimate: Tokens,
    reach: Reach,
    /// As it was before the current attempt.
    reach_before: Reach,
    /// Whether a provider may be at work on it now.
    in_attempt: bool,
    /// Output at which the holds are looked at again.
    top_up_at: u64,
    pub status: u16,
    pub first_byte: Option<Duration>,
    pub overhead: Duration,
    pub upstream_request_id: Option<String>,
    /// The end to record if nothing better becomes known.
    pub end: EndReason,
}

impl Account {
    /// `held`: what is reserved, and for which of the candidates.
    pub(super) fn open(
        services: &Arc<Services>,
        live: &Arc<Live>,
        record_id: &str,
        started: (Instant, Timestamp),
        call: Call,
        held: (Reservation, usize),
    ) -> Self {
        let (reservation, chosen) = held;
        let mut account = Account {
            services: services.clone(),
            live: live.clone(),
            record_id: record_id.to_owned(),
            started: started.0,
            started_at: started.1,
            call,
            reservation: Some(reservation),
            served: None,
            meter: None,
            attempts: 0,
            prompt_estimate: Tokens::ZERO,
            reach: Reach::default(),
            reach_before: Reach::default(),
            in_attempt: false,
            top_up_at: TOP_UP_EVERY,
            status: 0,
            first_byte: None,
            overhead: Duration::ZERO,
            upstream_request_id: None,
            end: EndReason::Shutdown,
        };
        account.estimate_prompt(chosen);
        account
    }

    fn estimate_prompt(&mut self, choice: usize) {
        if let Some(candidate) = self.call.candidates.get(choice) {
            let model = self.live.policy.model(candidate.model);
            self.prompt_estimate = model.estimate.estimate(self.call.ask.prompt_bytes);
        }
    }

    /// Takes the limits of another upstream choice in place of those before;
    /// false when one of them has no room. The request then holds none of a
    /// choice, and may go on to the next.
    pub(super) fn move_to(&mut self, choice: usize) -> bool {
        let Some(candidate) = self.call.candidates.get(choice) else {
            return false;
        };
        let Some(reservation) = &mut self.reservation else {
            return false;
        };
        let now = self.services.clock.now();
        let key = &self.call.caller.key;
        let reached = std::mem::take(&mut self.reach.here);
        let moved = reservation.move_to(&self.live.policy, key, candidate, reached, now);
        let governance = self.services.metrics.governance();
        for would in reservation.take_shadowed() {
            governance.shadow_refused(would.scope, would.unit);
        }
        if let Err(rejection) = &moved {
            tracing::debug!(record_id = %self.record_id, limit = %rejection.limit_label(),
                "an upstream choice is full and is skipped");
            return false;
        }
        self.estimate_prompt(choice);
        true
    }

    /// An attempt begins: the provider counts as reached unless it turns out
    /// that nothing left.
    pub(super) fn attempt_begins(&mut self, served: Served) {
        self.attempts += 1;
        self.reach_before = self.reach;
        self.reach = Reach {
            any: true,
            here: true,
        };
        self.in_attempt = true;
        self.served = Some(served);
    }

    /// The attempt brought no answer; `left`: the provider may have seen it.
    pub(super) fn attempt_failed(&mut self, left: bool) {
        self.in_attempt = false;
        if !left {
            self.reach = self.reach_before;
        }
    }

    /// Raises what a stream holds once more output has passed than was
    /// predicted. Cheap until enough has passed since the last look.
    pub(super) fn top_up(&mut self) {
        let Some(meter) = &self.meter else { return };
        let seen = meter.output_tokens();
        if seen < self.top_up_at {
            return;
        }
        self.top_up_at = seen.saturating_add(TOP_UP_EVERY);
        let (Some(served), Some(reservation)) = (&self.served, &mut self.reservation) else {
            return;
        };
        let model = served.model();
        let ask = &self.call.ask;
        let predicted = self
            .services
            .predictor
            .predict(&self.call.caller.key.name, &model.name);
        let answers = ask.answers.max(1);
        let likely = ask.likely_output(model, predicted).saturating_mul(answers);
        let most = ask.most_output(model).saturating_mul(answers);
        // An answer that outgrew its prediction goes on at least to the next
        // look, but not past its bound.
        let output = likely.max(self.top_up_at).min(most.max(seen));
        let mut usage = meter.partial(self.prompt_estimate);
        usage.output = usage.output.max(output.saturating_sub(usage.reasoning));
        let cost = model.price.cost(&usage);
        let now = self.services.clock.now();
        // A strict hold that cannot grow stays: it was made for the longest
        // answer, and what is used in the end is booked all the same.
        if let Err(rejection) = reservation.top_up(usage.limited(), cost, now) {
            tracing::debug!(record_id = %self.record_id, limit = %rejection.limit_label(),
                "a strict limit has no room for a longer answer");
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
        let Some(mut reservation) = self.reservation.take() else {
            return;
        };
        let now = self.services.clock.now();
        if !self.reach.here {
            reservation.leave_choice(false, now);
        }
        let (usage, basis) = self.usage(end);
        let cost = match &self.served {
            Some(served) => served.model().price.cost(&usage),
            None => NanoUsd::ZERO,
        };
        // A request that reached no provider gives its place back.
        let requests = u64::from(self.reach.any);
        let actual = Actual {
            requests,
            tokens: usage.limited(),
            cost,
        };
        let charges = reservation.settle(&actual, now);
        self.learn(&usage, basis);
        self.count(&usage, cost, end);
        self.log(&usage, cost, end);
        let key = &self.call.caller.key;
        let customer = self.live.policy.customer_of(key);
        self.services.recorder.record(UsageRecord {
            request_id: std::mem::take(&mut self.record_id),
            key: key.name.to_string(),
            team: key.team.as_deref().map(str::to_owned),
            customer: customer.map(|customer| customer.to_string()),
            user: self.call.caller.user.as_deref().map(str::to_owned),
            rule: self.call.rule.as_deref().map(str::to_owned),
            model_requested: std::mem::take(&mut self.call.model_requested),
            model_served: self.served.as_ref().map(|s| s.model().name.to_string()),
            provider: self.served.as_ref().map(|s| s.provider.to_string()),
            credential: self.served.as_ref().map(|s| s.credential.to_string()),
            endpoint: self.call.ask.endpoint.as_str().to_owned(),
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
        });
    }

    /// What was used, and how that is known. An error's text never counts.
    fn usage(&self, end: EndReason) -> (Usage, Basis) {
        if let Some(usage) = self.meter.as_ref().and_then(Meter::reported) {
            return (usage, Basis::Reported);
        }
        match &self.meter {
            Some(meter) if meter.output_seen() || meter.usage_seen() => {
                let usage = meter.partial(self.prompt_estimate);
                (usage, Basis::PartialEstimate)
            }
            meter if self.is_prompt_spent(meter.is_some(), end) => {
                let input = self.prompt_estimate.0;
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
        let free = self.call.ask.endpoint == Endpoint::CountTokens;
        !free && (answered || (left && self.in_attempt))
    }

    /// Since the request began.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn learn(&self, usage: &Usage, basis: Basis) {
        let (Some(served), Basis::Reported) = (&self.served, basis) else {
            return;
        };
        let model = served.model();
        let prompt = usage.input + usage.cache_read + usage.cache_write + usage.cache_write_1h;
        model.estimate.learn(self.call.ask.prompt_bytes, prompt);
        // An answer that was bounded by a limit says nothing of the next one.
        let answers = self.call.ask.answers.max(1);
        if self.call.ask.most_output(model) > 0 && self.call.clamp.is_none() {
            let output = usage
                .output
                .saturating_add(usage.reasoning)
                .div_ceil(answers);
            let key = &self.call.caller.key.name;
            self.services.predictor.learn(key, &model.name, output);
        }
    }

    /// The one access line of an admitted request.
    fn log(&self, usage: &Usage, cost: NanoUsd, end: EndReason) {
        let served = self.served.as_ref();
        tracing::info!(
            target: "tyr::access",
            record_id = %self.record_id,
            endpoint = self.call.ask.endpoint.as_str(),
            key = %self.call.caller.key.name,
            user = self.call.caller.user.as_deref(),
            rule = self.call.rule.as_deref(),
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
            endpoint: self.call.ask.endpoint,
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
