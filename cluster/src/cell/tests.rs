use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::data_dir::NodeKey;

const NOW: Timestamp = Timestamp(1_000_000);

fn origin(node: u128) -> Origin {
    Origin {
        node: NodeKey(node),
        boot: 1,
    }
}

fn state(ver: u64, used: u64, held: u64) -> CellState {
    CellState {
        ver,
        used,
        held,
        expires_at: Timestamp(2_000_000),
    }
}

fn slot(number: u8) -> Slot {
    let mut slots = Slots::new();
    let mut last = Slot::FIRST;
    for at in 0..=number {
        last = slots.find_or_insert(&Arc::from(format!("{at}")), || ());
    }
    last
}

/// What an origin may really tell: totals that only grow, with versions that grow.
fn history() -> impl Strategy<Value = Vec<CellState>> {
    prop::collection::vec((0_u64..5, 0_u64..9), 1..12).prop_map(|steps| {
        let mut used = 0;
        steps
            .into_iter()
            .zip(1..)
            .map(|((more, held), ver)| {
                used += more;
                state(ver, used, held)
            })
            .collect()
    })
}

fn any_state() -> impl Strategy<Value = CellState> {
    (0_u64..4, 0_u64..4, 0_u64..4, 0_u64..4).prop_map(|(ver, used, held, more)| CellState {
        expires_at: Timestamp(2_000_000 + more),
        ..state(ver, used, held)
    })
}

proptest! {
    #[test]
    fn joining_is_commutative_associative_and_idempotent(
        a in any_state(), b in any_state(), c in any_state()
    ) {
        prop_assert_eq!(a.joined(b), b.joined(a));
        prop_assert_eq!(a.joined(b).joined(c), a.joined(b.joined(c)));
        prop_assert_eq!(a.joined(a), a);
        let joined = a.joined(b);
        prop_assert_eq!(joined.joined(a), joined);
        prop_assert!(joined.used >= a.used.max(b.used));
    }

    #[test]
    fn any_order_with_any_repeats_ends_at_the_last_state(
        history in history(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut store = CellStore::new(10);
        let last = *history.last().expect("at least one");
        for at in order {
            store.merge(origin(1), (Slot::FIRST, 0), *at.get(&history), NOW);
        }
        // What was lost comes with the next exchange.
        store.merge(origin(1), (Slot::FIRST, 0), last, NOW);
        let cells = store.origin(origin(1)).expect("an origin");
        prop_assert_eq!(cells.state((Slot::FIRST, 0)), Some(last));
        let newer: Vec<_> = cells.newer(0).collect();
        prop_assert_eq!(newer, vec![((Slot::FIRST, 0), last)]);
        prop_assert_eq!(store.len(), 1);
    }
}

#[test]
fn what_merging_tells_adds_up() {
    let mut store = CellStore::new(10);
    let key = (Slot::FIRST, 7);
    let amounts = |used, held| Amounts { used, held };
    let mut merge = |cell| store.merge(origin(1), key, cell, NOW);
    let first = Merged::News {
        before: amounts(0, 0),
        after: amounts(3, 2),
    };
    assert_eq!(merge(state(1, 3, 2)), first);
    assert_eq!(merge(state(1, 3, 2)), Merged::Known);
    let settled = Merged::News {
        before: amounts(3, 2),
        after: amounts(5, 0),
    };
    assert_eq!(merge(state(4, 5, 0)), settled);
    // Late: neither its hold nor its total counts.
    assert_eq!(merge(state(2, 4, 9)), Merged::Known);
    // The store knows no versions, but may know more.
    let stored = Merged::News {
        before: amounts(5, 0),
        after: amounts(6, 0),
    };
    assert_eq!(merge(state(0, 6, 0)), stored);
}

#[test]
fn a_full_store_refuses_new_cells_and_takes_news_of_old_ones() {
    let mut store = CellStore::new(2);
    for epoch in 0..2 {
        store.merge(origin(1), (Slot::FIRST, epoch), state(1, 1, 0), NOW);
    }
    let refused = store.merge(origin(1), (Slot::FIRST, 2), state(2, 1, 0), NOW);
    assert_eq!(refused, Merged::Refused);
    let known = store.merge(origin(1), (Slot::FIRST, 1), state(3, 9, 0), NOW);
    assert!(matches!(known, Merged::News { .. }));
    // Own cells always have room.
    let own = store.publish(
        origin(2),
        (Slot::FIRST, 0),
        Amounts { used: 1, held: 0 },
        NOW,
    );
    assert_eq!(own, Some(Amounts::default()));
    assert_eq!(store.len(), 3);
}

#[test]
fn publishing_numbers_changes_only() {
    let mut store = CellStore::new(10);
    let me = origin(1);
    let mut publish = |epoch, used, held| {
        let amounts = Amounts { used, held };
        store
            .publish(me, (Slot::FIRST, epoch), amounts, Timestamp(9_000_000))
            .is_some()
    };
    assert!(publish(0, 1, 0));
    assert!(!publish(0, 1, 0));
    assert!(publish(1, 1, 1));
    assert!(publish(0, 2, 0));
    assert_eq!(store.seen(me), 3);
    let newer: Vec<u64> = store
        .origin(me)
        .expect("own cells")
        .newer(1)
        .map(|(_, state)| state.ver)
        .collect();
    assert_eq!(newer, [2, 3]);
}

#[test]
fn sweeping_removes_what_has_expired_in_parts() {
    let mut store = CellStore::new(1_000);
    for node in 0..5 {
        for number in 0..7 {
            let expires_at = Timestamp(NOW.0 + 1_000 * u64::from(number % 2));
            let cell = CellState {
                expires_at,
                ..state(u64::from(number) + 1, 1, 0)
            };
            store.merge(origin(node), (slot(number), 0), cell, NOW);
        }
    }
    let later = Timestamp(NOW.0 + GRACE_MS);
    let mut removed = Vec::new();
    for _ in 0..40 {
        store.sweep(2, later, |_| false, |cell| removed.push(cell));
    }
    // Four of each seven.
    assert_eq!(removed.len(), 20);
    assert_eq!(store.len(), 15);
    let newer = store.origin(origin(1)).map(|cells| cells.newer(0).count());
    assert_eq!(newer, Some(3));
    for _ in 0..40 {
        store.sweep(
            2,
            Timestamp(NOW.0 + 10_000),
            |node| node == origin(4),
            |_| {},
        );
    }
    let left: Vec<Origin> = store.origins().map(|(origin, _)| origin).collect();
    assert_eq!((store.len(), left), (0, vec![origin(4)]));
    let late = store.merge(
        origin(1),
        (Slot::FIRST, 0),
        state(1, 1, 0),
        Timestamp(u64::MAX),
    );
    assert_eq!(late, Merged::Expired);
}

#[test]
fn slots_are_given_again_only_when_free() {
    let mut slots = Slots::new();
    let a = slots.find_or_insert(&Arc::from("a"), || 1);
    let b = slots.find_or_insert(&Arc::from("b"), || 2);
    assert_eq!(slots.find_or_insert(&Arc::from("a"), || 3), a);
    assert_eq!(slots.free(a), Some(1));
    assert_eq!(slots.free(a), None);
    assert_eq!((slots.find("a"), slots.at(a)), (None, None));
    let c = slots.find_or_insert(&Arc::from("c"), || 4);
    assert_eq!((c, slots.text(c).map(|text| &**text)), (a, Some("c")));
    assert_eq!(slots.some_from(Slot::FIRST, 1), (vec![c], Some(b)));
    assert_eq!(slots.some_from(b, 5), (vec![b], None));
}
