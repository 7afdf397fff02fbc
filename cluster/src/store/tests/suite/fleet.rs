//! What nodes leave each other, over any store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use policy::{Charge, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::Factory;
use crate::message::{Outcome, WireCell};
use crate::origin::Origin;
use crate::record::UsageRecord;
use crate::store::{CLUSTER_SCOPE, Position, SEAL_TASK, Sealed, Sealing, Store};
use crate::testing::{EXPIRY, amount, charge, origin, record};

/// Two nodes that were started in the same millisecond.
const ONE: Origin = origin(1 << 90, 7);
const TWO: Origin = origin(2, 7);

const LONG: Duration = Duration::from_secs(60);

fn told(of: Origin, counter: &str, used: u64) -> (Origin, WireCell) {
    let cell = WireCell {
        counter: counter.into(),
        epoch: 1,
        ver: 0,
        used,
        held: 0,
        expires_at: EXPIRY,
    };
    (of, cell)
}

fn charged(number: u64, charges: Vec<Charge>) -> UsageRecord {
    UsageRecord {
        charges,
        ..record(number)
    }
}

/// What is known of a counter, by origin.
fn known(store: &dyn Store, counter: &str) -> Vec<(Origin, u64)> {
    let cells = store.cells_by_origin(Timestamp(0)).unwrap();
    let of = cells
        .into_iter()
        .filter(|(_, cell)| cell.counter == counter);
    let mut known: Vec<_> = of.map(|(origin, cell)| (origin, cell.amount)).collect();
    known.sort_unstable();
    known
}

pub(crate) fn nodes_with_equal_boots_do_not_mix(stores: Factory<'_>) {
    let [store, other] = stores();
    let nobody = origin(0, 7);
    for (number, of) in [(1, ONE), (2, TWO), (4, nobody)] {
        let batch = [charged(number, vec![charge("a", 1, number)])];
        assert_eq!(store.record_usage(of, &batch).unwrap(), 1);
        // Whose it is was settled by who brought it first.
        assert_eq!(other.record_usage(ONE, &batch).unwrap(), 0);
    }
    assert_eq!(known(&*other, "a"), [(nobody, 4), (TWO, 2), (ONE, 1)]);
    let loaded = store.load_cells(Timestamp(0)).unwrap();
    assert_eq!(amount(&loaded.cells(), "a"), 7);
    let added = |of| {
        let added = store.added_cells(of, Position::default(), 10).unwrap();
        amount(&added.cells, "a")
    };
    // Of a record that does not say its node, the boot alone is known.
    assert_eq!((added(ONE), added(TWO)), (1 + 4, 2 + 4));
    assert_eq!(added(origin(3, 7)), 4);
    assert_eq!(added(origin(1 << 90, 8)), 0);
}

pub(crate) fn what_is_told_and_what_is_recorded_count_once(stores: Factory<'_>) {
    let [store, other] = stores();
    store
        .flush_cells(&[told(ONE, "a", 5), told(TWO, "a", 1)])
        .unwrap();
    assert_eq!(known(&*other, "a"), [(TWO, 1), (ONE, 5)]);
    // Records make up for what was told, however they are cut.
    for (number, expected) in [(1, 5), (2, 5), (3, 6), (4, 10)] {
        let batch = [charged(number, vec![charge("a", 1, number)])];
        store.record_usage(ONE, &batch).unwrap();
        other.record_usage(ONE, &batch).unwrap();
        assert_eq!(known(&*other, "a"), [(TWO, 1), (ONE, expected)]);
    }
    other.flush_cells(&[told(ONE, "a", 12)]).unwrap();
    assert_eq!(known(&*store, "a"), [(TWO, 1), (ONE, 12)]);
    let sum = amount(&store.load_cells(Timestamp(0)).unwrap().cells(), "a");
    assert_eq!(sum, 13);
    let large = told(ONE, "b", u64::MAX);
    store.flush_cells(&[large.clone(), large]).unwrap();
    assert_eq!(known(&*store, "b"), [(ONE, i64::MAX as u64)]);
    store.flush_cells(&[]).unwrap();
    // It lives as long as was told last.
    assert_eq!(store.expire_cells(Timestamp(EXPIRY.0 - 1)).unwrap(), 0);
    assert_eq!(store.expire_cells(EXPIRY).unwrap(), 3);
}

/// Whatever order totals come in, however often, from however many nodes: the largest stands.
pub(crate) fn totals_repeated_and_reordered_change_nothing(stores: Factory<'_>) {
    let [store, other] = stores();
    let step = (0_u64..3, 0_u64..3, 0_u64..50, any::<bool>());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(12));
    let cases = AtomicU64::new(0);
    let run = runner.run(&prop::collection::vec(step, 1..24), |steps| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        let counter = |number: u64| format!("{case}-{number}");
        let mut largest = BTreeMap::new();
        for chunk in steps.chunks(4) {
            let cells: Vec<_> = chunk
                .iter()
                .map(|(of, number, used, _)| {
                    told(origin(u128::from(*of) + 1, 7), &counter(*number), *used)
                })
                .collect();
            for (of, cell) in &cells {
                let known = largest.entry((cell.counter.to_string(), *of)).or_insert(0);
                *known = cell.used.max(*known);
            }
            let through = if chunk[0].3 { &store } else { &other };
            through.flush_cells(&cells).unwrap();
        }
        for number in 0..3 {
            let name = counter(number);
            let expected: Vec<_> = largest
                .iter()
                .filter(|((of, _), _)| *of == name)
                .map(|((_, origin), used)| (*origin, *used))
                .collect();
            prop_assert_eq!(known(&*store, &name), expected);
        }
        Ok(())
    });
    run.unwrap();
}

pub(crate) fn a_heartbeat_is_of_the_newest_boot(stores: Factory<'_>) {
    let [store, other] = stores();
    assert_eq!(store.heartbeats().unwrap(), []);
    let newer = origin(ONE.node.0, 8);
    for (of, name) in [(ONE, "a"), (TWO, "b"), (newer, "a2"), (ONE, "a")] {
        store.heartbeat(of, name, "eu").unwrap();
    }
    let rows = other.heartbeats().unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.origin, &*row.name)).collect();
    assert_eq!(found, [(TWO, "b"), (newer, "a2")]);
    assert!(rows.iter().all(|row| row.region == "eu"));
    assert!(
        rows.iter()
            .all(|row| row.stale_for < Duration::from_secs(30))
    );
}

pub(crate) fn a_term_is_one_nodes_and_only_grows(stores: Factory<'_>) {
    let [store, other] = stores();
    let take = |store: &Arc<dyn Store>, me, lease| store.take_term("eu", "t", me, lease).unwrap();
    let present = |store: &Arc<dyn Store>| store.present_term("eu", "t").unwrap();
    assert_eq!(present(&store), None);
    assert_eq!(take(&store, ONE, LONG), Some(1));
    assert_eq!(take(&other, TWO, LONG), None);
    assert_eq!(present(&other), Some(1));
    assert_eq!(take(&store, ONE, LONG), Some(1), "renewed");
    // Each scope and task has terms of its own.
    assert_eq!(other.take_term("us", "t", TWO, LONG).unwrap(), Some(1));
    assert_eq!(other.take_term("eu", "u", TWO, LONG).unwrap(), Some(1));
    // Started again, the node need not wait for its own lease.
    let again = origin(ONE.node.0, 8);
    assert_eq!(take(&store, again, Duration::ZERO), Some(2));
    // A lease that has passed is anybody's, also for who held it.
    assert_eq!(take(&store, again, Duration::ZERO), Some(3));
    assert_eq!(take(&other, TWO, LONG), Some(4));
    assert_eq!(take(&store, again, LONG), None);
    other.release_term("eu", "t", again, 4).unwrap();
    other.release_term("eu", "t", TWO, 3).unwrap();
    assert_eq!(take(&store, again, LONG), None, "not released by others");
    other.release_term("eu", "t", TWO, 4).unwrap();
    assert_eq!(present(&store), Some(4), "also when nobody holds it");
    assert_eq!(take(&store, again, LONG), Some(5));
}

pub(crate) fn of_two_that_take_a_term_at_once_one_gets_it(stores: Factory<'_>) {
    let stores = stores();
    let mut last = 0;
    for round in 0..20_u64 {
        // The first round finds no row, the others one whose lease has passed.
        let takers = [origin(10, round), origin(11, round)];
        let taken: Vec<_> = thread::scope(|scope| {
            let pairs = stores.iter().zip(takers);
            let threads: Vec<_> = pairs
                .map(|(store, me)| {
                    scope.spawn(move || (me, store.take_term("eu", "t", me, LONG).unwrap()))
                })
                .collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let won: Vec<_> = taken
            .iter()
            .filter_map(|(me, term)| term.map(|term| (*me, term)))
            .collect();
        let [(winner, term)] = won[..] else {
            panic!("round {round}: {taken:?}");
        };
        assert!(term > last, "round {round}");
        last = term;
        stores[0].release_term("eu", "t", winner, term).unwrap();
    }
}

fn outcome(term: u64, body: &[u8]) -> Outcome {
    Outcome {
        task: "prices".to_owned(),
        scope: "eu".to_owned(),
        term,
        hash: [term as u8; 32],
        at: Timestamp(1_000 + term),
        body: body.into(),
    }
}

pub(crate) fn an_outcome_of_a_term_that_has_passed_is_refused(stores: Factory<'_>) {
    let [store, other] = stores();
    assert_eq!(store.outcomes().unwrap(), []);
    assert!(store.save_outcome(&outcome(1, b"first")).unwrap());
    assert!(store.save_outcome(&outcome(1, b"")).unwrap(), "repeated");
    let large = vec![7; 1 << 20];
    assert!(other.save_outcome(&outcome(4, &large)).unwrap());
    assert!(!store.save_outcome(&outcome(3, b"late")).unwrap());
    assert_eq!(store.outcomes().unwrap(), [outcome(4, &large)]);
    // Somebody holds a larger term already, though nothing has come of it.
    for _ in 0..6 {
        store
            .take_term("eu", "prices", ONE, Duration::ZERO)
            .unwrap();
    }
    assert!(!store.save_outcome(&outcome(5, b"late")).unwrap());
    assert!(store.save_outcome(&outcome(6, b"now")).unwrap());
    let mut elsewhere = outcome(1, b"us");
    elsewhere.scope = "us".to_owned();
    assert!(store.save_outcome(&elsewhere).unwrap());
    assert_eq!(other.outcomes().unwrap(), [outcome(6, b"now"), elsewhere]);
}

const DAY: &str = "virtual_key/demo/usd/1d/calendar";
const MONTH: &str = "virtual_key/demo/usd/1M/calendar#2/name";
const MINUTE: &str = "virtual_key/calendar/requests/1m/fixed/calendar";

fn ending(counter: &str, amount: u64, expires_at: u64) -> Charge {
    let mut charge = charge(counter, 1, amount);
    charge.expires_at = Timestamp(expires_at);
    charge
}

fn seal(store: &dyn Store, term: u64, before: u64, most: u32) -> Sealed {
    let sealing = Sealing {
        me: ONE,
        term,
        before: Timestamp(before),
        most,
    };
    store.seal_windows(sealing).unwrap()
}

fn sealed(windows: u64, late: u64) -> Sealed {
    Sealed {
        windows,
        late,
        ..Sealed::default()
    }
}

pub(crate) fn only_who_holds_the_term_seals(stores: Factory<'_>) {
    let [store, other] = stores();
    let batch = [charged(1, vec![ending(DAY, 3, 1_000)])];
    store.record_usage(ONE, &batch).unwrap();
    let stale = Sealed {
        stale: true,
        ..Sealed::default()
    };
    assert_eq!(seal(&*store, 1, 1_000, 9), stale, "nobody has it");
    let take = |lease| store.take_term(CLUSTER_SCOPE, SEAL_TASK, ONE, lease);
    assert_eq!(take(Duration::ZERO).unwrap(), Some(1));
    assert_eq!(seal(&*store, 1, 1_000, 9), stale, "it has passed");
    assert_eq!(take(LONG).unwrap(), Some(2));
    assert_eq!(seal(&*store, 1, 1_000, 9), stale, "an older one");
    assert_eq!(seal(&*other, 2, 999, 9), sealed(0, 0), "not yet over");
    assert_eq!(seal(&*other, 2, 1_000, 9), sealed(1, 0));
    assert_eq!(seal(&*other, 2, 1_000, 9), sealed(0, 0), "once");
}

/// Years ahead, as a node whose clock is.
pub(crate) fn a_wrong_clock_ends_no_window(stores: Factory<'_>) {
    let [store, other] = stores();
    let term = store
        .take_term(CLUSTER_SCOPE, SEAL_TASK, ONE, LONG)
        .unwrap();
    let charges = [DAY, MINUTE].map(|counter| ending(counter, 3, EXPIRY.0));
    let batch = [charged(1, charges.to_vec())];
    store.record_usage(ONE, &batch).unwrap();
    let mut only_told = told(TWO, MONTH, 4);
    only_told.1.expires_at = EXPIRY;
    store.flush_cells(&[only_told]).unwrap();
    for ahead in [Timestamp(EXPIRY.0 + 3_600_000), Timestamp(i64::MAX as u64)] {
        assert_eq!(store.expire_windows(ahead).unwrap(), 0);
        assert_eq!(seal(&*store, term.unwrap(), ahead.0, 9), sealed(0, 0));
    }
    let left = other.cells_by_origin(Timestamp(0)).unwrap();
    let mut left: Vec<u64> = left.iter().map(|(_, cell)| cell.amount).collect();
    left.sort_unstable();
    assert_eq!(left, [3, 3, 4]);
}

pub(crate) fn calendar_periods_are_sealed_and_the_rest_expires(stores: Factory<'_>) {
    let [store, _] = stores();
    let term = store
        .take_term(CLUSTER_SCOPE, SEAL_TASK, ONE, LONG)
        .unwrap();
    let term = term.unwrap();
    let charges = |amount| {
        [DAY, MONTH, MINUTE]
            .map(|counter| ending(counter, amount, 1_000))
            .to_vec()
    };
    store.record_usage(ONE, &[charged(1, charges(1))]).unwrap();
    store.record_usage(TWO, &[charged(2, charges(2))]).unwrap();
    // What was only told is no record, and keeps nothing.
    let mut only_told = told(TWO, "virtual_key/x/usd/1d/calendar", 9);
    only_told.1.expires_at = Timestamp(1_000);
    store.flush_cells(&[only_told]).unwrap();
    let ten_minutes_after = Timestamp(601_000);
    assert_eq!(store.expire_windows(Timestamp(600_999)).unwrap(), 0);
    assert_eq!(store.expire_windows(ten_minutes_after).unwrap(), 3);
    assert_eq!(store.expire_windows(ten_minutes_after).unwrap(), 0);

    let some = seal(&*store, term, 1_000, 1);
    assert_eq!((some.windows, some.late, some.more), (1, 0, true));
    while seal(&*store, term, 1_000, 1).more {}
    assert_eq!(seal(&*store, term, 1_000, 9), sealed(0, 0));
    assert_eq!(store.expire_cells(Timestamp(1_000)).unwrap(), 0, "gone");

    // Late ones, of both nodes, and a total told that says what is sealed already.
    store.record_usage(ONE, &[charged(3, charges(4))]).unwrap();
    store.record_usage(TWO, &[charged(4, charges(8))]).unwrap();
    let mut again = told(TWO, DAY, 10);
    again.1.expires_at = Timestamp(1_000);
    store.flush_cells(&[again.clone()]).unwrap();
    assert_eq!(seal(&*store, term, 1_000, 9), sealed(0, 2));
    store.flush_cells(&[again]).unwrap();
    assert_eq!(seal(&*store, term, 1_000, 9), sealed(0, 0));
}

fn forget(store: &dyn Store, term: u64, before: u64, most: u32) -> Sealed {
    let sealing = Sealing {
        me: ONE,
        term,
        before: Timestamp(before),
        most,
    };
    store.forget_sealed(sealing).unwrap()
}

pub(crate) fn old_books_are_removed_under_the_term(stores: Factory<'_>) {
    let [store, other] = stores();
    let term = store
        .take_term(CLUSTER_SCOPE, SEAL_TASK, ONE, LONG)
        .unwrap()
        .unwrap();
    // Three windows that end one after the other, and something late for the first.
    for (number, end) in [(1, 1_000), (2, 2_000), (3, 3_000)] {
        let counter = format!("virtual_key/{number}/usd/1d/calendar");
        let batch = [charged(number, vec![ending(&counter, 5, end)])];
        store.record_usage(ONE, &batch).unwrap();
    }
    while seal(&*store, term, 3_000, 9).more {}
    let late = charged(4, vec![ending("virtual_key/1/usd/1d/calendar", 5, 1_000)]);
    store.record_usage(TWO, &[late]).unwrap();
    assert_eq!(seal(&*store, term, 3_000, 9), sealed(0, 1));

    assert!(forget(&*other, term + 1, 3_000, 9).stale);
    assert_eq!(forget(&*other, term, 999, 9), sealed(0, 0), "not yet");
    let oldest = forget(&*other, term, 2_000, 1);
    assert_eq!((oldest.windows, oldest.late, oldest.more), (1, 1, true));
    assert_eq!(forget(&*store, term, 2_000, 9), sealed(1, 0));
    assert_eq!(forget(&*store, term, 2_000, 9), sealed(0, 0), "once");
    assert_eq!(forget(&*store, term, 3_000, 9), sealed(1, 0));
}
