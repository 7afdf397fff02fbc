use std::path::Path;

use bytes::Bytes;
use policy::{Tokens, Usage};
use proptest::prelude::*;

use super::*;

mod course;

const MAX_EVENT: usize = 1024 * 1024;
const PROMPT: Tokens = Tokens(1_000);

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All that a meter tells about one answer.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    reported: Option<Usage>,
    partial: Usage,
    terminal: bool,
    finish: bool,
    error: bool,
    output_seen: bool,
    model: Option<String>,
}

impl From<&Meter> for Told {
    fn from(meter: &Meter) -> Self {
        Self {
            reported: meter.reported(),
            partial: meter.partial(PROMPT),
            terminal: meter.saw_terminal(),
            finish: meter.saw_finish(),
            error: meter.saw_error(),
            output_seen: meter.output_seen(),
            model: meter.served_model().map(str::to_owned),
        }
    }
}

/// Sends a stream through splitter and meter in the given pieces.
fn stream<'a>(
    endpoint: Endpoint,
    hide: bool,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<u8>, Told) {
    let mut splitter = EventSplitter::new(MAX_EVENT);
    let mut meter = Meter::for_stream(endpoint, hide);
    let mut client = Vec::new();
    for piece in pieces {
        splitter
            .push(Bytes::copy_from_slice(piece))
            .expect("short events");
        while let Some(batch) = splitter.next_batch() {
            client.extend_from_slice(&meter.on_events(batch));
        }
    }
    if let Some(rest) = splitter.take_remainder() {
        client.extend_from_slice(&meter.on_events(rest));
    }
    (client, Told::from(&meter))
}

fn copy<'a>(endpoint: Endpoint, pieces: impl IntoIterator<Item = &'a [u8]>) -> Told {
    let mut meter = Meter::for_stream(endpoint, false);
    pieces.into_iter().for_each(|piece| meter.on_chunk(piece));
    Told::from(&meter)
}

fn json<'a>(endpoint: Endpoint, pieces: impl IntoIterator<Item = &'a [u8]>) -> Told {
    let mut meter = Meter::for_json(endpoint);
    pieces.into_iter().for_each(|piece| meter.on_chunk(piece));
    Told::from(&meter)
}

/// The recording as it is, with CRLF, and with CR line ends.
fn with_line_ends(recording: &[u8]) -> [Vec<u8>; 3] {
    let text = String::from_utf8(recording.to_vec()).expect("UTF-8");
    [
        text.clone().into_bytes(),
        text.replace('\n', "\r\n").into_bytes(),
        text.replace('\n', "\r").into_bytes(),
    ]
}

/// Drives one recorded stream in every chunking, and answers what was told.
fn every_chunking(name: &str, endpoint: Endpoint, hidden_event: Option<&str>) -> Told {
    let recording = golden(name);
    let (_, told) = stream(endpoint, false, [recording.as_slice()]);
    for bytes in with_line_ends(&recording) {
        let whole = stream(endpoint, true, [bytes.as_slice()]);
        assert_eq!(whole.1, told, "{name}");
        match hidden_event {
            None => assert_eq!(whole.0, bytes, "{name}: nothing to hide"),
            Some(mark) => assert_without(&bytes, mark, &whole.0),
        }
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            let seen = stream(endpoint, false, [head, tail]);
            assert_eq!(seen, (bytes.clone(), told.clone()), "{name} cut at {at}");
            let hiding = stream(endpoint, true, [head, tail]);
            assert_eq!(hiding, whole, "{name} cut at {at}, hiding");
        }
        for size in [1, 2, 3, 7] {
            let seen = stream(endpoint, false, bytes.chunks(size));
            assert_eq!(seen, (bytes.clone(), told.clone()), "{name} by {size}");
            assert_eq!(stream(endpoint, true, bytes.chunks(size)), whole);
        }
    }
    // A copy, read beside a compressed stream, tells the same.
    assert_eq!(
        copy(endpoint, recording.chunks(5)),
        told,
        "{name} as a copy"
    );
    let marked = [b"\xef\xbb\xbf", recording.as_slice()].concat();
    let seen = stream(endpoint, false, marked.chunks(1));
    assert_eq!(seen, (marked.clone(), told.clone()), "{name} with a mark");
    told
}

/// `client` got all of `bytes` except the one event with `mark` in it.
fn assert_without(bytes: &[u8], mark: &str, client: &[u8]) {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let blank = ["\r\n\r\n", "\n\n", "\r\r"]
        .into_iter()
        .find(|b| text.contains(*b));
    let blank = blank.expect("events end");
    let events: Vec<&str> = text.split_inclusive(blank).collect();
    let kept: Vec<&str> = events
        .iter()
        .copied()
        .filter(|e| !e.contains(mark))
        .collect();
    assert_eq!(events.len(), kept.len() + 1);
    assert_eq!(client, kept.concat().as_bytes());
}

fn every_json_chunking(name: &str, endpoint: Endpoint) -> Told {
    let body = golden(name);
    let told = json(endpoint, [body.as_slice()]);
    for at in 0..=body.len() {
        let (head, tail) = body.split_at(at);
        assert_eq!(json(endpoint, [head, tail]), told, "{name} cut at {at}");
        let end = body.trim_ascii_end().len();
        let broken = json(endpoint, [&body[..at.min(end - 1)]]);
        assert_eq!(
            (broken.reported, broken.terminal),
            (None, false),
            "{name} ends at {at}"
        );
    }
    assert_eq!(json(endpoint, body.chunks(1)), told);
    assert!(told.terminal && !told.error, "{name}");
    told
}

fn usage(input: u64, cache_read: u64, cache_write: u64, output: u64, reasoning: u64) -> Usage {
    Usage {
        input,
        cache_read,
        cache_write,
        cache_write_1h: 0,
        output,
        reasoning,
    }
}

const USAGE_CHUNK: Option<&str> = Some(r#""choices":[],"usage":{"#);

#[test]
fn chat_streams() {
    let chat = |name, hidden| every_chunking(name, Endpoint::ChatCompletions, hidden);

    let told = chat("chat_stream.sse", None);
    assert_eq!(told.reported, None);
    assert!(told.terminal && told.finish && told.output_seen && !told.error);
    // "Hello" and ` \"wörld\" \u4f60` as written: 5 + 18 bytes.
    assert_eq!(told.partial, usage(1_000, 0, 0, 6, 0));

    let told = chat("chat_stream_usage.sse", USAGE_CHUNK);
    assert_eq!(told.reported, Some(usage(15, 4, 0, 7, 3)));
    assert_eq!(told.model.as_deref(), Some("gpt-4o-mini-2024-07-18"));

    let told = chat("chat_stream_tools.sse", USAGE_CHUNK);
    assert_eq!(told.reported, Some(usage(81, 0, 0, 42, 0)));
    assert!(told.output_seen);

    let told = chat("chat_stream_no_done.sse", None);
    assert_eq!(told.reported, Some(usage(12, 0, 0, 16, 0)));
    assert!(!told.terminal && told.finish);

    let told = chat("chat_stream_azure.sse", USAGE_CHUNK);
    assert_eq!(told.reported, Some(usage(9, 0, 0, 2, 0)));
    assert_eq!(told.model.as_deref(), Some("gpt-4o-2024-11-20"));

    let told = chat("chat_stream_running_usage.sse", None);
    assert_eq!(told.reported, Some(usage(14, 16, 0, 2, 12)));

    let told = chat("chat_stream_error.sse", None);
    assert!(told.terminal && told.error && !told.finish);
    assert_eq!((told.reported, told.partial.output), (None, 3));
}

#[test]
fn other_streams() {
    let told = every_chunking(
        "completions_stream.sse",
        Endpoint::Completions,
        Some(r#""choices":[],"model""#),
    );
    assert_eq!(told.reported, Some(usage(6, 0, 0, 4, 0)));
    assert!(told.terminal && told.finish && told.output_seen);

    let told = every_chunking("responses_stream.sse", Endpoint::Responses, None);
    assert_eq!(told.reported, Some(usage(37, 0, 0, 7, 4)));
    assert!(told.terminal && told.finish && told.output_seen && !told.error);
    assert_eq!(told.model.as_deref(), Some("gpt-5-mini-2025-08-07"));

    let told = every_chunking("responses_stream_failed.sse", Endpoint::Responses, None);
    assert_eq!((told.reported, told.partial.output), (None, 0));
    assert!(told.terminal && told.error && !told.output_seen);

    let told = every_chunking("messages_stream.sse", Endpoint::Messages, None);
    let expected = Usage {
        cache_write_1h: 100,
        ..usage(480, 2_048, 200, 89, 0)
    };
    assert_eq!(told.reported, Some(expected));
    assert!(told.terminal && told.finish && told.output_seen && !told.error);
    assert_eq!(told.model.as_deref(), Some("claude-sonnet-4-5-20250929"));

    let told = every_chunking("messages_stream_error.sse", Endpoint::Messages, None);
    assert!(told.terminal && told.error && told.output_seen);
    assert_eq!(told.reported, None);
    // The prompt as the provider counted it, the output from its 40 bytes.
    assert_eq!(
        told.partial,
        Usage {
            output: 10,
            cache_write_1h: 100,
            ..usage(472, 2_048, 200, 0, 0)
        }
    );
}

#[test]
fn json_answers() {
    let told = every_json_chunking("chat_unary.json", Endpoint::ChatCompletions);
    assert_eq!(told.reported, Some(usage(46, 1_920, 40, 172, 128)));
    assert_eq!(told.model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
    assert!(told.output_seen);
    let told = every_json_chunking("completions_unary.json", Endpoint::Completions);
    assert_eq!(told.reported, Some(usage(5, 0, 0, 7, 0)));
    let told = every_json_chunking("embeddings.json", Endpoint::Embeddings);
    assert_eq!(told.reported, Some(usage(8, 0, 0, 0, 0)));
    assert!(!told.output_seen);
    let told = every_json_chunking("responses_unary.json", Endpoint::Responses);
    assert_eq!(told.reported, Some(usage(40, 320, 0, 87, 100)));
    let told = every_json_chunking("messages_unary.json", Endpoint::Messages);
    let expected = Usage {
        cache_write_1h: 500,
        ..usage(2_095, 10_000, 1_000, 503, 0)
    };
    assert_eq!(told.reported, Some(expected));
    let told = every_json_chunking("count_tokens.json", Endpoint::CountTokens);
    assert_eq!((told.reported, told.output_seen), (None, false));
}

/// What a client that leaves after k events is charged, for every k.
#[test]
fn a_stream_cut_after_any_event_is_counted() {
    let cases = [
        ("chat_stream_running_usage.sse", Endpoint::ChatCompletions),
        ("messages_stream.sse", Endpoint::Messages),
        ("responses_stream.sse", Endpoint::Responses),
    ];
    for (name, endpoint) in cases {
        let recording = golden(name);
        let events: Vec<&[u8]> = std::str::from_utf8(&recording)
            .expect("UTF-8")
            .split_inclusive("\n\n")
            .map(str::as_bytes)
            .collect();
        let mut charged = 0;
        for relayed in 0..events.len() {
            let (_, told) = stream(endpoint, false, events[..relayed].iter().copied());
            let output = told.partial.output + told.partial.reasoning;
            assert!(output >= charged, "{name} after {relayed}");
            assert!(output > 0 || !told.output_seen, "{name} after {relayed}");
            charged = output;
        }
    }
    let running = golden("chat_stream_running_usage.sse");
    let cut = running
        .windows(2)
        .position(|end| end == b"\n\n")
        .expect("events")
        + 2;
    let (_, told) = stream(Endpoint::ChatCompletions, false, [&running[..cut]]);
    assert_eq!(told.reported, None, "a running count is not the final one");
    assert_eq!(told.partial, usage(14, 16, 0, 3, 0));
}

#[test]
fn roles_and_empty_deltas_are_no_output() {
    let chunks = [
        r#"{"choices":[]}"#,
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#,
        r#"{"choices":[{"index":0,"delta":{"content":null,"tool_calls":[]}}]}"#,
        "",
    ];
    for chunk in chunks {
        let event = format!("data: {chunk}\n\n");
        let (bytes, told) = stream(Endpoint::ChatCompletions, true, [event.as_bytes()]);
        assert_eq!(bytes, event.as_bytes());
        assert!(!told.output_seen && !told.terminal, "{chunk}");
    }
    let start = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\
        \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    let (_, told) = stream(Endpoint::Messages, false, [start.as_bytes()]);
    assert!(!told.output_seen);
}

#[test]
fn zeros_in_a_late_delta_do_not_erase_the_prompt() {
    let events = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":50,\"output_tokens\":1}}}\n\n\
        data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
        \"usage\":{\"input_tokens\":0,\"cache_read_input_tokens\":null,\"output_tokens\":9}}\n\n";
    let (_, told) = stream(Endpoint::Messages, false, [events.as_bytes()]);
    assert_eq!(told.reported, Some(usage(50, 0, 0, 9, 0)));
    assert!(!told.terminal && told.finish);
}

#[test]
fn an_event_may_span_data_lines_and_lack_its_blank_line() {
    let events = ": hello\r\nevent: x\ndata: {\"choices\":\ndata:[],\ndata: \"usage\":{\"prompt_tokens\":3,\n\
        data: \"completion_tokens\":4}}\n\ndata: [DONE]";
    let (bytes, told) = stream(Endpoint::ChatCompletions, false, [events.as_bytes()]);
    assert_eq!(bytes, events.as_bytes());
    assert_eq!(told.reported, Some(usage(3, 0, 0, 4, 0)));
    assert!(told.terminal);
}

#[test]
fn whole_chunks_are_not_copied() {
    let chunk = Bytes::from(golden("messages_stream.sse"));
    let mut splitter = EventSplitter::new(MAX_EVENT);
    let mut meter = Meter::for_stream(Endpoint::Messages, false);
    splitter.push(chunk.clone()).expect("short events");
    let batch = splitter.next_batch().expect("whole events");
    assert_eq!(batch.as_ptr(), chunk.as_ptr());
    assert_eq!(meter.on_events(batch).as_ptr(), chunk.as_ptr());
    assert_eq!((splitter.next_batch(), splitter.remainder()), (None, 0));
}

#[test]
fn an_event_leaves_with_the_read_that_completes_it() {
    for (head, blank) in [
        ("data: 1\n", "\n"),
        ("data: 1\r\n", "\r"),
        ("data: 1\r", "\r"),
    ] {
        let mut splitter = EventSplitter::new(64);
        splitter.push(Bytes::from(head)).expect("short");
        assert_eq!(
            (splitter.next_batch(), splitter.remainder()),
            (None, head.len())
        );
        splitter.push(Bytes::from(blank)).expect("short");
        let event = splitter.next_batch().expect("complete");
        assert_eq!(event, format!("{head}{blank}"));
        assert_eq!(splitter.remainder(), 0);
    }
}

#[test]
fn too_long_an_event_is_refused_in_every_chunking() {
    let stream = [b"data: 1\n\ndata: ".as_slice(), &[b'x'; 100], b"\n\n"].concat();
    for size in 1..=stream.len() {
        let mut splitter = EventSplitter::new(50);
        let mut got = Vec::new();
        let mut refused = false;
        for piece in stream.chunks(size) {
            refused |= splitter.push(Bytes::copy_from_slice(piece)).is_err();
            assert!(splitter.remainder() <= 50);
            while let Some(batch) = splitter.next_batch() {
                got.extend_from_slice(&batch);
            }
        }
        assert!(refused);
        assert_eq!(got, b"data: 1\n\n");
    }
    let mut splitter = EventSplitter::new(107);
    splitter
        .push(Bytes::from(stream))
        .expect_err("one byte over");
}

#[test]
fn what_is_not_one_json_object_reports_nothing() {
    let bodies = [
        "",
        "<html>usage</html>",
        "[{\"usage\":{\"prompt_tokens\":1}}]",
        "{\"usage\":{\"prompt_tokens\":1}",
        "{\"usage\":{\"prompt_tokens\":1}]",
        "{\"usage\":{\"prompt_tokens\":1},}",
        "{\"usage\":{\"prompt_tokens\":1}}{}",
        "{\"usage\":{\"prompt_tokens\":1},\"a\" 1}",
        "{\"usage\":null}",
        "{\"usage\":{}}",
        "{\"usage\":{\"prompt_tokens\":\"1\"}}",
        "{\"usage\":17}",
        "{\"a\":{\"usage\":{\"prompt_tokens\":1}}}",
    ];
    for body in bodies {
        let told = json(Endpoint::ChatCompletions, [body.as_bytes()]);
        assert_eq!(told.reported, None, "{body}");
    }
}

#[test]
fn kept_values_are_bounded() {
    let long = "x".repeat(100_000);
    let body = format!(r#"{{"model":"{long}","usage":{{"prompt_tokens":1,"x":"{long}"}}}}"#);
    let told = json(Endpoint::ChatCompletions, body.as_bytes().chunks(1_000));
    assert_eq!(
        (told.reported, told.model, told.terminal),
        (None, None, true)
    );
    let deep = format!("{{\"a\":{}", "[".repeat(1_000_000));
    assert!(!json(Endpoint::ChatCompletions, [deep.as_bytes()]).terminal);
}

fn reported(endpoint: Endpoint, usage: &str) -> Option<Usage> {
    json(endpoint, [format!("{{\"usage\":{usage}}}").as_bytes()]).reported
}

#[test]
fn odd_usage_is_read_with_care() {
    let chat = |text| reported(Endpoint::ChatCompletions, text);
    // Reasoning beside the completion tokens, told by the total.
    let beside = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,
        "completion_tokens_details":{"reasoning_tokens":100}}"#;
    assert_eq!(chat(beside), Some(usage(10, 0, 0, 5, 100)));
    let silent = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":20}"#;
    assert_eq!(chat(silent), Some(usage(10, 0, 0, 5, 5)));
    let more_cached_than_sent = r#"{"prompt_tokens":10,"completion_tokens":0,
        "prompt_tokens_details":{"cached_tokens":99,"cache_write_tokens":99}}"#;
    assert_eq!(chat(more_cached_than_sent), Some(usage(0, 10, 0, 0, 0)));
    let zeros = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
    assert_eq!(chat(zeros), Some(Usage::default()));
    let huge = r#"{"prompt_tokens":99999999999999999999,"completion_tokens":-3}"#;
    assert_eq!(chat(huge), Some(usage(u64::MAX, 0, 0, 0, 0)));
    let float = r#"{"prompt_tokens":12.0,"completion_tokens":1e2}"#;
    assert_eq!(chat(float), Some(usage(12, 0, 0, 100, 0)));
    let total_only = r#"{"total_tokens":7}"#;
    assert_eq!(
        reported(Endpoint::Embeddings, total_only),
        Some(usage(7, 0, 0, 0, 0))
    );
    assert_eq!(chat(total_only), None);
}

proptest! {
    #[test]
    fn openai_buckets_add_up_to_the_total(
        prompt in 0..1_000_000_u64, cached in 0..2_000_000_u64, written in 0..2_000_000_u64,
        completion in 0..1_000_000_u64, reasoning in 0..2_000_000_u64,
    ) {
        let total = prompt + completion;
        let chat = format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},
            "prompt_tokens_details":{{"cached_tokens":{cached},"cache_write_tokens":{written}}},
            "completion_tokens_details":{{"reasoning_tokens":{reasoning}}}}}"#);
        let responses = chat.replace("prompt", "input").replace("completion", "output");
        let usage = reported(Endpoint::ChatCompletions, &chat).expect("reported");
        prop_assert_eq!(usage.total(), total);
        prop_assert_eq!(usage.cache_read, cached.min(prompt));
        prop_assert_eq!(usage.reasoning, reasoning.min(completion));
        prop_assert_eq!(reported(Endpoint::Responses, &responses), Some(usage));
    }

    #[test]
    fn anthropic_buckets_add_up(
        input in 0..1_000_000_u64, read in 0..1_000_000_u64, five in 0..1_000_000_u64,
        hour in 0..1_000_000_u64, output in 0..1_000_000_u64,
    ) {
        let written = five + hour;
        let text = format!(r#"{{"input_tokens":{input},"cache_read_input_tokens":{read},
            "cache_creation_input_tokens":{written},"output_tokens":{output},
            "cache_creation":{{"ephemeral_5m_input_tokens":{five},"ephemeral_1h_input_tokens":{hour}}}}}"#);
        let usage = reported(Endpoint::Messages, &text).expect("reported");
        prop_assert_eq!(usage.total(), input + read + written + output);
        prop_assert_eq!((usage.cache_write, usage.cache_write_1h), (five, hour));
    }

    #[test]
    fn any_bytes_pass_unchanged_and_bounded(
        chunks in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                r#"(\r|\n|data: |event: error|\{"choices":\[\],|"usage":\{|"prompt_tokens":1|[\\"\[\]\{\},:]){0,9}"#
                    .prop_map(String::into_bytes),
            ],
            0..12,
        ),
    ) {
        let all = chunks.concat();
        for endpoint in Endpoint::ALL {
            let whole = stream(endpoint, false, [all.as_slice()]);
            prop_assert_eq!(&whole.0, &all);
            let cut = stream(endpoint, false, chunks.iter().map(Vec::as_slice));
            prop_assert_eq!(&cut.0, &all);
            let hiding = stream(endpoint, true, chunks.iter().map(Vec::as_slice));
            prop_assert_eq!(hiding, stream(endpoint, true, [all.as_slice()]));
            let pieces = json(endpoint, chunks.iter().map(Vec::as_slice));
            prop_assert_eq!(pieces, json(endpoint, [all.as_slice()]));
        }
    }

    #[test]
    fn usage_is_found_in_any_valid_json(
        before in ".{0,20}", after in prop::collection::vec(".{0,8}", 0..4), tokens in any::<u32>(), size in 1..50_usize,
    ) {
        let body = serde_json::json!({
            "a": before, "choices": [{"x": after.clone()}], "model": before,
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0}, "z": after,
        }).to_string();
        let told = json(Endpoint::ChatCompletions, body.as_bytes().chunks(size));
        prop_assert_eq!(told.reported, Some(usage(tokens.into(), 0, 0, 0, 0)));
        prop_assert_eq!(told.model.unwrap_or_default(), before);
    }
}
