//! Who may do what on the admin API: each role at each route, that nobody
//! gives more than they have, and that guessing is slow.

use serde_json::{Value, json};

use crate::harness::client::ask;
use crate::harness::conf::ADMIN;
use crate::harness::{Ask, Conf, Node, Upstream};

const OPERATOR: &str = "operator-token-00001";
const VIEWER: &str = "viewer-token-0000001";
const CLERK: &str = "clerk-token-00000001";
const NOBODY: &str = "nobody-token-0000001";

/// Roles in the order of the columns of [`MATRIX`].
const TOKENS: [&str; 5] = [ADMIN, OPERATOR, VIEWER, CLERK, NOBODY];

/// Method and path, and whether admin, operator, viewer, clerk (virtual keys:
/// read and create; limits: everything) and nobody (no permissions) may.
const MATRIX: [(&str, &str, [bool; 5]); 49] = {
    const READ: [bool; 5] = [true, true, true, false, false];
    const KEYS: [bool; 5] = [true, true, true, true, false];
    const CHANGE: [bool; 5] = [true, true, false, false, false];
    const MAKE_KEY: [bool; 5] = [true, true, false, true, false];
    const ADMINS: [bool; 5] = [true, false, false, false, false];
    [
        ("GET", "/api/customers", READ),
        ("POST", "/api/customers", CHANGE),
        ("GET", "/api/customers/x", READ),
        ("PUT", "/api/customers/x", CHANGE),
        ("DELETE", "/api/customers/x", CHANGE),
        ("GET", "/api/teams", READ),
        ("POST", "/api/teams", CHANGE),
        ("DELETE", "/api/teams/x", CHANGE),
        ("GET", "/api/virtual-keys", KEYS),
        ("POST", "/api/virtual-keys", MAKE_KEY),
        ("GET", "/api/virtual-keys/x", KEYS),
        ("PUT", "/api/virtual-keys/x", CHANGE),
        ("DELETE", "/api/virtual-keys/x", CHANGE),
        ("POST", "/api/virtual-keys/x/rotate", CHANGE),
        ("POST", "/api/virtual-keys/x/revoke", CHANGE),
        ("GET", "/api/models", READ),
        ("POST", "/api/models", CHANGE),
        ("PUT", "/api/models/a/x", CHANGE),
        ("DELETE", "/api/models/a/x", CHANGE),
        ("GET", "/api/routing-rules", READ),
        ("POST", "/api/routing-rules", CHANGE),
        ("DELETE", "/api/routing-rules/x", CHANGE),
        ("GET", "/api/limit-overrides", READ),
        ("POST", "/api/limit-overrides", CHANGE),
        ("DELETE", "/api/limit-overrides/x", CHANGE),
        ("GET", "/api/providers", READ),
        ("POST", "/api/providers", ADMINS),
        ("PUT", "/api/providers/x", ADMINS),
        ("DELETE", "/api/providers/x", ADMINS),
        ("GET", "/api/roles", READ),
        ("POST", "/api/roles", ADMINS),
        ("PUT", "/api/roles/x", ADMINS),
        ("DELETE", "/api/roles/x", ADMINS),
        ("GET", "/api/admin-tokens", READ),
        ("POST", "/api/admin-tokens", ADMINS),
        ("PUT", "/api/admin-tokens/x", ADMINS),
        ("DELETE", "/api/admin-tokens/x", ADMINS),
        ("GET", "/api/limits", KEYS),
        ("POST", "/api/limits/reset", MAKE_KEY),
        ("GET", "/api/config", READ),
        ("GET", "/api/catalogue", READ),
        ("GET", "/api/openapi.json", READ),
        ("GET", "/api/usage", READ),
        ("GET", "/api/audit", READ),
        ("POST", "/api/reload", CHANGE),
        ("POST", "/api/explain", READ),
        ("POST", "/api/drain", CHANGE),
        ("GET", "/api/cluster", READ),
        ("POST", "/api/cluster/diagnose", CHANGE),
    ]
};

fn node(upstream: &Upstream) -> Node {
    let mut conf = Conf::for_upstream(upstream.address);
    conf.admin = format!(
        "  tokens:\n    - {{name: ops, role: admin, value: {ADMIN}}}\n    - {{name: op, role: operator, value: {OPERATOR}}}\n    \
         - {{name: see, role: viewer, value: {VIEWER}}}\n    - {{name: ann, role: clerk, value: {CLERK}}}\n    \
         - {{name: none, role: nothing, value: {NOBODY}}}\n  roles:\n    \
         - {{name: clerk, permissions: [{{resource: virtual-keys, operations: [read, create]}}, {{resource: limits, operations: [\"*\"]}}]}}\n    \
         - {{name: nothing}}\n"
    );
    Node::start(&conf)
}

#[test]
fn each_role_may_do_what_it_says_at_each_route() {
    let upstream = Upstream::chat();
    let node = node(&upstream);
    let mut wrong = Vec::new();
    for (method, path, may) in MATRIX {
        for (token, may) in TOKENS.into_iter().zip(may) {
            // An empty body is no right entity: whoever may is told so.
            let answer = node.call_as(token, method, path, &json!({}));
            if (answer.status() == 403) == may || answer.status() == 401 {
                wrong.push(format!(
                    "{token} {method} {path}: {} {}",
                    answer.status(),
                    answer.text()
                ));
            }
        }
        let anonymous = ask(node.admin, &Ask::new(method, path));
        assert_eq!(anonymous.status(), 401, "{method} {path}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unknown = node.call_as(NOBODY, "GET", "/api/nothing", &Value::Null);
    assert_eq!(unknown.status(), 404);
}

/// A path of the description, with names filled in, is one of the matrix's.
#[test]
fn the_matrix_knows_each_described_path() {
    let upstream = Upstream::chat();
    let node = node(&upstream);
    let description = node.shown("/api/openapi.json");
    let paths = description["paths"].as_object().expect("paths");
    let known: Vec<String> = MATRIX
        .iter()
        .map(|(_, path, _)| (*path).to_owned())
        .collect();
    for path in paths.keys() {
        let full = match path.starts_with("/api/") {
            true => path.clone(),
            false => format!("/api{path}"),
        };
        let first = full.split('/').nth(2).expect("a resource");
        let found = known
            .iter()
            .any(|path| path.split('/').nth(2) == Some(first));
        assert!(found, "{full} is in no row of the matrix");
    }
}

#[test]
fn nobody_gives_more_than_they_have() {
    let upstream = Upstream::chat();
    let node = node(&upstream);
    // May make tokens and roles, and look at keys.
    node.made("roles", &json!({"name": "delegate", "permissions": [
        {"resource": "admin-tokens", "operations": ["*"]}, {"resource": "roles", "operations": ["*"]},
        {"resource": "virtual-keys", "operations": ["read"]}]}));
    let made = node.made("admin-tokens", &json!({"name": "dora", "role": "delegate"}));
    let dora = made["value"].as_str().expect("shown once").to_owned();
    assert!(node.shown("/api/admin-tokens/dora").get("value").is_none());
    assert!(!node.shown("/api/admin-tokens").to_string().contains(&dora));
    let keys = |resource: &str, operations: &[&str]| json!([{"resource": resource, "operations": operations}]);
    let beyond = [
        (
            "POST",
            "/api/admin-tokens",
            json!({"name": "t", "role": "admin"}),
        ),
        (
            "POST",
            "/api/admin-tokens",
            json!({"name": "t", "role": "operator"}),
        ),
        (
            "POST",
            "/api/admin-tokens",
            json!({"name": "t", "role": "clerk"}),
        ),
        (
            "PUT",
            "/api/admin-tokens/dora",
            json!({"name": "dora", "role": "admin"}),
        ),
        (
            "POST",
            "/api/roles",
            json!({"name": "r", "permissions": keys("virtual-keys", &["read", "create"])}),
        ),
        (
            "POST",
            "/api/roles",
            json!({"name": "r", "permissions": keys("*", &["read"])}),
        ),
        (
            "POST",
            "/api/roles",
            json!({"name": "r", "permissions": keys("virtual-keys", &["*"])}),
        ),
        (
            "PUT",
            "/api/roles/delegate",
            json!({"name": "delegate", "permissions": keys("*", &["*"])}),
        ),
    ];
    let before = (node.shown("/api/roles"), node.shown("/api/admin-tokens"));
    for (method, path, body) in &beyond {
        let answer = node.call_as(&dora, method, path, body);
        assert_eq!(
            answer.status(),
            403,
            "{method} {path} {body}: {}",
            answer.text()
        );
    }
    assert_eq!(
        (node.shown("/api/roles"), node.shown("/api/admin-tokens")),
        before
    );
    let lesser = json!({"name": "reader", "permissions": keys("virtual-keys", &["read"])});
    let answer = node.call_as(&dora, "POST", "/api/roles", &lesser);
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let token = json!({"name": "rita", "role": "reader"});
    let answer = node.call_as(&dora, "POST", "/api/admin-tokens", &token);
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let rita = answer.json()["value"]
        .as_str()
        .expect("shown once")
        .to_owned();
    let may =
        |method: &str, path: &str| node.call_as(&rita, method, path, &json!({})).status() != 403;
    assert!(may("GET", "/api/virtual-keys") && !may("GET", "/api/teams"));
    // A role that grows later lifts nobody above the maker of the token.
    let grown = json!({"name": "reader", "permissions": keys("*", &["*"])});
    assert_eq!(node.call("PUT", "/api/roles/reader", &grown).status(), 200);
    assert!(may("GET", "/api/virtual-keys"));
    assert!(
        !may("GET", "/api/teams") && !may("POST", "/api/virtual-keys"),
        "the ceiling holds"
    );
    // One that shrinks takes at once.
    let shrunk = json!({"name": "reader", "permissions": []});
    assert_eq!(node.call("PUT", "/api/roles/reader", &shrunk).status(), 200);
    assert!(!may("GET", "/api/virtual-keys"));
    let gone = node.call("DELETE", "/api/admin-tokens/rita", &Value::Null);
    assert_eq!(gone.status(), 204, "{}", gone.text());
    assert_eq!(
        node.call_as(&rita, "GET", "/api/virtual-keys", &Value::Null)
            .status(),
        401
    );
    assert_eq!(
        node.call_as(&dora, "GET", "/api/virtual-keys", &Value::Null)
            .status(),
        200
    );
}

#[test]
fn a_token_of_the_api_lives_on_after_a_restart() {
    let upstream = Upstream::chat();
    let mut node = node(&upstream);
    let made = node.made(
        "admin-tokens",
        &json!({"name": "lasting", "role": "viewer"}),
    );
    let token = made["value"].as_str().expect("shown once").to_owned();
    node.process.kill();
    node.start_again();
    assert_eq!(
        node.call_as(&token, "GET", "/api/teams", &Value::Null)
            .status(),
        200
    );
    assert_eq!(
        node.call_as(&token, "POST", "/api/teams", &json!({"name": "t"}))
            .status(),
        403
    );
    assert_eq!(
        node.ask(&Ask::get("/v1/models").bearer(&token)).status(),
        401,
        "it is no virtual key"
    );
}

#[test]
fn guessing_tokens_is_slowed_down() {
    let upstream = Upstream::chat();
    let node = node(&upstream);
    for guess in 0..10 {
        let answer = node.call_as(
            &format!("guess-{guess:020}"),
            "GET",
            "/api/config",
            &Value::Null,
        );
        assert_eq!(answer.status(), 401, "{guess}: {}", answer.text());
    }
    for token in ["guess-of-more-than-that-1", ADMIN] {
        let answer = node.call_as(token, "GET", "/api/config", &Value::Null);
        assert_eq!(answer.status(), 429, "{}", answer.text());
        let wait: u64 = answer
            .header("retry-after")
            .expect("how long")
            .parse()
            .expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(node.readyz(), Some(200), "health is asked without a token");
}

#[test]
fn nobody_touches_a_token_above_them() {
    let upstream = Upstream::chat();
    let node = node(&upstream);
    node.made("roles", &json!({"name": "delegate", "permissions": [
        {"resource": "admin-tokens", "operations": ["*"]}, {"resource": "roles", "operations": ["*"]}]}));
    let value = |made: Value| made["value"].as_str().expect("shown once").to_owned();
    let dora = value(node.made("admin-tokens", &json!({"name": "dora", "role": "delegate"})));
    let boss = value(node.made("admin-tokens", &json!({"name": "boss", "role": "admin"})));
    node.made(
        "roles",
        &json!({"name": "wide", "permissions": [{"resource": "*", "operations": ["*"]}]}),
    );
    let own = "a-token-of-the-attacker-01";
    let attempts = [
        ("DELETE", "/api/admin-tokens/boss", Value::Null),
        (
            "PUT",
            "/api/admin-tokens/boss",
            json!({"name": "boss", "role": "admin", "value": own}),
        ),
        (
            "PUT",
            "/api/admin-tokens/boss",
            json!({"name": "boss", "role": "delegate", "value": own}),
        ),
        (
            "POST",
            "/api/admin-tokens",
            json!({"name": "t", "role": "admin", "ceiling": [], "value": own}),
        ),
        (
            "POST",
            "/api/admin-tokens",
            json!({"name": "t", "role": "wide", "ceiling": ["*:*"], "value": own}),
        ),
        (
            "PUT",
            "/api/admin-tokens/dora",
            json!({"name": "dora", "role": "wide"}),
        ),
        ("DELETE", "/api/roles/wide", Value::Null),
        (
            "PUT",
            "/api/roles/wide",
            json!({"name": "wide", "permissions": []}),
        ),
    ];
    for (method, path, body) in attempts {
        let answer = node.call_as(&dora, method, path, &body);
        assert_eq!(
            answer.status(),
            403,
            "{method} {path} {body}: {}",
            answer.text()
        );
    }
    let kept = json!({"name": "dora", "role": "delegate", "ceiling": ["*:*"]});
    let answer = node.call_as(&dora, "PUT", "/api/admin-tokens/dora", &kept);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(
        node.call_as(&dora, "GET", "/api/teams", &Value::Null)
            .status(),
        403
    );
    assert_eq!(
        node.call_as(&boss, "POST", "/api/teams", &json!({"name": "t"}))
            .status(),
        201
    );
    assert_eq!(
        node.call_as(own, "GET", "/api/teams", &Value::Null)
            .status(),
        401
    );
}
