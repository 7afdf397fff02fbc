//! From a request's facts to its reservation.
//!
//! The allow-list is judged before anything else, then the routing rules; then
//! the one walk over all limits in `policy::admit` takes everything the
//! request may need, or nothing. Where a strict limit is nearly used up, the
//! prompt is counted; where such a limit says `on_tight: clamp`, the answer is
//! bounded to what is left.

use bytes::Bytes;
use policy::{
    Admitted, Candidate, Choice, Dialect, OnTight, Rejection, RouteRefusal, Routed, RuleOutcome,
    RuleStep, Timestamp, Verdict,
};
use rand::RngExt;

use super::auth::Identity;
use super::context::RequestContext;
use super::demand::{self, Ask, DEFAULT_MAX_OUTPUT};
use super::limit_headers;
use super::reject::{Reason, Refusal};
use super::rewrite::RequestFacts;
use super::rule_input::RuleInput;
use super::settle::{Account, Call};
use crate::api::Endpoint;
use crate::state::Live;

/// How often a bound is lowered for one request: each time by a limit that
/// had more room before.
const CLAMPS_MAX: usize = 8;

/// An admitted request's way.
#[derive(Debug)]
pub(super) struct Plan {
    /// Upstream choices, in order.
    pub choices: Vec<Choice>,
    /// The first one with room; those before it are full.
    pub first: usize,
    /// The bound on each answer that limits ask for.
    pub clamp: Option<u64>,
}

/// One call before its admission.
pub(super) struct Asked<'a> {
    pub endpoint: Endpoint,
    pub body: &'a Bytes,
    pub facts: &'a RequestFacts<'a>,
    pub input: RuleInput<'a>,
}

/// Admits a request or says why not. Its account is open in `ctx` from here on.
pub(super) async fn admit(
    ctx: &mut RequestContext,
    caller: Identity,
    asked: &Asked<'_>,
) -> Result<Plan, Refusal> {
    let live = ctx.live.clone();
    let routed = route(ctx, &live, &caller, asked)?;
    let facts = asked.facts;
    let mut way = Way {
        ctx,
        live: &live,
        caller: &caller,
        choices: &routed.choices,
        ask: Ask {
            endpoint: asked.endpoint,
            prompt_bytes: facts.prompt_bytes,
            max_output_tokens: facts.max_output_tokens,
            answers: facts.choices_n,
            counted: None,
        },
        candidates: Vec::new(),
        clamp: None,
    };
    way.candidates = way.judge_demand();
    way.count_if_tight(asked).await;
    let admitted = way.take().map_err(|rejection| way.refusal(&rejection))?;
    let Way {
        ask,
        candidates,
        clamp,
        ..
    } = way;
    let rule = routed.decided_by().cloned();
    let governance = ctx.services.metrics.governance();
    for would in &admitted.shadowed {
        governance.shadow_refused(would.scope, would.unit);
    }
    if clamp.is_some() {
        governance.clamped();
    }
    let call = Call {
        ask,
        model_requested: facts.model.clone().into_owned(),
        stream: facts.stream,
        caller,
        rule,
        clamp,
        candidates,
    };
    let first = admitted.chosen;
    let started = (ctx.started, ctx.started_at);
    let reservation = admitted.reservation;
    let account = Account::open(
        &ctx.services,
        &live,
        &ctx.record_id,
        started,
        call,
        (reservation, first),
    );
    ctx.account = Some(account);
    Ok(Plan {
        choices: routed.choices,
        first,
        clamp,
    })
}

fn route(
    ctx: &RequestContext,
    live: &Live,
    caller: &Identity,
    asked: &Asked<'_>,
) -> Result<Routed, Refusal> {
    let now = ctx.services.clock.now();
    let gathered = asked.input.gathered(&live.policy);
    let call = policy::Call {
        model: &asked.facts.model,
        request_type: asked.endpoint.as_str(),
        dialect: asked.endpoint.dialect(),
        headers: &gathered.headers,
        params: &gathered.params(),
        user: caller.user.as_deref(),
        user_scope: caller.user_scope.as_ref(),
        random: rand::rng().random(),
        now,
    };
    let routed = policy::route(&live.policy, &caller.key, &call)
        .map_err(|refusal| of_route(refusal, &asked.facts.model))?;
    tell(ctx, &routed.trace, now);
    Ok(routed)
}

/// Counts what the rules did. A rule that fails is logged once a minute.
fn tell(ctx: &RequestContext, trace: &[RuleStep], now: Timestamp) {
    let governance = ctx.services.metrics.governance();
    for step in trace {
        let why = match &step.outcome {
            RuleOutcome::Matched => {
                governance.rule_matched(&step.rule, false);
                continue;
            }
            RuleOutcome::Shadowed => {
                governance.rule_matched(&step.rule, true);
                continue;
            }
            RuleOutcome::NotMatched => continue,
            RuleOutcome::Failed(why) => why,
            RuleOutcome::DepthExceeded => "the chain of rules is too long",
        };
        if governance.rule_failed(&step.rule, now) {
            tracing::warn!(rule = %step.rule, %why, request_id = %ctx.request_id,
                "a routing rule failed and counts as no match");
        }
    }
}

/// A request on its way to a reservation.
struct Way<'a> {
    ctx: &'a RequestContext,
    live: &'a Live,
    caller: &'a Identity,
    choices: &'a [Choice],
    ask: Ask,
    candidates: Vec<Candidate>,
    clamp: Option<u64>,
}

impl Way<'_> {
    fn judge_demand(&self) -> Vec<Candidate> {
        demand::candidates(
            &self.live.policy,
            &self.ctx.services.predictor,
            &self.caller.key.name,
            &self.ask,
            self.choices.iter().map(|choice| choice.model),
        )
    }

    /// Counts the prompt where an estimate by bytes could refuse a request
    /// that fits, or admit one that does not.
    async fn count_if_tight(&mut self, asked: &Asked<'_>) {
        let policy = &self.live.policy;
        let counts = |choice: &Choice| {
            policy.provider(policy.model(choice.model).provider).dialect == Dialect::OpenAi
        };
        // Media says more in bytes than in tokens, and is estimated by kind.
        if asked.facts.has_media || !self.choices.iter().any(counts) {
            return;
        }
        let (key, user) = (&self.caller.key, self.caller.user_scope.as_ref());
        let now = self.ctx.services.clock.now();
        if !policy::is_tight(policy, key, user, &self.candidates, now) {
            return;
        }
        let counted = self.ctx.services.tokens.count(asked.body).await;
        let outcome = match &counted {
            Ok(_) => "exact",
            Err(why) => why.label(),
        };
        let governance = self.ctx.services.metrics.governance();
        governance.prompt_counted(outcome);
        self.ask.counted = counted.ok();
        self.candidates = self.judge_demand();
    }

    /// Takes what the request needs, with a smaller bound on its answer where
    /// a limit wants that.
    fn take(&mut self) -> Result<Admitted, Box<Rejection>> {
        let mut clamps = 0;
        loop {
            let now = self.ctx.services.clock.now();
            let (key, user) = (&self.caller.key, self.caller.user_scope.as_ref());
            let policy = &self.live.policy;
            let rejection = match policy::admit(policy, key, user, &self.candidates, now) {
                Verdict::Admit(admitted) => return Ok(admitted),
                Verdict::Reject(rejection) => Box::new(rejection),
            };
            let bound = self.ask.max_output_tokens.unwrap_or(DEFAULT_MAX_OUTPUT);
            let lower = rejection.max_tokens_left.filter(|left| *left < bound);
            let (OnTight::Clamp, Some(lower)) = (rejection.on_tight, lower) else {
                return Err(rejection);
            };
            clamps += 1;
            if clamps > CLAMPS_MAX {
                return Err(rejection);
            }
            self.clamp = Some(lower);
            self.ask.max_output_tokens = Some(lower);
            self.candidates = self.judge_demand();
        }
    }

    /// The refusal of a limit, with where the caller stands elsewhere.
    fn refusal(&self, rejection: &Rejection) -> Refusal {
        let now = self.ctx.services.clock.now();
        let governance = self.ctx.services.metrics.governance();
        governance.limit_refused(rejection.scope, rejection.unit);
        let budget_status = self.live.budget_status;
        let mut refusal = Refusal::of_limit(rejection, budget_status, self.ctx.shape, now);
        if let Some(candidate) = self.candidates.first() {
            let (key, user) = (&self.caller.key, self.caller.user_scope.as_ref());
            let judged = policy::judge(&self.live.policy, key, user, candidate, now);
            let others = limit_headers::beside(rejection, &judged, self.ctx.shape, now);
            refusal.standing.extend(others);
        }
        refusal
    }
}

pub(super) fn of_route(refusal: RouteRefusal, model: &str) -> Refusal {
    // A name is the caller's own text; what is echoed of it is bounded.
    let shown: String = model.chars().take(128).collect();
    let (reason, message) = match refusal {
        RouteRefusal::UnknownModel => (
            Reason::ModelNotFound,
            format!("the model '{shown}' does not exist"),
        ),
        RouteRefusal::ModelNotAllowed => (
            Reason::Forbidden,
            format!("this key may not use the model '{shown}'"),
        ),
        RouteRefusal::NoCompatibleProvider => (
            Reason::UnsupportedEndpoint,
            format!("no provider of the model '{shown}' serves this endpoint"),
        ),
        RouteRefusal::PriceUnknown => (
            Reason::NotReady,
            format!("the price of the model '{shown}' is not known yet"),
        ),
    };
    Refusal::new(reason, message).param(Some("model"))
}
