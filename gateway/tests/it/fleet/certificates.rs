//! Links between nodes under certificates of the operator's own authority.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::{Check, scale};
use crate::harness::database::readiness;
use crate::harness::fleet::{Plan, SECRET, TEAM, WHOLE, chat, state_of};
use crate::harness::pressure::{Pressure, count};
use crate::harness::tls::Authority;
use crate::harness::wait::within;
use crate::harness::{Fleet, Node, eventually};

/// How often nodes look at the files, and how long they may take to make a link anew.
const LOOK: Duration = Duration::from_secs(10);
const LINKED: Duration = Duration::from_secs(5);

/// What a node tells of each time that it took its files anew.
const READ_AGAIN: &str = "certificates of the cluster were read again";

/// The files of each node: whom it trusts, its certificate and its key.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for certificates"))
    }

    fn folder(&self, node: usize) -> PathBuf {
        let folder = self.0.path().join(format!("n{}", node + 1));
        fs::create_dir_all(&folder).expect("a folder for a node");
        folder
    }

    /// Lets a node have a certificate of this authority that names the node called `name`.
    fn issue(&self, node: usize, name: &str, authority: &Authority) {
        authority.issue_node("tyr", name).write(&self.folder(node));
    }

    /// Lets a node trust these authorities.
    fn trust(&self, node: usize, authorities: &[&Authority]) {
        let all: Vec<String> = authorities.iter().map(|one| one.pem()).collect();
        let folder = self.folder(node);
        let new = folder.join("new.pem");
        fs::write(&new, all.concat()).expect("the file is written");
        fs::rename(&new, folder.join("ca.crt")).expect("the file is replaced");
    }

    /// The lines by which `count` nodes use them.
    fn lines(&self, count: usize) -> Vec<String> {
        let line = |folder: &Path| {
            let folder = folder.display();
            format!(
                "tls: {{ca: {folder}/ca.crt, cert: {folder}/tls.crt, key: file.{folder}/tls.key}}"
            )
        };
        (0..count).map(|node| line(&self.folder(node))).collect()
    }
}

/// So many nodes of one authority, not yet started.
fn prepared(count: usize, limit: &str, authority: &Authority) -> (Files, Fleet) {
    let files = Files::new();
    for node in 0..count {
        files.issue(node, &format!("n{}", node + 1), authority);
        files.trust(node, &[authority]);
    }
    let mut plan = Plan::limited(limit);
    plan.own = files.lines(count);
    (files, Fleet::prepare(count, plan))
}

/// Waits until all of these see a node without a stream, and say so.
#[track_caller]
fn await_blocked<'a>(nodes: impl Iterator<Item = &'a Node> + Clone, name: &str) {
    let blocked = |node: &Node| {
        let told = readiness(node)
            .1
            .iter()
            .any(|part| part == "streams_blocked");
        let shown = node.metric("tyr_cluster_members", "state=\"degraded\"") >= 1.0;
        told && shown && state_of(node, name).as_deref() == Some("degraded")
    };
    let all = within(LOOK + WHOLE, || nodes.clone().all(blocked).then_some(()));
    let views: Vec<_> = nodes.map(|node| node.shown("/api/cluster")).collect();
    assert!(all.is_some(), "{views:#?}");
}

#[test]
fn only_nodes_of_the_operators_authority_have_streams() {
    let check = Check::begin("certificates");
    const LIMIT: u64 = 40;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let limit = format!("rate_limits: [{{requests: {LIMIT}, every: 1d}}]");
    let (files, mut fleet) = prepared(4, &limit, &ours);
    for node in 0..3 {
        fleet.nodes.push(fleet.launch(node));
    }
    fleet.await_whole();
    let body = json!({"name": "made", "team": TEAM, "providers": [{"name": "openai"}]});
    let made = fleet.nodes[1].call("POST", "/api/virtual-keys", &body);
    assert_eq!(made.json()["applied_on"], "3/3", "{}", made.text());
    let made = made.json()["value"]
        .as_str()
        .expect("shown once")
        .to_owned();
    for node in &fleet.nodes {
        assert_eq!(node.ask(&chat(1).bearer(&made)).status(), 200);
    }
    let (mut good, mut round) = (0, 0);
    eventually("all of the limit is given out", || {
        good += u64::from(fleet.nodes[round % 3].ask(&chat(1)).status() == 200);
        round += 1;
        (good >= LIMIT && round % 12 == 0).then_some(())
    });
    let bound = super::bound(&fleet.nodes[0], "requests");
    assert!(bound <= LIMIT / 4, "{bound}");
    assert!(good <= LIMIT + bound, "{good} of {LIMIT} and {bound}");
    fleet.agree(Duration::from_secs(30));

    // It has the secret, and all but its certificate is right: gossip takes it, no stream does.
    files.issue(3, "n4", &theirs);
    files.trust(3, &[&ours, &theirs]);
    fleet.nodes.push(fleet.launch(3));
    let ready = within(WHOLE, || {
        (fleet.nodes[3].readyz() == Some(200)).then_some(())
    });
    assert!(ready.is_some(), "{}", fleet.nodes[3].process.log());
    await_blocked(fleet.nodes[..3].iter(), "n4");
    await_blocked(fleet.nodes[3..].iter(), "n1");
    for node in &fleet.nodes[..3] {
        assert_eq!(node.metric("tyr_cluster_peer_up", "peer=\"n4\""), 0.0);
        assert_eq!(
            node.metric("tyr_cluster_peer_up", ""),
            2.0,
            "the others have theirs"
        );
    }
    assert_eq!(fleet.nodes[3].metric("tyr_cluster_peer_up", ""), 0.0);
    assert_eq!(
        fleet.nodes[3].ask(&chat(1)).status(),
        429,
        "no fresh budget"
    );

    // The right ones on its disk, and it is one of them without a restart.
    files.issue(3, "n4", &ours);
    let begun = Instant::now();
    fleet.await_whole();
    let took = begun.elapsed();
    check.measured(
        format!("{good} of one limit on three nodes; a fourth of another authority had no stream, and with a certificate of theirs after {took:?}"),
        format!("{LIMIT} + {bound}; {:?}", LOOK + LINKED),
    );
    assert!(took < (LOOK + LINKED) * scale().patience, "{took:?}");
    let made = fleet.nodes[3].call("POST", "/api/customers", &json!({"name": "c"}));
    assert_eq!(made.json()["applied_on"], "4/4", "{}", made.text());
    fleet.agree(Duration::from_secs(30));
}

#[test]
fn a_node_does_not_start_with_the_certificate_of_another() {
    let _check = Check::begin("certificates");
    let ours = Authority::new();
    let (files, fleet) = prepared(1, "", &ours);
    files.issue(0, "n2", &ours);
    let mut node = fleet.launch(0);
    let status = node.process.wait(WHOLE).expect("it does not run");
    assert!(!status.success(), "{status}");
    let log = node.process.log();
    let told = log.contains("spiffe://tyr/node/n2") && log.contains("spiffe://tyr/node/n1");
    assert!(told, "{log}");
    assert!(!log.contains(SECRET));
}

/// Waits until each of these nodes has taken its files anew so many times.
#[track_caller]
fn await_read(nodes: &[Node], times: usize) {
    let read = |node: &Node| node.process.log().matches(READ_AGAIN).count();
    let all = within(LOOK * 3, || {
        nodes.iter().all(|node| read(node) == times).then_some(())
    });
    let counts: Vec<usize> = nodes.iter().map(read).collect();
    assert!(all.is_some(), "read {counts:?} times, not {times}");
}

#[test]
fn the_operators_authority_changes_without_a_restart() {
    let check = Check::begin("certificates");
    let (old, new) = (Authority::new(), Authority::new());
    let (files, mut fleet) = prepared(3, "", &old);
    for node in 0..3 {
        fleet.nodes.push(fleet.launch(node));
    }
    fleet.await_whole();
    let targets: Vec<SocketAddr> = fleet.nodes.iter().map(|node| node.data).collect();
    let pressure = Pressure::start(&targets, &chat(2), Duration::from_millis(20));
    (0..3).for_each(|node| files.trust(node, &[&old, &new]));
    await_read(&fleet.nodes, 1);
    // A certificate of another node is not taken, and nothing changes by it.
    files.issue(2, "n1", &new);
    files.issue(0, "n1", &new);
    files.issue(1, "n2", &new);
    await_read(&fleet.nodes[..2], 2);
    fleet.nodes[2].await_log(&["certificates of the cluster stay as they were", "node/n1"]);
    fleet.await_whole();
    // With the old authority the streams go that it vouched for.
    (0..2).for_each(|node| files.trust(node, &[&new]));
    await_read(&fleet.nodes[..2], 3);
    await_blocked(fleet.nodes[..2].iter(), "n3");
    files.issue(2, "n3", &new);
    let begun = Instant::now();
    fleet.await_whole();
    let took = begun.elapsed();
    let heard = pressure.stop();
    let (asked, good) = (heard.iter().flatten().count() as u64, count(&heard, 200));
    let agreed = fleet.agree(Duration::from_secs(30));
    check.measured(
        format!("{} of {asked} failed while the authority changed; the last node is back {took:?} after its certificate is there", asked - good),
        format!("0 failed; {:?}", LOOK + LINKED),
    );
    assert_eq!(good, asked, "requests failed");
    assert!(took < (LOOK + LINKED) * scale().patience, "{took:?}");
    assert_eq!(agreed.on.requests, good);
}
