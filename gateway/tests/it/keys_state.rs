//! The life of a virtual key: when it is accepted, what a new value does to the
//! old one, and that a revoked one stays refused.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::api::{Store, chat, now_ms};
use crate::harness::conf::{KEY, OTHER_KEY};
use crate::harness::{Answer, Ask, Conf, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";
const PAST: &str = "2020-01-01T00:00:00Z";
const FUTURE: &str = "2099-01-01T00:00:00Z";

fn with(node: &Node, key: &str) -> Answer {
    node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer(key))
}

/// Fields of a key, and how it is answered: status, code, a word of the message.
fn states() -> Vec<(Value, u16, &'static str, &'static str)> {
    let denied = "permission_denied";
    let invalid = "invalid_api_key";
    vec![
        (json!({}), 200, "", ""),
        (json!({"active": false}), 403, denied, "not active"),
        (json!({"not_before": FUTURE}), 403, denied, "2099"),
        (json!({"not_before": PAST}), 200, "", ""),
        (json!({"expires_at": PAST}), 401, invalid, "expired"),
        (json!({"expires_at": FUTURE}), 200, "", ""),
        (
            json!({"active": false, "expires_at": PAST}),
            401,
            invalid,
            "expired",
        ),
        (
            json!({"not_before": PAST, "expires_at": FUTURE}),
            200,
            "",
            "",
        ),
    ]
}

#[track_caller]
fn is_answered(answer: &Answer, (_, status, code, word): &(Value, u16, &str, &str), what: &str) {
    let text = answer.text();
    assert_eq!(answer.status(), *status, "{what}: {text}");
    if *status != 200 {
        assert_eq!(answer.json()["error"]["code"], *code, "{what}: {text}");
        assert!(text.contains(word), "{what}: {word} in {text}");
    }
}

#[test]
fn a_key_is_accepted_while_it_is_active_and_valid() {
    let upstream = Upstream::chat();
    let states = states();
    let mut conf = Conf::for_upstream(upstream.address);
    for (index, (fields, ..)) in states.iter().enumerate() {
        let mut key = json!({"name": format!("filed-{index}"), "value": format!("sk-tyr-of-the-file-{index:04}"),
            "providers": [{"name": "openai"}]});
        key.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        conf.keys += &format!("  - {key}\n");
    }
    let node = Node::start(&conf);
    for (index, state) in states.iter().enumerate() {
        let what = format!("{}", state.0);
        let answer = with(&node, &format!("sk-tyr-of-the-file-{index:04}"));
        is_answered(&answer, state, &format!("file {what}"));
        let mut key = json!({"name": format!("made-{index}"), "providers": [{"name": "openai"}]});
        key.as_object_mut()
            .unwrap()
            .extend(state.0.as_object().unwrap().clone());
        let value = node.made_key(&key);
        is_answered(&with(&node, &value), state, &format!("API {what}"));
        let models = node.ask(&Ask::get("/v1/models").bearer(&value));
        assert_eq!(models.status(), state.1, "{what}: {}", models.text());
    }
    // One key passes through all states; each change counts at once.
    let value = node.made_key(&json!({"name": "changing", "providers": [{"name": "openai"}]}));
    for state in &states {
        let mut body = json!({"name": "changing", "providers": [{"name": "openai"}]});
        body.as_object_mut()
            .unwrap()
            .extend(state.0.as_object().unwrap().clone());
        let written = node.call("PUT", "/api/virtual-keys/changing", &body);
        assert_eq!(written.status(), 200, "{}", written.text());
        is_answered(
            &with(&node, &value),
            state,
            &format!("changed to {}", state.0),
        );
    }
    let refused = states.iter().filter(|state| state.1 != 200).count();
    assert_eq!(
        upstream.count(),
        3 * (states.len() - refused),
        "no refused one was sent on"
    );
}

#[test]
fn a_key_ends_at_its_time() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let until = policy::Timestamp(now_ms() + 2_000);
    let body = json!({"name": "short", "providers": [{"name": "openai"}], "expires_at": until.to_rfc3339()});
    let value = node.made_key(&body);
    let early = with(&node, &value);
    let in_time = now_ms() < until.0;
    assert!(early.status() == 200 || !in_time, "{}", early.text());
    let refused = eventually("the key has expired", || {
        let answer = with(&node, &value);
        (answer.status() != 200).then_some(answer)
    });
    assert_eq!(refused.status(), 401, "{}", refused.text());
    assert!(now_ms() >= until.0, "before its time");
}

#[test]
fn a_rotated_key_has_two_values_for_its_grace() {
    for store in [Store::Sqlite, Store::Postgres] {
        let upstream = Upstream::chat();
        let node = Node::start(&store.under(Conf::for_upstream(upstream.address)));
        let body = json!({"name": "k", "providers": [{"name": "openai"}], "rate_limits": [{"requests": 1000, "every": "1h"}]});
        let first = node.made_key(&body);
        assert_eq!(with(&node, &first).status(), 200);
        let rotate = |grace: Value| {
            let answer = node.call("POST", "/api/virtual-keys/k/rotate", &grace);
            assert_eq!(answer.status(), 200, "{}", answer.text());
            answer.json()["value"]
                .as_str()
                .expect("shown once")
                .to_owned()
        };
        let begun = Instant::now();
        let over = || begun.elapsed() >= Duration::from_secs(3);
        let second = rotate(json!({"grace": "3s"}));
        assert_eq!(
            with(&node, &second).status(),
            200,
            "{store:?}: the new one at once"
        );
        let old = with(&node, &first);
        assert!(old.status() == 200 || over(), "{store:?}: {}", old.text());
        let refused = eventually("the grace is over", || {
            let answer = with(&node, &first);
            (answer.status() != 200).then_some(answer)
        });
        assert_eq!(refused.status(), 401, "{}", refused.text());
        assert!(over(), "{store:?}: {:?}", begun.elapsed());
        let third = rotate(json!({}));
        assert_eq!(with(&node, &second).status(), 401, "{store:?}: no grace");
        assert_eq!(with(&node, &third).status(), 200);
        assert!(node.shown("/api/virtual-keys/k").get("value").is_none());
        // All values count on the same limit.
        let used = node.settled("k", "requests")["used"]
            .as_u64()
            .expect("a count");
        assert_eq!(used, upstream.count() as u64, "{store:?}");
        let unknown = node.call("POST", "/api/virtual-keys/nobody/rotate", &json!({}));
        assert_eq!(unknown.status(), 404, "{}", unknown.text());
        let wrong = node.call(
            "POST",
            "/api/virtual-keys/k/rotate",
            &json!({"grace": "later"}),
        );
        assert_eq!(wrong.status(), 400, "{}", wrong.text());
        assert_eq!(
            with(&node, &third).status(),
            200,
            "a wrong call changes nothing"
        );
    }
}

#[test]
fn a_revoked_key_is_refused_at_once_and_for_good() {
    for store in [Store::Sqlite, Store::Postgres] {
        let upstream = Upstream::chat();
        let mut node = Node::start(&store.under(Conf::for_upstream(upstream.address)));
        let made = node.made_key(&json!({"name": "made", "providers": [{"name": "openai"}]}));
        let grace = node.call(
            "POST",
            "/api/virtual-keys/made/rotate",
            &json!({"grace": "24h"}),
        );
        let current = grace.json()["value"]
            .as_str()
            .expect("shown once")
            .to_owned();
        for value in [KEY, &made, &current, OTHER_KEY] {
            assert_eq!(with(&node, value).status(), 200);
        }
        for name in ["made", "demo"] {
            let path = format!("/api/virtual-keys/{name}/revoke");
            let revoked = node.call("POST", &path, &Value::Null);
            assert_eq!(revoked.status(), 200, "{}", revoked.text());
            assert_eq!(revoked.json()["persisted"], true, "{}", revoked.text());
            assert_eq!(revoked.json()["applied_on"], "1/1", "{}", revoked.text());
        }
        let asked = upstream.count();
        let all_refused = |node: &Node| {
            for value in [KEY, &made, &current] {
                let answer = with(node, value);
                assert_eq!(answer.status(), 401, "{store:?}: {}", answer.text());
                assert!(answer.text().contains("revoked"), "{}", answer.text());
            }
            assert_eq!(
                with(node, OTHER_KEY).status(),
                200,
                "{store:?}: others go on"
            );
        };
        all_refused(&node);
        let reload = node.call("POST", "/api/reload", &Value::Null);
        assert_eq!(reload.status(), 200, "{}", reload.text());
        all_refused(&node);
        node.process.kill();
        node.start_again();
        all_refused(&node);
        assert_eq!(
            upstream.count(),
            asked + 3,
            "{store:?}: only the other key got through"
        );
        let unknown = node.call("POST", "/api/virtual-keys/nobody/revoke", &Value::Null);
        assert_eq!(unknown.status(), 404);
    }
}

#[test]
fn a_stream_under_way_outlives_its_key() {
    let gate = crate::scopes::Gate::default();
    let upstream = gate.upstream(10, 5);
    let node = std::sync::Arc::new(Node::start(&Conf::for_upstream(upstream.address)));
    let value = node.made_key(&json!({"name": "k", "providers": [{"name": "openai"}], "rate_limits": [{"requests": 9, "every": "1h"}]}));
    let (held, key) = (std::sync::Arc::clone(&node), value.clone());
    let thread = std::thread::spawn(move || with(&held, &key).status());
    eventually("it is in flight", || (upstream.count() == 1).then_some(()));
    assert_eq!(
        node.call("DELETE", "/api/virtual-keys/k", &Value::Null)
            .status(),
        204
    );
    assert_eq!(with(&node, &value).status(), 401);
    gate.open();
    assert_eq!(
        thread.join().expect("an answer"),
        200,
        "what was admitted is answered"
    );
    let record = node.records_exactly(1).remove(0);
    assert_eq!(
        (record.key.as_str(), record.input, record.output),
        ("k", 10, 5)
    );
    // Made again within the window, it finds its count.
    node.made(
        "virtual-keys",
        &json!({"name": "k", "rate_limits": [{"requests": 9, "every": "1h"}]}),
    );
    assert_eq!(node.settled("k", "requests")["used"], 1);
}

#[test]
fn a_revoked_value_stays_refused_under_any_name() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let body = |name: &str, value: &str| json!({"name": name, "value": value, "providers": [{"name": "openai"}]});
    let leaked = "a-value-that-leaked-00001";
    node.made("virtual-keys", &body("k", leaked));
    assert_eq!(with(&node, leaked).status(), 200);
    let revoked = node.call("POST", "/api/virtual-keys/k/revoke", &Value::Null);
    assert_eq!(revoked.status(), 200, "{}", revoked.text());
    let again = node.call(
        "PUT",
        "/api/virtual-keys/k",
        &node.shown("/api/virtual-keys/k"),
    );
    assert_eq!(again.status(), 200, "{}", again.text());
    assert_eq!(
        with(&node, leaked).status(),
        401,
        "writing it back lifts nothing"
    );
    assert_eq!(
        node.call("DELETE", "/api/virtual-keys/k", &Value::Null)
            .status(),
        204
    );
    node.call("POST", "/api/virtual-keys", &body("another", leaked));
    assert_eq!(with(&node, leaked).status(), 401, "nor does another name");
    let fresh = node.made_key(&json!({"name": "k", "providers": [{"name": "openai"}]}));
    assert_eq!(
        with(&node, &fresh).status(),
        200,
        "a new value is a new key"
    );
}
