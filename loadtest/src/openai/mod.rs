//! The OpenAI wire: chat completions, completions, embeddings, Responses.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod responses;
mod responses_stream;

use serde_json::{Value, json};

use crate::answer::{Stop, Tokens};

/// A JSON string literal.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `finish_reason`.
fn finish(stop: &Stop) -> &str {
    match stop {
        Stop::End => "stop",
        Stop::Length => "length",
        Stop::ToolUse => "tool_calls",
        Stop::Other(text) => text,
    }
}

/// `usage` of chat completions and completions.
fn usage(tokens: &Tokens) -> Value {
    json!({
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}
