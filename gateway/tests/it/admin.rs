//! The admin port: health, metrics, and an API that never opens by default.

use serde_json::{Value, json};

use crate::harness::client::ask;
use crate::harness::conf::{ADMIN, KEY};
use crate::harness::node::number;
use crate::harness::{Ask, Conf, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";
const API: [(&str, &str); 4] = [
    ("GET", "/api/config"),
    ("GET", "/api/virtual-keys"),
    ("GET", "/api/virtual-keys/demo"),
    ("POST", "/api/reload"),
];

fn chat() -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})
}

#[test]
fn health_and_metrics_need_no_token() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = ask(node.admin, &Ask::get(path));
        assert_eq!(answer.status(), 200, "{path}");
    }
    let metrics = node.metrics();
    assert!(
        metrics.contains("# TYPE tyr_") && metrics.contains("tyr_config_last_reload_successful 1")
    );
    assert_eq!(ask(node.admin, &Ask::get("/nothing")).status(), 404);
}

#[test]
fn the_api_wants_its_own_token() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    for (method, path) in API {
        let plain = Ask::new(method, path);
        assert_eq!(
            ask(node.admin, &plain).status(),
            401,
            "{path} without a token"
        );
        assert_eq!(
            ask(node.admin, &plain.clone().bearer(KEY)).status(),
            401,
            "{path} with a virtual key"
        );
        assert_eq!(
            ask(node.admin, &plain.clone().bearer("admin-token-of-nobody-1")).status(),
            401,
            "{path}"
        );
        assert_eq!(
            ask(node.admin, &plain.bearer(ADMIN)).status(),
            200,
            "{path}"
        );
    }
    let answer = node.ask(&Ask::post(CHAT, &chat()).bearer(ADMIN));
    assert_eq!(answer.status(), 401, "the admin token is no virtual key");
    assert_eq!(
        node.ask(&Ask::get("/api/config").bearer(KEY)).status(),
        404,
        "no API on the data port"
    );
}

#[test]
fn without_a_configured_token_the_api_refuses_everybody() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.admin = String::new();
    let node = Node::start(&conf);
    for (method, path) in API {
        for answer in [
            ask(node.admin, &Ask::new(method, path)),
            node.admin(method, path),
            ask(
                node.admin,
                &Ask::new(method, path).header("authorization", "Bearer "),
            ),
        ] {
            assert!(
                [401, 403].contains(&answer.status()),
                "{path}: {}",
                answer.status()
            );
        }
    }
    assert_eq!(ask(node.admin, &Ask::get("/readyz")).status(), 200);
}

#[test]
fn roles_bound_what_a_token_may_do() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.admin = format!(
        "  tokens: [{{name: ops, role: admin, value: {ADMIN}}}, {{name: op, role: operator, value: operator-token-00001}}, {{name: see, role: viewer, value: viewer-token-0000001}}]\n"
    );
    let node = Node::start(&conf);
    let status = |token: &str, method: &str, path: &str| {
        ask(node.admin, &Ask::new(method, path).bearer(token)).status()
    };
    assert_eq!(
        status("viewer-token-0000001", "GET", "/api/virtual-keys"),
        200
    );
    assert_eq!(status("viewer-token-0000001", "POST", "/api/reload"), 403);
    assert_eq!(status("operator-token-00001", "POST", "/api/reload"), 200);
}

#[test]
fn a_key_shows_its_standing_limit_by_limit() {
    let upstream = Upstream::chat();
    let lines = "rate_limits: [{requests: 10, every: 1h}, {tokens: 5000, every: 1m, enforcement: strict}]\nbudgets: [{limit_usd: 2.5, every: 1M}]";
    let node = Node::start(&Conf::for_upstream(upstream.address).limited(lines));
    let mut body = chat();
    body["max_tokens"] = json!(10);
    assert_eq!(node.post(CHAT, &body).status(), 200);
    let requests = node.settled("demo", "requests");
    assert_eq!(
        (
            number(&requests["limit"]),
            number(&requests["used"]),
            number(&requests["remaining"])
        ),
        (10.0, 1.0, 9.0)
    );
    let tokens = node.settled("demo", "tokens");
    assert_eq!(
        (tokens["enforcement"].as_str(), number(&tokens["used"])),
        (Some("strict"), 15.0)
    );
    let budget = node.settled("demo", "usd");
    assert!((number(&budget["limit"]) - 2.5).abs() < 1e-9, "{budget}");
    for standing in [requests, tokens, budget] {
        assert!(
            standing["resets_at"].is_string() || standing["resets_at"].is_number(),
            "{standing}"
        );
    }
    let list = node.admin("GET", "/api/virtual-keys");
    assert_eq!(list.status(), 200);
    assert!(
        list.text().contains("demo") && !list.text().contains(KEY),
        "{}",
        list.text()
    );
    assert_eq!(node.admin("GET", "/api/virtual-keys/nobody").status(), 404);
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let answer = node.admin("GET", "/api/config");
    let text = answer.text();
    assert!(text.contains("gpt-4o-mini") && text.contains(&upstream.address.to_string()));
    for secret in [
        KEY,
        ADMIN,
        crate::harness::conf::OPENAI_SECRET,
        crate::harness::conf::ANTHROPIC_SECRET,
    ] {
        assert!(!text.contains(secret), "{secret} is shown");
    }
}

#[test]
fn refusals_are_counted_by_reason() {
    let upstream = Upstream::chat();
    let node = Node::start(
        &Conf::for_upstream(upstream.address).limited("rate_limits: [{requests: 1, every: 1h}]"),
    );
    assert_eq!(node.post(CHAT, &chat()).status(), 200);
    assert_eq!(node.post(CHAT, &chat()).status(), 429);
    assert_eq!(node.ask(&Ask::post_bytes(CHAT, "{}")).status(), 401);
    let metrics = node.metrics();
    assert_eq!(node.metric("tyr_refusals_total", ""), 2.0, "{metrics}");
}
