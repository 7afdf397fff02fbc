//! Limits and budgets over the wire: what is admitted, what is refused, in
//! whose shape, with which headers, and what is charged.

use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::harness::conf::KEY;
use crate::harness::node::number;
use crate::harness::upstream::chat_completion;
use crate::harness::{Answer, Ask, Conf, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";

fn chat(max_tokens: u64) -> Value {
    json!({"model": "gpt-4o-mini", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "hi"}]})
}

fn message(max_tokens: u64) -> Ask {
    let body = json!({"model": "claude-haiku-4-5", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "hi"}]});
    Ask::post("/v1/messages", &body).header("anthropic-version", "2023-06-01")
}

/// A provider of both dialects whose answers report this usage.
fn provider(input: u64, output: u64) -> Upstream {
    Upstream::start(move |exchange| {
        if exchange.seen.path.starts_with("/v1/messages") {
            let usage = json!({"input_tokens": input, "output_tokens": output});
            exchange.json(200, &json!({"id": "msg_1", "type": "message", "role": "assistant",
                "model": "claude-haiku-4-5", "content": [], "stop_reason": "end_turn", "usage": usage}));
        } else {
            exchange.json(200, &chat_completion("pong", input, output));
        }
    })
}

fn limited(upstream: &Upstream, lines: &str) -> Node {
    Node::start(&Conf::for_upstream(upstream.address).limited(lines))
}

#[track_caller]
fn whole_number(answer: &Answer, name: &str) -> u64 {
    let value = answer
        .header(name)
        .unwrap_or_else(|| panic!("{name} is missing: {:?}", answer.head));
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name}: {value} is not a whole number"))
}

#[test]
fn a_request_limit_admits_exactly_its_number() {
    let upstream = provider(10, 5);
    let node = limited(&upstream, "rate_limits: [{requests: 3, every: 1h}]");
    for left in [2, 1, 0] {
        let answer = node.post(CHAT, &chat(5));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(whole_number(&answer, "x-ratelimit-limit-requests"), 3);
        assert_eq!(
            whole_number(&answer, "x-ratelimit-remaining-requests"),
            left
        );
        assert!(answer.header("x-ratelimit-reset-requests").is_some());
    }
    let answer = node.post(CHAT, &chat(5));
    assert_eq!(answer.status(), 429);
    let error = &answer.json()["error"];
    assert_eq!(
        (&error["code"], answer.header("x-tyr-limit")),
        (
            &json!("rate_limit_exceeded"),
            Some("virtual_key/demo/requests/1h")
        )
    );
    let text = error["message"].as_str().expect("a message");
    for word in ["demo", "3", "requests"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    // A sliding hour: the sub-window of 2 minutes must have left it whole.
    let seconds = whole_number(&answer, "retry-after");
    assert!((1..=3720).contains(&seconds), "{seconds}");
    let millis = whole_number(&answer, "retry-after-ms");
    assert!(
        millis.div_ceil(1000) == seconds,
        "{millis} ms rounded up is {seconds} s"
    );
    assert_eq!(whole_number(&answer, "x-ratelimit-limit-requests"), 3);
    assert_eq!(whole_number(&answer, "x-ratelimit-remaining-requests"), 0);
    let reset = answer
        .header("x-ratelimit-reset-requests")
        .expect("a reset");
    assert!(
        reset.ends_with('s') && reset.starts_with(|c: char| c.is_ascii_digit()),
        "a duration such as 6m0s: {reset}"
    );
    assert_eq!(upstream.count(), 3);
    assert_eq!(number(&node.settled("demo", "requests")["used"]), 3.0);
}

#[test]
fn anthropic_callers_get_their_headers_and_shape() {
    let upstream = provider(10, 5);
    let node = limited(&upstream, "rate_limits: [{requests: 1, every: 1h}]");
    let answer = node.ask(&message(5));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(
        whole_number(&answer, "anthropic-ratelimit-requests-limit"),
        1
    );
    assert_eq!(
        whole_number(&answer, "anthropic-ratelimit-requests-remaining"),
        0
    );
    let reset = answer
        .header("anthropic-ratelimit-requests-reset")
        .expect("a reset");
    assert!(
        reset.contains('T') && reset.ends_with('Z'),
        "RFC 3339: {reset}"
    );
    let refused = node.ask(&message(5));
    assert_eq!(refused.status(), 429);
    let body = refused.json();
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("rate_limit_error"))
    );
    whole_number(&refused, "retry-after");
    let count =
        |name: &str| whole_number(&refused, &format!("anthropic-ratelimit-requests-{name}"));
    assert_eq!((count("limit"), count("remaining")), (1, 0));
    let reset = refused.header("anthropic-ratelimit-requests-reset");
    assert!(
        reset.is_some_and(|time| time.contains('T') && time.ends_with('Z')),
        "RFC 3339: {reset:?}"
    );
    assert_eq!(upstream.count(), 1);
}

#[test]
fn tokens_are_settled_to_what_was_reported() {
    let upstream = provider(700, 300);
    let node = limited(&upstream, "rate_limits: [{tokens: 2200, every: 1h}]");
    for used in [1000.0, 2000.0] {
        let answer = node.post(CHAT, &chat(50));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(whole_number(&answer, "x-ratelimit-limit-tokens"), 2200);
        assert_eq!(
            number(&node.settled("demo", "tokens")["used"]),
            used,
            "exact to the token"
        );
    }
    // 200 are left: neither what the last answers used nor 1,024 fits.
    let answer = node.post(CHAT, &chat(2000));
    assert_eq!(answer.status(), 429, "{}", answer.text());
    assert_eq!(
        answer.header("x-tyr-limit"),
        Some("virtual_key/demo/tokens/1h")
    );
    assert_eq!(
        number(&node.settled("demo", "tokens")["used"]),
        2000.0,
        "a refusal costs nothing"
    );
}

#[test]
fn a_refusal_by_one_limit_leaves_the_others_untouched() {
    let upstream = provider(10, 5);
    let node = limited(
        &upstream,
        "rate_limits: [{requests: 100, every: 1h}, {tokens: 1000000, every: 1h}]\nbudgets: [{limit_usd: 0.000000001, every: 1d, enforcement: strict}]",
    );
    assert!(node.post(CHAT, &chat(100)).status() >= 400);
    for unit in ["requests", "tokens", "usd"] {
        let standing = node.settled("demo", unit);
        assert_eq!(
            number(&standing["used"]),
            0.0,
            "all limits or none: {standing}"
        );
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_spent_budget_is_terminal_in_both_shapes() {
    // 1,000 x 0.15 + 1,000 x 0.60 micro-dollars a request; the budget holds two.
    let upstream = provider(1000, 1000);
    let node = limited(&upstream, "budgets: [{limit_usd: 0.0015, every: 1M}]");
    for spent in [0.00075, 0.0015] {
        assert_eq!(node.post(CHAT, &chat(10)).status(), 200);
        assert!((number(&node.settled("demo", "usd")["used"]) - spent).abs() < 1e-12);
    }
    let openai = node.post(CHAT, &chat(10));
    assert_eq!(openai.status(), 429, "{}", openai.text());
    let error = &openai.json()["error"];
    assert_eq!(
        (&error["code"], openai.header("x-should-retry")),
        (&json!("insufficient_quota"), Some("false"))
    );
    assert_eq!(
        openai.header("x-tyr-limit"),
        Some("virtual_key/demo/usd/1M")
    );
    assert!(openai.header("retry-after").is_some());
    let anthropic = node.ask(&message(10));
    assert_eq!(anthropic.status(), 402, "{}", anthropic.text());
    assert_eq!(anthropic.json()["error"]["type"], "billing_error");
    assert_eq!(anthropic.header("x-should-retry"), Some("false"));
    assert_eq!(upstream.count(), 2);
}

#[test]
fn the_status_of_a_spent_budget_can_be_set() {
    let upstream = provider(1000, 1000);
    let mut conf =
        Conf::for_upstream(upstream.address).limited("budgets: [{limit_usd: 0.0001, every: 1d}]");
    conf.more = "governance: {budget_status: 402}\n".into();
    let node = Node::start(&conf);
    node.post(CHAT, &chat(10));
    node.settled("demo", "usd");
    let answer = node.post(CHAT, &chat(10));
    assert_eq!(
        (answer.status(), answer.header("x-should-retry")),
        (402, Some("false")),
        "{}",
        answer.text()
    );
}

#[test]
fn team_and_customer_limits_bind_their_keys_together() {
    let upstream = provider(10, 5);
    let mut conf = Conf::for_upstream(upstream.address).limited("team: search");
    conf.keys = conf
        .keys
        .replace("name: other\n", "name: other\n    team: search\n");
    conf.teams =
        "  - {name: search, customer: acme, rate_limits: [{requests: 2, every: 1h}]}\n".into();
    conf.customers = "  - {name: acme, budgets: [{limit_usd: 1000, every: 1M}]}\n".into();
    let node = Node::start(&conf);
    let other = Ask::post(CHAT, &chat(5)).bearer(crate::harness::conf::OTHER_KEY);
    assert_eq!(node.post(CHAT, &chat(5)).status(), 200);
    assert_eq!(node.ask(&other).status(), 200);
    let refused = node.ask(&other);
    assert_eq!(
        (refused.status(), refused.header("x-tyr-limit")),
        (429, Some("team/search/requests/1h"))
    );
    let records = node.records_exactly(node.records().len().max(2));
    let (team, customer) = (records[0].team.as_deref(), records[0].customer.as_deref());
    assert_eq!((team, customer), (Some("search"), Some("acme")));
}

#[test]
fn a_strict_limit_holds_the_most_a_request_may_use() {
    let upstream = provider(10, 5);
    let node = limited(
        &upstream,
        "rate_limits: [{tokens: 1000, every: 1h, enforcement: strict}]",
    );
    let too_large = node.post(CHAT, &chat(2000));
    assert_eq!(
        (too_large.status(), too_large.header("x-should-retry")),
        (429, Some("false")),
        "{}",
        too_large.text()
    );
    let text = too_large.text();
    assert!(
        text.contains("max_tokens"),
        "the largest max_tokens that fits is told: {text}"
    );
    assert_eq!(node.post(CHAT, &chat(900)).status(), 200);
    assert_eq!(number(&node.settled("demo", "tokens")["used"]), 15.0);
}

/// 200 requests at once, each holding a tenth of the limit, of which the first
/// ten are kept waiting by the provider until all the others are refused.
fn exactly_ten(lines: &'static str, max_tokens: u64) {
    let gate = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::start(move |exchange| {
        let open = opened.0.lock().expect("the gate");
        drop(opened.1.wait_while(open, |open| !*open));
        exchange.json(200, &chat_completion("pong", 0, 1));
    });
    let node = Arc::new(limited(&upstream, lines));
    let start = Arc::new(Barrier::new(200));
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (node, start) = (Arc::clone(&node), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                node.post(CHAT, &chat(max_tokens)).status()
            })
        })
        .collect();
    crate::harness::eventually("190 are refused", || {
        (tasks.iter().filter(|task| task.is_finished()).count() >= 190).then_some(())
    });
    *gate.0.lock().expect("the gate") = true;
    gate.1.notify_all();
    let statuses: Vec<u16> = tasks
        .into_iter()
        .map(|task| task.join().expect("an answer"))
        .collect();
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses
        .iter()
        .filter(|status| [429, 402].contains(*status))
        .count();
    assert_eq!((admitted, refused, upstream.count()), (10, 190, 10));
}

#[test]
fn of_200_at_once_a_request_limit_admits_ten() {
    exactly_ten("rate_limits: [{requests: 10, every: 1h}]", 5);
}

#[test]
fn of_200_at_once_a_strict_token_limit_admits_ten() {
    // Each holds its prompt estimate and 10,000 tokens; ten fit, eleven do not.
    exactly_ten(
        "rate_limits: [{tokens: 109000, every: 1h, enforcement: strict}]",
        10_000,
    );
}

#[test]
fn of_200_at_once_a_strict_budget_admits_ten() {
    // Each holds 10,000 output tokens at $0.60 a million: $0.006 and its prompt.
    exactly_ten(
        "budgets: [{limit_usd: 0.0650, every: 1d, enforcement: strict}]",
        10_000,
    );
}

#[test]
fn of_200_at_once_a_concurrency_limit_admits_ten() {
    exactly_ten("rate_limits: [{concurrent: 10}]", 5);
}

#[test]
fn a_failed_call_gives_its_reservation_back() {
    let upstream = Upstream::start(|exchange| exchange.fail(400, &[]));
    let node = limited(
        &upstream,
        "rate_limits: [{tokens: 100000, every: 1h}, {concurrent: 5}]\nbudgets: [{limit_usd: 1, every: 1d}]",
    );
    for _ in 0..20 {
        assert_eq!(node.post(CHAT, &chat(5)).status(), 400);
    }
    for unit in ["tokens", "usd", "concurrent"] {
        assert_eq!(number(&node.settled("demo", unit)["used"]), 0.0, "{unit}");
    }
}

#[test]
fn upstreams_own_limit_headers_do_not_pass() {
    let upstream = Upstream::start(|exchange| {
        let body = chat_completion("pong", 1, 1).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("x-ratelimit-remaining-requests", "77"),
            ("anthropic-ratelimit-tokens-limit", "88"),
        ];
        exchange.reply(200, &headers, body.as_bytes());
    });
    let node = limited(&upstream, "rate_limits: [{requests: 5, every: 1h}]");
    let answer = node.post(CHAT, &chat(5));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("4"));
    assert_eq!(answer.header("anthropic-ratelimit-tokens-limit"), None);
    let free = node.ask(&Ask::post(CHAT, &chat(5)).bearer(crate::harness::conf::OTHER_KEY));
    assert_eq!(
        free.header("x-ratelimit-remaining-requests"),
        None,
        "they describe our key, not the caller's"
    );
    assert_ne!(KEY, crate::harness::conf::OTHER_KEY);
}
