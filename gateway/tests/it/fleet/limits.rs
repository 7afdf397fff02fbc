//! One limit for all nodes: never passed by more than the bound they tell, whoever is asked.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Check, bound, limits, scale};
use crate::harness::Fleet;
use crate::harness::fleet::{Plan, chat, members};
use crate::harness::pressure::{Pressure, count, most_within};
use crate::harness::wait::look_for;

/// How long all may take to agree once nothing is asked any more.
const AGREED: Duration = Duration::from_secs(30);

/// Five times the limit, offered to these targets evenly.
fn pace(targets: usize) -> Duration {
    let scale = scale();
    let offered = 5.0 * scale.limit as f64 / scale.window_length.as_secs_f64();
    Duration::from_secs_f64(targets as f64 / offered)
}

/// Presses a fleet of three on these nodes for some windows, and judges what came through.
#[track_caller]
fn press(check: &Check, name: &str, clients: &[usize], clocks: Vec<i64>) -> Fleet {
    let scale = scale();
    let mut plan = Plan::limited(&limits());
    plan.clocks = clocks;
    let fleet = Fleet::start(3, plan);
    let targets: Vec<SocketAddr> = clients.iter().map(|node| fleet.nodes[*node].data).collect();
    let pressure = Pressure::start(&targets, &chat(5), pace(targets.len()));
    let mut told = 0;
    look_for(scale.window_length * scale.windows, || {
        let bounds = fleet.nodes.iter().map(|node| bound(node, "requests"));
        told = told.max(bounds.max().unwrap_or(0));
    });
    let heard = pressure.stop();
    let most = most_within(&heard, scale.window_length);
    let (good, refused) = (count(&heard, 200), count(&heard, 429));
    let agreed = fleet.agree(AGREED);
    check.measured(
        format!(
            "{name}: {most} in the fullest {}, {good} good, {refused} refused; all agree after {:?}",
            scale.window, agreed.nodes
        ),
        format!("{} + {told}", scale.limit),
    );
    assert_eq!(count(&heard, 0), 0, "every request has an answer");
    assert_eq!(agreed.on.requests, good, "what the provider served");
    assert!(
        refused > good,
        "{name}: it was more than the limit: {good} good, {refused} refused"
    );
    // A bound that allows anything promises nothing, but for a clock that is not known yet.
    if fleet.plan.clocks.is_empty() {
        told = told.min(scale.limit / 4);
    }
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
    fleet
}

#[test]
fn three_nodes_share_one_limit() {
    press(&Check::begin("R3"), "even", &[0, 1, 2, 0, 1, 2], Vec::new());
}

#[test]
fn one_node_may_use_all_of_it() {
    press(&Check::begin("R3"), "one node", &[1, 1, 1], Vec::new());
}

/// Presses with the second node's clock this far ahead.
#[track_caller]
fn press_with_clock(name: &str, ahead_ms: i64) {
    let check = Check::begin("R6");
    let fleet = press(&check, name, &[0, 1, 2, 0, 1, 2], vec![0, ahead_ms, 0]);
    let members = members(&fleet.nodes[0]);
    let skewed = members.iter().find(|member| member["node"] == "n2");
    let offset = skewed.expect("n2")["clock_offset_ms"].as_i64();
    let offset = offset.expect("an offset");
    assert!((offset - ahead_ms).abs() < 1_000, "{offset}");
    let shown = fleet.nodes[0].metric("tyr_cluster_clock_offset_seconds", "n2");
    assert!((shown - ahead_ms as f64 / 1_000.0).abs() < 1.0, "{shown}");
    check.measured(format!("{name}: metrics show {shown} s"), "it is shown");
}

#[test]
fn a_node_whose_clock_is_ahead_counts_like_the_others() {
    press_with_clock("5 min ahead", 300_000);
}

#[test]
fn a_node_whose_clock_is_behind_counts_like_the_others() {
    press_with_clock("5 min behind", -300_000);
}
