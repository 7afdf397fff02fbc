//! What a request asks of its limits before it runs, and what it used after.

use crate::money::{NanoUsd, Tokens};
use crate::price::PerMillion;

/// What a request will use, as far as known before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Likely tokens: prompt and predicted answer.
    pub tokens: Tokens,
    /// Likely cost.
    pub cost: NanoUsd,
    /// The most tokens it can use: prompt and largest answer, all choices.
    pub strict_tokens: Tokens,
    /// The most it can cost.
    pub strict_cost: NanoUsd,
    /// The prompt's part of `strict_tokens`.
    pub prompt_tokens: Tokens,
    /// The prompt's part of `strict_cost`, rounded up.
    pub prompt_cost: NanoUsd,
    /// Price of an answer token.
    pub output_price: PerMillion,
    /// Answers asked for at once (`n`), at least 1; each may reach
    /// `max_tokens`.
    pub choices: u64,
}

/// What a request used in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// 1, or 0 for a request that shall not count.
    pub requests: u64,
    /// Tokens as limits count them (`Usage::limited`).
    pub tokens: Tokens,
    /// Its cost.
    pub cost: NanoUsd,
}

// === impl Demand ===

impl Default for Demand {
    fn default() -> Self {
        Self {
            tokens: Tokens::ZERO,
            cost: NanoUsd::ZERO,
            strict_tokens: Tokens::ZERO,
            strict_cost: NanoUsd::ZERO,
            prompt_tokens: Tokens::ZERO,
            prompt_cost: NanoUsd::ZERO,
            output_price: PerMillion(0),
            choices: 1,
        }
    }
}

impl Demand {
    /// Each field the larger of the two.
    pub(crate) fn largest(&self, other: &Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            cost: self.cost.max(other.cost),
            strict_tokens: self.strict_tokens.max(other.strict_tokens),
            strict_cost: self.strict_cost.max(other.strict_cost),
            prompt_tokens: self.prompt_tokens.max(other.prompt_tokens),
            prompt_cost: self.prompt_cost.max(other.prompt_cost),
            output_price: PerMillion(self.output_price.0.max(other.output_price.0)),
            choices: self.choices.max(other.choices),
        }
    }

    /// The largest `max_tokens` with which the request stays within `tokens`;
    /// `None` when the prompt alone is too large.
    pub(crate) fn answer_within_tokens(&self, tokens: u64) -> Option<u64> {
        let left = tokens.checked_sub(self.prompt_tokens.0)?;
        Some(left / self.choices.max(1)).filter(|answer| *answer > 0)
    }

    /// The largest `max_tokens` with which the request costs at most `cost`
    /// nano-dollars; `None` when the prompt alone costs more.
    pub(crate) fn answer_within_cost(&self, cost: u64) -> Option<u64> {
        let left = cost.checked_sub(self.prompt_cost.0)?;
        let each = u128::from(self.output_price.0) * u128::from(self.choices.max(1));
        let answer = (u128::from(left) * 1_000_000).checked_div(each)?;
        Some(u64::try_from(answer).unwrap_or(u64::MAX)).filter(|answer| *answer > 0)
    }
}
