//! Nodes that die, stop, or are cut off, and a database that goes away.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{alone, bound, limits, scale, used};
use crate::harness::database::readiness;
use crate::harness::fleet::{Plan, chat, state_of};
use crate::harness::load::Load;
use crate::harness::pressure::{Pressure, count, most_within};
use crate::harness::wait::within;
use crate::harness::{Ask, Fleet, eventually};

const WIDE: &str = "rate_limits: [{requests: 1000000, every: 1d}, {tokens: 1000000000, every: 1d}]\nbudgets: [{limit_usd: 1000000, every: 1Y}]";

/// What a kill may take: what was settled in the last commit interval, on a busy machine.
const AT_RISK: Duration = Duration::from_millis(300);

/// Waits until `node` sees `name` in one of these states; how long it took.
#[track_caller]
fn until_seen(
    fleet: &Fleet,
    node: usize,
    name: &str,
    states: &[&str],
    at_most: Duration,
) -> Duration {
    let begun = Instant::now();
    let seen = within(at_most, || {
        let state = state_of(&fleet.nodes[node], name);
        let state = state.as_deref()?;
        states.contains(&state).then_some(())
    });
    assert!(
        seen.is_some(),
        "{name} is not {states:?} after {at_most:?} but {:?}",
        state_of(&fleet.nodes[node], name)
    );
    begun.elapsed()
}

#[test]
fn a_kill_costs_the_others_no_request_and_no_count() {
    let _alone = alone();
    let mut fleet = Fleet::start(3, Plan::limited(WIDE));
    let of = |node: usize| Load::start(fleet.nodes[node].data, vec![chat(3), chat(4)]);
    let (doomed, others) = (of(0), [of(1), of(2)]);
    within(Duration::from_secs(30), || {
        (doomed.served() > 200).then_some(())
    })
    .expect("traffic");
    let killed = Instant::now();
    fleet.nodes[0].process.kill();
    let took = (1..3)
        .map(|node| until_seen(&fleet, node, "n1", &["down"], Duration::from_secs(15)))
        .max();
    println!("a killed node is down for the others after {took:?}");
    let goal = others[0].served() + 100;
    within(Duration::from_secs(30), || {
        (others[0].served() > goal).then_some(())
    })
    .expect("traffic goes on");
    let mut served = BTreeSet::new();
    for load in others {
        for diary in load.stop() {
            assert!(diary.fault.is_none(), "{:?}", diary.fault);
            served.extend(diary.served.into_iter().map(|one| one.request_id));
        }
    }
    for diary in doomed.stop() {
        let safe = diary
            .served
            .into_iter()
            .filter(|one| killed.duration_since(one.at) > AT_RISK);
        served.extend(safe.map(|one| one.request_id));
    }
    fleet.nodes[0].start_again();
    fleet.await_whole();
    let lost = within(Duration::from_secs(20), || {
        let kept: BTreeSet<String> = fleet.database.request_ids().into_iter().collect();
        served.is_subset(&kept).then_some(())
    });
    assert!(lost.is_some(), "records of answers are lost");
    // Live counts may lack what the dead node did in its last sync; the store makes up for it, once
    // its files are there. Some of its records are of answers that nobody got any more.
    let counted = within(Duration::from_secs(60), || {
        let records = fleet.database.usage().records;
        let same = |node| used(node, "requests") == records;
        fleet.nodes.iter().all(same).then_some(())
    });
    let seen: Vec<u64> = fleet
        .nodes
        .iter()
        .map(|node| used(node, "requests"))
        .collect();
    let usage = fleet.database.usage();
    assert!(
        counted.is_some(),
        "nodes count {seen:?}, stored are {usage:?}"
    );
}

#[test]
fn parted_nodes_keep_to_their_share_and_agree_again() {
    let _alone = alone();
    let scale = scale();
    let fleet = Fleet::start(3, Plan::limited(&limits()));
    let targets: Vec<SocketAddr> = fleet.nodes.iter().map(|node| node.data).collect();
    let pace = Duration::from_secs_f64(
        3.0 * scale.window_length.as_secs_f64() / (4.0 * scale.limit as f64),
    );
    let pressure = Pressure::start(&targets, &chat(2), pace);
    within(scale.window_length, || None::<()>);
    fleet.network.cut(&[2]);
    let mut told = 0;
    within(scale.partition.max(scale.window_length * 2), || {
        let bounds = fleet.nodes.iter().map(|node| bound(node, "requests"));
        told = told.max(bounds.max().unwrap_or(0));
        None::<()>
    });
    fleet.network.heal();
    let healed = Instant::now();
    fleet.await_whole();
    println!("whole again after {:?}", healed.elapsed());
    let heard = pressure.stop();
    let (most, good) = (most_within(&heard, scale.window_length), count(&heard, 200));
    println!(
        "parted 2 and 1: most in a window {most} of {}, bound {told}",
        scale.limit
    );
    assert!(
        most <= scale.limit + told,
        "{most} of {} in a window, bound {told}",
        scale.limit
    );
    for node in &fleet.nodes {
        eventually("all totals are the sum of the answers", || {
            let standing = node.standing("demo");
            let day = standing.iter().find(|one| one["limit"] == 1_000_000)?;
            (day["used"] == good && day["reserved"] == 0).then_some(())
        });
    }
    assert_eq!(fleet.provided()[0], good, "what the provider served");
    let stored = within(Duration::from_secs(10), || {
        (fleet.database.usage().records == good).then_some(())
    });
    assert!(
        stored.is_some(),
        "{good} answers, {:?} in Postgres",
        fleet.database.usage()
    );
}

#[test]
fn a_stopped_node_is_left_and_comes_back() {
    let _alone = alone();
    let fleet = Fleet::start(3, Plan::limited(WIDE));
    fleet.nodes[2].process.signal("STOP");
    let left = until_seen(
        &fleet,
        0,
        "n3",
        &["down", "suspect", "degraded"],
        Duration::from_secs(15),
    );
    let down = until_seen(
        &fleet,
        0,
        "n3",
        &["down"],
        scale().pause + Duration::from_secs(10),
    );
    println!(
        "a stopped node is noticed after {left:?} and down after {:?}",
        left + down
    );
    fleet.nodes[2].process.signal("CONT");
    let back = until_seen(&fleet, 0, "n3", &["up"], Duration::from_secs(30));
    println!("and up again {back:?} after it goes on");
    fleet.await_whole();
    let made = fleet.nodes[2].made_key(&json!({"name": "late", "providers": [{"name": "openai"}]}));
    for node in &fleet.nodes {
        eventually("the key of the node that was away works everywhere", || {
            (node.ask(&chat(1).bearer(&made)).status() == 200).then_some(())
        });
    }
}

#[test]
fn postgres_may_go_and_a_node_may_join_meanwhile() {
    let _alone = alone();
    let mut fleet = Fleet::start(3, Plan::limited(WIDE));
    let made = fleet.nodes[0].made_key(&json!({"name": "made", "providers": [{"name": "openai"}]}));
    let asks = |key: &str| vec![chat(3), chat(5).bearer(key)];
    let loads: Vec<Load> = fleet.nodes[..2]
        .iter()
        .map(|node| Load::start(node.data, asks(&made)))
        .collect();
    fleet.database.server.crash();
    let refused = fleet.nodes[1].call("POST", "/api/customers", &json!({"name": "nobody"}));
    assert_eq!(refused.status(), 503, "{}", refused.text());
    // A node that comes while the store is away learns everything from the others.
    fleet.nodes[2].process.kill();
    fleet.nodes[2].start_again();
    let answer = fleet.nodes[2].ask(&chat(1).bearer(&made));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let before = used(&fleet.nodes[0], "requests");
    let behind = eventually("the new node counts what the others did", || {
        let seen = used(&fleet.nodes[2], "requests");
        (seen >= before).then_some(seen)
    });
    assert!(behind > 0);
    revoked_everywhere(&fleet, &made, Duration::from_secs(1));
    within(scale().outage, || None::<()>);
    fleet.database.server.resume();
    let mut good = 2;
    for diary in loads.into_iter().flat_map(Load::stop) {
        good += diary.served.len() as u64;
        // The made key was revoked under its clients; nothing else may have gone wrong.
        let fault = diary.fault.map(|(_, fault)| fault).unwrap_or_default();
        assert!(fault.is_empty() || fault.contains("401"), "{fault}");
    }
    let records = within(Duration::from_secs(60), || {
        let whole = fleet
            .nodes
            .iter()
            .all(|node| readiness(node) == (200, Vec::new()));
        let found = fleet.database.usage().records;
        (whole && found >= good - 1).then_some(found)
    });
    let records = records.unwrap_or_else(|| panic!("{:?} of {good}", fleet.database.usage()));
    assert_eq!(
        fleet.provided()[0],
        records,
        "what the provider served, and the store"
    );
    revoked_everywhere(&fleet, &made, Duration::from_secs(1));
}

/// Revokes the key of that name on one node; every node refuses it in time.
#[track_caller]
fn revoked_everywhere(fleet: &Fleet, key: &str, at_most: Duration) {
    let answer = fleet.nodes[1].call("POST", "/api/virtual-keys/made/revoke", &json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let begun = Instant::now();
    for node in &fleet.nodes {
        let ask: Ask = chat(1).bearer(key);
        let refused = within(at_most, || (node.ask(&ask).status() == 401).then_some(()));
        assert!(
            refused.is_some(),
            "the key still works after {:?}",
            begun.elapsed()
        );
    }
    let told = answer.json();
    assert_eq!(told["applied_on"], "3/3", "{told}");
}
