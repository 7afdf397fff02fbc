//! What the API makes is in force with its answer: limits at every scope that
//! an entity has, routing rules, aliases, prices; and the conditions of a write.

use serde_json::{Value, json};

use crate::harness::api::{ENCRYPTION, Store, chat};
use crate::harness::{Answer, Ask, Conf, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";

fn start(upstreams: &[Upstream; 2], store: Store) -> Node {
    let mut conf = store.under(Conf::empty());
    conf.more = ENCRYPTION.to_owned();
    let node = Node::start(&conf);
    for (name, upstream) in ["one", "two"].into_iter().zip(upstreams) {
        let base_url = format!("http://{}/v1", upstream.address);
        node.made(
            "providers",
            &json!({"name": name, "kind": "openai", "base_url": base_url, "allow_private_addresses": true,
                "keys": [{"name": "main", "value": "a-credential-of-the-test-1"}]}),
        );
        let model = json!({"name": "m", "provider": name, "price": {"input": 1, "output": 1}, "max_output_tokens": 1000});
        node.made("models", &model);
    }
    node.made(
        "models",
        &json!({"name": "any", "choices": ["one/m", "two/m"]}),
    );
    node.made("customers", &json!({"name": "acme"}));
    node.made("teams", &json!({"name": "search", "customer": "acme"}));
    node
}

fn key_body(of_grant: Value, own: Value) -> Value {
    json!({"name": "k", "team": "search", "rate_limits": own,
        "providers": [{"name": "one", "rate_limits": of_grant}, {"name": "two"}]})
}

/// Replaces one field of an entity.
#[track_caller]
fn set(node: &Node, path: &str, field: &str, value: &Value) {
    let mut body = node.shown(path);
    body[field] = value.clone();
    let written = node.call("PUT", path, &body);
    assert_eq!(written.status(), 200, "{path} {body}: {}", written.text());
}

fn holds_at_every_scope(store: Store) {
    let upstreams = [Upstream::chat(), Upstream::chat()];
    let node = start(&upstreams, store);
    let key = node.made_key(&key_body(json!([]), json!([])));
    let ask = |model: &str| node.ask(&Ask::post(CHAT, &chat(model, 5)).bearer(&key));
    let scopes = [
        ("/api/customers/acme", "customer/acme", true),
        ("/api/teams/search", "team/search", true),
        ("/api/virtual-keys/k", "virtual_key/k", true),
        ("/api/providers/one", "provider/one", false),
        ("/api/models/one/m", "model/one/m", false),
    ];
    let limits = |unit: &str| match unit {
        "requests" => ("rate_limits", json!([{"requests": 1, "every": "1h"}]), "1h"),
        "tokens" => ("rate_limits", json!([{"tokens": 15, "every": "1h"}]), "1h"),
        _ => (
            "budgets",
            json!([{"limit_usd": 0.000015, "every": "1d"}]),
            "1d",
        ),
    };
    for (path, scope, everywhere) in scopes {
        for unit in ["requests", "tokens", "usd"] {
            let what = format!("{store:?} {scope} {unit}");
            let (field, limit, every) = limits(unit);
            assert_eq!(ask("one/m").status(), 200, "{what}: nothing limits it yet");
            set(&node, path, field, &limit);
            let label = format!("{scope}/{unit}/{every}");
            assert_eq!(ask("one/m").status(), 200, "{what}: the first");
            node.limits_at_rest();
            let refused = ask("one/m");
            assert_eq!(
                refused.header("x-tyr-limit"),
                Some(&*label),
                "{what}: {}",
                refused.text()
            );
            assert_eq!(refused.status(), 429, "{what}");
            let before = upstreams[1].count();
            let elsewhere = ask("any").status();
            assert_eq!(
                (elsewhere, upstreams[1].count() - before),
                if everywhere { (429, 0) } else { (200, 1) },
                "{what}"
            );
            set(&node, path, field, &json!([]));
        }
    }
    let of_grant = key_body(json!([{"requests": 1, "every": "1h"}]), json!([]));
    assert_eq!(
        node.call("PUT", "/api/virtual-keys/k", &of_grant).status(),
        200
    );
    assert_eq!(ask("one/m").status(), 200);
    let refused = ask("one/m");
    let label = Some("virtual_key_provider/k/one/requests/1h");
    assert_eq!(
        (refused.status(), refused.header("x-tyr-limit")),
        (429, label)
    );
    assert_eq!(ask("any").status(), 200);
}

#[test]
fn limits_made_by_the_api_hold_at_every_scope_over_sqlite() {
    holds_at_every_scope(Store::Sqlite);
}

#[test]
fn limits_made_by_the_api_hold_at_every_scope_over_postgres() {
    holds_at_every_scope(Store::Postgres);
}

#[test]
fn rules_and_aliases_route_from_their_making_to_their_end() {
    let upstreams = [Upstream::chat(), Upstream::chat()];
    let node = start(&upstreams, Store::Sqlite);
    let key = node.made_key(&key_body(json!([]), json!([])));
    let served = || {
        let before = upstreams[1].count();
        let answer = node.ask(&Ask::post(CHAT, &chat("any", 5)).bearer(&key));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        if upstreams[1].count() > before {
            "two"
        } else {
            "one"
        }
    };
    assert_eq!(served(), "one");
    let rule = |when: &str| json!({"name": "r", "when": when, "scope": "customer", "subject": "acme", "targets": [{"provider": "two", "model": "m"}]});
    node.made("routing-rules", &rule("model == 'any'"));
    assert_eq!(served(), "two");
    assert_eq!(
        node.call(
            "PUT",
            "/api/routing-rules/r",
            &rule("team_name != 'search'")
        )
        .status(),
        200
    );
    assert_eq!(served(), "one");
    set(
        &node,
        "/api/routing-rules/r",
        "when",
        &json!("virtual_key_name.startsWith('k')"),
    );
    assert_eq!(served(), "two");
    set(&node, "/api/routing-rules/r", "enabled", &json!(false));
    assert_eq!(served(), "one");
    set(&node, "/api/routing-rules/r", "enabled", &json!(true));
    assert_eq!(
        node.call("DELETE", "/api/routing-rules/r", &Value::Null)
            .status(),
        204
    );
    assert_eq!(served(), "one");
    set(
        &node,
        "/api/models/any",
        "choices",
        &json!(["two/m", "one/m"]),
    );
    assert_eq!(served(), "two");
    set(
        &node,
        "/api/models/two/m",
        "price",
        &json!({"input": 100, "output": 1000}),
    );
    let paid = node.records_exactly(7);
    assert_eq!(served(), "two");
    let dearest = node
        .records_exactly(8)
        .iter()
        .map(|record| record.cost_nano_usd)
        .max();
    assert!(paid.iter().all(|record| record.cost_nano_usd == 15_000));
    assert_eq!(
        dearest,
        Some(10 * 100_000 + 5 * 1_000_000),
        "the new price at once"
    );
}

#[test]
fn writes_say_what_they_expect_to_find() {
    let upstreams = [Upstream::chat(), Upstream::chat()];
    let node = start(&upstreams, Store::Sqlite);
    let path = "/api/teams/new";
    let body = json!({"name": "new"});
    let with =
        |method: &str, name: &str, value: &str| node.call_with(method, path, (name, value), &body);
    let is = |answer: Answer, status: u16| assert_eq!(answer.status(), status, "{}", answer.text());
    is(with("PUT", "if-match", "*"), 412);
    is(with("PUT", "if-match", "\"1\""), 412);
    is(with("DELETE", "if-match", "*"), 412);
    is(node.call("DELETE", path, &Value::Null), 404);
    let made = with("PUT", "if-none-match", "*");
    assert_eq!(
        (made.status(), made.header("location")),
        (201, Some(path)),
        "{}",
        made.text()
    );
    is(with("PUT", "if-none-match", "*"), 412);
    is(with("PUT", "if-match", "*"), 200);
    is(node.call("PUT", path, &json!({"name": "another"})), 400);
    is(node.call("PUT", path, &json!({})), 200);
    is(
        node.call_with("POST", "/api/teams", ("if-none-match", "*"), &body),
        412,
    );
    is(node.call("PATCH", path, &body), 405);
    is(node.call("POST", path, &body), 405);
    is(node.call("GET", "/api/nothing", &Value::Null), 404);
    let large = json!({"name": "x".repeat(2 * 1024 * 1024)});
    is(node.call("POST", "/api/teams", &large), 413);
    is(with("DELETE", "if-match", "*"), 204);
}
