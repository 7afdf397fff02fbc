//! Entities made over the admin API, on the real node: at once in force, and
//! still there after a restart.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::client::ask;
use crate::harness::conf::{ADMIN, KEY};
use crate::harness::{Answer, Ask, Conf, Node, Upstream, tyr_binary};

const CHAT: &str = "/v1/chat/completions";

fn chat(node: &Node, key: &str) -> u16 {
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]});
    node.ask(&Ask::post(CHAT, &body).bearer(key)).status()
}

#[track_caller]
fn api(node: &Node, method: &str, path: &str, body: &Value, status: u16) -> Answer {
    let mut call = Ask::post_bytes(path, body.to_string()).bearer(ADMIN);
    call.method = method.to_owned();
    let answer = ask(node.admin, &call);
    assert_eq!(
        answer.status(),
        status,
        "{method} {path}: {}",
        answer.text()
    );
    answer
}

/// Makes a customer, its team and a key of that; the key's value.
fn make(node: &Node) -> String {
    let customer = json!({"name": "acme", "budgets": [{"limit_usd": 0.5, "every": "1d"}]});
    api(node, "POST", "/api/customers", &customer, 201);
    let team = json!({"name": "search", "customer": "acme"});
    api(node, "POST", "/api/teams", &team, 201);
    let key = json!({
        "name": "made",
        "team": "search",
        "providers": [{"name": "openai"}],
        "rate_limits": [{"requests": 1, "every": "1h"}],
    });
    let made = api(node, "POST", "/api/virtual-keys", &key, 201).json();
    made["value"].as_str().expect("a value").to_owned()
}

#[test]
fn a_key_lives_from_its_making_to_its_revocation() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let value = make(&node);
    assert_eq!(chat(&node, &value), 200);
    assert_eq!(chat(&node, &value), 429, "its limit is in force");

    let limit = "virtual_key/made/requests/1h/sliding";
    let more = json!({"limit": limit, "amount": 2});
    api(&node, "POST", "/api/limit-overrides", &more, 201);
    assert_eq!(chat(&node, &value), 200);
    assert_eq!(chat(&node, &value), 429);
    api(
        &node,
        "POST",
        "/api/limits/reset",
        &json!({"limit": limit}),
        200,
    );
    assert_eq!(chat(&node, &value), 200, "it counts from zero");

    let path = "/api/virtual-keys/made";
    let grace = json!({"grace": "1h"});
    let rotated = api(&node, "POST", &format!("{path}/rotate"), &grace, 200).json();
    let new = rotated["value"].as_str().expect("a value");
    assert_ne!(new, value);
    api(
        &node,
        "DELETE",
        &format!("/api/limit-overrides/{limit}"),
        &Value::Null,
        204,
    );
    for value in [&*value, new] {
        assert_eq!(chat(&node, value), 429, "known, but full again");
    }
    api(&node, "POST", &format!("{path}/revoke"), &Value::Null, 200);
    for value in [&*value, new] {
        assert_eq!(chat(&node, value), 401);
    }
    api(&node, "DELETE", "/api/teams/search", &Value::Null, 409);
    api(&node, "DELETE", path, &Value::Null, 204);
    api(&node, "DELETE", "/api/teams/search", &Value::Null, 204);

    let trail = node.admin("GET", "/api/audit").json();
    let actions: Vec<&str> = trail["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| row["action"].as_str().expect("a word"))
        .collect();
    // A revocation has a row for each of the key's values.
    let expected = [
        "create", "create", "create", "override", "reset", "rotate", "delete", "revoke", "revoke",
        "delete", "delete",
    ];
    assert_eq!(actions, expected);
    for secret in [&*value, new, KEY] {
        assert!(!trail.to_string().contains(secret));
    }
}

#[test]
fn what_was_made_is_there_after_a_restart() {
    let upstream = Upstream::chat();
    let mut node = Node::start(&Conf::for_upstream(upstream.address));
    let value = make(&node);
    assert_eq!(chat(&node, &value), 200);
    let tag = node.admin("GET", "/api/virtual-keys/made");
    let tag = tag.header("etag").expect("a tag").to_owned();
    node.records_exactly(1);
    node.process.kill();
    node.start_again();
    assert_eq!(chat(&node, &value), 429, "known, with what it has used");
    let read = node.admin("GET", "/api/virtual-keys/made");
    assert_eq!(read.header("etag"), Some(&*tag));
    let secrets = json!({"name": "p2", "kind": "openai", "base_url": "https://api.example/v1",
        "keys": [{"name": "main", "value": "a-secret-of-a-provider"}]});
    api(&node, "POST", "/api/providers", &secrets, 409);
}

#[test]
fn a_token_of_the_api_is_as_good_as_one_of_the_file() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let role = json!({"name": "keys", "permissions": [
        {"resource": "virtual-keys", "operations": ["*"]},
        {"resource": "admin-tokens", "operations": ["create"]},
    ]});
    api(&node, "POST", "/api/roles", &role, 201);
    let made = api(
        &node,
        "POST",
        "/api/admin-tokens",
        &json!({"name": "t", "role": "keys"}),
        201,
    );
    let token = made.json()["value"].as_str().expect("a value").to_owned();
    let status = |method: &str, path: &str, body: &Value| {
        let mut call = Ask::post_bytes(path, body.to_string()).bearer(&token);
        call.method = method.to_owned();
        ask(node.admin, &call).status()
    };
    assert_eq!(status("GET", "/api/virtual-keys", &Value::Null), 200);
    assert_eq!(status("GET", "/api/config", &Value::Null), 403);
    let child = |role: &str| json!({"name": "child", "role": role});
    assert_eq!(status("POST", "/api/admin-tokens", &child("admin")), 403);
    assert_eq!(status("POST", "/api/admin-tokens", &child("keys")), 201);
    assert_eq!(status("POST", "/api/roles", &role), 403);
}

#[test]
fn the_command_line_explains_a_request() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    make(&node);
    let run = |token: &str, arguments: &[&str]| {
        let admin = format!("http://{}", node.admin);
        Command::new(tyr_binary())
            .args(["explain", "--admin", &admin, "--key", "made"])
            .args(arguments)
            .env("TYR_ADMIN_TOKEN", token)
            .output()
            .expect("tyr runs")
    };
    let told = run(ADMIN, &["--model", "gpt-4o-mini", "--max-tokens", "10"]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "{told:?}");
    assert!(text.starts_with("ADMITTED for 'gpt-4o-mini'"), "{text}");
    assert!(text.contains("team 'search', customer 'acme'"), "{text}");
    assert!(
        text.contains("virtual_key/made/requests/1h/sliding: 1 of 1 left"),
        "{text}"
    );

    let told = run(ADMIN, &["--model", "claude-haiku-4-5", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(told["verdict"], "refuse");
    assert_eq!(told["refusal"]["status"], 403);
    assert_eq!(upstream.count(), 0, "nothing is sent");

    let refused = run("a-token-of-nobody", &["--model", "gpt-4o-mini"]);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("401"), "{text}");
}
