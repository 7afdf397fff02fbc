//! How many tokens a byte of prompt makes, learnt per model from what
//! providers report.
//!
//! Promise: all callers of a model share its ratio, so no single report moves
//! it by more than a ninth of the distance, however large its prompt is, and
//! small prompts move it less; what a strict limit holds never falls below one
//! token in four bytes, whatever was learnt. State: one atomic, lock-free.
//! Failure: none; a report that tells nothing is left out.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::money::Tokens;

#[cfg(test)]
mod tests;

/// The weight of all that was learnt, in bytes of prompt: older reports fade
/// as newer ones come.
const WINDOW: u64 = 512 * 1024;
/// The weight of one token in four bytes, which is known from the start.
const PRIOR: u64 = 64 * 1024;
/// The largest weight of one report, in bytes of prompt.
const MOST_WEIGHT: u64 = 8 * 1024;
/// Shorter prompts are mostly what the provider itself adds, or stand for a
/// conversation that the provider keeps. In bytes.
const LEAST_BYTES: u64 = 200;
/// Tokens are kept in parts of this size, so that small reports count.
const PARTS: u64 = 4096;
/// A report counts as at least one token in this many bytes, and at most as
/// one token a byte.
const MOST_BYTES_A_TOKEN: u64 = 20;
/// What strict limits hold at least, and where learning starts.
const BYTES_A_TOKEN: u64 = 4;

/// A moving average of tokens per byte.
#[derive(Debug)]
pub struct TokenRatio {
    /// A packed [`Sums`].
    packed: AtomicU64,
}

/// Faded sums over the reports. Both fit 32 bits: `bytes` is at most `WINDOW`,
/// `parts` at most `WINDOW * PARTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sums {
    bytes: u64,
    /// Tokens in parts of `PARTS`.
    parts: u64,
}

// === impl Sums ===

impl Sums {
    const START: Self = Self {
        bytes: PRIOR,
        parts: PRIOR * PARTS / BYTES_A_TOKEN,
    };

    const fn pack(self) -> u64 {
        self.bytes << 32 | self.parts
    }

    fn unpack(packed: u64) -> Self {
        Self {
            bytes: packed >> 32,
            parts: packed & u64::from(u32::MAX),
        }
    }

    fn with(self, bytes: u64, tokens: u64) -> Self {
        let weight = bytes.min(MOST_WEIGHT);
        let parts = u128::from(tokens) * u128::from(weight * PARTS) / u128::from(bytes);
        let most = weight * PARTS;
        let parts = u64::try_from(parts)
            .unwrap_or(most)
            .clamp(most / MOST_BYTES_A_TOKEN, most);
        let kept = self.bytes.min(WINDOW - weight);
        Self {
            bytes: kept + weight,
            parts: self.parts * kept / self.bytes + parts,
        }
    }
}

// === impl TokenRatio ===

impl Default for TokenRatio {
    fn default() -> Self {
        Self {
            packed: AtomicU64::new(Sums::START.pack()),
        }
    }
}

impl TokenRatio {
    /// A ratio that has learnt nothing yet: one token in four bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Likely tokens of a prompt of `bytes` bytes, rounded up.
    #[must_use]
    pub fn estimate(&self, bytes: u64) -> Tokens {
        let sums = Sums::unpack(self.packed.load(Ordering::Relaxed));
        let tokens = u128::from(bytes) * u128::from(sums.parts);
        let tokens = tokens.div_ceil(u128::from(sums.bytes * PARTS));
        Tokens(u64::try_from(tokens).unwrap_or(u64::MAX))
    }

    /// What a strict limit holds for a prompt of `bytes` bytes: the likely
    /// tokens, but at least one in four bytes, since other callers' prompts
    /// may have taught a lower ratio.
    #[must_use]
    pub fn estimate_strict(&self, bytes: u64) -> Tokens {
        self.estimate(bytes)
            .max(Tokens(bytes.div_ceil(BYTES_A_TOKEN)))
    }

    /// Takes in that a prompt of `bytes` bytes made `input_tokens` tokens,
    /// cached ones included. It counts by its size up to 8 KiB, and as a ratio
    /// between 0.05 and 1. Nothing is learnt from an empty report or from a
    /// prompt under 200 bytes.
    pub fn learn(&self, bytes: u64, input_tokens: u64) {
        if bytes < LEAST_BYTES || input_tokens == 0 {
            return;
        }
        let mut seen = self.packed.load(Ordering::Relaxed);
        loop {
            let new = Sums::unpack(seen).with(bytes, input_tokens).pack();
            let stored =
                self.packed
                    .compare_exchange_weak(seen, new, Ordering::Relaxed, Ordering::Relaxed);
            match stored {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }
}
