//! Where bodies end, on both sides: bytes after a request's body, bodies that
//! nobody reads, answers cut short, and answers that have none.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::conf::KEY;
use crate::harness::upstream::{chat_chunk, chat_completion, chat_end};
use crate::harness::{Ask, Conf, Connection, Exchange, Node, Upstream, eventually, h2c};

const CHAT: &str = "/v1/chat/completions";
const MIB: usize = 1024 * 1024;

fn chat(stream: bool) -> Ask {
    let body = json!({"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
    Ask::post(CHAT, &body)
}

/// A provider whose answers wait for the test.
fn held(answer: fn(&mut Exchange)) -> (Upstream, SyncSender<()>) {
    let (release, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |exchange| {
        let wait = wait.lock().expect("one at a time");
        wait.recv_timeout(Duration::from_secs(20)).ok();
        drop(wait);
        answer(exchange);
    });
    (upstream, release)
}

/// Nothing comes for a while, in which the other side has time to act.
#[track_caller]
fn quiet(connection: &mut Connection) {
    connection.patience(Duration::from_millis(150));
    assert!(connection.head().is_none(), "no answer yet");
    connection.patience(Duration::from_secs(20));
}

/// Sends `stray` while the provider works; the answer must come whole all the same.
fn bytes_after_the_body(what: &str, stray: &[u8], stream: bool) {
    let (upstream, release) = held(|exchange| {
        if exchange.seen.json()["stream"] != true {
            return exchange.json(200, &chat_completion("pong", 10, 5));
        }
        exchange.stream();
        exchange.event(&chat_chunk("pong"));
        for data in chat_end(10, 5) {
            exchange.event(&data);
        }
        exchange.event("[DONE]");
        exchange.end();
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut connection = Connection::open(node.data);
    connection.ask(&chat(stream));
    eventually("the provider is at work", || {
        (upstream.seen().len() == 1).then_some(())
    });
    quiet(&mut connection);
    connection.send(stray).expect("the connection is open");
    quiet(&mut connection);
    release.send(()).expect("the provider waits");
    let answer = connection.answer();
    assert_eq!((answer.status(), answer.complete), (200, true), "{what}");
    assert!(answer.text().contains("pong"), "{what}: {}", answer.text());
    assert!(
        connection.closed_within(Duration::from_secs(5)),
        "{what}: what followed cannot be served"
    );
    let record = node.records_exactly(1).remove(0);
    let found = (
        record.end_reason.as_str(),
        record.basis.as_str(),
        record.output,
    );
    assert_eq!(found, ("success", "reported", 5), "{what}: {record:?}");
    assert_eq!(upstream.count(), 1, "{what}");
}

#[test]
fn a_line_end_after_the_body_does_no_harm() {
    bytes_after_the_body("a line end", b"\r\n", false);
    bytes_after_the_body("a line end and a stream", b"\r\n", true);
}

#[test]
fn a_pipelined_request_does_not_disturb_the_one_before() {
    let next = chat(false).wire();
    bytes_after_the_body("a request", &next, false);
    bytes_after_the_body("a request and a stream", &next, true);
}

/// Asks once and tells whether the answer came whole, and how it was recorded.
fn outcome(
    stream: bool,
    provider: impl Fn(&mut Exchange) + Send + Sync + 'static,
) -> (bool, String) {
    let upstream = Upstream::start(provider);
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let answer = node.ask(&chat(stream));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    (
        answer.complete,
        node.records_exactly(1).remove(0).end_reason,
    )
}

#[test]
fn an_answer_without_a_length_that_is_cut_short_stays_cut() {
    let whole = chat_completion("pong", 10, 5).to_string();
    for (part, expected) in [
        (whole.len(), (true, "success")),
        (whole.len() - 1, (false, "upstream_error")),
        (whole.len() / 2, (false, "upstream_error")),
        (1, (false, "upstream_error")),
        (0, (false, "upstream_error")),
    ] {
        let body = whole.clone();
        let found = outcome(false, move |exchange| {
            exchange.raw(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
            );
            exchange.raw(&body.as_bytes()[..part]);
            exchange.hang_up();
        });
        let found = (found.0, found.1.as_str());
        assert_eq!(found, expected, "{part} of {} bytes", whole.len());
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(text.as_bytes()).expect("gzip");
    writer.finish().expect("gzip")
}

#[test]
fn a_compressed_stream_without_its_last_event_is_cut() {
    let [finish, usage] = chat_end(10, 5);
    let events = |data: &[&str]| {
        let lines = data.iter().map(|data| format!("data: {data}\n\n"));
        gzip(&lines.collect::<String>())
    };
    let first = chat_chunk("pong");
    let cases = [
        (
            "whole",
            events(&[&first, &finish, &usage, "[DONE]"]),
            (true, "success"),
        ),
        ("cut", events(&[&first, &first]), (false, "upstream_error")),
    ];
    for (what, body, expected) in cases {
        let found = outcome(true, move |exchange| {
            exchange.raw(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\
                  transfer-encoding: chunked\r\n\r\n",
            );
            exchange.chunk(&body);
            exchange.end();
        });
        let found = (found.0, found.1.as_str());
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn an_answer_without_a_body_has_no_framing_of_one() {
    let upstream = Upstream::start(|exchange| match exchange.number {
        0 => drop(exchange.raw(b"HTTP/1.1 204 No Content\r\n\r\n")),
        _ => exchange.json(200, &chat_completion("pong", 10, 5)),
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut connection = Connection::open(node.data);
    connection.ask(&chat(false));
    let head = connection.head().expect("a head");
    assert_eq!(head.status, 204);
    for name in ["transfer-encoding", "content-length"] {
        assert_eq!(head.header(name), None, "RFC 9110, section 8.6: {head:?}");
    }
    // A body would be taken for the beginning of this answer.
    assert_eq!(connection.exchange(&chat(false)).status(), 200);
}

#[test]
fn a_provider_cannot_switch_protocols() {
    let upstream = Upstream::start(|exchange| {
        exchange.raw(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        );
        exchange.left_within(Duration::from_secs(10));
    });
    let mut conf = Conf::for_upstream(upstream.address);
    conf.providers = conf.providers.replace(
        "    allow_private_addresses: true\n",
        "    allow_private_addresses: true\n    retries: {max: 0}\n",
    );
    let node = Node::start(&conf);
    let answer = node.ask(&chat(false));
    assert_eq!(answer.status(), 502, "{}", answer.text());
    assert_eq!(node.records_exactly(1)[0].end_reason, "upstream_error");
}

#[test]
fn an_error_in_the_form_of_a_stream_passes_and_is_an_error() {
    let body: &[u8] = b"data: {\"error\":{\"message\":\"too long\"}}\n\n";
    let upstream = Upstream::start(move |exchange| {
        exchange.reply(400, &[("content-type", "text/event-stream")], body);
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let answer = node.ask(&chat(true));
    assert_eq!((answer.status(), answer.body.as_slice()), (400, body));
    let record = node.records_exactly(1).remove(0);
    let found = (
        record.end_reason.as_str(),
        record.status,
        record.cost_nano_usd,
    );
    assert_eq!(found, ("upstream_error", 400, 0), "{record:?}");
}

/// A well-formed call of about so many bytes.
fn padded(path: &str, model: &str, size: usize) -> Ask {
    let body = json!({"model": model, "max_tokens": 5,
        "messages": [{"role": "user", "content": "w".repeat(size)}]});
    Ask::post(path, &body).header("anthropic-version", "2023-06-01")
}

#[test]
fn a_client_that_reads_only_after_writing_gets_its_refusal() {
    let upstream = Upstream::chat();
    let conf = Conf::for_upstream(upstream.address).server("max_body: 1MiB");
    let node = Node::start(&conf);
    let large = padded(CHAT, "gpt-4o-mini", 5 * MIB);
    let stranger = large.clone().bearer("sk-tyr-test-unknown-0000000001");
    for (ask, status) in [
        (large.clone(), 413),
        (large.chunked(64 * 1024), 413),
        (stranger.clone(), 401),
        (stranger.chunked(64 * 1024), 401),
    ] {
        let mut connection = Connection::open(node.data);
        connection.send(&ask.wire()).expect("all of it is taken");
        let answer = connection.answer();
        assert_eq!((answer.status(), answer.complete), (status, true));
        assert!(answer.json()["error"]["message"].is_string());
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn unfinished_uploads_beyond_the_bound_are_shed() {
    let upstream = Upstream::start(|exchange| {
        if exchange.seen.path.starts_with("/v1/messages") {
            let usage = json!({"input_tokens": 10, "output_tokens": 5});
            return exchange.json(200, &json!({"id": "msg_1", "type": "message", "role": "assistant",
                "model": "claude-haiku-4-5", "content": [], "stop_reason": "end_turn", "usage": usage}));
        }
        exchange.json(200, &chat_completion("pong", 10, 5));
    });
    let conf = Conf::for_upstream(upstream.address)
        .server("max_body: 1MiB")
        .server("max_held_bodies: 1MiB");
    let node = Node::start(&conf);
    let openai = padded(CHAT, "gpt-4o-mini", MIB / 2);
    let anthropic = padded("/v1/messages", "claude-haiku-4-5", MIB / 2);
    assert_eq!(node.ask(&openai).status(), 200, "it fits alone");
    let unfinished = padded(CHAT, "gpt-4o-mini", MIB - 1024);
    let wire = unfinished.wire();
    let mut held = Connection::open(node.data);
    held.send(&wire[..MIB * 3 / 4]).expect("sent");
    let shed = eventually("uploads are shed", || {
        let answer = node.ask(&openai);
        (answer.status() != 200).then_some(answer)
    });
    assert_eq!(shed.status(), 503, "{}", shed.text());
    assert!(shed.header("retry-after").is_some(), "{:?}", shed.head);
    let message = &shed.json()["error"]["message"];
    assert!(message.is_string(), "{}", shed.text());
    let shed = node.ask(&anthropic);
    assert_eq!(shed.status(), 529, "{}", shed.text());
    assert!(shed.header("retry-after").is_some(), "{:?}", shed.head);
    assert_eq!(
        shed.json()["error"]["type"],
        Value::from("overloaded_error")
    );
    held.leave();
    for ask in [openai, anthropic] {
        eventually("there is room again", || {
            (node.ask(&ask).status() == 200).then_some(())
        });
    }
}

#[test]
fn heads_of_http_2_have_the_same_bounds() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let many = (0..110).fold(chat(false), |ask, number| {
        ask.header(&format!("x-{number}"), "1")
    });
    let mut long = chat(false);
    long.path = format!("{CHAT}?{}", "q".repeat(9 * 1024));
    let cases = [
        ("an underscore", chat(false).header("x_a", "1"), 400),
        ("a long path", long, 414),
        (
            "another long path",
            Ask::get(&format!("/v1/{}", "x".repeat(9 * 1024))).bearer(KEY),
            414,
        ),
        ("many headers", many, 431),
    ];
    for (what, ask, status) in cases {
        let answer = h2c::ask(node.data, ask);
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
        assert!(answer.json()["error"]["message"].is_string(), "{what}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(h2c::ask(node.data, chat(false)).status(), 200);
}
