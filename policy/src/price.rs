//! What a request used, and what that costs.
//!
//! Buckets are disjoint: a token stands in exactly one of them, so every sum
//! here is a plain sum.

use crate::money::{MoneyError, NanoUsd, Tokens};

/// Tokens per price unit.
const MILLION: u128 = 1_000_000;

/// Tokens of one request in disjoint buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens neither read from nor written to the cache.
    pub input: u64,
    /// Prompt tokens read from the provider's cache.
    pub cache_read: u64,
    /// Prompt tokens written to the cache for its default life.
    pub cache_write: u64,
    /// Prompt tokens written to the cache for one hour.
    pub cache_write_1h: u64,
    /// Answer tokens other than reasoning.
    pub output: u64,
    /// Reasoning tokens.
    pub reasoning: u64,
}

/// A price in nano-dollars per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(pub u64);

/// Prices of one model, one per bucket of `Usage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// For `Usage::input`.
    pub input: PerMillion,
    /// For `Usage::cache_read`.
    pub cache_read: PerMillion,
    /// For `Usage::cache_write`.
    pub cache_write: PerMillion,
    /// For `Usage::cache_write_1h`.
    pub cache_write_1h: PerMillion,
    /// For `Usage::output`.
    pub output: PerMillion,
    /// For `Usage::reasoning`.
    pub reasoning: PerMillion,
}

// === impl Usage ===

impl Usage {
    /// What a `tokens` limit counts: everything except cache reads.
    #[must_use]
    pub fn limited(&self) -> Tokens {
        Tokens(
            self.input
                .saturating_add(self.cache_write)
                .saturating_add(self.cache_write_1h)
                .saturating_add(self.output)
                .saturating_add(self.reasoning),
        )
    }

    /// All tokens.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.limited().0.saturating_add(self.cache_read)
    }

    /// Whether nothing was used.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

// === impl PerMillion ===

impl PerMillion {
    /// Reads dollars per million tokens written as a decimal number.
    ///
    /// # Errors
    /// As `NanoUsd::from_decimal`.
    pub fn from_decimal(text: &str) -> Result<Self, MoneyError> {
        NanoUsd::from_decimal(text).map(|amount| Self(amount.0))
    }
}

// === impl Price ===

impl Price {
    /// Costs nothing.
    pub const FREE: Self = Self {
        input: PerMillion(0),
        cache_read: PerMillion(0),
        cache_write: PerMillion(0),
        cache_write_1h: PerMillion(0),
        output: PerMillion(0),
        reasoning: PerMillion(0),
    };

    /// Not known. Such a model is not served; charged by mistake, it would cost
    /// more than any budget has.
    pub const UNKNOWN: Self = Self {
        input: PerMillion(u64::MAX),
        cache_read: PerMillion(u64::MAX),
        cache_write: PerMillion(u64::MAX),
        cache_write_1h: PerMillion(u64::MAX),
        output: PerMillion(u64::MAX),
        reasoning: PerMillion(u64::MAX),
    };

    /// Whether a request may be served at this price.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self != Self::UNKNOWN
    }

    /// The cost of a request: all buckets summed exactly, then rounded up
    /// once to a whole nano-dollar.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let buckets = [
            (usage.input, self.input),
            (usage.cache_read, self.cache_read),
            (usage.cache_write, self.cache_write),
            (usage.cache_write_1h, self.cache_write_1h),
            (usage.output, self.output),
            (usage.reasoning, self.reasoning),
        ];
        let sum = buckets.iter().fold(0_u128, |sum, (tokens, price)| {
            // Six products of 64 by 64 bits can pass 2^128 only together.
            sum.saturating_add(u128::from(*tokens) * u128::from(price.0))
        });
        NanoUsd(u64::try_from(sum.div_ceil(MILLION)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_rounds_up_once() {
        check(&[], "0", 0);
        check(&[1], "0.15", 150);
        // Two buckets of half a nano-dollar each are one, not two.
        check(&[1, 1], "0.0005", 1);
        check(&[1], "0.000000001", 1);
        check(&[1_000_000], "0.000000001", 1);
        check(&[1_000_001], "0.000000001", 2);
        check(&[1_000_000, 1_000_000], "2.5", 5_000_000_000);
        check(
            &[u64::MAX, u64::MAX, u64::MAX],
            "18446744073.709551615",
            u64::MAX,
        );
    }

    /// The first buckets hold `tokens`; every bucket has the same price.
    #[track_caller]
    fn check(tokens: &[u64], dollars_per_million: &str, nano: u64) {
        let each = PerMillion::from_decimal(dollars_per_million).unwrap();
        let price = Price {
            input: each,
            cache_read: each,
            cache_write: each,
            cache_write_1h: each,
            output: each,
            reasoning: each,
        };
        let bucket = |index: usize| tokens.get(index).copied().unwrap_or(0);
        let usage = Usage {
            input: bucket(0),
            cache_read: bucket(1),
            cache_write: bucket(2),
            cache_write_1h: bucket(3),
            output: bucket(4),
            reasoning: bucket(5),
        };
        assert_eq!(
            price.cost(&usage),
            NanoUsd(nano),
            "{tokens:?} at {dollars_per_million}"
        );
    }

    #[test]
    fn cache_reads_are_not_limited() {
        let usage = Usage {
            input: 1,
            cache_read: 10,
            cache_write: 100,
            cache_write_1h: 1_000,
            output: 10_000,
            reasoning: 100_000,
        };
        assert_eq!(usage.limited(), Tokens(111_101));
        assert_eq!(usage.total(), 111_111);
        assert!(!usage.is_zero());
        assert!(Usage::default().is_zero());
        assert_eq!(Price::FREE.cost(&usage), NanoUsd::ZERO);
    }
}
