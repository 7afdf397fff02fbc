//! What a caller learns of its own limits: from `/v1/usage`, and from the
//! headers of each answer, where the tightest of all scopes stands.

use serde_json::{Value, json};

use crate::harness::api::chat;
use crate::harness::conf::{KEY, OTHER_KEY};
use crate::harness::{Answer, Ask, Conf, Node, Upstream};
use crate::scopes::{ask, at_rest, ladder};

const CHAT: &str = "/v1/chat/completions";

fn usage(node: &Node, key: &str) -> Value {
    let answer = node.ask(
        &Ask::get("/v1/usage")
            .bearer(key)
            .header("x-tyr-user", "ann"),
    );
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

#[test]
fn usage_shows_the_callers_own_limits_as_the_admin_sees_them() {
    let upstream = Upstream::chat();
    let limits = |_: &str| {
        (
            "{requests: 50, every: 1h}".to_owned(),
            "{limit_usd: 2.5, every: 1M}".to_owned(),
        )
    };
    let mut conf = ladder([upstream.address; 3], &limits);
    conf.teams += "  - {name: hidden, rate_limits: [{requests: 7, every: 1h}]}\n";
    conf.keys += &format!(
        "  - {{name: other, value: {OTHER_KEY}, team: hidden, providers: [{{name: spare}}], rate_limits: [{{requests: 9, every: 1h}}]}}\n"
    );
    let node = Node::start(&conf);
    for _ in 0..3 {
        assert_eq!(node.ask(&ask("m", 5)).status(), 200);
    }
    at_rest(&node);
    let own = usage(&node, KEY);
    assert_eq!(
        (&own["key"], &own["team"], &own["customer"], &own["user"]),
        (
            &json!("demo"),
            &json!("search"),
            &json!("acme"),
            &json!("ann")
        )
    );
    let limits = own["limits"].as_array().expect("a list");
    let fields = [
        "scope",
        "name",
        "unit",
        "every",
        "limit_name",
        "limit",
        "used",
        "reserved",
        "remaining",
    ];
    let as_seen = |limit: &Value| fields.map(|field| limit[field].clone());
    let seen: Vec<_> = limits
        .iter()
        .filter(|limit| limit["scope"] != "user")
        .map(as_seen)
        .collect();
    let admin: Vec<_> = node.standing("demo").iter().map(as_seen).collect();
    assert_eq!(seen, admin, "the same numbers in the same order");
    let scopes: Vec<_> = limits
        .iter()
        .map(|limit| limit["scope"].as_str().unwrap())
        .collect();
    for scope in [
        "virtual_key",
        "team",
        "customer",
        "user",
        "global",
        "virtual_key_provider",
    ] {
        assert_eq!(
            scopes.iter().filter(|found| **found == scope).count(),
            6,
            "{scope}: {scopes:?}"
        );
    }
    let requests = limits
        .iter()
        .find(|limit| limit["unit"] == "requests" && limit["limit"] == 50);
    assert_eq!(
        requests.expect("it is there")["used"],
        3,
        "asking took nothing"
    );
    let text = own.to_string();
    for hidden in ["other", "hidden", "spare"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    let theirs = usage(&node, OTHER_KEY);
    let text = theirs.to_string();
    for hidden in ["demo", "search", "acme"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    assert_eq!(theirs["limits"][0]["used"], 0);
    assert_eq!(node.ask(&Ask::get("/v1/usage")).status(), 401);
    assert_eq!(
        node.ask(&Ask::get("/v1/usage").bearer("sk-tyr-of-nobody-0000001"))
            .status(),
        401
    );
    let post = node.ask(&Ask::post("/v1/usage", &json!({})));
    assert_eq!(post.status(), 405, "{}", post.text());
    assert_eq!(upstream.count(), 3, "it is answered here");
}

#[track_caller]
fn tells(answer: &Answer, unit: &str, limit: u64, remaining: u64) {
    let header = |what: &str| {
        let name = format!("x-ratelimit-{what}-{unit}");
        let value = answer
            .header(&name)
            .unwrap_or_else(|| panic!("{name}: {:?}", answer.head));
        value.parse::<u64>().expect("a number")
    };
    assert_eq!(
        (header("limit"), header("remaining")),
        (limit, remaining),
        "{:?}",
        answer.head
    );
}

/// The tightest limit is the one with the smallest part left; it moves from
/// scope to scope with what others use.
#[test]
fn headers_tell_of_the_tightest_limit_of_all_scopes() {
    let upstream = Upstream::chat();
    let limits = |scope: &str| {
        let rate_limit = match scope {
            "virtual_key/demo" => "{requests: 100, every: 1h}",
            "customer/acme" => "{requests: 6, every: 1h}",
            "provider/openai" => "{requests: 4, every: 1h}, {tokens: 100000, every: 1h}",
            "model/m" => "{tokens: 50000, every: 1h}",
            _ => "",
        };
        (rate_limit.to_owned(), String::new())
    };
    let mut conf = ladder([upstream.address; 3], &limits);
    conf.keys += &format!(
        "  - {{name: other, value: {OTHER_KEY}, customer: acme, providers: [{{name: spare}}]}}\n"
    );
    let node = Node::start(&conf);
    let first = node.ask(&ask("m", 5));
    assert_eq!(first.status(), 200, "{}", first.text());
    tells(&first, "requests", 4, 3);
    assert_eq!(
        first.header("x-tyr-limit"),
        Some("provider/openai/requests/1h")
    );
    // The customer's other key uses three of six: two of them are left.
    for _ in 0..3 {
        let other = node.ask(&Ask::post(CHAT, &chat("n", 5)).bearer(OTHER_KEY));
        assert_eq!(other.status(), 200, "{}", other.text());
    }
    let second = node.ask(&ask("m", 5));
    tells(&second, "requests", 6, 1);
    assert_eq!(
        second.header("x-tyr-limit"),
        Some("customer/acme/requests/1h")
    );
    assert_eq!(node.ask(&ask("m", 5)).status(), 200);
    at_rest(&node);
    let refused = node.ask(&ask("m", 5));
    assert_eq!(
        (refused.status(), refused.header("x-tyr-limit")),
        (429, Some("customer/acme/requests/1h"))
    );
    tells(&refused, "requests", 6, 0);
    // Of tokens it tells too, though they did not refuse: three times 15 of 50,000.
    tells(&refused, "tokens", 50_000, 49_955);
}

#[test]
fn a_caller_without_limits_gets_no_headers() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let answer = node.post(CHAT, &chat("gpt-4o-mini", 5));
    assert_eq!(answer.status(), 200);
    let told = answer
        .head
        .headers
        .iter()
        .find(|(name, _)| name.contains("ratelimit") || name == "x-tyr-limit");
    assert_eq!(told, None);
    assert_eq!(usage(&node, KEY)["limits"], json!([]));
}
