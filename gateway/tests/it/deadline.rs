//! The time for a whole request: it ends what is under way, and nothing else
//! is begun after it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::conf::{KEY, OPENAI_SECRET, provider};
use crate::harness::upstream::chat_chunk;
use crate::harness::wait::within;
use crate::harness::{Ask, Conf, Connection, Exchange, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";

/// Writes events without a pause for as long as they are taken.
fn flood(exchange: &mut Exchange) {
    exchange.stream();
    let event = format!("data: {}\n\n", chat_chunk(&"z".repeat(4000)));
    exchange.flood(&event, Duration::from_secs(20), 4 << 30);
}

fn node_with_total(upstream: &Upstream, total: &str) -> Node {
    let mut conf = Conf::for_upstream(upstream.address);
    conf.providers = conf.providers.replace(
        "    allow_private_addresses: true\n",
        &format!("    allow_private_addresses: true\n    timeouts: {{total: {total}}}\n"),
    );
    Node::start(&conf)
}

fn open(node: &Node) -> Connection {
    let mut connection = Connection::open(node.data);
    connection.ask(&Ask::post(
        CHAT,
        &json!({"model": "gpt-4o-mini", "stream": true, "messages": []}),
    ));
    assert_eq!(connection.head().expect("a head").status, 200);
    connection
}

/// The one record tells of a timeout soon after the two seconds.
#[track_caller]
fn timed_out(node: &Node) {
    let record = node.records_exactly(1).remove(0);
    assert_eq!(record.end_reason, "timeout", "{record:?}");
    assert!(
        (1_900..6_000).contains(&record.duration_ms),
        "{} ms of 2 s",
        record.duration_ms
    );
}

#[test]
fn it_ends_a_stream_of_a_provider_that_always_has_more() {
    let upstream = Upstream::start(flood);
    let node = node_with_total(&upstream, "2s");
    let mut connection = open(&node);
    // A reader that is slower than the provider writes, but never stops.
    let start = Instant::now();
    let recorded = || (!node.records().is_empty()).then_some(());
    while within(Duration::from_millis(20), recorded).is_none() {
        connection.piece().ok();
        let elapsed = start.elapsed();
        assert!(elapsed < Duration::from_secs(7), "the stream goes on");
    }
    timed_out(&node);
}

#[test]
fn it_ends_a_stream_that_nobody_reads() {
    let upstream = Upstream::start(flood);
    let node = node_with_total(&upstream, "2s");
    let connection = open(&node);
    timed_out(&node);
    drop(connection);
}

/// Two providers for the alias `any`; only the times of the second differ.
fn pair(slow: SocketAddr, next: SocketAddr, next_total: &str) -> Conf {
    let mut conf = Conf::empty();
    let times = |total: &str| format!("timeouts: {{first_byte: 50s, total: {total}}}");
    conf.providers = provider("slow", "openai", slow, OPENAI_SECRET, &times("700ms"))
        + &provider("next", "openai", next, OPENAI_SECRET, &times(next_total));
    for name in ["slow", "next"] {
        conf.models +=
            &format!("  - {{name: m, provider: {name}, price: {{input: 1, output: 1}}}}\n");
    }
    conf.models += "  - {name: any, choices: [slow/m, next/m]}\n";
    conf.keys = format!(
        "  - name: demo\n    value: {KEY}\n    providers: [{{name: slow}}, {{name: next}}]\n"
    );
    conf
}

#[test]
fn after_it_no_other_choice_is_tried_and_the_slow_one_is_named() {
    for next_total in ["700ms", "60s"] {
        let slow = Upstream::start(|exchange| {
            exchange.left_within(Duration::from_secs(20));
        });
        let next = Upstream::chat();
        let node = Node::start(&pair(slow.address, next.address, next_total));
        let answer = node.post(CHAT, &json!({"model": "any", "messages": []}));
        assert_eq!(answer.status(), 504, "{next_total}: {}", answer.text());
        let text = answer.json()["error"]["message"].to_string();
        assert!(
            text.contains("'slow'") && !text.contains("'next'"),
            "{next_total}: {text}"
        );
        assert_eq!((slow.count(), next.count()), (1, 0), "{next_total}");
        let record = node.records_exactly(1).remove(0);
        let found = (
            record.end_reason.as_str(),
            record.provider.as_deref(),
            record.attempts,
        );
        assert_eq!(found, ("timeout", Some("slow"), 1), "{next_total}");
    }
}
