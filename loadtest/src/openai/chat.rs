//! `POST /v1/chat/completions`.
//!
//! Promise: a usage-only chunk comes only when the request asked for it; a stream ends in
//! `[DONE]` unless told otherwise.

use serde_json::{Value, json};

use crate::answer::{Answer, Call, Tokens, piece_tokens, split, thinking_pieces};
use crate::control::Directives;
use crate::openai::{finish, quoted, usage};
use crate::request::Ask;
use crate::sse::{Event, Events};

/// The whole answer.
pub(crate) fn unary(answer: &Answer, ask: &Ask, directives: &Directives) -> Value {
    let text = answer.text.whole();
    let content = if text.is_empty() && !answer.calls.is_empty() {
        Value::Null
    } else {
        Value::from(text)
    };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !answer.calls.is_empty() {
        message["tool_calls"] = answer.calls.iter().map(tool_call).collect();
    }
    if answer.thinking > 0 {
        message["reasoning_content"] = thinking_pieces(answer.thinking).collect::<String>().into();
    }
    let choices: Vec<Value> = (0..ask.choices)
        .map(|index| {
            json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish(&answer.stop)})
        })
        .collect();
    let mut body = json!({
        "id": format!("chatcmpl-mock-{}", answer.id), "object": "chat.completion", "created": answer.created,
        "model": answer.model, "choices": choices, "service_tier": "default", "system_fingerprint": "fp_mock",
    });
    if !directives.shape.usage.absent {
        body["usage"] = usage(&answer.tokens);
    }
    body
}

fn tool_call(call: &Call) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

/// What chunks have in common.
struct Chunks {
    head: String,
    /// `,"usage":null`, nothing, or a growing report.
    usage: UsageField,
    sent: u64,
    tokens: Tokens,
}

#[derive(Clone, Copy, PartialEq)]
enum UsageField {
    Absent,
    Null,
    Growing,
}

impl Chunks {
    fn chunk(&mut self, index: u64, delta: &str, finish: Option<&str>, tokens: u64) -> Event {
        self.sent += tokens;
        let finish = finish.map_or_else(|| "null".to_owned(), quoted);
        let tail = self.tail();
        let head = &self.head;
        Event::data(&format!(
            r#"{head}"choices":[{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]{tail}}}"#
        ))
    }

    fn tail(&self) -> String {
        match self.usage {
            UsageField::Absent => String::new(),
            UsageField::Null => r#","usage":null"#.to_owned(),
            UsageField::Growing => {
                let so_far = Tokens {
                    output: self.sent,
                    ..self.tokens
                };
                format!(r#","usage":{}"#, usage(&so_far))
            }
        }
    }
}

/// The answer as events.
pub(crate) fn stream(answer: Answer, ask: &Ask, directives: &Directives) -> Events {
    let asked = ask.include_usage && !directives.shape.usage.absent;
    let mut chunks = Chunks {
        head: format!(
            r#"{{"id":"chatcmpl-mock-{}","object":"chat.completion.chunk","created":{},"model":{},"system_fingerprint":"fp_mock","#,
            answer.id,
            answer.created,
            quoted(&answer.model)
        ),
        usage: match (directives.shape.usage.in_every_chunk, asked) {
            (true, _) => UsageField::Growing,
            (false, true) => UsageField::Null,
            (false, false) => UsageField::Absent,
        },
        sent: 0,
        tokens: answer.tokens,
    };
    let choices = ask.choices;
    let openings: Vec<Event> = (0..choices)
        .map(|i| {
            chunks.chunk(
                i,
                r#"{"role":"assistant","content":"","refusal":null}"#,
                None,
                0,
            )
        })
        .collect();
    let mut ends: Vec<Event> = Vec::new();
    if asked {
        ends.push(Event::data(&format!(
            r#"{}"choices":[],"usage":{}}}"#,
            chunks.head,
            usage(&answer.tokens)
        )));
    }
    if !directives.fault.no_done {
        ends.push(Event::data("[DONE]"));
    }
    let deltas = deltas(&answer);
    let mut finishes: Option<Vec<u64>> = Some((0..choices).collect());
    let mut queue: Vec<Event> = Vec::new();
    let mut content = deltas.flat_map(move |delta| (0..choices).map(move |i| (i, delta.clone())));
    let stop = answer.stop;
    let body = std::iter::from_fn(move || {
        if let Some((i, (delta, tokens))) = content.next() {
            return Some(chunks.chunk(i, &delta, None, tokens).carrying(tokens));
        }
        if let Some(indices) = finishes.take() {
            queue = indices
                .iter()
                .rev()
                .map(|i| chunks.chunk(*i, "{}", Some(finish(&stop)), 0))
                .collect();
        }
        queue.pop()
    });
    Box::new(openings.into_iter().chain(body).chain(ends))
}

/// `delta` objects with their output tokens: thinking, text, then tool calls.
fn deltas(answer: &Answer) -> Box<dyn Iterator<Item = (String, u64)> + Send> {
    let thinking = thinking_pieces(answer.thinking)
        .map(|p| (format!(r#"{{"reasoning_content":{}}}"#, quoted(p)), 1));
    let text = answer
        .text
        .pieces()
        .map(|p| (format!(r#"{{"content":{}}}"#, quoted(&p)), piece_tokens(&p)));
    let calls: Vec<(String, u64)> = answer
        .calls
        .iter()
        .enumerate()
        .flat_map(call_deltas)
        .collect();
    Box::new(thinking.chain(text).chain(calls))
}

fn call_deltas((index, call): (usize, &Call)) -> Vec<(String, u64)> {
    let open = json!({"tool_calls": [{
        "index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""},
    }]});
    let pieces = split(&call.arguments).map(|piece| {
        let delta = json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]});
        (delta.to_string(), 1)
    });
    std::iter::once((open.to_string(), 0))
        .chain(pieces)
        .collect()
}
