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
