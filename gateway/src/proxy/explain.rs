//! What would happen to a request, decided by the functions that decide on its
//! path.
//!
//! Promise: nothing is sent, taken or counted. Where a weighted draw decides,
//! this is one draw of many.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{
    Candidate, Choice, Explained, Foreseen, Judged, KeyRefusal, ModelId, OnTight, Predictor,
    RuleOutcome, Scope, Snapshot, Timestamp, VirtualKey,
};
use rand::RngExt;

use super::admit::of_route;
use super::auth::{KEY_HEADERS, OWN_HEADER, of_key};
use super::demand::{self, Ask, DEFAULT_MAX_OUTPUT};
use super::reject::Refusal;
use super::route::{endpoint_of, shape_of};
use crate::admin::explain::{
    ChoiceShown, DemandShown, Explanation, JudgedLimit, KeyShown, Question, RefusalShown,
    RuleShown, SkippedShown, amount, dollars,
};
use crate::api::{Endpoint, Shape};
use crate::state::Live;

/// How often a bound is lowered, as on a request's path.
const CLAMPS_MAX: usize = 8;

/// The whole decision, or what is wrong with the question.
pub(crate) fn explain(
    live: &Live,
    predictor: &Predictor,
    question: &Question,
    now: Timestamp,
) -> Result<Explanation, String> {
    let endpoint = endpoint(question.endpoint.as_deref())?;
    let mut explanation = Explanation {
        verdict: "refuse".to_owned(),
        key: KeyShown {
            name: question.key.clone(),
            ..KeyShown::default()
        },
        user: question.user.clone(),
        endpoint: endpoint.as_str().to_owned(),
        model: question.model.clone(),
        ..Explanation::default()
    };
    let outcome = decide(live, predictor, question, endpoint, now, &mut explanation);
    match outcome {
        Ok(()) => explanation.verdict = "admit".to_owned(),
        Err(refusal) => explanation.refusal = Some(shown(&refusal, shape_of(endpoint))),
    }
    Ok(explanation)
}

/// Fills the explanation in as far as the request would get.
fn decide(
    live: &Live,
    predictor: &Predictor,
    question: &Question,
    endpoint: Endpoint,
    now: Timestamp,
    explanation: &mut Explanation,
) -> Result<(), Refusal> {
    let policy = &live.policy;
    let key = policy.key_named(&question.key);
    explanation.key = of_this_key(live, key.map(|key| &**key), &question.key, now);
    let key = match key {
        Some(key) => policy.authenticate(&key.hash, now),
        None => Err(KeyRefusal::Unknown),
    };
    let key = key.map_err(|refusal| {
        let unresolved = live.unresolved.get(question.key.as_str());
        of_key(refusal, unresolved.map(|why| &**why))
    })?;
    // Asking makes no user known: that would take the place of one that comes.
    let user_scope = question
        .user
        .as_deref()
        .and_then(|user| policy.users()?.peek(user, now));
    let routed = route(live, key, question, endpoint, user_scope.as_ref(), now);
    explanation.rules = routed.trace.iter().map(of_rule).collect();
    let decided = routed.trace.iter().rev();
    explanation.decided_by = decided
        .clone()
        .find(|step| step.outcome == RuleOutcome::Matched)
        .map(|step| step.rule.as_ref().to_owned());
    explanation.region = region(policy);
    explanation.skipped = routed.skipped.iter().map(of_skipped).collect();
    let choices = routed
        .outcome
        .map_err(|refusal| of_route(refusal, &question.model))?;
    let ask = Ask {
        endpoint,
        prompt_bytes: question.prompt_bytes,
        max_output_tokens: question.max_tokens,
        answers: question.answers.max(1),
        counted: None,
    };
    let judged = Asked {
        live,
        predictor,
        key,
        user: user_scope.as_ref(),
        now,
    }
    .judge(ask, &choices);
    explanation.clamped_to = judged.clamp;
    explanation.limits = judged.foreseen.common.iter().map(of_limit).collect();
    explanation.choices = choices
        .iter()
        .zip(&judged.candidates)
        .zip(&judged.foreseen.choices)
        .map(|((choice, candidate), limits)| of_choice(live, choice, candidate, limits))
        .collect();
    match judged.foreseen.outcome {
        Ok(chosen) => {
            explanation.chosen = choices.get(chosen).map(|one| full_name(live, one.model));
            Ok(())
        }
        Err(rejection) => {
            let (status, shape) = (live.budget_status, shape_of(endpoint));
            Err(Refusal::of_limit(&rejection, status, shape, now))
        }
    }
}

/// The node's region, if it orders anything.
fn region(policy: &Snapshot) -> Option<String> {
    let region = policy.region().filter(|_| policy.is_regional());
    region.map(|region| region.as_ref().to_owned())
}

fn route(
    live: &Live,
    key: &VirtualKey,
    question: &Question,
    endpoint: Endpoint,
    user_scope: Option<&Arc<Scope>>,
    now: Timestamp,
) -> Explained {
    // Names as a request's come, without what no rule sees of one.
    let lower: Vec<(String, &str)> = question
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .filter(|(name, _)| name != OWN_HEADER && !KEY_HEADERS.contains(&name.as_str()))
        .collect();
    let headers: Vec<(&str, &str)> = lower
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    let params = question.params.iter();
    let params: Vec<(&str, &str)> = params.map(|(name, value)| (&**name, &**value)).collect();
    let call = policy::Call {
        model: &question.model,
        request_type: endpoint.as_str(),
        dialect: endpoint.dialect(),
        headers: &headers,
        params: &params,
        user: question.user.as_deref(),
        user_scope,
        random: rand::rng().random(),
        now,
    };
    policy::explain_route(&live.policy, key, &call)
}

/// A request that has its choices.
struct Asked<'a> {
    live: &'a Live,
    predictor: &'a Predictor,
    key: &'a VirtualKey,
    user: Option<&'a Arc<Scope>>,
    now: Timestamp,
}

struct Judgement {
    candidates: Vec<Candidate>,
    foreseen: Foreseen,
    clamp: Option<u64>,
}

impl Asked<'_> {
    /// Judges the request, with a smaller bound on its answer where a limit
    /// wants that.
    fn judge(&self, mut ask: Ask, choices: &[Choice]) -> Judgement {
        let policy = &self.live.policy;
        let mut clamp = None;
        let mut clamps = 0;
        loop {
            let models = choices.iter().map(|choice| choice.model);
            let candidates =
                demand::candidates(policy, self.predictor, &self.key.name, &ask, models);
            let foreseen = policy::foresee(policy, self.key, self.user, &candidates, self.now);
            let bound = ask.max_output_tokens.unwrap_or(DEFAULT_MAX_OUTPUT);
            let lower = match &foreseen.outcome {
                Err(rejection) if rejection.on_tight == OnTight::Clamp => rejection.max_tokens_left,
                _ => None,
            };
            let lower = lower.filter(|left| *left < bound && clamps < CLAMPS_MAX);
            let Some(lower) = lower else {
                return Judgement {
                    candidates,
                    foreseen,
                    clamp,
                };
            };
            clamps += 1;
            clamp = Some(lower);
            ask.max_output_tokens = Some(lower);
        }
    }
}

/// The endpoint of a name or a path; the prefixes of protocols may be there.
fn endpoint(asked: Option<&str>) -> Result<Endpoint, String> {
    let Some(asked) = asked else {
        return Ok(Endpoint::ChatCompletions);
    };
    let mut all = Endpoint::ALL.into_iter();
    let named = all.find(|endpoint| endpoint.as_str() == asked);
    named.or_else(|| endpoint_of(asked)).ok_or_else(|| {
        let names = Endpoint::ALL.map(Endpoint::as_str).join(", ");
        format!("no such endpoint: expected one of {names}, or a path such as /v1/messages")
    })
}

fn of_this_key(live: &Live, key: Option<&VirtualKey>, name: &str, now: Timestamp) -> KeyShown {
    let Some(key) = key else {
        return KeyShown {
            name: name.to_owned(),
            state: "unknown".to_owned(),
            ..KeyShown::default()
        };
    };
    let (state, says) = match live.policy.authenticate(&key.hash, now) {
        Ok(_) => ("active", None),
        Err(KeyRefusal::Unknown) => ("unknown", None),
        Err(KeyRefusal::Revoked) => ("revoked", None),
        Err(KeyRefusal::Expired { at }) => ("expired", Some(at.to_rfc3339())),
        Err(KeyRefusal::NotYetValid { from }) => ("not_yet_valid", Some(from.to_rfc3339())),
        Err(KeyRefusal::Inactive) => match live.unresolved.get(name) {
            Some(why) => ("unresolved", Some(why.as_ref().to_owned())),
            None => ("inactive", None),
        },
    };
    let owned = |name: &Arc<str>| name.as_ref().to_owned();
    KeyShown {
        name: name.to_owned(),
        state: state.to_owned(),
        says,
        team: key.team.as_ref().map(owned),
        customer: live.policy.customer_of(key).map(owned),
    }
}

fn of_rule(step: &policy::RuleStep) -> RuleShown {
    let (outcome, says) = match &step.outcome {
        RuleOutcome::Matched => ("matched", None),
        RuleOutcome::Shadowed => ("shadowed", None),
        RuleOutcome::NotMatched => ("not_matched", None),
        RuleOutcome::Failed(why) => ("failed", Some(why.clone())),
        RuleOutcome::DepthExceeded => ("depth_exceeded", None),
    };
    RuleShown {
        rule: step.rule.as_ref().to_owned(),
        outcome: outcome.to_owned(),
        says,
    }
}

fn of_skipped(skipped: &policy::Skipped) -> SkippedShown {
    SkippedShown {
        model: skipped.name.clone(),
        why: skipped.why.to_string(),
    }
}

fn of_choice(
    live: &Live,
    choice: &Choice,
    candidate: &Candidate,
    limits: &[Judged],
) -> ChoiceShown {
    let demand = &candidate.demand;
    let provider = live.policy.model(choice.model).provider;
    let provider = live.policy.provider(provider);
    ChoiceShown {
        model: full_name(live, choice.model),
        credential: choice.credential.as_deref().map(str::to_owned),
        region: provider.region.as_deref().map(str::to_owned),
        nearness: live.policy.nearness(choice.model).as_str().to_owned(),
        demand: DemandShown {
            tokens: demand.tokens.0,
            cost_usd: dollars(demand.cost),
            strict_tokens: demand.strict_tokens.0,
            strict_cost_usd: dollars(demand.strict_cost),
        },
        fits: limits.iter().all(|limit| limit.fits || limit.shadow),
        limits: limits.iter().map(of_limit).collect(),
    }
}

fn of_limit(judged: &Judged) -> JudgedLimit {
    JudgedLimit {
        asked: amount(judged.standing.unit, judged.asked),
        fits: judged.fits,
        standing: (&judged.standing).into(),
    }
}

fn full_name(live: &Live, model: ModelId) -> String {
    let model = live.policy.model(model);
    format!(
        "{}/{}",
        live.policy.provider(model.provider).name,
        model.name
    )
}

fn shown(refusal: &Refusal, shape: Shape) -> RefusalShown {
    let headers = refusal.headers().into_iter();
    let headers: BTreeMap<String, String> = headers
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    RefusalShown {
        status: refusal.status(shape).as_u16(),
        headers,
        body: serde_json::from_slice(&refusal.body(shape, "explained")).unwrap_or_default(),
    }
}
