//! What is recorded for each protocol, and what it costs, to the nano-dollar.

use serde_json::{Value, json};

use crate::harness::records::Record;
use crate::harness::upstream::{chat_chunk, chat_end};
use crate::harness::{Ask, Conf, Mock, Node, Upstream};

/// Nano-dollars per token of the prices in the test's configuration.
const GPT: Prices = Prices {
    input: 150,
    cache_read: 75,
    cache_write: 0,
    cache_write_1h: 0,
    output: 600,
};
const CLAUDE: Prices = Prices {
    input: 1000,
    cache_read: 100,
    cache_write: 1250,
    cache_write_1h: 2000,
    output: 5000,
};

struct Prices {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    cache_write_1h: u64,
    output: u64,
}

impl Prices {
    fn of(&self, record: &Record) -> u64 {
        record.input * self.input
            + record.cache_read * self.cache_read
            + record.cache_write * self.cache_write
            + record.cache_write_1h * self.cache_write_1h
            + (record.output + record.reasoning) * self.output
    }
}

/// One call to the mock: its record, and what the mock says it served.
fn call(path: &str, body: &Value) -> (Record, Value) {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    let mut ask = Ask::post(path, body);
    if path.ends_with("messages") {
        ask = ask.header("anthropic-version", "2023-06-01");
    }
    let answer = node.ask(&ask);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let record = node.records_exactly(1).remove(0);
    assert_eq!(
        (
            record.basis.as_str(),
            record.end_reason.as_str(),
            record.status
        ),
        ("reported", "success", 200),
        "{record:?}"
    );
    assert_eq!((record.key.as_str(), record.attempts), ("demo", 1));
    assert!(
        record
            .first_byte_ms
            .is_some_and(|first| first <= record.duration_ms),
        "{record:?}"
    );
    (record, mock.last())
}

fn user(directives: &str) -> Value {
    json!([{"role": "user", "content": format!("hello [[mock {directives}]]")}])
}

#[track_caller]
fn buckets(record: &Record, expected: [u64; 6]) {
    let found = [
        record.input,
        record.cache_read,
        record.cache_write,
        record.cache_write_1h,
        record.output,
        record.reasoning,
    ];
    assert_eq!(
        found, expected,
        "input, cache read, write, write 1h, output, reasoning: {record:?}"
    );
}

#[test]
fn chat_completions_unary_and_streamed() {
    for stream in [false, true] {
        let body = json!({"model": "gpt-4o-mini", "stream": stream,
            "messages": user("input=1000 cached=400 output=70 reasoning=20")});
        let (record, _) = call("/v1/chat/completions", &body);
        buckets(&record, [600, 400, 0, 0, 50, 20]);
        assert_eq!(record.cost_nano_usd, 600 * 150 + 400 * 75 + 70 * 600);
        assert_eq!(record.cost_nano_usd, GPT.of(&record));
        assert_eq!(
            (record.endpoint.as_str(), record.stream),
            ("chat_completions", stream)
        );
        assert_eq!(record.model_requested, "gpt-4o-mini");
        assert_eq!(record.model_served.as_deref(), Some("gpt-4o-mini"));
        assert!(
            record.started_at_ms > 1_700_000_000_000,
            "Unix milliseconds"
        );
        assert_eq!(
            (record.provider.as_deref(), record.credential.as_deref()),
            (Some("openai"), Some("main"))
        );
    }
}

#[test]
fn responses_unary_and_streamed() {
    for stream in [false, true] {
        let body = json!({"model": "gpt-4o-mini", "stream": stream,
            "input": "hello [[mock input=1000 cached=400 output=70 reasoning=20]]"});
        let (record, _) = call("/v1/responses", &body);
        buckets(&record, [600, 400, 0, 0, 50, 20]);
        assert_eq!(
            (record.cost_nano_usd, record.endpoint.as_str()),
            (GPT.of(&record), "responses")
        );
    }
}

#[test]
fn messages_unary_and_streamed() {
    for stream in [false, true] {
        let body = json!({"model": "claude-haiku-4-5", "max_tokens": 100, "stream": stream,
            "messages": user("input=1000 cached=300 cache_write=200 cache_write_1h=100 output=70")});
        let (record, _) = call("/v1/messages", &body);
        buckets(&record, [400, 300, 200, 100, 70, 0]);
        assert_eq!(
            (record.cost_nano_usd, record.endpoint.as_str()),
            (CLAUDE.of(&record), "messages")
        );
    }
}

#[test]
fn completions_and_embeddings() {
    for stream in [false, true] {
        let body = json!({"model": "gpt-3.5-turbo-instruct", "stream": stream, "prompt": "hello [[mock input=11 output=7]]"});
        let (record, _) = call("/v1/completions", &body);
        buckets(&record, [11, 0, 0, 0, 7, 0]);
        assert_eq!(record.cost_nano_usd, 11 * 1500 + 7 * 2000);
    }
    let (record, last) = call(
        "/v1/embeddings",
        &json!({"model": "text-embedding-3-small", "input": ["hello", "there"]}),
    );
    buckets(
        &record,
        [
            last["input_tokens"].as_u64().expect("a count"),
            0,
            0,
            0,
            0,
            0,
        ],
    );
    assert_eq!(
        (record.cost_nano_usd, record.endpoint.as_str()),
        (record.input * 20, "embeddings")
    );
}

#[test]
fn counting_tokens_costs_nothing() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    let body =
        json!({"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "hello"}]});
    let answer = node.post("/v1/messages/count_tokens", &body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(
        answer.json()["input_tokens"]
            .as_u64()
            .is_some_and(|count| count > 0)
    );
    let record = node.records_exactly(1).remove(0);
    assert_eq!(
        (
            record.cost_nano_usd,
            record.endpoint.as_str(),
            record.output
        ),
        (0, "count_tokens", 0),
        "{record:?}"
    );
}

#[test]
fn fractions_of_a_nano_dollar_are_rounded_up_once() {
    let mock = Mock::start();
    let mut conf = Conf::for_upstream(mock.address);
    conf.models =
        "  - {name: gpt-4o-mini, provider: openai, price: {input: 0.0003, output: 0.0005}}\n"
            .into();
    let node = Node::start(&conf);
    let body = json!({"model": "gpt-4o-mini", "messages": user("input=3 output=3")});
    assert_eq!(node.post("/v1/chat/completions", &body).status(), 200);
    // 0.9 and 1.5 nano-dollars: 2.4, rounded up once.
    assert_eq!(node.records_exactly(1)[0].cost_nano_usd, 3);
}

#[test]
fn a_streams_usage_chunk_is_hidden_from_those_who_did_not_ask() {
    let upstream = Upstream::start(|exchange| {
        exchange.stream();
        exchange.event(&chat_chunk("pong"));
        for data in chat_end(9, 4) {
            exchange.event(&data);
        }
        exchange.event("[DONE]");
        exchange.end();
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let mut body = json!({"model": "gpt-4o-mini", "stream": true, "messages": []});
    let hidden = node.post("/v1/chat/completions", &body).text();
    let [end, usage] = chat_end(9, 4);
    assert_eq!(
        hidden,
        format!(
            "data: {}\n\ndata: {end}\n\ndata: [DONE]\n\n",
            chat_chunk("pong")
        )
    );
    body["stream_options"] = json!({"include_usage": true});
    let shown = node.post("/v1/chat/completions", &body).text();
    assert!(shown.contains(&format!("data: {usage}\n\n")), "{shown}");
    let records = node.records_exactly(2);
    assert!(
        records
            .iter()
            .all(|r| (r.input, r.output, r.basis.as_str()) == (9, 4, "reported")),
        "{records:?}"
    );
}

#[test]
fn usage_is_counted_from_any_form_of_stream() {
    for directives in [
        "tokens=9 crlf",
        "tokens=9 comments",
        "tokens=9 usage_in_every_chunk",
        "tokens=9 trickle=5",
    ] {
        for (path, model) in [
            ("/v1/chat/completions", "gpt-4o-mini"),
            ("/v1/messages", "claude-haiku-4-5"),
        ] {
            let body = json!({"model": model, "stream": true, "max_tokens": 100, "messages": user(directives)});
            let (record, last) = call(path, &body);
            assert_eq!(record.output, 9, "{directives} on {path}: {record:?}");
            assert_eq!(
                Some(record.input),
                last["input_tokens"].as_u64(),
                "{directives} on {path}"
            );
        }
    }
}

#[test]
fn a_stream_without_usage_is_estimated_from_its_text() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    let body =
        json!({"model": "gpt-4o-mini", "stream": true, "messages": user("tokens=40 no_usage")});
    assert_eq!(node.post("/v1/chat/completions", &body).status(), 200);
    let record = node.records_exactly(1).remove(0);
    assert_eq!(
        (record.basis.as_str(), record.end_reason.as_str()),
        ("partial_estimate", "success"),
        "{record:?}"
    );
    assert!(
        (30..=60).contains(&record.output) && record.input > 0,
        "{record:?}"
    );
}

#[test]
fn a_compressed_answer_passes_and_is_metered() {
    use std::io::Write as _;
    let body = json!({"choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": 3, "total_tokens": 24}}).to_string();
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(body.as_bytes()).expect("gzip");
    let packed = writer.finish().expect("gzip");
    let sent = packed.clone();
    let upstream = Upstream::start(move |exchange| {
        exchange.reply(
            200,
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
            ],
            &sent,
        );
    });
    let node = Node::start(&Conf::for_upstream(upstream.address));
    let answer = node.post(
        "/v1/chat/completions",
        &json!({"model": "gpt-4o-mini", "messages": []}),
    );
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body, packed, "as it came");
    let record = node.records_exactly(1).remove(0);
    assert_eq!((record.input, record.output), (21, 3), "{record:?}");
}

#[test]
fn metrics_agree_with_the_records() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    for _ in 0..5 {
        let body = json!({"model": "gpt-4o-mini", "messages": user("input=100 output=7")});
        assert_eq!(node.post("/v1/chat/completions", &body).status(), 200);
    }
    node.post(
        "/v1/chat/completions",
        &json!({"model": "no-such-model-1", "messages": []}),
    );
    node.post(
        "/v1/chat/completions",
        &json!({"model": "no-such-model-2", "messages": []}),
    );
    let text = node.metrics();
    assert!(
        !text.contains("no-such-model"),
        "label values come from the configuration only"
    );
    let tokens = node.metric("tyr_tokens_total", "kind=\"output\"");
    assert_eq!(tokens, 35.0, "{text}");
    let cost = node.metric("tyr_cost_nano_usd_total", "model=\"gpt-4o-mini\"");
    assert_eq!(cost, 5.0 * (100.0 * 150.0 + 7.0 * 600.0));
}
