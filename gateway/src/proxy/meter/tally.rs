//! What one upstream answer has told so far, and the events of each protocol
//! that tell it.
//!
//! Promise: an event that cannot be read changes nothing. State: the tally of
//! one answer. Failure: none.

use policy::Usage;

use super::sse::Event;
use super::usage::{self, AnthropicUsage};
use super::view;

/// The longest name of a served model that is kept, in bytes.
const MAX_MODEL: usize = 256;
/// The longest id of a response that is kept, in bytes.
const MAX_ID: usize = 256;

/// Running facts about one answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// The last usage said, whether or not it is the final one.
    pub(super) usage: Option<Usage>,
    /// `usage` covers the whole answer.
    pub(super) usage_is_final: bool,
    pub(super) terminal: bool,
    pub(super) error: bool,
    /// The answer's text is complete, in every choice seen so far.
    pub(super) finish: bool,
    /// Bytes of generated text as written in the events, escapes included.
    pub(super) output_bytes: u64,
    pub(super) model: Option<String>,
    /// Where a Responses stream is; `None` before its first event.
    pub(super) position: Option<Position>,
    message: AnthropicUsage,
    choices: Choices,
}

/// How far a Responses stream has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    /// The `sequence_number` for an event after those seen.
    pub(super) next: u64,
    /// The id of the response.
    pub(super) id: Option<String>,
}

/// Which choices of a chat stream were seen, and which of them have finished:
/// one bit an index.
#[derive(Clone, Copy, Debug, Default)]
struct Choices {
    seen: u128,
    finished: u128,
    /// An index without a bit was seen, so it is not known when all are done.
    beyond: bool,
}

impl Choices {
    fn see(&mut self, index: u64, finished: bool) {
        match u32::try_from(index)
            .ok()
            .and_then(|i| 1_u128.checked_shl(i))
        {
            Some(bit) => {
                self.seen |= bit;
                self.finished |= if finished { bit } else { 0 };
            }
            None => self.beyond = true,
        }
    }

    fn have_finished(self) -> bool {
        !self.beyond && self.finished != 0 && self.finished == self.seen
    }
}

impl Tally {
    /// Keeps the first model named. Azure's first chunk names an empty one.
    pub(super) fn serve_model(&mut self, value: &[u8]) {
        if self.model.is_some() || value.len() > MAX_MODEL {
            return;
        }
        self.model = owned_text(value);
    }

    pub(super) fn fail(&mut self) {
        self.error = true;
        self.terminal = true;
    }

    /// One event of chat or completions; true when it is the usage chunk: no
    /// choices, only usage.
    pub(super) fn chat(&mut self, event: &Event<'_>) -> bool {
        let data = event.data.trim_ascii();
        if data == b"[DONE]" {
            self.terminal = true;
            self.usage_is_final = self.usage.is_some();
            return false;
        }
        if event.name == b"error" {
            self.fail();
            return false;
        }
        let mut no_choices = false;
        let mut usage = None;
        for (name, value) in view::fields(data) {
            match name {
                b"choices" => {
                    no_choices = view::items(value).next().is_none();
                    view::items(value).for_each(|choice| self.choice(choice));
                }
                b"usage" if view::is_set(value) => usage = usage::openai(value),
                b"model" => self.serve_model(value),
                b"error" if view::is_set(value) => self.fail(),
                _ => {}
            }
        }
        if usage.is_none() {
            return false;
        }
        self.usage = usage;
        // Some servers count up in every chunk; only what comes with or after
        // the finish is the whole.
        self.usage_is_final = no_choices || self.finish;
        no_choices
    }

    fn choice(&mut self, choice: &[u8]) {
        let mut index = 0;
        let mut finished = false;
        for (name, value) in view::fields(choice) {
            match name {
                b"delta" => self.output_bytes += chat_delta(value),
                b"text" => self.output_bytes += view::text_len(value),
                b"index" => index = view::count(value).unwrap_or(0),
                b"finish_reason" => finished = view::is_set(value),
                _ => {}
            }
        }
        self.choices.see(index, finished);
        self.finish = self.choices.have_finished();
    }

    /// One event of the Responses API.
    pub(super) fn responses(&mut self, event: &Event<'_>) {
        let (mut kind, mut delta, mut response) = (event.name, None, None);
        let (mut error, mut number) = (false, None);
        for (name, value) in view::fields(&event.data) {
            match name {
                b"type" => kind = view::text(value).unwrap_or(kind),
                b"sequence_number" => number = view::count(value),
                b"delta" => delta = Some(value),
                b"response" => response = Some(value),
                b"error" => error = view::is_set(value),
                _ => {}
            }
        }
        self.advance(number.unwrap_or(0));
        match kind {
            b"response.completed" | b"response.incomplete" | b"response.failed" => {
                self.terminal = true;
                self.finish = true;
                self.error |= kind == b"response.failed";
                self.response(response.unwrap_or(b""));
            }
            b"response.created" | b"response.in_progress" => {
                self.response_begins(response.unwrap_or(b""));
            }
            b"error" => self.fail(),
            // Sound, not text.
            b"response.audio.delta" => {}
            _ if kind.ends_with(b".delta") => {
                self.output_bytes += delta.map_or(0, view::text_len);
            }
            b"" | b"message" if error => self.fail(),
            _ => {}
        }
    }

    /// One more event of a Responses stream has passed.
    fn advance(&mut self, number: u64) {
        let position = self.position.get_or_insert_default();
        // A server that does not number its events is counted along.
        position.next = position.next.max(number).saturating_add(1);
    }

    fn response_begins(&mut self, body: &[u8]) {
        for (name, value) in view::fields(body) {
            match name {
                b"id" if value.len() <= MAX_ID => {
                    let position = self.position.get_or_insert_default();
                    position.id = position.id.take().or_else(|| owned_text(value));
                }
                b"model" => self.serve_model(value),
                _ => {}
            }
        }
    }

    fn response(&mut self, body: &[u8]) {
        for (name, value) in view::fields(body) {
            match name {
                b"usage" => {
                    self.usage = usage::openai(value).or(self.usage);
                    self.usage_is_final = self.usage.is_some();
                }
                b"model" => self.serve_model(value),
                _ => {}
            }
        }
    }

    /// One event of a streamed Anthropic message.
    pub(super) fn messages(&mut self, event: &Event<'_>) {
        let mut kind = event.name;
        let (mut message, mut usage, mut delta, mut block) = (None, None, None, None);
        let mut error = false;
        for (name, value) in view::fields(&event.data) {
            match name {
                b"type" => kind = view::text(value).unwrap_or(kind),
                b"message" => message = Some(value),
                b"usage" => usage = Some(value),
                b"delta" => delta = Some(value),
                b"content_block" => block = Some(value),
                b"error" => error = view::is_set(value),
                _ => {}
            }
        }
        match kind {
            b"content_block_delta" => self.output_bytes += block_text(delta.unwrap_or(b"")),
            b"content_block_start" => self.output_bytes += block_text(block.unwrap_or(b"")),
            b"message_start" => {
                for (name, value) in view::fields(message.unwrap_or(b"")) {
                    match name {
                        b"usage" => self.message_usage(value),
                        b"model" => self.serve_model(value),
                        _ => {}
                    }
                }
            }
            b"message_delta" => {
                self.message_usage(usage.unwrap_or(b""));
                let stopped = delta.and_then(|delta| view::field(delta, b"stop_reason"));
                if stopped.is_some_and(view::is_set) {
                    self.finish = true;
                    self.usage_is_final = usage.is_some() && self.usage.is_some();
                }
            }
            b"message_stop" => {
                self.terminal = true;
                self.usage_is_final = self.usage.is_some();
            }
            b"error" => self.fail(),
            b"" if error => self.fail(),
            _ => {}
        }
    }

    fn message_usage(&mut self, value: &[u8]) {
        self.message.merge(value);
        self.usage = self.message.buckets();
    }
}

/// The text of a string, escapes resolved; `None` for empty or other values.
fn owned_text(value: &[u8]) -> Option<String> {
    let text = match view::text(value)? {
        raw if raw.contains(&b'\\') => serde_json::from_slice(value).ok(),
        raw => std::str::from_utf8(raw).ok().map(str::to_owned),
    };
    text.filter(|text| !text.is_empty())
}

/// Bytes of generated text in the `delta` of a chat choice.
fn chat_delta(delta: &[u8]) -> u64 {
    let mut bytes = 0;
    let mut reasoning = 0;
    for (name, value) in view::fields(delta) {
        match name {
            b"content" | b"refusal" => bytes += view::text_len(value),
            // Two spellings of one text; some servers send both.
            b"reasoning_content" | b"reasoning" => {
                reasoning = view::text_len(value).max(reasoning);
            }
            b"tool_calls" => {
                for call in view::items(value) {
                    let function = view::field(call, b"function");
                    bytes += function.map_or(0, function_text);
                }
            }
            b"function_call" => bytes += function_text(value),
            b"audio" => bytes += view::field(value, b"transcript").map_or(0, view::text_len),
            _ => {}
        }
    }
    bytes + reasoning
}

/// Bytes of a function's name and arguments.
fn function_text(function: &[u8]) -> u64 {
    view::fields(function)
        .filter(|(name, _)| matches!(*name, b"name" | b"arguments"))
        .map(|(_, value)| view::text_len(value))
        .sum()
}

/// Bytes of generated text in a content block or its delta.
fn block_text(block: &[u8]) -> u64 {
    view::fields(block)
        .filter(|(name, _)| matches!(*name, b"text" | b"thinking" | b"partial_json" | b"name"))
        .map(|(_, value)| view::text_len(value))
        .sum()
}
