//! A small gateway for tests: one key, its team, customer and user, two
//! providers with the same models, and limits written as text.

use std::sync::Arc;

use crate::admit::{Candidate, admit};
use crate::counter::{CounterId, CounterTable};
use crate::demand::Demand;
use crate::limit::{Enforcement, Limit, OnTight};
use crate::model::{Dialect, Model, ModelId, Provider, ProviderId};
use crate::money::{NanoUsd, Tokens};
use crate::price::{PerMillion, Price};
use crate::reservation::Reservation;
use crate::scope::{Customer, Scope, ScopeKind, Team, Unit};
use crate::snapshot::{BaseParts, Snapshot};
use crate::time::Timestamp;
use crate::token_ratio::TokenRatio;
use crate::verdict::{Rejection, Verdict};
use crate::virtual_key::{AllowList, Grant, KeyHash, VirtualKey};
use crate::window::WindowKind;

/// 2026-11-22T20:43:20Z, 20 s into a minute.
pub(crate) const NOW: Timestamp = Timestamp(1_795_380_200_000);

/// The choices of every request: `openai/gpt`, then `azure/gpt`, then
/// `azure/mini`.
pub(crate) const CHOICES: [ModelId; 3] = [ModelId(0), ModelId(1), ModelId(2)];

/// A snapshot, its only key, and a user.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) key: Arc<VirtualKey>,
    pub(crate) user: Option<Arc<Scope>>,
    scopes: Vec<(&'static str, Arc<Scope>)>,
}

/// A limit written as `10 requests/1m`, `5 concurrent`, `0.5 usd/1d strict`,
/// with `strict`, `shadow` and `clamp` in any order after it; requests and
/// tokens slide, money is by calendar.
pub(crate) fn limit(table: &CounterTable, kind: ScopeKind, entity: &str, text: &str) -> Limit {
    let mut words = text.split(' ');
    let amount = words.next().unwrap();
    let (unit, period) = match words.next().unwrap().split_once('/') {
        Some((unit, period)) => (Unit::parse(unit).unwrap(), Some(period.parse().unwrap())),
        None => (Unit::Concurrent, None),
    };
    let flags: Vec<&str> = words.collect();
    let id = CounterId {
        scope: kind,
        entity: entity.into(),
        unit,
        period,
        window: if unit == Unit::Usd {
            WindowKind::Calendar
        } else {
            WindowKind::Sliding
        },
        name: None,
        generation: 0,
    };
    Limit {
        amount: match unit {
            Unit::Usd => NanoUsd::from_decimal(amount).unwrap().0,
            _ => amount.parse().unwrap(),
        },
        enforcement: if flags.contains(&"strict") {
            Enforcement::Strict
        } else {
            Enforcement::Eventual
        },
        counter: table.counter(&id),
        id,
        shadow: flags.contains(&"shadow"),
        on_tight: if flags.contains(&"clamp") {
            OnTight::Clamp
        } else {
            OnTight::Refuse
        },
        overridden: None,
    }
}

/// The kind and entity of a place in the world.
pub(crate) fn place(place: &str) -> (ScopeKind, &str) {
    match place {
        "key" => (ScopeKind::VirtualKey, "demo"),
        "team" => (ScopeKind::Team, "red"),
        "customer" => (ScopeKind::Customer, "acme"),
        "user" => (ScopeKind::User, "eve"),
        "global" => (ScopeKind::Global, "global"),
        "demo/openai" | "demo/azure" => (ScopeKind::VirtualKeyProvider, place),
        "openai" | "azure" => (ScopeKind::Provider, place),
        _ => (ScopeKind::Model, place),
    }
}

/// 100 tokens of prompt and 50 (at most 400) of answer, a cent per token.
pub(crate) fn demand() -> Demand {
    Demand {
        tokens: Tokens(150),
        cost: NanoUsd(1_500_000_000),
        strict_tokens: Tokens(500),
        strict_cost: NanoUsd(5_000_000_000),
        prompt_tokens: Tokens(100),
        prompt_cost: NanoUsd(1_000_000_000),
        output_price: PerMillion(10_000_000_000_000),
        choices: 1,
    }
}

#[track_caller]
pub(crate) fn admitted(verdict: Verdict) -> Reservation {
    match verdict {
        Verdict::Admit(admitted) => admitted.reservation,
        Verdict::Reject(rejection) => panic!("refused: {rejection}"),
    }
}

#[track_caller]
pub(crate) fn rejected(verdict: Verdict) -> Rejection {
    match verdict {
        Verdict::Reject(rejection) => rejection,
        Verdict::Admit(_) => panic!("admitted"),
    }
}

// === impl World ===

impl World {
    /// With these limits; places that are not named have none.
    pub(crate) fn new(limits: &[(&'static str, &[&str])]) -> Self {
        Self::changed(limits, |_| {})
    }

    /// The same with every limit passed through `change`.
    pub(crate) fn changed(limits: &[(&'static str, &[&str])], change: impl Fn(&mut Limit)) -> Self {
        let table = CounterTable::new();
        let scopes: Vec<(&str, Arc<Scope>)> = limits
            .iter()
            .map(|(name, texts)| {
                let (kind, entity) = place(name);
                let limits = texts.iter().map(|text| {
                    let mut limit = limit(&table, kind, entity, text);
                    change(&mut limit);
                    limit
                });
                let scope = Scope {
                    kind,
                    entity: entity.into(),
                    limits: limits.collect(),
                };
                (*name, Arc::new(scope))
            })
            .collect();
        Self::of(scopes)
    }

    fn of(scopes: Vec<(&'static str, Arc<Scope>)>) -> Self {
        let find = |place: &str| {
            let found = scopes.iter().find(|(name, _)| *name == place);
            found.map(|(_, scope)| Arc::clone(scope))
        };
        let provider = |name: &str| Provider {
            name: name.into(),
            dialect: Dialect::OpenAi,
            credentials: Vec::new(),
            max_retries: 2,
            region: None,
            scope: find(name),
        };
        let model = |provider, name: &str, qualified: &str| Model {
            name: name.into(),
            provider: ProviderId(provider),
            upstream_name: name.into(),
            price: Price::FREE,
            max_output_tokens: None,
            estimate: Arc::new(TokenRatio::new()),
            scope: find(qualified),
        };
        let grant = |name: &str| Grant {
            provider: name.into(),
            models: AllowList::all(),
            weight: 1,
            scope: find(&format!("demo/{name}")),
        };
        let parts = BaseParts {
            providers: vec![provider("openai"), provider("azure")],
            models: vec![
                model(0, "gpt", "openai/gpt"),
                model(1, "gpt", "azure/gpt"),
                model(1, "mini", "azure/mini"),
            ],
            model_scopes: ["gpt", "mini"].into_iter().filter_map(find).collect(),
            teams: vec![Team {
                name: "red".into(),
                customer: Some("acme".into()),
                scope: find("team"),
            }],
            customers: vec![Customer {
                name: "acme".into(),
                scope: find("customer"),
            }],
            global: find("global"),
            ..BaseParts::default()
        };
        let key = VirtualKey {
            team: Some("red".into()),
            grants: vec![grant("openai"), grant("azure")],
            scope: find("key"),
            ..key("demo")
        };
        let snapshot = Snapshot::new(1, parts, [key]);
        Self {
            key: Arc::clone(snapshot.key_named("demo").unwrap()),
            user: find("user"),
            snapshot,
            scopes,
        }
    }

    /// Asks for `demand` with every choice open.
    pub(crate) fn ask(&self, demand: &Demand) -> Verdict {
        self.ask_at(demand, NOW)
    }

    pub(crate) fn ask_at(&self, demand: &Demand, now: Timestamp) -> Verdict {
        let candidates = candidates(demand);
        admit(
            &self.snapshot,
            &self.key,
            self.user.as_ref(),
            &candidates,
            now,
        )
    }

    pub(crate) fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.scopes.iter().flat_map(|(_, scope)| &scope.limits)
    }

    /// Settled and reserved amounts of every limit, in the order given.
    pub(crate) fn levels(&self, now: Timestamp) -> Vec<(u64, u64)> {
        self.limits()
            .map(|limit| limit.standing(now))
            .map(|standing| (standing.used, standing.reserved))
            .collect()
    }
}

/// Every choice at the same demand.
pub(crate) fn candidates(demand: &Demand) -> [Candidate; 3] {
    CHOICES.map(|model| Candidate {
        model,
        demand: *demand,
    })
}

/// A key that may do nothing; its value is its name.
pub(crate) fn key(name: &str) -> VirtualKey {
    VirtualKey {
        name: name.into(),
        hash: KeyHash::of(name.as_bytes()),
        retiring: Vec::new(),
        team: None,
        customer: None,
        grants: Vec::new(),
        scope: None,
        active: true,
        not_before: None,
        expires_at: None,
    }
}
