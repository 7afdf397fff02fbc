//! Nodes that are cut off from each other: each side keeps to its part, and together they agree again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Check, bound, limits, scale};
use crate::harness::database::readiness;
use crate::harness::fleet::{Plan, chat};
use crate::harness::network::Network;
use crate::harness::pressure::{Pressure, count, most_within};
use crate::harness::wait::{look_for, within};
use crate::harness::{Fleet, eventually};

/// How long after a partition until all totals agree.
const AGREED: Duration = Duration::from_secs(5);

/// Presses three nodes, cuts them apart, and heals: `most` in any window throughout, and then the
/// same totals everywhere.
#[track_caller]
fn part(name: &str, cut: impl Fn(&Network)) {
    let check = Check::begin("R5");
    let scale = scale();
    let fleet = Fleet::start(3, Plan::limited(&limits()));
    let targets: Vec<SocketAddr> = fleet.nodes.iter().map(|node| node.data).collect();
    let pace = Duration::from_secs_f64(
        3.0 * scale.window_length.as_secs_f64() / (4.0 * scale.limit as f64),
    );
    let pressure = Pressure::start(&targets, &chat(2), pace);
    let mut told = 0;
    let watch = |told: &mut u64, time: Duration| {
        look_for(time, || {
            let bounds = fleet.nodes.iter().map(|node| bound(node, "requests"));
            *told = (*told).max(bounds.max().unwrap_or(0));
        });
    };
    watch(&mut told, scale.window_length);
    cut(&fleet.network);
    watch(&mut told, scale.partition);
    // One more window under pressure, healed.
    fleet.network.heal();
    watch(&mut told, scale.window_length);
    let heard = pressure.stop();
    fleet.await_whole();
    let most = most_within(&heard, scale.window_length);
    let agreed = fleet.agree(Duration::from_secs(30));
    check.measured(
        format!(
            "{name} for {:?}: {most} in the fullest {}",
            scale.partition, scale.window
        ),
        format!("{} + {told}", scale.limit),
    );
    assert_eq!(count(&heard, 0), 0, "every request has an answer");
    assert_eq!(
        agreed.on.requests,
        count(&heard, 200),
        "what the provider served"
    );
    assert!(
        most <= scale.limit + told,
        "{name}: {most} of {} in a window, bound {told}",
        scale.limit
    );
}

#[test]
fn parted_nodes_keep_to_their_share_and_agree_again() {
    part("two and one", |network| network.cut(&[2]));
}

#[test]
fn nodes_that_cannot_speak_to_one_another_keep_to_their_share() {
    part("each alone", |network| {
        network.cut(&[0]);
        network.cut_one_way(1, 2);
        network.cut_one_way(2, 1);
    });
}

#[test]
fn a_node_that_is_heard_and_hears_nothing_keeps_to_its_share() {
    part("one way", |network| {
        network.cut_one_way(0, 2);
        network.cut_one_way(1, 2);
    });
}

/// Used on both sides while they are apart; what is measured is the time from the healing until
/// all count the same.
#[test]
fn totals_agree_soon_after_a_partition() {
    let check = Check::begin("R5");
    let fleet = Fleet::start(3, Plan::limited(""));
    let targets: Vec<SocketAddr> = fleet.nodes.iter().map(|node| node.data).collect();
    fleet.network.cut(&[2]);
    let heard =
        Pressure::start(&targets, &chat(2), Duration::from_millis(20)).for_a(scale().partition);
    fleet.network.heal();
    let agreed = fleet.agree(AGREED * 6);
    check.measured(
        format!(
            "{} requests on two sides; all agree {:?} after the healing",
            agreed.on.requests, agreed.nodes
        ),
        format!("{AGREED:?}"),
    );
    assert_eq!(agreed.on.requests, count(&heard, 200));
    assert!(
        agreed.nodes < AGREED * scale().patience,
        "{:?}",
        agreed.nodes
    );
}

/// A strict limit is divided: never passed, whoever is cut off from whom.
#[test]
fn a_strict_limit_is_never_passed() {
    let check = Check::begin("R5");
    const LIMIT: u64 = 90;
    let limit = format!("rate_limits: [{{requests: {LIMIT}, every: 1d, enforcement: strict}}]");
    let fleet = Fleet::start(3, Plan::limited(&limit));
    fleet.network.cut(&[2]);
    let press = |node: usize| {
        let to = [fleet.nodes[node].data; 2];
        Pressure::start(&to, &chat(2), Duration::from_millis(10))
    };
    let parts = [0, 1, 2].map(press);
    within(Duration::from_secs(3), || None::<()>);
    let good = parts.map(|part| count(&part.stop(), 200));
    fleet.network.heal();
    fleet.await_whole();
    let late = Pressure::start(
        &[0, 1, 2].map(|node| fleet.nodes[node].data),
        &chat(2),
        Duration::from_millis(10),
    )
    .for_a(Duration::from_secs(1));
    let agreed = fleet.agree(Duration::from_secs(30));
    check.measured(
        format!(
            "strict, two and one: {good:?}, {} after the healing",
            count(&late, 200)
        ),
        format!("{} each", LIMIT / 3),
    );
    assert_eq!(good, [LIMIT / 3; 3]);
    assert_eq!(agreed.on.requests, LIMIT);
}

/// The same for money, judged by what the provider served: requests of three prices, all at once.
#[test]
fn a_strict_budget_is_never_passed() {
    let check = Check::begin("R4");
    const LIMIT: u64 = 3_000_000;
    let fleet = Fleet::start(
        3,
        Plan::limited("budgets: [{limit_usd: 0.003, every: 1d, enforcement: strict}]"),
    );
    let parts: Vec<Pressure> = [3, 30, 90]
        .iter()
        .map(|tokens| {
            let to: Vec<SocketAddr> = fleet.nodes.iter().map(|node| node.data).collect();
            Pressure::start(
                &[&to[..], &to[..]].concat(),
                &chat(*tokens),
                Duration::from_millis(5),
            )
        })
        .collect();
    within(Duration::from_secs(4), || None::<()>);
    let (mut good, mut refused) = (0, 0);
    for part in parts {
        let heard = part.stop();
        good += count(&heard, 200);
        refused += count(&heard, 429);
    }
    let agreed = fleet.agree(Duration::from_secs(30));
    let spent = agreed.on.nano_usd;
    check.measured(
        format!("strict budget, 18 clients at once: {spent} of {LIMIT} nano-dollars, {good} good, {refused} refused"),
        format!("{LIMIT}"),
    );
    assert_eq!(agreed.on.requests, good);
    assert!(spent <= LIMIT, "{spent}");
    assert!(
        spent >= LIMIT * 8 / 10,
        "only {spent} of {LIMIT} could be spent"
    );
    assert!(refused > 0);
}

/// With `partition: available` each side goes on with the whole limit, and says by how much it may be
/// passed; the provider is the judge of what both took.
#[test]
fn sides_that_are_to_be_available_have_the_whole_limit() {
    let check = Check::begin("available");
    const LIMIT: u64 = 120;
    const BEFORE: u64 = 30;
    let mut plan = Plan::limited(&format!("rate_limits: [{{requests: {LIMIT}, every: 1d}}]"));
    plan.cluster = vec!["partition: available".to_owned()];
    let fleet = Fleet::start(3, plan);
    for round in 0..BEFORE as usize {
        assert_eq!(fleet.nodes[round % 3].ask(&chat(1)).status(), 200);
    }
    fleet.agree(AGREED * scale().patience);
    fleet.network.cut(&[2]);
    for node in &fleet.nodes {
        let parted = || readiness(node).1.iter().any(|part| part == "partition");
        eventually("it says that nodes are missing", || parted().then_some(()));
    }
    let spend = |nodes: &[usize]| {
        let to: Vec<SocketAddr> = nodes.iter().map(|node| fleet.nodes[*node].data).collect();
        Pressure::start(&to, &chat(2), Duration::from_millis(20))
    };
    let sides = [spend(&[0, 1]), spend(&[2])];
    // Only what is close to its end may be divided within a side, and nothing gives a share.
    let mut modes = BTreeSet::new();
    look_for(Duration::from_secs(6), || {
        for node in &fleet.nodes {
            let mode = node.standing_of("demo", "requests")["mode"].clone();
            modes.insert(mode.as_str().expect("a word").to_owned());
        }
    });
    let bounds = || [0, 1, 2].map(|node| bound(&fleet.nodes[node], "requests"));
    let told = bounds();
    let [larger, smaller] = sides.map(|side| count(&side.stop(), 200));
    let both = BEFORE + larger + smaller;
    fleet.network.heal();
    fleet.await_whole();
    let agreed = fleet.agree(AGREED * scale().patience);
    let after = bounds();
    check.measured(
        format!("available: {BEFORE} before the cut, then two nodes {larger} and one {smaller}: {both} of {LIMIT}, {told:?} told as what may pass it, {after:?} after the healing; modes {modes:?}; all agree after {:?}", agreed.nodes),
        format!("{} on each side; {AGREED:?}", LIMIT - BEFORE),
    );
    assert_eq!(agreed.on.requests, both, "to the unit");
    // The two of a side pass the limit by what may be under way at most.
    let rest = LIMIT - BEFORE;
    assert_eq!(smaller, rest);
    assert!((rest..=rest + 10).contains(&larger), "{larger} of {rest}");
    assert!(
        modes
            .iter()
            .all(|mode| mode == "live" || mode == "guard_band"),
        "{modes:?}"
    );
    for bound in told.into_iter().chain(after) {
        assert!(
            both <= LIMIT + bound,
            "{both} of {LIMIT}, bounds {told:?}, then {after:?}"
        );
        assert!(
            bound <= 3 * rest,
            "a bound that allows anything promises nothing: {bound}"
        );
    }
    for node in &fleet.nodes {
        assert_eq!(node.ask(&chat(1)).status(), 429, "it is one limit again");
    }
}
