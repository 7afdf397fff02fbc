//! All nodes restarted one after the other, also from an older version to the newest.
//!
//! `TYR_PREVIOUS_BIN` names the program to upgrade from; without it the one under test is pinned to
//! the older protocol.

use std::time::Duration;

use super::{Check, scale};
use crate::harness::balanced::Balanced;
use crate::harness::client::Ask;
use crate::harness::conf::OTHER_KEY;
use crate::harness::fleet::{Plan, chat, counting, members};
use crate::harness::wait::within;
use crate::harness::{Conf, Fleet, eventually, previous_binary};

/// Requests of the demo key in all.
const LIMIT: u64 = 300;

/// A plan with this limit, and time for streams to end.
fn plan() -> Plan {
    let mut plan = Plan::limited("");
    plan.conf = Box::new(|provider| {
        let conf = Conf::for_upstream(provider)
            .server(&format!("drain_grace: {}s", scale().grace.as_secs()))
            // All clients come from here, and two nodes have those of three meanwhile.
            .server("max_connections_per_address: 10000");
        counting(
            conf,
            &format!("rate_limits: [{{requests: {LIMIT}, every: 1d}}]"),
        )
    });
    plan
}

/// A stream of the other key, which has no limit.
fn stream() -> Ask {
    let (tokens, pace) = (scale().stream_tokens, scale().token_ms);
    let body = serde_json::json!({"model": "gpt-4o-mini", "stream": true, "max_tokens": tokens,
        "messages": [{"role": "user", "content": "a long answer, please"}]});
    Ask::post("/v1/chat/completions", &body)
        .bearer(OTHER_KEY)
        .header("x-mock", &format!("tokens={tokens} token_ms={pace}"))
}

/// Ends each node and starts it again, one after the other.
fn roll(fleet: &mut Fleet) {
    for index in 0..fleet.nodes.len() {
        let node = &mut fleet.nodes[index];
        node.process.signal("TERM");
        let ended = node.process.wait(scale().grace * 2);
        assert!(
            ended.is_some_and(|status| status.success()),
            "{}",
            node.process.log()
        );
        node.renew_program();
        node.start_again();
        fleet.await_whole();
    }
}

/// Restarts all under short requests, which have reached their limit, and streams. Nobody fails,
/// nobody is cut, and no restart gives anything of the limit again.
#[track_caller]
fn roll_under_load(check: &Check, name: &str, fleet: &mut Fleet) {
    let unary = Balanced::start(fleet, 4, &chat(2));
    let reached = within(Duration::from_secs(60), || {
        let [good, refused] = unary.heard();
        (refused >= 200).then_some(good)
    });
    let reached = reached.expect("the limit is reached");
    let streams = Balanced::start(fleet, scale().streams * 3, &stream());
    roll(fleet);
    let (unary, streams) = (unary.stop(), streams.stop());
    // A fresh budget would be a third of it or more; by how little a limit may be passed is judged
    // elsewhere. While little is left, nodes have parts of it: the last may be given out late.
    let most = LIMIT + LIMIT / 10;
    let agreed = fleet.agree(Duration::from_secs(60));
    let faults: Vec<&String> = unary.faults.iter().chain(&streams.faults).collect();
    check.measured(
        format!(
            "{name}: {} failed or cut of {} requests and {} streams of {} ms; {} of {LIMIT} let through, {reached} of them before; all agree on {:?}",
            faults.len(),
            unary.good + unary.refused,
            streams.good,
            scale().stream_tokens * scale().token_ms,
            unary.good,
            agreed.on
        ),
        format!("0; at most {most}"),
    );
    assert!(faults.is_empty(), "{faults:?}");
    assert!(
        (LIMIT..=most).contains(&unary.good),
        "{unary:?}, at most {most}"
    );
    assert!(streams.good as usize > scale().streams * 3, "{streams:?}");
    assert_eq!(agreed.on.requests, unary.good + streams.good);
}

#[test]
fn a_rolling_restart_hands_out_no_fresh_budget_and_fails_no_request() {
    let check = Check::begin("R8");
    let mut fleet = Fleet::start(3, plan());
    roll_under_load(&check, "rolling restart", &mut fleet);
}

#[test]
fn nodes_of_an_older_version_are_replaced_one_by_one() {
    let check = Check::begin("R8");
    let mut plan = plan();
    plan.program = previous_binary();
    let name = match &plan.program {
        Some(_) => "upgrade from TYR_PREVIOUS_BIN",
        None => {
            plan.cluster = vec!["protocol_max: 1".into()];
            "upgrade from protocol 1"
        }
    };
    let pinned = plan.program.is_none();
    let mut fleet = Fleet::start(3, plan);
    let protocols = |fleet: &Fleet| -> Vec<u64> {
        members(&fleet.nodes[0])
            .iter()
            .filter_map(|member| member["protocol"].as_u64())
            .collect()
    };
    if pinned {
        eventually("all speak the older one", || {
            (protocols(&fleet) == [1, 1, 1]).then_some(())
        });
    }
    fleet.plan.cluster.clear();
    for index in 0..3 {
        fleet.nodes[index].write_conf(&fleet.conf_of(index));
    }
    roll_under_load(&check, name, &mut fleet);
    let newest = protocols(&fleet);
    assert_eq!(newest, [2, 2, 2]);
}
