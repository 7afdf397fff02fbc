//! Every malformed request gets a 4xx in the shape of the protocol that was
//! called; nothing reaches the provider and nothing is charged.

use std::time::Duration;

use serde_json::json;

use crate::harness::conf::KEY;
use crate::harness::node::number;
use crate::harness::{Answer, Ask, Conf, Connection, Node, Upstream, h2c};

const CHAT: &str = "/v1/chat/completions";
const LIMITS: &str = "rate_limits: [{requests: 1000, every: 1m}, {tokens: 100000, every: 1m}]\n\
                      budgets: [{limit_usd: 10, every: 1d}]";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    OpenAi,
    Anthropic,
}

/// One bad request: what it is, the request, the status it must get.
struct Case {
    what: &'static str,
    ask: Ask,
    status: u16,
}

fn node() -> (Upstream, Node) {
    let upstream = Upstream::chat();
    let conf = Conf::for_upstream(upstream.address)
        .server("max_body: 1MiB")
        .limited(LIMITS);
    let node = Node::start(&conf);
    (upstream, node)
}

#[track_caller]
fn in_shape(what: &str, answer: &Answer, shape: Shape) {
    let body = answer.json();
    match shape {
        Shape::OpenAi => {
            let error = &body["error"];
            assert!(
                error["message"].as_str().is_some_and(|m| !m.is_empty()),
                "{what}: {body}"
            );
            assert!(error["type"].is_string(), "{what}: {body}");
            for field in ["param", "code"] {
                assert!(
                    error.get(field).is_some(),
                    "{what}: {field} is named: {body}"
                );
            }
        }
        Shape::Anthropic => {
            assert_eq!(body["type"], "error", "{what}: {body}");
            assert!(body["error"]["type"].is_string(), "{what}: {body}");
            assert!(body["error"]["message"].is_string(), "{what}: {body}");
            assert!(body["request_id"].is_string(), "{what}: {body}");
        }
    }
    assert!(
        answer
            .header("content-type")
            .is_some_and(|t| t.starts_with("application/json")),
        "{what}"
    );
    let id = answer.header("x-request-id");
    assert!(id.is_some(), "{what}: an id to ask about");
    assert_eq!(id, answer.header("request-id"), "{what}");
}

#[track_caller]
fn untouched(upstream: &Upstream, node: &Node) {
    assert_eq!(upstream.count(), 0, "nothing reaches the provider");
    for unit in ["requests", "tokens", "usd"] {
        let standing = node.settled("demo", unit);
        assert_eq!(
            number(&standing["used"]),
            0.0,
            "nothing is charged: {standing}"
        );
    }
    assert!(
        node.records()
            .iter()
            .all(|record| record.cost_nano_usd == 0 && record.output == 0)
    );
}

fn case(what: &'static str, body: impl Into<Vec<u8>>, status: u16) -> Case {
    Case {
        what,
        ask: Ask::post_bytes(CHAT, body).bearer(KEY),
        status,
    }
}

/// Bodies that are wrong on every endpoint.
fn bodies() -> Vec<Case> {
    let model = r#""model":"gpt-4o-mini""#;
    let deep = format!(
        "{{{model},\"messages\":{}{}}}",
        "[".repeat(200),
        "]".repeat(200)
    );
    let mut invalid_utf8 =
        format!("{{{model},\"messages\":[{{\"role\":\"user\",\"content\":\"").into_bytes();
    invalid_utf8.extend(b"\xff\xfe\"}]}");
    vec![
        case("an empty body", "", 400),
        case("no JSON", "hello", 400),
        case("truncated JSON", format!("{{{model},\"messages\":["), 400),
        case(
            "JSON with a tail",
            format!("{{{model},\"messages\":[]}} x"),
            400,
        ),
        case("two values", format!("{{{model}}}{{{model}}}"), 400),
        case("an array", "[]", 400),
        case("a string", "\"gpt-4o-mini\"", 400),
        case("null", "null", 400),
        case("no model", r#"{"messages":[]}"#, 400),
        case("a number as model", r#"{"model":4,"messages":[]}"#, 400),
        case("null as model", r#"{"model":null,"messages":[]}"#, 400),
        case(
            "the model twice",
            format!("{{{model},{model},\"messages\":[]}}"),
            400,
        ),
        case(
            "an unknown model",
            r#"{"model":"gpt-9","messages":[]}"#,
            404,
        ),
        case("an empty model", r#"{"model":"","messages":[]}"#, 400),
        case("invalid UTF-8", invalid_utf8, 400),
        case("nesting deeper than 128", deep, 400),
        case(
            "a byte order mark",
            b"\xef\xbb\xbf{\"model\":\"gpt-4o-mini\"}".to_vec(),
            400,
        ),
        case("more than max_body", vec![b' '; 1024 * 1024 + 1], 413),
    ]
}

fn on(path: &str, case: &Case) -> Ask {
    let mut ask = case.ask.clone();
    ask.path = path.into();
    ask
}

#[test]
fn bodies_are_refused_on_every_openai_endpoint() {
    let (upstream, node) = node();
    let prefixes = [
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/openai/v1/chat/completions",
    ];
    for case in bodies() {
        for path in prefixes {
            let answer = node.ask(&on(path, &case));
            let what = format!("{} on {path}", case.what);
            assert_eq!(answer.status(), case.status, "{what}: {}", answer.text());
            in_shape(&what, &answer, Shape::OpenAi);
        }
    }
    untouched(&upstream, &node);
}

#[test]
fn bodies_are_refused_on_anthropic_endpoints() {
    let (upstream, node) = node();
    for case in bodies() {
        for path in [
            "/anthropic/v1/messages",
            "/anthropic/v1/messages/count_tokens",
        ] {
            let answer = node.ask(&on(path, &case));
            let what = format!("{} on {path}", case.what);
            assert_eq!(answer.status(), case.status, "{what}: {}", answer.text());
            in_shape(&what, &answer, Shape::Anthropic);
            let kind = match case.status {
                404 => "not_found_error",
                413 => "request_too_large",
                _ => "invalid_request_error",
            };
            assert_eq!(answer.json()["error"]["type"], kind, "{what}");
        }
    }
    untouched(&upstream, &node);
}

#[test]
fn a_stream_flag_that_is_no_flag_is_refused_where_there_are_streams() {
    let (upstream, node) = node();
    let body = r#"{"model":"gpt-4o-mini","stream":"yes","messages":[]}"#;
    for path in [CHAT, "/v1/completions", "/v1/responses"] {
        let answer = node.ask(&Ask::post_bytes(path, body).bearer(KEY));
        assert_eq!(
            (answer.status(), &answer.json()["error"]["param"]),
            (400, &json!("stream"))
        );
    }
    let answer = node.ask(&Ask::post_bytes("/anthropic/v1/messages", body).bearer(KEY));
    assert_eq!(answer.status(), 400, "{}", answer.text());
    untouched(&upstream, &node);
}

#[test]
fn the_same_bodies_are_refused_over_http_2() {
    let (upstream, node) = node();
    for case in bodies() {
        let answer = h2c::ask(node.data, case.ask.clone());
        assert_eq!(
            answer.status(),
            case.status,
            "{}: {}",
            case.what,
            answer.text()
        );
        in_shape(case.what, &answer, Shape::OpenAi);
    }
    untouched(&upstream, &node);
}

#[test]
fn content_types_that_are_not_json_are_refused() {
    let (upstream, node) = node();
    let body = json!({"model": "gpt-4o-mini", "messages": []}).to_string();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
    ] {
        let ask = Ask::post_bytes(CHAT, body.clone())
            .bearer(KEY)
            .without("content-type")
            .header("content-type", kind);
        let answer = node.ask(&ask);
        assert!(
            [400, 415].contains(&answer.status()),
            "{kind}: {} {}",
            answer.status(),
            answer.text()
        );
        in_shape(kind, &answer, Shape::OpenAi);
    }
    untouched(&upstream, &node);
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
    ] {
        let ask = Ask::post_bytes(CHAT, body.clone())
            .bearer(KEY)
            .without("content-type")
            .header("content-type", kind);
        assert_eq!(node.ask(&ask).status(), 200, "{kind}");
    }
}

#[test]
fn unknown_paths_and_methods_are_refused_in_shape() {
    let (upstream, node) = node();
    let cases: [(&str, &str, &[u16], Shape); 11] = [
        ("POST", "/v1/nothing", &[404], Shape::OpenAi),
        ("POST", "/nothing", &[404], Shape::OpenAi),
        ("POST", "/anthropic/v1/nothing", &[404], Shape::Anthropic),
        ("POST", "/openai/nothing", &[404], Shape::OpenAi),
        ("GET", CHAT, &[404, 405], Shape::OpenAi),
        ("DELETE", CHAT, &[404, 405], Shape::OpenAi),
        (
            "PUT",
            "/anthropic/v1/messages",
            &[404, 405],
            Shape::Anthropic,
        ),
        ("POST", "/v1/models", &[404, 405], Shape::OpenAi),
        (
            "POST",
            "/v1/../v1/chat/completions",
            &[400, 404],
            Shape::OpenAi,
        ),
        ("POST", "//v1/chat/completions", &[400, 404], Shape::OpenAi),
        ("POST", "/v1/chat/completions/", &[400, 404], Shape::OpenAi),
    ];
    for (method, path, statuses, shape) in cases {
        let mut ask = Ask::new(method, path)
            .bearer(KEY)
            .header("content-type", "application/json");
        ask.body = br#"{"model":"gpt-4o-mini","messages":[]}"#.to_vec();
        let answer = node.ask(&ask);
        let what = format!("{method} {path}");
        assert!(
            statuses.contains(&answer.status()),
            "{what}: {} {}",
            answer.status(),
            answer.text()
        );
        in_shape(&what, &answer, shape);
    }
    let answer = node.ask(
        &Ask::new("POST", "/v1/nothing")
            .bearer(KEY)
            .header("anthropic-version", "2023-06-01"),
    );
    in_shape("a header decides", &answer, Shape::Anthropic);
    untouched(&upstream, &node);
}

#[test]
fn a_truncated_upload_charges_nothing() {
    let (upstream, node) = node();
    let whole = Ask::post_bytes(CHAT, vec![b' '; 5_000]).bearer(KEY);
    for ask in [whole.clone(), whole.chunked(1_000)] {
        let mut connection = Connection::open(node.data);
        let wire = ask.wire();
        connection
            .send(&wire[..wire.len() - 2_000])
            .expect("a part is taken");
        connection
            .stream()
            .shutdown(std::net::Shutdown::Write)
            .expect("half a close");
        if let Some(answer) = connection.try_answer() {
            assert!((400..500).contains(&answer.status()), "{}", answer.text());
        }
    }
    untouched(&upstream, &node);
}

#[test]
fn broken_chunked_coding_is_refused() {
    let (upstream, node) = node();
    let head =
        String::from_utf8(Ask::post_bytes(CHAT, "").bearer(KEY).chunked(1).head()).expect("a head");
    for body in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-1\r\n{}\r\n0\r\n\r\n",
        "5\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n{}",
    ] {
        let mut connection = Connection::open(node.data);
        connection
            .send(format!("{head}{body}").as_bytes())
            .expect("sent");
        connection.patience(Duration::from_secs(5));
        if let Some(answer) = connection.try_answer() {
            assert!(
                (400..500).contains(&answer.status()),
                "{body:?}: {}",
                answer.text()
            );
        }
    }
    untouched(&upstream, &node);
}

#[test]
fn an_oversize_upload_is_stopped_early() {
    let (upstream, node) = node();
    let mut ask = Ask::post_bytes(CHAT, "").bearer(KEY);
    ask.headers
        .push(("content-length".into(), "1099511627776".into()));
    let head = String::from_utf8(ask.head())
        .expect("a head")
        .replace("content-length: 0\r\n", "");
    let mut connection = Connection::open(node.data);
    connection.send(head.as_bytes()).expect("sent");
    let answer = connection.answer();
    assert_eq!(answer.status(), 413, "{}", answer.text());
    in_shape("a terabyte announced", &answer, Shape::OpenAi);
    untouched(&upstream, &node);
}

#[test]
fn a_websocket_upgrade_is_declined_quickly() {
    let (upstream, node) = node();
    let ask = Ask::get("/v1/responses")
        .bearer(KEY)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = node.ask(&ask);
    assert!(
        [404, 405, 426].contains(&answer.status()),
        "{} {}",
        answer.status(),
        answer.text()
    );
    untouched(&upstream, &node);
}

#[test]
fn request_ids_are_kept_or_made() {
    let (_upstream, node) = node();
    let ask = |id: &str| {
        node.ask(
            &Ask::get("/v1/models")
                .bearer(KEY)
                .header("x-request-id", id),
        )
    };
    assert_eq!(ask("my-id_1.2").header("x-request-id"), Some("my-id_1.2"));
    let long = "x".repeat(129);
    for strange in [long.as_str(), "a b", "a\"b", "<script>"] {
        let answer = ask(strange);
        let given = answer.header("x-request-id").expect("an id");
        assert_ne!(given, strange);
        assert_eq!(given.len(), 36, "a UUID: {given}");
    }
}
