//! What one record costs the node's own threads, at a steady rate for twenty seconds.
//!
//! `cargo bench -p cluster --bench record`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement says its figures, and where it fails"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cluster::audit::AuditKey;
use cluster::{Basis, EndReason, NodeConfig, Recorder, StoreConfig, UsageRecord};
use policy::{Charge, Clock, NanoUsd, Timestamp, Usage};

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 200_000;
const RECORDS_PER_SECOND: u64 = 10_000;
const CALLERS: u64 = 2;
const STARTED_AT_MS: u64 = 1_764_000_000_000;

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp(STARTED_AT_MS)
    }
}

fn record(number: u64, counters: &[Arc<str>]) -> UsageRecord {
    let at = STARTED_AT_MS + number * 1_000 / RECORDS_PER_SECOND;
    // Spread like random bits, the same in every run.
    let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let charge = |counter: &Arc<str>, amount| Charge {
        counter: Arc::clone(counter),
        epoch: (at / 1_000) as i64,
        amount,
        expires_at: Timestamp(at / 60_000 * 60_000 + 120_000),
    };
    UsageRecord {
        request_id: format!(
            "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
            at >> 16,
            at & 0xffff,
            noise >> 52,
            0x8000 | noise & 0x3fff,
            noise >> 8 & 0xffff_ffff_ffff
        ),
        key: "load-test-key".to_owned(),
        team: Some("search".to_owned()),
        customer: None,
        user: None,
        rule: None,
        model_requested: "gpt-5-mini".to_owned(),
        model_served: Some("gpt-5-mini-2026-01-01".to_owned()),
        provider: Some("openai".to_owned()),
        credential: Some("primary".to_owned()),
        endpoint: "chat_completions".to_owned(),
        stream: number.is_multiple_of(2),
        usage: Usage {
            input: 1_234,
            output: 345,
            ..Usage::default()
        },
        cost: NanoUsd(123_456),
        basis: Basis::Reported,
        status: 200,
        started_at: Timestamp(at),
        first_byte_ms: Some(12),
        duration_ms: 340,
        attempts: 1,
        end: EndReason::Success,
        upstream_request_id: Some("req_0123456789abcdef".to_owned()),
        charges: vec![
            charge(&counters[0], 1),
            charge(&counters[1], 1_579),
            charge(&counters[2], 123_456),
        ],
    }
}

/// Records the numbers of one caller at its share of the rate; returns the time spent in calls.
fn call(recorder: &Recorder, caller: u64) -> Duration {
    let counters: Vec<Arc<str>> = [
        "virtual_key/load-test-key/requests/1m/sliding",
        "virtual_key/load-test-key/tokens/1m/sliding",
        "team/search/usd/1M/calendar",
    ]
    .map(Arc::from)
    .into();
    let start = Instant::now();
    let mut spent = Duration::ZERO;
    for number in (0..RECORDS).filter(|number| number % CALLERS == caller) {
        let due = Duration::from_micros(number * 1_000_000 / RECORDS_PER_SECOND);
        while let Some(early) = due.checked_sub(start.elapsed()) {
            thread::park_timeout(early);
        }
        let record = record(number, &counters);
        let before = Instant::now();
        recorder.record(record);
        spent += before.elapsed();
    }
    spent
}

/// Of every thread with this name: nanoseconds on a processor, and voluntary waits.
fn threads() -> BTreeMap<String, (u64, u64)> {
    let mut found = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let read = |name: &str| std::fs::read_to_string(Path::new(&task).join(name)).unwrap();
        let time = read("schedstat");
        let time: u64 = time.split(' ').next().unwrap().parse().unwrap();
        let status = read("status");
        let waits = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
            .map_or(0, |figure| figure.trim().parse().unwrap());
        let of = found
            .entry(read("comm").trim().to_owned())
            .or_insert((0, 0));
        *of = (of.0 + time, of.1 + waits);
    }
    found
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig {
        data_dir: dir.path().to_owned(),
        take_over: false,
        audit: AuditKey::keyless(),
        cluster: None,
        counters: Arc::default(),
        store: StoreConfig::Sqlite {
            path: dir.path().join("tyr.db"),
        },
    };
    let node = cluster::start(config, Arc::new(FixedClock)).unwrap();
    let spent: Duration = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let recorder = node.recorder();
                scope.spawn(move || call(&recorder, caller))
            })
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .sum()
    });
    node.recorder().flush().unwrap();
    for (name, (time, waits)) in threads() {
        if name.starts_with("tyr-") {
            let each = time as f64 / RECORDS as f64 / 1_000.0;
            println!("{name:12} {each:6.2} µs a record, {waits:7} waits");
        }
    }
    let each = spent.as_secs_f64() * 1e6 / RECORDS as f64;
    println!("{:12} {each:6.2} µs a record", "record()");
    let status = node.status().snapshot();
    assert_eq!(status.records_stored, RECORDS, "{status:?}");
    println!("overflowed   {}", status.records_overflowed);
    node.stop();
}
