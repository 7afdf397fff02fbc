//! Counts what one upstream answer used while its bytes pass by.
//!
//! Promise: the client gets the upstream's bytes unchanged, except that a
//! usage chunk that only the gateway asked for is left out; usage comes in
//! disjoint buckets; no answer, however broken, panics or makes memory grow.
//! State: the tally of one answer. Failure: what cannot be read is not
//! counted; `reported` then stays `None` and `partial` estimates.

use bytes::Bytes;
use policy::{Tokens, Usage};

use crate::api::Endpoint;

mod json;
mod sse;
mod tally;
#[cfg(test)]
mod tests;
mod usage;
mod view;

pub use sse::{EventSplitter, EventTooLong};

use json::JsonScanner;
use sse::{Event, Events};
use tally::Tally;

/// Bytes of output text that count as one token where no usage was reported.
const BYTES_PER_TOKEN: u64 = 4;

/// Watches ONE upstream answer.
#[derive(Debug)]
pub struct Meter {
    endpoint: Endpoint,
    hide_usage_chunk: bool,
    tally: Tally,
    source: Source,
    /// The hidden chunk ended in CR: an LF that follows belongs to it.
    hidden_cr: bool,
}

/// What `on_chunk` reads.
#[derive(Debug)]
enum Source {
    /// One JSON document.
    Json(Box<JsonScanner>),
    /// A decoded copy of a stream of events.
    Events(EventSplitter),
}

/// The longest event of a decoded copy, in bytes; it is not counted, nor is
/// what follows it.
const MAX_COPIED_EVENT: usize = 1024 * 1024;

impl Meter {
    /// For a stream of events. `hide_usage_chunk`: the client did not ask for
    /// the usage chunk of chat and completions, the gateway did.
    pub fn for_stream(endpoint: Endpoint, hide_usage_chunk: bool) -> Self {
        Self {
            endpoint,
            hide_usage_chunk,
            tally: Tally::default(),
            source: Source::Events(EventSplitter::new(MAX_COPIED_EVENT)),
            hidden_cr: false,
        }
    }

    /// For an answer that is one JSON document.
    pub fn for_json(endpoint: Endpoint) -> Self {
        Self {
            source: Source::Json(Box::new(JsonScanner::new())),
            ..Self::for_stream(endpoint, false)
        }
    }

    /// Reads a batch of whole events and gives back the bytes for the client:
    /// the same `Bytes`, uncopied, unless a usage chunk is hidden; then they
    /// may be empty. An event without its blank line (the remainder of a
    /// stream that ended) is read like a whole one.
    pub fn on_events(&mut self, whole_events: Bytes) -> Bytes {
        let mut batch = whole_events;
        if self.hidden_cr && !batch.is_empty() {
            self.hidden_cr = false;
            if batch[0] == b'\n' {
                batch = batch.slice(1..);
            }
        }
        let mut kept = Vec::new();
        let mut kept_to = None;
        for event in Events::new(&batch) {
            if self.read(&event) && self.hide_usage_chunk {
                kept.extend_from_slice(&batch[kept_to.unwrap_or(0)..event.span.start]);
                kept_to = Some(event.span.end);
            }
        }
        let Some(from) = kept_to else {
            return batch;
        };
        self.hidden_cr = from == batch.len() && batch[from - 1] == b'\r';
        if kept.is_empty() {
            return batch.slice(from..);
        }
        kept.extend_from_slice(&batch[from..]);
        Bytes::from(kept)
    }

    /// True for a chunk that carries nothing but usage.
    fn read(&mut self, event: &Event<'_>) -> bool {
        match self.endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions => return self.tally.chat(event),
            Endpoint::Responses => self.tally.responses(event),
            Endpoint::Messages => self.tally.messages(event),
            Endpoint::Embeddings | Endpoint::CountTokens => {}
        }
        false
    }

    /// Reads the next bytes of an answer that the client gets as it is: a JSON
    /// document, or the decoded copy of a compressed stream. Chunks may be cut
    /// anywhere. A document reports nothing before it is complete.
    pub fn on_chunk(&mut self, chunk: &[u8]) {
        let batch = match &mut self.source {
            Source::Json(_) => return self.on_json(chunk),
            Source::Events(splitter) => {
                // A refused push still leaves the events before it.
                let _too_long = splitter.push(Bytes::copy_from_slice(chunk));
                splitter.next_batch()
            }
        };
        for event in Events::new(batch.as_deref().unwrap_or_default()) {
            self.read(&event);
        }
    }

    fn on_json(&mut self, chunk: &[u8]) {
        let Source::Json(json) = &mut self.source else {
            return;
        };
        json.push(chunk);
        self.tally.output_bytes = match self.endpoint {
            Endpoint::Embeddings | Endpoint::CountTokens => 0,
            _ => json.output_bytes(),
        };
        self.tally.terminal = json.is_complete();
        self.tally.finish = json.is_complete();
        // Space may follow a complete document, so this can be the second time.
        self.tally.usage = json.usage().and_then(|raw| match self.endpoint {
            Endpoint::CountTokens => None,
            Endpoint::Embeddings => usage::embeddings(raw),
            Endpoint::Messages => {
                let mut message = usage::AnthropicUsage::default();
                message.merge(raw);
                message.buckets()
            }
            _ => usage::openai(raw),
        });
        self.tally.usage_is_final = self.tally.usage.is_some();
        if let Some(model) = json.model() {
            self.tally.serve_model(model);
        }
    }

    /// The protocol's own end has passed: `[DONE]`, `message_stop`,
    /// `response.completed`, `.incomplete` or `.failed`, an error, or the end
    /// of a JSON document.
    pub fn saw_terminal(&self) -> bool {
        self.tally.terminal
    }

    /// Every choice seen so far has its finish reason. At a clean end of a
    /// chat stream this makes up for a server that sends no `[DONE]`.
    pub fn saw_finish(&self) -> bool {
        self.tally.finish
    }

    /// The stream carried an error or `response.failed`.
    pub fn saw_error(&self) -> bool {
        self.tally.error
    }

    /// The provider's own usage for the whole answer.
    pub fn reported(&self) -> Option<Usage> {
        self.tally.usage.filter(|_| self.tally.usage_is_final)
    }

    /// The provider has said something about usage, if not the last word.
    pub fn usage_seen(&self) -> bool {
        self.tally.usage.is_some()
    }

    /// What an answer that broke off has used so far, in tokens: the last
    /// running count of the provider, or an estimate from the relayed output
    /// text where that is larger. `prompt_estimate` stands for the prompt
    /// while the provider has said nothing about it.
    pub fn partial(&self, prompt_estimate: Tokens) -> Usage {
        let mut usage = self.tally.usage.unwrap_or(Usage {
            input: prompt_estimate.0,
            ..Usage::default()
        });
        let estimate = match self.endpoint {
            Endpoint::Embeddings | Endpoint::CountTokens => 0,
            _ => self.tally.output_bytes.div_ceil(BYTES_PER_TOKEN),
        };
        let output = estimate.saturating_sub(usage.reasoning);
        usage.output = usage.output.max(output);
        usage
    }

    /// Tokens of output so far: the provider's running count, or an estimate
    /// from the text that passed where that is larger.
    pub fn output_tokens(&self) -> u64 {
        let told = self
            .tally
            .usage
            .map_or(0, |usage| usage.output.saturating_add(usage.reasoning));
        told.max(self.tally.output_bytes / BYTES_PER_TOKEN)
    }

    /// Some generated text has passed; roles and empty deltas are none.
    pub fn output_seen(&self) -> bool {
        self.tally.output_bytes > 0
    }

    /// Where a Responses stream is: the `sequence_number` that an event after
    /// those read must have, and the id of the response where it was told.
    /// `None` for other streams and before the first event.
    pub fn responses_position(&self) -> Option<(u64, Option<&str>)> {
        let position = self.tally.position.as_ref()?;
        Some((position.next, position.id.as_deref()))
    }

    /// The model that the answer names.
    pub fn served_model(&self) -> Option<&str> {
        self.tally.model.as_deref()
    }
}
