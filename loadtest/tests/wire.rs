//! The mock over real sockets: both dialects, whole and streamed, HTTP/1.1 and HTTP/2.

#![allow(clippy::unwrap_used, clippy::large_futures)]

mod client;

use client::{Client, events};
use loadtest::Options;
use serde_json::{Value, json};

fn chat(text: &str) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]})
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

#[tokio::test]
async fn chat_whole_under_both_paths() {
    let client = Client::new(Options::default()).await;
    for path in ["/v1/chat/completions", "/chat/completions"] {
        let answer = client.post(path, &chat("12345678")).await;
        assert_eq!(answer.status, 200);
        let body = answer.json();
        assert_eq!(body["usage"]["prompt_tokens"], 2);
        assert_eq!(body["usage"]["completion_tokens"], 20);
        assert_eq!(
            body["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .len(),
            80
        );
    }
}

#[tokio::test]
async fn chat_stream_has_a_usage_chunk_only_when_asked() {
    let client = Client::new(Options::default()).await;
    let plain = client
        .post("/v1/chat/completions", &streamed(chat("[[mock tokens=3]]")))
        .await;
    let plain = events(&plain.body);
    assert_eq!(plain.last().unwrap().data, "[DONE]");
    assert!(!plain.iter().any(|e| e.data.contains("usage")));
    assert_eq!(plain.len(), 6, "role, three pieces, finish, done");

    let mut body = streamed(chat("[[mock tokens=3]]"));
    body["stream_options"] = json!({"include_usage": true});
    let asked = events(&client.post("/v1/chat/completions", &body).await.body);
    let usage = asked[asked.len() - 2].json();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn several_choices_are_interleaved() {
    let client = Client::new(Options::default()).await;
    let mut body = streamed(chat("[[mock tokens=2]]"));
    body["n"] = 2.into();
    let all = events(&client.post("/v1/chat/completions", &body).await.body);
    let indices: Vec<_> = all
        .iter()
        .filter(|e| e.data != "[DONE]")
        .map(|e| e.json()["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices, [0, 1, 0, 1, 0, 1, 0, 1]);
}

#[tokio::test]
async fn a_tool_call_arrives_in_pieces_that_add_up() {
    let client = Client::new(Options::default()).await;
    let body = streamed(chat(r#"[[mock tool=weather args='{"city":"Oslo"}']]"#));
    let all = events(&client.post("/v1/chat/completions", &body).await.body);
    let mut arguments = String::new();
    for event in all.iter().filter(|e| e.data != "[DONE]") {
        let event = event.json();
        let call = &event["choices"][0]["delta"]["tool_calls"][0];
        arguments += call["function"]["arguments"].as_str().unwrap_or_default();
    }
    assert_eq!(arguments, r#"{"city":"Oslo"}"#);
    assert_eq!(
        all[all.len() - 2].json()["choices"][0]["finish_reason"],
        "tool_calls"
    );
}

#[tokio::test]
async fn messages_stream_is_well_formed() {
    let client = Client::new(Options::default()).await;
    let body = streamed(json!({"model": "claude", "max_tokens": 99,
        "messages": [{"role": "user", "content": "[[mock tokens=2 thinking tool=Bash cached=3]]"}]}));
    let all = events(&client.post("/v1/messages", &body).await.body);
    assert!(
        all.iter().all(|e| e.json()["type"] == e.name.as_str()),
        "event: line equals type"
    );
    let names: Vec<_> = all.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(
        &names[..3],
        ["message_start", "ping", "content_block_start"]
    );
    assert_eq!(
        &names[names.len() - 3..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let mut open = None;
    for event in all.iter().map(client::Event::json) {
        let index = event["index"].as_u64();
        match event["type"].as_str().unwrap() {
            "content_block_start" => assert_eq!(open.replace(index), None),
            "content_block_delta" => assert_eq!(open, Some(index)),
            "content_block_stop" => assert_eq!(open.take(), Some(index)),
            _ => assert_eq!(open, None),
        }
    }
    let start = all[0].json();
    let usage = &start["message"]["usage"];
    let delta = all[all.len() - 2].json();
    assert_eq!(usage["cache_read_input_tokens"], 3);
    assert_eq!(delta["usage"]["input_tokens"], usage["input_tokens"]);
    let carried = all
        .iter()
        .filter(|e| e.name == "content_block_delta")
        .count() as u64;
    // Neither the signature nor the empty first piece of arguments is a token.
    assert_eq!(delta["usage"]["output_tokens"], carried - 2);
}

#[tokio::test]
async fn messages_whole_and_count_tokens() {
    let client = Client::new(Options::default()).await;
    let body = json!({"model": "c", "max_tokens": 2, "system": "abcd", "messages": [{"role": "user", "content": "abcd"}]});
    let answer = client.post("/v1/messages?beta=true", &body).await.json();
    assert_eq!(answer["stop_reason"], "max_tokens");
    assert_eq!(answer["usage"]["input_tokens"], 2);
    assert_eq!(answer["usage"]["output_tokens"], 2);
    let count = client.post("/v1/messages/count_tokens", &body).await.json();
    assert_eq!(count, json!({"input_tokens": 2}));
}

#[tokio::test]
async fn responses_events_follow_the_state_machine() {
    let client = Client::new(Options::default()).await;
    let body = json!({"model": "g", "stream": true, "input": "[[mock tokens=2 thinking tool=f args='{}']]"});
    let all = events(&client.post("/v1/responses", &body).await.body);
    let mut open = None;
    for (number, event) in all.iter().enumerate() {
        let data = event.json();
        assert_eq!(data["sequence_number"], number);
        assert_eq!(data["type"], event.name.as_str());
        let index = data["output_index"].as_u64();
        match event.name.as_str() {
            "response.output_item.added" => assert_eq!(open.replace(index), None),
            "response.output_item.done" => assert_eq!(open.take(), Some(index)),
            "response.created" | "response.in_progress" | "response.completed" => {
                assert_eq!(open, None)
            }
            _ => assert_eq!(open, Some(index)),
        }
    }
    let last = all.last().unwrap();
    assert_eq!(last.name, "response.completed");
    let kinds: Vec<_> = last.json()["response"]["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
}

#[tokio::test]
async fn a_cut_response_is_incomplete() {
    let client = Client::new(Options::default()).await;
    let body = json!({"model": "g", "stream": true, "max_output_tokens": 1, "input": "q"});
    let all = events(&client.post("/v1/responses", &body).await.body);
    assert_eq!(all.last().unwrap().name, "response.incomplete");
}

#[tokio::test]
async fn embeddings_in_both_encodings_say_the_same() {
    let client = Client::new(Options::default()).await;
    let mut body = json!({"model": "e", "input": ["a", "bcdef"], "dimensions": 3});
    let numbers = client.post("/v1/embeddings", &body).await.json();
    body["encoding_format"] = "base64".into();
    let coded = client.post("/v1/embeddings", &body).await.json();
    for i in 0..2 {
        use base64::Engine;
        let text = coded["data"][i]["embedding"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap();
        let floats: Vec<f64> = bytes
            .chunks(4)
            .map(|c| f64::from(f32::from_le_bytes(c.try_into().unwrap())))
            .collect();
        assert_eq!(numbers["data"][i]["embedding"], json!(floats));
    }
    assert_eq!(
        numbers["usage"],
        json!({"prompt_tokens": 2, "total_tokens": 2})
    );
}

#[tokio::test]
async fn completions_whole_and_streamed() {
    let client = Client::new(Options::default()).await;
    let body = json!({"model": "g?tokens=2", "prompt": "q"});
    assert_eq!(
        client.post("/v1/completions", &body).await.json()["choices"][0]["text"],
        "the sun "
    );
    let all = events(&client.post("/v1/completions", &streamed(body)).await.body);
    assert_eq!(all.len(), 4);
    assert_eq!(all[3].data, "[DONE]");
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_too() {
    let client = Client::http2(Options::default()).await;
    let answer = client
        .post("/v1/chat/completions", &streamed(chat("hi")))
        .await;
    assert_eq!(events(&answer.body).last().unwrap().data, "[DONE]");
    assert_eq!(client.stats().await["last"]["version"], "HTTP/2.0");
}

#[tokio::test]
async fn models_and_unknown_paths() {
    let client = Client::new(Options {
        models: vec!["extra".into()],
        ..Options::default()
    })
    .await;
    let list = client.call("GET", "/v1/models", &[], "").await.json();
    assert_eq!(
        list["data"].as_array().unwrap().last().unwrap()["id"],
        "extra"
    );
    let anthropic = client
        .call(
            "GET",
            "/v1/models?limit=9",
            &[("anthropic-version", "1")],
            "",
        )
        .await
        .json();
    assert_eq!(anthropic["last_id"], "extra");
    assert_eq!(client.call("GET", "/v1/nothing", &[], "").await.status, 404);
    assert_eq!(
        client
            .call("GET", "/v1/responses", &[("upgrade", "websocket")], "")
            .await
            .status,
        426
    );
    assert_eq!(client.call("HEAD", "/", &[], "").await.status, 200);
}

#[tokio::test]
async fn stats_tell_what_came_and_what_went() {
    let client = Client::new(Options::default()).await;
    let sent = chat("12345678").to_string();
    let headers = [
        ("authorization", "Bearer k"),
        ("content-type", "application/json"),
    ];
    let answer = client
        .call("POST", "/v1/chat/completions?q=1", &headers, &sent)
        .await;
    let stats = client.stats().await;
    let last = &stats["last"];
    assert_eq!(last["path"], "/v1/chat/completions");
    assert_eq!(last["query"], "q=1");
    assert_eq!(last["body_sha256"], client::sha256(sent.as_bytes()));
    assert_eq!(last["response_sha256"], client::sha256(&answer.body));
    assert_eq!(last["body_len"], sent.len());
    assert!(
        last["headers"]
            .as_array()
            .unwrap()
            .contains(&json!(["authorization", "Bearer k"]))
    );
    assert_eq!(
        stats["served"],
        json!({"input_tokens": 2, "output_tokens": 20})
    );
    assert_eq!(stats["by_model"], json!({"gpt-4o-mini": 1}));
    assert_eq!(stats["in_flight"], 0);
    let kept = client.call("GET", "/mock/requests/0/body", &[], "").await;
    assert_eq!(kept.body, sent.as_bytes());
    assert_eq!(
        client.call("DELETE", "/mock/stats", &[], "").await.status,
        204
    );
    let empty = client.stats().await;
    assert_eq!(
        (&empty["requests"], &empty["last"]),
        (&json!(0), &Value::Null)
    );
}
