//! Nodes that start without their store, and nodes that share one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::conf::{KEY, OTHER_KEY, key};
use crate::harness::database::{Database, readiness, used};
use crate::harness::node::number;
use crate::harness::upstream::chat_completion;
use crate::harness::{Ask, Conf, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";

/// What each call of these tests uses.
const TOKENS: u64 = 150;

fn chat() -> Value {
    json!({"model": "gpt-4o-mini", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]})
}

/// The status of one call with this key.
fn call(node: &Node, key: &str) -> u16 {
    node.ask(&Ask::post(CHAT, &chat()).bearer(key)).status()
}

fn without_store(node: &Node) -> bool {
    readiness(node) == (200, vec!["store".to_string()])
}

#[track_caller]
fn await_whole(node: &Node) {
    eventually("the node has its store", || {
        (readiness(node) == (200, Vec::new())).then_some(())
    });
}

/// A provider whose answers all cost the same, and a database.
struct Bench {
    upstream: Upstream,
    database: Database,
}

impl Bench {
    fn new() -> Self {
        Self {
            upstream: Upstream::start(|exchange| {
                exchange.json(200, &chat_completion("pong", 100, 50));
            }),
            database: Database::start(),
        }
    }

    /// Two keys of one team, which has a limit on tokens.
    fn conf(&self) -> Conf {
        let mut conf = self
            .database
            .store_of(Conf::for_upstream(self.upstream.address));
        conf.teams = "  - {name: search, rate_limits: [{tokens: 1000000, every: 1d}]}\n".into();
        conf.keys = key("demo", KEY, "team: search") + &key("other", OTHER_KEY, "team: search");
        conf
    }

    /// Waits until the store has the tokens of so many calls with keys of the team.
    #[track_caller]
    fn await_stored(&self, calls: u64) {
        eventually(&format!("{calls} calls are in the store"), || {
            let cells = self.database.cells();
            (cells.get(TEAM) == Some(&(calls * TOKENS))).then_some(())
        });
    }
}

const TEAM: &str = "team/search/tokens/1d/sliding";

fn of_team(node: &Node) -> u64 {
    used(node, "demo")[TEAM]
}

fn of_team_settled(node: &Node, calls: u64) {
    eventually(&format!("the team has used {calls} calls"), || {
        (of_team(node) == calls * TOKENS).then_some(())
    });
}

fn body(name: &str, more: &Value) -> Value {
    let mut body = json!({"name": name, "team": "search", "providers": [{"name": "openai"}]});
    for (field, value) in more.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    body
}

#[test]
fn a_node_that_starts_without_the_store_goes_on_from_its_own_files() {
    let mut bench = Bench::new();
    let mut node = Node::start(&bench.conf());
    // One call costs 0.000045 dollars.
    let budget = json!({"budgets": [{"limit_usd": 0.0001, "every": "1Y"}]});
    let spent = node.made_key(&body("spent", &budget));
    let free = node.made_key(&body("free", &json!({})));
    let stolen = node.made_key(&body("stolen", &json!({})));
    let statuses = [&spent, &spent, &spent, &free, &stolen].map(|key| call(&node, key));
    assert_eq!(statuses, [200, 200, 429, 200, 200]);
    bench.await_stored(4);
    bench.database.server.stop();
    // This one is in a usage file only when the node ends.
    assert_eq!(call(&node, &free), 200);
    of_team_settled(&node, 5);
    node.process.signal("TERM");
    node.process.wait(Duration::from_secs(20)).expect("it ends");

    node.start_again();
    assert!(without_store(&node), "{:?}", readiness(&node));
    assert_eq!(of_team(&node), 5 * TOKENS, "before any request");
    let statuses = [&spent, &free, &stolen].map(|key| call(&node, key));
    assert_eq!(statuses, [429, 200, 200], "what is spent stays spent");
    let refused = node.call("POST", "/api/virtual-keys", &body("late", &json!({})));
    assert_eq!(refused.status(), 503, "{}", refused.text());
    let revoked = node.call("POST", "/api/virtual-keys/stolen/revoke", &Value::Null);
    assert_eq!(revoked.status(), 200, "{}", revoked.text());
    assert_eq!(revoked.json()["persisted"], false, "{}", revoked.text());
    assert_eq!(call(&node, &stolen), 401);
    of_team_settled(&node, 7);
    eventually("both calls are in a usage file", || {
        (node.metric("tyr_usage_records_written_total", "") == 2.0).then_some(())
    });

    // Killed, without the store, and without it still.
    node.process.kill();
    node.start_again();
    assert!(without_store(&node));
    assert_eq!(
        [&spent, &free, &stolen].map(|key| call(&node, key)),
        [429, 200, 401]
    );
    of_team_settled(&node, 8);

    bench.database.server.resume();
    await_whole(&node);
    bench.await_stored(8);
    let revocations = "SELECT count(*) FROM entity WHERE kind = 'revocation' AND body IS NOT NULL";
    eventually("the revocation is in the store", || {
        (bench.database.rows(revocations) == "1").then_some(())
    });
    assert_eq!(
        [&spent, &free, &stolen].map(|key| call(&node, key)),
        [429, 200, 401]
    );
    of_team_settled(&node, 9);
    let late = node.made_key(&body("late", &json!({})));
    assert_eq!(call(&node, &late), 200);
    of_team_settled(&node, 10);
    bench.await_stored(10);
    let log = node.process.log();
    assert!(log.contains("the node starts without the store"), "{log}");
}

#[test]
fn what_others_did_meanwhile_is_learnt_without_a_restart() {
    let mut bench = Bench::new();
    let mut here = Node::start(&bench.conf());
    let kept = here.made_key(&body("kept", &json!({})));
    let dropped = here.made_key(&body("dropped", &json!({})));
    assert_eq!([&kept, &dropped].map(|key| call(&here, key)), [200, 200]);
    bench.await_stored(2);
    here.process.signal("TERM");
    here.process.wait(Duration::from_secs(20)).expect("it ends");

    let mut there = Node::start(&bench.conf());
    let theirs = there.made_key(&body("theirs", &json!({})));
    let gone = there.call("DELETE", "/api/virtual-keys/dropped", &Value::Null);
    assert_eq!(gone.status(), 204, "{}", gone.text());
    assert_eq!(
        [&kept, &theirs, &theirs].map(|key| call(&there, key)),
        [200; 3]
    );
    bench.await_stored(5);
    there.process.signal("TERM");
    there
        .process
        .wait(Duration::from_secs(20))
        .expect("it ends");

    bench.database.server.stop();
    here.start_again();
    assert!(without_store(&here));
    let statuses = [&kept, &dropped, &theirs].map(|key| call(&here, key));
    assert_eq!(statuses, [200, 200, 401], "as it last was here");
    of_team_settled(&here, 4);
    bench.database.server.resume();
    await_whole(&here);
    eventually("the key of the other node is known", || {
        (call(&here, &theirs) == 200).then_some(())
    });
    eventually("the key that was deleted is not", || {
        (call(&here, &dropped) == 401).then_some(())
    });
    eventually("the counts agree", || {
        let stored = bench.database.cells()[TEAM];
        (of_team(&here) == stored && stored.is_multiple_of(TOKENS) && stored >= 8 * TOKENS)
            .then_some(())
    });
}

#[test]
fn the_first_start_of_all_needs_the_store() {
    let mut bench = Bench::new();
    bench.database.server.stop();
    let mut node = Node::launch(&bench.conf());
    let status = node.process.wait(Duration::from_secs(30)).expect("it ends");
    assert_eq!(status.code(), Some(1));
    let log = node.process.log();
    let last = log.lines().last().expect("a last line");
    assert!(
        last.starts_with("tyr: ") && last.contains("refused") && !last.contains("password"),
        "{log}"
    );
    // Nothing stands in the way of the next try.
    bench.database.server.resume();
    node.start_again();
    await_whole(&node);
    assert_eq!(call(&node, KEY), 200);
}

#[test]
fn nodes_on_one_store_learn_of_each_others_writes() {
    let bench = Bench::new();
    let (one, two) = (Node::start(&bench.conf()), Node::start(&bench.conf()));
    let value = one.made_key(&body("shared", &json!({})));
    eventually("the other one knows the key", || {
        (call(&two, &value) == 200).then_some(())
    });
    let shown = two.admin("GET", "/api/virtual-keys/shared").json();
    assert_eq!(shown["source"], "api", "{shown}");

    // And back: a limit that lets nothing through, then none.
    let tight = body(
        "shared",
        &json!({"rate_limits": [{"requests": 1, "every": "1d"}]}),
    );
    let revision = number(&shown["revision"]);
    let replaced = two.call("PUT", "/api/virtual-keys/shared", &tight);
    assert_eq!(replaced.status(), 200, "{}", replaced.text());
    eventually("the first one has the new limit", || {
        let shown = one.admin("GET", "/api/virtual-keys/shared").json();
        (number(&shown["revision"]) > revision && shown["rate_limits"][0]["requests"] == 1)
            .then_some(())
    });
    let team = json!({"name": "made", "rate_limits": [{"requests": 5, "every": "1d"}]});
    assert_eq!(two.call("POST", "/api/teams", &team).status(), 201);
    eventually("and the new team", || {
        (one.admin("GET", "/api/teams/made").status() == 200).then_some(())
    });

    // A write that did not see the other's is refused.
    let seen = format!("\"{revision}\"");
    let path = "/api/virtual-keys/shared";
    let refused = one.call_with("PUT", path, ("if-match", &seen), &tight);
    assert_eq!(refused.status(), 412, "{}", refused.text());

    let revoked = one.call("POST", "/api/virtual-keys/shared/revoke", &Value::Null);
    assert_eq!(revoked.json()["persisted"], true, "{}", revoked.text());
    assert_eq!(call(&one, &value), 401);
    eventually("the other one refuses the key", || {
        (call(&two, &value) == 401).then_some(())
    });
    let deleted = two.call("DELETE", "/api/teams/made", &Value::Null);
    assert_eq!(deleted.status(), 204, "{}", deleted.text());
    eventually("the first one drops the team", || {
        (one.admin("GET", "/api/teams/made").status() == 404).then_some(())
    });
}

#[test]
fn a_process_that_takes_over_knows_what_the_old_one_wrote_to_the_last() {
    let bench = Bench::new();
    let mut node = Node::start(&bench.conf());
    let early = node.made_key(&body("early", &json!({})));
    assert_eq!(call(&node, &early), 200);
    let new = node.successor(&["--upgrade"]);
    eventually("the new process waits for the sockets", || {
        std::fs::read_to_string(node.folder().join("successor.log"))
            .ok()?
            .contains("waiting for the listening sockets")
            .then_some(())
    });
    // Only the old one is on the admin port.
    let late = node.made_key(&body("late", &json!({})));
    let deleted = node.call("DELETE", "/api/virtual-keys/early", &Value::Null);
    assert_eq!(deleted.status(), 204, "{}", deleted.text());
    let mut old = std::mem::replace(&mut node.process, new);
    old.signal("QUIT");
    let status = old.wait(Duration::from_secs(30)).expect("the old one ends");
    assert!(status.success(), "{status}");
    let statuses = [&late, &early].map(|key| call(&node, key));
    assert_eq!(statuses, [200, 401]);
    assert_eq!(node.admin("GET", "/api/virtual-keys/late").status(), 200);
    of_team_settled(&node, 2);
    bench.await_stored(2);
}
