//! What the routing rules make of a request.
//!
//! The first rule that holds decides. A chaining rule has the rules asked
//! again with its provider and model, until none holds, nothing changes, or
//! the chain has ten links; the last choice stands.

use std::cmp::Reverse;
use std::sync::Arc;

use super::order::{self, Asked};
use super::percent::fullest;
use super::{Call, Choice, Nearness, RouteRefusal, RuleOutcome, RuleStep, SkipReason, Skipped};
use crate::model::{Dialect, ModelId};
use crate::route::credential;
use crate::rule::{Facts, Percents, Rule, RuleSpec, Target};
use crate::scope::Unit;
use crate::snapshot::Snapshot;
use crate::virtual_key::VirtualKey;

/// How many rules of a chain may decide one after the other.
const MAX_CHAIN: u64 = 10;

/// What the rules said.
#[derive(Debug, Default)]
pub(super) struct Ruling {
    /// `None` when no rule decided.
    pub(super) outcome: Option<Result<Vec<Choice>, RouteRefusal>>,
    pub(super) trace: Vec<RuleStep>,
    pub(super) skipped: Vec<Skipped>,
}

/// What a request asks for at one link of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State<'a> {
    /// Empty = whoever has the model.
    provider: &'a str,
    model: &'a str,
}

/// The request, and what is written down about it.
struct Walk<'a> {
    snapshot: &'a Snapshot,
    key: &'a VirtualKey,
    call: &'a Call<'a>,
    /// Whether rules that do not match are told of.
    all: bool,
    trace: Vec<RuleStep>,
    skipped: Vec<Skipped>,
    choices: Vec<Choice>,
}

/// A draw of its own for each purpose, so that one does not follow from
/// another (the finaliser of SplitMix64).
fn drawn(random: u64, purpose: u64) -> u64 {
    let mut mixed = random.wrapping_add(purpose.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The models that a state means, whoever may use them.
fn meant(snapshot: &Snapshot, state: State<'_>) -> Vec<ModelId> {
    // Said in full it is that model, also where an alias has its name.
    if let Some(one) = snapshot.model_of(state.provider, state.model) {
        return vec![one];
    }
    let Some(asked) = order::resolve(snapshot, state.model) else {
        return Vec::new();
    };
    let provider = |id: &ModelId| &*snapshot.provider(snapshot.model(*id).provider).name;
    let is_meant = |id: &ModelId| state.provider.is_empty() || provider(id) == state.provider;
    asked.choices().iter().copied().filter(is_meant).collect()
}

/// The choices that a state leaves open to the key.
fn open_choices(
    snapshot: &Snapshot,
    key: &VirtualKey,
    dialect: Dialect,
    state: State<'_>,
) -> Vec<ModelId> {
    let mut open = meant(snapshot, state);
    open.retain(|id| {
        order::speaks(snapshot, *id, dialect)
            && snapshot.grant_of(key, snapshot.model(*id)).is_some()
    });
    open
}

// === impl Ruling ===

impl Ruling {
    /// Asks the rules about a request whose model exists and is allowed.
    pub(super) fn of(
        snapshot: &Snapshot,
        key: &VirtualKey,
        call: &Call<'_>,
        asked: Asked<'_>,
        all: bool,
    ) -> Self {
        let mut walk = Walk {
            snapshot,
            key,
            call,
            all,
            trace: Vec::new(),
            skipped: Vec::new(),
            choices: Vec::new(),
        };
        let decided = walk.decide(State {
            provider: asked.provider,
            model: asked.model,
        });
        let outcome = decided.map(|(rule, first, state)| {
            walk.collect(rule, first, state);
            walk.outcome()
        });
        Self {
            outcome,
            trace: walk.trace,
            skipped: walk.skipped,
        }
    }
}

// === impl State ===

impl<'a> State<'a> {
    /// What is asked for after `target` was chosen.
    fn after(self, snapshot: &'a Snapshot, target: &'a Target) -> Self {
        let provider = target.provider.as_deref();
        let Some(model) = target.model.as_deref() else {
            return Self {
                provider: provider.unwrap_or(self.provider),
                ..self
            };
        };
        match order::resolve(snapshot, model) {
            Some(asked) => Self {
                provider: provider.unwrap_or(asked.provider),
                model: asked.model,
            },
            None => Self {
                provider: provider.unwrap_or_default(),
                model,
            },
        }
    }
}

// === impl Walk ===

impl<'a> Walk<'a> {
    /// The rule that decides, its drawn target, and what it was asked about.
    fn decide(&mut self, mut state: State<'a>) -> Option<(&'a RuleSpec, usize, State<'a>)> {
        let mut decided = None;
        for link in 0.. {
            let Some(rule) = self.first_match(state) else {
                break;
            };
            if link == MAX_CHAIN {
                self.note(&rule.name, RuleOutcome::DepthExceeded);
                break;
            }
            self.note(&rule.name, RuleOutcome::Matched);
            let weights: Vec<((), u32)> = rule.targets.iter().map(|to| ((), to.weight)).collect();
            let first = order::pick(&weights, drawn(self.call.random, link)).unwrap_or(0);
            let first = self.nearest_equal(rule, first, state, link);
            decided = Some((rule, first, state));
            let Some(target) = rule.targets.get(first).filter(|_| rule.chain) else {
                break;
            };
            let next = state.after(self.snapshot, target);
            if next == state {
                break;
            }
            state = next;
        }
        decided
    }

    /// The drawn target, or one that is nearer and weighs the same: among those
    /// one more draw decides, so that each is as likely as the other.
    fn nearest_equal(
        &self,
        rule: &'a RuleSpec,
        first: usize,
        state: State<'a>,
        link: u64,
    ) -> usize {
        let weight = match rule.targets.get(first) {
            Some(target) if self.snapshot.is_regional() => target.weight,
            _ => return first,
        };
        let equal = rule.targets.iter().enumerate();
        let equal: Vec<(usize, Nearness)> = equal
            .filter(|(_, other)| other.weight == weight)
            .map(|(index, other)| (index, self.nearness(state, other)))
            .collect();
        let best = equal.iter().map(|(_, nearness)| *nearness).min();
        let near: Vec<(usize, u32)> = equal
            .iter()
            .filter(|(_, nearness)| Some(*nearness) == best)
            .map(|(index, _)| (*index, 1))
            .collect();
        if near.iter().any(|(index, _)| *index == first) {
            return first;
        }
        let again = order::pick(&near, drawn(!self.call.random, link));
        again.map_or(first, |position| near[position].0)
    }

    /// How near the nearest model is that a target leads to; one that leads to
    /// nothing this request can use is elsewhere.
    fn nearness(&self, state: State<'a>, target: &'a Target) -> Nearness {
        let state = state.after(self.snapshot, target);
        open_choices(self.snapshot, self.key, self.call.dialect, state)
            .into_iter()
            .map(|id| self.snapshot.nearness(id))
            .min()
            .unwrap_or(Nearness::Elsewhere)
    }

    /// The first rule that holds and is not in shadow.
    fn first_match(&mut self, state: State<'a>) -> Option<&'a RuleSpec> {
        let (snapshot, key, call) = (self.snapshot, self.key, self.call);
        let ask = |unit: Unit| {
            let choices = open_choices(snapshot, key, call.dialect, state);
            fullest(snapshot, key, call.user_scope, &choices, unit, call.now)
        };
        let customer = snapshot.customer_of(key);
        let facts = Facts {
            model: state.model,
            provider: state.provider,
            request_type: call.request_type,
            virtual_key: &key.name,
            team: key.team.as_deref().unwrap_or_default(),
            customer: customer.map(|name| &**name).unwrap_or_default(),
            user: call.user.unwrap_or_default(),
            headers: call.headers,
            params: call.params,
            percents: Percents::new(&ask),
        };
        let rules = snapshot
            .rules()
            .asked(&key.name, call.user, key.team.as_ref(), customer);
        for rule in rules {
            let spec: &'a RuleSpec = rule.spec();
            match Rule::holds(rule, &facts) {
                Ok(false) if self.all => self.note(&spec.name, RuleOutcome::NotMatched),
                Ok(false) => {}
                Ok(true) if spec.shadow => self.note(&spec.name, RuleOutcome::Shadowed),
                Ok(true) => return Some(spec),
                Err(why) => self.note(&spec.name, RuleOutcome::Failed(why.to_string())),
            }
        }
        None
    }

    /// Writes down the choices of the rule that decided: the drawn target, the
    /// others by weight, the fallbacks.
    fn collect(&mut self, rule: &'a RuleSpec, first: usize, state: State<'a>) {
        let mut others: Vec<&'a Target> = rule
            .targets
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != first)
            .map(|(_, target)| target)
            .collect();
        others.sort_by_key(|target| Reverse(target.weight));
        if self.snapshot.is_regional() {
            others.sort_by_key(|target| (Reverse(target.weight), self.nearness(state, target)));
        }
        for (purpose, target) in
            (MAX_CHAIN..).zip(rule.targets.get(first).into_iter().chain(others))
        {
            let draw = drawn(self.call.random, purpose);
            self.add(
                state.after(self.snapshot, target),
                target.credential.as_ref(),
                draw,
            );
        }
        let mut fallbacks = Vec::with_capacity(rule.fallbacks.len());
        for fallback in &rule.fallbacks {
            let found = fallback
                .split_once('/')
                .and_then(|(provider, model)| self.snapshot.model_of(provider, model));
            match found {
                Some(id) => fallbacks.extend(self.usable(id, None).map(|(id, _)| id)),
                None => self.skip_unknown(fallback.to_string()),
            }
        }
        order::nearest_first(self.snapshot, &mut fallbacks);
        for id in fallbacks {
            self.push(id, None);
        }
    }

    /// Adds the usable choices of a state in its plain order.
    fn add(&mut self, state: State<'a>, pinned: Option<&Arc<str>>, random: u64) {
        let models = meant(self.snapshot, state);
        if models.is_empty() {
            let name = match (state.provider, state.model) {
                ("", model) => model.to_owned(),
                (provider, model) => format!("{provider}/{model}"),
            };
            return self.skip_unknown(name);
        }
        let usable: Vec<(ModelId, u32)> = models
            .into_iter()
            .filter_map(|id| self.usable(id, pinned))
            .collect();
        let Some(asked) = order::resolve(self.snapshot, state.model) else {
            return;
        };
        for id in asked.arranged(self.snapshot, usable, random) {
            self.push(id, pinned);
        }
    }

    /// The model with the weight the key gives it, unless it is left out.
    fn usable(&mut self, id: ModelId, pinned: Option<&Arc<str>>) -> Option<(ModelId, u32)> {
        let model = self.snapshot.model(id);
        let provider = self.snapshot.provider(model.provider);
        let grant = self.snapshot.grant_of(self.key, model);
        let has_credential =
            || credential(provider, &model.name, pinned.map(|name| &**name), &[], 0);
        let why = match grant {
            None => SkipReason::NotGranted,
            Some(_) if provider.dialect != self.call.dialect => SkipReason::OtherDialect,
            Some(_) if pinned.is_some() && has_credential().is_none() => SkipReason::NoCredential,
            Some(_) if !model.price.is_known() => SkipReason::PriceUnknown,
            Some(grant) => return Some((id, grant.weight)),
        };
        self.skip(Skipped::of(self.snapshot, id, why));
        None
    }

    fn push(&mut self, model: ModelId, pinned: Option<&Arc<str>>) {
        let choice = Choice {
            model,
            credential: pinned.cloned(),
        };
        if !self.choices.contains(&choice) {
            self.choices.push(choice);
        }
    }

    fn note(&mut self, rule: &Arc<str>, outcome: RuleOutcome) {
        self.trace.push(RuleStep {
            rule: Arc::clone(rule),
            outcome,
        });
    }

    fn skip(&mut self, skipped: Skipped) {
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }

    fn skip_unknown(&mut self, name: String) {
        let why = SkipReason::Unknown;
        self.skip(Skipped { name, why });
    }

    /// The choices, or why none is left.
    fn outcome(&mut self) -> Result<Vec<Choice>, RouteRefusal> {
        let choices = std::mem::take(&mut self.choices);
        let any = |why: SkipReason| self.skipped.iter().any(|skipped| skipped.why == why);
        match choices.is_empty() {
            false => Ok(choices),
            true if any(SkipReason::PriceUnknown) => Err(RouteRefusal::PriceUnknown),
            true if any(SkipReason::OtherDialect) => Err(RouteRefusal::NoCompatibleProvider),
            true => Err(RouteRefusal::ModelNotAllowed),
        }
    }
}
