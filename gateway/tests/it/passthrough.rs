//! Same protocol in and out: the body's bytes reach the provider as they were,
//! but for the model's value, in every framing; the answer's bytes come back.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::harness::conf::{ANTHROPIC_SECRET, KEY};
use crate::harness::{Ask, Conf, Node, Upstream, h2c};

const CHAT: &str = "/v1/chat/completions";

/// A chat body whose bytes no JSON library would write again: odd spaces, escapes,
/// unknown fields, a key twice in a nested object, numbers in unusual forms.
fn odd_body(model: &str, padding: usize) -> Vec<u8> {
    let padding = "x".repeat(padding);
    format!(
        "{{ \"x_unknown\" : [1.0, 1e2, -0, {{\"b\":1,\"a\":2,\"b\":3}}],\n\t\"model\" :\"{model}\" ,\
         \"messages\":[{{\"content\":\"\\u00e9\\/ é {padding}\",\"role\":\"user\",\"extra\":null}}],\
         \"metadata\":{{\"model\":\"inner\"}} , \"temperature\":0.10 }}\n"
    )
    .into_bytes()
}

fn renamed() -> (Upstream, Node) {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.models +=
        "  - {name: house, provider: openai, upstream_name: gpt-4o-mini-2024-07-18, price: free}\n";
    let node = Node::start(&conf);
    (upstream, node)
}

#[test]
fn bytes_are_identical_but_for_the_model() {
    let (upstream, node) = renamed();
    let answer = node.ask(&Ask::post_bytes(CHAT, odd_body("house", 10)).bearer(KEY));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let seen = upstream.seen().remove(0);
    let expected = odd_body("gpt-4o-mini-2024-07-18", 10);
    assert_eq!(
        String::from_utf8_lossy(&seen.body),
        String::from_utf8_lossy(&expected)
    );
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
}

#[test]
fn a_provider_prefix_on_the_model_is_cut() {
    let (upstream, node) = renamed();
    let answer = node.ask(&Ask::post_bytes(CHAT, odd_body("openai/gpt-4o-mini", 0)).bearer(KEY));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(upstream.seen().remove(0).body == odd_body("gpt-4o-mini", 0));
}

#[test]
fn the_answer_comes_back_byte_for_byte() {
    let body = b"{ \"usage\" : {\"prompt_tokens\":3, \"completion_tokens\":4,\"total_tokens\":7},\n \"odd\": 1.0,\"choices\":[] }\n";
    let upstream = Upstream::start(|exchange| {
        let headers = [
            ("content-type", "application/json"),
            ("x-request-id", "up-1"),
            ("x-custom", "kept"),
        ];
        exchange.reply(200, &headers, body);
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let answer = node.ask(&Ask::post_bytes(CHAT, odd_body("gpt-4o-mini", 0)).bearer(KEY));
    assert_eq!(answer.body, body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// Every framing with one size; the provider must have been given the same bytes.
fn every_framing(padding: usize) {
    let (upstream, node) = renamed();
    let sent = odd_body("house", padding);
    let expected = odd_body("gpt-4o-mini-2024-07-18", padding);
    let plain = Ask::post_bytes(CHAT, sent).bearer(KEY);
    let answers = [
        ("content-length", node.ask(&plain)),
        (
            "chunked by 64 KiB",
            node.ask(&plain.clone().chunked(64 * 1024)),
        ),
        (
            "chunked by 1,000 bytes",
            node.ask(&plain.clone().chunked(1_000)),
        ),
        ("h2c", h2c::ask(node.data, plain)),
    ];
    for (framing, answer) in answers {
        assert_eq!(answer.status(), 200, "{framing}: {}", answer.text());
        assert!(answer.complete, "{framing}: the answer is whole");
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 4);
    for (number, request) in seen.iter().enumerate() {
        assert!(
            request.body == expected,
            "request {number}: other bytes reached the provider"
        );
    }
}

#[test]
fn a_body_of_100_kib_in_each_framing() {
    every_framing(100 * 1024);
}

#[test]
fn a_body_of_20_mib_in_each_framing() {
    every_framing(20 * 1024 * 1024);
}

#[test]
fn a_large_answer_comes_back_whole_in_http_1_and_2() {
    let text = "y".repeat(20 * 1024 * 1024);
    let body = json!({"choices": [{"message": {"content": text}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}});
    let body = body.to_string().into_bytes();
    let sent = body.clone();
    let upstream = Upstream::start(move |exchange| {
        exchange.reply(200, &[("content-type", "application/json")], &sent);
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let ask = Ask::post_bytes(CHAT, odd_body("gpt-4o-mini", 0)).bearer(KEY);
    assert!(node.ask(&ask).body == body);
    assert!(h2c::ask(node.data, ask).body == body);
    let records = node.records_exactly(2);
    assert!(
        records.iter().all(|r| (r.input, r.output) == (1, 2)),
        "{records:?}"
    );
}

fn compressed(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(body).expect("gzip");
            writer.finish().expect("gzip")
        }
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 5, 20)
                .write_all(body)
                .expect("brotli");
            out
        }
        _ => zstd::encode_all(body, 3).expect("zstd"),
    }
}

#[test]
fn compressed_requests_are_decoded() {
    let (upstream, node) = renamed();
    for coding in ["gzip", "br", "zstd"] {
        let packed = compressed(coding, &odd_body("house", 100_000));
        let ask = Ask::post_bytes(CHAT, packed)
            .bearer(KEY)
            .header("content-encoding", coding);
        let answer = node.ask(&ask);
        assert_eq!(answer.status(), 200, "{coding}: {}", answer.text());
    }
    for seen in upstream.seen() {
        assert_eq!(seen.header("content-encoding"), None);
        assert!(seen.body == odd_body("gpt-4o-mini-2024-07-18", 100_000));
    }
}

#[test]
fn a_compressed_bomb_is_413_and_a_strange_coding_is_415() {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address).server("max_body: 1MiB"));
    for coding in ["gzip", "br", "zstd"] {
        let packed = compressed(coding, &odd_body("gpt-4o-mini", 64 * 1024 * 1024));
        assert!(
            packed.len() < 1024 * 1024,
            "{coding} packs it below max_body"
        );
        let ask = Ask::post_bytes(CHAT, packed)
            .bearer(KEY)
            .header("content-encoding", coding);
        let answer = node.ask(&ask);
        assert_eq!(answer.status(), 413, "{coding}: {}", answer.text());
    }
    let strange = Ask::post_bytes(CHAT, odd_body("gpt-4o-mini", 0))
        .bearer(KEY)
        .header("content-encoding", "compress");
    assert_eq!(node.ask(&strange).status(), 415);
    let broken = Ask::post_bytes(CHAT, b"not gzip at all".to_vec())
        .bearer(KEY)
        .header("content-encoding", "gzip");
    assert_eq!(node.ask(&broken).status(), 400);
    assert_eq!(upstream.count(), 0);
}

fn message_answer() -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
        "content": [{"type": "thinking", "thinking": "", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "eA=="}, {"type": "text", "text": "pong"}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 2}})
}

#[test]
fn anthropic_headers_and_blocks_are_untouched() {
    let upstream = Upstream::start(|exchange| exchange.json(200, &message_answer()));
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let body = br#"{"model":"claude-haiku-4-5","max_tokens":16,"thinking":{"type":"enabled","budget_tokens":1024},"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral","ttl":"1h"}}],"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"c2ln"},{"type":"redacted_thinking","data":"eA=="},{"type":"new_kind_of_block","x":[1]}]},{"role":"user","content":"hi"}],"context_management":{"edits":[]}}"#;
    let beta = "claude-code-20250219,interleaved-thinking-2025-05-14, fine-grained-tool-streaming-2025-05-14";
    for path in ["/v1/messages?beta=true", "/anthropic/v1/messages?beta=true"] {
        let ask = Ask::post_bytes(path, body.to_vec())
            .header("x-api-key", KEY)
            .header("anthropic-version", "2023-06-01")
            .header("anthropic-beta", beta);
        let answer = node.ask(&ask);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.json(), message_answer());
    }
    for seen in upstream.seen() {
        assert_eq!(seen.path, "/v1/messages?beta=true");
        assert!(seen.body == body, "the body is as it was");
        assert_eq!(seen.header("anthropic-beta"), Some(beta));
        assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
        assert_eq!(seen.header("x-api-key"), Some(ANTHROPIC_SECRET));
        assert_eq!(seen.header("authorization"), None);
    }
}

#[test]
fn a_repeated_prefix_stays_the_same_bytes() {
    let (upstream, node) = renamed();
    for turn in 0..20 {
        let mut body = odd_body("house", 500);
        body.truncate(body.len() - 3);
        body.extend(format!(",\"turn\":{turn}}}").bytes());
        assert_eq!(
            node.ask(&Ask::post_bytes(CHAT, body).bearer(KEY)).status(),
            200
        );
    }
    let length = odd_body("gpt-4o-mini-2024-07-18", 500).len() - 3;
    let seen = upstream.seen();
    assert!(
        seen.iter()
            .all(|one| one.body[..length] == seen[0].body[..length])
    );
}

#[test]
fn usage_is_asked_for_in_streams_by_one_splice() {
    let upstream = Upstream::start(|exchange| {
        exchange.stream();
        exchange.event("[DONE]");
        exchange.end();
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let sent = [
        (
            r#"{"model":"gpt-4o-mini","stream":true,"messages":[]}"#,
            "inserted",
        ),
        (
            r#"{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":false,"x":1},"messages":[]}"#,
            "turned",
        ),
        (
            r#"{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#,
            "kept",
        ),
    ];
    for (body, _) in sent {
        assert_eq!(
            node.ask(&Ask::post_bytes(CHAT, body).bearer(KEY)).status(),
            200
        );
    }
    let seen = upstream.seen();
    for (request, (body, what)) in seen.iter().zip(sent) {
        assert_eq!(
            request.json()["stream_options"]["include_usage"],
            true,
            "{what}"
        );
        assert_eq!(request.json()["messages"], json!([]), "{what}");
        if what == "kept" {
            assert_eq!(String::from_utf8_lossy(&request.body), body);
        }
    }
    assert_eq!(seen[1].json()["stream_options"]["x"], 1);
}

#[test]
fn hop_by_hop_and_gateway_headers_stay_here() {
    let (upstream, node) = renamed();
    let ask = Ask::post_bytes(CHAT, odd_body("house", 0))
        .bearer(KEY)
        .header("connection", "keep-alive, x-private")
        .header("x-private", "1")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic abc")
        .header("x-custom", "kept")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    assert_eq!(node.ask(&ask).status(), 200);
    let seen = upstream.seen().remove(0);
    for gone in ["x-private", "te", "proxy-authorization"] {
        assert_eq!(seen.header(gone), None, "{gone} is for one hop");
    }
    assert_eq!(seen.header("x-custom"), Some("kept"));
    assert!(
        seen.header("traceparent")
            .is_some_and(|value| value.contains("0af7651916cd43dd8448eb211c80319c"))
    );
}

#[test]
fn expect_100_continue_is_answered() {
    let (_upstream, node) = renamed();
    let ask = Ask::post_bytes(CHAT, odd_body("house", 100_000))
        .bearer(KEY)
        .header("expect", "100-continue");
    let mut connection = crate::harness::Connection::open(node.data);
    connection.send(&ask.head()).expect("the head is taken");
    connection.patience(std::time::Duration::from_secs(5));
    let mut first = [0; 12];
    let mut stream = connection.stream();
    std::io::Read::read_exact(&mut stream, &mut first).expect("an interim answer");
    assert_eq!(&first, b"HTTP/1.1 100");
    connection.send(&ask.body).expect("the body is taken");
    // What is left of the interim head is skipped as a head of its own.
    let head = connection.head().expect("the rest of the interim answer");
    let status = if head.status == 0 {
        connection.head().expect("an answer").status
    } else {
        head.status
    };
    assert_eq!(status, 200);
}

#[test]
fn many_requests_share_one_connection() {
    let (upstream, node) = renamed();
    let ask = Ask::post_bytes(CHAT, odd_body("house", 100)).bearer(KEY);
    let mut connection = crate::harness::Connection::open(node.data);
    for _ in 0..50 {
        assert_eq!(connection.exchange(&ask).status(), 200);
    }
    let answers = h2c::ask_all(node.data, vec![ask; 50]);
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(upstream.count(), 100);
}
