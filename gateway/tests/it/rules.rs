//! Routing rules and limits of upstream choices: where a request goes, what it
//! takes there, and what is left of a choice that it leaves.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::conf::{KEY, provider};
use crate::harness::{Answer, Ask, Conf, Node, Upstream, ports};

const CHAT: &str = "/v1/chat/completions";
const SECRET: &str = "upstream-secret-rules-0001";
const ONCE: &str = "retries: {max: 0}";

fn chat(model: &str) -> Ask {
    let body =
        json!({"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    Ask::post(CHAT, &body)
}

/// Providers `a` and `b` with the model `m` each, and the alias `any`, `a` first.
fn two(a: SocketAddr, b: SocketAddr, lines: [&str; 2]) -> Conf {
    let mut conf = Conf::empty();
    conf.providers = provider("a", "openai", a, SECRET, &format!("{ONCE}\n{}", lines[0]))
        + &provider("b", "openai", b, SECRET, &format!("{ONCE}\n{}", lines[1]));
    conf.models = "  - {name: m, provider: a, price: {input: 1, output: 1}}\n  \
                   - {name: m, provider: b, price: {input: 1, output: 1}}\n  \
                   - {name: any, choices: [a/m, b/m]}\n"
        .to_owned();
    conf.keys =
        format!("  - name: demo\n    value: {KEY}\n    providers: [{{name: a}}, {{name: b}}]\n");
    conf
}

fn rule(conf: &mut Conf, fields: &str) {
    if conf.more.is_empty() {
        conf.more = "routing_rules:\n".to_owned();
    }
    conf.more += &format!("  - {{{fields}}}\n");
}

#[track_caller]
fn served_by(node: &Node, upstreams: [&Upstream; 2], ask: &Ask) -> &'static str {
    let before = upstreams.map(Upstream::count);
    let answer = node.ask(ask);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    match upstreams.map(Upstream::count) {
        after if after[0] > before[0] => "a",
        after if after[1] > before[1] => "b",
        _ => "nobody",
    }
}

fn limit_of(answer: &Answer) -> Option<&str> {
    answer.header("x-tyr-limit")
}

#[test]
fn a_rule_sends_requests_elsewhere_and_is_named_in_the_record() {
    let (a, b) = (Upstream::chat(), Upstream::chat());
    let mut conf = two(a.address, b.address, ["", ""]);
    rule(
        &mut conf,
        r#"name: gold, when: "headers['x-tier'] == 'gold' && params['v'] == 'a b'", targets: [{provider: b, model: m}]"#,
    );
    rule(
        &mut conf,
        r#"name: ghost, priority: 5, when: "model == 'any'", shadow: true, targets: [{provider: b, model: m}]"#,
    );
    let node = Node::start(&conf);
    let mut gold = chat("any").header("x-tier", "gold");
    gold.path += "?v=a+b";
    assert_eq!(served_by(&node, [&a, &b], &gold), "b");
    let mut silver = chat("any").header("x-tier", "silver");
    silver.path += "?v=a+b";
    assert_eq!(served_by(&node, [&a, &b], &silver), "a");
    // Without the header the condition cannot be told, which is no match.
    assert_eq!(served_by(&node, [&a, &b], &chat("any")), "a");
    let records = node.records_exactly(3);
    let rules: Vec<_> = records
        .iter()
        .map(|record| record.rule.as_deref())
        .collect();
    assert_eq!(rules, [Some("gold"), None, None]);
    let matches = |labels: &str| node.metric("tyr_rule_matches_total", labels);
    assert_eq!(matches(r#"outcome="matched",rule="gold""#), 1.0);
    assert_eq!(matches(r#"outcome="shadowed",rule="ghost""#), 2.0);
    assert_eq!(node.metric("tyr_rule_errors_total", r#"rule="gold""#), 1.0);
    node.await_log(&["routing rule", "gold"]);
}

#[test]
fn a_rule_may_pin_a_credential() {
    let a = Upstream::chat();
    let mut conf = two(a.address, a.address, ["", ""]);
    conf.providers = conf.providers.replacen(
        &format!("keys: [{{name: main, value: {SECRET}}}]"),
        &format!("keys: [{{name: main, value: {SECRET}}}, {{name: spare, value: spare-{SECRET}, weight: 0}}]"),
        1,
    );
    rule(
        &mut conf,
        "name: pin, targets: [{provider: a, model: m, key: spare}]",
    );
    let node = Node::start(&conf);
    for _ in 0..5 {
        assert_eq!(node.ask(&chat("a/m")).status(), 200);
    }
    for seen in a.seen() {
        let expected = format!("Bearer spare-{SECRET}");
        assert_eq!(seen.header("authorization"), Some(&*expected));
    }
    let credential = node.records_exactly(5)[0].credential.clone();
    assert_eq!(credential.as_deref(), Some("spare"));
}

#[test]
fn a_full_choice_is_skipped_and_the_first_ones_refusal_is_told() {
    let (a, b) = (Upstream::chat(), Upstream::chat());
    let limits = "rate_limits: [{requests: 1, every: 1h}]";
    let conf = two(a.address, b.address, [limits, limits]);
    let node = Node::start(&conf);
    assert_eq!(served_by(&node, [&a, &b], &chat("any")), "a");
    let second = node.ask(&chat("any"));
    assert_eq!(second.status(), 200, "{}", second.text());
    assert_eq!((a.count(), b.count()), (1, 1));
    assert_eq!(limit_of(&second), Some("provider/b/requests/1h"));
    assert_eq!(second.header("x-ratelimit-remaining-requests"), Some("0"));
    let refused = node.ask(&chat("any"));
    assert_eq!(refused.status(), 429);
    assert_eq!(limit_of(&refused), Some("provider/a/requests/1h"));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_720).contains(&seconds), "{seconds}");
    let refusals = node.metric(
        "tyr_limit_refusals_total",
        r#"scope="provider",unit="requests""#,
    );
    assert_eq!(refusals, 1.0);
}

#[test]
fn a_choice_that_failed_keeps_its_request_and_gives_back_the_rest() {
    let a = Upstream::start(|exchange| exchange.fail(500, &[]));
    let b = Upstream::chat();
    let limits =
        "rate_limits: [{requests: 2, every: 1h}, {tokens: 2000, every: 1h, enforcement: strict}]";
    let node = Node::start(&two(a.address, b.address, [limits, limits]));
    for _ in 0..2 {
        assert_eq!(
            served_by(&node, [&a, &b], &chat("any")),
            "a",
            "it was asked first"
        );
    }
    assert_eq!((a.count(), b.count()), (2, 2));
    let full = node.ask(&chat("any"));
    assert_eq!(full.status(), 429);
    assert_eq!(
        limit_of(&full),
        Some("provider/a/requests/1h"),
        "{}",
        full.text()
    );
}

#[test]
fn a_choice_that_fills_up_meanwhile_is_skipped_in_fail_over() {
    let a = Upstream::start(|exchange| exchange.fail(500, &[]));
    let b = Upstream::chat();
    let full = "rate_limits: [{requests: 1, every: 1h}]";
    let node = Node::start(&two(a.address, b.address, ["", full]));
    assert_eq!(node.ask(&chat("any")).status(), 200, "b has room once");
    let answer = node.ask(&chat("any"));
    assert_eq!(
        answer.status(),
        502,
        "the failure of a is told: {}",
        answer.text()
    );
    assert_eq!((a.count(), b.count()), (2, 1));
}

#[test]
fn a_choice_that_cannot_be_reached_counts_no_request() {
    let a = Upstream::start(|exchange| exchange.fail(500, &[]));
    let once = "rate_limits: [{requests: 1, every: 1h}]";
    let node = Node::start(&two(a.address, ports::free(), ["", once]));
    for _ in 0..2 {
        assert_eq!(node.ask(&chat("any")).status(), 502);
    }
    let attempts = node
        .records_exactly(2)
        .iter()
        .map(|record| record.attempts)
        .collect::<Vec<_>>();
    assert_eq!(attempts, [2, 2], "b had room for the second one too");
}

#[test]
fn a_shadow_limit_counts_and_refuses_nobody() {
    let a = Upstream::chat();
    let limits = "rate_limits: [{requests: 1, every: 1h, shadow: true}]";
    let node = Node::start(&two(a.address, a.address, [limits, ""]));
    for _ in 0..3 {
        let answer = node.ask(&chat("a/m"));
        assert_eq!(answer.status(), 200);
        assert_eq!(limit_of(&answer), None, "it is shown to nobody");
    }
    let refusals = node.metric(
        "tyr_shadow_refusals_total",
        r#"scope="provider",unit="requests""#,
    );
    assert_eq!(refusals, 2.0);
}

#[test]
fn each_state_of_a_key_answers_its_own_way() {
    let a = Upstream::chat();
    let mut conf = two(a.address, a.address, ["", ""]);
    let base = conf.keys.clone();
    for (lines, status, says) in [
        ("active: false", 403, "not active"),
        (
            "not_before: 2999-01-01T00:00:00Z",
            403,
            "not valid before 2999-01-01",
        ),
        (
            "expires_at: 2020-01-01T00:00:00Z",
            401,
            "expired at 2020-01-01",
        ),
    ] {
        conf.keys = format!("{base}    {lines}\n");
        let node = Node::start(&conf);
        let answer = node.ask(&chat("any"));
        assert_eq!(answer.status(), status, "{lines}");
        let error: Value = answer.json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{error}");
    }
    assert_eq!(a.count(), 0);
}
