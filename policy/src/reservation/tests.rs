use std::time::Duration;

use super::*;
use crate::demand::Demand;
use crate::scope::ScopeKind;
use crate::testing::{NOW, World, admitted, candidates, demand};

fn to(choice: usize) -> Candidate {
    candidates(&demand())[choice]
}

/// Moves, or names the limit that refused.
fn moving(
    world: &World,
    held: &mut Reservation,
    choice: usize,
    reached: bool,
) -> Result<(), String> {
    held.move_to(&world.snapshot, &world.key, &to(choice), reached, NOW)
        .map_err(|rejection| rejection.limit_label())
}

#[test]
fn a_move_ends_the_old_choice_and_takes_the_new_one() {
    let limits: &[&str] = &["5 requests/1m", "900 tokens/1m", "9 usd/1d", "5 concurrent"];
    let world = World::new(&[("key", limits), ("openai", limits), ("azure", limits)]);
    let mut held = admitted(world.ask(&demand()));
    let free = [(0, 0); 4];
    let taken = [(0, 1), (0, 150), (0, 1_500_000_000), (1, 0)];
    assert_eq!(world.levels(NOW), [taken, taken, free].concat());
    // Not reached: as if it had never been chosen.
    assert_eq!(moving(&world, &mut held, 1, false), Ok(()));
    assert_eq!(world.levels(NOW), [taken, free, taken].concat());
    assert_eq!(moving(&world, &mut held, 0, true), Ok(()));
    // Reached: one request, no tokens.
    let reached = [(1, 0), (0, 0), (0, 0), (0, 0)];
    assert_eq!(world.levels(NOW), [taken, taken, reached].concat());
    let actual = Actual {
        requests: 1,
        tokens: Tokens(7),
        cost: NanoUsd(8),
    };
    let charges: Vec<_> = held
        .settle(&actual, NOW)
        .iter()
        .map(|charge| (charge.counter.to_string(), charge.amount))
        .collect();
    let charge = |text: &str, amount| (text.to_owned(), amount);
    assert_eq!(
        charges,
        [
            charge("provider/azure/requests/1m/sliding", 1),
            charge("virtual_key/demo/requests/1m/sliding", 1),
            charge("virtual_key/demo/tokens/1m/sliding", 7),
            charge("virtual_key/demo/usd/1d/calendar", 8),
            charge("provider/openai/requests/1m/sliding", 1),
            charge("provider/openai/tokens/1m/sliding", 7),
            charge("provider/openai/usd/1d/calendar", 8),
        ]
    );
}

#[test]
fn a_choice_that_was_never_reached_is_left_uncounted() {
    let limits: &[&str] = &["5 requests/1m", "900 tokens/1m"];
    let world = World::new(&[("key", limits), ("openai", limits), ("azure", limits)]);
    let mut held = admitted(world.ask(&demand()));
    held.leave_choice(false, NOW);
    let actual = Actual {
        requests: 1,
        ..Actual::default()
    };
    assert_eq!(held.settle(&actual, NOW).len(), 1);
    let free = [(0, 0); 2];
    assert_eq!(world.levels(NOW), [[(1, 0), (0, 0)], free, free].concat());
}

#[test]
fn a_refused_move_leaves_the_common_part() {
    let world = World::new(&[
        ("key", &["1 concurrent"]),
        ("openai", &["3 requests/1m"]),
        ("azure", &["9 concurrent", "0 requests/1m"]),
        ("gpt", &["1 concurrent"]),
    ]);
    let mut held = admitted(world.ask(&demand()));
    let refused = Err("provider/azure/requests/1m".to_owned());
    assert_eq!(moving(&world, &mut held, 1, true), refused);
    let levels = |gpt| vec![(1, 0), (1, 0), (0, 0), (0, 0), (gpt, 0)];
    assert_eq!(world.levels(NOW), levels(0));
    // Another choice may follow; no second request is counted for the first.
    assert_eq!(moving(&world, &mut held, 2, true), refused);
    assert_eq!(world.levels(NOW), levels(0));
    // The limit of one in flight by the bare name is the request's own.
    assert_eq!(moving(&world, &mut held, 0, true), Ok(()));
    assert_eq!(moving(&world, &mut held, 0, false), Ok(()));
    let charges = held.release(NOW);
    let told: Vec<_> = charges.iter().map(|charge| charge.amount).collect();
    assert_eq!(told, [1], "what was reached stays charged");
    assert_eq!(world.levels(NOW)[..2], [(0, 0), (1, 0)]);
}

#[test]
fn moves_tell_what_shadow_limits_would_refuse() {
    let world = World::new(&[
        ("azure", &["0 requests/1m shadow"]),
        ("mini", &["0 requests/1m"]),
    ]);
    let mut held = admitted(world.ask(&demand()));
    assert!(moving(&world, &mut held, 2, false).is_err());
    assert_eq!(held.take_shadowed(), []);
    assert_eq!(moving(&world, &mut held, 1, false), Ok(()));
    let shadowed = held.take_shadowed();
    assert_eq!(shadowed.len(), 1);
    assert_eq!(shadowed[0].scope, ScopeKind::Provider);
    assert_eq!(held.take_shadowed(), []);
    assert_eq!(world.levels(NOW), [(0, 1), (0, 0)]);
}

#[test]
fn a_growing_answer_raises_its_holds() {
    // Eventual and shadow limits follow beyond their end, strict ones do not.
    check("300 tokens/1m", 400, Ok(()), 400);
    check("300 tokens/1m", 149, Ok(()), 150);
    check("100 tokens/1m", 120, Ok(()), 120);
    check("9 tokens/1m strict shadow", 600, Ok(()), 600);
    check("600 tokens/1m strict", 499, Ok(()), 500);
    check("600 tokens/1m strict", 600, Ok(()), 600);
    check(
        "600 tokens/1m strict",
        601,
        Err("virtual_key/demo/tokens/1m"),
        500,
    );
    check("5 usd/1d", 2_000, Ok(()), 2_000_000_000);
    check("5 usd/1d", 9_000, Ok(()), 9_000_000_000);
    check("6 usd/1d strict", 6_000, Ok(()), 6_000_000_000);
    check(
        "6 usd/1d strict",
        6_001,
        Err("virtual_key/demo/usd/1d"),
        5_000_000_000,
    );
    check("2 concurrent", 9_000, Ok(()), 1);
    check("2 requests/1m", 9_000, Ok(()), 1);
}

/// A request that has grown to `total` tokens and as many thousandths of a
/// dollar holds this much.
#[track_caller]
fn check(limit: &str, total: u64, outcome: Result<(), &str>, held: u64) {
    let world = World::new(&[("key", &[limit])]);
    let mut reservation = admitted(world.ask(&demand()));
    let raised = reservation.top_up(Tokens(total), NanoUsd(total * 1_000_000), NOW);
    let raised = raised.map_err(|rejection| rejection.limit_label());
    assert_eq!(raised, outcome.map_err(str::to_owned), "{limit}");
    let (used, reserved) = world.levels(NOW)[0];
    assert_eq!(used + reserved, held, "{limit}");
    drop(reservation);
    assert_eq!(world.levels(NOW), [(0, 0)], "{limit}");
}

#[test]
fn a_refused_top_up_leaves_every_strict_hold() {
    let world = World::new(&[
        ("key", &["9000 tokens/1m strict", "9000 tokens/1h"]),
        ("openai", &["9000 tokens/1m strict", "700 tokens/1h strict"]),
        ("gpt", &["9000 tokens/1m strict"]),
    ]);
    let mut held = admitted(world.ask(&demand()));
    let refused = held.top_up(Tokens(800), NanoUsd(0), NOW).unwrap_err();
    assert_eq!(refused.limit_label(), "provider/openai/tokens/1h");
    assert_eq!((refused.asked, refused.reserved), (800, 500));
    let reserved = |levels: Vec<(u64, u64)>| levels.into_iter().map(|(_, held)| held);
    let holds: Vec<_> = reserved(world.levels(NOW)).collect();
    assert_eq!(holds, [500, 800, 500, 500, 500]);
    assert!(held.top_up(Tokens(700), NanoUsd(0), NOW).is_ok());
    let holds: Vec<_> = reserved(world.levels(NOW)).collect();
    assert_eq!(holds, [700, 800, 700, 700, 700]);
    let _ = held.release(NOW);
    assert_eq!(world.levels(NOW), [(0, 0); 5]);
}

#[test]
fn a_long_stream_stays_in_the_window_by_its_top_ups() {
    let world = World::new(&[
        ("key", &["1000 tokens/1m"]),
        ("team", &["600 tokens/1m strict"]),
    ]);
    let candidate = [to(0)];
    let mut held = admitted(world.ask(&demand()));
    let later = |seconds| NOW.plus(Duration::from_secs(seconds));
    // The holds of the admission have left, and the window is free again.
    assert_eq!(world.levels(later(70)), [(0, 0); 2]);
    assert!(held.top_up(Tokens(120), NanoUsd(0), later(70)).is_ok());
    assert_eq!(world.levels(later(70)), [(0, 120); 2]);
    // Real tokens came later than the admission, and stay longer.
    assert!(held.top_up(Tokens(300), NanoUsd(0), later(100)).is_ok());
    assert_eq!(world.levels(later(150)), [(0, 300); 2]);
    // When others took the room of a hold that has left, a strict limit
    // refuses the rest and holds nothing for it.
    assert_eq!(world.levels(later(200)), [(0, 0); 2]);
    let others = crate::admit::admit(&world.snapshot, &world.key, None, &candidate, later(200));
    let _others = admitted(others);
    let refused = held
        .top_up(Tokens(400), NanoUsd(0), later(200))
        .unwrap_err();
    assert_eq!(refused.limit, 600);
    assert_eq!(world.levels(later(200)), [(0, 550), (0, 500)]);
    let actual = Actual {
        requests: 1,
        tokens: Tokens(450),
        cost: NanoUsd(0),
    };
    let charged: Vec<_> = held
        .settle(&actual, later(200))
        .iter()
        .map(|charge| charge.amount)
        .collect();
    assert_eq!(charged, [450, 450], "what was used is booked all the same");
    assert_eq!(world.levels(later(200)), [(450, 150), (450, 500)]);
}

#[test]
fn budgets_are_booked_in_the_period_of_admission() {
    let world = World::new(&[("key", &["9 usd/1d"])]);
    let mut held = admitted(world.ask(&demand()));
    let tomorrow = NOW.plus(Duration::from_secs(86_400));
    assert!(
        held.top_up(Tokens(0), NanoUsd(2_000_000_000), tomorrow)
            .is_ok()
    );
    assert_eq!(world.levels(NOW), [(0, 2_000_000_000)]);
    let actual = Actual {
        cost: NanoUsd(3),
        ..Actual::default()
    };
    let ask = Demand::default();
    let _next = admitted(world.ask_at(&ask, tomorrow));
    let charges = held.settle(&actual, tomorrow);
    assert_eq!((charges[0].epoch, charges[0].amount), (20_779, 3));
    assert_eq!(world.levels(tomorrow), [(0, 0)]);
}
