//! The providers' usage objects as Tyr's disjoint buckets.
//!
//! Promise: no token is in two buckets, and the buckets add up to the total
//! that the provider reported. State: what an Anthropic stream said so far.
//! Failure: none; absent, null and malformed numbers are not counted, and an
//! object without a single known number is no usage at all.

use policy::Usage;

use super::view;

/// What OpenAI-style usage objects may say, under either set of names.
#[derive(Default)]
struct OpenAiUsage {
    input: Option<u64>,
    cached: Option<u64>,
    cache_written: u64,
    cache_hits: u64,
    output: Option<u64>,
    reasoning: u64,
    total: Option<u64>,
}

impl OpenAiUsage {
    fn read(usage: &[u8]) -> Self {
        let mut read = Self::default();
        for (name, value) in view::fields(usage) {
            match name {
                b"prompt_tokens" | b"input_tokens" => read.input = view::count(value),
                b"completion_tokens" | b"output_tokens" => read.output = view::count(value),
                b"total_tokens" => read.total = view::count(value),
                // DeepSeek's older spelling of cached tokens.
                b"prompt_cache_hit_tokens" => read.cache_hits = view::count(value).unwrap_or(0),
                b"prompt_tokens_details" | b"input_tokens_details" => {
                    for (name, value) in view::fields(value) {
                        match name {
                            b"cached_tokens" => read.cached = view::count(value),
                            b"cache_write_tokens" => {
                                read.cache_written = view::count(value).unwrap_or(0);
                            }
                            _ => {}
                        }
                    }
                }
                b"completion_tokens_details" | b"output_tokens_details" => {
                    read.reasoning = view::field(value, b"reasoning_tokens")
                        .and_then(view::count)
                        .unwrap_or(0);
                }
                _ => {}
            }
        }
        read
    }
}

/// Usage of chat, completions and responses.
pub(super) fn openai(usage: &[u8]) -> Option<Usage> {
    let read = OpenAiUsage::read(usage);
    if read.input.is_none() && read.output.is_none() {
        return None;
    }
    let input = read.input.unwrap_or(0);
    let cache_read = read.cached.unwrap_or(read.cache_hits).min(input);
    let cache_write = read.cache_written.min(input - cache_read);
    let output = read.output.unwrap_or(0);
    // Some providers leave reasoning out of the completion tokens; then the
    // total says so.
    let beside = match (read.input, read.output, read.total) {
        (Some(_), Some(_), Some(total)) => total.saturating_sub(input.saturating_add(output)),
        _ => 0,
    };
    let generated = output.saturating_add(beside);
    let reasoning = read.reasoning.max(beside).min(generated);
    Some(Usage {
        input: input - cache_read - cache_write,
        cache_read,
        cache_write,
        output: generated - reasoning,
        reasoning,
        ..Usage::default()
    })
}

/// Usage of embeddings: input only; some providers report just a total.
pub(super) fn embeddings(usage: &[u8]) -> Option<Usage> {
    let read = OpenAiUsage::read(usage);
    let input = read.input.or(read.total)?;
    let cache_read = read.cached.unwrap_or(0).min(input);
    Some(Usage {
        input: input - cache_read,
        cache_read,
        ..Usage::default()
    })
}

/// Usage of one Anthropic message, put together from the events of its stream.
#[derive(Clone, Debug, Default)]
pub(super) struct AnthropicUsage {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_written: Option<u64>,
    written_5m: Option<u64>,
    written_1h: Option<u64>,
    output: Option<u64>,
}

impl AnthropicUsage {
    /// Takes over what a usage object says: its numbers are cumulative, so
    /// they replace those said before. A cumulative number cannot fall to 0;
    /// such a 0 only means that the provider did not fill the field.
    pub(super) fn merge(&mut self, usage: &[u8]) {
        for (name, value) in view::fields(usage) {
            match name {
                b"input_tokens" => replace(&mut self.input, value),
                b"cache_read_input_tokens" => replace(&mut self.cache_read, value),
                b"cache_creation_input_tokens" => replace(&mut self.cache_written, value),
                b"output_tokens" => replace(&mut self.output, value),
                b"cache_creation" => {
                    for (name, value) in view::fields(value) {
                        match name {
                            b"ephemeral_5m_input_tokens" => replace(&mut self.written_5m, value),
                            b"ephemeral_1h_input_tokens" => replace(&mut self.written_1h, value),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The buckets so far; `None` when nothing was said.
    pub(super) fn buckets(&self) -> Option<Usage> {
        if self.input.is_none() && self.output.is_none() {
            return None;
        }
        let by_age = self
            .written_5m
            .unwrap_or(0)
            .saturating_add(self.written_1h.unwrap_or(0));
        let written = self.cache_written.unwrap_or(by_age);
        let cache_write_1h = self.written_1h.unwrap_or(0).min(written);
        Some(Usage {
            input: self.input.unwrap_or(0),
            cache_read: self.cache_read.unwrap_or(0),
            cache_write: written - cache_write_1h,
            cache_write_1h,
            output: self.output.unwrap_or(0),
            reasoning: 0,
        })
    }
}

fn replace(known: &mut Option<u64>, value: &[u8]) {
    if let Some(said) = view::count(value)
        && (said > 0 || known.is_none())
    {
        *known = Some(said);
    }
}
