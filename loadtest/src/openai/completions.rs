//! `POST /v1/completions`, the old text endpoint.

use serde_json::{Value, json};

use crate::answer::{Answer, piece_tokens};
use crate::control::Directives;
use crate::openai::{finish, quoted, usage};
use crate::request::Ask;
use crate::sse::{Event, Events};

/// The whole answer.
pub(crate) fn unary(answer: &Answer, ask: &Ask, directives: &Directives) -> Value {
    let text = answer.text.whole();
    let choices: Vec<Value> = (0..ask.choices)
        .map(|index| json!({"text": text, "index": index, "logprobs": null, "finish_reason": finish(&answer.stop)}))
        .collect();
    let mut body = json!({
        "id": format!("cmpl-mock-{}", answer.id), "object": "text_completion", "created": answer.created,
        "model": answer.model, "choices": choices,
    });
    if !directives.shape.usage.absent {
        body["usage"] = usage(&answer.tokens);
    }
    body
}

/// The answer as events.
pub(crate) fn stream(answer: Answer, ask: &Ask, directives: &Directives) -> Events {
    let head = format!(
        r#"{{"id":"cmpl-mock-{}","object":"text_completion","created":{},"model":{},"#,
        answer.id,
        answer.created,
        quoted(&answer.model)
    );
    let choices = ask.choices;
    let mut ends: Vec<Event> = (0..choices)
        .map(|i| {
            let finish = quoted(finish(&answer.stop));
            Event::data(&format!(
                r#"{head}"choices":[{{"text":"","index":{i},"logprobs":null,"finish_reason":{finish}}}]}}"#
            ))
        })
        .collect();
    if ask.include_usage && !directives.shape.usage.absent {
        ends.push(Event::data(&format!(
            r#"{head}"choices":[],"usage":{}}}"#,
            usage(&answer.tokens)
        )));
    }
    if !directives.fault.no_done {
        ends.push(Event::data("[DONE]"));
    }
    let pieces = answer
        .text
        .pieces()
        .flat_map(move |piece| (0..choices).map(move |i| (i, piece.clone())));
    let content = pieces.map(move |(i, piece)| {
        let text = quoted(&piece);
        Event::data(&format!(
            r#"{head}"choices":[{{"text":{text},"index":{i},"logprobs":null,"finish_reason":null}}]}}"#
        ))
        .carrying(piece_tokens(&piece))
    });
    Box::new(content.chain(ends))
}
