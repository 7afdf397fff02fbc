//! Nodes that do not hear the others: from their start, in a split, and without the store.

use super::COUNTER;
use super::fleet::{Fleet, LIMIT};
use crate::config::Partition;

/// More than any of the limits, asked on each node.
const ENOUGH: u64 = LIMIT + 10;

#[test]
fn nodes_that_never_hear_each_other_share_by_their_rows_in_the_store() {
    let mut fleet = Fleet::begun(3, |_| {});
    fleet.side = vec![0, 1, 2];
    fleet.pass(12_000);
    for node in 0..3 {
        assert_eq!(fleet.degraded(node), ["peers", "partition"]);
    }
    assert_eq!(fleet.admitted(ENOUGH), [30, 30, 30]);
    fleet.side = vec![0, 0, 0];
    fleet.pass(70_000);
    for node in 0..3 {
        assert!(fleet.degraded(node).is_empty(), "{node}");
    }
}

#[test]
fn two_islands_are_seen_though_each_is_whole() {
    let mut fleet = Fleet::begun(4, |config| config.configured_nodes = 2);
    fleet.side = vec![0, 0, 1, 1];
    fleet.pass(15_000);
    for node in 0..4 {
        assert_eq!(fleet.degraded(node), ["partition"], "{node}");
    }
    let admitted = fleet.admitted(ENOUGH);
    assert!(admitted.iter().sum::<u64>() <= LIMIT + 4, "{admitted:?}");
    assert!(admitted[0] + admitted[1] >= 45, "{admitted:?}");
}

#[test]
fn the_first_node_of_a_fleet_serves_alone_and_says_so() {
    let mut fleet = Fleet::begun(3, |_| {});
    fleet.off = vec![false, true, true];
    fleet.pass(5_000);
    assert_eq!(fleet.degraded(0), ["peers"]);
    assert_eq!(fleet.admitted(ENOUGH)[0], LIMIT);
    // One that expects nobody has nothing to say.
    let mut single = Fleet::begun(1, |_| {});
    single.pass(1_000);
    assert!(single.degraded(0).is_empty());
    assert_eq!(single.admitted(ENOUGH), [LIMIT]);
}

#[test]
fn a_node_that_starts_anew_while_it_is_cut_off_has_no_fresh_budget() {
    let mut fleet = Fleet::whole(3);
    let before = fleet.admitted(5);
    assert_eq!(before, [5, 5, 5]);
    fleet.pass(2_000);
    fleet.side[2] = 1;
    fleet.pass(4_000);
    fleet.restart(2, 20);
    fleet.pass(20_000);
    for node in 0..2 {
        assert_eq!(fleet.degraded(node), ["partition"]);
    }
    assert_eq!(fleet.degraded(2), ["peers", "partition"]);
    let after = fleet.admitted(ENOUGH);
    // 15 were used before. Two of three have 50 of the 75 that were left; the third has its part of
    // the whole, of which that is used.
    assert_eq!((after[0] + after[1], after[2]), (50, 15), "{after:?}");
}

#[test]
fn what_the_store_tells_of_the_other_side_is_not_taken_from_this_sides_part() {
    let mut fleet = Fleet::whole(3);
    let before = fleet.admitted(5);
    fleet.pass(2_000);
    fleet.side[2] = 1;
    let mut after = vec![0; 3];
    // Long enough for the others to be down, and for the store to be read because of that.
    for round in 0..60 {
        // One more is silent for a moment: what was told of the other stays told.
        fleet.side[0] = if round == 45 { 2 } else { 0 };
        for (sum, more) in after.iter_mut().zip(fleet.admitted(1)) {
            *sum += more;
        }
        fleet.pass(450);
    }
    let known = fleet.nodes[2]
        .table
        .counter(&COUNTER.parse().expect("a counter"));
    let known = known.total(fleet.nodes[2].now().wall);
    assert!(known > 25 + 15, "the store told of it: {known}");
    assert_eq!(before, [5, 5, 5]);
    assert_eq!((after[0] + after[1], after[2]), (50, 25), "{after:?}");
}

#[test]
fn who_goes_later_in_a_split_went_unnoticed_since_it_was_heard_last() {
    let mut fleet = Fleet::whole(3);
    fleet.side[1] = 1;
    fleet.pass(40_000);
    let first = fleet.nodes[0].core.split.gap;
    assert!(!first.is_zero() && first.as_secs() < 5, "{first:?}");
    fleet.side[2] = 2;
    fleet.pass(1_500);
    let split = &fleet.nodes[0].core.split;
    assert_eq!(split.apart.len(), 2);
    assert!(split.gap.as_secs() < 5, "{:?}", split.gap);
}

#[test]
fn two_that_do_not_hear_each_other_count_what_a_third_tells_of_the_other() {
    let mut fleet = Fleet::whole(3);
    fleet.parted = Some((0, 2));
    fleet.pass(2_000);
    let mut after = vec![0; 3];
    for _ in 0..100 {
        for node in [0, 2] {
            let now = fleet.nodes[node].now().wall;
            after[node] += fleet.limits[node].admitted(1, now);
        }
        fleet.pass(500);
    }
    assert!(after[0] + after[2] <= LIMIT, "{after:?}");
    assert!(after[0] + after[2] >= LIMIT / 2, "{after:?}");
}

#[test]
fn what_the_other_side_took_is_no_answer_larger_than_its_hold() {
    let mut fleet = Fleet::whole(3);
    fleet.side[2] = 1;
    fleet.pass(4_000);
    let admitted = fleet.admitted(ENOUGH);
    assert_eq!((admitted[0] + admitted[1], admitted[2]), (60, 30));
    // Each side stands at its part while the store tells of the other, and when they meet again.
    fleet.pass(20_000);
    fleet.side[2] = 0;
    fleet.pass(5_000);
    assert!((0..3).all(|node| fleet.degraded(node).is_empty()));
    for node in &fleet.nodes {
        let counters = &node.core.counting.counters;
        let slot = counters.find(COUNTER).expect("it was asked");
        let limited = counters
            .at(slot)
            .and_then(|tracked| tracked.limited.as_ref());
        assert_eq!(limited.expect("it has a limit").beyond.largest, 0);
    }
}

#[test]
fn a_member_whose_row_is_young_is_not_given_up() {
    let mut fleet = Fleet::whole(2);
    for node in &mut fleet.nodes {
        node.core.config.forget_after = std::time::Duration::from_secs(40);
    }
    fleet.side[1] = 1;
    fleet.pass(120_000);
    assert_eq!(fleet.degraded(0), ["peers", "partition"]);
    assert_eq!(fleet.admitted(ENOUGH), [45, 45]);
    // Without the store time is all there is.
    fleet.stored = vec![false, false];
    fleet.pass(70_000);
    assert_eq!(fleet.degraded(0), ["peers", "store"]);
    assert_eq!(fleet.admitted(ENOUGH)[0], LIMIT);
}

#[test]
fn who_reaches_neither_the_others_nor_the_store_stops_before_its_part_is_taken() {
    let mut fleet = Fleet::whole(3);
    fleet.side[2] = 1;
    fleet.stored[2] = false;
    fleet.pass(6_000);
    assert_eq!(fleet.admitted(10)[2], 10, "its row may be young still");
    let mut stopped = None;
    for _ in 0..60 {
        fleet.pass(500);
        if stopped.is_none() && fleet.degraded(2).contains(&"isolated") {
            stopped = Some(fleet.degraded(0));
        }
    }
    let others = stopped.expect("it stops");
    assert_eq!(others, ["partition"], "its part is not taken yet");
    assert!(fleet.degraded(0).is_empty(), "now it is");
    let admitted = fleet.admitted(ENOUGH);
    assert_eq!(admitted[2], 0);
    assert_eq!(admitted[0] + admitted[1] + 30, LIMIT + 10, "{admitted:?}");
    let view = fleet.nodes[0].core.view(fleet.nodes[0].now());
    let bound = view.limits[0].overshoot_bound.expect("a bound");
    assert!(bound >= 10, "{bound}");
}

#[test]
fn a_side_that_is_to_be_available_has_the_whole_and_tells_what_the_others_may_take() {
    let mut fleet = Fleet::begun(3, |config| config.partition = Partition::Available);
    fleet.pass(8_000);
    assert_eq!(fleet.admitted(10), [10, 10, 10]);
    fleet.pass(2_000);
    fleet.side[2] = 1;
    fleet.stored[2] = false;
    fleet.pass(14_000);
    assert_eq!(fleet.degraded(0), ["partition"]);
    assert_eq!(fleet.degraded(2), ["peers", "store", "partition"]);
    let rest = LIMIT - 30;
    let admitted = fleet.admitted(ENOUGH);
    assert!(admitted[0] + admitted[1] >= rest, "{admitted:?}");
    assert_eq!(admitted[2], rest);
    let bound = |fleet: &Fleet, node: usize| {
        let view = fleet.nodes[node].core.view(fleet.nodes[node].now());
        assert_ne!(view.limits[0].mode, policy::Mode::Share);
        view.limits[0].overshoot_bound.expect("a bound")
    };
    fleet.pass(1_000);
    assert!((rest..2 * rest).contains(&bound(&fleet, 0)));
    assert!((2 * rest..3 * rest).contains(&bound(&fleet, 2)));
}

#[test]
fn one_that_is_to_be_available_and_knows_of_nobody_tells_what_all_others_may_take() {
    let mut fleet = Fleet::begun(3, |config| config.partition = Partition::Available);
    fleet.side = vec![0, 1, 2];
    fleet.stored = vec![false; 3];
    fleet.pass(20_000);
    assert_eq!(fleet.admitted(ENOUGH), [LIMIT; 3]);
    fleet.pass(1_000);
    for node in &fleet.nodes {
        let view = node.core.view(node.now());
        let bound = view.limits[0].overshoot_bound.expect("a bound");
        assert!(bound >= 2 * LIMIT, "{bound}");
    }
}

#[test]
fn while_the_store_is_away_for_all_only_a_lesser_side_stops() {
    let mut fleet = Fleet::whole(3);
    fleet.stored = vec![false, false, false];
    fleet.pass(30_000);
    for node in 0..3 {
        assert_eq!(fleet.degraded(node), ["store"], "nobody is missing");
    }
    fleet.off[2] = true;
    fleet.pass(30_000);
    assert_eq!(fleet.degraded(0), ["store", "partition"]);
    let admitted = fleet.admitted(ENOUGH);
    assert_eq!(admitted[0] + admitted[1], 60, "{admitted:?}");
    fleet.off[1] = true;
    fleet.pass(30_000);
    let alone = fleet.degraded(0);
    assert_eq!(alone, ["peers", "store", "partition", "isolated"]);
    assert_eq!(fleet.admitted(ENOUGH)[0], 0);
}

#[test]
fn the_lesser_side_does_not_take_the_part_of_one_that_may_go_on_without_the_store() {
    let mut fleet = Fleet::whole(3);
    // The store is where the third node is.
    fleet.side = vec![0, 0, 1];
    fleet.stored = vec![false, false, true];
    fleet.pass(60_000);
    let admitted = fleet.admitted(ENOUGH);
    let sides = (admitted[0] + admitted[1], admitted[2]);
    assert_eq!(sides, (60, 30), "{admitted:?}");
}

#[test]
fn one_that_starts_without_peers_and_store_takes_nothing_of_shared_limits() {
    let mut fleet = Fleet::whole(2);
    fleet.side[1] = 1;
    fleet.stored[1] = false;
    fleet.restart(1, 20);
    fleet.pass(40_000);
    assert!(fleet.degraded(1).contains(&"isolated"));
    let admitted = fleet.admitted(ENOUGH);
    // A limit that nobody asked for before is judged at the next tick.
    assert!(admitted[0] == LIMIT && admitted[1] <= 1, "{admitted:?}");
}

#[test]
fn a_crash_gives_its_part_to_the_others() {
    let mut fleet = Fleet::whole(3);
    fleet.off[2] = true;
    fleet.pass(40_000);
    assert!(fleet.degraded(0).is_empty());
    let admitted = fleet.admitted(ENOUGH);
    assert!(admitted[0] + admitted[1] >= LIMIT, "{admitted:?}");
}

#[test]
fn a_leader_without_the_store_stands_back_while_others_have_it() {
    let mut fleet = Fleet::whole(3);
    let leaders = |fleet: &Fleet| -> Vec<String> {
        let leaders = (0..3).filter_map(|node| fleet.leader(node));
        leaders.collect()
    };
    assert_eq!(leaders(&fleet), ["n1", "n1", "n1"]);
    fleet.stored[0] = false;
    fleet.pass(30_000);
    assert_eq!(leaders(&fleet), ["n2", "n2", "n2"]);
    fleet.stored = vec![false, false, false];
    fleet.pass(40_000);
    assert_eq!(leaders(&fleet), ["n1", "n1", "n1"], "what needs no term");
    fleet.stored = vec![false, true, true];
    fleet.pass(15_000);
    // Who links anew is told, too.
    fleet.restart(2, 20);
    fleet.pass(15_000);
    assert_eq!(leaders(&fleet), ["n2", "n2", "n2"]);
    fleet.stored[0] = true;
    fleet.pass(15_000);
    assert_eq!(leaders(&fleet), ["n1", "n1", "n1"]);
}

#[test]
fn what_tasks_found_is_asked_for_until_the_store_tells() {
    let mut fleet = Fleet::begun(1, |_| {});
    fleet.fail_outcomes = 2;
    fleet.pass(10_000);
    assert_eq!(fleet.asked_outcomes, 3);
}

#[test]
fn parts_of_a_strict_limit_are_never_more_than_the_limit() {
    use policy::Enforcement;

    use super::super::Command;
    use super::limited::Limited;
    const TEXT: &str = "virtual_key/b/requests/1h/sliding";
    // (places in the list, what each admits)
    let cases = [
        ([Some(0), Some(1), Some(2)], [4, 3, 3]),
        ([None, None, None], [3, 3, 3]),
    ];
    for (ranks, parts) in cases {
        // They never hear each other, so each sees only itself.
        let mut fleet = Fleet::begun(3, |_| {});
        fleet.side = vec![0, 1, 2];
        for (node, rank) in ranks.into_iter().enumerate() {
            let nodes = 3;
            fleet.nodes[node].order(Command::SetConfigured { nodes, rank });
            let table = &fleet.nodes[node].table;
            fleet.limits[node] = Limited::new(table, TEXT, 10, Enforcement::Strict);
        }
        fleet.pass(12_000);
        assert_eq!(fleet.admitted(12), parts);
        let view = fleet.nodes[0].core.view(fleet.nodes[0].now());
        assert_eq!(view.divided_among, Some(3));
    }
}

#[test]
fn who_said_goodbye_is_missed_by_nobody() {
    let mut fleet = Fleet::whole(3);
    fleet.pass(4_000);
    fleet.leave(2);
    // One that starts now has nothing but the row.
    fleet.restart(1, 20);
    for _ in 0..30 {
        fleet.pass(500);
        for node in 0..2 {
            let degraded = fleet.degraded(node);
            assert!(!degraded.contains(&"partition"), "{degraded:?}");
        }
    }
    assert!(fleet.degraded(1).is_empty());
}

#[test]
fn who_was_given_up_stays_so_when_another_goes_too() {
    let mut fleet = Fleet::whole(3);
    fleet.off[2] = true;
    fleet.pass(30_000);
    assert!(fleet.degraded(0).is_empty());
    // Two of three gave the third up. The one that stays does not doubt it.
    fleet.leave(1);
    fleet.pass(30_000);
    assert_eq!(fleet.degraded(0), ["peers"]);
    assert_eq!(fleet.admitted(ENOUGH)[0], LIMIT);
    fleet.restart(1, 20);
    fleet.pass(10_000);
    assert!(fleet.degraded(0).is_empty());
    // The third is there after all.
    fleet.off[2] = false;
    fleet.side[2] = 1;
    fleet.pass(10_000);
    assert_eq!(fleet.degraded(0), ["partition"]);
}
