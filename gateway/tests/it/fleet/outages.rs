//! Postgres goes away under load, a node joins meanwhile, and it comes back: nobody notices, and all
//! of it is there in the end.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Check, scale};
use crate::harness::counted::Counted;
use crate::harness::database::readiness;
use crate::harness::fleet::{Plan, TEAM, chat};
use crate::harness::pressure::{Pressure, count};
use crate::harness::wait::look_for;
use crate::harness::{Ask, Fleet, eventually};

/// How long a revocation takes to be in force on all nodes.
const REVOKED: Duration = Duration::from_secs(1);

#[test]
fn postgres_may_go_and_a_node_may_join_meanwhile() {
    let check = Check::begin("R13");
    let mut fleet = Fleet::start(3, Plan::limited(""));
    let body = json!({"name": "made", "team": TEAM, "providers": [{"name": "openai"}]});
    let made = fleet.nodes[0].made_key(&body);
    let of = |fleet: &Fleet, node: usize| {
        Pressure::start(&[fleet.nodes[node].data; 2], &chat(3), scale().pace)
    };
    let mut loads = vec![of(&fleet, 0), of(&fleet, 1)];
    look_for(Duration::from_secs(2), || {});
    fleet.database.server.crash();
    let gone = Instant::now();
    for node in &fleet.nodes {
        let refused = node.call("POST", "/api/customers", &json!({"name": "nobody"}));
        assert_eq!(refused.status(), 503, "{}", refused.text());
    }
    // A node that comes while the store is away learns everything from the others.
    fleet.nodes[2].process.kill();
    fleet.nodes[2].start_again();
    let answer = fleet.nodes[2].ask(&chat(1).bearer(&made));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let before = counted(&fleet, 0);
    assert!(before > 0);
    eventually("the new node counts what the others did", || {
        (counted(&fleet, 2) >= before).then_some(())
    });
    loads.push(of(&fleet, 2));
    let revoked = revoke(&fleet, &made);
    let memory = |fleet: &Fleet| {
        let all = fleet.nodes.iter().map(|node| node.process.resident());
        all.max().unwrap_or(0) / 1_024
    };
    look_for(scale().outage / 10, || {});
    let early = memory(&fleet);
    look_for(scale().outage.saturating_sub(gone.elapsed()), || {});
    let late = memory(&fleet);
    let refused = fleet.nodes[2].call("POST", "/api/customers", &json!({"name": "nobody"}));
    assert_eq!(refused.status(), 503, "{}", refused.text());
    let away = gone.elapsed();
    fleet.database.server.resume();
    let heard: Vec<_> = loads.into_iter().flat_map(Pressure::stop).collect();
    let good = count(&heard, 200);
    let asked = heard.iter().flatten().count() as u64;
    let whole = Duration::from_secs(60) + scale().outage / 10;
    let agreed = fleet.agree(whole);
    eventually("nobody is without a store any more", || {
        let mut nodes = fleet.nodes.iter();
        nodes
            .all(|node| readiness(node) == (200, Vec::new()))
            .then_some(())
    });
    check.measured(
        format!(
            "Postgres away for {away:?}: {} of {asked} failed; all agree on {:?} {:?} after it is back",
            asked - good, agreed.on, agreed.store
        ),
        format!("0; {whole:?}"),
    );
    check.measured(
        format!("a node that joins meanwhile counts everything; revoked on all after {revoked:?}"),
        format!("{REVOKED:?}"),
    );
    check.measured(
        format!("resident memory of the largest node: {early} KiB early in the outage, {late} KiB at its end"),
        "grows with counters, not with requests",
    );
    assert_eq!(good, asked, "requests failed");
    assert!(late < early + 64 * 1_024, "{early} KiB, {late} KiB");
    let answer = fleet.nodes[2].ask(&chat(1).bearer(&made));
    assert_eq!(answer.status(), 401, "it stays revoked");
}

/// Requests that a node knows of.
#[track_caller]
fn counted(fleet: &Fleet, node: usize) -> u64 {
    Counted::seen_by(&fleet.nodes[node]).0.requests
}

/// Revokes the key of that name on one node; how long until all refuse it.
#[track_caller]
fn revoke(fleet: &Fleet, key: &str) -> Duration {
    let begun = Instant::now();
    let answer = fleet.nodes[1].call("POST", "/api/virtual-keys/made/revoke", &json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["applied_on"], "3/3", "{}", answer.text());
    let ask: Ask = chat(1).bearer(key);
    for node in &fleet.nodes {
        assert_eq!(
            node.ask(&ask).status(),
            401,
            "the answer said that it is refused"
        );
    }
    let took = begun.elapsed();
    assert!(took < REVOKED * scale().patience, "{took:?}");
    took
}
