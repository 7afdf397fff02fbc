//! A change on one node is in force on all of them, and differences are told.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Check, scale};
use crate::harness::fleet::{Plan, TEAM, chat, counting, members};
use crate::harness::pressure::{Pressure, count};
use crate::harness::wait::within;
use crate::harness::{Fleet, eventually};

/// How long a change takes to be in force everywhere, and where nodes reach the store alone.
const IN_FORCE: Duration = Duration::from_secs(2);
const BY_STORE: Duration = Duration::from_secs(10);

#[test]
fn a_change_on_one_node_is_in_force_on_all() {
    let check = Check::begin("R7");
    let fleet = Fleet::start(3, Plan::limited(""));
    let targets = [0, 1, 2].map(|node| fleet.nodes[node].data);
    let pressure = Pressure::start(&targets, &chat(2), Duration::from_millis(20));
    let (mut made_after, mut gone_after) = (Vec::new(), Vec::new());
    for round in 0..scale().changes {
        let name = format!("k{round}");
        let body = json!({"name": name, "team": TEAM, "providers": [{"name": "openai"}]});
        let begun = Instant::now();
        let answer = fleet.nodes[round % 3].call("POST", "/api/virtual-keys", &body);
        assert_eq!(answer.status(), 201, "{}", answer.text());
        assert_eq!(answer.json()["applied_on"], "3/3", "{}", answer.text());
        made_after.push(begun.elapsed());
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
        let begun = Instant::now();
        let (writer, key) = (
            &fleet.nodes[(round + 1) % 3],
            format!("/api/virtual-keys/{name}"),
        );
        let gone = match round % 2 {
            0 => writer.call("DELETE", &key, &json!({})),
            _ => writer.call("POST", &format!("{key}/revoke"), &json!({})),
        };
        assert!(gone.status() < 300, "{}", gone.text());
        for node in &fleet.nodes {
            let status = node.ask(&chat(1).bearer(&value)).status();
            assert_eq!(status, 401, "the answer said that it is gone everywhere");
        }
        gone_after.push(begun.elapsed());
    }
    let heard = pressure.stop();
    let slowest = |mut all: Vec<Duration>| {
        all.sort_unstable();
        // The hundredth part that is slowest does not count.
        all[(all.len() * 99).div_ceil(100) - 1]
    };
    let (made, gone) = (slowest(made_after), slowest(gone_after));
    check.measured(
        format!("{} keys made under load and taken away: in force on all after {made:?}, refused by all after {gone:?} (p99)", scale().changes),
        format!("{IN_FORCE:?}"),
    );
    let most = IN_FORCE * scale().patience;
    assert!(made < most && gone < most, "{made:?}, {gone:?}");
    assert_eq!(count(&heard, 200), heard.iter().flatten().count() as u64);
    fleet.agree(Duration::from_secs(30));
}

/// Nodes that cannot speak to each other learn of it from the store.
#[test]
fn what_no_stream_tells_the_store_does() {
    let check = Check::begin("R7");
    let fleet = Fleet::start(3, Plan::limited(""));
    let body = json!({"name": "leaked", "team": TEAM, "providers": [{"name": "openai"}]});
    let value = fleet.nodes[0].made_key(&body);
    for node in &fleet.nodes {
        assert_eq!(node.ask(&chat(1).bearer(&value)).status(), 200);
    }
    fleet.network.cut(&[0]);
    fleet.network.cut_one_way(1, 2);
    fleet.network.cut_one_way(2, 1);
    let begun = Instant::now();
    let answer = fleet.nodes[0].call("POST", "/api/virtual-keys/leaked/revoke", &json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["persisted"], true, "{}", answer.text());
    let refused = within(BY_STORE * 4, || {
        let mut nodes = fleet.nodes.iter();
        nodes
            .all(|node| node.ask(&chat(1).bearer(&value)).status() == 401)
            .then(|| begun.elapsed())
    });
    check.measured(
        format!("revoked while nodes reach Postgres alone: refused by all after {refused:?}"),
        format!("{BY_STORE:?}"),
    );
    assert!(
        refused.is_some_and(|took| took < BY_STORE * scale().patience),
        "{refused:?}"
    );
}

#[test]
fn different_files_are_told_and_not_merged() {
    let check = Check::begin("R28");
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
    let changed = counting(fleet.conf_of(2), "rate_limits: [{requests: 5, every: 1d}]");
    fleet.nodes[2].write_conf(&changed);
    let begun = Instant::now();
    let answer = fleet.nodes[2].call("POST", "/api/reload", &json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let told = within(BY_STORE, || {
        let mut nodes = fleet.nodes.iter();
        nodes
            .all(|node| node.metric("tyr_cluster_config_mismatch", "") == 1.0)
            .then(|| begun.elapsed())
    });
    check.measured(
        format!("another file on one node: all say so after {told:?}"),
        format!("{BY_STORE:?}; nothing is merged"),
    );
    assert!(told.is_some(), "{}", fleet.nodes[0].shown("/api/cluster"));
    for node in &fleet.nodes {
        let degraded = node.shown("/api/cluster")["degraded"].to_string();
        assert!(degraded.contains("configuration_mismatch"), "{degraded}");
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
