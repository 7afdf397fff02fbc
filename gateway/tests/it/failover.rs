//! Attempts: which failure goes to the next key or choice, with the original
//! body, and what the caller sees when all are used up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::conf::{KEY, OPENAI_SECRET};
use crate::harness::upstream::chat_completion;
use crate::harness::{Ask, Conf, Connection, Exchange, Mock, Node, Upstream, ports};

const CHAT: &str = "/v1/chat/completions";
const QUICK: &str = "timeouts: {connect: 500ms, first_byte: 500ms}\nretries: {max: 2, backoff_min: 1ms, backoff_max: 5ms}";

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}]})
}

/// Providers `p0`, `p1`, …, a model `m` on each, and the alias `any` over all.
fn chain(addresses: &[SocketAddr]) -> Conf {
    let mut conf = Conf::empty();
    let mut choices = Vec::new();
    let mut grants = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let name = format!("p{number}");
        conf.providers +=
            &crate::harness::conf::provider(&name, "openai", *address, OPENAI_SECRET, QUICK);
        conf.models +=
            &format!("  - {{name: m, provider: {name}, price: {{input: 1, output: 1}}}}\n");
        choices.push(format!("{name}/m"));
        grants.push(format!("{{name: {name}}}"));
    }
    conf.models += &format!("  - {{name: any, choices: [{}]}}\n", choices.join(", "));
    conf.keys = format!(
        "  - name: demo\n    value: {KEY}\n    providers: [{}]\n    rate_limits: [{{requests: 100000, every: 1h}}]\n",
        grants.join(", ")
    );
    conf
}

fn good() -> Upstream {
    Upstream::start(|exchange| exchange.json(200, &chat_completion("pong", 10, 5)))
}

/// A provider whose first `times` requests are answered by `fault`.
fn failing(times: usize, fault: fn(&mut Exchange)) -> Upstream {
    Upstream::start(move |exchange| {
        if exchange.number < times {
            fault(exchange);
        } else {
            exchange.json(200, &chat_completion("pong", 10, 5));
        }
    })
}

fn silent(exchange: &mut Exchange) {
    exchange.left_within(Duration::from_secs(20));
}

/// What goes wrong, and how.
type Fault = (&'static str, fn(&mut Exchange));

fn faults() -> Vec<Fault> {
    vec![
        ("429", |exchange| exchange.fail(429, &[])),
        ("500", |exchange| exchange.fail(500, &[])),
        ("503", |exchange| exchange.fail(503, &[])),
        ("a reset", Exchange::reset),
        ("a close", Exchange::hang_up),
        ("silence", silent),
    ]
}

#[test]
fn each_fault_is_tried_again_and_charged_once() {
    for (what, fault) in faults() {
        let upstream = failing(1, fault);
        let node = Node::start(&chain(&[upstream.address]));
        let answer = node.post(CHAT, &chat("m"));
        assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
        let record = node.records_exactly(1).remove(0);
        assert_eq!(
            (record.attempts, record.input, record.output),
            (2, 10, 5),
            "{what}: {record:?}"
        );
        assert_eq!(
            (
                upstream.count(),
                node.settled("demo", "requests")["used"].as_u64()
            ),
            (2, Some(1)),
            "{what}"
        );
    }
}

#[test]
fn each_fault_goes_on_to_the_next_choice_of_an_alias() {
    for (what, fault) in faults() {
        let (bad, fine) = (failing(usize::MAX, fault), good());
        let node = Node::start(&chain(&[bad.address, fine.address]));
        let answer = node.post(CHAT, &chat("any"));
        assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
        let record = node.records_exactly(1).remove(0);
        assert_eq!(
            (record.provider.as_deref(), record.attempts),
            (Some("p1"), 4),
            "{what}: {record:?}"
        );
        assert_eq!((bad.count(), fine.count()), (3, 1), "{what}");
    }
}

#[test]
fn a_refused_connect_goes_on_to_the_next_choice() {
    let fine = good();
    let node = Node::start(&chain(&[ports::free(), fine.address]));
    assert_eq!(node.post(CHAT, &chat("any")).status(), 200);
    assert_eq!(node.records_exactly(1)[0].provider.as_deref(), Some("p1"));
}

#[test]
fn the_original_body_of_any_size_goes_to_each_attempt() {
    for size in [1_000, 100 * 1024, 20 * 1024 * 1024] {
        let bad = failing(usize::MAX, |exchange| exchange.fail(503, &[]));
        let fine = good();
        let mut conf = chain(&[ports::free(), bad.address, fine.address]);
        conf.providers = conf
            .providers
            .replace("first_byte: 500ms", "first_byte: 30s");
        let node = Node::start(&conf);
        let padding = "p".repeat(size);
        let body = format!(
            "{{\"model\": \"any\" , \"messages\":[{{\"role\":\"user\",\"content\":\"{padding}\"}}]}}"
        );
        let answer = node.ask(&Ask::post_bytes(CHAT, body.clone()).bearer(KEY));
        assert_eq!(answer.status(), 200, "{size}: {}", answer.text());
        let expected = body.replacen("\"any\"", "\"m\"", 1).into_bytes();
        for seen in bad.seen().iter().chain(&fine.seen()) {
            assert!(seen.body == expected, "{size}: other bytes");
        }
        assert_eq!((bad.count(), fine.count()), (3, 1));
    }
}

#[test]
fn errors_of_the_request_pass_on_byte_for_byte() {
    for status in [400, 404, 409, 413, 422] {
        let body: &'static [u8] = b"{ \"error\": {\"message\":\"context too long\",\"type\":\"invalid_request_error\",\"param\":\"messages\",\"code\":\"context_length_exceeded\"} }";
        let bad = Upstream::start(move |exchange| {
            exchange.reply(status, &[("content-type", "application/json")], body);
        });
        let fine = good();
        let node = Node::start(&chain(&[bad.address, fine.address]));
        let answer = node.post(CHAT, &chat("any"));
        assert_eq!((answer.status(), answer.body.as_slice()), (status, body));
        assert_eq!(
            (bad.count(), fine.count()),
            (1, 0),
            "{status} is the caller's fault"
        );
    }
}

/// The last failure as both callers see it.
fn exhausted(fault: fn(&mut Exchange)) -> (crate::harness::Answer, crate::harness::Answer) {
    let bad = failing(usize::MAX, fault);
    let mut conf = chain(&[bad.address]);
    conf.providers +=
        &crate::harness::conf::provider("claude", "anthropic", bad.address, OPENAI_SECRET, QUICK);
    conf.models += "  - {name: c, provider: claude, price: free}\n";
    conf.keys = conf
        .keys
        .replace("{name: p0}", "{name: p0}, {name: claude}");
    let node = Node::start(&conf);
    let openai = node.post(CHAT, &chat("m"));
    let body =
        json!({"model": "c", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    let anthropic =
        node.ask(&Ask::post("/v1/messages", &body).header("anthropic-version", "2023-06-01"));
    let records = node.records_exactly(2);
    assert!(
        records
            .iter()
            .all(|r| r.cost_nano_usd == 0 && r.output == 0),
        "{records:?}"
    );
    (openai, anthropic)
}

#[test]
fn after_the_last_attempt_each_caller_gets_its_own_error() {
    for fault in [
        |e: &mut Exchange| e.fail(500, &[]),
        |e: &mut Exchange| e.fail(401, &[]),
    ] {
        let (openai, anthropic) = exhausted(fault);
        assert_eq!(
            (openai.status(), &openai.json()["error"]["type"]),
            (502, &json!("server_error"))
        );
        assert_eq!(
            (anthropic.status(), &anthropic.json()["error"]["type"]),
            (500, &json!("api_error"))
        );
        assert!(!openai.text().contains(OPENAI_SECRET));
    }
    let (openai, anthropic) = exhausted(|exchange| exchange.fail(429, &[("retry-after", "7")]));
    assert_eq!(
        (openai.status(), openai.header("retry-after")),
        (429, Some("7"))
    );
    assert_eq!(
        (anthropic.status(), anthropic.header("retry-after")),
        (429, Some("7"))
    );
    let (openai, anthropic) = exhausted(silent);
    assert_eq!((openai.status(), anthropic.status()), (504, 504));
    assert_eq!(anthropic.json()["error"]["type"], "timeout_error");
    let (openai, anthropic) = exhausted(Exchange::reset);
    assert_eq!((openai.status(), anthropic.status()), (502, 500));
}

#[test]
fn each_attempt_takes_the_next_key() {
    let upstream = Upstream::start(|exchange| match exchange.seen.header("authorization") {
        Some("Bearer good-upstream-key-0001") => exchange.json(200, &chat_completion("pong", 1, 1)),
        _ => exchange.fail(429, &[]),
    });
    let mut conf = chain(&[upstream.address]);
    conf.providers = conf.providers.replace(
        &format!("keys: [{{name: main, value: {OPENAI_SECRET}}}]"),
        "keys: [{name: spent, value: spent-upstream-key-0001, weight: 1000}, {name: good, value: good-upstream-key-0001}]",
    );
    let node = Node::start(&conf);
    for _ in 0..10 {
        assert_eq!(node.post(CHAT, &chat("m")).status(), 200);
    }
    assert!(
        node.records_exactly(10)
            .iter()
            .all(|record| record.credential.as_deref() == Some("good"))
    );
    assert!(upstream.count() > 10, "the heavy key was tried first");
}

#[test]
fn keys_are_drawn_by_weight_and_by_model() {
    let upstream = good();
    let mut conf = chain(&[upstream.address]);
    conf.providers = conf.providers.replace(
        &format!("keys: [{{name: main, value: {OPENAI_SECRET}}}]"),
        "keys: [{name: a, value: key-of-weight-three-1, weight: 3}, {name: b, value: key-of-weight-one-01}, \
         {name: c, value: key-of-another-model, weight: 900, models: [n]}]",
    );
    conf.models += "  - {name: n, provider: p0, price: free}\n";
    let node = Node::start(&conf);
    for _ in 0..200 {
        assert_eq!(node.post(CHAT, &chat("m")).status(), 200);
    }
    let heavy = upstream
        .seen()
        .iter()
        .filter(|seen| seen.header("authorization") == Some("Bearer key-of-weight-three-1"))
        .count();
    let other = upstream
        .seen()
        .iter()
        .filter(|seen| seen.header("authorization") == Some("Bearer key-of-another-model"))
        .count();
    assert!(
        (110..190).contains(&heavy),
        "{heavy} of 200 at weight 3 of 4"
    );
    assert_eq!(other, 0, "the key of another model is not used");
}

#[test]
fn a_stream_fails_over_before_its_first_byte_only() {
    let bad = failing(usize::MAX, |exchange| exchange.fail(500, &[]));
    let mock = Mock::start();
    let node = Node::start(&chain(&[bad.address, mock.address]));
    let mut body = chat("any");
    body["stream"] = json!(true);
    let answer = node.post(CHAT, &body);
    assert!(
        answer.complete && answer.text().trim_end().ends_with("data: [DONE]"),
        "{}",
        answer.text()
    );
    let broken = failing(usize::MAX, |exchange| {
        exchange.stream();
        exchange.event(&crate::harness::upstream::chat_chunk("visible"));
        exchange.reset();
    });
    let node = Node::start(&chain(&[broken.address, mock.address]));
    let answer = node.post(CHAT, &body);
    assert!(
        answer.text().contains("visible") && answer.text().contains("\"error\""),
        "{}",
        answer.text()
    );
    assert_eq!(
        (broken.count(), answer.text().contains("[DONE]")),
        (1, false),
        "no replay after visible output"
    );
}

#[test]
fn an_early_answer_of_a_lingering_provider_gets_through() {
    let upstream = Upstream::before_body(|exchange| {
        exchange.read_some(1000);
        exchange.fail(413, &[("connection", "close")]);
        exchange.left_within(Duration::from_secs(10));
    });
    let mut conf = chain(&[upstream.address]);
    conf.providers = conf
        .providers
        .replace("first_byte: 500ms", "first_byte: 30s");
    let node = Node::start(&conf);
    let padding = "p".repeat(20 * 1024 * 1024);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": padding}]});
    let start = Instant::now();
    for _ in 0..5 {
        let answer = node.post(CHAT, &body);
        assert_eq!(answer.status(), 413, "{}", answer.text());
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "it is read while the body is being sent"
    );
}

#[test]
fn the_pool_stays_healthy_after_retries() {
    let upstream = Upstream::start(|exchange| {
        if exchange.number % 2 == 0 {
            exchange.fail(503, &[]);
        } else {
            exchange.json(200, &chat_completion("pong", 1, 1));
        }
    });
    let node = Node::start(&chain(&[upstream.address]));
    let mut connection = Connection::open(node.data);
    for _ in 0..40 {
        assert_eq!(
            connection.exchange(&Ask::post(CHAT, &chat("m"))).status(),
            200
        );
    }
    let connections = upstream.connections();
    assert!(
        connections <= 8,
        "{connections} connections for 80 exchanges one after the other"
    );
}

#[test]
fn a_kept_connection_that_the_provider_closed_is_no_failure() {
    let upstream = Upstream::start(|exchange| {
        exchange.json(200, &chat_completion("pong", 1, 1));
        exchange.hang_up();
    });
    let node = Node::start(&chain(&[upstream.address]));
    for _ in 0..50 {
        let answer = node.post(CHAT, &chat("m"));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
}

#[test]
fn choices_of_another_dialect_are_skipped() {
    let mock = Mock::start();
    let mut conf = Conf::for_upstream(mock.address);
    conf.models += "  - {name: fast, choices: [anthropic/claude-haiku-4-5, openai/gpt-4o-mini]}\n  \
                    - {name: claude-only, choices: [anthropic/claude-haiku-4-5]}\n";
    let node = Node::start(&conf);
    let answer = node.post(CHAT, &chat("fast"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(
        node.records_exactly(1)[0].provider.as_deref(),
        Some("openai")
    );
    let answer = node.post(CHAT, &chat("claude-only"));
    assert_eq!(
        (answer.status(), &answer.json()["error"]["code"]),
        (400, &json!("unsupported_endpoint"))
    );
}

#[test]
fn private_addresses_are_refused_unless_the_provider_allows_them() {
    let upstream = good();
    let mut conf = chain(&[upstream.address]);
    conf.providers = conf
        .providers
        .replace("    allow_private_addresses: true\n", "");
    let mut refused = Node::launch(&conf);
    let status = refused
        .process
        .wait(Duration::from_secs(10))
        .expect("it ends");
    assert!(!status.success() && refused.process.log().contains("allow_private_addresses"));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_refused_credential_is_not_tried_again_but_the_next_one_is() {
    let refuse = |exchange: &mut Exchange| exchange.fail(401, &[]);
    let (bad, fine) = (failing(usize::MAX, refuse), good());
    let node = Node::start(&chain(&[bad.address, fine.address]));
    assert_eq!(node.post(CHAT, &chat("any")).status(), 200);
    assert_eq!((bad.count(), fine.count()), (1, 1));
}

#[test]
fn broken_answers_are_told_apart() {
    let cut = Upstream::start(|exchange| {
        exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"id\":");
        exchange.hang_up();
    });
    let node = Node::start(&chain(&[cut.address]));
    let mut connection = Connection::open(node.data);
    connection.ask(&Ask::post(CHAT, &chat("m")));
    let answer = connection.try_answer();
    let whole = answer
        .as_ref()
        .is_some_and(|a| a.complete && a.status() == 200);
    assert!(
        !whole,
        "half an answer is not passed off as a whole one: {answer:?}"
    );
    assert_eq!(node.records_exactly(1)[0].end_reason, "upstream_error");
    let garbage = Upstream::start(|exchange| {
        exchange.raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
        exchange.hang_up();
    });
    let node = Node::start(&chain(&[garbage.address]));
    assert_eq!(node.post(CHAT, &chat("m")).status(), 502);
}
