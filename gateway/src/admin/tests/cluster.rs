//! The other nodes, as the admin port shows them and waits for them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::view::{AppliedOn, LeadersView, MemberState};
use cluster::{ClusterView, DegradedReason, Diagnosis, MemberView, NodeKey};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{ADMIN, VIEWER, World};
use crate::admin::Cluster;

/// A cluster of two that says what it is told to.
struct Fleet {
    view: Mutex<ClusterView>,
    reached: Mutex<AppliedOn>,
    /// Each wait: for what, and for how long.
    waits: Mutex<Vec<(String, Duration)>>,
    findings: Mutex<Vec<Diagnosis>>,
    drained: AtomicBool,
    stalled: AtomicBool,
}

fn member(node: &str, is_self: bool, hash: u8, revision: u64) -> MemberView {
    let address: SocketAddr = "127.0.0.1:10101".parse().expect("an address");
    MemberView {
        node: node.to_owned(),
        key: NodeKey(u128::from(hash)),
        boot: 1,
        state: MemberState::Up,
        region: "eu".to_owned(),
        zone: String::new(),
        version: "0.1.0".to_owned(),
        protocol: 2,
        capabilities: 1,
        address,
        leader: is_self,
        regional_leader: is_self,
        is_self,
        link_up: !is_self,
        rtt: Some(Duration::from_micros(1_234)),
        lag: None,
        unacked: 0,
        clock_offset_ms: Some(0),
        configuration_hash: Some([hash; 32]),
        configuration_revision: Some(revision),
        applied_revision: Some(3),
        silent_for: None,
    }
}

fn world() -> (World, Arc<Fleet>) {
    let view = ClusterView {
        cluster: "prod".to_owned(),
        node: "n1".to_owned(),
        members: vec![member("n1", true, 1, 7), member("n2", false, 1, 7)],
        caught_up: true,
        protocol: 2,
        leaders: LeadersView {
            cluster: Some("n1".to_owned()),
            ..LeadersView::default()
        },
        ..ClusterView::default()
    };
    let fleet = Arc::new(Fleet {
        view: Mutex::new(view),
        reached: Mutex::new(AppliedOn { on: 2, of: 2 }),
        waits: Mutex::default(),
        findings: Mutex::default(),
        drained: AtomicBool::new(false),
        stalled: AtomicBool::new(false),
    });
    (World::in_cluster(fleet.clone()), fleet)
}

impl Fleet {
    fn wait(&self, what: String, at_most: Duration) -> AppliedOn {
        let mut waits = self.waits.lock().expect("no panic holds it");
        waits.push((what, at_most));
        *self.reached.lock().expect("no panic holds it")
    }

    fn change(&self, change: impl FnOnce(&mut ClusterView)) {
        change(&mut self.view.lock().expect("no panic holds it"));
    }
}

impl Cluster for Fleet {
    fn view(&self) -> Arc<ClusterView> {
        Arc::new(self.view.lock().expect("no panic holds it").clone())
    }

    fn wait_applied(&self, revision: u64, at_most: Duration) -> AppliedOn {
        self.wait(revision.to_string(), at_most)
    }

    fn wait_revoked(&self, hash: &str, at_most: Duration) -> AppliedOn {
        self.wait(hash.to_owned(), at_most)
    }

    fn diagnose(&self) -> Receiver<Diagnosis> {
        let (found, findings) = sync_channel(8);
        for finding in self.findings.lock().expect("no panic holds it").drain(..) {
            found.send(finding).expect("it is read later");
        }
        findings
    }

    fn drain(&self) {
        self.drained.store(true, Ordering::SeqCst);
    }

    fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_node_whose_clusters_thread_hangs_wants_no_traffic() {
    let (world, fleet) = world();
    world.readiness.set_ready(true);
    let readyz = async || {
        let answer = world.call(Method::GET, "/readyz", "").await;
        (answer.status.as_u16(), answer.json())
    };
    assert_eq!(readyz().await.0, 200);
    fleet.stalled.store(true, Ordering::SeqCst);
    let (status, body) = readyz().await;
    assert_eq!(status, 503);
    assert_eq!(body["reasons"], json!(["cluster_stalled"]));
    let metrics = world.call(Method::GET, "/metrics", "").await.text;
    assert!(metrics.contains("tyr_degraded{reason=\"cluster_stalled\"} 1\n"));
    let shown = world.read("/api/cluster").await.json();
    assert_eq!(shown["degraded"], json!(["cluster_stalled"]));
    fleet.stalled.store(false, Ordering::SeqCst);
    assert_eq!(readyz().await.0, 200);
}

#[tokio::test]
async fn a_node_is_ready_once_it_has_caught_up() {
    let (world, fleet) = world();
    world.readiness.set_ready(true);
    fleet.change(|view| view.caught_up = false);
    let readyz = async || {
        let answer = world.call(Method::GET, "/readyz", "").await;
        (answer.status.as_u16(), answer.json())
    };
    let (status, body) = readyz().await;
    assert_eq!((status, &body["reasons"]), (503, &json!(["catching_up"])));
    let metrics = world.call(Method::GET, "/metrics", "").await.text;
    assert!(metrics.contains("\ntyr_ready 0\n"), "{metrics}");
    fleet.change(|view| view.caught_up = true);
    assert_eq!(readyz().await.0, 200);
    let metrics = world.call(Method::GET, "/metrics", "").await.text;
    assert!(metrics.contains("\ntyr_ready 1\n"), "{metrics}");
    assert!(metrics.contains("\ntyr_cluster_members{state=\"up\"} 2\n"));
}

#[tokio::test]
async fn every_reason_of_the_cluster_is_told_by_name_and_goes_again() {
    let (world, fleet) = world();
    let node = || "n2".to_owned();
    let twin = std::net::SocketAddr::from(([10, 0, 0, 9], 10_101));
    let reasons = [
        (DegradedReason::Peers, "peers", json!([])),
        (DegradedReason::Store, "store", json!([])),
        (
            DegradedReason::StreamsBlocked { node: node() },
            "streams_blocked",
            json!(["n2"]),
        ),
        (
            DegradedReason::NameTaken { by: NodeKey(9) },
            "name_taken",
            json!([]),
        ),
        (
            DegradedReason::KeyTaken { at: twin },
            "key_taken",
            json!([]),
        ),
        (
            DegradedReason::KeyShared { at: twin },
            "key_shared",
            json!([]),
        ),
        (
            DegradedReason::ConfigurationMismatch {
                node: node(),
                parts: vec!["teams".to_owned()],
            },
            "configuration_mismatch",
            json!(["n2"]),
        ),
        (
            DegradedReason::Partition {
                missing: vec![node(), "n3".to_owned()],
            },
            "partition",
            json!(["n2", "n3"]),
        ),
        (DegradedReason::Isolated, "isolated", json!([])),
        (
            DegradedReason::ClockSkew {
                node: node(),
                ms: 300,
            },
            "clock_skew",
            json!(["n2"]),
        ),
        (DegradedReason::TooManyCells, "too_many_cells", json!([])),
    ];
    for (reason, word, nodes) in reasons {
        fleet.change(|view| view.degraded = vec![reason]);
        let ready = world.call(Method::GET, "/readyz", "").await.json();
        assert_eq!(ready["degraded"], json!([word]));
        // Who has no token is told how many, and not who.
        assert!(!ready.to_string().contains("n2"), "{ready}");
        let count = nodes.as_array().map_or(0, Vec::len);
        let counts = match count {
            0 => json!({}),
            count => json!({word: count}),
        };
        assert_eq!(ready["members"], counts);
        let shown = world.read("/api/cluster").await.json();
        assert_eq!(shown["degraded"], json!([word]));
        assert_eq!(shown["detail"][0]["reason"], word);
        assert_eq!(shown["detail"][0]["nodes"], nodes);
        let metrics = world.call(Method::GET, "/metrics", "").await.text;
        let line = format!("tyr_degraded{{reason=\"{word}\"}} 1\n");
        assert!(metrics.contains(&line), "{word}");
        fleet.change(|view| view.degraded.clear());
        let ready = world.call(Method::GET, "/readyz", "").await.json();
        assert_eq!(ready["degraded"], json!([]), "{word}");
    }
}

#[tokio::test]
async fn members_are_shown_and_the_newest_file_among_those_that_differ() {
    let (world, fleet) = world();
    let shown = world.read("/api/cluster").await.json();
    assert_eq!(shown["enabled"], true);
    assert_eq!(
        (&shown["node"], &shown["cluster"]),
        (&json!("n1"), &json!("prod"))
    );
    let other = &shown["members"][1];
    assert_eq!(other["node"], "n2");
    assert_eq!(other["state"], "up");
    assert_eq!(other["rtt_ms"], 1.234);
    assert_eq!(other["self"], false);
    let newest = |shown: &Value| -> Vec<bool> {
        let members = shown["members"].as_array().expect("a list").iter();
        members
            .map(|member| member["configuration_newest"] == true)
            .collect()
    };
    assert_eq!(newest(&shown), [false, false], "they agree");
    fleet.change(|view| view.members[1] = member("n2", false, 2, 8));
    let shown = world.read("/api/cluster").await.json();
    assert_eq!(newest(&shown), [false, true]);
}

#[tokio::test]
async fn a_write_says_on_how_many_nodes_it_is_in_force() {
    let (world, fleet) = world();
    let customer = json!({"name": "late"});
    let waits = || std::mem::take(&mut *fleet.waits.lock().expect("no panic holds it"));
    let none: &[(&str, &str)] = &[];
    let path = "/api/customers";
    let made = world
        .write(Method::POST, path, ADMIN, none, &customer)
        .await;
    assert_eq!(made.status, StatusCode::CREATED);
    let revision = made.json()["revision"].to_string();
    assert_eq!(made.json()["applied_on"], "2/2");
    assert_eq!(made.headers["x-tyr-applied-on"], "2/2");
    let waited = waits();
    assert_eq!(waited.len(), 1);
    assert_eq!(waited[0].0, revision);
    assert!(waited[0].1 <= Duration::from_secs(2));
    *fleet.reached.lock().expect("no panic holds it") = AppliedOn { on: 1, of: 2 };
    let path = "/api/customers/late";
    let put = world
        .write(Method::PUT, path, ADMIN, none, &made.json())
        .await;
    assert_eq!(put.status, StatusCode::OK, "what was shown can be written");
    assert_eq!(put.json()["applied_on"], "1/2");
    let gone = world
        .write(Method::DELETE, path, ADMIN, none, &Value::Null)
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(gone.headers["x-tyr-applied-on"], "1/2");
    waits();
    let path = "/api/virtual-keys/demo/revoke";
    let revoked = world
        .write(Method::POST, path, ADMIN, none, &Value::Null)
        .await;
    assert_eq!(revoked.json()["applied_on"], "1/2");
    assert_eq!(waits()[0].0, "hash-of-demo");
    // A refused write waits for nobody.
    let path = "/api/customers/none";
    world
        .write(Method::DELETE, path, ADMIN, none, &Value::Null)
        .await;
    assert_eq!(waits(), []);
}

#[tokio::test]
async fn a_diagnosis_is_told_line_by_line() {
    let (world, fleet) = world();
    let finding = |check, ok| Diagnosis {
        node: "n2".to_owned(),
        check,
        ok,
        detail: "as seen".to_owned(),
        took: Some(Duration::from_millis(2)),
    };
    *fleet.findings.lock().expect("no panic holds it") =
        vec![finding("gossip", true), finding("link", false)];
    let path = "/api/cluster/diagnose";
    let answer = world.call(Method::POST, path, ADMIN).await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines = answer
        .text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    let lines: Vec<Value> = lines.collect();
    assert_eq!(
        lines,
        [
            json!({"node": "n2", "check": "gossip", "ok": true, "detail": "as seen", "took_ms": 2.0}),
            json!({"node": "n2", "check": "link", "ok": false, "detail": "as seen", "took_ms": 2.0}),
            json!({"done": true, "failed": 1}),
        ]
    );
    let refused = world.call(Method::POST, path, VIEWER).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let shown = world.call(Method::GET, "/api/cluster", VIEWER).await;
    assert_eq!(shown.status, StatusCode::OK);
}

#[tokio::test]
async fn a_reader_of_a_diagnosis_that_never_reads_holds_nothing_for_ever() {
    let (found, findings) = sync_channel(8);
    for _ in 0..8 {
        let finding = Diagnosis {
            node: "n2".to_owned(),
            check: "gossip",
            ok: true,
            detail: String::new(),
            took: None,
        };
        found.send(finding).expect("there is room");
    }
    let (lines, unread) = tokio::sync::mpsc::channel(2);
    let until = crate::clock::monotonic() + Duration::from_millis(100);
    let telling = move || crate::admin::cluster::tell(&findings, &lines, until);
    let told = tokio::task::spawn_blocking(telling);
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    assert!(told.is_ok(), "it ends though nothing is read");
    assert_eq!(unread.len(), 2);
    drop(found);
}

#[tokio::test]
async fn a_drain_is_told_to_the_others() {
    let (world, fleet) = world();
    world.call(Method::POST, "/api/drain", ADMIN).await;
    assert!(fleet.drained.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_node_alone_is_its_only_member() {
    let world = World::new();
    let shown = world.read("/api/cluster").await.json();
    assert_eq!(shown["enabled"], false);
    assert_eq!(shown["cluster"], Value::Null);
    assert_eq!(shown["members"].as_array().map(Vec::len), Some(1));
    assert_eq!(shown["members"][0]["node"], "n1");
}
