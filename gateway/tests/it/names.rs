//! Names that are awkward in paths, and references that lead nowhere on a node.

use serde_json::{Value, json};

use crate::harness::api::{ENCRYPTION, Store, chat};
use crate::harness::{Ask, Conf, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";

/// A name as one segment of a path.
pub(crate) fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.bytes().map(one).collect()
}

#[test]
fn awkward_names_work_everywhere() {
    let names = [
        "a/b",
        "with space",
        "100%",
        "%2F",
        "q?x=1",
        "#1",
        "a\"b",
        "..",
        ".",
        "a&b=c",
        "rotate",
        "*",
    ];
    let upstream = Upstream::chat();
    for store in [Store::Sqlite, Store::Postgres] {
        let mut conf = store.under(Conf::for_upstream(upstream.address));
        conf.more = ENCRYPTION.to_owned();
        let node = Node::start(&conf);
        for name in names {
            let what = format!("{store:?} {name}");
            let customer = node.call("POST", "/api/customers", &json!({"name": name}));
            assert_eq!(customer.status(), 201, "{what}: {}", customer.text());
            let body = json!({"name": name, "customer": name, "providers": [{"name": "openai"}],
                "rate_limits": [{"requests": 1, "every": "1h", "name": name}]});
            let made = node.call("POST", "/api/virtual-keys", &body);
            assert_eq!(made.status(), 201, "{what}: {}", made.text());
            let key = made.json()["value"]
                .as_str()
                .expect("shown once")
                .to_owned();
            let place = made.header("location").expect("a Location").to_owned();
            let path = format!("/api/virtual-keys/{}", encoded(name));
            for path in [&place, &path] {
                assert_eq!(node.shown(path)["name"], name, "{what}: {path}");
            }
            let ask = || node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer(&key));
            assert_eq!(ask().status(), 200, "{what}");
            assert_eq!(ask().status(), 429, "{what}");
            let id = node.shown(&path)["standing"][0]["id"]
                .as_str()
                .expect("an id")
                .to_owned();
            assert_eq!(node.limit(&id)["name"], name, "{what}: {id}");
            let more = node.call(
                "POST",
                "/api/limit-overrides",
                &json!({"limit": id, "amount": 2}),
            );
            assert_eq!(more.status(), 201, "{what}: {}", more.text());
            let there = more.header("location").expect("a Location");
            assert_eq!(node.shown(there)["amount"], 2, "{what}: {there}");
            let listed = format!("/api/limit-overrides/{}", encoded(&id));
            assert_eq!(node.shown(&listed)["amount"], 2, "{what}: {listed}");
            assert_eq!(ask().status(), 200, "{what}");
            let reset = node.call("POST", "/api/limits/reset", &json!({"limit": id}));
            assert_eq!(reset.status(), 200, "{what}: {}", reset.text());
            assert_eq!(ask().status(), 200, "{what}");
            let rotated = node.call("POST", &format!("{path}/rotate"), &Value::Null);
            assert_eq!(rotated.status(), 200, "{what}: {}", rotated.text());
            let gone = node.call("DELETE", &path, &Value::Null);
            assert_eq!(gone.status(), 204, "{what}: {}", gone.text());
        }
        let pages = node.shown("/api/customers?limit=5");
        let after = encoded(pages["next"].as_str().expect("more"));
        let rest = node.shown(&format!("/api/customers?limit=1000&after={after}"));
        assert_eq!(rest["data"].as_array().map(Vec::len), Some(names.len() - 5));
    }
}

#[test]
fn a_key_whose_team_the_file_lost_is_refused_and_shown() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.teams = "  - {name: search}\n  - {name: other}\n".to_owned();
    let mut node = Node::start(&conf);
    let key = |team: &str| json!({"name": format!("of-{team}"), "team": team, "providers": [{"name": "openai"}]});
    let lost = node.made_key(&key("search"));
    let kept = node.made_key(&key("other"));
    let status =
        |node: &Node, key: &str| node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer(key));
    assert_eq!(
        (status(&node, &lost).status(), status(&node, &kept).status()),
        (200, 200)
    );
    conf.teams = "  - {name: other}\n".to_owned();
    node.write_conf(&conf);
    let reload = node.call("POST", "/api/reload", &Value::Null);
    assert_eq!(reload.status(), 400, "{}", reload.text());
    for name in ["of-search", "search"] {
        assert!(reload.text().contains(name), "{name}: {}", reload.text());
    }
    assert_eq!(status(&node, &lost).status(), 200, "the old file runs on");
    // A node that starts with such a file serves all that it can.
    node.process.kill();
    node.start_again();
    let refused = status(&node, &lost);
    assert_eq!(refused.status(), 403, "{}", refused.text());
    assert_eq!(
        refused.json()["error"]["code"],
        "unresolved_reference",
        "{}",
        refused.text()
    );
    assert!(refused.text().contains("search"), "{}", refused.text());
    assert_eq!(status(&node, &kept).status(), 200);
    let said = node.call(
        "POST",
        "/api/explain",
        &json!({"key": "of-search", "model": "gpt-4o-mini"}),
    );
    assert_eq!(said.json()["key"]["state"], "unresolved", "{}", said.text());
    assert_eq!(node.shown("/api/virtual-keys/of-search")["team"], "search");
    conf.teams = "  - {name: other}\n  - {name: search}\n".to_owned();
    node.write_conf(&conf);
    let reload = node.call("POST", "/api/reload", &Value::Null);
    assert_eq!(reload.status(), 200, "{}", reload.text());
    assert_eq!(status(&node, &lost).status(), 200, "it is there again");
}
