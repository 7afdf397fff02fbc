//! `POST /v1/embeddings`, as numbers or as base64 of little-endian f32.
//!
//! Promise: the vector depends only on the input's index and its text length.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::answer::Answer;

const DEFAULT_DIMENSIONS: u64 = 8;
const MAX_DIMENSIONS: u64 = 4096;

/// The whole answer.
pub(crate) fn unary(body: &Value, answer: &Answer) -> Value {
    let dimensions = body["dimensions"]
        .as_u64()
        .unwrap_or(DEFAULT_DIMENSIONS)
        .clamp(1, MAX_DIMENSIONS);
    let base64 = body["encoding_format"] == "base64";
    let data: Vec<Value> = sizes(&body["input"])
        .into_iter()
        .enumerate()
        .map(|(index, size)| {
            let vector = vector(size, dimensions);
            let embedding = if base64 {
                encoded(&vector)
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let input = answer.tokens.input;
    json!({
        "object": "list", "data": data, "model": answer.model,
        "usage": {"prompt_tokens": input, "total_tokens": input},
    })
}

/// One size per input: bytes of a text, or numbers in an array of tokens.
fn sizes(input: &Value) -> Vec<usize> {
    match input {
        Value::Array(items) if items.first().is_some_and(Value::is_number) => vec![items.len()],
        Value::Array(items) => items
            .iter()
            .map(|item| {
                item.as_str()
                    .map_or_else(|| item.as_array().map_or(0, Vec::len), str::len)
            })
            .collect(),
        other => vec![other.as_str().map_or(0, str::len)],
    }
}

fn vector(size: usize, dimensions: u64) -> Vec<f32> {
    // Multiples of 1/64: exact in both encodings.
    let start = u16::try_from(size % 64).unwrap_or(0);
    (0..dimensions)
        .map(|i| f32::from((start + u16::try_from(i % 64).unwrap_or(0)) % 64) / 64.0)
        .collect()
}

fn encoded(vector: &[f32]) -> Value {
    let bytes: Vec<u8> = vector.iter().flat_map(|f| f.to_le_bytes()).collect();
    STANDARD.encode(bytes).into()
}
