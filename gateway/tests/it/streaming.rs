//! Streams: when each event leaves, what stands between events, who waits for
//! whom, and how a stream ends.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::events::{End, Event, Events};
use crate::harness::upstream::{chat_chunk, chat_end};
use crate::harness::{Ask, Conf, Connection, Exchange, Mock, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";

fn chat() -> Ask {
    let body = json!({"model": "gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    Ask::post(CHAT, &body)
}

fn messages() -> Ask {
    let body = json!({"model": "claude-haiku-4-5", "max_tokens": 100, "stream": true,
        "messages": [{"role": "user", "content": "hi"}]});
    Ask::post("/v1/messages", &body)
}

fn responses() -> Ask {
    Ask::post(
        "/v1/responses",
        &json!({"model": "gpt-4o-mini", "stream": true, "input": "hi"}),
    )
}

/// Opens a stream and reads its head.
#[track_caller]
fn open(node: &Node, ask: &Ask) -> Connection {
    let mut connection = Connection::open(node.data);
    connection.ask(ask);
    let head = connection.head().expect("a head");
    assert_eq!(head.status, 200);
    assert!(
        head.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/event-stream"))
    );
    connection
}

#[test]
fn each_event_leaves_while_the_next_is_not_there_yet() {
    let (next, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |exchange| {
        exchange.stream();
        for number in 0..20 {
            exchange.event(&chat_chunk(&format!("word {number}")));
            wait.lock()
                .expect("one at a time")
                .recv()
                .expect("the client has read it");
        }
        chat_end(3, 20).iter().for_each(|data| {
            exchange.event(data);
        });
        exchange.event("[DONE]");
        exchange.end();
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut connection = open(&node, &chat());
    let mut events = Events::of(&mut connection);
    for number in 0..20 {
        let event = events
            .data()
            .expect("the event arrives before the provider goes on");
        assert_eq!(
            event.data,
            chat_chunk(&format!("word {number}")),
            "byte for byte"
        );
        next.send(()).expect("the provider waits");
    }
    assert_eq!(
        events
            .rest()
            .last()
            .map(|event| event.data.clone())
            .as_deref(),
        Some("[DONE]")
    );
    assert_eq!((events.end, events.split), (Some(End::Clean), false));
}

#[test]
fn half_an_event_never_leaves() {
    let (next, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |exchange| {
        let event = format!("data: {}\n\n", chat_chunk("whole"));
        exchange.stream();
        exchange.event(&chat_chunk("first"));
        let (head, tail) = event.split_at(event.len() / 2);
        exchange.chunk(head.as_bytes());
        wait.lock()
            .expect("one at a time")
            .recv()
            .expect("the client has waited");
        exchange.chunk(tail.as_bytes());
        exchange.event("[DONE]");
        exchange.end();
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut connection = open(&node, &chat());
    let mut events = Events::of(&mut connection);
    assert_eq!(events.data().expect("the first").data, chat_chunk("first"));
    drop(events);
    connection.patience(Duration::from_millis(300));
    assert!(connection.piece().is_err(), "half an event stays here");
    connection.patience(Duration::from_secs(10));
    next.send(()).expect("the provider waits");
    let mut events = Events::of(&mut connection);
    assert_eq!(events.data().expect("the second").data, chat_chunk("whole"));
}

#[test]
fn events_come_whole_from_any_split() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    for trickle in [1, 2, 3, 7, 64] {
        let body = json!({"model": "gpt-4o-mini", "stream": true,
            "messages": [{"role": "user", "content": format!("[[mock tokens=6 trickle={trickle}]]")}]});
        let mut connection = open(&node, &Ask::post(CHAT, &body));
        let mut events = Events::of(&mut connection);
        let all = events.rest();
        assert_eq!(all.last().map(|event| event.data.as_str()), Some("[DONE]"));
        assert_eq!(
            (events.end, events.split),
            (Some(End::Clean), false),
            "pieces of {trickle}"
        );
    }
}

#[test]
fn silence_is_filled_with_comments_between_events() {
    let (next, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |exchange| {
        exchange.stream();
        exchange.event(&chat_chunk("one"));
        wait.lock()
            .expect("one at a time")
            .recv()
            .expect("the client has seen comments");
        exchange.event("[DONE]");
        exchange.end();
    });
    let conf = Conf::for_upstream(upstream.address).server("keep_alive: 100ms");
    let node = Node::start(&conf);
    let mut connection = open(&node, &chat());
    let mut events = Events::of(&mut connection);
    events.data().expect("the first event");
    for _ in 0..3 {
        let comment = events.next().expect("a comment");
        assert_eq!(
            comment,
            Event {
                comment: Some("keep-alive".into()),
                ..Event::default()
            }
        );
    }
    next.send(()).expect("the provider waits");
    assert_eq!(events.data().expect("the end").data, "[DONE]");
}

/// Sends chunks until the other side takes no more; tells how much it took.
fn flood(exchange: &mut Exchange) -> usize {
    exchange.stream();
    let event = format!("data: {}\n\n", chat_chunk(&"z".repeat(1000)));
    exchange.flood(&event, Duration::from_secs(2), 64 << 20)
}

#[test]
fn a_slow_reader_stops_our_reading() {
    let taken = Arc::new(Mutex::new(None));
    let told = Arc::clone(&taken);
    let upstream = Upstream::start(move |exchange| {
        let count = flood(exchange);
        *told.lock().expect("the count") = Some(count);
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let connection = open(&node, &chat());
    let count = eventually("the provider is stopped", || {
        *taken.lock().expect("the count")
    });
    // The kernel's socket buffers on both hops hold some MiB; ours hold little.
    assert!(
        count < 24 << 20,
        "{count} bytes were taken for a client that reads nothing"
    );
    drop(connection);
    let record = node.records_exactly(1).remove(0);
    assert_eq!(record.end_reason, "client_gone", "{record:?}");
}

/// Tells how long after `go` the provider saw the other side leave.
fn leaving(ask: &Ask, events_before: usize) {
    let (told, left) = sync_channel(1);
    let upstream = Upstream::start(move |exchange| {
        exchange.stream();
        for number in 0..events_before {
            exchange.event(&chat_chunk(&number.to_string()));
        }
        told.send(
            exchange
                .left_within(Duration::from_secs(20))
                .map(|_| Instant::now()),
        )
        .ok();
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut connection = open(&node, ask);
    let mut events = Events::of(&mut connection);
    for _ in 0..events_before {
        events.data().expect("an event");
    }
    let gone = Instant::now();
    connection.leave();
    let seen = left
        .recv_timeout(Duration::from_secs(25))
        .expect("the provider tells");
    let seen = seen.expect("the provider's connection is closed");
    assert!(
        seen.duration_since(gone) < Duration::from_secs(1),
        "{:?}",
        seen.duration_since(gone)
    );
    let record = node.records_exactly(1).remove(0);
    assert_eq!(record.end_reason, "client_gone", "{record:?}");
}

#[test]
fn a_client_that_leaves_cancels_the_provider_within_a_second() {
    leaving(&chat(), 3);
}

#[test]
fn a_client_that_leaves_before_any_event_cancels_too() {
    leaving(&chat(), 0);
    leaving(&messages(), 0);
}

#[test]
fn a_client_that_leaves_before_the_head_cancels_too() {
    let (told, left) = sync_channel(1);
    let upstream = Upstream::start(move |exchange| {
        told.send(
            exchange
                .left_within(Duration::from_secs(20))
                .map(|_| Instant::now()),
        )
        .ok();
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut connection = Connection::open(node.data);
    connection.ask(&chat());
    eventually("the provider is asked", || {
        (upstream.count() == 1).then_some(())
    });
    let gone = Instant::now();
    connection.leave();
    let seen = left
        .recv_timeout(Duration::from_secs(25))
        .expect("the provider tells");
    let seen = seen.expect("the provider's connection is closed");
    assert!(
        seen.duration_since(gone) < Duration::from_secs(1),
        "{:?}",
        seen.duration_since(gone)
    );
    let record = node.records_exactly(1).remove(0);
    assert_eq!(
        (record.end_reason.as_str(), record.output),
        ("client_gone", 0),
        "{record:?}"
    );
}

/// What a client sees when the provider is lost after some events.
fn lost(
    ask: &Ask,
    events: &'static [String],
    how: fn(&mut Exchange),
) -> (Vec<Event>, Option<End>, Node) {
    let upstream = Upstream::start(move |exchange| {
        exchange.stream();
        for event in events {
            exchange.chunk(event.as_bytes());
        }
        how(exchange);
    });
    let conf = Conf::for_upstream(upstream.address);
    let node = Node::start(&conf);
    let mut connection = open(&node, ask);
    let mut reader = Events::of(&mut connection);
    let all = reader.rest();
    let end = reader.end;
    (all, end, node)
}

fn leaked(events: Vec<String>) -> &'static [String] {
    Box::leak(events.into_boxed_slice())
}

fn chat_events() -> &'static [String] {
    leaked(vec![
        format!("data: {}\n\n", chat_chunk("one")),
        format!("data: {}\n\n", chat_chunk("two")),
    ])
}

/// How the provider is lost.
type Way = (&'static str, fn(&mut Exchange));

fn half_event(exchange: &mut Exchange) {
    exchange.chunk(b"data: {\"choices\":[{\"del");
    exchange.hang_up();
}

#[test]
fn a_lost_provider_ends_a_chat_stream_with_an_error_and_no_done() {
    let ways: [Way; 4] = [
        ("reset", Exchange::reset),
        ("closed", Exchange::hang_up),
        ("half an event", half_event),
        ("ended without [DONE]", Exchange::end),
    ];
    for (way, how) in ways {
        let (events, end, node) = lost(&chat(), chat_events(), how);
        assert!(
            events.iter().all(|event| event.data != "[DONE]"),
            "{way}: {events:?}"
        );
        let last = events.last().expect("an error event").json();
        assert!(
            last["error"]["message"].is_string() && last["error"]["type"].is_string(),
            "{way}: {last}"
        );
        assert_eq!(events.len(), 3, "{way}: both events came first");
        assert_eq!(end, Some(End::Clean), "{way}: the error is readable");
        let record = node.records_exactly(1).remove(0);
        assert_eq!(
            (record.end_reason.as_str(), record.basis.as_str()),
            ("upstream_error", "partial_estimate"),
            "{way}"
        );
        assert!(
            record.output > 0,
            "{way}: relayed output is counted: {record:?}"
        );
    }
}

#[test]
fn a_lost_provider_ends_a_messages_stream_with_an_error_event() {
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
        "model": "claude-haiku-4-5", "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}}});
    let events = leaked(vec![format!("event: message_start\ndata: {start}\n\n")]);
    let ways: [fn(&mut Exchange); 3] = [Exchange::reset, Exchange::hang_up, Exchange::end];
    for how in ways {
        let (events, end, node) = lost(&messages(), events, how);
        let last = events.last().expect("an error event");
        assert_eq!(
            (last.name.as_deref(), &last.json()["type"]),
            (Some("error"), &json!("error"))
        );
        assert!(last.json()["error"]["type"].is_string(), "{last:?}");
        assert_eq!(end, Some(End::Clean));
        let record = node.records_exactly(1).remove(0);
        assert_eq!(
            (record.end_reason.as_str(), record.input),
            ("upstream_error", 9),
            "{record:?}"
        );
    }
}

#[test]
fn a_lost_provider_ends_a_responses_stream_with_failure() {
    let created = json!({"type": "response.created", "sequence_number": 0,
        "response": {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}});
    let events = leaked(vec![format!(
        "event: response.created\ndata: {created}\n\n"
    )]);
    let (events, end, _node) = lost(&responses(), events, Exchange::reset);
    let last = events.last().expect("a last event");
    let kind = last.json()["type"].as_str().unwrap_or_default().to_string();
    assert!(
        ["error", "response.failed"].contains(&kind.as_str()),
        "{last:?}"
    );
    assert_eq!(
        (last.name.as_deref(), end),
        (Some(kind.as_str()), Some(End::Clean))
    );
}

#[test]
fn an_idle_provider_is_given_up_with_an_error() {
    let upstream = Upstream::start(|exchange| {
        exchange.stream();
        exchange.event(&chat_chunk("one"));
        exchange.left_within(Duration::from_secs(20));
    });
    let mut conf = Conf::for_upstream(upstream.address);
    conf.providers = conf.providers.replacen(
        "    allow_private_addresses: true\n",
        "    allow_private_addresses: true\n    timeouts: {idle: 300ms}\n",
        1,
    );
    let node = Node::start(&conf);
    let mut connection = open(&node, &chat());
    let all = Events::of(&mut connection).rest();
    assert!(
        all.last().expect("an error").json()["error"].is_object(),
        "{all:?}"
    );
    assert_eq!(node.records_exactly(1)[0].end_reason, "timeout");
}

#[test]
fn an_error_event_of_the_provider_passes_as_it_is() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    let body = json!({"model": "gpt-4o-mini", "stream": true,
        "messages": [{"role": "user", "content": "[[mock tokens=6 error_after=2]]"}]});
    let mut connection = open(&node, &Ask::post(CHAT, &body));
    let all = Events::of(&mut connection).rest();
    let errors = all
        .iter()
        .filter(|event| event.data.contains("\"error\""))
        .count();
    assert_eq!(errors, 1, "one error, not two: {all:?}");
    assert!(all.iter().all(|event| event.data != "[DONE]"), "{all:?}");
    assert_eq!(node.records_exactly(1)[0].end_reason, "upstream_error");
}

#[test]
fn an_event_beyond_the_bound_ends_the_stream() {
    let upstream = Upstream::start(|exchange| {
        exchange.stream();
        exchange.event(&chat_chunk("one"));
        exchange.event(&chat_chunk(&"w".repeat(2 << 20)));
        exchange.event("[DONE]");
        exchange.end();
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut connection = open(&node, &chat());
    let all = Events::of(&mut connection).rest();
    assert!(
        all.iter().all(|event| event.data != "[DONE]"),
        "no silent clean end"
    );
    let last: Value = all.last().expect("an error").json();
    assert!(last["error"].is_object(), "{last}");
}

#[test]
fn streams_are_marked_as_not_to_be_buffered() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    let answer = node.ask(&chat());
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert!(
        answer
            .header("cache-control")
            .is_some_and(|value| value.contains("no-cache"))
    );
}

#[test]
fn streams_run_over_http_2_too() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    let answers = crate::harness::h2c::ask_all(node.data, vec![chat(); 20]);
    for answer in answers {
        assert!(
            answer.complete && answer.text().trim_end().ends_with("data: [DONE]"),
            "{}",
            answer.text()
        );
    }
    node.records_exactly(20);
}
