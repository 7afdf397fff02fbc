//! `POST /v1/responses`: the objects. The events are in `responses_stream`.

use serde_json::{Value, json};

use crate::answer::{Answer, Call, Stop, Tokens, thinking_pieces};
use crate::control::Directives;

pub(crate) use crate::openai::responses_stream::{error, stream};

/// One item of `output`, with what a stream tells about it piece by piece.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Reasoning(String),
    Message(String),
    Call(Call),
}

/// The output items of an answer, in order.
pub(super) fn items(answer: &Answer) -> Vec<Item> {
    let mut items = Vec::new();
    if answer.thinking > 0 {
        items.push(Item::Reasoning(thinking_pieces(answer.thinking).collect()));
    }
    if !answer.text.is_empty() || answer.calls.is_empty() {
        items.push(Item::Message(answer.text.whole()));
    }
    items.extend(answer.calls.iter().cloned().map(Item::Call));
    items
}

/// An output item as JSON; `done` or as it looks when it is announced.
pub(super) fn item_json(item: &Item, answer_id: u64, index: usize, done: bool) -> Value {
    let status = if done { "completed" } else { "in_progress" };
    match item {
        Item::Reasoning(text) => json!({
            "type": "reasoning", "id": format!("rs_mock_{answer_id}_{index}"), "encrypted_content": null,
            "summary": if done { json!([{"type": "summary_text", "text": text}]) } else { json!([]) },
        }),
        Item::Message(text) => json!({
            "type": "message", "id": format!("msg_mock_{answer_id}_{index}"), "status": status, "role": "assistant",
            "content": if done { json!([part(text)]) } else { json!([]) },
        }),
        Item::Call(call) => call_json(call, &format!("fc_mock_{answer_id}_{index}"), status, done),
    }
}

/// An `output_text` part.
pub(super) fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn call_json(call: &Call, id: &str, status: &str, done: bool) -> Value {
    let arguments = if done { call.arguments.as_str() } else { "" };
    match call.kind.as_str() {
        "local_shell" => {
            let parsed: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            let command = match &parsed["command"] {
                Value::String(line) => json!(["bash", "-lc", line]),
                other => other.clone(),
            };
            json!({
                "type": "local_shell_call", "id": id, "call_id": call.id, "status": status,
                "action": {"type": "exec", "command": command, "env": {}, "timeout_ms": 10_000},
            })
        }
        "custom" => json!({
            "type": "custom_tool_call", "id": id, "call_id": call.id, "status": status,
            "name": call.name, "input": arguments,
        }),
        _ => json!({
            "type": "function_call", "id": id, "call_id": call.id, "status": status,
            "name": call.name, "arguments": arguments,
        }),
    }
}

/// `usage` of Responses.
fn usage(tokens: &Tokens) -> Value {
    json!({
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    })
}

/// The response object: finished, or as `response.created` shows it.
pub(super) fn object(
    answer: &Answer,
    request: &Value,
    directives: &Directives,
    done: bool,
) -> Value {
    let incomplete = answer.stop == Stop::Length;
    let output: Vec<Value> = if done {
        let all = items(answer);
        all.iter()
            .enumerate()
            .map(|(i, item)| item_json(item, answer.id, i, true))
            .collect()
    } else {
        Vec::new()
    };
    let echoed = |name: &str, default: Value| request.get(name).cloned().unwrap_or(default);
    json!({
        "id": format!("resp_mock_{}", answer.id), "object": "response", "created_at": answer.created,
        "status": match (done, incomplete) {
            (false, _) => "in_progress", (true, true) => "incomplete", (true, false) => "completed",
        },
        "error": null,
        "incomplete_details": if done && incomplete { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "instructions": null, "max_output_tokens": echoed("max_output_tokens", Value::Null),
        "model": answer.model, "output": output,
        "parallel_tool_calls": echoed("parallel_tool_calls", json!(true)),
        "previous_response_id": echoed("previous_response_id", Value::Null),
        "reasoning": {"effort": null, "summary": null}, "store": echoed("store", json!(true)),
        "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
        "top_p": 1.0, "truncation": "disabled", "user": null, "metadata": {},
        "usage": if done && !directives.shape.usage.absent { usage(&answer.tokens) } else { Value::Null },
    })
}

/// The whole answer.
pub(crate) fn unary(answer: &Answer, request: &Value, directives: &Directives) -> Value {
    object(answer, request, directives, true)
}
