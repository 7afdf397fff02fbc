//! Near the end of a limit: bounds that are lowered, prompts that are counted,
//! and holds that grow with a long answer.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::harness::node::number;
use crate::harness::upstream::{chat_chunk, chat_end};
use crate::harness::{Ask, Conf, Connection, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";

fn chat(fields: Value) -> Value {
    let mut body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]});
    let added = fields.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(added);
    body
}

fn limited(upstream: &Upstream, lines: &str) -> Node {
    Node::start(&Conf::for_upstream(upstream.address).limited(lines))
}

#[test]
fn a_bound_is_lowered_to_what_is_left() {
    let upstream = Upstream::chat();
    let node = limited(
        &upstream,
        "rate_limits: [{tokens: 500, every: 1h, enforcement: strict, on_tight: clamp}]",
    );
    for (sent, field) in [
        (json!({"max_tokens": 5000}), "max_tokens"),
        (json!({}), "max_completion_tokens"),
    ] {
        let answer = node.post(CHAT, &chat(sent));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let clamped: u64 = answer
            .header("x-tyr-clamped")
            .expect("it says so")
            .parse()
            .unwrap();
        assert!((300..500).contains(&clamped), "{clamped}");
        let seen = upstream.seen().pop().unwrap().json();
        assert_eq!(seen[field], clamped, "{seen}");
        node.settled("demo", "tokens");
    }
    let fits = node.post(CHAT, &chat(json!({"max_tokens": 10})));
    assert_eq!(fits.header("x-tyr-clamped"), None);
    assert_eq!(upstream.seen().pop().unwrap().json()["max_tokens"], 10);
    let large = "word ".repeat(2_000);
    let prompt = json!({"messages": [{"role": "user", "content": large}]});
    let refused = node.post(CHAT, &chat(prompt));
    assert_eq!(refused.status(), 429, "the prompt alone is too large");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(node.metric("tyr_clamped_requests_total", ""), 2.0);
}

#[test]
fn a_budget_bounds_answers_of_messages_too() {
    let upstream = Upstream::start(|exchange| {
        let usage = json!({"input_tokens": 10, "output_tokens": 5});
        exchange.json(
            200,
            &json!({"id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude-haiku-4-5", "content": [], "stop_reason": "end_turn", "usage": usage}),
        );
    });
    let node = limited(
        &upstream,
        "budgets: [{limit_usd: 0.005, every: 1d, enforcement: strict, on_tight: clamp}]",
    );
    let body = json!({"model": "claude-haiku-4-5", "max_tokens": 60000, "messages": [{"role": "user", "content": "hi"}]});
    let answer = node.post("/v1/messages", &body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let clamped: u64 = answer
        .header("x-tyr-clamped")
        .expect("it says so")
        .parse()
        .unwrap();
    // 0.005 USD buy a thousand tokens of output, less the prompt.
    assert!((900..1_000).contains(&clamped), "{clamped}");
    assert_eq!(upstream.seen()[0].json()["max_tokens"], clamped);
}

#[test]
fn a_tight_prompt_is_counted_not_guessed() {
    let upstream = Upstream::chat();
    let node = limited(
        &upstream,
        "rate_limits: [{tokens: 450, every: 1h, enforcement: strict}]",
    );
    // 2,200 bytes are guessed as 550 tokens and are about 100.
    let prompt = " internationalization".repeat(105);
    let body = chat(json!({"max_tokens": 5, "messages": [{"role": "user", "content": prompt}]}));
    // The first count reads the vocabulary and comes too late.
    eventually("the count admits what a guess refuses", || {
        (node.post(CHAT, &body).status() == 200).then_some(())
    });
    let exact = node.metric("tyr_prompt_counts_total", r#"outcome="exact""#);
    assert!(exact >= 1.0, "{exact}");
    let roomy = chat(json!({"max_tokens": 5}));
    assert_eq!(node.post(CHAT, &roomy).status(), 200);
    let counts = node.metric("tyr_prompt_counts_total", r#"outcome="exact""#);
    assert_eq!(counts, exact, "nothing is counted where there is room");
}

#[test]
fn a_long_stream_holds_more_as_it_runs() {
    let (go, wait) = mpsc::sync_channel::<()>(1);
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |exchange| {
        exchange.stream();
        // 12,000 bytes of text are about 3,000 tokens.
        for _ in 0..12 {
            exchange.event(&chat_chunk(&"word ".repeat(200)));
        }
        let _ = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
        for data in chat_end(10, 3_100) {
            exchange.event(&data);
        }
        exchange.event("[DONE]");
        exchange.end();
    });
    let node = limited(&upstream, "rate_limits: [{tokens: 100000, every: 1h}]");
    let mut connection = Connection::open(node.data);
    connection.ask(&Ask::post(CHAT, &chat(json!({"stream": true}))));
    let reserved = eventually("the hold follows the answer", || {
        let reserved = number(&node.standing_of("demo", "tokens")["reserved"]);
        (reserved > 3_000.0).then_some(reserved)
    });
    assert!(reserved < 3_600.0, "{reserved}");
    go.send(()).expect("the provider waits");
    connection.answer();
    let settled = node.settled("demo", "tokens");
    assert_eq!(number(&settled["used"]), 3_110.0);
}
