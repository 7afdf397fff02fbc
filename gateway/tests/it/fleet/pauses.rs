//! A node that stands still, and goes on: it is left, comes back, and does nothing with what is over.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Check, scale};
use crate::harness::fleet::{Plan, chat, state_of};
use crate::harness::pressure::{Pressure, count};
use crate::harness::wait::{look_for, within};
use crate::harness::{Fleet, eventually};

/// How long until a silent node is down, and until one that goes on is up again.
const LEFT: Duration = Duration::from_secs(8);
const BACK: Duration = Duration::from_secs(10);

#[test]
fn a_stopped_node_is_left_and_comes_back() {
    let check = Check::begin("R11");
    let fleet = Fleet::start(3, Plan::limited(""));
    let pressure = Pressure::start(
        &[fleet.nodes[0].data, fleet.nodes[1].data],
        &chat(2),
        Duration::from_millis(20),
    );
    let seen = |state: &str| {
        let mut others = fleet.nodes[..2].iter();
        others.all(|node| state_of(node, "n3").as_deref() == Some(state))
    };
    let stopped = Instant::now();
    fleet.nodes[2].process.signal("STOP");
    let down = within(LEFT * 4, || seen("down").then(|| stopped.elapsed()));
    look_for(scale().pause.saturating_sub(stopped.elapsed()), || {});
    fleet.nodes[2].process.signal("CONT");
    let went_on = Instant::now();
    let up = within(BACK * 4, || seen("up").then(|| went_on.elapsed()));
    let heard = pressure.stop();
    check.measured(
        format!(
            "stopped for {:?}: down after {down:?}, up again {up:?} after it goes on",
            scale().pause
        ),
        format!("{LEFT:?}, {BACK:?}"),
    );
    let good = count(&heard, 200);
    assert_eq!(
        good,
        heard.iter().flatten().count() as u64,
        "the others serve everything"
    );
    assert!(
        down.is_some_and(|down| down < LEFT * scale().patience),
        "{down:?}"
    );
    assert!(up.is_some_and(|up| up < BACK * scale().patience), "{up:?}");
    fleet.await_whole();
    let body = json!({"name": "late", "team": "all", "providers": [{"name": "openai"}]});
    let made = fleet.nodes[2].made_key(&body);
    for node in &fleet.nodes {
        eventually("the key of the node that was away works everywhere", || {
            (node.ask(&chat(1).bearer(&made)).status() == 200).then_some(())
        });
    }
    let agreed = fleet.agree(Duration::from_secs(30));
    assert!(agreed.on.requests >= good + 3);
}
