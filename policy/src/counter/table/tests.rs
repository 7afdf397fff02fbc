use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::counter::tests::{id, kinds};
use crate::scope::Unit;
use crate::window::WindowKind;

#[test]
fn the_table_keeps_counters_and_restores_them() {
    let table = CounterTable::new();
    let tokens = id(Unit::Tokens, "30s", WindowKind::Sliding);
    let budget = id(Unit::Usd, "1d", WindowKind::Calendar);
    assert!(Arc::ptr_eq(
        &table.counter(&tokens),
        &table.counter(&tokens)
    ));
    let cell = |id: &CounterId, epoch, amount| Cell {
        counter: id.to_string(),
        epoch,
        amount,
        expires_at: Timestamp(0),
    };
    let unknown = table.restore(&[
        cell(&tokens, 100, 5),
        cell(&tokens, 101, 6),
        cell(&tokens, 70, 7),
        cell(&tokens, -5, 7),
        cell(&budget, 1, 8),
        cell(&budget, 2, 9),
        cell(&budget, 1, 10),
        Cell {
            counter: "of another version".into(),
            ..cell(&budget, 2, 1)
        },
    ]);
    assert_eq!(unknown, 1);
    let used = |id: &CounterId, millis| table.counter(id).level(Timestamp(millis)).used;
    assert_eq!(used(&tokens, 101_000), 11);
    assert_eq!(used(&tokens, 131_000), 6);
    assert_eq!(used(&budget, 2 * 86_400_000), 9);
    assert_eq!(used(&budget, 3 * 86_400_000), 0);
    let kept = table.counter(&budget);
    table.drop_idle(Timestamp(131_999));
    assert_eq!(table.counters().len(), 2);
    table.drop_idle(Timestamp(132_000));
    assert_eq!(
        table
            .counters()
            .into_iter()
            .map(|(id, _)| id)
            .collect::<Vec<_>>(),
        [budget]
    );
    drop(kept);
    table.drop_idle(Timestamp(132_000));
    assert!(table.counters().is_empty());
}

/// Nobody ever gets a counter of which the table has another one: what one
/// thread counts, all see.
#[test]
fn dropping_idle_counters_races_with_fetching_them() {
    let table = CounterTable::new();
    let ids = [
        id(Unit::Tokens, "30s", WindowKind::Sliding),
        id(Unit::Concurrent, "", WindowKind::Fixed),
    ];
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    table.drop_idle(Timestamp(0));
                }
            });
        }
        let fetching: Vec<_> = (0..4)
            .map(|_| {
                threads.spawn(|| {
                    for round in 0..20_000 {
                        let id = &ids[round % 2];
                        let first = table.counter(id);
                        let hold = first.reserve(1, 100, Timestamp(0)).expect("there is room");
                        let second = table.counter(id);
                        assert!(Arc::ptr_eq(&first, &second));
                        second.release(hold, Timestamp(0));
                    }
                })
            })
            .collect();
        let ended: Vec<_> = fetching
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    table.drop_idle(Timestamp(0));
    assert!(table.counters().is_empty());
}

#[test]
fn a_counter_in_use_is_not_dropped() {
    let table = CounterTable::new();
    let id = id(Unit::Usd, "1d", WindowKind::Calendar);
    let held = table.counter(&id).reserve(1, 10, Timestamp(0));
    table.drop_idle(Timestamp(0));
    assert!(table.is_counting(&id, Timestamp(0)));
    table.counter(&id).release(held.unwrap(), Timestamp(0));
    table.drop_idle(Timestamp(0));
    assert!(table.counters().is_empty());
}

/// Sums of amounts by counter and epoch.
fn sums<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> BTreeMap<(String, i64), u64> {
    let mut sums = BTreeMap::new();
    for cell in cells {
        *sums.entry((cell.counter.clone(), cell.epoch)).or_default() += cell.amount;
    }
    sums
}

proptest! {
    /// Cells are what was charged and still counts, holds left out; raising
    /// to them brings a node to the same counts, once and for all.
    #[test]
    fn cells_carry_what_is_settled(
        steps in prop::collection::vec((0_u64..3_000, 1_u64..9, 0_u64..9, any::<bool>()), 1..60),
        known in any::<prop::sample::Index>(),
    ) {
        for id in kinds() {
            let table = CounterTable::new();
            let counter = table.counter(&id);
            let mut now = Timestamp(100_000);
            let mut charged = Vec::new();
            let mut open = Vec::new();
            for (step, held, used, ends) in &steps {
                now = Timestamp(now.0 + step);
                let hold = counter.hold_always(*held, now);
                if *ends {
                    charged.extend(counter.settle(hold, *used, now));
                } else {
                    open.push(hold);
                }
            }
            let cell = |charge: &crate::counter::Charge| Cell {
                counter: charge.counter.to_string(),
                epoch: charge.epoch,
                amount: charge.amount,
                expires_at: charge.expires_at,
            };
            let live: Vec<Cell> = charged
                .iter()
                .map(cell)
                .filter(|cell| now < cell.expires_at)
                .collect();
            let cells = table.cells(now);
            prop_assert_eq!(sums(&cells), sums(&live), "{}", id);
            prop_assert!(cells.iter().all(|cell| now < cell.expires_at));
            for hold in open {
                counter.release(hold, now);
            }

            // A node that knows some of it already comes to the same counts.
            let other = CounterTable::new();
            other.restore(&live[..known.index(live.len() + 1)]);
            let hold = other.counter(&id).hold_always(5, now);
            for _ in 0..2 {
                prop_assert_eq!(other.raise(&cells), 0);
                prop_assert_eq!(other.cells(now), cells.clone());
            }
            other.counter(&id).release(hold, now);
            let levels = [&table, &other].map(|table| table.counter(&id).level(now));
            prop_assert_eq!(levels[0], levels[1], "{}", id);
        }
    }
}

#[test]
fn raising_never_lowers() {
    for id in kinds().into_iter().filter(|id| id.unit != Unit::Concurrent) {
        let table = CounterTable::new();
        let cell = |amount| Cell {
            counter: id.to_string(),
            epoch: 100,
            amount,
            expires_at: Timestamp(0),
        };
        let used = || table.counter(&id).level(Timestamp(100_000)).used;
        for (amount, expected) in [(5, 5), (3, 5), (0, 5), (7, 7), (7, 7)] {
            table.raise(&[cell(amount)]);
            assert_eq!(used(), expected, "{id}");
        }
        // What is settled later comes on top.
        let counter = table.counter(&id);
        let hold = counter.hold_always(1, Timestamp(100_000));
        let _ = counter.settle(hold, 1, Timestamp(100_000));
        assert_eq!(used(), 8, "{id}");
        table.raise(&[cell(7)]);
        assert_eq!(used(), 8, "{id}");
        // An epoch that has passed stays passed.
        table.raise(&[Cell {
            epoch: 20,
            ..cell(9)
        }]);
        assert_eq!(used(), 8, "{id}");
    }
    let foreign = Cell {
        counter: "of another version".into(),
        epoch: 1,
        amount: 1,
        expires_at: Timestamp(0),
    };
    assert_eq!(CounterTable::new().raise(&[foreign]), 1);
}
