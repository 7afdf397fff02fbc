//! A client that leaves after every k-th frame leaves exactly one usage record,
//! never a zero once output was relayed, and nothing reserved.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::events::Events;
use crate::harness::node::number;
use crate::harness::upstream::{chat_chunk, chat_end};
use crate::harness::{Ask, Conf, Connection, Mock, Node, Upstream};

/// Tokens the mock would send, one frame each, slowly enough to leave between them.
const TOKENS: usize = 8;
const DIRECTIVES: &str = "[[mock tokens=8 token_ms=40]]";

fn chat() -> Ask {
    let body = json!({"model": "gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": DIRECTIVES}]});
    Ask::post("/v1/chat/completions", &body)
}

fn completions() -> Ask {
    let body = json!({"model": "gpt-3.5-turbo-instruct", "stream": true, "prompt": DIRECTIVES});
    Ask::post("/v1/completions", &body)
}

fn responses() -> Ask {
    let body = json!({"model": "gpt-4o-mini", "stream": true, "input": DIRECTIVES});
    Ask::post("/v1/responses", &body)
}

fn messages() -> Ask {
    let body = json!({"model": "claude-haiku-4-5", "max_tokens": 100, "stream": true,
        "messages": [{"role": "user", "content": DIRECTIVES}]});
    Ask::post("/v1/messages", &body)
}

/// True when the event shows a piece of the answer's text.
fn has_text(event: &Value) -> bool {
    let chat = event["choices"][0]["delta"]["content"]
        .as_str()
        .is_some_and(|text| !text.is_empty());
    let completion = event["choices"][0]["text"]
        .as_str()
        .is_some_and(|text| !text.is_empty());
    let kind = event["type"].as_str().unwrap_or_default();
    chat || completion || kind == "response.output_text.delta" || kind == "content_block_delta"
}

/// Reads `frames` frames, leaves, and tells how many of them showed text.
fn leave_after(node: &Node, ask: &Ask, frames: usize) -> usize {
    let mut connection = Connection::open(node.data);
    connection.ask(ask);
    assert_eq!(connection.head().expect("a head").status, 200);
    let mut events = Events::of(&mut connection);
    let mut shown = 0;
    for _ in 0..frames {
        let event = events.data().expect("the stream is longer");
        shown += usize::from(event.data != "[DONE]" && has_text(&event.json()));
    }
    connection.leave();
    shown
}

fn every_frame(ask: &Ask, frames: usize) {
    let mock = Mock::start();
    let conf = Conf::for_upstream(mock.address)
        .limited("rate_limits: [{tokens: 100000000, every: 1h}, {concurrent: 100}]\nbudgets: [{limit_usd: 100, every: 1d}]");
    let node = Node::start(&conf);
    let mut charged = 0;
    for frame in 0..frames {
        let shown = leave_after(&node, ask, frame);
        let records = node.records_exactly(frame + 1);
        let record = &records[frame];
        assert_eq!(
            record.end_reason, "client_gone",
            "after {frame} frames: {record:?}"
        );
        assert_eq!(
            record.basis,
            if record.output + record.input > 0 {
                "partial_estimate"
            } else {
                "none"
            }
        );
        if shown > 0 {
            assert!(
                record.output > 0,
                "{shown} frames with text were relayed: {record:?}"
            );
            assert!(record.input > 0 && record.cost_nano_usd > 0, "{record:?}");
        }
        assert!(
            record.output <= 2 * TOKENS as u64 + 8,
            "no more than was written: {record:?}"
        );
        charged += record.input + record.output;
    }
    for unit in ["tokens", "concurrent", "usd"] {
        assert_eq!(
            number(&node.settled("demo", unit)["reserved"]),
            0.0,
            "{unit}"
        );
    }
    let used = number(&node.settled("demo", "tokens")["used"]);
    assert_eq!(
        used, charged as f64,
        "the limit was charged what the records say"
    );
    let cancelled = mock.stats()["cancelled"].as_u64().unwrap_or_default();
    assert!(
        cancelled >= frames as u64 - 1,
        "the provider was cancelled {cancelled} times of {frames}"
    );
}

#[test]
fn chat_streams_leave_one_record_each() {
    every_frame(&chat(), TOKENS);
}

#[test]
fn completion_streams_leave_one_record_each() {
    every_frame(&completions(), TOKENS - 1);
}

#[test]
fn responses_streams_leave_one_record_each() {
    every_frame(&responses(), TOKENS + 3);
}

#[test]
fn messages_streams_leave_one_record_each() {
    every_frame(&messages(), TOKENS + 1);
}

#[test]
fn a_client_that_leaves_after_the_last_event_is_a_success() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    for ask in [chat(), messages(), responses()] {
        let before = node.records().len();
        let mut connection = Connection::open(node.data);
        connection.ask(&ask);
        connection.head().expect("a head");
        let mut events = Events::of(&mut connection);
        loop {
            let event = events.data().expect("a last event");
            let last = ["[DONE]", "\"message_stop\"", "\"response.completed\""];
            if last.iter().any(|mark| event.data.contains(mark)) {
                break;
            }
        }
        connection.leave();
        let record = node.records_exactly(before + 1).remove(before);
        assert_eq!(
            (record.end_reason.as_str(), record.basis.as_str()),
            ("success", "reported"),
            "{record:?}"
        );
    }
}

#[test]
fn a_client_that_leaves_between_the_last_event_and_the_end_is_a_success() {
    let upstream = Upstream::start(|exchange| {
        exchange.stream();
        exchange.event(&chat_chunk("pong"));
        for data in chat_end(9, 4) {
            exchange.event(&data);
        }
        exchange.event("[DONE]");
        exchange.left_within(Duration::from_secs(10));
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut connection = Connection::open(node.data);
    connection.ask(&chat());
    connection.head().expect("a head");
    let mut events = Events::of(&mut connection);
    while events.data().expect("the stream goes on").data != "[DONE]" {}
    connection.leave();
    let record = node.records_exactly(1).remove(0);
    let found = (
        record.end_reason.as_str(),
        record.basis.as_str(),
        record.output,
    );
    assert_eq!(found, ("success", "reported", 4), "{record:?}");
}

#[test]
fn a_client_that_leaves_a_unary_call_leaves_one_record() {
    let mock = Mock::start();
    let node = Node::start(
        &Conf::for_upstream(mock.address).limited("rate_limits: [{tokens: 100000, every: 1h}]"),
    );
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "[[mock ttft=20000]]"}]});
    let mut connection = Connection::open(node.data);
    connection.ask(&Ask::post("/v1/chat/completions", &body));
    crate::harness::eventually("the provider is asked", || {
        (mock.requests() == 1).then_some(())
    });
    connection.leave();
    let record = node.records_exactly(1).remove(0);
    assert_eq!(
        (record.end_reason.as_str(), record.output),
        ("client_gone", 0),
        "{record:?}"
    );
    assert_eq!(number(&node.settled("demo", "tokens")["reserved"]), 0.0);
}
