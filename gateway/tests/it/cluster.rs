//! Nodes on one machine, with one Postgres: they form, count together,
//! follow one another's changes, and say what they see.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::{self, Ask};
use crate::harness::conf::{ADMIN, KEY};
use crate::harness::database::Database;
use crate::harness::fleet::{WHOLE, chat, members, up_in};
use crate::harness::wait::within;
use crate::harness::{Conf, Mock, Node, eventually, ports, tyr_binary};

/// Nodes on loopback, which need no secret there.
struct Few {
    nodes: Vec<Node>,
    mock: Mock,
    database: Database,
}

/// The gossip address of each node.
fn places(count: u8) -> Vec<SocketAddr> {
    (1..=count)
        .map(|node| SocketAddr::from(([127, 0, 0, node], ports::free().port())))
        .collect()
}

fn member_of(mut conf: Conf, index: usize, places: &[SocketAddr]) -> Conf {
    let peers: Vec<String> = places.iter().map(|peer| format!("'{peer}'")).collect();
    let own = places[index];
    conf.more += &format!(
        "cluster:\n  enabled: true\n  node_id: n{}\n  region: eu\n  peers: [{}]\n  \
         gossip: {{bind: {}, port: {}}}\n  grpc: {{port: {}}}\n",
        index + 1,
        peers.join(", "),
        own.ip(),
        own.port(),
        ports::free().port(),
    );
    conf
}

impl Few {
    fn start(count: u8, limits: &str) -> Self {
        let database = Database::start();
        let mock = Mock::with(&["--no-record"]);
        let places = places(count);
        let conf = database.store_of(Conf::for_upstream(mock.address).limited(limits));
        let nodes = (0..usize::from(count))
            .map(|index| Node::launch(&member_of(conf.clone(), index, &places)));
        let few = Few {
            nodes: nodes.collect(),
            mock,
            database,
        };
        let whole = within(WHOLE, || {
            let mut nodes = few.nodes.iter();
            nodes
                .all(|node| node.readyz() == Some(200) && up_in(node).len() == usize::from(count))
                .then_some(())
        });
        if whole.is_none() {
            let views = few.nodes.iter().map(|node| {
                let ready = node.readyz();
                let view = ready.map(|_| node.admin("GET", "/api/cluster").text());
                format!("{ready:?} {view:?}\n{}", node.process.log())
            });
            panic!("not whole:\n{}", views.collect::<Vec<_>>().join("\n"));
        }
        few
    }
}

/// What `tyr cluster` prints, and whether it succeeded.
fn told(node: &Node, question: &str) -> (bool, String) {
    let output = Command::new(tyr_binary())
        .args(["cluster", question, "--admin"])
        .arg(format!("http://{}", node.admin))
        .env("TYR_ADMIN_TOKEN", ADMIN)
        .output()
        .expect("tyr runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    (output.status.success(), format!("{text}{errors}"))
}

#[test]
fn three_nodes_count_together_and_follow_each_other() {
    let mut few = Few::start(3, "rate_limits: [{requests: 30, every: 1h}]");
    let nodes = &few.nodes;
    limits_are_shared(nodes);
    a_key_works_everywhere(nodes);
    a_revocation_is_in_force_everywhere(nodes);
    every_node_says_what_it_sees(nodes);
    who_does_not_answer_is_told(&few.nodes);
    a_revocation_needs_no_store(&mut few);
}

fn limits_are_shared(nodes: &[Node]) {
    let (mut served, mut round) = (0_u64, 0_usize);
    eventually("all of the limit is given out", || {
        let status = nodes[round % 3].ask(&chat(1)).status();
        assert!([200, 429].contains(&status), "{status}");
        served += u64::from(status == 200);
        round += 1;
        (served >= 30).then_some(())
    });
    for node in nodes.iter().cycle().take(12) {
        served += u64::from(node.ask(&chat(1)).status() == 200);
    }
    let standing = nodes[0].standing_of("demo", "requests");
    let bound = standing["overshoot_bound"]
        .as_u64()
        .expect("it is measured");
    assert!(served <= 30 + bound, "{served} of 30, bound {bound}");
    for node in nodes {
        eventually("every node has seen all of them", || {
            (node.standing_of("demo", "requests")["used"] == served).then_some(())
        });
        assert_eq!(node.ask(&chat(1)).status(), 429);
    }
}

fn a_key_works_everywhere(nodes: &[Node]) {
    for (index, writer) in nodes.iter().enumerate() {
        let body = json!({"name": format!("k{index}"), "providers": [{"name": "openai"}]});
        let made = writer.call("POST", "/api/virtual-keys", &body);
        assert_eq!(made.status(), 201, "{}", made.text());
        assert_eq!(made.json()["applied_on"], "3/3", "{}", made.text());
        let value = made.json()["value"]
            .as_str()
            .expect("shown once")
            .to_owned();
        for node in nodes {
            assert_eq!(node.ask(&chat(1).bearer(&value)).status(), 200);
        }
        let gone = writer.call(
            "DELETE",
            &format!("/api/virtual-keys/k{index}"),
            &Value::Null,
        );
        assert_eq!(gone.status(), 204);
        assert_eq!(gone.header("x-tyr-applied-on"), Some("3/3"));
        for node in nodes {
            assert_eq!(node.ask(&chat(1).bearer(&value)).status(), 401);
        }
    }
}

fn a_revocation_is_in_force_everywhere(nodes: &[Node]) {
    let value = nodes[0].made_key(&json!({"name": "leaked", "providers": [{"name": "openai"}]}));
    let revoked = nodes[1].call("POST", "/api/virtual-keys/leaked/revoke", &Value::Null);
    assert_eq!(revoked.json()["applied_on"], "3/3", "{}", revoked.text());
    assert_eq!(revoked.json()["persisted"], true, "{}", revoked.text());
    for node in nodes {
        assert_eq!(node.ask(&chat(1).bearer(&value)).status(), 401);
    }
}

fn every_node_says_what_it_sees(nodes: &[Node]) {
    for (index, node) in nodes.iter().enumerate() {
        // Who leads is settled after two looks, two seconds apart.
        let view = eventually("a leader", || {
            let view = node.shown("/api/cluster");
            view["leaders"]["cluster"].is_string().then_some(view)
        });
        assert_eq!(view["node"], format!("n{}", index + 1));
        assert_eq!(view["degraded"], json!([]), "{view}");
        assert_eq!(view["leaders"]["cluster"], "n1", "{view}");
        let members = view["members"].as_array().expect("a list");
        let names: Vec<&Value> = members.iter().map(|member| &member["node"]).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
        assert_eq!(node.metric("tyr_cluster_members", "state=\"up\""), 3.0);
        assert_eq!(node.metric("tyr_cluster_config_mismatch", ""), 0.0);
        let ready = client::ask(node.admin, &Ask::get("/readyz")).json();
        assert_eq!(ready["degraded"], json!([]));
        let (well, text) = told(node, "status");
        assert!(well && text.contains("cluster 'tyr'"), "{text}");
        for name in ["n1", "n2", "n3"] {
            let line = text.lines().find(|line| line.starts_with(name));
            assert!(line.is_some_and(|line| line.contains(" up ")), "{text}");
        }
        let (well, text) = told(node, "diagnose");
        assert!(well, "{text}");
        let others = ["n1", "n2", "n3"]
            .into_iter()
            .filter(|name| view["node"] != *name);
        for other in others {
            for channel in ["udp", "tcp", "grpc"] {
                let asked = format!("ok   {other} {channel}: ");
                let mut lines = text.lines().filter(|line| line.starts_with(&asked));
                assert!(lines.any(|line| line.ends_with("ms)")), "{asked}\n{text}");
            }
        }
        assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
    }
}

/// A process that stands still and one that is gone show by what they do not answer.
fn who_does_not_answer_is_told(nodes: &[Node]) {
    nodes[2].process.signal("STOP");
    let (well, text) = told(&nodes[0], "diagnose");
    nodes[2].process.signal("CONT");
    assert!(!well, "{text}");
    for (channel, verdict) in [
        ("udp", "FAIL n3 udp: no answer to 3 datagrams to "),
        ("tcp", "FAIL n3 tcp: no answer from "),
        ("grpc", "FAIL n3 grpc: no answer over the stream in 2 s"),
    ] {
        assert!(text.contains(verdict), "{text}");
        assert!(text.contains(&format!("ok   n2 {channel}: ")), "{text}");
    }
    assert!(text.ends_with("checks failed\n"), "{text}");
}

/// Revoked on one node while Postgres is away: refused by all within a second,
/// and brought there later.
fn a_revocation_needs_no_store(few: &mut Few) {
    few.database.server.crash();
    let nodes = &few.nodes;
    assert_eq!(nodes[0].ask(&chat(1)).status(), 429, "the key is known");
    let path = "/api/virtual-keys/demo/revoke";
    let begun = Instant::now();
    let (took, answer) = std::thread::scope(|scope| {
        let answer = scope.spawn(|| nodes[2].call("POST", path, &Value::Null));
        let took = within(Duration::from_secs(10), || {
            let mut nodes = nodes.iter();
            nodes
                .all(|node| node.ask(&chat(1).bearer(KEY)).status() == 401)
                .then(|| begun.elapsed())
        });
        (took, answer.join().expect("no panic"))
    });
    let took = took.expect("all refuse it");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["applied_on"], "3/3", "{}", answer.text());
    assert_eq!(answer.json()["persisted"], false, "{}", answer.text());
    for node in nodes {
        assert_eq!(node.readyz(), Some(200), "it goes on");
    }
    few.database.server.resume();
    within(WHOLE, || {
        let rows = "SELECT count(*) FROM entity WHERE kind = 'revocation' AND body IS NOT NULL";
        (few.database.rows(rows) == "2").then_some(())
    })
    .expect("the store has it in the end");
}

#[test]
fn a_new_process_takes_its_place_in_the_cluster() {
    let mut few = Few::start(2, "rate_limits: [{requests: 1000, every: 1h}]");
    let used = |node: &Node| node.standing_of("demo", "requests")["used"].clone();
    let seen = |few: &Few, count: u64| {
        for node in &few.nodes {
            eventually("every node has seen all of them", || {
                (used(node) == count).then_some(())
            });
        }
    };
    for round in 0..20 {
        assert_eq!(few.nodes[round % 2].ask(&chat(1)).status(), 200);
    }
    seen(&few, 20);
    let boot = |node: &Node| members(node)[0]["boot"].clone();
    let before = boot(&few.nodes[1]);
    let new = few.nodes[0].successor(&["--upgrade"]);
    let mut old = std::mem::replace(&mut few.nodes[0].process, new);
    old.signal("QUIT");
    let status = old.wait(WHOLE).expect("the old process ends");
    assert!(status.success(), "{status}");
    let whole = within(WHOLE, || {
        let ready = few.nodes.iter().all(|node| node.readyz() == Some(200));
        let changed = boot(&few.nodes[1]) != before;
        (ready && changed && up_in(&few.nodes[1]).len() == 2).then_some(())
    });
    assert!(whole.is_some(), "{}", few.nodes[1].shown("/api/cluster"));
    // What the old process had counted is known to the new one, once.
    seen(&few, 20);
    for round in 0..10 {
        assert_eq!(few.nodes[round % 2].ask(&chat(1)).status(), 200);
    }
    seen(&few, 30);
}

/// A limit that is spent stays spent for a process that takes over, from its first request on: it
/// accepts nothing before it knows what was counted.
#[test]
fn a_new_process_admits_nothing_of_a_limit_that_is_spent() {
    let mut few = Few::start(2, "rate_limits: [{requests: 30, every: 1h}]");
    let spent = within(WHOLE, || {
        let refused = |node: &Node| node.ask(&chat(1)).status() == 429;
        few.nodes.iter().all(refused).then_some(())
    });
    spent.expect("the limit is spent");
    let data = few.nodes[0].data;
    let stop = AtomicBool::new(false);
    let press = || {
        let (mut refused, mut other) = (0_u64, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let ask = chat(1).header("connection", "close");
            match client::ask(data, &ask).status() {
                429 => refused += 1,
                status => other.push(status),
            }
        }
        (refused, other)
    };
    let served = few.mock.stats()["requests"].clone();
    std::thread::scope(|scope| {
        let clients = [(); 4].map(|()| scope.spawn(press));
        let new = few.nodes[0].successor(&["--upgrade"]);
        let mut old = std::mem::replace(&mut few.nodes[0].process, new);
        old.signal("QUIT");
        let status = old.wait(WHOLE).expect("the old process ends");
        assert!(status.success(), "{status}");
        // The new one alone.
        let alone = within(WHOLE, || (few.nodes[0].readyz() == Some(200)).then_some(()));
        alone.expect("the new process is ready");
        for _ in 0..20 {
            assert_eq!(few.nodes[0].ask(&chat(1)).status(), 429);
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let (refused, other) = client.join().expect("no connect was refused");
            assert!(refused > 0);
            assert!(other.is_empty(), "{other:?} beside {refused} refusals");
        }
    });
    assert_eq!(few.mock.stats()["requests"], served, "nothing was admitted");
}

/// What a node answers while it does not know yet what was counted.
#[test]
fn a_node_that_has_not_caught_up_serves_no_call() {
    let mut few = Few::start(1, "rate_limits: [{requests: 30, every: 1h}]");
    let node = &mut few.nodes[0];
    assert_eq!(node.ask(&chat(1)).status(), 200);
    node.process.kill();
    few.database.server.crash();
    node.launch_again();
    let open = within(WHOLE, || std::net::TcpStream::connect(node.data).ok());
    open.expect("the data port is open");
    let early = node.ask(&chat(1));
    assert_eq!(early.status(), 503, "{}", early.text());
    assert_eq!(early.json()["error"]["code"], "not_ready");
    assert_eq!(early.header("retry-after"), Some("1"));
    let message = json!({"model": "gpt-4o-mini", "max_tokens": 1, "messages": []});
    let message = node.ask(&Ask::post("/anthropic/v1/messages", &message));
    assert_eq!(message.status(), 529, "{}", message.text());
    assert_eq!(message.json()["error"]["type"], "overloaded_error");
    // Whom nobody knows is not told that the key is wrong: it may be one of another node's.
    assert_eq!(
        node.ask(&chat(1).bearer("nobody-knows-this-key")).status(),
        503
    );
    assert_eq!(node.ask(&Ask::get("/")).status(), 200);
    assert_eq!(node.ask(&Ask::get("/nothing")).status(), 404);
    // The port is open a moment before the process takes itself for started.
    let waits = within(WHOLE, || {
        let ready = client::ask(node.admin, &Ask::get("/readyz"));
        assert_eq!(ready.status(), 503, "{}", ready.text());
        (ready.json()["reasons"] == json!(["catching_up"])).then_some(())
    });
    waits.expect("it says what it waits for");
    // After ten seconds it goes by what it kept.
    within(WHOLE, || (node.readyz() == Some(200)).then_some(())).expect("it is ready");
    assert_eq!(node.ask(&chat(1)).status(), 200);
}

/// What a start with this `cluster` says before it ends.
fn refused(store: &str, cluster: &str) -> String {
    let mut conf = Conf::empty();
    conf.store = store.to_owned();
    conf.more = format!("cluster: {{enabled: true, node_id: n1, {cluster}}}\n");
    let mut node = Node::launch(&conf);
    let status = node.process.wait(WHOLE).expect("it does not run");
    assert!(!status.success());
    node.process.log()
}

#[test]
fn a_cluster_that_could_not_work_is_refused() {
    let log = refused("", "peers: ['127.0.0.2:10101']");
    assert!(
        log.contains("cluster.enabled: needs `store.type: postgres`"),
        "{log}"
    );
    let postgres = "  type: postgres\n  url: postgres://tyr@127.0.0.1:1/tyr\n";
    let log = refused(postgres, "peers: ['10.1.2.3:10101']");
    assert!(log.contains("cluster.secret: is required"), "{log}");
    let log = refused(postgres, "gossip: {bind: 0.0.0.0}");
    assert!(log.contains("cluster.secret: is required"), "{log}");
}
