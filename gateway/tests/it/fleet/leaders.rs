//! What one node does for all: who it is, and that it is done once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Check, scale};
use crate::harness::conf::model;
use crate::harness::fleet::Plan;
use crate::harness::wait::{look_for, within};
use crate::harness::{Conf, Fleet, Node, Upstream, eventually};

const LIST: &str = r#"{"listed": {"litellm_provider": "openai", "mode": "chat",
    "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "max_output_tokens": 4096}}"#;

/// How often the list is fetched.
const EVERY: Duration = Duration::from_secs(2);

/// Three nodes with one price list, which is there for all of them.
fn priced() -> (Upstream, Fleet) {
    let web = Upstream::start(|exchange| exchange.reply(200, &[], LIST.as_bytes()));
    let port = web.address.port();
    let plan = Plan {
        // The list is where the provider is, as nodes see it.
        conf: Box::new(move |mock| {
            let mut conf = Conf::for_upstream(mock);
            conf.models = "  - {name: listed, provider: openai, price: catalogue}\n".to_owned()
                + &model("gpt-4o-mini", "openai", "{input: 1, output: 1}", 100);
            conf.more = format!(
                "catalogue: {{source: \"http://{}:{port}/prices.json\", every: 2s, allow_private_addresses: true}}\n",
                mock.ip()
            );
            conf
        }),
        also: vec![web.address],
        ..Plan::limited("")
    };
    let fleet = Fleet::start(3, plan);
    for node in &fleet.nodes {
        let known = within(Duration::from_secs(20), || {
            (node.shown("/api/catalogue")["models"] == 1).then_some(())
        });
        assert!(known.is_some(), "{}", node.shown("/api/catalogue"));
        eventually("the first by name leads", || {
            (leader(node) == "n1").then_some(())
        });
    }
    (web, fleet)
}

fn leader(node: &Node) -> String {
    let view = node.shown("/api/cluster");
    view["leaders"]["cluster"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The term under which a node has the lead of fetching; 0: it has not.
fn term(node: &Node) -> u64 {
    node.metric("tyr_cluster_term", "catalogue") as u64
}

/// Most fetches in this time, when each interval has one.
fn at_most(time: Duration) -> u64 {
    time.as_secs() / EVERY.as_secs() + 2
}

#[test]
fn one_node_fetches_prices_for_all_and_another_takes_over() {
    let check = Check::begin("leader");
    let (web, mut fleet) = priced();
    let (begun, before) = (Instant::now(), web.count() as u64);
    look_for(EVERY * 5, || {});
    let fetches = web.count() as u64 - before;
    let most = at_most(begun.elapsed());
    assert!(
        (2..=most).contains(&fetches),
        "{fetches} fetches by three nodes, not more than {most}"
    );
    let terms: Vec<u64> = fleet.nodes.iter().map(term).collect();
    assert!(terms[0] >= 1 && terms[1..] == [0, 0], "{terms:?}");

    fleet.nodes[0].process.kill();
    let killed = Instant::now();
    for node in &fleet.nodes[1..] {
        eventually("the next by name leads", || {
            (leader(node) == "n2").then_some(())
        });
    }
    // The dead node's lease has to pass first.
    let after = web.count();
    let went_on = within(Duration::from_secs(40), || {
        (web.count() > after).then(|| killed.elapsed())
    });
    check.measured(
        format!("{fetches} fetches by three nodes in {:?}; another goes on {went_on:?} after the leader's end", EVERY * 5),
        format!("{most}; 40 s"),
    );
    assert!(went_on.is_some(), "nobody fetches after the leader's end");
    let taken = term(&fleet.nodes[1]);
    assert!(taken > terms[0], "the term grows: {terms:?}, {taken}");
    assert_eq!(
        fleet.nodes[2]
            .call("POST", "/api/customers", &json!({"name": "c"}))
            .json()["applied_on"],
        "2/2"
    );
}

/// A leader that stood still for longer than its lease does nothing with its old term.
#[test]
fn a_leader_that_was_stopped_does_nothing_twice() {
    let check = Check::begin("R11");
    let (web, fleet) = priced();
    let first = eventually("the leader has a term", || {
        Some(term(&fleet.nodes[0])).filter(|term| *term > 0)
    });
    let mut held: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut note = |nodes: &[usize]| {
        for node in nodes {
            let holders = held.entry(term(&fleet.nodes[*node])).or_default();
            if !holders.contains(node) {
                holders.push(*node);
            }
        }
    };
    note(&[0, 1, 2]);
    let (begun, before) = (Instant::now(), web.count() as u64);
    fleet.nodes[0].process.signal("STOP");
    // Its lease of 20 s has to pass.
    look_for(scale().pause + Duration::from_secs(10), || note(&[1, 2]));
    let second = term(&fleet.nodes[1]);
    fleet.nodes[0].process.signal("CONT");
    let went_on = Instant::now();
    let again = within(Duration::from_secs(60), || {
        note(&[0, 1, 2]);
        Some(term(&fleet.nodes[0])).filter(|term| *term > first)
    });
    let took = went_on.elapsed();
    look_for(EVERY * 3, || note(&[0, 1, 2]));
    // One more at each of two changes: a new leader begins at once.
    let (fetches, most) = (web.count() as u64 - before, at_most(begun.elapsed()) + 2);
    held.remove(&0);
    check.measured(
        format!("the leader stopped: terms {first}, {second}, then {again:?} {took:?} after it goes on; {fetches} fetches in {:?}", begun.elapsed()),
        format!("terms grow, each of one node; at most {most} fetches"),
    );
    assert!(first < second, "{first}, {second}");
    assert!(
        again.is_some_and(|again| again > second),
        "{second}, {again:?}"
    );
    assert!(held.values().all(|holders| holders.len() == 1), "{held:?}");
    assert!(fetches <= most, "{fetches} fetches, not more than {most}");
}
