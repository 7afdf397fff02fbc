//! The Anthropic wire: `POST /v1/messages` and `/v1/messages/count_tokens`.
//!
//! Promise: usage in `message_delta` is cumulative; input tokens leave out what the cache buckets
//! hold; every block is started before its deltas and stopped after them.

use serde_json::{Value, json};

use crate::answer::{Answer, Call, Stop, Tokens, piece_tokens, split, thinking_pieces};
use crate::control::Directives;
use crate::openai::quoted;
use crate::sse::{Event, Events};

const SIGNATURE: &str = "bW9jay1zaWduYXR1cmU=";

/// `stop_reason`.
fn stop_reason(stop: &Stop) -> &str {
    match stop {
        Stop::End => "end_turn",
        Stop::Length => "max_tokens",
        Stop::ToolUse => "tool_use",
        Stop::Other(text) => text,
    }
}

fn usage(tokens: &Tokens, output: u64) -> Value {
    json!({
        "input_tokens": tokens.fresh_input(),
        "cache_creation_input_tokens": tokens.cache_write + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": output,
        "service_tier": "standard",
    })
}

fn message(
    answer: &Answer,
    content: Vec<Value>,
    stop: Option<&str>,
    usage: Option<Value>,
) -> Value {
    let mut body = json!({
        "id": format!("msg_mock_{}", answer.id), "type": "message", "role": "assistant", "model": answer.model,
        "content": content, "stop_reason": stop, "stop_sequence": null,
    });
    if let Some(usage) = usage {
        body["usage"] = usage;
    }
    body
}

/// The whole answer.
pub(crate) fn unary(answer: &Answer, directives: &Directives) -> Value {
    let mut content = Vec::new();
    if answer.thinking > 0 {
        let text: String = thinking_pieces(answer.thinking).collect();
        content.push(json!({"type": "thinking", "thinking": text, "signature": SIGNATURE}));
    }
    if !answer.text.is_empty() || answer.calls.is_empty() {
        content.push(json!({"type": "text", "text": answer.text.whole()}));
    }
    content.extend(answer.calls.iter().map(|call| {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        json!({"type": "tool_use", "id": tool_id(call), "name": call.name, "input": input})
    }));
    let report =
        (!directives.shape.usage.absent).then(|| usage(&answer.tokens, answer.tokens.output));
    message(answer, content, Some(stop_reason(&answer.stop)), report)
}

fn tool_id(call: &Call) -> String {
    call.id.replace("call_", "toolu_")
}

/// `POST /v1/messages/count_tokens`.
pub(crate) fn count_tokens(answer: &Answer) -> Value {
    json!({"input_tokens": answer.tokens.input})
}

/// The answer as events.
pub(crate) fn stream(answer: &Answer, directives: &Directives) -> Events {
    let report = !directives.shape.usage.absent;
    let opening = message(
        answer,
        Vec::new(),
        None,
        report.then(|| usage(&answer.tokens, 1)),
    );
    let start = [
        Event::named(
            "message_start",
            &json!({"type": "message_start", "message": opening}).to_string(),
        ),
        Event::named("ping", r#"{"type":"ping"}"#),
    ];
    let mut events: Events = Box::new(start.into_iter());
    let mut index = 0;
    let mut add = |block: Value, deltas: Events| {
        let this = index;
        index += 1;
        let begin = json!({"type": "content_block_start", "index": this, "content_block": block});
        let stop = json!({"type": "content_block_stop", "index": this});
        let all = std::iter::once(Event::named("content_block_start", &begin.to_string()))
            .chain(deltas)
            .chain([Event::named("content_block_stop", &stop.to_string())]);
        let before = std::mem::replace(&mut events, Box::new(std::iter::empty()));
        events = Box::new(before.chain(all));
    };
    if answer.thinking > 0 {
        add(
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            thinking(0, answer.thinking),
        );
    }
    let mut at = u64::from(answer.thinking > 0);
    if !answer.text.is_empty() || answer.calls.is_empty() {
        let here = at;
        let deltas = answer.text.pieces().map(move |piece| {
            let delta = format!(r#"{{"type":"text_delta","text":{}}}"#, quoted(&piece));
            delta_event(here, &delta).carrying(piece_tokens(&piece))
        });
        add(json!({"type": "text", "text": ""}), Box::new(deltas));
        at += 1;
    }
    for call in &answer.calls {
        let block =
            json!({"type": "tool_use", "id": tool_id(call), "name": call.name, "input": {}});
        add(block, input(at, call));
        at += 1;
    }
    Box::new(events.chain(ends(answer, directives)))
}

fn ends(answer: &Answer, directives: &Directives) -> Vec<Event> {
    let mut delta = json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(&answer.stop), "stop_sequence": null},
    });
    if !directives.shape.usage.absent {
        let mut cumulative = usage(&answer.tokens, answer.tokens.output);
        if let Value::Object(fields) = &mut cumulative {
            fields.remove("cache_creation");
            fields.remove("service_tier");
        }
        delta["usage"] = cumulative;
    }
    let mut ends = vec![Event::named("message_delta", &delta.to_string())];
    if !directives.fault.no_done {
        ends.push(Event::named("message_stop", r#"{"type":"message_stop"}"#));
    }
    ends
}

fn delta_event(index: u64, delta: &str) -> Event {
    let data = format!(r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#);
    Event::named("content_block_delta", &data)
}

fn thinking(index: u64, count: u64) -> Events {
    let signature = format!(r#"{{"type":"signature_delta","signature":"{SIGNATURE}"}}"#);
    let deltas = thinking_pieces(count).map(move |piece| {
        delta_event(
            index,
            &format!(
                r#"{{"type":"thinking_delta","thinking":{}}}"#,
                quoted(piece)
            ),
        )
        .carrying(1)
    });
    Box::new(deltas.chain([delta_event(index, &signature)]))
}

fn input(index: u64, call: &Call) -> Events {
    let first = delta_event(index, r#"{"type":"input_json_delta","partial_json":""}"#);
    let pieces: Vec<Event> = split(&call.arguments)
        .map(|piece| {
            let delta = format!(
                r#"{{"type":"input_json_delta","partial_json":{}}}"#,
                quoted(piece)
            );
            delta_event(index, &delta).carrying(1)
        })
        .collect();
    Box::new([first].into_iter().chain(pieces))
}
