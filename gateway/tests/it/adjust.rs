//! Limits that are changed while they count: resets, other amounts for a while
//! or for ever, edits, and limits that only count.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::api::{Store, chat, now_ms};
use crate::harness::{Ask, Conf, Node, Upstream, eventually};
use crate::names::encoded;
use crate::scopes::Gate;

const CHAT: &str = "/v1/chat/completions";
const REQUESTS: &str = "virtual_key/demo/requests/1h/sliding";

fn limited(upstream: &Upstream, lines: &str) -> Node {
    Node::start(&Conf::for_upstream(upstream.address).limited(lines))
}

fn status(node: &Node) -> u16 {
    node.post(CHAT, &chat("gpt-4o-mini", 5)).status()
}

#[track_caller]
fn reset(node: &Node, id: &str) -> Value {
    let answer = node.call("POST", "/api/limits/reset", &json!({"limit": id}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

#[track_caller]
fn set(node: &Node, fields: Value) -> Value {
    let id = fields["limit"].as_str().expect("a limit").to_owned();
    let answer = node.call("PUT", &format!("/api/limit-overrides/{id}"), &fields);
    assert!([200, 201].contains(&answer.status()), "{}", answer.text());
    answer.json()
}

#[test]
fn a_reset_counts_from_zero_and_leaves_what_is_in_flight() {
    for store in [Store::Sqlite, Store::Postgres] {
        let gate = Gate::default();
        let upstream = gate.upstream(1000, 1000);
        let lines =
            "rate_limits: [{requests: 1, every: 1h}]\nbudgets: [{limit_usd: 0.00075, every: 1M}]";
        let conf = store.under(Conf::for_upstream(upstream.address).limited(lines));
        let mut node = Arc::new(Node::start(&conf));
        let held = Arc::clone(&node);
        let thread = std::thread::spawn(move || status(&held));
        eventually("it is in flight", || (upstream.count() == 1).then_some(()));
        assert_eq!(status(&node), 429);
        let budget = "virtual_key/demo/usd/1M/calendar";
        for id in [REQUESTS, budget] {
            let done = reset(&node, id);
            assert_eq!(
                done["standing"][0]["id"], id,
                "a reset renames nothing: {done}"
            );
            let zero = done["standing"][0]["used"] == 0 || done["standing"][0]["used"] == "0";
            assert!(zero, "{done}");
        }
        gate.open();
        assert_eq!(thread.join().expect("an answer"), 200);
        eventually("the first is settled", || {
            (node.metric("tyr_requests_total", "") >= 1.0).then_some(())
        });
        for id in [REQUESTS, budget] {
            let limit = node.limit(id);
            let used = limit["used"] == 0 || limit["used"] == "0";
            assert!(
                used,
                "{store:?}: it settles on the count it was taken from: {limit}"
            );
        }
        assert_eq!(status(&node), 200, "the new count admits one");
        assert_eq!(
            node.settled("demo", "usd")["used_nano_usd"],
            750_000,
            "{store:?}"
        );
        assert_eq!(status(&node), 429);
        let running = Arc::get_mut(&mut node).expect("nobody else has it");
        running.process.signal("TERM");
        running
            .process
            .wait(std::time::Duration::from_secs(30))
            .expect("it ends");
        running.start_again();
        assert_eq!(
            node.limit(REQUESTS)["used"],
            1,
            "{store:?}: the new count, not the old one"
        );
        assert_eq!(status(&node), 429, "{store:?}");
        reset(&node, REQUESTS);
        reset(&node, budget);
        assert_eq!(status(&node), 200, "{store:?}: again");
    }
}

#[test]
fn only_limits_over_time_can_be_reset() {
    let upstream = Upstream::chat();
    let node = limited(
        &upstream,
        "rate_limits: [{requests: 1, every: 1h}, {concurrent: 5}]",
    );
    let call = |body: Value| node.call("POST", "/api/limits/reset", &body).status();
    assert_eq!(
        call(json!({"limit": "virtual_key/demo/concurrent/-/sliding"})) / 100,
        4
    );
    assert_eq!(
        call(json!({"limit": "virtual_key/nobody/requests/1h/sliding"})),
        404
    );
    assert_eq!(call(json!({"limit": "nonsense"})), 404);
    assert_eq!(call(json!({"limits": REQUESTS})), 400);
    assert_eq!(call(json!({})), 400);
}

#[test]
fn an_override_replaces_the_amount_and_goes() {
    for store in [Store::Sqlite, Store::Postgres] {
        let upstream = Upstream::chat();
        let conf =
            Conf::for_upstream(upstream.address).limited("rate_limits: [{requests: 2, every: 1h}]");
        let node = Node::start(&store.under(conf));
        assert_eq!(
            [status(&node), status(&node), status(&node)],
            [200, 200, 429]
        );
        set(&node, json!({"limit": REQUESTS, "amount": 4}));
        assert_eq!(
            [status(&node), status(&node), status(&node)],
            [200, 200, 429],
            "{store:?}: up"
        );
        let shown = node.standing_of("demo", "requests");
        assert_eq!(
            (&shown["limit"], &shown["overridden"]),
            (&json!(4), &json!(true))
        );
        let entity = node.shown("/api/virtual-keys/demo");
        assert_eq!(
            entity["rate_limits"][0]["requests"], 2,
            "the entity stays as it is"
        );
        set(&node, json!({"limit": REQUESTS, "amount": 1}));
        assert_eq!(status(&node), 429, "{store:?}: down");
        let shown = node.standing_of("demo", "requests");
        assert_eq!(
            (&shown["used"], &shown["remaining"]),
            (&json!(4), &json!(0))
        );
        set(&node, json!({"limit": REQUESTS, "amount": 6}));
        assert_eq!(status(&node), 200);
        let gone = node.call(
            "DELETE",
            &format!("/api/limit-overrides/{REQUESTS}"),
            &Value::Null,
        );
        assert_eq!(gone.status(), 204, "{}", gone.text());
        assert_eq!(status(&node), 429, "{store:?}: its own amount again");
        assert_eq!(node.standing_of("demo", "requests")["overridden"], false);
    }
}

#[test]
fn an_override_ends_with_its_periods() {
    let upstream = Upstream::chat();
    let lines = "rate_limits: [{requests: 1, every: 4s, window: fixed}]\nbudgets: [{limit_usd: 1, every: 1M}, {limit_usd: 9, every: 1h}]";
    let node = limited(&upstream, lines);
    let id = "virtual_key/demo/requests/4s/fixed";
    let made = set(&node, json!({"limit": id, "amount": 1000, "periods": 1}));
    assert!(
        made["until"].is_string() && made.get("periods").is_none(),
        "{made}"
    );
    let until = made["until"].as_str().expect("a time").to_owned();
    eventually("the period of the override is over", || {
        (node.standing_of("demo", "requests")["overridden"] == false).then_some(())
    });
    let shown = node.standing_of("demo", "requests");
    assert_eq!(shown["limit"], 1, "{shown}");
    let now = policy::Timestamp(now_ms()).to_rfc3339();
    // Milliseconds are written only where there are some.
    assert!(
        now[..19] >= until[..19],
        "not before its end: {now} {until}"
    );
    // A calendar month ends with the month, three hours with the third.
    let month = set(
        &node,
        json!({"limit": "virtual_key/demo/usd/1M/calendar", "limit_usd": "5", "periods": 2}),
    );
    let until = month["until"].as_str().expect("a time");
    assert!(
        until.contains("-01T00:00:00"),
        "the first of a month: {until}"
    );
    let hours = set(
        &node,
        json!({"limit": "virtual_key/demo/usd/1h/fixed", "limit_usd": 5, "periods": 3}),
    );
    let until = hours["until"].as_str().expect("a time");
    assert!(until.contains(":00:00"), "a full hour: {until}");
    let for_ever = set(
        &node,
        json!({"limit": "virtual_key/demo/usd/1h/fixed", "limit_usd": 7.5}),
    );
    assert!(for_ever.get("until").is_none(), "{for_ever}");
    let limits = node.limits();
    let budget = limits
        .iter()
        .find(|limit| limit["id"] == "virtual_key/demo/usd/1h/fixed");
    assert_eq!(budget.expect("it is there")["limit"], "7.5");
}

#[test]
fn a_wrong_override_is_refused() {
    let upstream = Upstream::chat();
    let node = limited(
        &upstream,
        "rate_limits: [{requests: 1, every: 1h}, {concurrent: 3}]\nbudgets: [{limit_usd: 1, every: 1d}]",
    );
    let wrong = [
        json!({"limit": REQUESTS}),
        json!({"limit": REQUESTS, "limit_usd": 5}),
        json!({"limit": REQUESTS, "amount": -1}),
        json!({"limit": REQUESTS, "amount": 5, "periods": 0}),
        json!({"limit": REQUESTS, "amount": 5, "until": "2020-01-01T00:00:00Z"}),
        json!({"limit": REQUESTS, "amount": 5, "until": "soon"}),
        json!({"limit": REQUESTS, "amount": 5, "until": "2099-01-01T00:00:00Z", "periods": 1}),
        json!({"limit": "virtual_key/demo/usd/1d/calendar", "amount": 5}),
        json!({"limit": "virtual_key/demo/usd/1d/calendar", "limit_usd": "much"}),
        json!({"limit": "virtual_key/demo/concurrent/-/sliding", "amount": 5, "periods": 2}),
        json!({"limit": "virtual_key/demo/requests/2h/sliding", "amount": 5}),
        json!({"amount": 5}),
    ];
    for body in wrong {
        let answer = node.call("POST", "/api/limit-overrides", &body);
        assert_eq!(answer.status(), 400, "{body}: {}", answer.text());
    }
    assert_eq!(node.shown("/api/limit-overrides")["data"], json!([]));
    assert_eq!([status(&node), status(&node)], [200, 429]);
}

#[test]
fn an_edited_amount_keeps_what_was_used() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let body = |amount: u64| json!({"name": "k", "providers": [{"name": "openai"}], "rate_limits": [{"requests": amount, "every": "1h"}]});
    let key = node.made_key(&body(2));
    let ask = || {
        node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer(&key))
            .status()
    };
    assert_eq!([ask(), ask(), ask()], [200, 200, 429]);
    let put = |amount| {
        assert_eq!(
            node.call("PUT", "/api/virtual-keys/k", &body(amount))
                .status(),
            200
        )
    };
    put(3);
    assert_eq!([ask(), ask()], [200, 429], "one more, not three");
    put(1);
    assert_eq!(ask(), 429);
    assert_eq!(
        node.call("DELETE", "/api/virtual-keys/k", &Value::Null)
            .status(),
        204
    );
    let again = node.made_key(&body(3));
    let answer = node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer(&again));
    assert_eq!(
        answer.status(),
        429,
        "made again under its name it finds its count"
    );
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_shadow_limit_counts_and_never_refuses() {
    let upstream = Upstream::chat();
    let node = limited(
        &upstream,
        "rate_limits: [{requests: 2, every: 1h, shadow: true}, {tokens: 20, every: 1h, shadow: true, enforcement: strict}]\nbudgets: [{limit_usd: 0.000001, every: 1d, shadow: true, enforcement: strict}]",
    );
    for _ in 0..5 {
        let answer = node.post(CHAT, &chat("gpt-4o-mini", 5));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        for name in [
            "x-ratelimit-limit-requests",
            "x-ratelimit-limit-tokens",
            "x-tyr-limit",
        ] {
            assert_eq!(
                answer.header(name),
                None,
                "an experiment tells the caller nothing"
            );
        }
        node.limits_at_rest();
    }
    for (unit, used) in [
        ("requests", json!(5)),
        ("tokens", json!(75)),
        ("usd", json!("0.0000225")),
    ] {
        let standing = node.settled("demo", unit);
        assert_eq!(
            (&standing["used"], &standing["shadow"]),
            (&used, &json!(true)),
            "{standing}"
        );
    }
    let would = |unit: &str| node.metric("tyr_shadow_refusals_total", &format!("unit=\"{unit}\""));
    assert_eq!(would("requests"), 3.0, "{}", node.metrics());
    assert!(would("tokens") >= 3.0 && would("usd") >= 3.0);
    assert_eq!(node.metric("tyr_refusals_total", ""), 0.0);
    let refused_nobody = node.ask(&Ask::get("/v1/usage").bearer(crate::harness::conf::KEY));
    assert_eq!(refused_nobody.json()["limits"], json!([]));
}

#[test]
fn limits_are_listed_page_by_page() {
    let upstream = Upstream::chat();
    let lines = "rate_limits: [{requests: 1, every: 1h}, {tokens: 5, every: 1m}]";
    let mut conf = Conf::for_upstream(upstream.address).limited(lines);
    conf.more = "governance: {global: {budgets: [{limit_usd: 1, every: 1d}]}}\n".to_owned();
    let node = Node::start(&conf);
    let limits = json!([{"requests": 1, "every": "1h"}, {"concurrent": 2}]);
    for index in 0..30 {
        let grants = json!([{"name": "openai", "rate_limits": limits}]);
        let key = json!({"name": format!("k-{index}"), "rate_limits": limits, "providers": grants});
        node.made("virtual-keys", &key);
        node.made(
            "teams",
            &json!({"name": format!("a-{index}"), "rate_limits": limits}),
        );
    }
    let ids = |limits: &[Value]| -> Vec<String> {
        let ids = limits
            .iter()
            .map(|limit| limit["id"].as_str().expect("an id").to_owned());
        ids.collect()
    };
    let whole = ids(&node.limits());
    assert_eq!(whole.len(), 2 + 1 + 30 * 4 + 30 * 2);
    for size in [1, 7, 60, 61, 183] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = node.shown(&format!("/api/limits?limit={size}{after}"));
            found.extend(ids(page["data"].as_array().expect("a list")));
            assert!(found.len() <= whole.len(), "pages of {size} go on for ever");
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", encoded(next)),
                None => break,
            }
        }
        assert_eq!(found, whole, "pages of {size}");
    }
}
