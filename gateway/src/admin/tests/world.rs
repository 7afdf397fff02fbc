//! A node's worth of admin state with secrets planted in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Method, Request, StatusCode};
use policy::{
    Actual, AllowList, CounterId, CounterTable, CredentialRef, Demand, Dialect, Enforcement, Grant,
    KeyHash, Limit, ManualClock, Model, ModelId, NanoUsd, Period, Price, Provider, ProviderId,
    Scope, ScopeKind, Snapshot, SnapshotParts, Timestamp, TokenRatio, Tokens, Unit, Verdict,
    VirtualKey, WindowKind, admit,
};
use serde_json::{Value, json};
use tower_service::Service;

use crate::admin::{
    AdminState, Readiness, ReloadProblem, UsagePage, UsageReader, UsageUnavailable, router,
};
use crate::state::{AdminRole, AdminToken, Live, RequestBounds};
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

    fn recent(&self, page: &UsagePage) -> Result<Vec<Value>, UsageUnavailable> {
        let records = ["r3", "r2", "r1"].into_iter();
        let older = records.filter(|id| page.after.as_deref().is_none_or(|after| *id < after));
        let shown = older.take(page.limit);
        Ok(shown.map(|id| json!({"request_id": id})).collect())
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_tokens(vec![
            token("ops", AdminRole::Admin, ADMIN),
            token("robot", AdminRole::Operator, OPERATOR),
            token("board", AdminRole::Viewer, VIEWER),
        ])
    }

    pub(super) fn with_tokens(admin_tokens: Vec<AdminToken>) -> Self {
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
            usage: Some(Arc::new(Records)),
        });
        World {
            router,
            live,
            clock,
            readiness,
            reloads,
            problems,
            store,
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

    pub(super) async fn read(&self, path: &str) -> Answer {
        self.call(Method::GET, path, VIEWER).await
    }

    /// Books one request of the key `demo` and leaves a second one in flight.
    pub(super) fn book_and_hold(&self) -> policy::Reservation {
        let live = self.live.load();
        let scopes = live.policy.key_named("demo").expect("a key").scopes.clone();
        let demand = Demand {
            tokens: Tokens(100),
            cost: NanoUsd(2_000_000),
            strict_tokens: Tokens(100),
            strict_cost: NanoUsd(2_000_000),
            ..Demand::default()
        };
        let admitted = || match admit(&scopes, &demand, NOON) {
            Verdict::Admit(reservation) => reservation,
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

fn token(name: &str, role: AdminRole, value: &str) -> AdminToken {
    AdminToken {
        name: name.into(),
        role,
        hash: KeyHash::of(value.as_bytes()),
    }
}

fn live(admin_tokens: Vec<AdminToken>) -> Live {
    Live {
        policy: snapshot(),
        upstreams: Vec::new(),
        bounds: RequestBounds {
            max_held_bodies: 1 << 30,
            max_body: 1,
            body_min_rate: 1,
            max_json_depth: 1,
            write_stall: std::time::Duration::ZERO,
            keep_alive: std::time::Duration::ZERO,
        },
        budget_status: None,
        admin_tokens,
        redacted: json!({
            "version": 1,
            "virtual_keys": [{
                "name": "demo",
                "value": "***",
                "sha256": hex::encode(KeyHash::of(KEY_VALUE.as_bytes()).0),
                "team": "search",
                "rate_limits": [{"requests": 1000, "every": "1m"}],
                "budgets": [{"limit_usd": 10, "every": "1d", "enforcement": "strict"}],
            }],
        }),
    }
}

fn snapshot() -> Snapshot {
    let anything = AllowList::all();
    let one = AllowList::from_names(vec!["gpt-4o-mini".to_owned()]).expect("names");
    let demo = VirtualKey {
        team: Some("search".into()),
        customer: Some("acme".into()),
        scopes: scopes(),
        ..key("demo", KEY_VALUE, anything, 1)
    };
    let others = ["a/b", "zeta"].map(|name| key(name, name, one.clone(), 2));
    Snapshot::new(SnapshotParts {
        revision: 7,
        providers: vec![provider()],
        models: vec![model()],
        aliases: vec![("fast".into(), vec![ModelId(0)])],
        keys: std::iter::once(demo).chain(others).collect(),
    })
}

fn key(name: &str, value: &str, models: AllowList, weight: u32) -> VirtualKey {
    VirtualKey {
        name: name.into(),
        hash: KeyHash::of(value.as_bytes()),
        team: None,
        customer: None,
        grants: vec![Grant {
            provider: ProviderId(0),
            models,
            weight,
        }],
        scopes: Vec::new(),
    }
}

/// The walk of the key `demo`.
fn scopes() -> Vec<Arc<Scope>> {
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
            };
            Limit {
                counter: CounterTable::new().counter(&id),
                id,
                amount: *amount,
                enforcement: *enforcement,
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
    vec![
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
    }
}

fn model() -> Model {
    Model {
        name: "gpt-4o-mini".into(),
        provider: ProviderId(0),
        upstream_name: "gpt-4o-mini".into(),
        price: Price::FREE,
        max_output_tokens: None,
        estimate: Arc::new(TokenRatio::new()),
    }
}
