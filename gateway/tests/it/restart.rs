//! What survives a restart and a kill, and how a node drains.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::conf::KEY;
use crate::harness::events::{End, Events};
use crate::harness::node::number;
use crate::harness::upstream::{chat_chunk, chat_completion};
use crate::harness::{Ask, Conf, Connection, Mock, Node, Upstream, eventually, h2c};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const LIMITS: &str = "rate_limits: [{requests: 50, every: 1h}, {tokens: 100000, every: 1h}]\nbudgets: [{limit_usd: 10, every: 1M}]";

fn chat(stream: bool) -> Value {
    json!({"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
}

fn used(node: &Node) -> [f64; 3] {
    ["requests", "tokens", "usd"].map(|unit| number(&node.settled("demo", unit)["used"]))
}

#[test]
fn counters_and_records_survive_kill_9() {
    let upstream =
        Upstream::start(|exchange| exchange.json(200, &chat_completion("pong", 100, 50)));
    let mut node = Node::start(&Conf::for_upstream(upstream.address).limited(LIMITS));
    for _ in 0..20 {
        assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
    }
    let before = used(&node);
    node.records_exactly(20);
    node.process.kill();
    node.start_again();
    assert_eq!(used(&node), before, "equal to the token");
    assert_eq!((before[0], before[1]), (20.0, 3000.0));
    assert_eq!(node.records().len(), 20, "no record is lost or doubled");
    for _ in 0..30 {
        assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
    }
    assert_eq!(
        node.post(CHAT, &chat(false)).status(),
        429,
        "the window did not start anew"
    );
    assert_eq!(
        node.records_exactly(node.records().len().max(50))
            .iter()
            .filter(|r| r.status == 200)
            .count(),
        50
    );
}

#[test]
fn a_kill_under_load_loses_at_most_the_last_commit() {
    let upstream =
        Upstream::start(|exchange| exchange.json(200, &chat_completion("pong", 100, 50)));
    let mut node = Node::start(
        &Conf::for_upstream(upstream.address)
            .limited("rate_limits: [{tokens: 100000000, every: 1h}]"),
    );
    let mut connection = Connection::open(node.data);
    let mut answered = 0;
    let mut settled_for_sure = 0;
    while answered < 300 {
        assert_eq!(
            connection.exchange(&Ask::post(CHAT, &chat(false))).status(),
            200
        );
        answered += 1;
        if answered == 200 {
            // What the store shows has been committed, whatever happens next.
            settled_for_sure = eventually("200 records are in the store", || {
                let count = node.records().len();
                (count >= 200).then_some(count)
            });
        }
    }
    node.process.kill();
    node.start_again();
    let records = eventually("the file is replayed", || {
        let records = node.records();
        (records.len() >= settled_for_sure).then_some(records)
    });
    assert!(
        records.len() <= 300,
        "{} records of 300 calls",
        records.len()
    );
    let mut ids: Vec<&str> = records
        .iter()
        .map(|record| record.request_id.as_str())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), records.len(), "no record twice");
    let tokens = number(&node.settled("demo", "tokens")["used"]);
    assert_eq!(
        tokens,
        150.0 * node.records().len() as f64,
        "counters equal the records"
    );
}

#[test]
fn sigterm_fails_readiness_first_and_lets_streams_finish() {
    let (next, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |exchange| {
        exchange.stream();
        exchange.event(&chat_chunk("one"));
        wait.lock()
            .expect("one at a time")
            .recv()
            .expect("the test goes on");
        exchange.event(&chat_chunk("two"));
        exchange.event("[DONE]");
        exchange.end();
    });
    let mut node = Node::start(&Conf::for_upstream(upstream.address).limited(LIMITS));
    let mut connection = Connection::open(node.data);
    connection.ask(&Ask::post(CHAT, &chat(true)));
    connection.head().expect("a head");
    let mut events = Events::of(&mut connection);
    events.data().expect("the first event");
    node.process.signal("TERM");
    eventually("readiness fails while a stream is open", || {
        (node.readyz() == Some(503)).then_some(())
    });
    assert!(node.process.ended().is_none(), "it waits for the stream");
    next.send(()).expect("the provider waits");
    let rest = events.rest();
    assert_eq!((rest.len(), events.end), (2, Some(End::Clean)), "{rest:?}");
    let status = node
        .process
        .wait(Duration::from_secs(20))
        .expect("it ends after the stream");
    assert!(status.success(), "{status}");
    let record = node.records_exactly(1).remove(0);
    assert_eq!(record.end_reason, "success", "{record:?}");
}

/// A provider that sends one event and then says nothing more.
fn silent_after_one() -> Upstream {
    Upstream::start(|exchange| {
        exchange.stream();
        match exchange.seen.path.as_str() {
            MESSAGES => {
                let start = json!({"type": "message_start", "message": {"id": "m", "type": "message",
                    "role": "assistant", "model": "claude-haiku-4-5", "content": [],
                    "usage": {"input_tokens": 7, "output_tokens": 1}}});
                exchange.chunk(format!("event: message_start\ndata: {start}\n\n").as_bytes());
            }
            _ => {
                exchange.event(&chat_chunk("one"));
            }
        }
        exchange.left_within(Duration::from_secs(30));
    })
}

#[test]
fn a_stream_past_the_grace_ends_with_an_error_event() {
    let upstream = silent_after_one();
    let mut node = Node::start(
        &Conf::for_upstream(upstream.address)
            .limited(LIMITS)
            .server("drain_grace: 500ms"),
    );
    let mut message = chat(true);
    message["model"] = "claude-haiku-4-5".into();
    message["max_tokens"] = 100.into();
    let asks = [
        Ask::post(CHAT, &chat(true)),
        Ask::post(MESSAGES, &message).header("anthropic-version", "2023-06-01"),
    ];
    let mut connections = asks.map(|ask| {
        let mut connection = Connection::open(node.data);
        connection.ask(&ask);
        assert_eq!(connection.head().expect("a head").status, 200);
        connection
    });
    let mut streams = connections.each_mut().map(Events::of);
    for events in &mut streams {
        events.data().expect("the first event");
    }
    node.process.signal("TERM");
    let [openai, anthropic] = streams.each_mut().map(|events| {
        let mut rest = events.rest();
        assert_eq!((rest.len(), events.end), (1, Some(End::Clean)), "{rest:?}");
        rest.remove(0)
    });
    assert_eq!(openai.json()["error"]["type"], "server_error", "{openai:?}");
    assert!(openai.data.contains("shutting down"), "{openai:?}");
    assert_eq!(anthropic.name.as_deref(), Some("error"), "{anthropic:?}");
    let status = node
        .process
        .wait(Duration::from_secs(20))
        .expect("it ends after the grace");
    assert!(status.success(), "{status}");
    for record in node.records_exactly(2) {
        assert_eq!(record.end_reason, "shutdown", "{record:?}");
        assert!(record.output > 0, "what was relayed is charged: {record:?}");
    }
}

/// One request after another, each on a connection of its own, until the port
/// refuses; how many were answered.
fn one_each(data: SocketAddr, ask: &Ask, answered: &AtomicUsize) -> usize {
    let mut mine = 0;
    while let Ok(mut connection) = Connection::try_open(data) {
        // The port may close over a connection it has not taken yet.
        let Some(answer) = connection.try_exchange(ask) else {
            break;
        };
        assert!(answer.complete && answer.status() == 200, "{answer:?}");
        mine += 1;
        answered.fetch_add(1, Ordering::SeqCst);
    }
    mine
}

/// Requests on a connection that is kept as long as the answers say so, then
/// on the next one, until the port refuses; how many were answered.
fn kept(data: SocketAddr, ask: &Ask, answered: &AtomicUsize) -> usize {
    let mut mine = 0;
    while let Ok(mut connection) = Connection::try_open(data) {
        for number in 0.. {
            let Some(answer) = connection.try_exchange(ask) else {
                assert_eq!(
                    number, 0,
                    "cut though the answer before kept the connection"
                );
                return mine;
            };
            assert!(answer.complete && answer.status() == 200, "{answer:?}");
            mine += 1;
            answered.fetch_add(1, Ordering::SeqCst);
            if answer.header("connection") == Some("close") {
                assert!(connection.closed_within(Duration::from_secs(10)));
                break;
            }
        }
    }
    mine
}

#[test]
fn a_drain_under_load_cuts_no_request_that_was_begun() {
    let mock = Mock::with(&["--ttft-ms", "60"]);
    let mut node = Node::start(&Conf::for_upstream(mock.address));
    let (data, answered) = (node.data, Arc::new(AtomicUsize::new(0)));
    let ask = Ask::post(CHAT, &chat(false));
    let over_http2: Vec<_> = (0..3)
        .map(|_| {
            let (ask, answered) = (ask.clone(), Arc::clone(&answered));
            std::thread::spawn(move || h2c::ask_until_end(data, &ask, 2, &answered))
        })
        .collect();
    let over_http1: Vec<_> = [one_each, one_each, one_each, kept, kept]
        .map(|client| {
            let (ask, answered) = (ask.clone(), Arc::clone(&answered));
            std::thread::spawn(move || client(data, &ask, &answered))
        })
        .into();
    eventually("all clients are at work", || {
        (answered.load(Ordering::SeqCst) >= 60).then_some(())
    });
    node.process.signal("TERM");
    let mut count = 0;
    for client in over_http2 {
        let farewell = client.join().expect("a client over HTTP/2");
        for answer in &farewell.answers {
            assert!(answer.complete && answer.status() == 200, "{answer:?}");
        }
        assert!(!farewell.goaways.is_empty(), "the end is announced");
        assert!(
            farewell.goaways.iter().all(|code| *code == 0),
            "{farewell:?}"
        );
        count += farewell.answers.len();
    }
    for client in over_http1 {
        count += client.join().expect("a client over HTTP/1");
    }
    let status = node
        .process
        .wait(Duration::from_secs(20))
        .expect("it ends when all is answered");
    assert!(status.success(), "{status}");
    assert!(!node.process.log().contains("requests are cut"));
    // What reached the provider was answered; what was not had not begun.
    assert_eq!(mock.requests(), count as u64);
    let records = node.records_exactly(count);
    assert!(records.iter().all(|record| record.end_reason == "success"));
}

#[test]
fn a_drain_closes_the_port_while_a_stream_goes_on() {
    let (next, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |exchange| {
        exchange.stream();
        exchange.event(&chat_chunk("one"));
        wait.lock()
            .expect("one at a time")
            .recv()
            .expect("the test goes on");
        exchange.event("[DONE]");
        exchange.end();
    });
    let mut node = Node::start(&Conf::for_upstream(upstream.address));
    let mut idle = Connection::open(node.data);
    let models = Ask::get("/v1/models").bearer(KEY);
    assert_eq!(idle.exchange(&models).status(), 200);
    let mut connection = Connection::open(node.data);
    connection.ask(&Ask::post(CHAT, &chat(true)));
    connection.head().expect("a head");
    let mut events = Events::of(&mut connection);
    events.data().expect("the first event");
    node.process.signal("TERM");
    eventually("the port is closed", || {
        TcpStream::connect(node.data).is_err().then_some(())
    });
    assert!(idle.closed_within(Duration::from_secs(10)), "idle ones end");
    assert!(node.process.ended().is_none(), "it waits for the stream");
    next.send(()).expect("the provider waits");
    assert_eq!(events.rest().len(), 1);
    assert_eq!(events.end, Some(End::Clean));
    let status = node.process.wait(Duration::from_secs(20));
    assert!(status.expect("it ends").success());
}

#[test]
fn after_sigquit_the_old_process_ends_its_connections_and_then_itself() {
    let mock = Mock::with(&["--ttft-ms", "60"]);
    let sockets = tempfile::tempdir().expect("a folder for the socket");
    let path = sockets.path().join("upgrade.sock");
    let conf = Conf::for_upstream(mock.address)
        .server(&format!("upgrade_socket: {}", path.display()))
        .server("drain_grace: 5m");
    let mut node = Node::start(&conf);
    let (data, answered) = (node.data, Arc::new(AtomicUsize::new(0)));
    let mut idle = Connection::open(data);
    assert_eq!(
        idle.exchange(&Ask::get("/v1/models").bearer(KEY)).status(),
        200
    );
    let client = {
        let (ask, answered) = (Ask::post(CHAT, &chat(false)), Arc::clone(&answered));
        std::thread::spawn(move || h2c::ask_until_end(data, &ask, 2, &answered))
    };
    eventually("the client is at work", || {
        (answered.load(Ordering::SeqCst) >= 4).then_some(())
    });
    let mut successor = node.successor(&["--upgrade"]);
    node.process.signal("QUIT");
    let farewell = client.join().expect("a client over HTTP/2");
    assert!(!farewell.goaways.is_empty(), "the end is announced");
    for answer in &farewell.answers {
        assert!(answer.complete && answer.status() == 200, "{answer:?}");
    }
    assert!(idle.closed_within(Duration::from_secs(20)), "idle ones end");
    let status = node.process.wait(Duration::from_secs(30));
    assert!(
        status.is_some_and(|status| status.success()),
        "it does not wait for the rest of its grace: {status:?}"
    );
    assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
    assert!(successor.ended().is_none(), "{}", successor.log());
    let count = farewell.answers.len() + 1;
    assert_eq!(mock.requests(), count as u64);
    node.records_exactly(count);
}

#[test]
fn an_idle_node_ends_at_once_on_sigterm_and_sigint() {
    let upstream = Upstream::chat();
    for signal in ["TERM", "INT"] {
        let mut node = Node::start(&Conf::for_upstream(upstream.address));
        assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
        node.process.signal(signal);
        let status = node
            .process
            .wait(Duration::from_secs(15))
            .expect("nothing is in flight");
        assert!(status.success(), "SIG{signal}: {status}");
        assert_eq!(node.records().len(), 1);
    }
}

#[test]
fn a_second_node_on_the_same_folder_refuses_to_start() {
    let upstream = Upstream::chat();
    let conf = Conf::for_upstream(upstream.address);
    let node = Node::start(&conf);
    let elsewhere = conf.render(
        crate::harness::ports::free(),
        crate::harness::ports::free(),
        node.folder(),
    );
    let path = node.folder().join("second.yaml");
    std::fs::write(&path, elsewhere).expect("written");
    let output = Command::new(crate::harness::tyr_binary())
        .args(["serve", "--conf"])
        .arg(&path)
        .output();
    let output = output.expect("tyr runs");
    assert!(!output.status.success(), "two nodes on one folder");
    assert_eq!(
        node.post(CHAT, &chat(false)).status(),
        200,
        "the first goes on"
    );
}

#[test]
fn a_bad_configuration_does_not_start() {
    let upstream = Upstream::chat();
    let conf = Conf::for_upstream(upstream.address).server("no_such_field: 1");
    let mut node = Node::launch(&conf);
    let status = node.process.wait(Duration::from_secs(15)).expect("it ends");
    assert!(!status.success());
    let log = node.process.log();
    assert!(
        log.contains("no_such_field") && log.contains("tyr.yaml:"),
        "file and line are told: {log}"
    );
}
