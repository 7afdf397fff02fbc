//! A node on Postgres, with and without it.

use std::time::{Duration, Instant};

use super::*;
use crate::testing::postgres::Postgres;

/// Longest time for anything here.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server that may be away, and the folder of a node.
struct Bench {
    server: Postgres,
    database: String,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let server = Postgres::start(None);
        Self {
            database: server.database(),
            server,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn start(&self) -> Result<Node, StartError> {
        self.start_as(false)
    }

    fn start_as(&self, take_over: bool) -> Result<Node, StartError> {
        let postgres = PostgresConfig::from_url(&self.server.url(&self.database)).unwrap();
        let config = NodeConfig {
            store: StoreConfig::Postgres(postgres),
            take_over,
            ..config(self.dir.path())
        };
        start(config, clock(1_000))
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("data").join(name)
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        thread::yield_now();
    }
}

fn record_all(node: &Node, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        node.recorder().record(record(number));
    }
}

#[test]
fn a_node_that_has_run_before_starts_without_postgres_and_catches_up() {
    let mut bench = Bench::new();
    let node = bench.start().unwrap();
    assert!(!node.degraded() && node.take_recovered().is_none());
    record_and_store(&node, 1..=10);
    node.entities()
        .write(
            &[entity_write("demo", Expect::Absent, Some("{}"))],
            &change("demo"),
        )
        .unwrap();
    // These wait in a usage file when the node ends.
    bench.server.stop();
    record_all(&node, 11..=14);
    until("on disk", || node.status().snapshot().records_written == 14);
    node.stop();

    let node = bench.start().unwrap();
    assert!(node.degraded() && !node.status().store_ok());
    assert_eq!(amount(&node.cells(), "usd"), (1..=14).sum::<u64>());
    assert_eq!(amount(&node.cells(), "requests"), 14);
    let names: Vec<String> = node
        .entities()
        .loaded()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, ["demo"]);
    record_all(&node, 15..=20);
    until("on disk", || node.status().snapshot().records_written == 6);
    assert!(node.take_recovered().is_none());
    node.stop();

    // Once more: what the first one without the store left is counted, too.
    let node = bench.start().unwrap();
    assert_eq!(amount(&node.cells(), "usd"), (1..=20).sum::<u64>());
    record_all(&node, 21..=22);
    bench.server.resume();
    until("it has caught up", || !node.degraded());
    let recovered = node.take_recovered().unwrap();
    assert!(node.take_recovered().is_none(), "given once");
    let usd = amount(&recovered, "usd");
    assert!(usd == (1..=22).sum::<u64>(), "{usd}");
    assert!(node.status().store_ok());
    assert_exactly(&*node.store, 1..=22);
    // What is loaded may be told again, nothing else.
    let told = node.entities().poll().unwrap();
    assert!(told.iter().all(|entity| entity.name == "demo"), "{told:?}");
    node.stop();

    let node = bench.start().unwrap();
    assert_eq!(amount(&node.cells(), "requests"), 22);
    node.stop();
}

/// What was brought to the store after an outage is in the store's cells: the usage file that still
/// holds it must not be added to them.
#[test]
fn what_was_caught_up_with_is_not_counted_twice_after_a_kill() {
    let mut bench = Bench::new();
    let node = bench.start().unwrap();
    record_and_store(&node, 1..=3);
    node.stop();
    bench.server.stop();
    let node = bench.start().unwrap();
    record_all(&node, 4..=5);
    bench.server.resume();
    until("it has caught up", || !node.degraded());
    let stored = || node.status().snapshot().records_stored;
    until("in the store", || stored() == 2);
    assert_exactly(&*node.store, 1..=5);

    // The folder as a kill would leave it.
    let killed = tempfile::tempdir().unwrap();
    std::fs::create_dir(killed.path().join("data")).unwrap();
    for entry in std::fs::read_dir(bench.file("")).unwrap() {
        let entry = entry.unwrap();
        let copy = killed.path().join("data").join(entry.file_name());
        std::fs::copy(entry.path(), copy).unwrap();
    }
    node.stop();
    bench.dir = killed;
    bench.server.stop();
    let node = bench.start().unwrap();
    assert!(node.degraded());
    assert_eq!(amount(&node.cells(), "usd"), (1..=5).sum::<u64>());
    node.stop();
}

#[test]
fn what_another_node_did_meanwhile_is_learnt() {
    let mut bench = Bench::new();
    let node = bench.start().unwrap();
    record_and_store(&node, 1..=3);
    node.stop();
    bench.server.stop();
    let node = bench.start().unwrap();
    record_all(&node, 4..=4);
    bench.server.resume();

    let other = tempfile::tempdir().unwrap();
    let postgres = PostgresConfig::from_url(&bench.server.url(&bench.database)).unwrap();
    let store = crate::store::PostgresStore::open(&postgres).unwrap();
    store.record_usage(origin(1, 77), &[record(100)]).unwrap();
    let write = entity_write("theirs", Expect::Absent, Some("{}"));
    let theirs = store.write_entities(&[write], &change("theirs"), &AuditKey::keyless());
    drop(other);
    until("it has caught up", || !node.degraded());
    let own: u64 = (1..=4).sum();
    let recovered = amount(&node.take_recovered().unwrap(), "usd");
    // The other one may have come just after the look.
    assert!([own, own + 100].contains(&recovered), "{recovered}");
    let told = node.entities().poll().unwrap();
    assert_eq!(told, theirs.unwrap().entities);
    node.stop();
}

#[test]
fn a_node_without_anything_to_go_by_is_refused() {
    let mut bench = Bench::new();
    bench.server.stop();
    let refused = bench.start().unwrap_err();
    assert!(
        matches!(refused, StartError::NothingKept { .. }),
        "{refused}"
    );
    let text = refused.to_string();
    assert!(
        text.contains("refused") && text.contains("holds nothing of an earlier run"),
        "{text}"
    );
    bench.server.resume();
    let node = bench.start().unwrap();
    record_and_store(&node, 1..=1);

    // To take over needs the store; the old one goes on.
    bench.server.stop();
    let refused = bench.start_as(true).unwrap_err();
    assert!(
        matches!(refused, StartError::Store(StoreError::Away { .. })),
        "{refused}"
    );
    node.stop();
    std::fs::remove_file(bench.file("cells.log")).unwrap();
    let refused = bench.start().unwrap_err();
    assert!(
        matches!(refused, StartError::NothingKept { .. }),
        "{refused}"
    );
}

#[test]
fn a_successor_on_postgres_counts_what_the_old_node_settles() {
    let mut bench = Bench::new();
    let old = bench.start().unwrap();
    record_and_store(&old, 1..=10);
    let mut new = bench.start_as(true).unwrap();
    let mut predecessor = new.predecessor().unwrap();
    record_and_store(&new, 100..=101);
    record_and_store(&old, 11..=12);
    assert_eq!(amount(&predecessor.settled().unwrap(), "usd"), 23);
    let late = old.recorder();
    old.stop();
    late.record(record(13));
    drop(late);
    let mut rest = Vec::new();
    while !predecessor.has_ended() {
        rest.extend(predecessor.settled().unwrap());
        thread::yield_now();
    }
    assert_eq!(amount(&rest, "usd"), 13);
    assert_exactly(&*new.store, (1..=13).chain(100..=101));
    new.stop();

    // All of it is in the node's own copy, once.
    bench.server.stop();
    let node = bench.start().unwrap();
    assert!(node.degraded());
    assert_eq!(amount(&node.cells(), "requests"), 15);
    node.stop();
}

#[test]
fn a_running_node_rides_out_stops_and_crashes() {
    let mut bench = Bench::new();
    let node = bench.start().unwrap();
    let recorder = node.recorder();
    let mut next = 0;
    let mut record_some = |many: u64| {
        for _ in 0..many {
            next += 1;
            recorder.record(record(next));
        }
        next
    };
    record_some(50);
    recorder.flush().unwrap();
    for crash in [false, true, true] {
        // In flight when the server goes.
        record_some(200);
        match crash {
            true => bench.server.crash(),
            false => bench.server.stop(),
        }
        record_some(300);
        recorder.flush().unwrap_err();
        assert!(!node.status().store_ok());
        // More than memory hands over.
        record_some(20_000);
        bench.server.resume();
        until("the store takes usage again", || node.status().store_ok());
    }
    let last = record_some(10);
    recorder.flush().unwrap();
    assert_exactly(&*node.store, 1..=last);
    let status = node.status().snapshot();
    assert_eq!((status.records_lost, status.waiting_bytes), (0, 0));
    assert!(!node.degraded());
    drop(recorder);
    node.stop();

    // The node's own copy says the same.
    bench.server.stop();
    let node = bench.start().unwrap();
    assert_eq!(amount(&node.cells(), "requests"), last);
    assert_eq!(amount(&node.cells(), "usd"), (1..=last).sum::<u64>());
    node.stop();
}
