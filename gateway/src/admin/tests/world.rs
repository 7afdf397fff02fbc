//! A node's worth of admin state with secrets planted in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Method, Request, StatusCode};
use policy::{
    Actual, AllowList, BaseParts, Candidate, CounterId, CounterTable, CredentialRef, Customer,
    Demand, Dialect, Enforcement, Grant, KeyHash, Limit, ManualClock, Model, ModelId, NanoUsd,
    OnTight, PerMillion, Period, Predictor, Price, Provider, ProviderId, Rule, RuleScope, RuleSet,
    RuleSpec, Scope, ScopeKind, Snapshot, Target, Team, Timestamp, TokenRatio, Tokens, Unit,
    Verdict, VirtualKey, WindowKind, admit,
};
use rpds::RedBlackTreeMapSync;
use serde_json::{Value, json};
use tower_service::Service;

use super::ledger::Ledger;
use crate::admin::entities::{Kind, Source};
use crate::admin::rights::Rights;
use crate::admin::{
    AdminState, AuditReader, AuditUnavailable, AuditedChange, Readiness, ReloadProblem, UsageFound,
    UsageQuery, UsageReader, UsageUnavailable, router,
};
use crate::config::catalogue::Entries;
use crate::state::{AdminAccess, AdminToken, Live, RequestBounds};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::UsageStatus;

pub(super) const ADMIN: &str = "canary-admin-token-0123456789";
pub(super) const OPERATOR: &str = "canary-operator-token-012345";
pub(super) const VIEWER: &str = "canary-viewer-token-01234567";
pub(super) const KEY_VALUE: &str = "sk-tyr-canary-demo-0123456789";
/// 2026-11-22T12:00:00Z
pub(super) const NOON: Timestamp = Timestamp(1_795_348_800_000);

pub(super) struct World {
    pub(super) router: Router,
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) reloads: Arc<AtomicU64>,
    /// What the next reload answers.
    pub(super) problems: Arc<Mutex<Vec<ReloadProblem>>>,
    pub(super) store: Arc<Mutex<UsageStatus>>,
    pub(super) ledger: Arc<Ledger>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("a JSON body")
    }

    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str());
        value.and_then(Result::ok).unwrap_or("")
    }
}

struct Records;

impl UsageReader for Records {
    fn record(&self, request_id: &str) -> Result<Option<Value>, UsageUnavailable> {
        match request_id {
            "away" => Err(UsageUnavailable {
                reason: "the store is away".to_owned(),
            }),
            "r1" => Ok(Some(json!({"request_id": "r1", "cost": 5}))),
            _ => Ok(None),
        }
    }

    fn recent(&self, query: &UsageQuery) -> Result<UsageFound, UsageUnavailable> {
        let records = [("r3", "a"), ("r2", "b"), ("r1", "a")].into_iter();
        let older = records.filter(|(id, key)| {
            query.after.as_deref().is_none_or(|after| *id < after)
                && query.key.as_deref().is_none_or(|wanted| wanted == *key)
        });
        let mut found: Vec<&str> = older.map(|(id, _)| id).collect();
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let next = found.last().filter(|_| more);
        Ok(UsageFound {
            next: next.map(|id| (*id).to_owned()),
            records: found.iter().map(|id| json!({"request_id": id})).collect(),
        })
    }
}

struct Trail;

impl AuditReader for Trail {
    fn after(&self, after: u64, most: usize) -> Result<Vec<AuditedChange>, AuditUnavailable> {
        if after == 99 {
            let reason = "the store is away".to_owned();
            return Err(AuditUnavailable { reason });
        }
        let changes = (after + 1..=3).map(|seq| AuditedChange {
            seq,
            at: NOON.to_rfc3339(),
            actor: "ops".to_owned(),
            peer: "192.0.2.1".to_owned(),
            action: "create".to_owned(),
            kind: "team".to_owned(),
            name: format!("t{seq}"),
            before: None,
            after: Some(json!({"name": format!("t{seq}")})),
            revision: Some(seq),
            hash: "00".repeat(32),
            key_id: None,
        });
        Ok(changes.take(most).collect())
    }
}

/// The rights of a role that every node knows.
pub(super) fn built_in(role: &str) -> Rights {
    Rights::built_in(role).expect("a known role")
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_tokens(vec![
            token("ops", built_in("admin"), ADMIN),
            token("robot", built_in("operator"), OPERATOR),
            token("board", built_in("viewer"), VIEWER),
        ])
    }

    pub(super) fn with_tokens(admin_tokens: Vec<AdminToken>) -> Self {
        Self::with(admin_tokens, None)
    }

    /// Part of this cluster.
    pub(super) fn in_cluster(cluster: Arc<dyn crate::admin::Cluster>) -> Self {
        let tokens = vec![
            token("ops", built_in("admin"), ADMIN),
            token("board", built_in("viewer"), VIEWER),
        ];
        Self::with(tokens, Some(cluster))
    }

    fn with(
        admin_tokens: Vec<AdminToken>,
        cluster: Option<Arc<dyn crate::admin::Cluster>>,
    ) -> Self {
        let live = Arc::new(ArcSwap::from_pointee(live(admin_tokens)));
        let clock = Arc::new(ManualClock::new(NOON));
        let readiness = Arc::new(Readiness::default());
        let reloads = Arc::new(AtomicU64::new(7));
        let problems = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::new(Mutex::new(UsageStatus {
            store_ok: true,
            journal_ok: true,
            ..UsageStatus::default()
        }));
        let (counted, refused, status) = (
            Arc::clone(&reloads),
            Arc::clone(&problems),
            Arc::clone(&store),
        );
        let ledger = Arc::new(ledger());
        let router = router(AdminState {
            live: Arc::clone(&live),
            metrics: Arc::new(Metrics::new()),
            clock: Arc::clone(&clock) as Arc<dyn policy::Clock>,
            readiness: Arc::clone(&readiness),
            reload: Arc::new(move || {
                let problems = refused.lock().expect("no panic holds it").clone();
                match problems.is_empty() {
                    true => Ok(counted.fetch_add(1, Ordering::Relaxed) + 1),
                    false => Err(problems),
                }
            }),
            store_status: Arc::new(move || *status.lock().expect("no panic holds it")),
            node: "n1".into(),
            entities: Arc::clone(&ledger) as Arc<dyn crate::admin::Entities>,
            audit: Arc::new(Trail),
            predictor: Arc::new(Predictor::new()),
            cluster,
            usage: Some(Arc::new(Records)),
            prices: Arc::default(),
        });
        World {
            router,
            live,
            clock,
            readiness,
            reloads,
            problems,
            store,
            ledger,
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let mut router = self.router.clone();
        let response = router.call(request).await.expect("a router never fails");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).expect("text"),
        }
    }

    pub(super) async fn call(&self, method: Method, path: &str, token: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).expect("a valid request");
        self.send(request).await
    }

    /// A call with a body and headers.
    pub(super) async fn write(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Value::Null => Body::empty(),
            body => Body::from(body.to_string()),
        };
        self.send(request.body(body).expect("a valid request"))
            .await
    }

    pub(super) async fn read(&self, path: &str) -> Answer {
        self.call(Method::GET, path, VIEWER).await
    }

    /// Books one request of the key `demo` and leaves a second one in flight.
    pub(super) fn book_and_hold(&self) -> policy::Reservation {
        let live = self.live.load();
        let key = live.policy.key_named("demo").expect("a key").clone();
        let demand = Demand {
            tokens: Tokens(100),
            cost: NanoUsd(2_000_000),
            strict_tokens: Tokens(100),
            strict_cost: NanoUsd(2_000_000),
            ..Demand::default()
        };
        let candidate = Candidate {
            model: ModelId(0),
            demand,
        };
        let admitted = || match admit(&live.policy, &key, None, &[candidate], NOON) {
            Verdict::Admit(admitted) => admitted.reservation,
            Verdict::Reject(rejection) => panic!("refused: {rejection}"),
        };
        let actual = Actual {
            requests: 1,
            tokens: Tokens(40),
            cost: NanoUsd(1_500_000),
        };
        let _charges = admitted().settle(&actual, NOON);
        admitted()
    }
}

pub(super) fn token(name: &str, rights: Rights, value: &str) -> AdminToken {
    AdminToken {
        name: name.into(),
        role: "some".into(),
        rights,
        hash: KeyHash::of(value.as_bytes()),
    }
}

fn live(admin_tokens: Vec<AdminToken>) -> Live {
    Live {
        policy: snapshot(),
        upstreams: Arc::default(),
        bounds: RequestBounds {
            max_held_bodies: 1 << 30,
            max_body: 1,
            body_min_rate: 1,
            max_json_depth: 1,
            write_stall: std::time::Duration::ZERO,
            keep_alive: std::time::Duration::ZERO,
        },
        budget_status: None,
        users: Arc::default(),
        pricing: Default::default(),
        admin: Arc::new(AdminAccess {
            tokens: admin_tokens,
        }),
        entries: Entries::default(),
        unresolved: RedBlackTreeMapSync::new_sync(),
        misfit: None,
        redacted: Arc::new(json!({
            "version": 1,
            "virtual_keys": [{
                "name": "demo",
                "value": "***",
                "sha256": hex::encode(KeyHash::of(KEY_VALUE.as_bytes()).0),
                "team": "search",
                "rate_limits": [{"requests": 1000, "every": "1m"}],
                "budgets": [{"limit_usd": 10, "every": "1d", "enforcement": "strict"}],
            }],
        })),
    }
}

/// What the file and the API made, besides what `snapshot` holds.
fn ledger() -> Ledger {
    let ledger = Ledger::default();
    let file = |line: u32| Source::File {
        place: format!("conf/tyr.yaml:{line}"),
    };
    let key = |name: &str| {
        json!({
            "name": name,
            "sha256": "***",
            "active": true,
            "providers": [{"name": "openai", "models": ["*"], "weight": 1}],
        })
    };
    ledger.put(Kind::VirtualKey, file(9), key("demo"));
    ledger.put(Kind::VirtualKey, Source::Api, key("a/b"));
    ledger.put(Kind::VirtualKey, Source::Api, key("zeta"));
    ledger.put(Kind::Customer, Source::Api, json!({"name": "acme"}));
    let team = json!({"name": "search", "customer": "acme"});
    ledger.put(Kind::Team, file(4), team);
    let provider = json!({
        "name": "openai",
        "kind": "openai",
        "base_url": "https://api.openai.com/v1",
        "keys": [{"name": "main", "value": "***"}],
    });
    ledger.put(Kind::Provider, Source::Api, provider);
    let model = json!({"name": "gpt-4o-mini", "provider": "openai", "price": "free"});
    ledger.put(Kind::Model, Source::Api, model);
    ledger
}

fn snapshot() -> Snapshot {
    let anything = AllowList::all();
    let one = AllowList::from_names(vec!["gpt-4o-mini".to_owned()]).expect("names");
    let [of_key, of_team, of_customer] = scopes();
    let demo = VirtualKey {
        team: Some("search".into()),
        scope: Some(of_key),
        ..key("demo", KEY_VALUE, anything, 1)
    };
    let others = ["a/b", "zeta"].map(|name| key(name, name, one.clone(), 2));
    let parts = BaseParts {
        providers: vec![provider()],
        models: vec![model()],
        aliases: vec![("fast".into(), vec![ModelId(0)])],
        teams: vec![Team {
            name: "search".into(),
            customer: Some("acme".into()),
            scope: Some(of_team),
        }],
        customers: vec![Customer {
            name: "acme".into(),
            scope: Some(of_customer),
        }],
        rules: RuleSet::new(vec![rule()]),
        ..BaseParts::default()
    };
    Snapshot::new(7, parts, std::iter::once(demo).chain(others))
}

/// Sends what asks for it by a header to the one model there is.
fn rule() -> Rule {
    let spec = RuleSpec {
        name: "spare".into(),
        scope: RuleScope::Global,
        priority: 1,
        when: "headers['x-tier'] == 'free'".to_owned(),
        targets: vec![Target {
            provider: Some("openai".into()),
            model: Some("gpt-4o-mini".into()),
            credential: None,
            weight: 1,
        }],
        fallbacks: vec!["openai/gone".into()],
        chain: false,
        shadow: false,
        enabled: true,
    };
    Rule::compile(spec).expect("a right rule")
}

fn key(name: &str, value: &str, models: AllowList, weight: u32) -> VirtualKey {
    VirtualKey {
        name: name.into(),
        hash: KeyHash::of(value.as_bytes()),
        retiring: Vec::new(),
        team: None,
        customer: None,
        grants: vec![Grant {
            provider: "openai".into(),
            models,
            weight,
            scope: None,
        }],
        scope: None,
        active: name != "zeta",
        not_before: None,
        expires_at: None,
    }
}

/// The limits of the key `demo`, of its team and of its customer.
fn scopes() -> [Arc<Scope>; 3] {
    const USD: u64 = 1_000_000_000;
    let minute = Period::Fixed(std::time::Duration::from_secs(60));
    let (eventual, strict) = (Enforcement::Eventual, Enforcement::Strict);
    let scope = |kind, entity: &str, limits: &[(Unit, Period, u64, Enforcement)]| {
        let limits = limits.iter().map(|(unit, period, amount, enforcement)| {
            let window = match unit {
                Unit::Usd => WindowKind::Calendar,
                _ => WindowKind::Sliding,
            };
            let id = CounterId {
                scope: kind,
                entity: entity.into(),
                unit: *unit,
                period: Some(*period),
                window,
                name: None,
                generation: 0,
            };
            Limit {
                counter: CounterTable::new().counter(&id),
                id,
                amount: *amount,
                enforcement: *enforcement,
                shadow: false,
                on_tight: OnTight::Refuse,
                overridden: None,
            }
        });
        Arc::new(Scope {
            kind,
            entity: entity.into(),
            limits: limits.collect(),
        })
    };
    let requests = (Unit::Requests, minute, 1_000, eventual);
    let a_day = (Unit::Usd, Period::Day, 10 * USD, strict);
    let tokens = (Unit::Tokens, minute, 5_000, eventual);
    let a_month = (Unit::Usd, Period::Month, 1_000 * USD, eventual);
    [
        scope(ScopeKind::VirtualKey, "demo", &[requests, a_day]),
        scope(ScopeKind::Team, "search", &[tokens]),
        scope(ScopeKind::Customer, "acme", &[a_month]),
    ]
}

fn provider() -> Provider {
    Provider {
        name: "openai".into(),
        dialect: Dialect::OpenAi,
        credentials: vec![CredentialRef {
            name: "main".into(),
            weight: 1,
            models: AllowList::all(),
        }],
        max_retries: 2,
        region: None,
        scope: None,
    }
}

/// A dollar per million tokens of input, four per million of output.
fn model() -> Model {
    Model {
        name: "gpt-4o-mini".into(),
        provider: ProviderId(0),
        upstream_name: "gpt-4o-mini".into(),
        price: Price {
            input: PerMillion(1_000_000_000),
            output: PerMillion(4_000_000_000),
            ..Price::default()
        },
        max_output_tokens: Some(16_384),
        estimate: Arc::new(TokenRatio::new()),
        scope: None,
    }
}
