//! Who pays when something is left half done: clients that leave, attempts
//! that fail, budgets that must hold for the dearest outcome, and the record
//! that tells of it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::conf::{ANTHROPIC_SECRET, OPENAI_SECRET, provider};
use crate::harness::events::Events;
use crate::harness::node::number;
use crate::harness::records::Record;
use crate::harness::upstream::{chat_chunk, chat_completion, chat_end};
use crate::harness::{Ask, Conf, Connection, Exchange, Node, Upstream, eventually, ports};

const CHAT: &str = "/v1/chat/completions";
const LONG: Duration = Duration::from_secs(20);
/// The second attempt is further away than any of these tests lasts.
const SLOW_RETRY: &str = "retries: {max: 2, backoff_min: 60s, backoff_max: 60s}";

fn user() -> Value {
    json!([{"role": "user", "content": "how many roads must a man walk down"}])
}

fn chat(stream: bool) -> Ask {
    Ask::post(
        CHAT,
        &json!({"model": "gpt-4o-mini", "stream": stream, "max_tokens": 5, "messages": user()}),
    )
}

fn message(path: &str, stream: bool) -> Ask {
    let body =
        json!({"model": "claude-haiku-4-5", "stream": stream, "max_tokens": 5, "messages": user()});
    Ask::post(path, &body).header("anthropic-version", "2023-06-01")
}

fn limited(upstream: SocketAddr) -> Conf {
    Conf::for_upstream(upstream).limited(
        "rate_limits: [{tokens: 1000000, every: 1h}]\nbudgets: [{limit_usd: 100, every: 1d}]",
    )
}

/// Waits until the provider has been sent `count` requests whole.
fn asked(upstream: &Upstream, count: usize) {
    eventually("the provider is asked", || {
        (upstream.seen().len() == count).then_some(())
    });
}

/// The prompt was paid for, its answer was not, and the limits say the same.
#[track_caller]
fn prompt_is_charged(node: &Node, what: &str) {
    let record = node.records_exactly(1).remove(0);
    let found = (record.end_reason.as_str(), record.basis.as_str());
    assert_eq!(
        found,
        ("client_gone", "partial_estimate"),
        "{what}: {record:?}"
    );
    assert!(
        record.input > 0 && record.cost_nano_usd > 0,
        "{what}: {record:?}"
    );
    assert_eq!(record.output, 0, "{what}: {record:?}");
    let used = number(&node.settled("demo", "tokens")["used"]);
    assert_eq!(used, record.input as f64, "{what}");
    let spent = number(&node.settled("demo", "usd")["used"]);
    assert!(
        (spent * 1e9 - record.cost_nano_usd as f64).abs() < 1.0,
        "{what}: {spent}"
    );
}

#[track_caller]
fn nothing_is_charged(node: &Node, what: &str) -> Record {
    let record = node.records_exactly(1).remove(0);
    let found = (
        record.basis.as_str(),
        record.cost_nano_usd,
        record.input,
        record.output,
    );
    assert_eq!(found, ("none", 0, 0, 0), "{what}: {record:?}");
    for unit in ["tokens", "usd"] {
        assert_eq!(
            number(&node.settled("demo", unit)["used"]),
            0.0,
            "{what}: {unit}"
        );
    }
    record
}

#[test]
fn leaving_during_the_providers_work_costs_the_prompt() {
    let asks = [
        ("a stream", chat(true)),
        ("a whole answer", chat(false)),
        ("messages", message("/v1/messages", true)),
    ];
    for (what, ask) in asks {
        let upstream = Upstream::start(|exchange| {
            exchange.left_within(LONG);
        });
        let node = Node::start(&limited(upstream.address));
        let mut connection = Connection::open(node.data);
        connection.ask(&ask);
        asked(&upstream, 1);
        connection.leave();
        prompt_is_charged(&node, what);
    }
}

#[test]
fn leaving_after_the_head_and_before_any_output_costs_the_prompt() {
    let unary = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    let asks = [
        ("a stream", chat(true)),
        ("messages", message("/v1/messages", true)),
        ("a whole answer", chat(false)),
    ];
    for (what, ask) in asks {
        let upstream = Upstream::start(move |exchange| {
            match exchange.seen.json()["stream"] == true {
                true => exchange.stream(),
                false => drop(exchange.raw(unary)),
            }
            exchange.left_within(LONG);
        });
        let node = Node::start(&limited(upstream.address));
        let mut connection = Connection::open(node.data);
        connection.ask(&ask);
        assert_eq!(connection.head().expect("a head").status, 200, "{what}");
        connection.leave();
        prompt_is_charged(&node, what);
    }
}

#[test]
fn leaving_after_a_failed_attempt_costs_nothing() {
    let failing = Upstream::start(|exchange| exchange.fail(500, &[]));
    let lost = Upstream::start(Exchange::reset);
    let addresses = [
        ("500", failing.address),
        ("a reset", lost.address),
        ("a refused connect", ports::free()),
    ];
    for (what, address) in addresses {
        let mut conf = limited(address);
        conf.providers = provider("openai", "openai", address, OPENAI_SECRET, SLOW_RETRY)
            + &provider("anthropic", "anthropic", address, ANTHROPIC_SECRET, "");
        let node = Node::start(&conf);
        let mut connection = Connection::open(node.data);
        connection.ask(&chat(false));
        node.await_log(&["an upstream attempt failed"]);
        connection.leave();
        let record = nothing_is_charged(&node, what);
        assert_eq!(record.end_reason, "client_gone", "{what}: {record:?}");
    }
}

#[test]
fn failed_attempts_that_are_told_cost_nothing() {
    let quick = "retries: {max: 1, backoff_min: 1ms, backoff_max: 1ms}";
    let failing = Upstream::start(|exchange| exchange.fail(500, &[]));
    for (what, address) in [
        ("500", failing.address),
        ("a refused connect", ports::free()),
    ] {
        let mut conf = limited(address);
        conf.providers = provider("openai", "openai", address, OPENAI_SECRET, quick)
            + &provider("anthropic", "anthropic", address, ANTHROPIC_SECRET, "");
        let node = Node::start(&conf);
        assert_eq!(node.ask(&chat(false)).status(), 502, "{what}");
        nothing_is_charged(&node, what);
    }
}

#[test]
fn counting_tokens_stays_free_when_the_client_leaves() {
    let upstream = Upstream::start(|exchange| {
        exchange.left_within(LONG);
    });
    let node = Node::start(&limited(upstream.address));
    let mut connection = Connection::open(node.data);
    connection.ask(&message("/v1/messages/count_tokens", false));
    asked(&upstream, 1);
    connection.leave();
    let record = nothing_is_charged(&node, "count_tokens");
    assert_eq!(record.end_reason, "client_gone", "{record:?}");
}

#[test]
fn usage_that_comes_after_the_client_has_left_is_recorded() {
    let upstream = Upstream::start(|exchange| {
        exchange.stream();
        exchange.event(&chat_chunk("pong"));
        let [finish, usage] = chat_end(41, 7);
        exchange.event(&finish);
        // The client leaves now; a bill takes a moment to be written.
        exchange.left_within(Duration::from_millis(300));
        exchange.event(&usage);
        exchange.event("[DONE]");
        exchange.end();
    });
    let node = Node::start(&limited(upstream.address));
    let mut connection = Connection::open(node.data);
    connection.ask(&chat(true));
    connection.head().expect("a head");
    let mut events = Events::of(&mut connection);
    while events.data().expect("the stream goes on").json()["choices"][0]["finish_reason"] != "stop"
    {
    }
    connection.leave();
    let record = node.records_exactly(1).remove(0);
    let found = (record.basis.as_str(), record.input, record.output);
    assert_eq!(found, ("reported", 41, 7), "{record:?}");
    assert_eq!(record.cost_nano_usd, 41 * 150 + 7 * 600, "{record:?}");
    assert_eq!(number(&node.settled("demo", "tokens")["used"]), 48.0);
}

/// One model with these prices and a strict budget of so many dollars.
fn budget(upstream: SocketAddr, price: &str, dollars: &str) -> Conf {
    let lines = format!("budgets: [{{limit_usd: {dollars}, every: 1d, enforcement: strict}}]");
    let mut conf = Conf::for_upstream(upstream).limited(&lines);
    conf.models = crate::harness::conf::model("gpt-4o-mini", "openai", price, 16384);
    conf
}

#[test]
fn a_strict_budget_holds_the_dearest_price_of_prompt_and_answer() {
    // About 1,000 tokens of prompt and 1,000 of answer, at most $0.004 at the
    // plain prices and more than $0.09 at the dearest.
    let prices = [
        "{input: 1, cache_write_1h: 100, output: 1}",
        "{input: 1, cache_write: 100, output: 1}",
        "{input: 1, output: 1, reasoning: 100}",
    ];
    let body = json!({"model": "gpt-4o-mini", "max_tokens": 1000,
        "messages": [{"role": "user", "content": "word ".repeat(800)}]});
    for price in prices {
        let upstream = Upstream::start(|exchange| {
            exchange.json(200, &chat_completion("pong", 1000, 1000));
        });
        let node = Node::start(&budget(upstream.address, price, "0.05"));
        let refused = node.post(CHAT, &body);
        assert_eq!(refused.status(), 429, "{price}: {}", refused.text());
        assert_eq!(
            refused.header("x-tyr-limit"),
            Some("virtual_key/demo/usd/1d"),
            "{price}"
        );
        assert_eq!(upstream.count(), 0, "{price}: nothing was sent");
        let node = Node::start(&budget(upstream.address, price, "0.5"));
        assert_eq!(
            node.post(CHAT, &body).status(),
            200,
            "{price}: it fits into more"
        );
    }
}

#[test]
fn the_same_request_id_twice_leaves_two_records() {
    let upstream = Upstream::chat();
    let node = Node::start(&limited(upstream.address));
    let ask = chat(false).header("x-request-id", "of-the-client-1");
    let mut told = Vec::new();
    for _ in 0..2 {
        let answer = node.ask(&ask);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.header("x-request-id"), Some("of-the-client-1"));
        let id = answer.header("x-tyr-record-id").expect("the record's id");
        told.push(id.to_string());
    }
    let mut stored: Vec<String> = node
        .records_exactly(2)
        .into_iter()
        .map(|record| record.request_id)
        .collect();
    stored.sort();
    told.sort();
    assert_eq!(stored, told);
    assert_ne!(told[0], told[1]);
    for id in &told {
        let found = node.admin("GET", &format!("/api/usage/{id}"));
        assert_eq!(found.status(), 200, "{}", found.text());
        assert_eq!(found.json()["request_id"], json!(id));
    }
    let (mut paged, mut after) = (Vec::new(), String::new());
    for _ in 0..2 {
        let page = node.admin("GET", &format!("/api/usage?limit=1&key=demo{after}"));
        paged.push(page.json()["data"][0]["request_id"].clone());
        after = format!("&after={}", page.json()["next"].as_str().unwrap_or("-"));
    }
    assert_eq!(paged, [json!(told[1]), json!(told[0])]);
    assert_eq!(after, "&after=-");
    let others = node.admin("GET", "/api/usage?key=other").json();
    assert_eq!(others, json!({"data": [], "next": null}));
    assert_eq!(number(&node.settled("demo", "tokens")["used"]), 30.0);
}
