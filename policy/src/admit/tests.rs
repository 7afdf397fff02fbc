use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::counter::{Charge, CounterId, CounterTable};
use crate::demand::Actual;
use crate::money::{NanoUsd, Tokens};
use crate::price::PerMillion;
use crate::scope::ScopeKind;
use crate::window::{Period, WindowKind};

/// 2026-11-22T20:43:20Z, 20 s into a minute.
const NOW: Timestamp = Timestamp(1_795_380_200_000);

/// A scope with limits written as `10 requests/1m`, `5 concurrent`,
/// `0.5 usd/1d strict`; requests and tokens slide, money is by calendar.
fn scope(kind: ScopeKind, entity: &str, limits: &[&str]) -> Arc<Scope> {
    let table = CounterTable::new();
    let limit = |text: &&str| {
        let mut words = text.split(' ');
        let amount = words.next().unwrap();
        let (unit, period) = match words.next().unwrap().split_once('/') {
            Some((unit, period)) => (Unit::parse(unit).unwrap(), Some(period.parse().unwrap())),
            None => (Unit::Concurrent, None),
        };
        let id = CounterId {
            scope: kind,
            entity: entity.into(),
            unit,
            period,
            window: if unit == Unit::Usd {
                WindowKind::Calendar
            } else {
                WindowKind::Sliding
            },
            name: None,
        };
        Limit {
            amount: match unit {
                Unit::Usd => NanoUsd::from_decimal(amount).unwrap().0,
                _ => amount.parse().unwrap(),
            },
            enforcement: match words.next() {
                Some("strict") => Enforcement::Strict,
                _ => Enforcement::Eventual,
            },
            counter: table.counter(&id),
            id,
        }
    };
    Arc::new(Scope {
        kind,
        entity: entity.into(),
        limits: limits.iter().map(limit).collect(),
    })
}

fn key(limits: &[&str]) -> Arc<Scope> {
    scope(ScopeKind::VirtualKey, "demo", limits)
}

/// 100 tokens of prompt and 50 (at most 400) of answer, a cent per token.
fn demand() -> Demand {
    Demand {
        tokens: Tokens(150),
        cost: NanoUsd(1_500_000_000),
        strict_tokens: Tokens(500),
        strict_cost: NanoUsd(5_000_000_000),
        prompt_tokens: Tokens(100),
        prompt_cost: NanoUsd(1_000_000_000),
        output_price: PerMillion(10_000_000_000_000),
        choices: 1,
    }
}

#[track_caller]
fn admitted(verdict: Verdict) -> Reservation {
    match verdict {
        Verdict::Admit(reservation) => reservation,
        Verdict::Reject(rejection) => panic!("refused: {rejection}"),
    }
}

#[track_caller]
fn rejected(verdict: Verdict) -> Rejection {
    match verdict {
        Verdict::Reject(rejection) => rejection,
        Verdict::Admit(_) => panic!("admitted"),
    }
}

#[test]
fn refusals_name_the_limit() {
    check(
        &["2 requests/1m"],
        2,
        "virtual key 'demo': limit of 2 requests per 1m is used up (0 used, 2 reserved), \
         resets at 2026-11-22T20:44:22Z",
        "virtual_key/demo/requests/1m",
        62_000,
    );
    check(
        &["9 requests/1m", "400 tokens/1h"],
        2,
        "virtual key 'demo': limit of 400 tokens per 1h has 100 left and this request needs 150 \
         (0 used, 300 reserved), resets at 2026-11-22T21:44:00Z",
        "virtual_key/demo/tokens/1h",
        3_640_000,
    );
    check(
        &["3.5 usd/1d"],
        2,
        "virtual key 'demo': budget of $3.50 per 1d has $0.50 left and this request needs $1.50 \
         ($0.00 used, $3.00 reserved), resets at 2026-11-23T00:00:00Z",
        "virtual_key/demo/usd/1d",
        11_800_000,
    );
    check(
        &["1 concurrent"],
        1,
        "virtual key 'demo': limit of 1 concurrent requests is used up (1 used)",
        "virtual_key/demo/concurrent",
        1_000,
    );
    check(
        &["499 tokens/1m strict"],
        0,
        "virtual key 'demo': this request may use 500 tokens, more than the whole limit of \
         499 tokens per 1m; it fits with max_tokens of at most 399",
        "virtual_key/demo/tokens/1m",
        0,
    );
    check(
        &["4.995 usd/1M strict"],
        0,
        "virtual key 'demo': this request may use $5.00, more than the whole budget of $4.995 \
         per 1M; it fits with max_tokens of at most 399",
        "virtual_key/demo/usd/1M",
        0,
    );
    check(
        &["100 tokens/1m strict"],
        0,
        "virtual key 'demo': this request may use 500 tokens, more than the whole limit of \
         100 tokens per 1m; its prompt alone is too large",
        "virtual_key/demo/tokens/1m",
        0,
    );
    // The first in walk order is reported.
    check(
        &["0 requests/1m", "0 usd/1d"],
        0,
        "virtual key 'demo': limit of 0 requests per 1m is used up (0 used), \
         resets at 2026-11-22T20:43:20Z",
        "virtual_key/demo/requests/1m",
        62_000,
    );
}

/// With `open` requests in flight the next one is refused in these words.
#[track_caller]
fn check(limits: &[&str], open: usize, message: &str, label: &str, retry_after_ms: u64) {
    let scope = key(limits);
    let held: Vec<_> = (0..open)
        .map(|_| admitted(admit([&scope], &demand(), NOW)))
        .collect();
    let rejection = rejected(admit([&scope], &demand(), NOW));
    assert_eq!(rejection.to_string(), message);
    assert_eq!(rejection.limit_label(), label);
    assert_eq!(rejection.retry_after, Duration::from_millis(retry_after_ms));
    drop(held);
}

#[test]
fn the_kind_of_a_refusal() {
    let kind = |limit: &str| rejected(admit([&key(&[limit])], &demand(), NOW)).kind;
    assert_eq!(kind("0 requests/1m"), RejectionKind::RateLimit);
    assert_eq!(kind("0 tokens/1m"), RejectionKind::RateLimit);
    assert_eq!(kind("0 concurrent"), RejectionKind::RateLimit);
    assert_eq!(kind("0 usd/1d"), RejectionKind::Budget);
    let too_large = |max_tokens_that_fits| RejectionKind::TooLargeForLimit {
        max_tokens_that_fits,
    };
    assert_eq!(kind("499 tokens/1m strict"), too_large(Some(399)));
    assert_eq!(kind("100 tokens/1m strict"), too_large(None));
    assert_eq!(kind("1.019 usd/1d strict"), too_large(Some(1)));
    assert_eq!(kind("0 usd/1d strict"), too_large(None));
    let answers = Demand {
        choices: 3,
        ..demand()
    };
    let refusal = rejected(admit([&key(&["499 tokens/1m strict"])], &answers, NOW));
    assert_eq!(refusal.kind, too_large(Some(133)));
    let free = Demand {
        output_price: PerMillion(0),
        ..demand()
    };
    assert_eq!(
        rejected(admit([&key(&["2 usd/1d strict"])], &free, NOW)).kind,
        too_large(None)
    );
}

#[test]
fn all_limits_or_none() {
    let key = key(&[
        "5 concurrent",
        "5 requests/1m",
        "1000 tokens/1m",
        "10 usd/1d",
    ]);
    let team = scope(ScopeKind::Team, "red", &["1 requests/1m"]);
    let first = admitted(admit([&key, &team], &demand(), NOW));
    let before: Vec<_> = key.limits.iter().map(|limit| limit.standing(NOW)).collect();
    let rejection = rejected(admit([&key, &team], &demand(), NOW));
    assert_eq!(rejection.limit_label(), "team/red/requests/1m");
    let after: Vec<_> = key.limits.iter().map(|limit| limit.standing(NOW)).collect();
    assert_eq!(before, after);
    first.release(NOW);
    for limit in key.limits.iter().chain(&team.limits) {
        let standing = limit.standing(NOW);
        assert_eq!((standing.used, standing.reserved), (0, 0));
        // A calendar period ends when it ends, used or not.
        let resets_at = match limit.id.unit {
            Unit::Usd => Period::Day.end(Period::Day.epoch(NOW)),
            _ => NOW,
        };
        assert_eq!(
            (standing.remaining, standing.resets_at),
            (standing.limit, resets_at)
        );
    }
}

#[test]
fn a_dropped_reservation_is_released() {
    let key = key(&["1 concurrent", "1 requests/1m", "1 usd/1d"]);
    for _ in 0..3 {
        drop(admitted(admit([&key], &demand(), NOW)));
    }
    admitted(admit([&key], &demand(), NOW)).release(NOW);
}

#[test]
fn settling_books_real_use_and_charges_it() {
    let key = key(&[
        "5 concurrent",
        "5 requests/1m",
        "1000 tokens/1m",
        "10 usd/1d",
    ]);
    let reservation = admitted(admit([&key], &demand(), NOW));
    let actual = Actual {
        requests: 1,
        tokens: Tokens(1_200),
        cost: NanoUsd(7),
    };
    let charges = reservation.settle(&actual, NOW.plus(Duration::from_secs(4)));
    let minute = i64::try_from(NOW.0 / 2_000).unwrap();
    let charge = |limit: usize, epoch: i64, amount, expires_at| Charge {
        counter: key.limits[limit].id.to_string().into(),
        epoch,
        amount,
        expires_at,
    };
    let expected = [
        charge(1, minute, 1, NOW.plus(Duration::from_secs(62))),
        charge(2, minute + 2, 1_200, NOW.plus(Duration::from_secs(66))),
        charge(3, 20_779, 7, Timestamp(20_780 * 86_400_000)),
    ];
    assert_eq!(charges, expected);
    let used: Vec<_> = key
        .limits
        .iter()
        .map(|limit| limit.standing(NOW).used)
        .collect();
    assert_eq!(used, [0, 1, 1_200, 7]);
    // Beyond the limit: nothing remains, and the next one waits.
    assert_eq!(key.limits[2].standing(NOW).remaining, 0);
    assert_eq!(rejected(admit([&key], &demand(), NOW)).used, 1_200);
    // Nothing used, nothing charged.
    let team = scope(ScopeKind::Team, "red", &["5 requests/1m", "10 usd/1d"]);
    let reservation = admitted(admit([&team], &demand(), NOW));
    assert_eq!(reservation.settle(&Actual::default(), NOW), []);
}

#[test]
fn a_request_larger_than_an_eventual_limit_passes_alone() {
    for limit in ["100 tokens/1m", "1 usd/1d"] {
        let key = key(&[limit]);
        let alone = admitted(admit([&key], &demand(), NOW));
        let standing = key.limits[0].standing(NOW);
        assert_eq!((standing.reserved, standing.remaining), (standing.limit, 0));
        let _ = rejected(admit([&key], &demand(), NOW));
        alone.release(NOW);
        let small = Demand {
            tokens: Tokens(1),
            cost: NanoUsd(1),
            ..demand()
        };
        let _small = admitted(admit([&key], &small, NOW));
        let _ = rejected(admit([&key], &demand(), NOW));
    }
}

#[test]
fn a_request_that_needs_nothing_of_a_limit_passes_it() {
    let key = key(&["100 tokens/1m", "1 usd/1d"]);
    let full = admitted(admit([&key], &demand(), NOW));
    let free = admitted(admit([&key], &Demand::default(), NOW));
    // It is charged all the same if it used something.
    let actual = Actual {
        requests: 1,
        tokens: Tokens(3),
        cost: NanoUsd(4),
    };
    let amounts: Vec<_> = free
        .settle(&actual, NOW)
        .into_iter()
        .map(|charge| charge.amount)
        .collect();
    assert_eq!(amounts, [3, 4]);
    full.release(NOW);
}

#[test]
fn headers_show_the_tightest_limits() {
    let key = key(&[
        "10 requests/1m",
        "1000 tokens/1m",
        "3 usd/1d",
        "2 concurrent",
    ]);
    let team = scope(
        ScopeKind::Team,
        "red",
        &["4 requests/1h", "100000 tokens/1h"],
    );
    let reservation = admitted(admit([&key, &team], &demand(), NOW));
    let tightest = reservation.standings(NOW);
    let (requests, tokens) = (tightest.requests.unwrap(), tightest.tokens.unwrap());
    assert_eq!(
        (requests.scope, requests.limit, requests.remaining),
        (ScopeKind::Team, 4, 3)
    );
    assert_eq!(
        (tokens.scope, tokens.limit, tokens.remaining),
        (ScopeKind::VirtualKey, 1000, 850)
    );
    reservation.release(NOW);
    let none = admitted(admit([] as [&Arc<Scope>; 0], &demand(), NOW));
    assert_eq!(none.standings(NOW), crate::reservation::Tightest::default());
    assert_eq!(
        none.settle(
            &Actual {
                requests: 1,
                ..Actual::default()
            },
            NOW
        ),
        []
    );
}

#[test]
fn threads_share_a_chain_of_scopes_exactly() {
    let key = key(&["50 concurrent", "1500 tokens/1m"]);
    let team = scope(
        ScopeKind::Team,
        "red",
        &["20 requests/1m", "15 usd/1d strict"],
    );
    let ask = Demand {
        strict_cost: NanoUsd(1_500_000_000),
        ..demand()
    };
    let barrier = Barrier::new(200);
    let admitted: Vec<Reservation> = thread::scope(|threads| {
        let asking: Vec<_> = (0..200)
            .map(|_| {
                threads.spawn(|| {
                    barrier.wait();
                    // A refusal may be due to holds that others are about to
                    // give back; whoever asks again finds the truth.
                    (0..200).find_map(|_| match admit([&key, &team], &ask, NOW) {
                        Verdict::Admit(reservation) => Some(reservation),
                        Verdict::Reject(_) => None,
                    })
                })
            })
            .collect();
        asking
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(admitted.len(), 10);
    drop(admitted);
    for limit in key.limits.iter().chain(&team.limits) {
        assert_eq!(limit.standing(NOW).remaining, limit.amount);
    }
}

proptest! {
    /// Whatever ends first, what is charged is what was used, and what is
    /// left is what was not.
    #[test]
    fn settling_conserves(uses in prop::collection::vec((0_u64..2, 0_u64..300, 0_u64..9), 1..20)) {
        let key = key(&["100 requests/1h", "9000 tokens/1h", "90 usd/1d"]);
        let mut sums = [0, 0, 0];
        let mut charged = [0, 0, 0];
        let reservations: Vec<_> =
            uses.iter().map(|_| admitted(admit([&key], &demand(), NOW))).collect();
        for (reservation, (requests, tokens, cost)) in reservations.into_iter().zip(&uses) {
            let actual =
                Actual { requests: *requests, tokens: Tokens(*tokens), cost: NanoUsd(*cost) };
            for (sum, used) in sums.iter_mut().zip([requests, tokens, cost]) {
                *sum += used;
            }
            for charge in reservation.settle(&actual, NOW) {
                prop_assert!(charge.amount > 0);
                let place = key.limits.iter().position(|limit| limit.id.to_string() == *charge.counter);
                charged[place.unwrap()] += charge.amount;
            }
        }
        prop_assert_eq!(sums, charged);
        for (limit, sum) in key.limits.iter().zip(sums) {
            let standing = limit.standing(NOW);
            prop_assert_eq!((standing.used, standing.reserved), (sum, 0));
        }
    }
}
