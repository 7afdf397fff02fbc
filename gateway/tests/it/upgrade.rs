//! A new process takes over from one that still serves: no connect is refused,
//! no request fails, no stream is cut, and every call counts once.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::events::{End, Events};
use crate::harness::node::number;
use crate::harness::process::Process;
use crate::harness::upstream::{chat_chunk, chat_completion, chat_end};
use crate::harness::{Ask, Conf, Connection, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";

/// What every call of these tests uses.
const TOKENS: u64 = 150;

/// Both accept for five seconds; the rest is for a busy machine. `drain_grace`
/// is far above: an old process without requests does not wait for its end.
const HAND_OVER: Duration = Duration::from_secs(30);

fn chat(stream: bool) -> Value {
    json!({"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
}

/// Answers at once, and ends each stream when the test lets it.
fn provider() -> (Upstream, SyncSender<()>) {
    let (next, wait) = sync_channel::<()>(0);
    let wait: Mutex<Receiver<()>> = Mutex::new(wait);
    let upstream = Upstream::start(move |exchange| {
        if exchange.seen.json()["stream"] != true {
            exchange.json(200, &chat_completion("pong", 100, 50));
            return;
        }
        exchange.stream();
        exchange.event(&chat_chunk("one"));
        // Without a test that goes on, the stream is cut.
        if wait.lock().expect("one at a time").recv().is_err() {
            return;
        }
        for event in chat_end(100, 50) {
            exchange.event(&event);
        }
        exchange.event("[DONE]");
        exchange.end();
    });
    (upstream, next)
}

fn node(upstream: &Upstream, requests: u64) -> Node {
    let limits = format!(
        "rate_limits: [{{requests: {requests}, every: 1d}}, {{tokens: 900000000, every: 1d}}]"
    );
    Node::start(
        &Conf::for_upstream(upstream.address)
            .limited(&limits)
            .server("drain_grace: 100s"),
    )
}

fn open_stream(node: &Node) -> Connection {
    let mut stream = Connection::open(node.data);
    stream.ask(&Ask::post(CHAT, &chat(true)));
    assert_eq!(stream.head().expect("a head").status, 200);
    let mut events = Events::of(&mut stream);
    events.data().expect("the first event");
    drop(events);
    stream
}

fn finish(stream: &mut Connection) {
    let mut events = Events::of(stream);
    let rest = events.rest();
    let last = rest.last().map(|event| event.data.as_str());
    assert_eq!((last, events.end), (Some("[DONE]"), Some(End::Clean)));
}

/// Puts a new process in the place of the old one, which is given back.
fn take_over(node: &mut Node) -> Process {
    let new = node.successor(&["--upgrade"]);
    let old = std::mem::replace(&mut node.process, new);
    old.signal("QUIT");
    old
}

fn ends_well(old: &mut Process) {
    let status = old.wait(HAND_OVER).expect("the old process ends");
    assert!(status.success(), "{status}");
}

/// The new process alone answers on the admin port: it holds nothing, while
/// the old one has a stream open.
fn await_new_in_charge(node: &Node) {
    let mut in_a_row = 0;
    eventually("the old process has left the admin port", || {
        let answer = Connection::open(node.admin).try_exchange(&Ask::get("/metrics"))?;
        let idle = answer
            .text()
            .lines()
            .any(|line| line == "tyr_in_flight_requests 0");
        in_a_row = if idle { in_a_row + 1 } else { 0 };
        (in_a_row > 20).then_some(())
    });
}

fn used(node: &Node, unit: &str) -> u64 {
    number(&node.standing_of("demo", unit)["used"]) as u64
}

/// Threads that use a node in a loop, each on a new connection.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            done: Arc::default(),
            threads: Vec::new(),
        }
    }

    fn with(mut self, work: impl Fn() -> u64 + Send + 'static) -> Self {
        let (stop, done) = (Arc::clone(&self.stop), Arc::clone(&self.done));
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                done.fetch_add(work(), Ordering::Relaxed);
            }
        }));
        self
    }

    /// How many calls were answered, once all threads have ended well.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread
                .join()
                .expect("no connect was refused, no request failed");
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[test]
fn a_hand_over_under_load_fails_nothing_and_counts_everything_once() {
    let (upstream, next) = provider();
    let mut node = node(&upstream, 1_000_000);
    let (data, admin) = (node.data, node.admin);
    let call = move || {
        let ask = Ask::post(CHAT, &chat(false)).header("connection", "close");
        let answer = Connection::open(data).exchange(&ask);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        1
    };
    let ready = move || {
        // A port that closes may cut whom it has not accepted yet, which the
        // client may see before it is told that it is connected; it refuses nobody.
        let mut connection = match Connection::try_open(admin) {
            Ok(connection) => connection,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return 0,
            Err(error) => panic!("{admin} refuses: {error}"),
        };
        if let Some(answer) = connection.try_exchange(&Ask::get("/readyz")) {
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        0
    };
    let load = Load::new().with(call).with(call).with(ready);
    let mut stream = open_stream(&node);

    let mut old = take_over(&mut node);
    eventually("the data port of the old process is closed", || {
        old.log().contains("handed over").then_some(())
    });
    assert!(old.ended().is_none(), "its stream is open");
    next.send(()).expect("the provider waits");
    finish(&mut stream);
    ends_well(&mut old);
    let before = load.done.load(Ordering::Relaxed);
    eventually("the new process serves alone", || {
        (load.done.load(Ordering::Relaxed) > before + 50).then_some(())
    });
    let calls = load.end() + 1;

    assert!(node.process.ended().is_none(), "{}", node.process.log());
    let count = usize::try_from(calls).expect("a few thousand");
    let records = node.records_exactly(count);
    assert!(records.iter().all(|record| record.end_reason == "success"));
    eventually("the new process counts the calls of both", || {
        (used(&node, "requests") == calls && used(&node, "tokens") == calls * TOKENS).then_some(())
    });
    node.process.signal("TERM");
    ends_well(&mut node.process);
    node.start_again();
    assert_eq!(
        used(&node, "tokens"),
        calls * TOKENS,
        "and so does the store"
    );
}

#[test]
fn limits_go_on_where_the_old_process_was_and_a_stream_of_it_counts_late() {
    let (upstream, next) = provider();
    let mut node = node(&upstream, 6);
    for _ in 0..3 {
        assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
    }
    let mut stream = open_stream(&node);
    let mut old = take_over(&mut node);
    await_new_in_charge(&node);
    assert_eq!(used(&node, "requests"), 3, "a hold is not seen");
    next.send(()).expect("the provider waits");
    finish(&mut stream);
    ends_well(&mut old);
    eventually("the stream counts", || {
        (used(&node, "tokens") == 4 * TOKENS).then_some(())
    });
    for _ in 0..2 {
        assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
    }
    assert_eq!(node.post(CHAT, &chat(false)).status(), 429);
    let served = |record: &&crate::harness::records::Record| record.status == 200;
    eventually("all are recorded", || {
        (node.records().iter().filter(served).count() == 6).then_some(())
    });
}

#[test]
fn a_quit_before_its_time_waits_and_a_killed_old_process_loses_nothing_settled() {
    let (upstream, _next) = provider();
    let mut node = node(&upstream, 100);
    node.process.signal("QUIT");
    assert_eq!(node.post(CHAT, &chat(false)).status(), 200, "it goes on");
    let stream = open_stream(&node);
    let mut old = {
        let new = node.successor(&["--upgrade"]);
        std::mem::replace(&mut node.process, new)
    };
    await_new_in_charge(&node);
    old.kill();
    drop(stream);
    assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
    eventually("both calls count", || {
        (used(&node, "requests") == 2).then_some(())
    });
    node.records_exactly(2);
    node.await_log(&["all usage of the old process is counted"]);

    // And so on, any number of times.
    let mut old = take_over(&mut node);
    ends_well(&mut old);
    assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
    eventually("all calls count", || {
        (used(&node, "requests") == 3).then_some(())
    });
    node.records_exactly(3);
}

#[test]
fn a_second_upgrade_at_once_is_refused_and_harms_nobody() {
    let (upstream, next) = provider();
    let mut node = node(&upstream, 100);
    let mut stream = open_stream(&node);
    let mut old = take_over(&mut node);
    await_new_in_charge(&node);
    let mut third = node.successor(&["--upgrade"]);
    let refused = third.wait(HAND_OVER).expect("it ends");
    assert!(!refused.success());
    let log = third.log();
    assert!(log.contains("an upgrade is already running"), "{log}");
    assert!(TcpStream::connect(node.data).is_ok());
    next.send(()).expect("the provider waits");
    finish(&mut stream);
    ends_well(&mut old);
    assert_eq!(node.post(CHAT, &chat(false)).status(), 200);
    node.records_exactly(2);
}

#[test]
fn a_stream_past_the_grace_of_the_old_process_is_cut_and_counts_in_the_new_one() {
    let (upstream, _next) = provider();
    let conf = Conf::for_upstream(upstream.address)
        .limited("rate_limits: [{requests: 100, every: 1d}]")
        .server("drain_grace: 500ms");
    let mut node = Node::start(&conf);
    let mut stream = open_stream(&node);
    let mut old = take_over(&mut node);
    ends_well(&mut old);
    let rest = Events::of(&mut stream).rest();
    assert!(rest.iter().all(|event| event.data != "[DONE]"), "{rest:?}");
    let record = node.records_exactly(1).remove(0);
    assert!(
        record.output > 0 && record.end_reason != "success",
        "{record:?}"
    );
    eventually("it counts", || (used(&node, "requests") == 1).then_some(()));
}
