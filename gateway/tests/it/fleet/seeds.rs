//! Seed lists that do not meet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Check, bound, scale};
use crate::harness::database::readiness;
use crate::harness::fleet::{Plan, WHOLE, chat, up_in};
use crate::harness::pressure::{Pressure, count};
use crate::harness::wait::{look_for, within};
use crate::harness::{Fleet, Node};

/// How long nodes may take to see who has a row and is no member: rows are read every 5 s, and one
/// that is about to join has 3 s.
const TOLD: Duration = Duration::from_secs(8);

/// Whom a node says to be missing, by name.
fn missing(node: &Node) -> Vec<String> {
    let view = node.shown("/api/cluster");
    let detail = view["detail"].as_array().expect("a list").iter();
    let found = detail.filter(|one| one["reason"] == "partition");
    let names = found.filter_map(|one| one["nodes"].as_array()).flatten();
    let mut names: Vec<String> = names.filter_map(Value::as_str).map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// Four nodes that run, as two pairs of which each knows itself alone.
fn two_pairs(limit: u64) -> Fleet {
    let mut plan = Plan::limited(&format!("rate_limits: [{{requests: {limit}, every: 1d}}]"));
    plan.seeds = vec![vec![1], vec![0], vec![3], vec![2]];
    let mut fleet = Fleet::prepare(4, plan);
    for node in 0..4 {
        fleet.nodes.push(fleet.launch(node));
    }
    let paired = within(WHOLE, || {
        let mut nodes = fleet.nodes.iter();
        nodes
            .all(|node| node.readyz() == Some(200) && up_in(node).len() == 2)
            .then_some(())
    });
    assert!(paired.is_some(), "{}", fleet.nodes[0].process.log());
    fleet
}

/// Each pair has its share while they do not know each other, and one node that lists all heals it.
#[test]
fn seed_lists_that_do_not_meet_are_told_and_one_node_heals_them() {
    let check = Check::begin("R28");
    const LIMIT: u64 = 120;
    let mut fleet = two_pairs(LIMIT);
    let begun = Instant::now();
    let names = [["n1", "n2"], ["n3", "n4"]];
    let told = within(WHOLE, || {
        let mut nodes = fleet.nodes.iter().enumerate();
        nodes
            .all(|(node, shown)| missing(shown) == names[1 - node / 2])
            .then(|| begun.elapsed())
    });
    let told = told.unwrap_or_else(|| panic!("{}", fleet.nodes[0].shown("/api/cluster")));
    assert!(told < TOLD * scale().patience, "{told:?}");
    for node in &fleet.nodes {
        let (status, parts) = readiness(node);
        assert!(
            status == 200 && parts.iter().any(|part| part == "partition"),
            "{parts:?}"
        );
        assert_eq!(node.metric("tyr_degraded", "reason=\"partition\""), 1.0);
    }
    let press = |nodes: [usize; 2]| {
        let to: Vec<SocketAddr> = nodes.iter().map(|node| fleet.nodes[*node].data).collect();
        Pressure::start(&to, &chat(2), Duration::from_millis(20))
    };
    let pairs = [press([0, 1]), press([2, 3])];
    look_for(Duration::from_secs(6), || {});
    let modes =
        [0, 2].map(|node| fleet.nodes[node].standing_of("demo", "requests")["mode"].clone());
    let bounds: Vec<u64> = fleet
        .nodes
        .iter()
        .map(|node| bound(node, "requests"))
        .collect();
    let good = pairs.map(|pair| count(&pair.stop(), 200));
    // One node that lists all of them, in place of one that did not; the others go on.
    let boots = |fleet: &Fleet| [0, 2, 3].map(|node| fleet.nodes[node].process.id());
    let before = boots(&fleet);
    fleet.plan.seeds[1] = vec![0, 2, 3];
    fleet.nodes[1].write_conf(&fleet.conf_of(1));
    fleet.nodes[1].process.signal("TERM");
    let ended = fleet.nodes[1].process.wait(Duration::from_secs(30));
    assert!(ended.is_some(), "it ends");
    let again = Instant::now();
    fleet.nodes[1].start_again();
    fleet.await_whole();
    let whole = within(WHOLE, || {
        let mut nodes = fleet.nodes.iter();
        nodes
            .all(|node| readiness(node) == (200, Vec::new()))
            .then(|| again.elapsed())
    });
    let late = Pressure::start(
        &[0, 1, 2, 3].map(|node| fleet.nodes[node].data),
        &chat(2),
        Duration::from_millis(20),
    )
    .for_a(Duration::from_secs(2));
    let agreed = fleet.agree(Duration::from_secs(30));
    check.measured(
        format!(
            "two pairs that do not know each other: told after {told:?}; of {LIMIT} they give {good:?}, bounds {bounds:?}; \
             one node with a full list: whole after {whole:?}, {} more",
            count(&late, 200)
        ),
        format!("{TOLD:?}; {} each", LIMIT / 2),
    );
    assert_eq!(modes, ["share", "share"]);
    for pair in good {
        let share = LIMIT / 2;
        assert!((share * 8 / 10..=share + 4).contains(&pair), "{good:?}");
    }
    assert!(
        whole.is_some(),
        "{:?}",
        fleet.nodes.iter().map(readiness).collect::<Vec<_>>()
    );
    assert_eq!(boots(&fleet), before, "nobody else started anew");
    assert_eq!(agreed.on.requests, good[0] + good[1] + count(&late, 200));
    assert!(agreed.on.requests <= LIMIT + 8, "{:?}", agreed.on);
}
