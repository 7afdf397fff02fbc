//! The requests that a run serves: how many, of which keys, how large, and the limits they meet.

use std::sync::Arc;
use std::time::Duration;

use policy::{
    AllowList, BaseParts, Counter, CounterId, CounterTable, Dialect, Enforcement, Grant, KeyHash,
    Limit, Model, OnTight, Price, Provider, ProviderId, Scope, ScopeKind, Snapshot, Team,
    TokenRatio, Unit, VirtualKey, WindowKind,
};

use super::chance::Chance;

/// The load of a whole cluster.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Requests a second, of all nodes.
    pub(super) rate: f64,
    /// Virtual keys; the first ones are asked for most.
    pub(super) keys: usize,
    /// Whether all keys are asked for equally often.
    pub(super) evenly: bool,
    /// Limits, each on one counter.
    pub(super) limits: Vec<LimitSpec>,
    /// Mean time that a request is open.
    pub(super) open_for: Duration,
    /// Part of the requests that end without having used anything.
    pub(super) failing: f64,
    /// Whether the first node gets as many requests as all others together.
    pub(super) skewed: bool,
}

/// One limit.
#[derive(Clone, Debug)]
pub(super) struct LimitSpec {
    pub(super) of: Bearer,
    pub(super) unit: Unit,
    pub(super) every: &'static str,
    pub(super) window: WindowKind,
    pub(super) amount: u64,
    pub(super) enforcement: Enforcement,
}

/// Who has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearer {
    Key(usize),
    /// The team of all keys.
    Team,
    Global,
}

/// What one request asks for and uses in the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) key: usize,
    /// Of the prompt and the predicted answer.
    pub(super) predicted: u64,
    /// Of the prompt and the longest answer that it may ask for: never less than what it uses.
    pub(super) most: u64,
    /// In the end; 0: it failed.
    pub(super) used: u64,
    pub(super) open_for: Duration,
}

/// Nano-dollars of one token.
pub(super) const TOKEN_COST: u64 = 2_000;

/// Mean tokens of a request.
const MEAN_TOKENS: f64 = 300.0;

/// Tokens of the longest answer.
const MOST_ANSWER: u64 = 2_000;

// === impl Load ===

impl Load {
    pub(super) fn random(chance: &mut Chance, nodes: usize) -> Self {
        let rate = *chance.pick(&[20.0, 60.0, 150.0]) + nodes as f64;
        let keys = usize::try_from(chance.between(1, 4)).unwrap_or(1);
        let over = *chance.pick(&[0.5, 2.0, 2.0, 20.0]);
        let mut limits = Vec::new();
        for key in 0..keys {
            // The first key gets a half, the next a quarter, and so on.
            let halvings = (key + 1).min(keys - 1);
            let part = 0.5_f64.powi(i32::try_from(halvings).unwrap_or(i32::MAX));
            limits.push(LimitSpec::requests(
                Bearer::Key(key),
                "10s",
                rate * part * 10.0 / over,
            ));
        }
        if chance.happens(0.7) {
            let over = *chance.pick(&[0.5, 1.5, 4.0]);
            let amount = rate * MEAN_TOKENS * 20.0 / over;
            limits.push(LimitSpec {
                of: Bearer::Team,
                unit: Unit::Tokens,
                every: "20s",
                window: WindowKind::Sliding,
                amount: amount as u64,
                enforcement: Enforcement::Eventual,
            });
        }
        limits.push(LimitSpec {
            of: Bearer::Global,
            unit: Unit::Usd,
            every: "1h",
            window: WindowKind::Fixed,
            amount: (rate * MEAN_TOKENS * chance.pick(&[10.0, 40.0, 400.0])) as u64 * TOKEN_COST,
            enforcement: Enforcement::Eventual,
        });
        if chance.happens(0.4) {
            limits.push(LimitSpec {
                of: Bearer::Team,
                unit: Unit::Concurrent,
                every: "",
                window: WindowKind::Sliding,
                amount: (rate * 0.5) as u64 + 1,
                enforcement: Enforcement::Eventual,
            });
        }
        let open_for = *chance.pick(&[
            Duration::from_millis(100),
            Duration::from_millis(600),
            Duration::from_secs(3),
        ]);
        let skewed = chance.happens(0.25);
        limits.extend(strict(chance, rate, nodes));
        Self {
            rate,
            keys,
            evenly: false,
            limits,
            open_for,
            failing: 0.05,
            skewed,
        }
    }

    /// The next request.
    pub(super) fn request(&self, chance: &mut Chance) -> Request {
        let mut key = 0;
        while key + 1 < self.keys && chance.happens(0.5) {
            key += 1;
        }
        if self.evenly {
            key = chance.index(self.keys);
        }
        let size = |chance: &mut Chance| {
            let tokens = chance.exponential(Duration::from_secs(1)).as_secs_f64() * MEAN_TOKENS;
            (tokens as u64).clamp(10, 4_000)
        };
        let (prompt, predicted, used) = (size(chance) / 2, size(chance) / 2, size(chance) / 2);
        let failed = chance.happens(self.failing);
        Request {
            key,
            predicted: prompt + predicted,
            most: prompt + MOST_ANSWER,
            used: if failed { 0 } else { prompt + used },
            open_for: chance.exponential(self.open_for).min(self.open_for * 6),
        }
    }

    /// The node that the next request goes to.
    pub(super) fn node(&self, nodes: usize, chance: &mut Chance) -> usize {
        match self.skewed && chance.happens(0.5) {
            true => 0,
            false => chance.index(nodes),
        }
    }
}

// === impl LimitSpec ===

impl LimitSpec {
    pub(super) fn requests(of: Bearer, every: &'static str, amount: f64) -> Self {
        Self {
            of,
            unit: Unit::Requests,
            every,
            window: WindowKind::Sliding,
            amount: (amount as u64).max(2),
            enforcement: Enforcement::Eventual,
        }
    }

    pub(super) fn is_strict(&self) -> bool {
        self.enforcement == Enforcement::Strict
    }

    pub(super) fn id(&self) -> CounterId {
        let (scope, entity): (_, Arc<str>) = match self.of {
            Bearer::Key(key) => (ScopeKind::VirtualKey, key_name(key)),
            Bearer::Team => (ScopeKind::Team, "team".into()),
            Bearer::Global => (ScopeKind::Global, "global".into()),
        };
        CounterId {
            scope,
            entity,
            unit: self.unit,
            period: self.every.parse().ok(),
            window: self.window,
            name: None,
            generation: 0,
        }
    }

    /// What a request holds of it.
    pub(super) fn held(&self, request: &Request) -> u64 {
        self.asked(match self.is_strict() {
            true => request.most,
            false => request.predicted,
        })
    }

    /// The amount of it that is so many tokens.
    pub(super) fn asked(&self, tokens: u64) -> u64 {
        match self.unit {
            Unit::Requests | Unit::Concurrent => 1,
            Unit::Tokens => tokens,
            Unit::Usd => tokens * TOKEN_COST,
        }
    }

    pub(super) fn concerns(&self, key: usize) -> bool {
        !matches!(self.of, Bearer::Key(other) if other != key)
    }

    fn limit(&self, counter: Arc<Counter>) -> Limit {
        Limit {
            id: self.id(),
            amount: self.amount,
            enforcement: self.enforcement,
            counter,
            shadow: false,
            on_tight: OnTight::Refuse,
            overridden: None,
        }
    }
}

/// In some runs, one limit of each kind that must never be passed: each node has its part of it.
fn strict(chance: &mut Chance, rate: f64, nodes: usize) -> Vec<LimitSpec> {
    if !chance.happens(0.4) {
        return Vec::new();
    }
    let nodes = nodes as f64;
    // No part is so small that the largest request never fits.
    let money = (rate * MEAN_TOKENS * chance.pick(&[5.0, 30.0])).max(nodes * 6_000.0);
    let requests = rate * chance.pick(&[3.0, 12.0]);
    let strict = |of, unit, every, window, amount: f64| LimitSpec {
        of,
        unit,
        every,
        window,
        amount: (amount as u64).max(2),
        enforcement: Enforcement::Strict,
    };
    vec![
        strict(
            Bearer::Team,
            Unit::Usd,
            "1h",
            WindowKind::Fixed,
            money * TOKEN_COST as f64,
        ),
        strict(
            Bearer::Global,
            Unit::Requests,
            "15s",
            WindowKind::Sliding,
            requests,
        ),
        strict(
            Bearer::Global,
            Unit::Concurrent,
            "",
            WindowKind::Sliding,
            rate * 2.0 + nodes,
        ),
    ]
}

fn key_name(key: usize) -> Arc<str> {
    format!("key-{key}").into()
}

/// The configuration of a node, with the keys and the counter of each limit.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) snapshot: Snapshot,
    pub(super) keys: Vec<Arc<VirtualKey>>,
    /// In the order of `Load::limits`.
    pub(super) counters: Vec<Arc<Counter>>,
    /// In the same order.
    pub(super) limits: Vec<Limit>,
}

impl Gateway {
    pub(super) fn new(load: &Load, table: &CounterTable) -> Self {
        let counters: Vec<_> = load
            .limits
            .iter()
            .map(|spec| table.counter(&spec.id()))
            .collect();
        let scope = |of: Bearer, kind, entity: &str| {
            let specs = load.limits.iter().zip(&counters);
            let limits: Vec<_> = specs
                .filter(|(spec, _)| spec.of == of)
                .map(|(spec, counter)| spec.limit(Arc::clone(counter)))
                .collect();
            Some(Arc::new(Scope {
                kind,
                entity: entity.into(),
                limits,
            }))
        };
        let limits = load
            .limits
            .iter()
            .zip(&counters)
            .map(|(spec, counter)| spec.limit(Arc::clone(counter)))
            .collect();
        let parts = BaseParts {
            providers: vec![provider()],
            models: vec![model()],
            teams: vec![Team {
                name: "team".into(),
                customer: None,
                scope: scope(Bearer::Team, ScopeKind::Team, "team"),
            }],
            global: scope(Bearer::Global, ScopeKind::Global, "global"),
            ..BaseParts::default()
        };
        // One more than requests come for: that of a probe.
        let keys = (0..=load.keys).map(|key| {
            let name = key_name(key);
            virtual_key(&name, scope(Bearer::Key(key), ScopeKind::VirtualKey, &name))
        });
        let snapshot = Snapshot::new(1, parts, keys);
        let named = |key| {
            snapshot
                .key_named(&key_name(key))
                .expect("it was just put there")
        };
        Self {
            keys: (0..=load.keys).map(|key| Arc::clone(named(key))).collect(),
            snapshot,
            limits,
            counters,
        }
    }
}

fn provider() -> Provider {
    Provider {
        name: "openai".into(),
        dialect: Dialect::OpenAi,
        credentials: Vec::new(),
        max_retries: 0,
        region: None,
        scope: None,
    }
}

fn model() -> Model {
    Model {
        name: "gpt".into(),
        provider: ProviderId(0),
        upstream_name: "gpt".into(),
        price: Price::FREE,
        max_output_tokens: None,
        estimate: Arc::new(TokenRatio::new()),
        scope: None,
    }
}

fn virtual_key(name: &Arc<str>, scope: Option<Arc<Scope>>) -> VirtualKey {
    VirtualKey {
        name: Arc::clone(name),
        hash: KeyHash::of(name.as_bytes()),
        retiring: Vec::new(),
        team: Some("team".into()),
        customer: None,
        grants: vec![Grant {
            provider: "openai".into(),
            models: AllowList::all(),
            weight: 1,
            scope: None,
        }],
        scope,
        active: true,
        not_before: None,
        expires_at: None,
    }
}
