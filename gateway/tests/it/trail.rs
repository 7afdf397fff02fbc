//! The audit trail: a row for each change with who, what, before and after,
//! and a chain that shows where somebody altered it.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::api::{ENCRYPTION, Store};
use crate::harness::{Conf, Node, Upstream, tyr_binary};

const SECRET: &str = "credential-for-the-trail-0001";
/// `seq`, as the command names the row that does not fit.
const ALTERED: i64 = 4;

fn start(upstream: &Upstream, store: Store, more: &str) -> Node {
    let conf =
        Conf::for_upstream(upstream.address).limited("rate_limits: [{requests: 9, every: 1h}]");
    let mut conf = store.under(conf);
    conf.more = more.to_owned();
    Node::start(&conf)
}

/// Method, path, body; action, kind and name of its row.
fn changes(upstream: &Upstream) -> Vec<(&'static str, &'static str, Value, [&'static str; 3])> {
    let base_url = format!("http://{}/v1", upstream.address);
    let provider = |weight: u64| {
        json!({"name": "p", "kind": "openai", "base_url": base_url, "allow_private_addresses": true,
        "keys": [{"name": "main", "value": SECRET, "weight": weight}]})
    };
    let id = "virtual_key/demo/requests/1h/sliding";
    vec![
        (
            "POST",
            "/api/customers",
            json!({"name": "c"}),
            ["create", "customer", "c"],
        ),
        (
            "POST",
            "/api/providers",
            provider(1),
            ["create", "provider", "p"],
        ),
        (
            "PUT",
            "/api/providers/p",
            provider(2),
            ["replace", "provider", "p"],
        ),
        (
            "POST",
            "/api/virtual-keys",
            json!({"name": "k", "customer": "c"}),
            ["create", "virtual_key", "k"],
        ),
        (
            "PUT",
            "/api/virtual-keys/k",
            json!({"name": "k", "customer": "c", "active": false}),
            ["replace", "virtual_key", "k"],
        ),
        (
            "POST",
            "/api/virtual-keys/k/rotate",
            json!({"grace": "1h"}),
            ["rotate", "virtual_key", "k"],
        ),
        (
            "POST",
            "/api/virtual-keys/k/revoke",
            Value::Null,
            ["revoke", "virtual_key", "k"],
        ),
        (
            "POST",
            "/api/limits/reset",
            json!({"limit": id}),
            ["reset", "limit_reset", id],
        ),
        (
            "POST",
            "/api/limit-overrides",
            json!({"limit": id, "amount": 3}),
            ["override", "limit_override", id],
        ),
        (
            "DELETE",
            "/api/virtual-keys/k",
            Value::Null,
            ["delete", "virtual_key", "k"],
        ),
        (
            "POST",
            "/api/admin-tokens",
            json!({"name": "t", "role": "viewer"}),
            ["create", "admin_token", "t"],
        ),
    ]
}

fn rows(node: &Node) -> Vec<Value> {
    let page = node.shown("/api/audit?limit=1000");
    assert_eq!(page["next"], Value::Null);
    page["data"].as_array().expect("a list").clone()
}

fn rows_of_changes(store: Store) {
    let upstream = Upstream::chat();
    let node = start(&upstream, store, ENCRYPTION);
    let mut secrets = vec![SECRET.to_owned()];
    let mut expected = Vec::new();
    for (method, path, body, row) in changes(&upstream) {
        let known = rows(&node).len();
        let answer = node.call(method, path, &body);
        assert!(answer.status() < 300, "{method} {path}: {}", answer.text());
        if answer.status() != 204 {
            secrets.extend(answer.json()["value"].as_str().map(str::to_owned));
        }
        let rows = rows(&node);
        assert!(rows.len() > known, "{method} {path} left no row");
        let last = rows.last().expect("a row");
        let found = ["action", "kind", "name"].map(|field| last[field].as_str().unwrap_or("?"));
        assert_eq!(found, row, "{method} {path}: {last}");
        assert_eq!(
            (&last["actor"], &last["peer"]),
            (&json!("ops"), &json!("127.0.0.1"))
        );
        expected.push(row);
    }
    // Refused and reading calls leave none.
    let known = rows(&node);
    assert_eq!(
        node.call("POST", "/api/customers", &json!({"name": "c"}))
            .status(),
        409
    );
    assert_eq!(
        node.call("POST", "/api/customers", &json!({"colour": 1}))
            .status(),
        400
    );
    assert_eq!(
        node.call("PUT", "/api/virtual-keys/demo", &json!({"name": "demo"}))
            .status(),
        409
    );
    assert_eq!(rows(&node), known);
    let numbers: Vec<u64> = known
        .iter()
        .map(|row| row["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(
        numbers,
        (1..=known.len() as u64).collect::<Vec<_>>(),
        "without gaps"
    );
    let of = |wanted: [&str; 3]| {
        let ours = |row: &&Value| {
            ["action", "kind", "name"].map(|field| row[field].as_str().unwrap()) == wanted
        };
        known.iter().find(ours).expect("the row").clone()
    };
    let replaced = of(["replace", "provider", "p"]);
    assert_eq!(replaced["before"]["keys"][0]["weight"], 1, "{replaced}");
    assert_eq!(replaced["after"]["keys"][0]["weight"], 2, "{replaced}");
    assert_eq!(replaced["after"]["keys"][0]["value"], "***", "{replaced}");
    let created = of(["create", "customer", "c"]);
    assert_eq!(
        (&created["before"], &created["after"]["name"]),
        (&Value::Null, &json!("c"))
    );
    let deleted = of(["delete", "virtual_key", "k"]);
    assert_eq!(
        (&deleted["before"]["name"], &deleted["after"]),
        (&json!("k"), &Value::Null)
    );
    let text = Value::from(known).to_string();
    for secret in &secrets {
        assert!(!text.contains(secret.as_str()), "the trail shows {secret}");
    }
    assert!(secrets.len() >= 4, "three values were made");
    let page = node.shown("/api/audit?limit=3&after=2");
    let found: Vec<_> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["seq"].clone())
        .collect();
    assert_eq!(
        (found, &page["next"]),
        (vec![json!(3), json!(4), json!(5)], &json!("5"))
    );
    let (output, said) = verify(&node.conf_path());
    assert!(
        output.status.success() && said.contains("whole"),
        "{store:?}: {said}"
    );
}

#[test]
fn each_change_leaves_a_row_over_sqlite() {
    rows_of_changes(Store::Sqlite);
}

#[test]
fn each_change_leaves_a_row_over_postgres() {
    rows_of_changes(Store::Postgres);
}

/// What is done to the node itself is told, too.
#[test]
fn a_reload_and_a_drain_leave_rows() {
    let upstream = Upstream::chat();
    let node = start(&upstream, Store::Sqlite, "");
    for action in ["reload", "drain"] {
        let answer = node.call("POST", &format!("/api/{action}"), &Value::Null);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let rows = rows(&node);
        let last = rows.last().expect("a row");
        assert_eq!(
            (&last["action"], &last["actor"]),
            (&json!(action), &json!("ops")),
            "{last}"
        );
    }
    assert_eq!(node.readyz(), Some(503));
}

fn verify(conf: &Path) -> (Output, String) {
    let output = Command::new(tyr_binary())
        .args(["audit", "verify", "--conf"])
        .arg(conf)
        .current_dir(conf.parent().expect("a folder"))
        .output()
        .expect("tyr runs");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8_lossy(&text).into_owned())
}

/// A folder with the trail of [`changes`], its node ended.
fn with_a_trail(upstream: &Upstream, more: &str) -> Node {
    let mut node = start(upstream, Store::Sqlite, more);
    for (method, path, body, _) in changes(upstream) {
        if !more.is_empty() || !path.starts_with("/api/providers") {
            let answer = node.call(method, path, &body);
            assert!(answer.status() < 300, "{method} {path}: {}", answer.text());
        }
    }
    let (_, beside) = verify(&node.conf_path());
    assert!(
        beside.contains("whole"),
        "also beside a running node: {beside}"
    );
    node.process.signal("TERM");
    node.process.wait(Duration::from_secs(30)).expect("it ends");
    node
}

#[test]
fn an_altered_trail_is_found() {
    let upstream = Upstream::chat();
    let cases = [
        "UPDATE audit_log SET actor = 'somebody' WHERE seq = 4",
        "UPDATE audit_log SET at_ms = at_ms + 1 WHERE seq = 4",
        "UPDATE audit_log SET after = NULL WHERE seq = 4",
        "UPDATE audit_log SET name = 'x' WHERE seq = 4",
        "DELETE FROM audit_log WHERE seq = 4",
        "UPDATE audit_log SET seq = 1000 WHERE seq = 4",
        "UPDATE audit_log SET previous = hash WHERE seq = 4",
        "UPDATE audit_log SET hash = (SELECT hash FROM audit_log WHERE seq = 5) WHERE seq = 4",
    ];
    for more in [ENCRYPTION, ""] {
        let node = with_a_trail(&upstream, more);
        let database = node.folder().join("tyr.db");
        let (output, said) = verify(&node.conf_path());
        assert!(output.status.success(), "{said}");
        // All of it into the one file that is put back after each case.
        let connection = Connection::open(&database).expect("the store opens");
        let merged = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        merged.expect("a checkpoint");
        drop(connection);
        let whole = std::fs::read(&database).expect("the store");
        for statement in cases {
            let connection = Connection::open(&database).expect("the store opens");
            let changed = connection
                .execute(statement, [])
                .expect("the store takes it");
            assert_eq!(changed, 1, "{statement}");
            drop(connection);
            let (output, said) = verify(&node.conf_path());
            assert_eq!(output.status.code(), Some(1), "{statement}: {said}");
            let named = [ALTERED, ALTERED + 1]
                .iter()
                .any(|seq| said.contains(&seq.to_string()));
            assert!(named, "{statement}: {said}");
            std::fs::write(&database, &whole).expect("the store as it was");
        }
        let (output, said) = verify(&node.conf_path());
        assert!(output.status.success(), "{said}");
    }
}
