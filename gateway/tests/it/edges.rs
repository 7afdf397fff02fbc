//! What the open port bears: slow heads, large heads, smuggling, and too many
//! connections. Each is refused; nothing of it reaches the provider.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::conf::KEY;
use crate::harness::{Ask, Conf, Connection, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";

fn body() -> String {
    json!({"model": "gpt-4o-mini", "messages": []}).to_string()
}

fn chat() -> Ask {
    Ask::post_bytes(CHAT, body()).bearer(KEY)
}

fn node_with(line: &str) -> (Upstream, Node) {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address).server(line));
    (upstream, node)
}

fn node() -> (Upstream, Node) {
    node_with("max_body: 32MiB")
}

/// Sends one byte at a time until the other side ends the connection.
fn drip(
    connection: &mut Connection,
    bytes: &[u8],
    pause: Duration,
    limit: Duration,
) -> Option<Duration> {
    let start = Instant::now();
    let mut bytes = bytes.iter().cycle();
    while start.elapsed() < limit {
        let byte = *bytes.next().expect("a cycle has no end");
        if connection.send(&[byte]).is_err() || connection.closed_within(pause) {
            return Some(start.elapsed());
        }
    }
    None
}

#[test]
fn a_slow_head_is_ended_at_its_deadline() {
    let (upstream, node) = node_with("header_timeout: 700ms");
    let starts: [&[u8]; 5] = [
        b"",
        b"G",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"GET / HTTP/1.0\r\n",
    ];
    for start in starts {
        let mut connection = Connection::open(node.data);
        connection.send(start).expect("sent");
        let ended = drip(
            &mut connection,
            b"x-slow: 1\r\n",
            Duration::from_millis(100),
            Duration::from_secs(6),
        );
        let ended = ended
            .unwrap_or_else(|| panic!("{:?} holds a connection", String::from_utf8_lossy(start)));
        assert!(ended < Duration::from_secs(4), "{ended:?}");
    }
    let mut silent = Connection::open(node.data);
    assert!(
        silent.closed_within(Duration::from_secs(5)),
        "a silent connection does not stay"
    );
    assert_eq!(upstream.count(), 0);
    assert_eq!(node.ask(&chat()).status(), 200, "others are served");
}

#[test]
fn a_slow_second_head_is_ended_too() {
    let (_upstream, node) = node_with("header_timeout: 700ms");
    let mut connection = Connection::open(node.data);
    assert_eq!(connection.exchange(&chat()).status(), 200);
    connection.send(b"POST /v1/chat").expect("sent");
    let ended = drip(
        &mut connection,
        b"x",
        Duration::from_millis(100),
        Duration::from_secs(6),
    );
    assert!(
        ended.is_some_and(|ended| ended < Duration::from_secs(4)),
        "{ended:?}"
    );
}

#[test]
fn a_short_http_1_0_request_is_answered() {
    let (_upstream, node) = node();
    let mut connection = Connection::open(node.data);
    // Shorter than the preface of HTTP/2, for which a server may be waiting.
    connection.send(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    connection.patience(Duration::from_secs(5));
    let answer = connection.try_answer().expect("it does not hang");
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

#[test]
fn a_slow_body_is_ended() {
    let upstream = Upstream::chat();
    let conf = Conf::for_upstream(upstream.address).server("body_min_rate: 64KiB");
    let node = Node::start(&conf);
    let mut connection = Connection::open(node.data);
    let ask = Ask::post_bytes(CHAT, vec![b' '; 1_000_000]).bearer(KEY);
    connection.send(&ask.head()).expect("sent");
    let ended = drip(
        &mut connection,
        b" ",
        Duration::from_millis(100),
        Duration::from_secs(25),
    );
    assert!(ended.is_some(), "ten bytes a second hold a connection");
    assert_eq!(upstream.count(), 0);
}

/// One raw request on a fresh connection; `None` when it was closed without an answer.
fn raw(node: &Node, request: &[u8]) -> (Option<u16>, bool) {
    let mut connection = Connection::open(node.data);
    connection.send(request).ok();
    connection.patience(Duration::from_secs(5));
    let status = connection.try_answer().map(|answer| answer.status());
    let closed = connection.closed_within(Duration::from_secs(2));
    (status, closed)
}

#[test]
fn heads_and_paths_have_bounds() {
    let (upstream, node) = node();
    let long_path = format!("/v1/{}", "x".repeat(9 * 1024));
    let answer = node.ask(&Ask::get(&long_path).bearer(KEY));
    assert_eq!(answer.status(), 414, "{}", answer.text());
    let mut many = chat();
    for number in 0..120 {
        many = many.header(&format!("x-{number}"), "1");
    }
    assert_eq!(node.ask(&many).status(), 431);
    let large = chat().header("x-large", &"y".repeat(70 * 1024));
    assert_eq!(node.ask(&large).status(), 431);
    let fair = chat().header("x-large", &"y".repeat(30 * 1024));
    assert_eq!(node.ask(&fair).status(), 200, "30 KiB of headers pass");
    assert_eq!(upstream.count(), 1);
}

/// Requests by which one side sees an end of the body where another does not.
/// `{H}` is a fair head without framing, `{N}` the body's length, `{B}` the
/// body, `{C}` the body as one chunk and its end, `{S}` the smuggled request.
const SMUGGLED: [(&str, &str); 23] = [
    (
        "CL.TE",
        "{H}content-length: {N}\r\ntransfer-encoding: chunked\r\n\r\n{C}{S}",
    ),
    (
        "TE.CL",
        "{H}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{C}{S}",
    ),
    (
        "two lengths",
        "{H}content-length: {N}\r\ncontent-length: 0\r\n\r\n{B}{S}",
    ),
    (
        "a list of lengths",
        "{H}content-length: {N}, 0\r\n\r\n{B}{S}",
    ),
    ("a signed length", "{H}content-length: +{N}\r\n\r\n{B}{S}"),
    ("a negative length", "{H}content-length: -1\r\n\r\n{B}{S}"),
    (
        "an odd coding",
        "{H}transfer-encoding: xchunked\r\n\r\n{C}{S}",
    ),
    (
        "chunked not last",
        "{H}transfer-encoding: chunked, identity\r\n\r\n{C}{S}",
    ),
    (
        "two codings",
        "{H}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n{C}{S}",
    ),
    (
        "a space before the colon",
        "{H}transfer-encoding : chunked\r\n\r\n{C}{S}",
    ),
    (
        "a folded header",
        "{H}x-a: 1\r\n  2\r\ncontent-length: {N}\r\n\r\n{B}{S}",
    ),
    (
        "a folded coding",
        "{H}transfer-encoding:\r\n chunked\r\n\r\n{C}{S}",
    ),
    ("a bare LF", "{H}x-a: 1\ncontent-length: {N}\r\n\r\n{B}{S}"),
    (
        "a bare LF before the body",
        "{H}content-length: {N}\n\n{B}{S}",
    ),
    (
        "a bare CR",
        "{H}x-a: 1\rcontent-length: 0\r\ncontent-length: {N}\r\n\r\n{B}{S}",
    ),
    (
        "a NUL",
        "{H}x-a: 1\u{0}2\r\ncontent-length: {N}\r\n\r\n{B}{S}",
    ),
    (
        "a header without a name",
        "{H}: 1\r\ncontent-length: {N}\r\n\r\n{B}{S}",
    ),
    (
        "two hosts",
        "{H}host: y\r\ncontent-length: {N}\r\n\r\n{B}{S}",
    ),
    (
        "a bad chunk end",
        "{H}transfer-encoding: chunked\r\n\r\n{X}\r\n{B}XX0\r\n\r\n{S}",
    ),
    (
        "a chunk size with a sign",
        "{H}transfer-encoding: chunked\r\n\r\n+{C}{S}",
    ),
    (
        "a chunk size with 0x",
        "{H}transfer-encoding: chunked\r\n\r\n0x{C}{S}",
    ),
    (
        "a coding in HTTP/1.0",
        "{H0}transfer-encoding: chunked\r\n\r\n{C}{S}",
    ),
    (
        "a space in the path",
        "{HS}content-length: {N}\r\n\r\n{B}{S}",
    ),
];

/// The bytes of one template of the corpus.
fn smuggled(template: &str) -> String {
    let body = body();
    let fields =
        format!("host: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n");
    let second = format!("POST /smuggled HTTP/1.1\r\n{fields}content-length: 0\r\n\r\n");
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    template
        .replace("{H}", &format!("POST {CHAT} HTTP/1.1\r\n{fields}"))
        .replace("{H0}", &format!("POST {CHAT} HTTP/1.0\r\n{fields}"))
        .replace(
            "{HS}",
            &format!("POST /v1/chat /completions HTTP/1.1\r\n{fields}"),
        )
        .replace("{N}", &body.len().to_string())
        .replace("{X}", &format!("{:x}", body.len()))
        .replace("{C}", &chunk)
        .replace("{B}", &body)
        .replace("{S}", &second)
}

#[test]
fn the_smuggling_corpus_is_refused_and_closed() {
    let (upstream, node) = node();
    let mut findings = Vec::new();
    for (what, template) in SMUGGLED {
        let before = upstream.count();
        let (status, closed) = raw(&node, smuggled(template).as_bytes());
        let refused = status.is_none_or(|status| (400..500).contains(&status) || status == 501);
        let second = upstream
            .seen()
            .iter()
            .any(|seen| seen.path.contains("smuggled"));
        if !refused || !closed || second || upstream.count() > before {
            findings.push(format!(
                "{what}: status {status:?}, closed {closed}, forwarded {}, second {second}",
                upstream.count() - before
            ));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn connect_and_upgrades_are_refused() {
    let (upstream, node) = node();
    let (status, _) = raw(&node, format!("CONNECT 127.0.0.1:80 HTTP/1.1\r\nhost: 127.0.0.1:80\r\nauthorization: Bearer {KEY}\r\n\r\n").as_bytes());
    assert!(
        status.is_none_or(|status| (400..502).contains(&status)),
        "{status:?}"
    );
    let early = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\n{{}}GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    );
    let (status, _) = raw(&node, early.as_bytes());
    assert!(
        status.is_none_or(|status| (400..500).contains(&status)),
        "{status:?}"
    );
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| !seen.path.contains("smuggled"))
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (upstream, node) = node();
    let mut connection = Connection::open(node.data);
    let wire = chat().wire();
    connection
        .send(&[wire.as_slice(), wire.as_slice(), wire.as_slice()].concat())
        .expect("sent");
    connection.patience(Duration::from_secs(5));
    let statuses: Vec<_> = (0..3)
        .map_while(|_| connection.try_answer())
        .map(|answer| answer.status())
        .collect();
    assert!(
        !statuses.is_empty() && statuses.iter().all(|status| *status == 200),
        "{statuses:?}"
    );
    assert_eq!(
        upstream.count(),
        statuses.len(),
        "what was not answered was not forwarded"
    );
}

#[test]
fn connections_of_one_address_have_a_bound() {
    let (_upstream, node) = node_with("max_connections_per_address: 8");
    let mut held: Vec<Connection> = (0..8).map(|_| Connection::open(node.data)).collect();
    for connection in &mut held {
        assert_eq!(connection.exchange(&chat()).status(), 200);
    }
    let mut ninth = Connection::open(node.data);
    ninth.ask(&chat());
    ninth.patience(Duration::from_secs(5));
    let status = ninth.try_answer().map(|answer| answer.status());
    assert!(
        status.is_none_or(|status| [429, 503].contains(&status)),
        "the ninth is not served: {status:?}"
    );
    drop(held);
    crate::harness::eventually("there is room again", || {
        let mut connection = Connection::open(node.data);
        connection.ask(&chat());
        connection
            .try_answer()
            .filter(|answer| answer.status() == 200)
            .map(|_| ())
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let (_upstream, node) = node_with("idle_timeout: 500ms");
    let mut connection = Connection::open(node.data);
    assert_eq!(connection.exchange(&chat()).status(), 200);
    assert!(connection.closed_within(Duration::from_secs(5)));
}

#[test]
fn secrets_appear_nowhere_outside() {
    use crate::harness::conf::{ADMIN, ANTHROPIC_SECRET, OPENAI_SECRET};
    let upstream = Upstream::start(|exchange| {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", OPENAI_SECRET),
            ("x-api-key", ANTHROPIC_SECRET),
        ];
        exchange.reply(200, &headers, b"{}");
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let answer = node.ask(&chat());
    let outside = format!(
        "{:?} {} {} {}",
        answer.head,
        answer.text(),
        node.metrics(),
        node.admin("GET", "/api/config").text()
    );
    for secret in [OPENAI_SECRET, ANTHROPIC_SECRET, ADMIN, KEY] {
        assert!(!outside.contains(secret), "{secret} left the gateway");
        assert!(
            !node.process.log().contains(secret),
            "{secret} is in the log"
        );
    }
    let stored = std::fs::read(node.folder().join("tyr.db")).expect("the store");
    assert!(!String::from_utf8_lossy(&stored).contains(KEY));
}
