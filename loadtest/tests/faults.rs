//! Every fault the mock can be asked for, seen from the other end of a socket.

#![allow(clippy::unwrap_used, clippy::large_futures)]

mod client;

use std::time::Duration;

use client::{Client, events};
use http_body_util::BodyExt;
use loadtest::Options;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CHAT: &str = "/v1/chat/completions";

fn asking(directives: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": format!("[[mock {directives}]]")}]})
}

fn stream(directives: &str) -> Value {
    let mut body = asking(directives);
    body["stream"] = true.into();
    body
}

#[tokio::test]
async fn a_status_with_its_headers_in_both_forms() {
    let client = Client::new(Options::default()).await;
    let body = asking("status=429 retry_after=7 should_retry=false code=insufficient_quota");
    let openai = client.post(CHAT, &body).await;
    assert_eq!((openai.status, openai.header("retry-after")), (429, "7"));
    assert_eq!(openai.header("x-should-retry"), "false");
    assert_eq!(openai.json()["error"]["code"], "insufficient_quota");
    let anthropic = client.post("/v1/messages", &asking("status=529")).await;
    assert_eq!(anthropic.status, 529);
    assert_eq!(anthropic.json()["error"]["type"], "overloaded_error");
    assert!(anthropic.header("request-id").starts_with("req_mock_"));
}

#[tokio::test]
async fn times_and_statuses_count_per_id() {
    let client = Client::new(Options::default()).await;
    let mut seen = Vec::new();
    for id in ["a", "a", "b", "a", "b"] {
        seen.push(
            client
                .post(CHAT, &asking(&format!("status=500 times=2 id={id}")))
                .await
                .status,
        );
    }
    assert_eq!(seen, [500, 500, 500, 200, 500]);
    seen.clear();
    for _ in 0..4 {
        seen.push(
            client
                .post(CHAT, &asking("statuses=429,ok,503 id=list"))
                .await
                .status,
        );
    }
    assert_eq!(seen, [429, 200, 503, 200]);
}

#[tokio::test]
async fn directives_by_header_model_metadata_and_user() {
    let client = Client::new(Options::default()).await;
    let plain = asking("").to_string();
    assert_eq!(
        client
            .call("POST", CHAT, &[("x-mock", "status=418")], &plain)
            .await
            .status,
        418
    );
    let mut body = asking("");
    body["model"] = "m?status=402".into();
    assert_eq!(client.post(CHAT, &body).await.status, 402);
    body["metadata"] = json!({"mock": "status=403"});
    assert_eq!(client.post(CHAT, &body).await.status, 403);
    body["user"] = "mock status=404".into();
    assert_eq!(client.post(CHAT, &body).await.status, 404);
    assert_eq!(client.post(CHAT, &asking("statsu=1")).await.status, 400);
}

#[tokio::test]
async fn errors_by_chance_repeat_with_the_seed() {
    let options = Options {
        error_rate: 0.5,
        error_status: 503,
        seed: 7,
        ..Options::default()
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let client = Client::new(options.clone()).await;
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(client.post(CHAT, &asking("")).await.status);
        }
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&503) && runs[0].contains(&200));
}

#[tokio::test]
async fn a_reset_before_the_head_and_a_hang() {
    let client = Client::new(Options::default()).await;
    let json = [("content-type", "application/json")];
    let reset = client
        .try_call(
            "POST",
            CHAT,
            &json,
            &asking("reset_before_head").to_string(),
        )
        .await;
    assert!(reset.is_none());
    let body = asking("hang").to_string();
    let hang = client.open("POST", CHAT, &json, &body);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), hang)
            .await
            .is_err()
    );
}

/// What is left of a stream of two pieces with a fault after two events.
async fn broken_stream(client: &Client, directive: &str) -> client::Answer {
    client
        .post(CHAT, &stream(&format!("tokens=4 {directive}")))
        .await
}

#[tokio::test]
async fn streams_break_where_they_are_told_to() {
    for client in [
        Client::new(Options::default()).await,
        Client::http2(Options::default()).await,
    ] {
        let cut = broken_stream(&client, "cut_after=2").await;
        assert!(cut.broken);
        assert_eq!(events(&cut.body).len(), 2);
        let dropped = broken_stream(&client, "drop_after=2").await;
        assert!(dropped.broken);
        assert_eq!(events(&dropped.body).len(), 2);
        let clean = broken_stream(&client, "close_clean_after=2").await;
        assert!(!clean.broken);
        assert_eq!(events(&clean.body).len(), 2);
        let half = broken_stream(&client, "half_event_after=2").await;
        assert!(half.broken && !half.body.ends_with(b"\n\n"));
        assert_eq!(events(&half.body).len(), 2);
        let done = broken_stream(&client, "no_done").await;
        assert!(!done.broken && events(&done.body).iter().all(|e| e.data != "[DONE]"));
        assert_eq!(client.stats().await["outcomes"]["fault"], 4);
    }
}

#[tokio::test]
async fn an_error_event_has_the_form_of_its_dialect() {
    let client = Client::new(Options::default()).await;
    let chat = client
        .post(CHAT, &stream("error_after=1 code=overloaded message=busy"))
        .await;
    let chat = events(&chat.body);
    assert_eq!(chat.last().unwrap().json()["error"]["code"], "overloaded");
    let messages = events(
        &client
            .post("/v1/messages", &stream("error_after=2"))
            .await
            .body,
    );
    assert_eq!(messages.last().unwrap().name, "error");
    let body = json!({"model": "m", "stream": true, "input": "[[mock error_after=3]]"});
    let responses = events(&client.post("/v1/responses", &body).await.body);
    assert_eq!(responses.last().unwrap().name, "response.failed");
}

#[tokio::test]
async fn a_trickle_and_odd_framing_carry_the_same_events() {
    let client = Client::new(Options::default()).await;
    let plain = client.post(CHAT, &stream("tokens=2")).await;
    for directive in ["trickle=5", "crlf", "comments"] {
        let odd = client
            .post(CHAT, &stream(&format!("tokens=2 {directive}")))
            .await;
        assert_ne!(odd.body.len(), 0);
        assert_eq!(
            events(&odd.body).len(),
            events(&plain.body).len(),
            "{directive}"
        );
    }
}

#[tokio::test]
async fn usage_is_shaped_as_asked() {
    let client = Client::new(Options::default()).await;
    let body = asking("input=100 output=50 cached=40 reasoning=10");
    let usage = client.post(CHAT, &body).await.json()["usage"].clone();
    assert_eq!(usage["prompt_tokens"], 100);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 40);
    assert_eq!(usage["completion_tokens"], 50);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 10);
    let body = asking("input=100 cached=40 cache_write=5 cache_write_1h=6");
    let usage = client.post("/v1/messages", &body).await.json()["usage"].clone();
    assert_eq!(usage["input_tokens"], 49);
    assert_eq!(usage["cache_creation_input_tokens"], 11);
    assert!(
        client
            .post(CHAT, &asking("no_usage"))
            .await
            .json()
            .get("usage")
            .is_none()
    );
    let chunks = events(
        &client
            .post(CHAT, &stream("tokens=2 usage_in_every_chunk"))
            .await
            .body,
    );
    let growing: Vec<_> = chunks[..4]
        .iter()
        .map(|e| e.json()["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(growing, [0, 1, 2, 2]);
}

#[tokio::test]
async fn bodies_that_lie() {
    let client = Client::new(Options::default()).await;
    let html = client.post(CHAT, &asking("bad_content_type")).await;
    assert_eq!(html.header("content-type"), "text/html");
    let half = client.post(CHAT, &asking("invalid_json")).await;
    assert!(serde_json::from_slice::<Value>(&half.body).is_err());
    let cut = client.post(CHAT, &asking("cut_body=10")).await;
    assert_eq!((cut.broken, cut.body.len()), (true, 10));
    let big = client.post(CHAT, &stream("tokens=1 big=1048576")).await;
    assert!(events(&big.body)[2].data.len() > 1_048_576);
}

#[tokio::test]
async fn an_early_answer_comes_before_the_body_ends() {
    let client = Client::new(Options::default()).await;
    let mut socket = TcpStream::connect(client.address).await.unwrap();
    let start = r#"{"model":"m","messages":[{"role":"user","content":"[[mock early=413]]"#;
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: mock\r\ncontent-length: 100000\r\n\r\n{start}");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let reading = tokio::time::timeout(Duration::from_secs(5), socket.read_exact(&mut answer));
    reading
        .await
        .expect("an answer while the body is still due")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // The rest is still taken.
    socket
        .write_all(&vec![b'x'; 100_000 - start.len()])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_is_a_cancelled_stream() {
    let client = Client::new(Options::default()).await;
    let body = stream("tokens=3 stall_after=2").to_string();
    let response = client
        .open("POST", CHAT, &[("content-type", "application/json")], &body)
        .await
        .unwrap();
    let mut incoming = response.into_body();
    let first = incoming.frame().await.unwrap().unwrap();
    assert!(first.into_data().is_ok_and(|data| !data.is_empty()));
    drop(incoming);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let stats = loop {
        let stats = client.stats().await;
        if stats["in_flight"] == 0 || tokio::time::Instant::now() > deadline {
            break stats;
        }
    };
    assert_eq!(stats["cancelled"], 1);
    assert_eq!(stats["last"]["outcome"], "cancelled");
    assert_eq!(stats["last"]["events"], 2);
    assert_eq!(stats["served"]["output_tokens"], 1);
}

#[tokio::test]
async fn pace_is_kept_and_a_stall_can_end() {
    let client = Client::new(Options::default()).await;
    let started = std::time::Instant::now();
    let body = stream("tokens=5 token_ms=20 ttft=50 stall_after=1 stall_ms=30");
    let answer = client.post(CHAT, &body).await;
    assert_eq!(events(&answer.body).last().unwrap().data, "[DONE]");
    assert!(started.elapsed() >= Duration::from_millis(50 + 30 + 4 * 20));
}
