//! A node as its owner sees it, on a real SQLite file.

use std::path::Path;
use std::thread;

use policy::{ManualClock, Timestamp};

use super::*;
use crate::testing::{EXPIRY, amount, assert_exactly, record};

fn config(dir: &Path) -> NodeConfig {
    NodeConfig {
        data_dir: dir.join("data"),
        take_over: false,
        store: StoreConfig::Sqlite {
            path: dir.join("data/store/tyr.db"),
        },
    }
}

fn clock(now: u64) -> Arc<ManualClock> {
    let clock = ManualClock::default();
    clock.set(Timestamp(now));
    Arc::new(clock)
}

#[test]
fn a_restart_brings_back_the_settled_cells() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path()), clock(1_000)).unwrap();
    assert_eq!(node.cells(), []);
    assert_eq!(node.boot(), 1_000);
    let key = node.node_key();
    for number in 1..=20 {
        node.recorder().record(record(number));
    }
    node.stop();

    let node = start(config(dir.path()), clock(1_000)).unwrap();
    assert_eq!(node.boot(), 1_001);
    assert_eq!(node.node_key(), key);
    assert_eq!(amount(&node.cells(), "usd"), 210);
    assert_eq!(amount(&node.cells(), "requests"), 20);
    let log = node.usage_log();
    assert_eq!(log.count().unwrap(), 20);
    assert_eq!(log.recent(1).unwrap(), [record(20)]);
    let id = record(7).request_id;
    assert_eq!(log.usage(&id).unwrap(), Some(record(7)));
    assert_exactly(&*node.store, 1..=20);
    node.stop();
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path()), clock(1)).unwrap();
    let refused = start(config(dir.path()), clock(1)).unwrap_err();
    assert!(matches!(refused, StartError::Locked { .. }));
    assert!(refused.to_string().contains("in use by another node"));
    node.stop();
    start(config(dir.path()), clock(1)).unwrap().stop();
}

#[test]
fn cells_of_windows_that_have_passed_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path()), clock(1)).unwrap();
    node.recorder().record(record(1));
    node.stop();

    let node = start(config(dir.path()), clock(EXPIRY.0)).unwrap();
    assert_eq!(node.cells(), []);
    // The driver asks at once, the store thread does it soon.
    while node.status().snapshot().expired_cells < 2 {
        thread::yield_now();
    }
    assert_eq!(node.store.load_cells(Timestamp(0)).unwrap().cells, []);
    assert_eq!(node.usage_log().count().unwrap(), 1);
    node.stop();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "a file").unwrap();
    let refused = start(config(dir.path()), clock(1)).unwrap_err();
    let text = refused.to_string();
    assert!(text.starts_with("cannot create "), "{text}");
    assert!(text.contains("/data"), "{text}");
}

#[test]
fn a_successor_counts_what_the_old_node_settles_until_it_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let old = start(config(dir.path()), clock(1_000)).unwrap();
    record_and_store(&old, 1..=10);
    let succeed = || {
        let config = NodeConfig {
            take_over: true,
            ..config(dir.path())
        };
        start(config, clock(1_000))
    };
    let mut new = succeed().unwrap();
    assert_eq!((old.boot(), new.boot()), (1_000, 1_001));
    assert_eq!(old.node_key(), new.node_key());
    assert_eq!(amount(&new.cells(), "usd"), 55);
    let mut predecessor = new.predecessor().unwrap();
    assert!(new.predecessor().is_none(), "given once");
    let refused = succeed().unwrap_err();
    assert!(matches!(refused, StartError::Upgrading { .. }), "{refused}");

    record_and_store(&new, 100..=101);
    record_and_store(&old, 11..=12);
    assert_eq!(amount(&predecessor.settled().unwrap(), "usd"), 23);
    assert!(!predecessor.has_ended() && new.status().taking_over());
    // A record after the end waits in a file until the new node has the folder.
    let late = old.recorder();
    old.stop();
    late.record(record(13));
    drop(late);
    let mut rest = Vec::new();
    while !predecessor.has_ended() {
        rest.extend(predecessor.settled().unwrap());
        thread::yield_now();
    }
    assert_eq!((amount(&rest, "usd"), amount(&rest, "requests")), (13, 1));
    assert_exactly(&*new.store, (1..=13).chain(100..=101));

    let mut third = succeed().unwrap();
    assert_eq!(amount(&third.cells(), "requests"), 15);
    assert!(third.predecessor().is_some());
    new.stop();
    third.stop();
    assert_eq!(start(config(dir.path()), clock(1)).unwrap().boot(), 1_003);
}

fn record_and_store(node: &Node, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        node.recorder().record(record(number));
    }
    node.recorder().flush().unwrap();
}
