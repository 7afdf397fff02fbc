//! The event sequence of a streamed Responses answer.
//!
//! Promise: `sequence_number` rises by one from 0; every item is added before its deltas and done
//! after them; exactly one of completed, incomplete or failed ends the stream (unless told not to).

use serde_json::{Value, json};

use crate::answer::{Answer, Call, Stop, piece_tokens, split};
use crate::control::Directives;
use crate::openai::responses::{Item, item_json, items, object, part};
use crate::sse::{Event, Events};

/// An event before it has its sequence number.
struct Step {
    kind: &'static str,
    fields: Value,
    tokens: Option<u64>,
}

fn step(kind: &'static str, fields: Value) -> Step {
    Step {
        kind,
        fields,
        tokens: None,
    }
}

type Steps = Box<dyn Iterator<Item = Step> + Send>;

/// The answer as events.
pub(crate) fn stream(answer: &Answer, request: &Value, directives: &Directives) -> Events {
    let opening = object(answer, request, directives, false);
    let mut steps: Steps = Box::new(
        [
            step("response.created", json!({"response": opening})),
            step("response.in_progress", json!({"response": opening})),
        ]
        .into_iter(),
    );
    let id = answer.id;
    for (index, item) in items(answer).into_iter().enumerate() {
        let start = step(
            "response.output_item.added",
            json!({"output_index": index, "item": item_json(&item, id, index, false)}),
        );
        let done = item_json(&item, id, index, true);
        let item_id = done["id"].clone();
        let end = step(
            "response.output_item.done",
            json!({"output_index": index, "item": done}),
        );
        let inner: Steps = match item {
            Item::Reasoning(text) => reasoning(text, index, &item_id),
            Item::Message(text) => message(text, index, &item_id),
            Item::Call(call) => arguments(&call, index, &item_id),
        };
        steps = Box::new(steps.chain([start]).chain(inner).chain([end]));
    }
    if !directives.fault.no_done {
        let kind = if answer.stop == Stop::Length {
            "response.incomplete"
        } else {
            "response.completed"
        };
        let response = object(answer, request, directives, true);
        steps = Box::new(steps.chain([step(kind, json!({"response": response}))]));
    }
    Box::new(steps.enumerate().map(|(number, step)| event(number, step)))
}

fn event(number: usize, step: Step) -> Event {
    let mut data = json!({"type": step.kind, "sequence_number": number});
    if let (Value::Object(data), Value::Object(fields)) = (&mut data, step.fields) {
        data.extend(fields);
    }
    let event = Event::named(step.kind, &data.to_string());
    match step.tokens {
        Some(tokens) => event.carrying(tokens),
        None => event,
    }
}

fn message(text: String, index: usize, id: &Value) -> Steps {
    let place = json!({"item_id": id, "output_index": index, "content_index": 0});
    let with = move |kind, extra: Value| step(kind, merged(&place, extra));
    let added = with("response.content_part.added", json!({"part": part("")}));
    let ends = [
        with(
            "response.output_text.done",
            json!({"text": text, "logprobs": []}),
        ),
        with("response.content_part.done", json!({"part": part(&text)})),
    ];
    let pieces: Vec<String> = pieces_of(&text);
    let deltas = pieces.into_iter().map(move |piece| Step {
        tokens: Some(piece_tokens(&piece)),
        ..with(
            "response.output_text.delta",
            json!({"delta": piece, "logprobs": []}),
        )
    });
    Box::new([added].into_iter().chain(deltas).chain(ends))
}

/// Four bytes each, except that one long run of `x` (directive `big`) stays in one piece.
fn pieces_of(text: &str) -> Vec<String> {
    match text.find("xxxxxxxxxxxxxxxx") {
        Some(at) => {
            let (words, big) = text.split_at(at);
            split(words).chain([big]).map(str::to_owned).collect()
        }
        None => split(text).map(str::to_owned).collect(),
    }
}

fn reasoning(text: String, index: usize, id: &Value) -> Steps {
    let place = json!({"item_id": id, "output_index": index, "summary_index": 0});
    let with = move |kind, extra: Value| step(kind, merged(&place, extra));
    let summary = |text: &str| json!({"part": {"type": "summary_text", "text": text}});
    let added = with("response.reasoning_summary_part.added", summary(""));
    let ends = [
        with(
            "response.reasoning_summary_text.done",
            json!({"text": text}),
        ),
        with("response.reasoning_summary_part.done", summary(&text)),
    ];
    let pieces: Vec<String> = split(&text).map(str::to_owned).collect();
    let deltas = pieces.into_iter().map(move |piece| Step {
        tokens: Some(1),
        ..with(
            "response.reasoning_summary_text.delta",
            json!({"delta": piece}),
        )
    });
    Box::new([added].into_iter().chain(deltas).chain(ends))
}

fn arguments(call: &Call, index: usize, id: &Value) -> Steps {
    let (delta_kind, done_kind, field) = match call.kind.as_str() {
        "local_shell" => return Box::new(std::iter::empty()),
        "custom" => (
            "response.custom_tool_call_input.delta",
            "response.custom_tool_call_input.done",
            "input",
        ),
        _ => (
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "arguments",
        ),
    };
    let place = json!({"item_id": id, "output_index": index});
    let mut last = merged(&place, json!({"name": call.name}));
    last[field] = call.arguments.as_str().into();
    let pieces: Vec<String> = split(&call.arguments).map(str::to_owned).collect();
    let deltas = pieces.into_iter().map(move |piece| Step {
        kind: delta_kind,
        fields: merged(&place, json!({"delta": piece})),
        tokens: Some(1),
    });
    Box::new(deltas.chain([step(done_kind, last)]))
}

fn merged(base: &Value, extra: Value) -> Value {
    let mut out = base.clone();
    if let (Value::Object(out), Value::Object(extra)) = (&mut out, extra) {
        out.extend(extra);
    }
    out
}

/// The event of a response that fails in the middle. Its number is high enough to be rising.
pub(crate) fn error(id: u64, model: &str, code: Option<&str>, message: Option<&str>) -> Event {
    let data = json!({"type": "response.failed", "sequence_number": 1_000_000, "response": {
        "id": format!("resp_mock_{id}"), "object": "response", "status": "failed", "model": model, "output": [],
        "error": {"code": code.unwrap_or("server_error"), "message": message.unwrap_or("mock error")},
        "usage": null,
    }});
    Event::named("response.failed", &data.to_string())
}
