use proptest::prelude::*;

use super::*;

fn node(number: u128) -> NodeKey {
    NodeKey(number)
}

fn sight(nodes: u64) -> Sight {
    Sight {
        nodes,
        interval: Duration::from_millis(100),
        delay: Duration::from_millis(50),
        tick: Duration::from_millis(10),
        skew: Duration::from_millis(5),
    }
}

#[test]
fn the_band_is_what_all_can_take_unheard() {
    assert_eq!(band(1_000.0, &sight(3)), 150);
    assert_eq!(band(0.1, &sight(3)), 1);
    assert_eq!(band(0.0, &sight(3)), 0);
}

#[test]
fn triggers() {
    // (limit, seen, nodes, trigger)
    let cases = [
        (100_000, 0, 10, 100),
        (100_000, 90_000, 10, 10),
        (100_000, 100_000, 10, 1),
        (100_000, 200_000, 10, 1),
        (10, 0, 3, 1),
        (1_000, 0, 0, 10),
    ];
    for (limit, seen, nodes, expected) in cases {
        assert_eq!(
            trigger(limit, seen, nodes),
            expected,
            "{limit} {seen} {nodes}"
        );
    }
}

#[test]
fn far_from_its_limit_a_counter_of_a_large_fleet_is_told_less_often() {
    let base = Duration::from_millis(100);
    // (seen, limit, nodes, ms)
    let cases = [
        (0, Some(100), 3, 100),
        (0, None, 100, 100),
        (0, Some(100), 8, 100),
        (0, Some(100), 9, 1_000),
        (49, Some(100), 9, 1_000),
        (50, Some(100), 9, 250),
        (89, Some(100), 9, 250),
        (90, Some(100), 9, 100),
        (500, Some(100), 9, 100),
    ];
    for (seen, limit, nodes, ms) in cases {
        let expected = Duration::from_millis(ms);
        assert_eq!(
            interval(base, seen, limit, nodes),
            expected,
            "{seen} {limit:?} {nodes}"
        );
    }
}

#[test]
fn a_side_gets_its_share_of_what_was_left() {
    // (limit, base, visible, members, ceiling)
    let cases = [
        (600, 0, 1, 3, 200),
        (600, 300, 1, 3, 400),
        (600, 300, 2, 3, 500),
        (600, 600, 2, 3, 600),
        (600, 900, 2, 3, 600),
        (10, 0, 1, 3, 3),
        (10, 0, 3, 3, 10),
        (10, 0, 5, 3, 10),
        (10, 0, 1, 0, 0),
        (u64::MAX, 0, 1, 2, u64::MAX / 2),
    ];
    for (limit, base, visible, members, expected) in cases {
        let ceiling = share_ceiling(limit, base, visible, members);
        assert_eq!(ceiling, expected, "{limit} {base} {visible} {members}");
    }
}

#[test]
fn a_silent_peer_takes_no_more_than_its_part() {
    let second = Duration::from_secs(1);
    assert_eq!(silent(10.0, second, 1_000, 4), 10);
    assert_eq!(silent(10.0, second * 100, 1_000, 4), 250);
    assert_eq!(silent(0.0, second, 1_000, 4), 0);
    assert_eq!(silent(10.0, second, 0, 4), 0);
}

#[test]
fn the_bound_takes_the_better_of_time_and_trigger() {
    // 100/s: 15 by time, or 1 % of 600 = 6 and 6 by trigger; 0.5 by skew.
    assert_eq!(overshoot_bound(600, 100.0, 0, &sight(3)), 13);
    // Of a large limit the time is better.
    assert_eq!(overshoot_bound(1_000_000, 100.0, 0, &sight(3)), 16);
    // No node sends before its first unit, and all others may take theirs at once.
    assert_eq!(overshoot_bound(10, 0.0, 0, &sight(3)), 2);
    assert_eq!(overshoot_bound(10, 1.0, 7, &sight(3)), 2 + 1 + 7);
    assert_eq!(overshoot_bound(600, 100.0, 7, &sight(1)), 7);
}

#[test]
fn the_last_ones_go_to_who_uses_the_limit() {
    let rates = [(node(1), 0.0), (node(2), 50.0), (node(3), 0.0)];
    let part = |me| part_of(1, "c", node(me), &rates);
    assert_eq!([part(1), part(2), part(3)], [0, 1, 0]);
}

#[test]
fn who_begins_has_something() {
    let rates = [(node(1), 100.0), (node(2), 0.0)];
    assert!(part_of(1_000, "c", node(2), &rates) >= 20);
    assert!(part_of(1_000, "c", node(1), &rates) >= 950);
    assert_eq!(part_of(7, "c", node(1), &[]), 7);
}

#[test]
fn a_rate_follows_and_fades() {
    let mut rate = Rate::default();
    let ms = Duration::from_millis;
    for step in 0..50 {
        rate.add(10, ms(1_000 + step * 100));
    }
    let now = ms(1_000 + 49 * 100);
    assert!((rate.at_time(now) - 100.0).abs() < 20.0, "{rate:?}");
    assert!(rate.at_time(now + ms(1_000)) < 70.0);
    assert!(rate.at_time(now + ms(20_000)) < 0.1);
    let mut peak = Peak::default();
    peak.add(100.0, now);
    peak.add(1.0, now + ms(5_000));
    let left = peak.at_time(now + ms(5_000));
    assert!((50.0..70.0).contains(&left), "{left}");
}

#[test]
fn the_choice_is_the_same_on_every_node_and_moves_little() {
    let nodes = [1_u128, 2, 3, 4, 5].map(node);
    let mut counts = [0; 6];
    let mut moved = 0;
    for number in 0..1_000 {
        let name = format!("key-{number}");
        let with = rendezvous::chosen(&name, nodes.iter().copied()).expect("five nodes");
        let reversed = rendezvous::chosen(&name, nodes.iter().rev().copied());
        assert_eq!(Some(with), reversed);
        let without = rendezvous::chosen(&name, nodes[..4].iter().copied());
        moved += usize::from(Some(with) != without);
        counts[with.0 as usize] += 1;
    }
    assert!(
        counts[1..].iter().all(|count| (120..=280).contains(count)),
        "{counts:?}"
    );
    assert_eq!(moved, counts[5], "only what the missing one had moves");
}

proptest! {
    #[test]
    fn parts_add_up_to_the_rest(
        rest in 0_u64..1_000_000_000,
        rates in prop::collection::vec(0.0_f64..1e6, 1..12),
    ) {
        let rates: Vec<(NodeKey, f64)> = (1..).map(node).zip(rates).collect();
        let sum: u64 = rates
            .iter()
            .map(|(me, _)| part_of(rest, "virtual_key/a/requests/1m/sliding", *me, &rates))
            .sum();
        prop_assert_eq!(sum, rest);
    }

    #[test]
    fn shares_of_all_sides_are_no_more_than_the_limit(
        limit: u64,
        base in 0_u64..1_000_000,
        sides in prop::collection::vec(1_u64..20, 1..6),
    ) {
        let members: u64 = sides.iter().sum();
        let base = base.min(limit);
        let sum: u128 = sides
            .iter()
            .map(|side| u128::from(share_ceiling(limit, base, *side, members) - base))
            .sum();
        prop_assert!(u128::from(base) + sum <= u128::from(limit));
    }

    #[test]
    fn a_bound_grows_with_the_rate_and_the_delay(
        limit in 1_u64..1_000_000, rate in 0.0_f64..1e6, more in 0.0_f64..1e4, ms in 0_u64..5_000,
    ) {
        let bound = overshoot_bound(limit, rate, 0, &sight(5));
        prop_assert!(overshoot_bound(limit, rate + more, 0, &sight(5)) >= bound);
        let slower = Sight { delay: sight(5).delay + Duration::from_millis(ms), ..sight(5) };
        prop_assert!(overshoot_bound(limit, rate, 0, &slower) >= bound);
    }
}
