//! Usage records and cells, over any store.

use policy::{Cell, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::Factory;
use crate::origin::Origin;
use crate::record::{Basis, EndReason, UsageRecord};
use crate::store::{MemoryStore, OfKey, Position, Store, UsageQuery};
use crate::testing::{EXPIRY, amount, assert_exactly, charge, newest, origin, record};

const ME: Origin = origin(9 << 70, 7);

fn with_charges(number: u64, charges: Vec<policy::Charge>) -> UsageRecord {
    UsageRecord {
        charges,
        ..record(number)
    }
}

pub(crate) fn a_record_counts_once_however_often_it_comes(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    let batch = [record(1), record(2), record(1)];
    assert_eq!(store.record_usage(ME, &batch).unwrap(), 2);
    assert_eq!(store.record_usage(ME, &batch).unwrap(), 0);
    assert_eq!(store.record_usage(ME, &[record(3), record(2)]).unwrap(), 1);
    assert_eq!(store.record_usage(ME, &[]).unwrap(), 0);
    assert_exactly(store, [1, 2, 3]);
    assert_eq!(store.usage_count().unwrap(), 3);
}

pub(crate) fn every_field_comes_back(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    let mut odd = record(9);
    odd.team = None;
    odd.customer = Some("Ünïcode; DROP TABLE usage_record".to_owned());
    odd.basis = Basis::PartialEstimate;
    odd.end = EndReason::ClientGone;
    odd.first_byte_ms = None;
    odd.charges = Vec::new();
    store.record_usage(ME, &[record(8), odd.clone()]).unwrap();
    assert_eq!(store.usage(&odd.request_id).unwrap(), Some(odd.clone()));
    assert_eq!(store.usage(&record(8).request_id).unwrap(), Some(record(8)));
    assert_eq!(store.usage("nobody").unwrap(), None);
    assert_eq!(store.recent_usage(newest(1)).unwrap().records, [odd]);
    assert_eq!(store.recent_usage(newest(0)).unwrap().records, []);
}

pub(crate) fn cells_are_sums_by_counter_and_epoch(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    let batch = [
        with_charges(1, vec![charge("a", 1, 10), charge("a", 2, 5)]),
        with_charges(2, vec![charge("a", 1, 1), charge("b", -1, 7)]),
    ];
    store.record_usage(ME, &batch).unwrap();
    let cell = |counter: &str, epoch, amount| Cell {
        counter: counter.into(),
        epoch,
        amount,
        expires_at: EXPIRY,
    };
    let cells = [cell("a", 1, 11), cell("a", 2, 5), cell("b", -1, 7)];
    assert_eq!(store.load_cells(Timestamp(0)).unwrap().cells(), cells);
}

pub(crate) fn expired_cells_are_neither_loaded_nor_kept(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    let mut early = charge("a", 1, 10);
    early.expires_at = Timestamp(1_000);
    let mut later = charge("a", 2, 4);
    later.expires_at = Timestamp(1_001);
    store
        .record_usage(ME, &[with_charges(1, vec![early, later])])
        .unwrap();

    let at = Timestamp(1_000);
    assert_eq!(amount(&store.load_cells(at).unwrap().cells(), "a"), 4);
    assert_eq!(
        amount(&store.load_cells(Timestamp(999)).unwrap().cells(), "a"),
        14
    );
    assert_eq!(store.expire_cells(at).unwrap(), 1);
    assert_eq!(store.expire_cells(at).unwrap(), 0);
    assert_eq!(
        amount(&store.load_cells(Timestamp(0)).unwrap().cells(), "a"),
        4
    );
    assert_eq!(store.usage_count().unwrap(), 1, "records stay");
}

pub(crate) fn a_cell_lives_as_long_as_its_longest_charge(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    let mut short = charge("a", 1, 1);
    short.expires_at = Timestamp(5);
    for (number, charges) in [(1, vec![charge("a", 1, 1)]), (2, vec![short])] {
        store
            .record_usage(ME, &[with_charges(number, charges)])
            .unwrap();
    }
    assert_eq!(store.expire_cells(Timestamp(6)).unwrap(), 0);
}

pub(crate) fn numbers_too_large_stop_at_the_largest(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    let largest = i64::MAX as u64;
    for (number, amount) in [(1, largest - 1), (2, 5), (3, u64::MAX), (4, 0)] {
        let record = with_charges(number, vec![charge("a", 1, amount)]);
        store.record_usage(ME, &[record]).unwrap();
    }
    assert_eq!(
        amount(&store.load_cells(Timestamp(0)).unwrap().cells(), "a"),
        largest
    );
}

pub(crate) fn boots_count_apart_and_together(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    let one = [with_charges(1, vec![charge("a", 1, 10), charge("b", 1, 2)])];
    let two = [with_charges(2, vec![charge("a", 1, 5)])];
    store.record_usage(origin(5, 1), &one).unwrap();
    store.record_usage(origin(5, 2), &two).unwrap();
    // Whose record it is was settled by who brought it first.
    assert_eq!(store.record_usage(origin(5, 2), &one).unwrap(), 0);
    let loaded = store.load_cells(Timestamp(0)).unwrap();
    let cells = loaded.cells();
    assert_eq!((amount(&cells, "a"), cells.len()), (15, 2));

    let added = store
        .added_cells(origin(5, 1), Position::default(), 10)
        .unwrap();
    assert_eq!(
        (amount(&added.cells, "a"), amount(&added.cells, "b")),
        (10, 2)
    );
    assert!(added.complete && added.position <= loaded.position);
    for position in [added.position, loaded.position] {
        let nothing = store.added_cells(origin(5, 1), position, 10).unwrap();
        assert_eq!((nothing.cells.len(), nothing.complete), (0, true));
    }
}

pub(crate) fn what_a_boot_added_is_read_page_by_page(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    store.record_usage(origin(5, 1), &[record(100)]).unwrap();
    let start = store.load_cells(Timestamp(0)).unwrap().position;
    for number in 1..=9 {
        store
            .record_usage(origin(5, 1 + number % 2), &[record(number)])
            .unwrap();
    }
    let (mut position, mut sum, mut pages) = (start, 0, 0);
    loop {
        let added = store.added_cells(origin(5, 2), position, 2).unwrap();
        position = added.position;
        sum += amount(&added.cells, "usd");
        pages += 1;
        if added.complete {
            break;
        }
    }
    assert_eq!(sum, 1 + 3 + 5 + 7 + 9);
    // A store may count the records of other boots towards a page.
    assert!((3..=5).contains(&pages), "{pages} pages");
    assert_eq!(store.load_cells(Timestamp(0)).unwrap().position, position);
}

/// The numbers of all records that pages show, page by page.
fn paged(store: &dyn Store, limit: u32, key: Option<OfKey<'_>>) -> Vec<Vec<u64>> {
    let (mut pages, mut next) = (Vec::new(), None::<String>);
    loop {
        let query = UsageQuery {
            limit,
            older_than: next.as_deref(),
            key,
        };
        let page = store.recent_usage(query).unwrap();
        let numbers = page.records.iter().map(|record| record.cost.0);
        pages.push(numbers.collect());
        next = page.next;
        if next.is_none() {
            return pages;
        }
    }
}

pub(crate) fn pages_follow_one_another_without_gap_or_repeat(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    // In another order than that of their ids, as requests end.
    for number in [3, 1, 7, 2, 6, 4, 5] {
        let key = if number % 3 == 0 { "rare" } else { "demo" };
        let record = UsageRecord {
            key: key.to_owned(),
            ..record(number)
        };
        store.record_usage(ME, &[record]).unwrap();
    }
    let key = |name, scan| Some(OfKey { name, scan });
    assert_eq!(
        paged(store, 3, None),
        [vec![7, 6, 5], vec![4, 3, 2], vec![1]]
    );
    assert_eq!(paged(store, 7, None), [[7, 6, 5, 4, 3, 2, 1]]);
    assert_eq!(paged(store, 1, key("rare", 99)), [[6], [3]]);
    assert_eq!(paged(store, 2, key("rare", 99)), [[6, 3]]);
    assert_eq!(
        paged(store, 2, key("demo", 99)),
        [vec![7, 5], vec![4, 2], vec![1]]
    );
    // A search that is given up goes on with the next page.
    assert_eq!(
        paged(store, 2, key("rare", 2)),
        [vec![6], vec![], vec![3], vec![]]
    );
    assert_eq!(paged(store, 9, key("rare", 7)), [[6, 3]]);
    assert_eq!(paged(store, 2, key("none", 4)), [[0; 0], []]);
    assert_eq!(paged(store, 2, key("d\0mo", 4)), [[0; 0], []]);
    assert_eq!(paged(store, 2, key("' OR 1=1 --", 99)), [[0; 0]]);
    // What no id can be is no failure.
    let odd = UsageQuery {
        older_than: Some("\0"),
        ..newest(5)
    };
    store.recent_usage(odd).unwrap();
}

pub(crate) fn it_agrees_with_the_reference(stores: Factory<'_>) {
    let batches = prop::collection::vec(prop::collection::vec(0_u64..12, 0..6), 0..6);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    let compared = runner.run(&(batches, 0_u64..6), |(batches, now)| {
        let [store, _] = stores();
        let memory = MemoryStore::default();
        // Two nodes with the same boots, and one of before nodes were told apart.
        let origins = [origin(1, 1), origin(2, 1), origin(2, 2), origin(0, 3)];
        for (boot, batch) in origins.into_iter().cycle().zip(batches) {
            let batch: Vec<UsageRecord> = batch
                .into_iter()
                .map(|number| {
                    let mut charge = charge("a", (number % 3) as i64, number);
                    charge.expires_at = Timestamp(number % 5);
                    with_charges(number, vec![charge])
                })
                .collect();
            prop_assert_eq!(
                store.record_usage(boot, &batch).unwrap(),
                memory.record_usage(boot, &batch).unwrap()
            );
        }
        for boot in origins {
            let start = Position::default();
            let added = |store: &dyn Store| store.added_cells(boot, start, 99).unwrap().cells;
            prop_assert_eq!(added(&*store), added(&memory));
        }
        let now = Timestamp(now);
        let cells = |store: &dyn Store| store.load_cells(now).unwrap().cells();
        prop_assert_eq!(cells(&*store), cells(&memory));
        let apart = |store: &dyn Store| {
            let mut cells = store.cells_by_origin(now).unwrap();
            cells.sort_by(|(one, a), (other, b)| {
                (one, &a.counter, a.epoch).cmp(&(other, &b.counter, b.epoch))
            });
            cells
        };
        prop_assert_eq!(apart(&*store), apart(&memory));
        prop_assert_eq!(
            store.expire_cells(now).unwrap(),
            memory.expire_cells(now).unwrap()
        );
        prop_assert_eq!(
            store.recent_usage(newest(9)).unwrap(),
            memory.recent_usage(newest(9)).unwrap()
        );
        Ok(())
    });
    compared.unwrap();
}

pub(crate) fn two_processes_record_at_once(stores: Factory<'_>) {
    let stores = stores();
    std::thread::scope(|scope| {
        for (node, store) in (1..).zip(&stores) {
            scope.spawn(move || {
                for number in 0..100 {
                    let number = node * 1_000 + number;
                    let me = origin(node.into(), 1);
                    assert_eq!(store.record_usage(me, &[record(number)]).unwrap(), 1);
                }
            });
        }
    });
    assert_exactly(&*stores[0], (1_000..1_100).chain(2_000..2_100));
}
