//! One suite for every store.

use policy::{Cell, Timestamp};
use proptest::prelude::*;

use super::{MemoryStore, Position, SqliteStore, Store};
use crate::error::StoreError;
use crate::record::{Basis, EndReason, UsageRecord};
use crate::testing::{EXPIRY, amount, assert_exactly, charge, record};

const BOOT: u64 = 7;

/// Runs a check over a fresh store of each kind.
fn each(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::default());
    let dir = tempfile::tempdir().unwrap();
    check(&SqliteStore::open(&dir.path().join("tyr.db")).unwrap());
}

fn with_charges(number: u64, charges: Vec<policy::Charge>) -> UsageRecord {
    UsageRecord {
        charges,
        ..record(number)
    }
}

#[test]
fn a_record_counts_once_however_often_it_comes() {
    each(|store| {
        let batch = [record(1), record(2), record(1)];
        assert_eq!(store.record_usage(BOOT, &batch).unwrap(), 2);
        assert_eq!(store.record_usage(BOOT, &batch).unwrap(), 0);
        assert_eq!(
            store.record_usage(BOOT, &[record(3), record(2)]).unwrap(),
            1
        );
        assert_eq!(store.record_usage(BOOT, &[]).unwrap(), 0);
        assert_exactly(store, [1, 2, 3]);
        assert_eq!(store.usage_count().unwrap(), 3);
    });
}

#[test]
fn every_field_comes_back() {
    each(|store| {
        let mut odd = record(9);
        odd.team = None;
        odd.customer = Some("Ünïcode; DROP TABLE usage_record".to_owned());
        odd.basis = Basis::PartialEstimate;
        odd.end = EndReason::ClientGone;
        odd.first_byte_ms = None;
        odd.charges = Vec::new();
        store.record_usage(BOOT, &[record(8), odd.clone()]).unwrap();
        assert_eq!(store.usage(&odd.request_id).unwrap(), Some(odd.clone()));
        assert_eq!(store.usage(&record(8).request_id).unwrap(), Some(record(8)));
        assert_eq!(store.usage("nobody").unwrap(), None);
        assert_eq!(store.recent_usage(1).unwrap(), [odd]);
        assert_eq!(store.recent_usage(0).unwrap(), []);
    });
}

#[test]
fn cells_are_sums_by_counter_and_epoch() {
    each(|store| {
        let batch = [
            with_charges(1, vec![charge("a", 1, 10), charge("a", 2, 5)]),
            with_charges(2, vec![charge("a", 1, 1), charge("b", -1, 7)]),
        ];
        store.record_usage(BOOT, &batch).unwrap();
        let cell = |counter: &str, epoch, amount| Cell {
            counter: counter.into(),
            epoch,
            amount,
            expires_at: EXPIRY,
        };
        let cells = [cell("a", 1, 11), cell("a", 2, 5), cell("b", -1, 7)];
        assert_eq!(store.load_cells(Timestamp(0)).unwrap().cells, cells);
    });
}

#[test]
fn expired_cells_are_neither_loaded_nor_kept() {
    each(|store| {
        let mut early = charge("a", 1, 10);
        early.expires_at = Timestamp(1_000);
        let mut later = charge("a", 2, 4);
        later.expires_at = Timestamp(1_001);
        store
            .record_usage(BOOT, &[with_charges(1, vec![early, later])])
            .unwrap();

        let at = Timestamp(1_000);
        assert_eq!(amount(&store.load_cells(at).unwrap().cells, "a"), 4);
        assert_eq!(
            amount(&store.load_cells(Timestamp(999)).unwrap().cells, "a"),
            14
        );
        assert_eq!(store.expire_cells(at).unwrap(), 1);
        assert_eq!(store.expire_cells(at).unwrap(), 0);
        assert_eq!(
            amount(&store.load_cells(Timestamp(0)).unwrap().cells, "a"),
            4
        );
        assert_eq!(store.usage_count().unwrap(), 1, "records stay");
    });
}

#[test]
fn a_cell_lives_as_long_as_its_longest_charge() {
    each(|store| {
        let mut short = charge("a", 1, 1);
        short.expires_at = Timestamp(5);
        for (number, charges) in [(1, vec![charge("a", 1, 1)]), (2, vec![short])] {
            store
                .record_usage(BOOT, &[with_charges(number, charges)])
                .unwrap();
        }
        assert_eq!(store.expire_cells(Timestamp(6)).unwrap(), 0);
    });
}

#[test]
fn numbers_too_large_stop_at_the_largest() {
    each(|store| {
        let largest = i64::MAX as u64;
        for (number, amount) in [(1, largest - 1), (2, 5), (3, u64::MAX), (4, 0)] {
            let record = with_charges(number, vec![charge("a", 1, amount)]);
            store.record_usage(BOOT, &[record]).unwrap();
        }
        assert_eq!(
            amount(&store.load_cells(Timestamp(0)).unwrap().cells, "a"),
            largest
        );
    });
}

#[test]
fn boots_count_apart_and_together() {
    each(|store| {
        let one = [with_charges(1, vec![charge("a", 1, 10), charge("b", 1, 2)])];
        let two = [with_charges(2, vec![charge("a", 1, 5)])];
        store.record_usage(1, &one).unwrap();
        store.record_usage(2, &two).unwrap();
        // Whose record it is was settled by who brought it first.
        assert_eq!(store.record_usage(2, &one).unwrap(), 0);
        let loaded = store.load_cells(Timestamp(0)).unwrap();
        assert_eq!((amount(&loaded.cells, "a"), loaded.cells.len()), (15, 2));

        let added = store.added_cells(1, Position::default(), 10).unwrap();
        assert_eq!(
            (amount(&added.cells, "a"), amount(&added.cells, "b")),
            (10, 2)
        );
        assert_eq!((added.position, added.complete), (loaded.position, true));
        let nothing = store.added_cells(1, loaded.position, 10).unwrap();
        assert_eq!((nothing.cells.len(), nothing.complete), (0, true));
    });
}

#[test]
fn what_a_boot_added_is_read_page_by_page() {
    each(|store| {
        store.record_usage(1, &[record(100)]).unwrap();
        let start = store.load_cells(Timestamp(0)).unwrap().position;
        for number in 1..=9 {
            store
                .record_usage(1 + number % 2, &[record(number)])
                .unwrap();
        }
        let (mut position, mut sum, mut pages) = (start, 0, 0);
        loop {
            let added = store.added_cells(2, position, 2).unwrap();
            position = added.position;
            sum += amount(&added.cells, "usd");
            pages += 1;
            if added.complete {
                break;
            }
        }
        assert_eq!((sum, pages), (1 + 3 + 5 + 7 + 9, 5));
        assert_eq!(store.load_cells(Timestamp(0)).unwrap().position, position);
    });
}

#[test]
fn sqlite_brings_the_first_schema_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(include_str!("migrations/0001_usage_and_cells.sql"))
        .unwrap();
    file.pragma_update(None, "user_version", 1).unwrap();
    file.execute_batch(
        "INSERT INTO usage_record (request_id, virtual_key, model_requested, endpoint, stream,
             input_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens,
             output_tokens, reasoning_tokens, cost_nano_usd, basis, status, started_at_ms,
             duration_ms, attempts, end_reason, charges)
         VALUES ('old', 'demo', 'gpt', 'chat_completions', 0, 1, 0, 0, 0, 2, 0, 3, 'reported', 200,
             1, 2, 1, 'success', '[]');
         INSERT INTO counter_cells (counter, epoch, expires_at_ms, amount)
         VALUES ('a', 1, 2000000000000, 10), ('b', 2, 5, 4);",
    )
    .unwrap();
    drop(file);

    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.setting("user_version"), "2");
    assert_eq!(store.usage("old").unwrap().unwrap().usage.output, 2);
    let more = [with_charges(1, vec![charge("a", 1, 5)])];
    assert_eq!(store.record_usage(BOOT, &more).unwrap(), 1);
    let cells = store.load_cells(Timestamp(0)).unwrap().cells;
    assert_eq!((amount(&cells, "a"), amount(&cells, "b")), (15, 4));
    assert_eq!(store.expire_cells(Timestamp(5)).unwrap(), 1);
    drop(store);
    let again = SqliteStore::open(&path).unwrap();
    assert_eq!(
        amount(&again.load_cells(Timestamp(0)).unwrap().cells, "a"),
        15
    );
}

#[test]
fn sqlite_serves_two_processes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let stores = [1, 2].map(|boot| (boot, SqliteStore::open(&path).unwrap()));
    std::thread::scope(|scope| {
        for (boot, store) in &stores {
            scope.spawn(move || {
                for number in 0..100 {
                    let number = boot * 1_000 + number;
                    assert_eq!(store.record_usage(*boot, &[record(number)]).unwrap(), 1);
                }
            });
        }
    });
    assert_exactly(&stores[0].1, (1_000..1_100).chain(2_000..2_100));
}

#[test]
fn sqlite_keeps_everything_over_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let store = SqliteStore::open(&path).unwrap();
    store.record_usage(BOOT, &[record(1), record(2)]).unwrap();
    drop(store);
    assert_exactly(&SqliteStore::open(&path).unwrap(), [1, 2]);
}

#[test]
fn sqlite_refuses_a_schema_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    drop(SqliteStore::open(&path).unwrap());
    let file = rusqlite::Connection::open(&path).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(
        refused,
        StoreError::SchemaTooNew { found: 99, .. }
    ));
}

#[test]
fn sqlite_commits_survive_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("tyr.db")).unwrap();
    let setting = |name| store.setting(name);
    assert_eq!(setting("journal_mode"), "wal");
    assert_eq!(setting("synchronous"), "2", "FULL");
}

#[test]
fn sqlite_leaves_nothing_of_a_batch_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let store = SqliteStore::open(&path).unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(
        "CREATE TRIGGER trip BEFORE INSERT ON counter_cells WHEN new.counter = 'trip'
         BEGIN SELECT raise(ABORT, 'tripped'); END",
    )
    .unwrap();
    let batch = [record(1), with_charges(2, vec![charge("trip", 1, 1)])];
    store.record_usage(BOOT, &batch).unwrap_err();
    assert_exactly(&store, []);
    file.execute_batch("DROP TRIGGER trip").unwrap();
    assert_eq!(store.record_usage(BOOT, &batch[..1]).unwrap(), 1);
    assert_exactly(&store, [1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn stores_agree_on_any_batches(
        batches in prop::collection::vec(prop::collection::vec(0_u64..12, 0..6), 0..6),
        now in 0_u64..6,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = SqliteStore::open(&dir.path().join("tyr.db")).unwrap();
        let memory = MemoryStore::default();
        for (boot, batch) in (0..).map(|turn| turn % 2).zip(batches) {
            let batch: Vec<UsageRecord> = batch
                .into_iter()
                .map(|number| {
                    let mut charge = charge("a", (number % 3) as i64, number);
                    charge.expires_at = Timestamp(number % 5);
                    with_charges(number, vec![charge])
                })
                .collect();
            prop_assert_eq!(
                sqlite.record_usage(boot, &batch).unwrap(),
                memory.record_usage(boot, &batch).unwrap()
            );
        }
        for boot in 0..2 {
            let added = |store: &dyn Store| store.added_cells(boot, Position(2), 3).unwrap();
            prop_assert_eq!(added(&sqlite), added(&memory));
        }
        let now = Timestamp(now);
        prop_assert_eq!(sqlite.load_cells(now).unwrap().cells, memory.load_cells(now).unwrap().cells);
        prop_assert_eq!(sqlite.expire_cells(now).unwrap(), memory.expire_cells(now).unwrap());
        prop_assert_eq!(sqlite.recent_usage(9).unwrap(), memory.recent_usage(9).unwrap());
    }
}
