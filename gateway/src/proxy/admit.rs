//! From a request's facts to its reservation.
//!
//! The allow-list is judged before anything else; then the one walk over all
//! limits in `policy::admit` takes everything the request may need, or nothing.

use std::sync::Arc;

use policy::{Demand, ModelId, Price, RouteRefusal, Tokens, Usage, Verdict, VirtualKey};
use rand::RngExt;

use super::context::RequestContext;
use super::reject::{Reason, Refusal};
use super::rewrite::RequestFacts;
use super::settle::{Account, Call};
use crate::api::Endpoint;

/// Output that a request without a limit of its own is first taken to have.
const COLD_OUTPUT: u64 = 1024;

/// Longest answer of a model whose entry does not say (`max_output_tokens`).
const DEFAULT_MAX_OUTPUT: u64 = 131_072;

/// An admitted request's upstream choices, in order. Its account is open in
/// `ctx` from here on.
pub(super) fn admit(
    ctx: &mut RequestContext,
    key: Arc<VirtualKey>,
    endpoint: Endpoint,
    facts: &RequestFacts<'_>,
) -> Result<Vec<ModelId>, Refusal> {
    let snapshot = &ctx.live.policy;
    let random = rand::rng().random();
    let choices = policy::choices(snapshot, &key, &facts.model, endpoint.dialect(), random)
        .map_err(|refusal| of_route(refusal, &facts.model))?;
    let now = ctx.services.clock.now();
    let (demand, prompt_estimate) = demand(ctx, endpoint, facts, &choices);
    let reservation = match policy::admit(&key.scopes, &demand, now) {
        Verdict::Admit(reservation) => reservation,
        Verdict::Reject(rejection) => {
            return Err(Refusal::of_limit(
                &rejection,
                ctx.live.budget_status,
                ctx.shape,
                now,
            ));
        }
    };
    let call = Call {
        endpoint,
        model_requested: facts.model.clone().into_owned(),
        stream: facts.stream,
        prompt_bytes: facts.prompt_bytes,
        prompt_estimate,
        key,
    };
    let started = (ctx.started, ctx.started_at);
    let account = Account::open(&ctx.services, &ctx.record_id, started, call, reservation);
    ctx.account = Some(account);
    Ok(choices)
}

fn of_route(refusal: RouteRefusal, model: &str) -> Refusal {
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
    };
    Refusal::new(reason, message).param(Some("model"))
}

/// What the request may need, at the price of its dearest choice.
fn demand(
    ctx: &RequestContext,
    endpoint: Endpoint,
    facts: &RequestFacts<'_>,
    choices: &[ModelId],
) -> (Demand, Tokens) {
    let mut demand = Demand {
        choices: facts.choices_n,
        ..Demand::default()
    };
    // Counting tokens is free and takes nothing from a limit of tokens.
    if endpoint == Endpoint::CountTokens {
        return (demand, Tokens::ZERO);
    }
    let snapshot = &ctx.live.policy;
    let mut first_estimate = None;
    for id in choices {
        let model = snapshot.model(*id);
        let prompt = model.estimate.estimate(facts.prompt_bytes);
        let strict_prompt = model.estimate.estimate_strict(facts.prompt_bytes);
        first_estimate.get_or_insert(prompt);
        let largest = largest_output(endpoint, facts, model.max_output_tokens);
        let likely = largest.min(COLD_OUTPUT);
        let answers = facts.choices_n.max(1);
        let usage = |prompt: Tokens, output: u64| Usage {
            input: prompt.0,
            output: output.saturating_mul(answers),
            ..Usage::default()
        };
        let likely = usage(prompt, likely);
        let most = usage(strict_prompt, largest);
        let dearest = dearest(&model.price);
        let prompt_cost = dearest.cost(&usage(strict_prompt, 0));
        demand.tokens = demand.tokens.max(likely.limited());
        demand.cost = demand.cost.max(model.price.cost(&likely));
        demand.strict_tokens = demand.strict_tokens.max(most.limited());
        demand.strict_cost = demand.strict_cost.max(dearest.cost(&most));
        demand.prompt_tokens = demand.prompt_tokens.max(strict_prompt);
        demand.prompt_cost = demand.prompt_cost.max(prompt_cost);
        demand.output_price = demand.output_price.max(dearest.output);
    }
    (demand, first_estimate.unwrap_or(Tokens::ZERO))
}

/// The most that a token of a prompt or of an answer can cost: a strict budget
/// holds for a prompt that is written to the dearest cache.
fn dearest(price: &Price) -> Price {
    let input = price.input.max(price.cache_write).max(price.cache_write_1h);
    let output = price.output.max(price.reasoning);
    Price {
        input,
        output,
        ..*price
    }
}

fn largest_output(endpoint: Endpoint, facts: &RequestFacts<'_>, model_max: Option<u64>) -> u64 {
    if endpoint == Endpoint::Embeddings {
        return 0;
    }
    let model_max = model_max.unwrap_or(DEFAULT_MAX_OUTPUT);
    facts
        .max_output_tokens
        .map_or(model_max, |asked| asked.min(model_max))
}
