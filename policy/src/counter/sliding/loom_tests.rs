//! Every interleaving of a few threads on one sliding count, relaxed memory
//! included: `RUSTFLAGS="--cfg loom" cargo test -p policy --lib loom_`.
//!
//! Sub-windows last one millisecond, so times are indexes.

use loom::sync::Arc;
use loom::thread;

use super::*;

/// What is taken `before` at 0.
const HELD: Booked = Booked {
    index: 0,
    amount: 1,
};

/// Runs both parts at once, for a limit of `limit`, on a count that may hold one since `before`;
/// which has left the window by `after`; then the count is what both booked.
fn check(limit: u64, before: Option<u64>, parts: [fn(&Sliding) -> Option<Booked>; 2], after: u64) {
    let mut model = loom::model::Builder::new();
    // Enough to split any operation twice; without a bound it takes hours.
    model.preemption_bound = Some(3);
    model.check(move || {
        let sliding = Arc::new(Sliding::new(Duration::from_millis(30), false));
        if let Some(at) = before {
            assert!(sliding.reserve(1, 1, Timestamp(at)).is_some());
        }
        let [first, second] = parts;
        let other = Arc::clone(&sliding);
        let thread = thread::spawn(move || first(&other));
        let second = second(&sliding);
        let first = thread.join().unwrap();
        if let (Some(first), Some(second)) = (first, second) {
            let apart = (first.index - second.index).abs();
            let together = if apart > PREVIOUS {
                first.amount.max(second.amount)
            } else {
                first.amount + second.amount
            };
            assert!(together <= limit, "{first:?} and {second:?} in one window");
        }
        let oldest = i64::try_from(after).unwrap() - PREVIOUS;
        let live = [first, second]
            .into_iter()
            .flatten()
            .filter(|booked| booked.index >= oldest);
        let (used, held, _) = sliding.level(Timestamp(after));
        assert_eq!(
            used + held,
            live.map(|booked| booked.amount).sum::<u64>(),
            "lost or twice"
        );
        let (used, held, _) = sliding.level(Timestamp(after + 100));
        assert_eq!(used + held, 0, "an amount never left");
    });
}

#[test]
fn loom_two_requests_for_one_place() {
    check(
        1,
        None,
        [
            |s| s.reserve(1, 1, Timestamp(5)),
            |s| s.reserve(1, 1, Timestamp(5)),
        ],
        5,
    );
}

#[test]
fn loom_two_requests_on_both_sides_of_an_edge() {
    check(
        1,
        Some(0),
        [
            |s| s.reserve(1, 1, Timestamp(30)),
            |s| s.reserve(1, 1, Timestamp(31)),
        ],
        31,
    );
}

#[test]
fn loom_two_requests_for_one_slot() {
    // Sub-windows 32 and 0 share a slot; a late booking must not empty it.
    let parts: [fn(&Sliding) -> Option<Booked>; 2] = [
        |s| s.reserve(1, 2, Timestamp(0)),
        |s| s.reserve(1, 2, Timestamp(32)),
    ];
    check(2, None, parts, 32);
}

#[test]
fn loom_a_late_release_meets_the_sweep() {
    let release = |s: &Sliding| {
        s.release(HELD, Timestamp(0));
        None
    };
    check(
        1,
        Some(0),
        [release, |s| s.reserve(1, 1, Timestamp(32))],
        32,
    );
}

#[test]
fn loom_a_late_settlement_meets_the_sweep() {
    let settle = |s: &Sliding| Some(s.settle(HELD, 1, Timestamp(0)));
    // What was used counts even where it passes the limit.
    check(2, Some(0), [settle, |s| s.reserve(1, 1, Timestamp(31))], 31);
}

#[test]
fn loom_a_growing_hold_and_a_request_for_one_place() {
    let grow = |s: &Sliding| {
        let mut hold = HELD;
        s.resize(&mut hold, 2, 2, Timestamp(0));
        Some(hold)
    };
    check(2, Some(0), [grow, |s| s.reserve(1, 2, Timestamp(0))], 0);
}

#[test]
fn loom_a_growing_hold_meets_the_sweep() {
    let grow = |s: &Sliding| {
        let mut hold = HELD;
        s.resize(&mut hold, 2, 2, Timestamp(0));
        Some(hold)
    };
    check(2, Some(0), [grow, |s| s.reserve(1, 2, Timestamp(31))], 31);
}

/// Raises the settled amount of sub-window 0 to two, while `other` happens on
/// a count that holds one there; then this is used at `after`.
fn check_raise(other: fn(&Sliding), after: u64, used: &'static [u64]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let sliding = Arc::new(Sliding::new(Duration::from_millis(30), false));
        assert!(sliding.reserve(1, 1, Timestamp(0)).is_some());
        let raised = Arc::clone(&sliding);
        let thread = thread::spawn(move || raised.raise_settled(0, 2));
        other(&sliding);
        thread.join().unwrap();
        let mut settled = 0;
        sliding.settled(Timestamp(after), |_, amount, _| settled += amount);
        let (shown, held, _) = sliding.level(Timestamp(after));
        assert!(used.contains(&shown), "{shown} used");
        assert_eq!((shown, held), (settled, 0), "lost or twice");
        let (used, held, _) = sliding.level(Timestamp(after + 100));
        assert_eq!(used + held, 0, "an amount never left");
    });
}

#[test]
fn loom_raising_meets_a_settlement() {
    // Settled before, it is part of the two; after, it comes on top.
    let settle = |s: &Sliding| {
        s.settle(HELD, 1, Timestamp(0));
    };
    check_raise(settle, 0, &[2, 3]);
}

#[test]
fn loom_raising_meets_the_sweep() {
    let settle_later = |s: &Sliding| {
        s.settle(HELD, 1, Timestamp(32));
    };
    check_raise(settle_later, 32, &[1]);
}

/// Both parts at once on what others have, one in sub-window 0 and nothing
/// else; then so much of it counts at each of `after`.
fn check_others(parts: [fn(&Others); 2], after: &'static [(u64, u64)]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let others = Arc::new(Others::new(Duration::from_millis(30), false));
        others.change(0, 0, 1, Timestamp(0));
        let [first, second] = parts;
        let shared = Arc::clone(&others);
        let thread = thread::spawn(move || first(&shared));
        second(&others);
        thread.join().unwrap();
        for (at, total) in after {
            others.advance(Timestamp(*at));
            others.sweep();
            assert_eq!(others.total(Timestamp(*at)), *total, "at {at}");
        }
    });
}

#[test]
fn loom_two_tell_of_one_sub_window() {
    check_others(
        [
            |others| others.change(0, 1, 4, Timestamp(0)),
            |others| others.change(0, 1, 0, Timestamp(0)),
        ],
        &[(30, 3), (31, 0)],
    );
}

#[test]
fn loom_what_others_give_back_meets_the_sweep() {
    check_others(
        [
            |others| others.change(0, 1, 0, Timestamp(0)),
            |others| {
                others.advance(Timestamp(31));
            },
        ],
        &[(31, 0), (99, 0)],
    );
}

#[test]
fn loom_what_others_add_meets_the_sweep() {
    check_others(
        [
            |others| others.change(0, 1, 2, Timestamp(0)),
            |others| {
                others.advance(Timestamp(31));
            },
        ],
        &[(31, 0), (99, 0)],
    );
}

#[test]
fn loom_what_comes_early_meets_its_time() {
    // Sub-windows 64 and 0 share a slot.
    check_others(
        [
            |others| others.change(64, 0, 2, Timestamp(33)),
            |others| {
                others.advance(Timestamp(64));
            },
        ],
        &[(64, 2), (94, 2), (95, 0)],
    );
}

#[test]
fn loom_an_admission_counts_what_it_was_told() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        const LIMIT: u64 = 2;
        let own = Arc::new(Sliding::new(Duration::from_millis(30), false));
        let others = Arc::new(Others::new(Duration::from_millis(30), false));
        assert!(own.reserve(1, LIMIT, Timestamp(0)).is_some());
        let told = Arc::new(AtomicU64::new(0));
        let thread = {
            let (others, told) = (Arc::clone(&others), Arc::clone(&told));
            thread::spawn(move || {
                others.change(0, 0, 1, Timestamp(0));
                told.store(1, Ordering::Release);
            })
        };
        let heard = told.load(Ordering::Acquire) == 1;
        let left = |at| LIMIT - others.total(Timestamp(at)).min(LIMIT);
        let early = own.reserve(1, left(1), Timestamp(1));
        own.settle(HELD, 1, Timestamp(1));
        thread.join().unwrap();
        if heard {
            assert!(
                early.is_none(),
                "one of others, one of its own, and one more"
            );
        }
        assert!(own.reserve(1, left(2), Timestamp(2)).is_none());
        // Sub-window 0 leaves on both sides; what was settled at 1 stays.
        let (used, held, _) = own.level(Timestamp(31));
        assert_eq!((used, held), (1, u64::from(early.is_some())));
        assert_eq!(left(31), LIMIT);
    });
}
