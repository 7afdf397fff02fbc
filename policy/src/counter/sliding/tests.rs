use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::time::{Clock, ManualClock};

/// A sub-window of a 30 s window lasts one second.
const LENGTH: Duration = Duration::from_secs(30);

#[test]
fn amounts_leave_after_thirty_one_sub_windows() {
    check(false, &[(0, 10)], 30_999, 0);
    check(false, &[(0, 10)], 31_000, 10);
    check(false, &[(999, 10)], 30_999, 0);
    check(false, &[(999, 10)], 31_000, 10);
    check(false, &[(0, 4), (1_000, 6)], 31_999, 4);
    check(false, &[(0, 4), (1_000, 6)], 32_000, 10);
    // Back in time: booked in, and judged at, the newest time seen.
    check(false, &[(40_000, 4), (0, 6)], 70_999, 0);
    check(false, &[(40_000, 4), (0, 6)], 71_000, 10);
    check(false, &[(100_000, 10)], 0, 0);
    // After a very long silence the tags have gone round.
    check(false, &[(0, 10)], 1_000 << 24, 0);
    check(false, &[(0, 10)], (1_000 << 24) + 31_000, 10);
    check(false, &[(0, 10)], 1_000 << 23, 10);
    // Smooth: the oldest sub-window fades.
    check(true, &[(0, 10)], 29_999, 0);
    check(true, &[(0, 10)], 30_100, 1);
    check(true, &[(0, 10)], 30_500, 5);
    check(true, &[(0, 10)], 31_000, 10);
}

/// After `taken` of (at, amount), a limit of ten has room for exactly `room`
/// at `now`.
#[track_caller]
fn check(smooth: bool, taken: &[(u64, u64)], now: u64, room: u64) {
    for (amount, fits) in [(room, true), (room + 1, false)] {
        let sliding = Sliding::new(LENGTH, smooth);
        for (at, amount) in taken {
            assert!(sliding.reserve(*amount, 10, Timestamp(*at)).is_some());
        }
        let given = sliding.reserve(amount, 10, Timestamp(now)).is_some();
        assert_eq!(given, fits, "{amount} of 10 at {now} after {taken:?}");
    }
}

#[test]
fn a_length_that_thirty_does_not_divide_is_covered() {
    let sliding = Sliding::new(Duration::from_secs(1), false);
    assert!(sliding.reserve(1, 1, Timestamp(32)).is_some());
    assert!(sliding.reserve(1, 1, Timestamp(1_032)).is_none());
}

#[test]
fn tells_when_a_demand_fits() {
    let sliding = Sliding::new(LENGTH, false);
    for (at, amount) in [(0, 3), (5_000, 3), (9_000, 4)] {
        assert!(sliding.reserve(amount, 10, Timestamp(at)).is_some());
    }
    let now = Timestamp(10_000);
    for (amount, fits_at) in [
        (1, 31_000),
        (3, 31_000),
        (4, 36_000),
        (7, 40_000),
        (10, 40_000),
    ] {
        assert_eq!(
            sliding.fits_at(amount, 10, None, now),
            Timestamp(fits_at),
            "{amount}"
        );
    }
    assert_eq!(sliding.fits_at(1, 20, None, now), now);
    assert_eq!(sliding.level(now), (0, 10, Timestamp(40_000)));
    assert_eq!(sliding.level(Timestamp(40_000)), (0, 0, Timestamp(40_000)));
}

#[test]
fn a_fading_amount_fits_early() {
    let sliding = Sliding::new(LENGTH, true);
    assert!(sliding.reserve(10, 10, Timestamp(0)).is_some());
    for (amount, fits_at) in [(1, 30_100), (5, 30_500), (10, 31_000)] {
        let at = sliding.fits_at(amount, 10, None, Timestamp(20_000));
        assert_eq!(at, Timestamp(fits_at), "{amount}");
    }
    assert!(sliding.reserve(5, 10, Timestamp(30_499)).is_none());
    assert!(sliding.reserve(5, 10, Timestamp(30_500)).is_some());
}

#[test]
fn what_a_slot_cannot_hold_is_not_counted() {
    let sliding = Sliding::new(LENGTH, false);
    let hold = sliding.reserve(1, MAX_VALUE, Timestamp(0)).unwrap();
    assert_eq!(
        sliding.settle(hold, u64::MAX, Timestamp(0)).amount,
        MAX_VALUE
    );
    let hold = sliding.reserve(0, MAX_VALUE, Timestamp(0)).unwrap();
    assert_eq!(sliding.settle(hold, 5, Timestamp(0)).amount, 0);
    assert_eq!(
        sliding.level(Timestamp(0)),
        (MAX_VALUE, 0, Timestamp(31_000))
    );
    assert_eq!(sliding.level(Timestamp(31_000)), (0, 0, Timestamp(31_000)));
}

#[test]
fn a_hold_that_outlived_the_window_is_booked_when_it_settles() {
    let sliding = Sliding::new(LENGTH, false);
    let hold = sliding.reserve(10, 10, Timestamp(0)).unwrap();
    let booked = sliding.settle(hold, 7, Timestamp(60_000));
    assert_eq!((booked.index, booked.amount), (60, 7));
    assert_eq!(sliding.level(Timestamp(60_000)).0, 7);
    let hold = sliding.reserve(3, 10, Timestamp(60_000)).unwrap();
    sliding.release(hold, Timestamp(120_000));
    assert_eq!(
        sliding.level(Timestamp(120_000)),
        (0, 0, Timestamp(120_000))
    );
    let hold = sliding.reserve(1, 10, Timestamp(120_000)).unwrap();
    assert!(sliding.keep(hold, Timestamp(160_000)).is_none());
    assert!(sliding.is_idle(Timestamp(160_000)));
}

proptest! {
    /// The promise of the window, measured from outside: by the clock of the
    /// callers, which here never steps back.
    #[test]
    fn no_interval_of_the_length_holds_more_than_the_limit(
        length_ms in 1_000_u64..100_000,
        limit in 1_u64..20,
        steps in prop::collection::vec((0_u64..5_000, 1_u64..6), 1..200),
    ) {
        let sliding = Sliding::new(Duration::from_millis(length_ms), false);
        let mut now = 0;
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for (step, amount) in steps {
            now += step;
            if let Some(hold) = sliding.reserve(amount, limit, Timestamp(now)) {
                prop_assert!(sliding.keep(hold, Timestamp(now)).is_some());
                admitted.push((now, amount));
            }
        }
        for (start, _) in &admitted {
            let within: u64 = admitted
                .iter()
                .filter(|(at, _)| (*start..=start + length_ms).contains(at))
                .map(|(_, amount)| amount)
                .sum();
            prop_assert!(within <= limit, "{} from {} in {:?}", within, start, admitted);
        }
    }
}

/// What one thread saw of a run: what it left booked, by sub-window.
type Ledger = BTreeMap<i64, u64>;

/// Threads race over a clock that they move themselves; most of the work
/// falls on the moments where the window turns.
#[test]
fn racing_threads_never_pass_the_limit_nor_lose_an_amount() {
    const THREADS: u64 = 8;
    const LIMIT: u64 = 50;
    for round in 0..6 {
        // In odd rounds each step of the clock turns every slot over.
        let length_ms = if round % 2 == 0 { 1_000 } else { 30 };
        let sliding = Sliding::new(Duration::from_millis(length_ms), false);
        let clock = ManualClock::new(Timestamp(round * 1_000_000));
        let barrier = Barrier::new(THREADS as usize);
        let ledgers: Vec<Ledger> = thread::scope(|scope| {
            let race = |seed| {
                let (sliding, clock, barrier) = (&sliding, &clock, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    run(sliding, clock, LIMIT, seed)
                })
            };
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| race(round * 100 + thread))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let mut all = Ledger::new();
        for (index, amount) in ledgers.into_iter().flatten() {
            *all.entry(index).or_default() += amount;
        }
        for end in all.keys() {
            let within: u64 = all
                .range(end - PREVIOUS..=*end)
                .map(|(_, amount)| amount)
                .sum();
            assert!(
                within <= LIMIT,
                "{within} in the window that ends with {end}"
            );
        }
        let now = clock.now();
        let newest = sliding.ring.advance(now);
        let live: u64 = all
            .range(newest - PREVIOUS..)
            .map(|(_, amount)| amount)
            .sum();
        let (used, held, _) = sliding.level(now);
        assert_eq!((used, held), (live, 0), "drift after round {round}");
        assert!(sliding.is_idle(now.plus(Duration::from_secs(60))));
    }
}

/// One thread's part: takes, keeps, gives back and lets time pass.
fn run(sliding: &Sliding, clock: &ManualClock, limit: u64, seed: u64) -> Ledger {
    let mut ledger = Ledger::new();
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut held: Vec<Booked> = Vec::new();
    for _ in 0..20_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Late readers: the time may be old by the moment it is used.
        let now = clock.now();
        match random % 16 {
            0 => drop(clock.advance(Duration::from_millis(random >> 8 & 0x3F))),
            1 if random >> 20 & 7 == 0 => drop(clock.advance(Duration::from_millis(1_200))),
            2..=5 => {
                if let Some(hold) = held.pop() {
                    sliding.release(hold, now);
                }
            }
            6 => {
                if let Some(hold) = held.pop() {
                    // The ledger keeps expired amounts too: they were live once.
                    let _ = sliding.keep(hold, now);
                    *ledger.entry(hold.index).or_default() += hold.amount;
                }
            }
            _ => held.extend(sliding.reserve(1 + (random >> 32) % 7, limit, now)),
        }
    }
    for hold in held {
        sliding.release(hold, clock.now());
    }
    ledger
}
