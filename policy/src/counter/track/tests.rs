use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::counter::tests::{id, kinds};
use crate::counter::{CounterId, CounterTable};
use crate::scope::Unit;
use crate::time::Timestamp;
use crate::window::WindowKind;

const NOW: Timestamp = Timestamp(100_000);

fn taken(table: &CounterTable) -> Vec<CounterId> {
    let taken = table.take_changed(usize::MAX);
    taken.iter().map(|counter| counter.id().clone()).collect()
}

#[test]
fn every_change_is_told_once() {
    for id in kinds() {
        let table = CounterTable::tracking();
        let counter = table.counter(&id);
        let check = |what: &str, changed: bool| {
            assert_eq!(taken(&table).len(), usize::from(changed), "{id}: {what}");
            assert!(taken(&table).is_empty(), "{id}: {what} twice");
        };
        check("made", false);
        let mut hold = counter.reserve(3, 10, NOW).unwrap();
        check("reserved", true);
        assert!(counter.reserve(8, 10, NOW).is_none());
        check("refused", false);
        let other = counter.reserve(0, 10, NOW).unwrap();
        check("nothing reserved", false);
        counter.top_up(&mut hold, 4, NOW);
        check("topped up", true);
        let grown = counter.top_up_within(&mut hold, 5, 10, NOW);
        check("topped up within", true);
        assert!(grown);
        counter.lower(&mut hold, 2, NOW);
        check("lowered", true);
        counter.release(hold, NOW);
        check("released", true);
        let _ = counter.settle(other, 2, NOW);
        check("settled", true);
        let hold = counter.hold_always(20, NOW);
        let _ = counter.settle(hold, 0, NOW);
        check("held beyond the limit and given back", true);
        counter.change_remote(0, 0, 5, NOW);
        check("of others", false);
    }
}

#[test]
fn some_at_a_time_the_longest_waiting_first() {
    let table = CounterTable::tracking();
    let ids = kinds();
    let holds: Vec<_> = ids
        .iter()
        .map(|id| table.counter(id).hold_always(1, NOW))
        .collect();
    for (id, hold) in ids.iter().zip(holds) {
        table.counter(id).release(hold, NOW);
    }
    assert!(table.take_changed(0).is_empty());
    let first: Vec<_> = table
        .take_changed(2)
        .iter()
        .map(|one| one.id().clone())
        .collect();
    assert_eq!(first, ids[..2]);
    assert_eq!(taken(&table), ids[2..]);
    let silent = CounterTable::new();
    let _hold = silent.counter(&ids[0]).hold_always(1, NOW);
    assert!(silent.take_changed(9).is_empty());
    assert!(!silent.take_urgent());
}

/// A counter whose end the others have not heard of stays until they have;
/// one on which they have something stays too.
#[test]
fn a_counter_that_others_must_hear_of_is_not_dropped() {
    let table = CounterTable::tracking();
    let id = id(Unit::Tokens, "30s", WindowKind::Sliding);
    let hold = table.counter(&id).hold_always(1, NOW);
    table.counter(&id).release(hold, NOW);
    table.drop_idle(NOW);
    assert_eq!(table.counters().len(), 1);
    drop(table.take_changed(1));
    table.counter(&id).change_remote(100, 0, 3, NOW);
    table.drop_idle(NOW);
    assert_eq!(table.counters().len(), 1);
    table.drop_idle(Timestamp(131_000));
    assert!(table.counters().is_empty());
}

#[test]
fn a_table_that_is_gone_leaves_nothing_behind() {
    let table = CounterTable::tracking();
    let id = id(Unit::Concurrent, "", WindowKind::Fixed);
    let counter = table.counter(&id);
    let hold = counter.hold_always(1, NOW);
    drop(table);
    assert_eq!(Arc::strong_count(&counter), 1);
    counter.release(hold, NOW);
    assert_eq!(Arc::strong_count(&counter), 1);
}

/// What somebody has who takes changes while they happen is in the end what
/// there is.
#[test]
fn nothing_is_lost_while_threads_change_counters() {
    const THREADS: usize = 4;
    let table = CounterTable::tracking();
    let ids = kinds();
    let mut mirror: BTreeMap<CounterId, u64> = BTreeMap::new();
    let mut take = || {
        for counter in table.take_changed(2) {
            let mut sum = 0;
            counter.own(NOW, |cell| sum += cell.used + cell.held);
            mirror.insert(counter.id().clone(), sum);
        }
    };
    let running = AtomicUsize::new(THREADS);
    let barrier = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                for round in 0..5_000 {
                    let counter = table.counter(&ids[round % ids.len()]);
                    let hold = counter.hold_always(3, NOW);
                    match round % 3 {
                        0 => counter.release(hold, NOW),
                        kind => drop(counter.settle(hold, kind as u64, NOW)),
                    }
                }
                running.fetch_sub(1, Ordering::AcqRel);
            });
        }
        barrier.wait();
        while running.load(Ordering::Acquire) > 0 {
            take();
        }
    });
    for _ in &ids {
        take();
    }
    assert!(table.take_changed(1).is_empty());
    for id in &ids {
        let own = table.counter(id).own_total(NOW);
        assert_eq!(mirror[id], own, "{id}");
        assert_eq!(own > 0, id.unit != Unit::Concurrent);
    }
}
