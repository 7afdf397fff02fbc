//! A change on one node is in force on all of them, and differences are told.

use std::time::{Duration, Instant};

use serde_json::json;

use super::alone;
use crate::harness::fleet::{Plan, chat, members};
use crate::harness::wait::within;
use crate::harness::{Fleet, eventually};

#[test]
fn a_change_on_one_node_is_in_force_on_all() {
    let _alone = alone();
    let fleet = Fleet::start(
        3,
        Plan::limited("rate_limits: [{requests: 1000000, every: 1d}]"),
    );
    let mut slowest = Duration::ZERO;
    for (round, writer) in fleet.nodes.iter().cycle().take(6).enumerate() {
        let name = format!("k{round}");
        let body = json!({"name": name, "providers": [{"name": "openai"}]});
        let begun = Instant::now();
        let answer = writer.call("POST", "/api/virtual-keys", &body);
        assert_eq!(answer.status(), 201, "{}", answer.text());
        assert_eq!(answer.json()["applied_on"], "3/3", "{}", answer.text());
        slowest = slowest.max(begun.elapsed());
        let value = answer.json()["value"]
            .as_str()
            .expect("shown once")
            .to_owned();
        for node in &fleet.nodes {
            let status = node.ask(&chat(1).bearer(&value)).status();
            assert_eq!(
                status, 200,
                "the answer said that it is in force everywhere"
            );
        }
        let path = format!("/api/virtual-keys/{name}");
        let gone = fleet.nodes[(round + 1) % 3].call("DELETE", &path, &json!({}));
        assert!(gone.status() < 300, "{}", gone.text());
        for node in &fleet.nodes {
            eventually("a deleted key is refused everywhere", || {
                (node.ask(&chat(1).bearer(&value)).status() == 401).then_some(())
            });
        }
    }
    println!("the slowest of 6 writes was in force on all nodes after {slowest:?}");
}

#[test]
fn different_files_are_told_and_not_merged() {
    let _alone = alone();
    let fleet = Fleet::start(
        3,
        Plan::limited("rate_limits: [{requests: 1000000, every: 1d}]"),
    );
    let same = |node: usize| {
        let members = members(&fleet.nodes[node]);
        let hashes: Vec<_> = members
            .iter()
            .map(|member| member["configuration"].clone())
            .collect();
        hashes
            .iter()
            .all(|hash| hash == &hashes[0] && !hash.is_null())
    };
    eventually("all nodes have the same file", || same(0).then_some(()));
    assert_eq!(
        fleet.nodes[0].metric("tyr_cluster_config_mismatch", ""),
        0.0
    );
    let changed = fleet
        .conf_of(2)
        .limited("rate_limits: [{requests: 5, every: 1d}]");
    fleet.nodes[2].write_conf(&changed);
    let answer = fleet.nodes[2].call("POST", "/api/reload", &json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for node in &fleet.nodes {
        let told = within(Duration::from_secs(10), || {
            (node.metric("tyr_cluster_config_mismatch", "") == 1.0).then_some(())
        });
        assert!(told.is_some(), "{}", node.shown("/api/cluster"));
    }
    // Each goes on with its own.
    let limit = |node: usize| fleet.nodes[node].standing_of("demo", "requests")["limit"].clone();
    assert_eq!(
        [limit(0), limit(1), limit(2)],
        [json!(1_000_000), json!(1_000_000), json!(5)]
    );
    fleet.nodes[2].write_conf(&fleet.conf_of(2));
    let answer = fleet.nodes[2].call("POST", "/api/reload", &json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    eventually("the difference is gone", || {
        (fleet.nodes[0].metric("tyr_cluster_config_mismatch", "") == 0.0).then_some(())
    });
}
