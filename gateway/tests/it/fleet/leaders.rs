//! What one node does for all: who it is, and that it is done once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::alone;
use crate::harness::conf::model;
use crate::harness::fleet::Plan;
use crate::harness::wait::within;
use crate::harness::{Conf, Fleet, Upstream, eventually};

const LIST: &str = r#"{"listed": {"litellm_provider": "openai", "mode": "chat",
    "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "max_output_tokens": 4096}}"#;

/// How often the list is fetched.
const EVERY: Duration = Duration::from_secs(2);

#[test]
fn one_node_fetches_prices_for_all_and_another_takes_over() {
    let _alone = alone();
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
    let mut fleet = Fleet::start(3, plan);
    for node in &fleet.nodes {
        let known = within(Duration::from_secs(20), || {
            (node.shown("/api/catalogue")["models"] == 1).then_some(())
        });
        assert!(known.is_some(), "{}", node.shown("/api/catalogue"));
        assert_eq!(node.shown("/api/cluster")["leaders"]["cluster"], "n1");
    }
    let (begun, before) = (Instant::now(), web.count() as u64);
    within(EVERY * 5, || None::<()>);
    let fetches = web.count() as u64 - before;
    let at_most = begun.elapsed().as_secs() / EVERY.as_secs() + 2;
    assert!(
        (2..=at_most).contains(&fetches),
        "{fetches} fetches by three nodes, not more than {at_most}"
    );
    let terms: Vec<f64> = (0..3)
        .map(|node| fleet.nodes[node].metric("tyr_cluster_term", "catalogue"))
        .collect();
    assert!(terms[0] >= 1.0 && terms[1..] == [0.0, 0.0], "{terms:?}");

    fleet.nodes[0].process.kill();
    for node in &fleet.nodes[1..] {
        eventually("the next by name leads", || {
            (node.shown("/api/cluster")["leaders"]["cluster"] == "n2").then_some(())
        });
    }
    // The dead node's lease has to pass first.
    let after = web.count();
    let went_on = within(Duration::from_secs(40), || {
        (web.count() > after).then_some(())
    });
    assert!(went_on.is_some(), "nobody fetches after the leader's end");
    let taken = fleet.nodes[1].metric("tyr_cluster_term", "catalogue");
    assert!(taken > terms[0], "the term grows: {terms:?}, {taken}");
    assert_eq!(
        fleet.nodes[2]
            .call("POST", "/api/customers", &json!({"name": "c"}))
            .json()["applied_on"],
        "2/2"
    );
}
