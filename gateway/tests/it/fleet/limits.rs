//! One limit for all nodes: never passed by more than the bound they tell, whoever is asked.

use std::net::SocketAddr;
use std::time::Duration;

use super::{alone, bound, limits, scale, used};
use crate::harness::fleet::{Plan, chat};
use crate::harness::pressure::{Pressure, count, most_within};
use crate::harness::wait::within;
use crate::harness::{Fleet, eventually};

/// Five times the limit, offered to these targets evenly.
fn pace(targets: usize) -> Duration {
    let scale = scale();
    let offered = 5.0 * scale.limit as f64 / scale.window_length.as_secs_f64();
    Duration::from_secs_f64(targets as f64 / offered)
}

/// Presses a fleet of three on these nodes for four windows, and judges what came through.
#[track_caller]
fn check(name: &str, clients: &[usize]) {
    let _alone = alone();
    let scale = scale();
    let fleet = Fleet::start(3, Plan::limited(&limits()));
    let targets: Vec<SocketAddr> = clients.iter().map(|node| fleet.nodes[*node].data).collect();
    let pressure = Pressure::start(&targets, &chat(5), pace(targets.len()));
    let mut told = 0;
    within(scale.window_length * 4, || {
        let bounds = fleet.nodes.iter().map(|node| bound(node, "requests"));
        told = told.max(bounds.max().unwrap_or(0));
        None::<()>
    });
    let heard = pressure.stop();
    let most = most_within(&heard, scale.window_length);
    let (good, refused) = (count(&heard, 200), count(&heard, 429));
    println!(
        "{name}: most in a window {most} of {}, bound {told}, {good} good, {refused} refused",
        scale.limit
    );
    assert_eq!(count(&heard, 0), 0, "every request has an answer");
    assert!(
        refused > good,
        "{name}: it was more than the limit: {good} good, {refused} refused"
    );
    assert!(
        most <= scale.limit + told,
        "{name}: {most} in a window of {}, bound {told}",
        scale.limit
    );
    // The window slides by thirtieths, so up to a thirtieth is never used.
    assert!(
        most >= scale.limit * 8 / 10,
        "{name}: only {most} of {} were let through",
        scale.limit
    );
    for node in &fleet.nodes {
        eventually("all nodes count the same", || {
            let standing = node.standing("demo");
            let day = standing.iter().find(|one| one["limit"] == 1_000_000)?;
            (day["used"] == good && day["reserved"] == 0).then_some(())
        });
    }
    assert_eq!(fleet.provided()[0], good, "what the provider served");
}

#[test]
fn three_nodes_share_one_limit() {
    check("even", &[0, 1, 2, 0, 1, 2]);
}

#[test]
fn one_node_may_use_all_of_it() {
    check("one node", &[1, 1, 1]);
}

#[test]
fn a_node_with_a_wrong_clock_counts_like_the_others() {
    let _alone = alone();
    let mut plan = Plan::limited("rate_limits: [{requests: 300, every: 1h}]");
    plan.clocks = vec![0, 300_000, 0];
    let fleet = Fleet::start(3, plan);
    let targets: Vec<SocketAddr> = fleet.nodes.iter().map(|node| node.data).collect();
    let heard = Pressure::start(&targets, &chat(2), Duration::from_millis(20))
        .for_a(Duration::from_secs(4));
    let good = count(&heard, 200);
    let told: u64 = fleet
        .nodes
        .iter()
        .map(|node| bound(node, "requests"))
        .max()
        .unwrap_or(0);
    assert!(
        (300..=300 + told).contains(&good),
        "{good} of 300, bound {told}"
    );
    for node in &fleet.nodes {
        eventually("every node has seen all", || {
            (used(node, "requests") == good).then_some(())
        });
    }
    let members = crate::harness::fleet::members(&fleet.nodes[0]);
    let skewed = members
        .iter()
        .find(|member| member["node"] == "n2")
        .expect("n2");
    let offset = skewed["clock_offset_ms"].as_i64().expect("an offset");
    assert!((299_000..=301_000).contains(&offset), "{offset}");
    assert!(fleet.nodes[0].metric("tyr_cluster_clock_offset_seconds", "n2") > 299.0);
}
