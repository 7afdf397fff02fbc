//! What a million virtual keys cost: changing one, finding one, and memory.
//!
//! `cargo bench -p policy --bench keys`

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use policy::{
    AllowList, BaseParts, CounterId, CounterTable, Enforcement, Grant, KeyHash, Limit, OnTight,
    Period, Scope, ScopeKind, Snapshot, Timestamp, Unit, VirtualKey, WindowKind,
};

const NOW: Timestamp = Timestamp(1_795_380_200_000);
const FEW: u32 = 1_000;
const MANY: u32 = 1_000_000;

fn name(number: u32) -> String {
    format!("key-{number:07}")
}

fn hash(number: u32) -> KeyHash {
    KeyHash::of(name(number).as_bytes())
}

/// A key of a team with one provider, as most are.
fn key(number: u32, shared: &Shared, limit: Option<&CounterTable>) -> VirtualKey {
    let name: Arc<str> = name(number).into();
    VirtualKey {
        hash: KeyHash::of(name.as_bytes()),
        retiring: Vec::new(),
        team: Some(Arc::clone(&shared.team)),
        customer: None,
        grants: vec![Grant {
            provider: Arc::clone(&shared.provider),
            models: AllowList::all(),
            weight: 1,
            scope: None,
        }],
        scope: limit.map(|table| one_limit(&name, table)),
        active: true,
        not_before: None,
        expires_at: None,
        name,
    }
}

/// Names that all keys have in common.
struct Shared {
    team: Arc<str>,
    provider: Arc<str>,
}

impl Shared {
    fn new() -> Self {
        Self {
            team: "search".into(),
            provider: "openai".into(),
        }
    }
}

fn one_limit(name: &Arc<str>, table: &CounterTable) -> Arc<Scope> {
    let id = CounterId {
        scope: ScopeKind::VirtualKey,
        entity: Arc::clone(name),
        unit: Unit::Requests,
        period: Some(Period::Fixed(Duration::from_secs(60))),
        window: WindowKind::Sliding,
        name: None,
        generation: 0,
    };
    Arc::new(Scope {
        kind: ScopeKind::VirtualKey,
        entity: Arc::clone(name),
        limits: vec![Limit {
            amount: 1_000,
            enforcement: Enforcement::Eventual,
            counter: table.counter(&id),
            id,
            shadow: false,
            on_tight: OnTight::Refuse,
            overridden: None,
        }],
    })
}

fn snapshot(count: u32, limits: Option<&CounterTable>) -> Snapshot {
    let shared = Shared::new();
    let keys = (0..count).map(|number| key(number, &shared, limits));
    Snapshot::new(1, BaseParts::default(), keys)
}

/// Bytes of memory that this process has in use.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("every process has one");
    let kib = line.trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") * 1_024
}

fn memory(count: u32, what: &str, build: impl FnOnce() -> Snapshot) -> Snapshot {
    let before = resident();
    let snapshot = build();
    let each = resident().saturating_sub(before) / u64::from(count);
    eprintln!("memory: {each} bytes for each of {count} keys {what}");
    snapshot
}

fn keys(criterion: &mut Criterion) {
    let shared = Shared::new();
    // Measured first, while nothing that was freed can be used again.
    let many = memory(MANY, "without limits", || snapshot(MANY, None));
    let table = CounterTable::new();
    drop(memory(
        MANY / 10,
        "with one sliding limit, its counter included",
        || snapshot(MANY / 10, Some(&table)),
    ));
    for (count, snapshot) in [(FEW, snapshot(FEW, None)), (MANY, many)] {
        // The same few keys again and again, so that what is compared is the
        // work and not the processor's caches; then any key.
        for (which, some) in [("of the same 64", 64), ("any", count)] {
            let mut numbers = numbers(count, some);
            let mut current = snapshot.clone();
            criterion.bench_function(&format!("{count} keys: change one, {which}"), |bench| {
                bench.iter_batched(
                    || key(numbers.next().expect("a cycle"), &shared, None),
                    // The one before goes, as when nobody reads it any more.
                    |key| current = current.with_key(2, key),
                    BatchSize::SmallInput,
                );
            });
            criterion.bench_function(&format!("{count} keys: find one, {which}"), |bench| {
                bench.iter_batched(
                    || hash(numbers.next().expect("a cycle")),
                    |hash| black_box(snapshot.authenticate(&hash, NOW).is_ok()),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

/// `some` keys out of `count`, spread over all, for ever.
fn numbers(count: u32, some: u32) -> impl Iterator<Item = u32> {
    (0..some).cycle().map(move |number| {
        let spread = u64::from(number) * 7_919 % u64::from(count);
        u32::try_from(spread).expect("less than the count")
    })
}

criterion_group!(benches, keys);
criterion_main!(benches);
