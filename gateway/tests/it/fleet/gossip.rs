//! Bad networks between nodes, and secrets that change.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Check, bound, limits, scale};
use crate::harness::client::ask;
use crate::harness::fault::Weather;
use crate::harness::fleet::{Plan, SECRET, chat, members, up_in};
use crate::harness::load::Load;
use crate::harness::pressure::{Pressure, count, most_within};
use crate::harness::wait::{look_for, within};
use crate::harness::{Ask, Conf, Fleet};

/// How long a living node may be taken for dead.
const EVICTED: Duration = Duration::from_secs(10);

#[test]
fn lost_and_late_datagrams_evict_nobody() {
    let check = Check::begin("R10");
    let mut plan = Plan::limited("");
    plan.weather = true;
    plan.seed = 7;
    let fleet = Fleet::start(3, plan);
    let changes = || -> f64 {
        let all = fleet.nodes.iter();
        all.map(|node| node.metric("tyr_cluster_member_changes_total", ""))
            .sum()
    };
    let before = changes();
    fleet.set_weather(Weather {
        loss: 30,
        doubled: 5,
        jitter: Duration::from_millis(200),
        ..Weather::default()
    });
    let targets = [0, 1, 2].map(|node| fleet.nodes[node].data);
    let pressure = Pressure::start(&targets, &chat(2), Duration::from_millis(50));
    // Since when each node has lacked another one, and for how long at most.
    let mut gone: [Option<Instant>; 3] = [None; 3];
    let mut longest = Duration::ZERO;
    look_for(scale().storm, || {
        for (node, since) in fleet.nodes.iter().zip(&mut gone) {
            let down = |member: &Value| member["state"] == "down" || member["state"] == "left";
            match members(node).iter().any(down) {
                true => longest = longest.max(since.get_or_insert_with(Instant::now).elapsed()),
                false => *since = None,
            }
        }
    });
    let heard = pressure.stop();
    let rate = (changes() - before) / scale().storm.as_secs_f64();
    check.measured(
        format!(
            "30 % lost, up to 200 ms late, for {:?}: a living node was taken for dead for {longest:?} at most; {rate:.3} changes of members a second",
            scale().storm
        ),
        format!("{EVICTED:?}, 1 a second"),
    );
    assert!(longest <= EVICTED * scale().patience, "{longest:?}");
    assert!(rate < 1.0, "{rate} changes a second");
    let good = count(&heard, 200);
    assert_eq!(
        good,
        heard.iter().flatten().count() as u64,
        "requests failed"
    );
    fleet.set_weather(Weather::default());
    fleet.await_whole();
    let agreed = fleet.agree(Duration::from_secs(30));
    assert_eq!(agreed.on.requests, good);
}

#[test]
fn streams_that_stand_still_and_break_lose_nothing_and_hold_the_limit() {
    let check = Check::begin("broken streams");
    let scale = scale();
    let mut plan = Plan::limited(&limits());
    plan.weather = true;
    plan.seed = 11;
    let fleet = Fleet::start(3, plan);
    let links_lost = || -> f64 {
        let all = fleet.nodes.iter();
        all.map(|node| node.metric("tyr_cluster_link_changes_total", "to=\"down\""))
            .sum()
    };
    let before = links_lost();
    fleet.set_weather(Weather {
        stall: Duration::from_millis(60),
        broken: 10,
        ..Weather::default()
    });
    let targets = [0, 1, 2].map(|node| fleet.nodes[node].data);
    // Twice what the limit lets through.
    let offered = 2.0 * scale.limit as f64 / scale.window_length.as_secs_f64();
    let pace = Duration::from_secs_f64(targets.len() as f64 / offered);
    let pressure = Pressure::start(&targets, &chat(2), pace);
    let mut told = 0;
    look_for(scale.storm, || {
        let bounds = fleet.nodes.iter().map(|node| bound(node, "requests"));
        told = told.max(bounds.max().unwrap_or(0));
    });
    let lost = links_lost() - before;
    let heard = pressure.stop();
    let most = most_within(&heard, scale.window_length);
    let (good, refused) = (count(&heard, 200), count(&heard, 429));
    fleet.set_weather(Weather::default());
    fleet.await_whole();
    let agreed = fleet.agree(Duration::from_secs(30));
    check.measured(
        format!(
            "each piece up to 60 ms late, 1 % of pieces break their connection, for {:?}: {lost} links lost; {most} in the fullest {}, {good} good, {refused} refused; all agree after {:?}",
            scale.storm, scale.window, agreed.nodes
        ),
        format!("{} + {told}", scale.limit),
    );
    assert!(lost >= 10.0, "{lost} links were lost");
    assert_eq!(good + refused, heard.iter().flatten().count() as u64);
    assert_eq!(agreed.on.requests, good, "what the provider served");
    assert!(
        most <= scale.limit + told,
        "{most} in a window, bound {told}"
    );
    assert!(told <= scale.limit / 2, "a bound of {told} promises little");
}

#[test]
fn blocked_streams_are_loud() {
    let _check = Check::begin("streams");
    let mut plan = Plan::limited("");
    plan.weather = true;
    let mut fleet = Fleet::start(3, plan);
    for sky in &mut fleet.sky {
        sky.block_streams();
    }
    for node in &fleet.nodes {
        let told = within(Duration::from_secs(15), || {
            let answer = ask(node.admin, &Ask::get("/readyz"));
            let parts = answer.json()["degraded"].to_string();
            (answer.status() == 200 && parts.contains("streams")).then_some(())
        });
        assert!(told.is_some(), "{}", node.shown("/api/cluster"));
        let view = members(node);
        let degraded = view.iter().any(|member| member["state"] == "degraded");
        assert!(degraded, "{view:?}");
    }
}

/// The configuration of a node with this secret, and maybe another that it takes, too.
fn with_secret(fleet: &Fleet, node: usize, secret: &str, also: Option<&str>) -> Conf {
    let mut conf = fleet.conf_of(node);
    let more = also.map(|also| format!("  additional_secrets: [{also}]\n"));
    conf.more = conf.more.replace(
        &format!("  secret: {SECRET}\n"),
        &format!("  secret: {secret}\n{}", more.unwrap_or_default()),
    );
    conf
}

#[test]
fn the_secret_changes_without_a_restart() {
    let check = Check::begin("R12");
    const NEW: &str = "another-secret-of-the-cluster-in-tests-02";
    let mut fleet = Fleet::start(3, Plan::limited(""));
    let loads: Vec<Load> = fleet.nodes[..2]
        .iter()
        .map(|node| Load::start(node.data, vec![chat(2)]))
        .collect();
    for (secret, also) in [(SECRET, Some(NEW)), (NEW, Some(SECRET)), (NEW, None)] {
        for (index, node) in fleet.nodes.iter().enumerate() {
            node.write_conf(&with_secret(&fleet, index, secret, also));
            let answer = node.call("POST", "/api/reload", &json!({}));
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        // A change on one node reaches the others with whatever secrets they have now.
        let name = format!("with-{}-{}", &secret[..4], also.is_some());
        let made = fleet.nodes[0].call("POST", "/api/customers", &json!({"name": name}));
        assert_eq!(made.json()["applied_on"], "3/3", "{}", made.text());
    }
    let end = |fleet: &mut Fleet| {
        fleet.nodes[2].process.signal("TERM");
        let ended = fleet.nodes[2].process.wait(Duration::from_secs(30));
        assert!(ended.is_some(), "it ends");
    };
    // Who has the old one alone stays outside: it sees nobody, and nobody sees it.
    end(&mut fleet);
    fleet.nodes[2].write_conf(&with_secret(&fleet, 2, SECRET, None));
    fleet.nodes[2].start_again();
    look_for(Duration::from_secs(3), || {
        for node in &fleet.nodes[..2] {
            assert_eq!(up_in(node), ["n1", "n2"]);
        }
        assert_eq!(up_in(&fleet.nodes[2]), ["n3"]);
    });
    end(&mut fleet);
    // Who has the new one alone comes in.
    fleet.nodes[2].write_conf(&with_secret(&fleet, 2, NEW, None));
    fleet.nodes[2].start_again();
    fleet.await_whole();
    let (mut served, mut faults) = (0, Vec::new());
    for diary in loads.into_iter().flat_map(Load::stop) {
        served += diary.served.len();
        faults.extend(diary.fault);
    }
    let agreed = fleet.agree(Duration::from_secs(30));
    check.measured(
        format!("{} of {served} failed while the secret changed; the old one is refused, the new one comes in", faults.len()),
        "0 failed",
    );
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(agreed.on.requests, served as u64);
}
