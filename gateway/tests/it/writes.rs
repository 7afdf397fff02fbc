//! Writes that are refused: the reasons, all at once and by JSON pointer, and
//! that nothing of them is in force or shown afterwards.

use serde_json::{Value, json};

use crate::harness::api::{ENCRYPTION, chat};
use crate::harness::conf::{KEY, OPENAI_SECRET};
use crate::harness::{Answer, Ask, Conf, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";

/// Entities of the file beside those that each test makes.
fn node(upstream: &Upstream, more: &str) -> Node {
    let mut conf = Conf::for_upstream(upstream.address);
    conf.customers = "  - {name: acme}\n".to_owned();
    conf.teams = "  - {name: search, customer: acme}\n".to_owned();
    conf.models += "  - {name: fast, choices: [openai/gpt-4o-mini]}\n";
    conf.more = format!(
        "{more}routing_rules: [{{name: filed, when: \"model == 'x'\", targets: [{{provider: openai, model: gpt-4o-mini}}]}}]\n"
    );
    Node::start(&conf)
}

const KINDS: [&str; 9] = [
    "customers",
    "teams",
    "providers",
    "models",
    "virtual-keys",
    "routing-rules",
    "admin-tokens",
    "roles",
    "limit-overrides",
];

/// Everything that is shown of all entities, standings left out.
fn all(node: &Node) -> Vec<Value> {
    let kinds = KINDS.iter().map(|kind| {
        let mut list = node.shown(&format!("/api/{kind}?limit=1000"));
        for one in list["data"].as_array_mut().expect("a list") {
            one["standing"].take();
        }
        list
    });
    let config = node.shown("/api/config");
    kinds.chain([config]).collect()
}

fn pointers(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let problems = body["problems"].as_array().cloned().unwrap_or_default();
    let pointers = problems
        .iter()
        .map(|problem| problem["pointer"].as_str().unwrap_or("?").to_owned());
    let mut pointers: Vec<String> = pointers.collect();
    pointers.sort();
    pointers.dedup();
    pointers
}

/// Kind, body, pointers of the problems, a word of the answer.
type Wrong = (&'static str, Value, &'static [&'static str], &'static str);

fn wrong_keys() -> Vec<Wrong> {
    vec![
        (
            "virtual-keys",
            json!({"name": "k", "colour": "red"}),
            &["/colour"],
            "colour",
        ),
        ("virtual-keys", json!({}), &[""], "name"),
        ("virtual-keys", json!([]), &[""], "object"),
        (
            "virtual-keys",
            json!({"name": "k", "rate_limits": [{"requests": -1, "every": "1h"}]}),
            &["/rate_limits/0/requests"],
            "requests",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "rate_limits": [{"requests": 0, "every": "1h"}]}),
            &["/rate_limits/0/requests"],
            "requests",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "rate_limits": [{"requests": 1.5, "every": "1h"}]}),
            &["/rate_limits/0/requests"],
            "requests",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "team": "nobody"}),
            &["/team"],
            "nobody",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "customer": "nobody"}),
            &["/customer"],
            "nobody",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "team": "search", "customer": "acme"}),
            &["/customer"],
            "team",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "providers": [{"name": "nobody"}, {"name": "openai", "models": ["nothing"]}]}),
            &["/providers/0/name", "/providers/1/models/0"],
            "nobody",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "value": "short"}),
            &["/value"],
            "16",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "value": "env.HOME"}),
            &["/value"],
            "env.",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "value": KEY}),
            &["/value"],
            "demo",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "value": "***"}),
            &["/value"],
            "***",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "expires_at": "tomorrow"}),
            &["/expires_at"],
            "expires_at",
        ),
        (
            "virtual-keys",
            json!({"name": "k", "colour": 1, "team": 7, "rate_limits": [{"requests": 1}]}),
            &["/colour", "/team"],
            "problems",
        ),
    ]
}

fn wrong_entities() -> Vec<Wrong> {
    let models = |name: &str, choices: Value| json!({"name": name, "choices": choices});
    vec![
        (
            "customers",
            json!({"name": "c", "budgets": [{"limit_usd": -1, "every": "1d"}]}),
            &["/budgets/0/limit_usd"],
            "limit_usd",
        ),
        (
            "customers",
            json!({"name": "c", "budgets": [{"limit_usd": 1, "every": "2M"}]}),
            &["/budgets/0/every"],
            "every",
        ),
        (
            "teams",
            json!({"name": "t", "customer": "nobody"}),
            &["/customer"],
            "nobody",
        ),
        ("teams", json!({"name": " t"}), &["/name"], "name"),
        (
            "models",
            json!({"name": "m", "provider": "nobody", "price": "free"}),
            &["/provider"],
            "nobody",
        ),
        (
            "models",
            json!({"name": "m", "provider": "openai"}),
            &[""],
            "price",
        ),
        (
            "models",
            models("loop", json!(["loop"])),
            &["/choices/0"],
            "loop",
        ),
        (
            "models",
            models("m", json!(["openai/none"])),
            &["/choices/0"],
            "none",
        ),
        (
            "providers",
            json!({"name": "p", "kind": "openai", "base_url": "http://127.0.0.1:1/v1", "keys": [{"name": "main", "value": "a-credential-0001"}]}),
            &["/base_url"],
            "private",
        ),
        (
            "providers",
            json!({"name": "p", "kind": "openai", "base_url": "https://api.openai.com/v1", "keys": [{"name": "main", "value": "env.OPENAI_API_KEY"}]}),
            &["/keys/0/value"],
            "env.",
        ),
        (
            "providers",
            json!({"name": "p", "kind": "openai", "base_url": "https://api.openai.com/v1", "keys": [{"name": "main", "value": "file./etc/passwd"}]}),
            &["/keys/0/value"],
            "file.",
        ),
        (
            "providers",
            json!({"name": "p", "kind": "morse", "base_url": "https://api.openai.com/v1", "keys": [{"name": "main", "value": "a-credential-0001"}]}),
            &["/kind"],
            "morse",
        ),
    ]
}

fn wrong_rules() -> Vec<Wrong> {
    let rule = |when: &str| json!({"name": "r", "when": when, "targets": [{"provider": "openai", "model": "gpt-4o-mini"}]});
    vec![
        ("routing-rules", rule("model =="), &["/when"], "when"),
        ("routing-rules", rule("model + 1 == 2"), &["/when"], "when"),
        ("routing-rules", rule("model"), &["/when"], "when"),
        (
            "routing-rules",
            rule("colour == 'red'"),
            &["/when"],
            "colour",
        ),
        (
            "routing-rules",
            rule("complexity_tier == 'high'"),
            &["/when"],
            "complexity_tier",
        ),
        (
            "routing-rules",
            json!({"name": "r", "scope": "team", "targets": [{}]}),
            &[""],
            "subject",
        ),
        (
            "routing-rules",
            json!({"name": "r", "targets": [{"provider": "nobody"}]}),
            &["/targets/0/provider"],
            "nobody",
        ),
    ]
}

fn wrong_access() -> Vec<Wrong> {
    vec![
        (
            "roles",
            json!({"name": "r", "permissions": [{"resource": "moon", "operations": ["read"]}]}),
            &["/permissions/0"],
            "moon",
        ),
        ("roles", json!({"name": "admin"}), &["/name"], "admin"),
        (
            "admin-tokens",
            json!({"name": "t", "role": "nobody"}),
            &["/role"],
            "nobody",
        ),
        (
            "limit-overrides",
            json!({"limit": "virtual_key/demo/requests/1h/sliding", "amount": 1}),
            &["/limit"],
            "no limit",
        ),
    ]
}

#[test]
fn a_wrong_body_is_told_by_pointer_and_changes_nothing() {
    let upstream = Upstream::chat();
    let node = node(&upstream, ENCRYPTION);
    node.made(
        "virtual-keys",
        &json!({"name": "there", "providers": [{"name": "openai"}]}),
    );
    let before = all(&node);
    let mut failed = Vec::new();
    for (kind, body, expected, word) in [
        wrong_keys(),
        wrong_entities(),
        wrong_rules(),
        wrong_access(),
    ]
    .concat()
    {
        let answer = node.call("POST", &format!("/api/{kind}"), &body);
        let found = pointers(&answer);
        let said = answer.text();
        if answer.status() != 400 || found != expected || !said.contains(word) {
            failed.push(format!(
                "{kind} {body}\n  expected {expected:?} and '{word}'\n  got {} {said}",
                answer.status()
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{} cases:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert_eq!(all(&node), before, "something of a refused write is shown");
    assert_eq!(node.post(CHAT, &chat("gpt-4o-mini", 5)).status(), 200);
    assert_eq!(node.post(CHAT, &chat("fast", 5)).status(), 200);
}

#[test]
fn a_wrong_change_leaves_what_was_there_in_force() {
    let upstream = Upstream::chat();
    let node = node(&upstream, ENCRYPTION);
    let rate = json!([{"requests": 3, "every": "1h"}]);
    let key = node
        .made_key(&json!({"name": "k", "providers": [{"name": "openai"}], "rate_limits": rate}));
    let rule = json!({"name": "r", "when": "model == 'fast'", "targets": [{"provider": "openai", "model": "gpt-4o-mini"}]});
    node.made("routing-rules", &rule);
    let before = all(&node);
    let with = |path: &str, field: &str, value: Value| {
        let mut body = node.shown(path);
        body[field] = value;
        node.call("PUT", path, &body)
    };
    let changes = [
        with(
            "/api/virtual-keys/k",
            "rate_limits",
            json!([{"requests": 9, "every": "1h"}, {"requests": 9, "every": "1h"}]),
        ),
        with(
            "/api/virtual-keys/k",
            "providers",
            json!([{"name": "nobody"}]),
        ),
        with("/api/virtual-keys/k", "name", json!("other-name")),
        with("/api/routing-rules/r", "when", json!("1 + model")),
        node.call("PUT", "/api/virtual-keys/k", &json!("text")),
    ];
    for answer in &changes {
        assert_eq!(answer.status(), 400, "{}", answer.text());
    }
    let broken = Ask::new("PUT", "/api/virtual-keys/k").bearer(crate::harness::conf::ADMIN);
    let mut broken = broken.header("content-type", "application/json");
    broken.body = b"{\"name\": \"k\",".to_vec();
    assert_eq!(
        crate::harness::client::ask(node.admin, &broken).status(),
        400
    );
    assert_eq!(all(&node), before, "something of a refused write is shown");
    for status in [200, 200, 200, 429] {
        let answer = node.ask(&Ask::post(CHAT, &chat("fast", 5)).bearer(&key));
        assert_eq!(answer.status(), status, "{}", answer.text());
    }
}

/// What was shown, with secrets of its own.
fn anew(mut body: Value) -> Value {
    for field in ["value", "sha256"] {
        body.as_object_mut().expect("an object").remove(field);
    }
    if let Some(credential) = body.pointer_mut("/keys/0/value") {
        *credential = json!("another-credential-0001");
    }
    body
}

#[test]
fn what_the_file_made_is_read_only() {
    let upstream = Upstream::chat();
    let node = node(&upstream, ENCRYPTION);
    let before = all(&node);
    let owned = [
        ("customers", "acme"),
        ("teams", "search"),
        ("providers", "openai"),
        ("models", "openai/gpt-4o-mini"),
        ("models", "fast"),
        ("virtual-keys", "demo"),
        ("routing-rules", "filed"),
        ("admin-tokens", "ops"),
    ];
    for (kind, name) in owned {
        let path = format!("/api/{kind}/{name}");
        let body = node.shown(&path);
        assert_eq!(body["source"], "file", "{path}");
        let refusals = [
            node.call("PUT", &path, &body),
            node.call("DELETE", &path, &Value::Null),
            node.call("POST", &format!("/api/{kind}"), &anew(body)),
        ];
        for (refusal, expected) in refusals.iter().zip(["file_owned", "file_owned", "exists"]) {
            let kind = refusal.json()["error"]["type"].clone();
            assert_eq!(refusal.status(), 409, "{path}: {}", refusal.text());
            assert_eq!(kind, expected, "{path}: {}", refusal.text());
            assert!(
                refusal.text().contains("tyr.yaml"),
                "the place: {}",
                refusal.text()
            );
        }
    }
    let rotated = node.call("POST", "/api/virtual-keys/demo/rotate", &json!({}));
    assert_eq!(rotated.status(), 409, "{}", rotated.text());
    assert_eq!(all(&node), before);
    assert_eq!(node.post(CHAT, &chat("gpt-4o-mini", 5)).status(), 200);
}

#[test]
fn a_name_of_the_file_and_of_the_api_refuses_the_reload() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    let node = Node::start(&conf);
    node.made("teams", &json!({"name": "both"}));
    conf.teams = "  - {name: both}\n".to_owned();
    node.write_conf(&conf);
    let reload = node.call("POST", "/api/reload", &Value::Null);
    assert_eq!(reload.status(), 400, "{}", reload.text());
    assert!(reload.text().contains("both"), "{}", reload.text());
    assert_eq!(node.shown("/api/teams/both")["source"], "api");
    assert_eq!(node.post(CHAT, &chat("gpt-4o-mini", 5)).status(), 200);
}

#[test]
fn a_reload_that_would_leave_an_entity_dangling_is_refused() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.customers = "  - {name: acme}\n".to_owned();
    let node = Node::start(&conf);
    node.made("teams", &json!({"name": "orphan", "customer": "acme"}));
    conf.customers = "  - {name: other}\n".to_owned();
    node.write_conf(&conf);
    let reload = node.call("POST", "/api/reload", &Value::Null);
    assert_eq!(reload.status(), 400, "{}", reload.text());
    for name in ["orphan", "acme"] {
        assert!(reload.text().contains(name), "{name}: {}", reload.text());
    }
    assert_eq!(
        node.shown("/api/customers/acme")["source"],
        "file",
        "the old one runs"
    );
}

#[test]
fn a_credential_comes_back_masked_and_stays() {
    let upstream = Upstream::chat();
    let node = node(&upstream, ENCRYPTION);
    let base_url = format!("http://{}/v1", upstream.address);
    let body = json!({"name": "made", "kind": "openai", "base_url": base_url, "allow_private_addresses": true,
        "keys": [{"name": "main", "value": "first-credential-0001"}]});
    node.made("providers", &body);
    node.made(
        "models",
        &json!({"name": "n", "provider": "made", "price": "free"}),
    );
    let key = node.made_key(&json!({"name": "k", "providers": [{"name": "made"}]}));
    let sent = || {
        let answer = node.ask(&Ask::post(CHAT, &chat("n", 5)).bearer(&key));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let seen = upstream.seen().pop().expect("it was asked");
        seen.header("authorization")
            .expect("a credential")
            .to_owned()
    };
    assert_eq!(sent(), "Bearer first-credential-0001");
    let path = "/api/providers/made";
    let mut shown = node.shown(path);
    assert_eq!(shown["keys"][0]["value"], "***", "{shown}");
    shown["retries"] = json!({"max": 0});
    let written = node.call("PUT", path, &shown);
    assert_eq!(written.status(), 200, "{}", written.text());
    assert_eq!(
        sent(),
        "Bearer first-credential-0001",
        "a masked value stays"
    );
    shown["keys"][0]["value"] = json!("second-credential-0001");
    assert_eq!(node.call("PUT", path, &shown).status(), 200);
    assert_eq!(sent(), "Bearer second-credential-0001");
    shown["keys"] = json!([{"name": "another", "value": "***"}]);
    let refused = node.call("PUT", path, &shown);
    assert_eq!(refused.status(), 400, "{}", refused.text());
    assert_eq!(pointers(&refused), ["/keys/0/value"]);
    assert_eq!(sent(), "Bearer second-credential-0001");
    // Whoever moves the address could read the credential there.
    let elsewhere = Upstream::chat();
    let mut moved = node.shown(path);
    moved["base_url"] = json!(format!("http://{}/v1", elsewhere.address));
    let refused = node.call("PUT", path, &moved);
    assert_eq!(refused.status(), 400, "{}", refused.text());
    assert_eq!(
        (sent(), elsewhere.count()),
        ("Bearer second-credential-0001".to_owned(), 0)
    );
}

#[test]
fn a_secret_without_a_key_to_seal_it_is_refused() {
    let upstream = Upstream::chat();
    let node = node(&upstream, "");
    let body = json!({"name": "made", "kind": "openai", "base_url": "https://api.openai.com/v1",
        "keys": [{"name": "main", "value": OPENAI_SECRET}]});
    let before = all(&node);
    let refused = node.call("POST", "/api/providers", &body);
    assert_eq!(refused.status(), 409, "{}", refused.text());
    assert!(
        refused.text().contains("encryption.keys"),
        "{}",
        refused.text()
    );
    assert_eq!(all(&node), before);
}
