//! Bad networks between nodes, and secrets that change.

use std::time::Duration;

use serde_json::json;

use super::{alone, scale};
use crate::harness::Fleet;
use crate::harness::fault::Weather;
use crate::harness::fleet::{Plan, SECRET, chat, up_in};
use crate::harness::load::Load;
use crate::harness::wait::within;

#[test]
fn lost_and_late_datagrams_evict_nobody() {
    let _alone = alone();
    let mut plan = Plan::limited("rate_limits: [{requests: 1000000, every: 1d}]");
    plan.weather = true;
    plan.seed = 7;
    let fleet = Fleet::start(3, plan);
    let downs =
        |node: usize| fleet.nodes[node].metric("tyr_cluster_member_changes_total", "to=\"down\"");
    let before: f64 = (0..3).map(downs).sum();
    fleet.set_weather(Weather {
        loss: 30,
        doubled: 5,
        jitter: Duration::from_millis(200),
    });
    within(scale().storm, || None::<()>);
    let after: f64 = (0..3).map(downs).sum();
    assert_eq!(before, after, "nobody was taken for dead");
    for node in &fleet.nodes {
        assert_eq!(up_in(node).len(), 3, "{}", node.shown("/api/cluster"));
    }
}

#[test]
fn blocked_streams_are_loud() {
    let _alone = alone();
    let mut plan = Plan::limited("rate_limits: [{requests: 1000000, every: 1d}]");
    plan.weather = true;
    let mut fleet = Fleet::start(3, plan);
    fleet.sky[2].block_streams();
    fleet.sky[1].block_streams();
    fleet.sky[0].block_streams();
    for node in &fleet.nodes {
        let told = within(Duration::from_secs(15), || {
            let answer =
                crate::harness::client::ask(node.admin, &crate::harness::Ask::get("/readyz"));
            let parts = answer.json()["degraded"].to_string();
            (answer.status() == 200 && parts.contains("streams")).then_some(())
        });
        assert!(told.is_some(), "{}", node.shown("/api/cluster"));
        let view = node.shown("/api/cluster");
        let states: Vec<_> = view["members"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|member| member["state"].clone())
            .collect();
        assert!(states.contains(&json!("degraded")), "{view}");
    }
}

#[test]
fn the_secret_changes_without_a_restart() {
    let _alone = alone();
    const NEW: &str = "another-secret-of-the-cluster-in-tests-02";
    let mut fleet = Fleet::start(
        3,
        Plan::limited("rate_limits: [{requests: 1000000, every: 1d}]"),
    );
    let loads: Vec<Load> = fleet
        .nodes
        .iter()
        .map(|node| Load::start(node.data, vec![chat(2)]))
        .collect();
    for (secret, also) in [(SECRET, Some(NEW)), (NEW, Some(SECRET)), (NEW, None)] {
        for (index, node) in fleet.nodes.iter().enumerate() {
            let mut conf = fleet.conf_of(index);
            let more = also
                .map(|also| format!("  additional_secrets: [{also}]\n"))
                .unwrap_or_default();
            conf.more = conf.more.replace(
                &format!("  secret: {SECRET}\n"),
                &format!("  secret: {secret}\n{more}"),
            );
            node.write_conf(&conf);
            let answer = node.call("POST", "/api/reload", &json!({}));
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        // A change on one node reaches the others with whatever secrets they have now.
        let name = format!("with-{}-{}", &secret[..4], also.is_some());
        let made = fleet.nodes[0].call("POST", "/api/customers", &json!({"name": name}));
        assert_eq!(made.json()["applied_on"], "3/3", "{}", made.text());
    }
    // Who has the new one alone may come in.
    fleet.nodes[1].process.signal("TERM");
    assert!(
        fleet.nodes[1]
            .process
            .wait(Duration::from_secs(30))
            .is_some(),
        "it ends"
    );
    fleet.nodes[1].start_again();
    fleet.await_whole();
    for (node, load) in loads.into_iter().enumerate() {
        let faults: Vec<_> = load
            .stop()
            .into_iter()
            .filter_map(|diary| diary.fault)
            .collect();
        assert!(node == 1 || faults.is_empty(), "{faults:?}");
    }
}
