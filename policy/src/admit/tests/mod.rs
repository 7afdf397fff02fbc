use std::time::Duration;

use super::*;
use crate::counter::Charge;
use crate::demand::Actual;
use crate::money::{NanoUsd, Tokens};
use crate::price::PerMillion;
use crate::reservation::Tightest;
use crate::scope::{ScopeKind, Unit};
use crate::testing::{NOW, World, admitted, demand, rejected};
use crate::verdict::RejectionKind;
use crate::window::Period;

mod foresee;
mod laws;
mod scopes;

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
    let world = World::new(&[("key", limits)]);
    let held: Vec<_> = (0..open).map(|_| admitted(world.ask(&demand()))).collect();
    let rejection = rejected(world.ask(&demand()));
    assert_eq!(rejection.to_string(), message);
    assert_eq!(rejection.limit_label(), label);
    assert_eq!(rejection.retry_after, Duration::from_millis(retry_after_ms));
    drop(held);
}

#[test]
fn the_kind_of_a_refusal() {
    let kind = |limit: &str| rejected(World::new(&[("key", &[limit])]).ask(&demand())).kind;
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
    let refusal = rejected(World::new(&[("key", &["499 tokens/1m strict"])]).ask(&answers));
    assert_eq!(refusal.kind, too_large(Some(133)));
    let free = Demand {
        output_price: PerMillion(0),
        ..demand()
    };
    assert_eq!(
        rejected(World::new(&[("key", &["2 usd/1d strict"])]).ask(&free)).kind,
        too_large(None)
    );
}

#[test]
fn all_limits_or_none() {
    let world = World::new(&[
        (
            "key",
            &[
                "5 concurrent",
                "5 requests/1m",
                "1000 tokens/1m",
                "10 usd/1d",
            ],
        ),
        ("team", &["1 requests/1m"]),
    ]);
    let standings = || -> Vec<_> { world.limits().map(|limit| limit.standing(NOW)).collect() };
    let first = admitted(world.ask(&demand()));
    let before = standings();
    let rejection = rejected(world.ask(&demand()));
    assert_eq!(rejection.limit_label(), "team/red/requests/1m");
    assert_eq!(rejection.id_text(), "team/red/requests/1m/sliding");
    assert_eq!(before, standings());
    assert_eq!(first.release(NOW), []);
    for standing in standings() {
        assert_eq!((standing.used, standing.reserved), (0, 0));
        // A calendar period ends when it ends, used or not.
        let resets_at = match standing.unit {
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
    let world = World::new(&[("key", &["1 concurrent", "1 requests/1m", "1 usd/1d"])]);
    for _ in 0..3 {
        drop(admitted(world.ask(&demand())));
    }
    let _ = admitted(world.ask(&demand())).release(NOW);
    assert_eq!(world.levels(NOW), [(0, 0); 3]);
}

#[test]
fn settling_books_real_use_and_charges_it() {
    let world = World::new(&[(
        "key",
        &[
            "5 concurrent",
            "5 requests/1m",
            "1000 tokens/1m",
            "10 usd/1d",
        ],
    )]);
    let reservation = admitted(world.ask(&demand()));
    let actual = Actual {
        requests: 1,
        tokens: Tokens(1_200),
        cost: NanoUsd(7),
    };
    let charges = reservation.settle(&actual, NOW.plus(Duration::from_secs(4)));
    let minute = i64::try_from(NOW.0 / 2_000).unwrap();
    let limits: Vec<_> = world.limits().collect();
    let charge = |limit: usize, epoch: i64, amount, expires_at| Charge {
        counter: limits[limit].id.to_string().into(),
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
    assert_eq!(world.levels(NOW), [(0, 0), (1, 0), (1_200, 0), (7, 0)]);
    // Beyond the limit: nothing remains, and the next one waits.
    assert_eq!(limits[2].standing(NOW).remaining, 0);
    assert_eq!(rejected(world.ask(&demand())).used, 1_200);
    // Nothing used, nothing charged.
    let team = World::new(&[("team", &["5 requests/1m", "10 usd/1d"])]);
    let reservation = admitted(team.ask(&demand()));
    assert_eq!(reservation.settle(&Actual::default(), NOW), []);
}

#[test]
fn a_request_larger_than_an_eventual_limit_passes_alone() {
    for limit in ["100 tokens/1m", "1 usd/1d"] {
        let world = World::new(&[("key", &[limit])]);
        let alone = admitted(world.ask(&demand()));
        let standing = world.limits().next().unwrap().standing(NOW);
        assert_eq!((standing.reserved, standing.remaining), (standing.limit, 0));
        let _ = rejected(world.ask(&demand()));
        let _ = alone.release(NOW);
        let small = Demand {
            tokens: Tokens(1),
            cost: NanoUsd(1),
            ..demand()
        };
        let _small = admitted(world.ask(&small));
        let _ = rejected(world.ask(&demand()));
    }
}

#[test]
fn a_request_that_needs_nothing_of_a_limit_passes_it() {
    let world = World::new(&[("key", &["100 tokens/1m", "1 usd/1d"])]);
    let full = admitted(world.ask(&demand()));
    let free = admitted(world.ask(&Demand::default()));
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
    let _ = full.release(NOW);
}

#[test]
fn headers_show_the_tightest_limits() {
    let world = World::new(&[
        (
            "key",
            &[
                "10 requests/1m",
                "1000 tokens/1m",
                "3 usd/1d",
                "2 concurrent",
            ],
        ),
        ("team", &["4 requests/1h", "100000 tokens/1h"]),
        ("azure", &["1 requests/1h"]),
        ("openai", &["1 requests/1h shadow"]),
    ]);
    let reservation = admitted(world.ask(&demand()));
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
    let held: Vec<_> = reservation
        .all_standings(NOW)
        .iter()
        .map(|standing| (standing.scope, standing.reserved, standing.shadow))
        .collect();
    assert_eq!(held.len(), 7, "the chosen provider's limit too");
    assert_eq!(held[6], (ScopeKind::Provider, 1, true));
    assert_eq!(reservation.held_tokens(), Tokens(150));
    assert_eq!(reservation.held_cost(), NanoUsd(1_500_000_000));
    let _ = reservation.release(NOW);
    let none = admitted(World::new(&[]).ask(&demand()));
    assert_eq!(none.standings(NOW), Tightest::default());
    assert_eq!(none.held_tokens(), Tokens(0));
    let actual = Actual {
        requests: 1,
        ..Actual::default()
    };
    assert_eq!(none.settle(&actual, NOW), []);
}
