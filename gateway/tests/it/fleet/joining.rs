//! A node without anything of an earlier run comes while Postgres is away.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::Check;
use crate::harness::client::{self, Ask};
use crate::harness::database::readiness;
use crate::harness::eventually;
use crate::harness::fleet::{Fleet, Plan, WHOLE, chat};
use crate::harness::wait::within;

#[test]
fn a_node_with_an_empty_folder_learns_all_from_the_others() {
    let _check = Check::begin("joining");
    let plan = Plan::limited("rate_limits: [{requests: 30, every: 1h}]");
    let mut fleet = Fleet::start(3, plan);
    let spent = within(WHOLE, || {
        let mut nodes = fleet.nodes.iter();
        nodes
            .all(|node| node.ask(&chat(1)).status() == 429)
            .then_some(())
    });
    spent.expect("the limit is spent");
    fleet.nodes[2].process.kill();
    // What it could know of them is nowhere but with the others.
    let made = fleet.nodes[0].made_key(&json!({"name": "made", "providers": [{"name": "openai"}]}));
    fleet.database.server.crash();
    let folder = fleet.nodes[2].folder().join("data");
    fs::remove_dir_all(&folder).expect("its folder");
    fleet.nodes[2].launch_again();
    within(WHOLE, || {
        (fleet.nodes[2].readyz() == Some(200)).then_some(())
    })
    .unwrap_or_else(|| panic!("it is not ready: {}", fleet.nodes[2].process.log()));
    let joined = &fleet.nodes[2];
    let answer = joined.ask(&chat(1).bearer(&made));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(joined.ask(&chat(1)).status(), 429, "no fresh budget");
    fleet.database.server.resume();
    eventually("the node is whole", || {
        (readiness(joined) == (200, Vec::new())).then_some(())
    });
}

#[test]
fn a_node_with_an_empty_folder_that_reaches_nobody_waits() {
    let _check = Check::begin("joining");
    let plan = Plan::limited("rate_limits: [{requests: 30, every: 1h}]");
    let mut fleet = Fleet::start(2, plan);
    let made = fleet.nodes[1].made_key(&json!({"name": "made", "providers": [{"name": "openai"}]}));
    fleet.nodes[1].process.kill();
    fleet.database.server.crash();
    fleet.nodes[0].process.kill();
    let folder = fleet.nodes[1].folder().join("data");
    fs::remove_dir_all(&folder).expect("its folder");
    fleet.nodes[1].launch_again();
    let waits = &fleet.nodes[1];
    let told = within(WHOLE, || {
        let log = waits.process.log();
        log.contains("nothing of an earlier run").then_some(())
    });
    told.expect("it says that it has nothing");
    within(WHOLE, || waits.readyz()).expect("its admin port is open");
    // Longer than a node waits that has something.
    let ready = within(Duration::from_secs(15), || {
        (waits.readyz() == Some(200)).then_some(())
    });
    assert!(ready.is_none());
    let told = client::ask(waits.admin, &Ask::get("/readyz")).json();
    assert_eq!(told["reasons"], json!(["catching_up"]), "{told}");
    assert_eq!(waits.ask(&chat(1)).status(), 503);
    // Nobody has to start it again.
    fleet.nodes[0].launch_again();
    let waits = &fleet.nodes[1];
    within(WHOLE, || (waits.readyz() == Some(200)).then_some(()))
        .unwrap_or_else(|| panic!("it is not ready: {}", waits.process.log()));
    assert_eq!(waits.ask(&chat(1).bearer(&made)).status(), 200);
}
