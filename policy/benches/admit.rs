//! What judging a request costs: the walk over all its limits, holding and
//! giving back, and holding and settling; on a node alone, and on one of
//! several, where each counter holds what others have.
//!
//! `cargo bench -p policy --bench admit`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use policy::{
    Actual, Admitted, AllowList, BaseParts, Candidate, Counter, CounterId, CounterTable, Customer,
    Demand, Dialect, Enforcement, Fleet, Grant, KeyHash, Limit, Mode, Model, ModelId, NanoUsd,
    OnTight, PerMillion, Period, Price, Provider, ProviderId, Scope, ScopeKind, Snapshot, Team,
    Timestamp, TokenRatio, Tokens, Unit, Verdict, VirtualKey, WindowKind, admit,
};

const NOW: Timestamp = Timestamp(1_795_380_200_000);

/// Whether other nodes have to do with the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    One,
    Several,
}

impl Nodes {
    fn table(self) -> CounterTable {
        match self {
            Self::One => CounterTable::new(),
            Self::Several => CounterTable::tracking(),
        }
    }

    /// What others have in three sub-windows, and how far this node may go.
    fn share(self, counter: &Counter) {
        if self == Self::One {
            return;
        }
        let epoch = counter.id().epoch(NOW);
        for epoch in epoch - 2..=epoch {
            counter.change_remote(epoch, 0, 1_000, NOW);
        }
        counter.set_fleet(Fleet {
            ceiling: u64::MAX,
            mode: Mode::Live,
            overshoot_bound: Some(10),
            trigger: 1 << 30,
        });
    }
}

/// A scope with its first `count` limits: requests and tokens a minute, slid.
fn scope(
    table: &CounterTable,
    nodes: Nodes,
    kind: ScopeKind,
    entity: &str,
    left: &mut usize,
) -> Option<Arc<Scope>> {
    let limits: Vec<Limit> = [Unit::Requests, Unit::Tokens]
        .into_iter()
        .take(*left)
        .map(|unit| {
            let id = CounterId {
                scope: kind,
                entity: entity.into(),
                unit,
                period: Some(Period::Fixed(Duration::from_secs(60))),
                window: WindowKind::Sliding,
                name: None,
                generation: 0,
            };
            let counter = table.counter(&id);
            nodes.share(&counter);
            Limit {
                amount: 1 << 39,
                enforcement: Enforcement::Eventual,
                counter,
                id,
                shadow: false,
                on_tight: OnTight::Refuse,
                overridden: None,
            }
        })
        .collect();
    *left -= limits.len();
    (!limits.is_empty()).then(|| {
        Arc::new(Scope {
            kind,
            entity: entity.into(),
            limits,
        })
    })
}

/// A gateway where each request of its key meets `limits` limits, two at each
/// level from the key on.
fn snapshot(nodes: Nodes, mut limits: usize) -> (Snapshot, Arc<VirtualKey>) {
    let table = nodes.table();
    let mut next = |kind, entity: &str| scope(&table, nodes, kind, entity, &mut limits);
    let key = VirtualKey {
        name: "demo".into(),
        hash: KeyHash::of(b"demo"),
        retiring: Vec::new(),
        team: Some("red".into()),
        customer: None,
        scope: next(ScopeKind::VirtualKey, "demo"),
        grants: vec![Grant {
            provider: "openai".into(),
            models: AllowList::all(),
            weight: 1,
            scope: None,
        }],
        active: true,
        not_before: None,
        expires_at: None,
    };
    let parts = BaseParts {
        teams: vec![Team {
            name: "red".into(),
            customer: Some("acme".into()),
            scope: next(ScopeKind::Team, "red"),
        }],
        customers: vec![Customer {
            name: "acme".into(),
            scope: next(ScopeKind::Customer, "acme"),
        }],
        providers: vec![Provider {
            name: "openai".into(),
            dialect: Dialect::OpenAi,
            credentials: Vec::new(),
            max_retries: 2,
            region: None,
            scope: next(ScopeKind::Provider, "openai"),
        }],
        models: vec![Model {
            name: "gpt".into(),
            provider: ProviderId(0),
            upstream_name: "gpt".into(),
            price: Price::FREE,
            max_output_tokens: None,
            estimate: Arc::new(TokenRatio::new()),
            scope: next(ScopeKind::Model, "openai/gpt"),
        }],
        ..BaseParts::default()
    };
    let snapshot = Snapshot::new(1, parts, [key]);
    let key = Arc::clone(snapshot.key_named("demo").expect("it was just put there"));
    (snapshot, key)
}

fn admitted(verdict: Verdict) -> Admitted {
    match verdict {
        Verdict::Admit(admitted) => admitted,
        Verdict::Reject(rejection) => panic!("refused: {rejection}"),
    }
}

fn walk(criterion: &mut Criterion) {
    let candidate = Candidate {
        model: ModelId(0),
        demand: Demand {
            tokens: Tokens(150),
            cost: NanoUsd(1_500),
            output_price: PerMillion(10),
            ..Demand::default()
        },
    };
    let actual = Actual {
        requests: 1,
        tokens: Tokens(120),
        cost: NanoUsd(1_200),
    };
    for (nodes, limits, among) in [
        (Nodes::One, 0, ""),
        (Nodes::One, 5, ""),
        (Nodes::One, 10, ""),
        (Nodes::Several, 5, " among nodes"),
        (Nodes::Several, 10, " among nodes"),
    ] {
        let (snapshot, key) = snapshot(nodes, limits);
        let ask = || {
            let candidates = std::slice::from_ref(black_box(&candidate));
            admitted(admit(&snapshot, &key, None, candidates, NOW)).reservation
        };
        assert_eq!(ask().all_standings(NOW).len(), limits);
        criterion.bench_function(
            &format!("admit and release, {limits} limits{among}"),
            |bench| {
                bench.iter(|| drop(black_box(ask())));
            },
        );
        criterion.bench_function(
            &format!("admit and settle, {limits} limits{among}"),
            |bench| {
                bench.iter(|| black_box(ask().settle(&actual, NOW)));
            },
        );
        criterion.bench_function(&format!("admit alone, {limits} limits{among}"), |bench| {
            bench.iter_batched(|| (), |()| ask(), BatchSize::SmallInput);
        });
    }
}

criterion_group!(benches, walk);
criterion_main!(benches);
