//! A node as its owner sees it, on a real SQLite file.

mod cluster;
mod degraded;

use std::path::Path;
use std::thread;

use policy::{ManualClock, Timestamp};

use super::*;
use crate::audit::VerifyError;
use crate::entity::{EntityWrite, Expect, LastGood, Persisted};
use crate::testing::{
    EXPIRY, FlakyStore, amount, assert_exactly, change, entity_write, origin, record,
};

fn config(dir: &Path) -> NodeConfig {
    NodeConfig {
        data_dir: dir.join("data"),
        take_over: false,
        audit: AuditKey::keyless(),
        cluster: None,
        counters: Arc::default(),
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
    assert_eq!(log.recent(1, None, None).unwrap().records, [record(20)]);
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
    assert_eq!(node.store.load_cells(Timestamp(0)).unwrap().cells(), []);
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

fn put(name: &str) -> [EntityWrite; 1] {
    [entity_write(name, Expect::Absent, Some("{}"))]
}

#[test]
fn entities_outlive_a_restart_and_commands_share_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let key = AuditKey::from_secret("k1", b"of the audit log");
    let keyed = || NodeConfig {
        audit: key.clone(),
        ..config(dir.path())
    };
    let node = start(keyed(), clock(1_000)).unwrap();
    let log = node.entities();
    assert_eq!(log.loaded(), []);
    let written = log.write(&put("a"), &change("a")).unwrap();
    let revoked = log.revoke("00ff", &change("key")).unwrap();
    assert_eq!(revoked, Persisted(true));
    log.record(&change("reloaded")).unwrap();

    let command = open_store(&keyed().store).unwrap();
    assert_eq!(command.entities().unwrap().first(), written.first());
    let made = command.write(&put("b"), &change("b"), &key).unwrap();
    assert_eq!(log.poll().unwrap(), made);
    assert_eq!(log.poll().unwrap(), []);
    command.record(&change("by hand"), &key).unwrap();
    let rows = command.audit(0, 10).unwrap();
    assert_eq!(rows, log.audit(0, 10).unwrap());
    let verified = log.verify_audit(std::slice::from_ref(&key)).unwrap();
    assert_eq!((verified.rows, verified.head), (5, rows[4].hash));
    let unknown = command.verify_audit(&[]).unwrap_err();
    assert!(matches!(unknown, VerifyError::Broken(_)), "{unknown}");
    node.stop();

    let node = start(keyed(), clock(2_000)).unwrap();
    let loaded = node.entities().loaded();
    let names: Vec<_> = loaded.iter().map(|entity| entity.name.as_str()).collect();
    assert_eq!(names, ["a", "00ff", "b"]);
    assert_eq!(loaded[0], written[0]);
    node.stop();
}

#[test]
fn a_waiting_revocation_is_brought_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = FlakyStore::default();
    let start = || {
        let path = dir.path().join("data");
        let data_dir = DataDir::open(&path, Timestamp(1), Entrance::Alone).unwrap();
        let store = Arc::new(store.clone());
        let opened = Opened::local(store);
        start_with(data_dir, opened, AuditKey::keyless(), clock(1), None).unwrap()
    };
    let node = start();
    store.set_down(true);
    let log = node.entities();
    let revoked = log.revoke("00ff", &change("key")).unwrap();
    assert_eq!((revoked, log.waiting_revocations()), (Persisted(false), 1));
    store.set_down(false);
    while log.waiting_revocations() > 0 {
        thread::yield_now();
    }
    store.set_down(true);
    assert_eq!(
        log.revoke("11ff", &change("key")).unwrap(),
        Persisted(false)
    );
    store.set_down(false);
    node.stop();
    let revoked = store.inner.entities_since(0, 9).unwrap();
    let names: Vec<_> = revoked.iter().map(|entity| entity.name.as_str()).collect();
    assert_eq!(names, ["00ff", "11ff"], "also by a stop");
    assert_eq!(store.inner.audit_rows(0, 9).unwrap().len(), 2);
    drop(log);
    assert_eq!(start().entities().waiting_revocations(), 0);
}

#[test]
fn a_successor_and_its_predecessor_both_write_entities() {
    let dir = tempfile::tempdir().unwrap();
    let old = start(config(dir.path()), clock(1_000)).unwrap();
    let new = NodeConfig {
        take_over: true,
        ..config(dir.path())
    };
    let new = start(new, clock(1_000)).unwrap();
    let logs = [old.entities(), new.entities()];
    thread::scope(|scope| {
        for (node, log) in logs.iter().enumerate() {
            scope.spawn(move || {
                for number in 0..20 {
                    let name = format!("{node}-{number}");
                    log.write(&put(&name), &change(&name)).unwrap();
                }
            });
        }
    });
    for (node, log) in logs.iter().enumerate() {
        let told = log.poll().unwrap();
        let other = format!("{}-", 1 - node);
        assert_eq!(told.len(), 20);
        assert!(told.iter().all(|entity| entity.name.starts_with(&other)));
    }
    assert_eq!(logs[0].verify_audit(&[]).unwrap().rows, 40);
    old.stop();
    new.stop();
    let last_good = LastGood::new(&dir.path().join("data")).read().unwrap();
    let found = (last_good.entities.len(), last_good.seen, last_good.damaged);
    assert_eq!(found, (40, 40, 0));
}
